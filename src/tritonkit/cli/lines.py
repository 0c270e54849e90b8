"""Labelled lines for people, wrapped to the terminal."""

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


def print_line(label: str, text: str) -> None:
    """`  label          text`, the text as wide as the terminal and not above 100 columns.

    What cannot be printed, in the name of a node or a tensor, is replaced.
    """
    text = printable(text)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
    width = max(40, min(columns, _WIDTH) - _INDENT)
    for i, part in enumerate(wrap(text, width, break_long_words=False, break_on_hyphens=False)):
        click.echo(f"  {label if not i else '':<15}{part}")
