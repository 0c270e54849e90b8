"""The report for a terminal of 80 columns: the verdict, the arms, then the levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tritonkit.report.prose import BASELINE
from tritonkit.report.view import LevelView, ReportView, build_view


def render_text(result: Mapping[str, Any]) -> RenderableType:
    """The same numbers as the page, for `Console.print`. Colour only repeats what words say."""
    view = build_view(result)
    # Text, never str: rich would read square brackets in a model's name as markup.
    parts: list[RenderableType] = [Text(view.headline, style="bold"), Text(view.because)]
    if view.settings:
        parts.append(Text(f"Settings: {view.settings}."))
    parts += [Text(), Text(_arms_title(view), style="bold"), _arms(view)]
    if any(arm.key == BASELINE for arm in view.arms):
        parts.append(Text("thr×inst: threads × instances; ONNX Runtime: × runs at a time"))
    parts += [Text(), Text("Levels (times in ms)", style="bold"), _levels(view)]
    return Group(*parts)


def _arms_title(view: ReportView) -> str:
    needed = f"; needed {view.needed}" if view.needed else ""
    chosen = "; * chosen" if any(arm.chosen for arm in view.arms) else ""
    return f"Capacity: p99 within {view.budget}, no errors{needed}{chosen}"


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)


def _arms(view: ReportView) -> RenderableType:
    table = _table()
    table.add_column("arm", overflow="fold", max_width=18)
    for name in ("rps", "× base", "ceiling", "p50 ms", "p99 ms", "batch", "thr×inst"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm in view.arms:
        table.add_row(
            Text(arm.short + (" *" if arm.chosen else "")),
            arm.capacity,
            arm.versus_baseline,
            arm.share,
            arm.p50,
            arm.p99,
            arm.mean_batch,
            f"{arm.threads}×{arm.instances}",
            style="bold" if arm.chosen else "",
        )
    return table


def _levels(view: ReportView) -> RenderableType:
    table = _table()
    table.add_column("arm", overflow="fold", max_width=14)
    table.add_column("offered", justify="right", no_wrap=True)
    for name in ("rps", "p50", "p99", "batch"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("remark", overflow="fold")
    for arm in view.arms:
        for place, level in enumerate(arm.levels):
            table.add_row(
                Text(arm.short if place == 0 else ""),
                level.offered,
                level.achieved,
                level.p50,
                level.p99,
                level.mean_batch,
                Text("; ".join(level.marks + level.asides)),
                style=_style(level),
                end_section=place == len(arm.levels) - 1,
            )
    return table


def _style(level: LevelView) -> str:
    if level.over_budget or level.has_errors or level.point is None:
        return "red"
    return "bold" if level.is_capacity else ""
