"""A report on a terminal, as wide as that is; anywhere else with lines as long as they are."""

from __future__ import annotations

import io

import click
from rich.console import Console, RenderableType

_UNBOUNDED = 100_000
"""Columns; no line of a report is as long."""


def print_report(report: RenderableType) -> None:
    """On standard output, without blanks at the ends of lines where that is no terminal."""
    console = Console()
    if console.is_terminal:
        console.print(report)
        return
    lines = Console(file=io.StringIO(), width=_UNBOUNDED, force_terminal=False)
    with lines.capture() as captured:
        lines.print(report)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def print_progress(console: Console, line: str) -> None:
    """A line as it is: nothing in a model's name is markup, and only a terminal has a width."""
    console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal)
