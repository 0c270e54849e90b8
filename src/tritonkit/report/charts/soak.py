"""The series of a soak."""

from __future__ import annotations

from typing import Any

from tritonkit.report.charts.figure import ALERT, Style, space_ticks, svg, thousands
from tritonkit.report.soak import SeriesView


def soak_series(series: SeriesView, style: Style, slo_p99_ms: float | None, name: str) -> str:
    """One quantity over the minutes of a soak, from 0 so that a ripple looks like one. Empty
    without points.
    """
    if not series.points:
        return ""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        minutes, values = zip(*series.points, strict=True)
        axes.plot(minutes, values, color=style.colour, marker=style.marker, markersize=3)
        top = max(values)
        if series.key == "p99_ms" and slo_p99_ms:
            axes.axhline(slo_p99_ms, color=ALERT, linewidth=1.1, linestyle=(0, (5, 3)), zorder=2)
            top = max(top, slo_p99_ms)
        axes.set_ylim(min(0, *values), top * 1.12 if top > 0 else 1)
        axes.set_xlim(0, max(max(minutes) * 1.03, 1e-9))
        space_ticks(axes, 3.3)
        axes.yaxis.set_major_formatter(thousands)
        axes.set_xlabel("minutes")

    return svg(name, (3.9, 1.9), draw)
