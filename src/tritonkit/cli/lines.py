"""Labelled lines for people, wrapped to the terminal; elsewhere each is as long as it is."""

from __future__ import annotations

import shutil
import sys
from textwrap import wrap

import click

_INDENT = 17
_WIDTH = 100 + _INDENT


def printable(text: str) -> str:
    """The text on one line, with a mark for each character that cannot be printed."""
    return "".join(c if c.isprintable() else "�" for c in text)


def columns() -> int | None:
    """How wide the terminal is; None where standard output is none."""
    # It is None where it was closed.
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if is_terminal else None


def print_line(label: str, text: str) -> None:
    """`  label          text`, the text as wide as the terminal and not above 100 columns; on one
    line where it goes to a file or another program.

    What cannot be printed, in the name of a node or a tensor, is replaced.
    """
    text = printable(text)
    parts = [text] if text else []
    if (wide := columns()) is not None:
        width = max(40, min(wide, _WIDTH) - _INDENT)
        parts = wrap(text, width, break_long_words=False, break_on_hyphens=False)
    for i, part in enumerate(parts):
        click.echo(f"  {label if not i else '':<15}{part}")
