"""p99 against rate: all arms together, and each arm's search around its capacity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tritonkit.report.charts.figure import (
    ALERT,
    FAINT,
    INK,
    MUTED,
    Style,
    arm_style,
    plain_log_ticks,
    space_ticks,
    svg,
)
from tritonkit.report.formats import compact
from tritonkit.report.levels import LevelView, Point
from tritonkit.report.view import ArmView

CLIP = 5
"""The latency charts end at this multiple of the budget."""

_SEARCHED = ("search", "rate")


def searched(arm: ArmView) -> list[LevelView]:
    """The Poisson levels that an arm's capacity was found by, as far as they can be drawn."""
    return [v for v in arm.levels if v.purpose in _SEARCHED and v.point is not None]


def drawn(arms: Sequence[ArmView]) -> list[Point]:
    """The points of the chart of all arms: without overload and soak, told elsewhere."""
    kinds = ("load", "curve", *_SEARCHED)
    return [v.point for a in arms for v in a.levels if v.point is not None and v.purpose in kinds]


def top_ms(arms: Sequence[ArmView], slo_p99_ms: float | None) -> float:
    """Where the latency axis ends, so that an overloaded level cannot squeeze all others."""
    lowest = min((p.p99_ms for p in drawn(arms)), default=0.0)
    return CLIP * max(slo_p99_ms, lowest) if slo_p99_ms else math.inf


def latency_curves(
    arms: Sequence[ArmView], slo_p99_ms: float | None, name: str, size_in: tuple[float, float]
) -> str:
    """p99 against rate for all arms: closed loops joined, open loops as single marks. Empty
    without points.
    """
    points = drawn(arms)
    if not points:
        return ""
    top = top_ms(arms, slo_p99_ms)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        _set_heights(axes, points, slo_p99_ms, top)
        furthest = max(p.rate_rps for p in points)
        capacities = [a.capacity_rps for a in arms if (a.capacity_rps or 0) <= 1.2 * furthest]
        axes.set_xlim(0, max(1.05 * max([furthest, *(c or 0 for c in capacities)]), 1e-9))
        space_ticks(axes, size_in[0] - 1.3)
        _draw_budget(axes, slo_p99_ms)
        for place, arm in enumerate(arms):
            style = arm_style(arm.key, place)
            _draw_curve(axes, arm, style, top)
            for level in searched(arm):
                if level.point is not None:
                    draw_point(axes, level.point, style, top, size=5.5)
            _draw_capacity(axes, arm, slo_p99_ms, style)
        _label_clipped(axes, [p for p in points if p.p99_ms > top], top, 0.16 / (size_in[0] - 1.3))
        axes.set_xlabel("rate, requests/s")
        axes.set_ylabel("p99 latency, ms")

    return svg(name, size_in, draw)


def search_panel(
    arm: ArmView, style: Style, slo_p99_ms: float | None, span_ms: tuple[float, float], name: str
) -> str:
    """One arm's search: each level's p99 with its interval, and the capacity found, shaded.

    span_ms: the p99 axis, which all panels share. Empty where the arm has no searched level.
    """
    levels = searched(arm)
    points = [v.point for v in levels if v.point is not None]
    if not points:
        return ""
    low, top = span_ms
    # A wanted rate may lie far from the capacity; here it is left out unless it is near.
    around = [v.point.rate_rps for v in levels if v.point is not None and v.purpose == "search"]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        _set_scale(axes, low, top)
        ends = around or [p.rate_rps for p in points]
        ends = ends + [v for v in (arm.low_rps, arm.high_rps, arm.capacity_rps) if v]
        margin = max((max(ends) - min(ends)) * 0.08, max(ends) * 0.01, 1e-9)
        left, right = max(min(ends) - margin, 0), max(ends) + margin
        axes.set_xlim(left, right)
        space_ticks(axes, 3.3)
        if arm.low_rps is not None and arm.capacity_rps:
            high = right if arm.high_rps is None else arm.high_rps
            axes.axvspan(arm.low_rps, high, color=style.colour, alpha=0.13, linewidth=0, zorder=1)
        if arm.capacity_rps:
            axes.axvline(arm.capacity_rps, color=style.colour, linewidth=1.1, zorder=2)
        if slo_p99_ms:
            axes.axhline(slo_p99_ms, color=ALERT, linewidth=1.1, linestyle=(0, (5, 3)), zorder=2)
        for point in (p for p in points if left <= p.rate_rps <= right):
            _draw_interval(axes, point, style, top)
            draw_point(axes, point, style, top, size=5.5)
        axes.set_xlabel("Poisson rate, requests/s")
        axes.set_ylabel("p99, ms")

    return svg(name, (3.9, 2.5), draw)


def search_span_ms(arms: Sequence[ArmView], slo_p99_ms: float | None) -> tuple[float, float]:
    """The p99 axis of all search panels: from the lowest level to the clip, or to the highest."""
    points = [v.point for a in arms for v in searched(a) if v.point is not None]
    heights = [p.p99_ms for p in points] + ([slo_p99_ms] if slo_p99_ms else [])
    top = CLIP * slo_p99_ms if slo_p99_ms else math.inf
    highest = max(heights, default=1.0)
    positive = [h for h in heights if h > 0]
    low = min([*positive, top]) / 1.4
    return low, max(min(highest * 1.3, top), low * 2)


def draw_point(axes: Any, point: Point, style: Style, top: float, size: float) -> None:
    """One open-loop level: filled where it held, hollow where it failed, a grey cross where it
    does not count; a stroke through it where it never settled; a dark cross where it had errors.
    """
    mark = _Mark(axes, point.rate_rps, min(point.p99_ms, top))
    if point.state == "excluded":
        mark.draw("x", size, FAINT, markeredgewidth=1.6)
        return
    face = style.colour if point.state == "held" else "white"
    mark.draw(style.marker, size, style.colour, face, zorder=5, markeredgewidth=1.3)
    if point.unsteady:
        mark.draw("|", size * 2.4, style.colour, markeredgewidth=1.2)
    if point.errors:
        mark.draw("x", size * 1.7, INK, markeredgewidth=1.4)


def _draw_curve(axes: Any, arm: ArmView, style: Style, top: float) -> None:
    """The closed loop's line with small marks; a level beyond `top` stands on the edge."""
    curve = [v.point for v in arm.levels if v.purpose in ("load", "curve") and v.point is not None]
    counted = [p for p in curve if p.state != "excluded"]
    if counted:
        line = [(p.rate_rps, min(p.p99_ms, top)) for p in counted]
        axes.plot(*zip(*line, strict=True), color=style.colour, zorder=4, linewidth=1.3)
    for point in curve:
        mark = _Mark(axes, point.rate_rps, min(point.p99_ms, top))
        if point.state == "excluded":
            mark.draw("x", 4.5, FAINT, markeredgewidth=1.4)
            continue
        mark.draw(style.marker, 3.2, style.colour, style.colour, zorder=5)
        if point.errors:
            mark.draw("x", 9, INK, markeredgewidth=1.4)


def _draw_capacity(axes: Any, arm: ArmView, slo_p99_ms: float | None, style: Style) -> None:
    """The capacity's interval as a band on the budget's line, the capacity as a stroke across."""
    if not slo_p99_ms or not arm.capacity_rps or arm.capacity_rps > axes.get_xlim()[1]:
        return
    if arm.low_rps is not None:
        high = axes.get_xlim()[1] if arm.high_rps is None else arm.high_rps
        band = {"linewidth": 7, "alpha": 0.3, "solid_capstyle": "butt", "zorder": 3}
        axes.plot([arm.low_rps, high], [slo_p99_ms] * 2, color=style.colour, **band)
    mark = _Mark(axes, arm.capacity_rps, slo_p99_ms)
    mark.draw("|", 17, style.colour, markeredgewidth=2)


def _draw_interval(axes: Any, point: Point, style: Style, top: float) -> None:
    if point.low_ms is None or point.high_ms is None:
        return
    colour = FAINT if point.state == "excluded" else style.colour
    ends = [min(v, top) for v in (point.low_ms, point.high_ms)]
    axes.plot([point.rate_rps] * 2, ends, color=colour, linewidth=1, alpha=0.55, zorder=3)


@dataclass(frozen=True)
class _Mark:
    """A place in the chart at which to draw markers."""

    axes: Any
    x: float
    y: float

    def draw(self, marker: str, size: float, colour: str, face: str = "none", **more: Any) -> None:
        look = {"markersize": size, "markeredgecolor": colour, "markerfacecolor": face}
        look |= {"linestyle": "none", "clip_on": False, "zorder": 6}
        self.axes.plot(self.x, self.y, marker=marker, **look | more)


def _set_heights(axes: Any, points: Sequence[Point], slo_p99_ms: float | None, top: float) -> None:
    heights = [min(p.p99_ms, top) for p in points] + ([slo_p99_ms] if slo_p99_ms else [])
    positive = [h for h in heights if h > 0]
    if not positive:
        return
    low, high = min(positive), max(heights)
    _set_scale(axes, low / 1.4, min(high * 1.4, top) if high < top else top)


def _set_scale(axes: Any, low: float, high: float) -> None:
    """Logarithmic where the values span a decade, else linear from 0."""
    if high / low >= 10:
        axes.set_yscale("log")
        plain_log_ticks(axes, high / low)
        axes.set_ylim(low, high)
    else:
        axes.set_ylim(0, high)


def _draw_budget(axes: Any, slo_p99_ms: float | None) -> None:
    if not slo_p99_ms:
        return
    axes.axhline(slo_p99_ms, color=ALERT, linewidth=1.1, linestyle=(0, (5, 3)), zorder=2)
    axes.annotate(
        f"p99 budget\n{compact(slo_p99_ms)} ms",
        (1, slo_p99_ms),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        color=ALERT,
        va="center",
    )


def _label_clipped(axes: Any, points: Sequence[Point], top: float, gap: float) -> None:
    """The p99 of the points beyond `top`, upright above the edge. gap: the room that a label
    needs, as a share of the width; points that are closer share one."""
    groups: list[list[Point]] = []
    for point in sorted(points, key=lambda p: p.rate_rps):
        if groups and point.rate_rps - groups[-1][0].rate_rps < gap * axes.get_xlim()[1]:
            groups[-1].append(point)
        else:
            groups.append([point])
    for group in groups:
        ends = {f"{find(p.p99_ms for p in group):,.0f}": None for find in (min, max)}
        axes.annotate(
            "\N{EN DASH}".join(ends) + " ms →",
            (group[0].rate_rps, top),
            xytext=(0, 7),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="bottom",
            color=MUTED,
        )
