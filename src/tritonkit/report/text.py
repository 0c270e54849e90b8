"""The report for a terminal of 80 columns: the verdict, the arms, and what to hold against it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tritonkit.report import prose
from tritonkit.report.formats import DASH, NBSP
from tritonkit.report.tables import table_of
from tritonkit.report.view import ReportView, build_view


def render_text(result: Mapping[str, Any]) -> RenderableType:
    """The same numbers as the page, for `Console.print`. Colour only repeats what words say."""
    view = build_view(result)
    # Text, never str: rich would read square brackets in a model's name as markup.
    heads = [Text(line, style="bold") for line in (view.headline, view.against) if line]
    parts: list[RenderableType] = [*heads, Text(view.because)]
    if view.settings:
        parts.append(Text(f"Settings: {view.settings}."))
    for title, body in _sections(view):
        parts += [Text(), Text(title, style="bold"), body]
    return Group(*parts)


def _sections(view: ReportView) -> Iterator[tuple[str, RenderableType]]:
    """Title and body of each part that this result has."""
    yield _arms_title(view), _arms(view)
    if view.ratios:
        yield f"Ratios of capacities, 95{NBSP}% intervals", _ratios(view)
    if view.demands:
        cost = f"; {view.cost_per_hour} an hour each" if view.cost_per_hour else ""
        yield f"At {view.needed or 'the wanted rate'}: replicas are N+1{cost}", _demands(view)
    if view.overloads:
        yield "Above capacity: 1.5 times what was found by then (p99 in ms)", _overloads(view)
    if view.soak is not None:
        findings = view.soak.findings or ("no trend was found",)
        yield "Soak", Group(Text(view.soak.summary), _items(findings))
    if view.reservations:
        yield "What to hold against these numbers", _items(view.reservations)


def _arms_title(view: ReportView) -> str:
    chosen = "; * chosen" if any(arm.chosen for arm in view.arms) else ""
    return f"Capacity, requests/s: p99 within {view.budget}, no errors{chosen}"


def _arms(view: ReportView) -> RenderableType:
    table = table_of("arm", "capacity", f"95{NBSP}%", "ceiling", "p99 ms", "batch", "thr×inst")
    for arm in view.arms:
        table.add_row(
            Text(arm.short + (" *" if arm.chosen else "")),
            arm.capacity,
            arm.capacity_span or DASH,
            arm.share,
            arm.p99,
            arm.mean_batch,
            f"{arm.threads}×{arm.instances}",
            style="bold" if arm.chosen else "",
        )
    return table


def _ratios(view: ReportView) -> RenderableType:
    table = table_of("arm", "than", "ratio", f"95{NBSP}%", "finding", left=2)
    for ratio in view.ratios:
        names = (Text(prose.arm_short(key)) for key in (ratio.arm, ratio.than))
        table.add_row(*names, ratio.ratio, ratio.span or DASH, ratio.says)
    return table


def _demands(view: ReportView) -> RenderableType:
    cost = ("cost per million",) if view.cost_per_hour else ()
    table = table_of("arm", "held it", "headroom", "replicas", *cost)
    for demand in view.demands:
        name = Text(prose.arm_short(demand.arm))
        numbers = (demand.holds, demand.headroom, demand.replicas, demand.cost)
        table.add_row(name, *numbers[: 3 + len(cost)])
    return table


def _overloads(view: ReportView) -> RenderableType:
    table = table_of("arm", "offered", "answered", "p99", "errors")
    table.columns[-1].no_wrap = False
    for over in view.overloads:
        level = over.level
        table.add_row(
            Text(prose.arm_short(over.arm)),
            level.offered,
            f"{level.achieved} ({over.answered})",
            level.p99,
            Text(over.failed + ("; not counted" if level.state == "excluded" else "")),
        )
    return table


def _items(texts: Iterable[str]) -> RenderableType:
    """One paragraph each, hanging from a dash."""
    table = Table.grid(padding=(0, 1, 0, 0))
    for text in texts:
        table.add_row("-", Text(text, overflow="fold"))
    return table
