"""The live levels of a plan's settings, and what was predicted beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tritonkit.report.charts.figure import (
    ALERT,
    ARM_STYLES,
    MUTED,
    RULE,
    Style,
    plain_log_ticks,
    space_ticks,
    svg,
)
from tritonkit.report.charts.latency import CLIP, draw_point
from tritonkit.report.formats import compact
from tritonkit.report.levels import Point
from tritonkit.report.plan_view import TriedView

_WINNER, _PLAIN = ARM_STYLES["triton_batched"], ARM_STYLES["triton_unbatched"]
_OTHERS = (
    Style("#7a3e8e", "D"),
    Style("#00796b", "v"),
    Style("#8a5a44", "P"),
    Style("#5b4a9c", "X"),
    Style("#4a5058", "s"),
)


def styles(tried: Sequence[TriedView]) -> list[Style]:
    """One for each of the settings. The winner has the colour of Triton with batching, settings
    without batching have that of Triton without, as in a comparison.
    """
    found, spare = [], 0
    for each in tried:
        if not each.is_batched:
            found.append(_PLAIN)
        elif each.is_winner:
            found.append(_WINNER)
        else:
            found.append(_OTHERS[spare % len(_OTHERS)])
            spare += 1
    return found


def drawn(tried: Sequence[TriedView]) -> list[Point]:
    """The levels that can be drawn."""
    return [v.point for each in tried for v in each.levels if v.point is not None]


def top_ms(points: Sequence[Point], slo_p99_ms: float | None) -> float:
    """Where the p99 axis ends, so that an overloaded level cannot squeeze all others."""
    heights = [p.p99_ms for p in points]
    if not slo_p99_ms or slo_p99_ms < 0:
        return max(heights) * 1.4
    return max(min(CLIP * slo_p99_ms, max(heights) * 1.4), slo_p99_ms * 1.4, min(heights) * 2)


def live_levels(
    tried: Sequence[TriedView], slo_p99_ms: float | None, name: str, size_in: tuple[float, float]
) -> str:
    """p99 against rate, a mark for each live level, those beyond the top on its edge. Empty
    without levels.
    """
    points = drawn(tried)
    if not points:
        return ""
    top = top_ms(points, slo_p99_ms)
    budget = [slo_p99_ms] if slo_p99_ms and slo_p99_ms > 0 else []
    low = min([p.p99_ms for p in points] + budget) / 1.4

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.set_yscale("log")
        plain_log_ticks(axes, top / low)
        axes.set_ylim(low, top)
        axes.set_xlim(0, max(1.05 * max(p.rate_rps for p in points), 1e-9))
        space_ticks(axes, size_in[0] - 1.3)
        for height in budget:
            axes.axhline(height, color=ALERT, linewidth=1.1, linestyle=(0, (5, 3)), zorder=2)
            axes.annotate(
                f"p99 budget\n{compact(height)} ms",
                (1, height),
                xycoords=("axes fraction", "data"),
                xytext=(5, 0),
                textcoords="offset points",
                color=ALERT,
                va="center",
            )
        for each, style in zip(tried, styles(tried), strict=True):
            for level in each.levels:
                if level.point is not None:
                    draw_point(axes, level.point, style, top, size=6)
        axes.set_xlabel("Poisson rate, requests/s")
        axes.set_ylabel("p99 latency, ms")

    return svg(name, size_in, draw)


def capacity_axis_rps(tried: Sequence[TriedView]) -> float:
    """The end of the axis that all capacities share; it begins at 0."""
    known = [
        value
        for each in tried
        for value in (
            each.predicted.capacity_rps,
            each.measured.capacity_rps,
            each.measured.high_rps,
        )
        if value
    ]
    return 1.03 * max([*known, 1e-9])


def capacity_line(tried: TriedView, axis_rps: float, colour: str) -> str:
    """What was measured as a dot on its interval, what the curve predicted as a ring. Empty where
    neither is known.
    """
    predicted, measured = tried.predicted.capacity_rps, tried.measured

    def x(rps: float) -> float:
        return round(4 + 192 * min(max(rps, 0.0) / axis_rps, 1.0), 1)

    marks = ""
    if measured.low_rps is not None:
        a = x(measured.low_rps)
        b = x(axis_rps if measured.high_rps is None else measured.high_rps)
        end = "" if measured.high_rps is None else f"M{b} 5V15"
        marks += f'<path d="M{a} 10H{b}M{a} 5V15{end}" stroke="{colour}" stroke-width="1.6"/>'
    if measured.capacity_rps is not None:
        marks += f'<circle cx="{x(measured.capacity_rps)}" cy="10" r="3.4" fill="{colour}"/>'
    if predicted is not None:
        marks += (
            f'<circle cx="{x(predicted)}" cy="10" r="5" fill="none" stroke="{MUTED}" '
            'stroke-width="1.6"/>'
        )
    if not marks:
        return ""
    return (
        '<svg class="forest" viewBox="0 0 200 20" aria-hidden="true">'
        f'<path d="M4 10H196" stroke="{RULE}"/>{marks}</svg>'
    )
