"""The report as one HTML file that opens without a network: no external font, script or image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonkit.report import legend, prose
from tritonkit.report.charts import batches, capacity, latency, soak
from tritonkit.report.charts.figure import arm_style
from tritonkit.report.decisions import OverloadView
from tritonkit.report.page import template
from tritonkit.report.times import PARTS
from tritonkit.report.view import ArmView, ReportView, build_view


@dataclass(frozen=True)
class Panel:
    """A small chart with a title and a caption."""

    label: str
    caption: str
    svg: str
    """Already markup; empty where there is nothing to draw."""


def render_html(result: Mapping[str, Any]) -> str:
    """The page for one `result.json`, self-contained."""
    view = build_view(result)
    # The charts alone go in unescaped (`| safe`): matplotlib escapes the text that it writes.
    return template("report.html.j2").render(
        view=view,
        prose=prose,
        parts=PARTS,
        keys=legend.arm_keys(view),
        curve_keys=legend.curve_keys(view),
        search_keys=legend.search_keys(view),
        ceiling_keys=legend.ceiling_keys(view),
        curves_wide=_curves(view, "curves-wide", (9.0, 4.3)),
        curves_narrow=_curves(view, "curves-narrow", (3.7, 3.7)),
        searches=_searches(view),
        capacity_bars=capacity.capacity_bars(view.arms, view.ceiling, "capacity"),
        ceiling_curves=capacity.ceiling_curves(view.ceiling, "ceiling"),
        ratio_lines=_ratio_lines(view),
        histograms=_histograms(view),
        soak_panels=_soak(view),
    )


def _curves(view: ReportView, name: str, size_in: tuple[float, float]) -> str:
    return latency.latency_curves(view.arms, view.slo_p99_ms, name, size_in)


def _searches(view: ReportView) -> list[Panel]:
    """One for each arm that was searched, over one p99 axis."""
    span_ms = latency.search_span_ms(view.arms, view.slo_p99_ms)
    panels = []
    for place, arm in enumerate(view.arms):
        style = arm_style(arm.key, place)
        name = f"search-{place}"
        svg = latency.search_panel(arm, style, view.slo_p99_ms, span_ms, name)
        if svg:
            overloads = [over for over in view.overloads if over.arm == arm.key]
            panels.append(Panel(arm.label, _search_caption(arm, overloads), svg))
    return panels


def _search_caption(arm: ArmView, overloads: Sequence[OverloadView]) -> str:
    """The capacity, and what is beyond: an overload would squeeze the panel, so it is told."""
    sentences = [f"Capacity {arm.capacity}, {arm.capacity_note}."]
    for over in overloads:
        level = over.level
        errors = "no errors" if over.failed == "none" else f"errors {over.failed}"
        said = f"{over.answered} answered, p99 {level.p99} ms, {errors}"
        if level.state == "excluded":
            said = level.marks[0]
        sentences.append(f"Not drawn: {level.offered}, {over.factor} the capacity: {said}.")
    return " ".join(sentences)


def _ratio_lines(view: ReportView) -> list[str]:
    axis = capacity.ratio_axis(view.ratios)
    places = {arm.key: place for place, arm in enumerate(view.arms)}
    return [
        capacity.ratio_line(r, axis, arm_style(r.arm, places.get(r.arm, 0)).colour)
        for r in view.ratios
    ]


def _histograms(view: ReportView) -> list[Panel]:
    """One for each arm that can batch, empty ones included: that nothing was recorded is told."""
    largest = max((size for a in view.arms for size, _ in a.histogram), default=1)
    return [
        Panel(
            arm.label,
            arm.histogram_caption,
            batches.batch_histogram(arm, arm_style(arm.key, place), largest, f"batches-{place}"),
        )
        for place, arm in enumerate(view.arms)
        if arm.key != prose.BASELINE
    ]


def _soak(view: ReportView) -> list[Panel]:
    if view.soak is None:
        return []
    places = {arm.key: place for place, arm in enumerate(view.arms)}
    style = arm_style(view.soak.arm, places.get(view.soak.arm, 0))
    return [
        Panel(
            series.label,
            series.caption,
            soak.soak_series(series, style, view.slo_p99_ms, f"soak-{place}"),
        )
        for place, series in enumerate(view.soak.series)
    ]
