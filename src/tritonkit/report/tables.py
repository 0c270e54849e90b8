"""Tables of the reports on the screen."""

from __future__ import annotations

from rich import box
from rich.table import Table


def table_of(*columns: str, left: int = 1, width: int = 18) -> Table:
    """left: how many of the first columns are words, which may fold at width; numbers never do."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, name in enumerate(columns):
        if place < left:
            table.add_column(name, overflow="fold", max_width=width)
        else:
            table.add_column(name, justify="right", no_wrap=True)
    return table
