"""The report of a plan for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tritonkit.report.formats import DASH, NBSP
from tritonkit.report.plan_view import PlanView, build_plan_view
from tritonkit.report.prose import BASELINE
from tritonkit.report.tables import table_of


def render_plan_text(document: Mapping[str, Any]) -> RenderableType:
    """The same numbers as the page, for `Console.print`. Colour only repeats what words say."""
    view = build_plan_view(document)
    # Text, never str: rich would read square brackets in a model's name as markup.
    heads = [Text(line, style="bold") for line in (view.headline, view.settings) if line]
    parts: list[RenderableType] = [*heads, Text(view.because)]
    parts += [Text(), Text(_settings_title(view), style="bold"), _settings(view)]
    parts += [Text(), Text(f"Predicted and measured: {view.winner}", style="bold"), _errors(view)]
    parts += [Text(text) for text in (*(e.missed for e in view.errors), *view.weak) if text]
    if view.tried:
        title = f"Tried live: capacity, requests/s; p99 within {view.budget}; * winner"
        parts += [Text(), Text(title, style="bold"), _tried(view)]
    took = f"{view.simulated} settings simulated, {view.live_runs} levels run live, {view.took} s."
    return Group(*parts, Text(), Text(took))


def _settings_title(view: PlanView) -> str:
    if view.choice == BASELINE:
        return "Settings, if Triton serves it all the same"
    return "Settings"


def _settings(view: PlanView) -> RenderableType:
    table = table_of("setting", "now", "planned", width=26)
    for row in view.setting_rows:
        style = "" if row.present == row.planned else "bold"
        table.add_row(row.name, row.present, row.planned, style=style)
    return table


def _errors(view: PlanView) -> RenderableType:
    table = table_of("", "predicted", "measured", f"95{NBSP}%", "error", width=30)
    spans = (view.errors[0].span or DASH, "")
    for row, span in zip(view.errors, spans, strict=True):
        name = Text(f"{row.name}, {row.unit}")
        table.add_row(name, row.predicted, row.measured, span, row.error)
    return table


def _tried(view: PlanView) -> RenderableType:
    columns = ("settings", "thr×inst", "curve", "recalib.", "live", f"95{NBSP}%", "error")
    table = table_of(*columns, width=26)
    for each in view.tried:
        table.add_row(
            Text(each.batching + (" *" if each.is_winner else "")),
            each.lane,
            each.predicted.capacity,
            each.recalibrated.capacity,
            each.measured.capacity,
            each.measured.span or DASH,
            each.error,
            style="bold" if each.is_winner else "",
        )
    return table
