"""The report as one HTML file that opens without a network: no external font, script or image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tritonkit.report import charts
from tritonkit.report.prose import BASELINE
from tritonkit.report.view import ArmView, ReportView, build_view


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a shape in a colour, and what it stands for."""

    label: str
    colour: str
    path: str
    filled: bool = True
    line: bool = False


@dataclass(frozen=True)
class Histogram:
    """One Triton arm's batch sizes."""

    label: str
    caption: str
    svg: str
    """Already markup; empty where no batch was recorded."""


def render_html(result: Mapping[str, Any]) -> str:
    """The page for one `result.json` (schema 1), self-contained."""
    environment = Environment(
        loader=PackageLoader("tritonkit.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    view = build_view(result)
    # The charts alone go in unescaped (`| safe`): matplotlib escapes the text that it writes.
    styles = {a.key: charts.arm_style(a, i) for i, a in enumerate(view.arms)}
    return environment.get_template("report.html.j2").render(
        view=view,
        colours={key: style.colour for key, style in styles.items()},
        keys={
            a.key: Key(a.label, styles[a.key].colour, charts.SHAPES[styles[a.key].marker])
            for a in view.arms
        },
        curve_keys=_curve_keys(view),
        repeats=any("again" in v.asides for a in view.arms for v in a.levels),
        curves_wide=_curves(view, "curves-wide", (9.0, 4.3)),
        curves_narrow=_curves(view, "curves-narrow", (3.7, 3.7)),
        capacity_bars=charts.capacity_bars(view.arms, view.ceiling, "capacity"),
        ceiling_curves=charts.ceiling_curves(view.ceiling, "ceiling"),
        ceiling_keys=_ceiling_keys(view),
        histograms=_histograms(view.arms),
    )


def _curves(view: ReportView, name: str, size_in: tuple[float, float]) -> str:
    return charts.latency_curves(view.arms, view.slo_p99_ms, name, size_in)


def _curve_keys(view: ReportView) -> list[Key]:
    """The arms, then only those signs that the chart really shows."""
    keys = []
    for place, arm in enumerate(view.arms):
        style = charts.arm_style(arm, place)
        keys.append(Key(arm.label, style.colour, charts.SHAPES[style.marker], line=True))
    drawn = [(v.loop, v.point) for a in view.arms for v in a.levels if v.point is not None]
    if any(loop == "open" for loop, _ in drawn):
        keys.append(Key("hollow: open loop", charts.INK, charts.SHAPES["o"], filled=False))
    if any(point.again for _, point in drawn):
        small = "M7 4.2a2.8 2.8 0 1 0 .01 0z"
        keys.append(Key("small: the deciding level, measured again", charts.MUTED, small))
    if any(point.is_capacity for _, point in drawn):
        ring = "M7 .8a6.2 6.2 0 1 0 .01 0z"
        keys.append(Key("ring: sets the capacity", charts.INK, ring, filled=False))
    if any(not point.counts for _, point in drawn):
        cross = "M2 2 12 12M12 2 2 12"
        label = "cross: had errors, does not count"
        keys.append(Key(label, charts.INK, cross, filled=False))
    if any(point.p99_ms > charts.top_ms(view.arms, view.slo_p99_ms) for _, point in drawn):
        arrow = "M7 13V2M2.5 6.5 7 2 11.5 6.5"
        keys.append(Key("arrow: beyond the top, at this p99", charts.INK, arrow, filled=False))
    return keys


def _ceiling_keys(view: ReportView) -> list[Key]:
    keys = []
    for place, (label, _) in enumerate(view.ceiling.curves):
        style = charts.ceiling_style(place)
        keys.append(Key(label, style.colour, charts.SHAPES[style.marker], line=True))
    return keys


def _histograms(arms: tuple[ArmView, ...]) -> list[Histogram]:
    """One per Triton arm, empty ones included: that nothing was recorded is worth saying."""
    largest = max((size for a in arms for size, _ in a.histogram), default=1)
    return [
        Histogram(
            label=arm.label,
            caption=arm.histogram_caption,
            svg=charts.batch_histogram(
                arm, charts.arm_style(arm, place), largest, f"batches-{place}"
            ),
        )
        for place, arm in enumerate(arms)
        if arm.key != BASELINE
    ]
