"""The report of a plan as one HTML file that opens without a network, like the comparison's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonkit.report import legend
from tritonkit.report.charts import plan as charts
from tritonkit.report.charts.figure import MUTED, SHAPES, arm_style
from tritonkit.report.levels import LevelView
from tritonkit.report.page import template
from tritonkit.report.plan_prose import METHOD
from tritonkit.report.plan_view import PlanView, build_plan_view
from tritonkit.report.prose import ARM_LABELS, BASELINE

_SESSION = "session"


def render_plan_html(document: Mapping[str, Any]) -> str:
    """The page for one `plan.json`, self-contained."""
    view = build_plan_view(document)
    axis_rps = charts.capacity_axis_rps(view.tried)
    # The charts alone go in unescaped (`| safe`): matplotlib escapes the text that it writes.
    return template("plan.html.j2").render(
        view=view,
        method=METHOD,
        keys=_keys(view),
        signs=_signs(view),
        chart_wide=charts.live_levels(view.tried, view.slo_p99_ms, "live-wide", (9.0, 4.3)),
        chart_narrow=charts.live_levels(view.tried, view.slo_p99_ms, "live-narrow", (3.7, 3.7)),
        capacity_lines=[
            charts.capacity_line(each, axis_rps, style.colour)
            for each, style in zip(view.tried, charts.styles(view.tried), strict=True)
        ],
        level_groups={"arms": _level_groups(view)},
    )


def _keys(view: PlanView) -> dict[str, legend.Key]:
    """The sign of each of the settings, by key, and of the session."""
    keys = {
        each.key: legend.Key(each.label, style.colour, SHAPES[style.marker])
        for each, style in zip(view.tried, charts.styles(view.tried), strict=True)
    }
    style = arm_style(BASELINE, 0)
    return keys | {_SESSION: legend.Key(ARM_LABELS[BASELINE], style.colour, SHAPES[style.marker])}


def _signs(view: PlanView) -> list[legend.Key]:
    """What a mark in the chart says beside whose it is."""
    points = charts.drawn(view.tried)
    keys = legend.level_keys(points)
    if points and any(p.p99_ms > charts.top_ms(points, view.slo_p99_ms) for p in points):
        keys.append(legend.Key("on the top edge: beyond it", MUTED, "M1 2H13M7 5V13", filled=False))
    return keys


def _level_groups(view: PlanView) -> list[dict[str, str | tuple[LevelView, ...]]]:
    """As `levels.html.j2` wants them: the settings in the order in which they ran."""
    groups: list[dict[str, str | tuple[LevelView, ...]]] = [
        {"key": each.key, "label": each.label, "levels": each.levels} for each in view.tried
    ]
    if view.session_levels:
        label = ARM_LABELS[BASELINE]
        groups.append({"key": _SESSION, "label": label, "levels": view.session_levels})
    return groups
