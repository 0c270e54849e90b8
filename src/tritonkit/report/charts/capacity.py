"""Capacities beside the in-process ceiling, and the ratios between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tritonkit.report.charts.figure import (
    CEILING,
    INK,
    MUTED,
    RULE,
    arm_style,
    ceiling_style,
    space_ticks,
    svg,
    thousands,
)
from tritonkit.report.decisions import RatioView
from tritonkit.report.view import ArmView, CeilingView

_SLIVER = 16
"""What is so many times shorter than the longest bar cannot be read off it."""


def capacity_bars(arms: Sequence[ArmView], ceiling: CeilingView, name: str) -> str:
    """Capacities with their intervals below the ceiling, one bar each, labelled above the bar."""
    bars: list[tuple[str, float | None, str, ArmView | None]] = [
        (f"In process, {ceiling.best_at}: {ceiling.best}/s", ceiling.best_ips, CEILING, None),
        (f"In process, batch 1: {ceiling.batch1}/s", ceiling.batch1_ips, CEILING, None),
    ]
    for place, arm in enumerate(arms):
        colour = arm_style(arm.key, place).colour
        bars.append((_bar_label(arm), arm.capacity_rps, colour, arm))
    top = _top(arms, ceiling)
    if top <= 0:
        return ""
    bars = [
        (label + (", beyond the axis" if value and value > top else ""), value, colour, arm)
        for label, value, colour, arm in bars
    ]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for place, (label, value, colour, arm) in enumerate(bars):
            axes.barh(place, min(value or 0.0, 1.08 * top), height=0.4, color=colour, zorder=2)
            if value and value > top:
                _break(axes, place, top)
            if arm is not None:
                _interval(axes, arm, place, top)
            axes.annotate(
                label,
                (0, place - 0.24),
                xytext=(0, 1.5),
                textcoords="offset points",
                va="bottom",
                color=INK,
                in_layout=False,  # a long label must not squeeze the bars
            )
        axes.set_ylim(len(bars) - 0.6, -0.85)
        axes.set_xlim(0, top * 1.08)
        axes.set_yticks([])
        space_ticks(axes, 3.7)
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("inferences (rows) or requests per second")

    return svg(name, (3.9, 0.9 + 0.45 * len(bars)), draw)


def _top(arms: Sequence[ArmView], ceiling: CeilingView) -> float:
    """Where the axis ends: at the longest bar, unless that would make slivers of all arms."""
    most = max((a.capacity_rps or 0.0 for a in arms), default=0.0)
    ends = max([most, *(a.high_rps or 0.0 for a in arms if a.capacity_rps)])
    furthest = max(ceiling.best_ips or 0.0, ceiling.batch1_ips or 0.0, ends)
    return furthest if not most or furthest <= _SLIVER * most else min(1.5 * ends, 3 * most)


def _break(axes: Any, place: int, top: float) -> None:
    """Two white strokes through a bar that is longer than the axis."""
    for at in (0.93, 0.96):
        ends = [at * top, (at + 0.02) * top]
        heights = [place + 0.25, place - 0.25]
        axes.plot(ends, heights, color="white", linewidth=1.6, zorder=3)


def _bar_label(arm: ArmView) -> str:
    if not arm.capacity_rps:
        return f"{arm.label}: {arm.capacity}"
    ends = f" ({arm.capacity_span})" if arm.capacity_span else ""
    return f"{arm.label}: {arm.capacity}{ends}, {arm.share}"


def _interval(axes: Any, arm: ArmView, place: int, top: float) -> None:
    """The 95 % interval as a line with two ends; an open one has an arrow for its upper end."""
    if arm.low_rps is None or not arm.capacity_rps:
        return
    # An open end is an arrow of a fixed length: how far it goes is not known.
    open_end = arm.high_rps is None
    high = max(arm.low_rps, arm.capacity_rps) + 0.05 * top if open_end else arm.high_rps
    for width, colour, order in ((3.6, "white", 3), (1.3, INK, 4)):
        axes.plot([arm.low_rps, high], [place, place], color=colour, linewidth=width, zorder=order)
        look = {"color": colour, "markeredgewidth": width, "zorder": order}
        axes.plot(arm.low_rps, place, marker="|", markersize=7 + width / 2, **look)
        axes.plot(high, place, marker=">" if open_end else "|", markersize=4 + width, **look)


def ratio_axis(ratios: Sequence[RatioView]) -> tuple[float, float]:
    """The ends of the logarithmic axis that all ratios share; 1 is always on it."""
    known = [v for r in ratios for v in (r.low, r.value, r.high) if v and v > 0]
    low, high = min([*known, 1 / 1.2]), max([*known, 1.2])
    return low / 1.06, high * 1.06


def ratio_line(ratio: RatioView, axis: tuple[float, float], colour: str) -> str:
    """One ratio with its interval beside the line at 1. Empty where it is not known."""
    if not ratio.value or ratio.value <= 0:
        return ""

    def x(value: float) -> float:
        low, high = (math.log(end) for end in axis)
        return round(200 * (math.log(value) - low) / (high - low), 1)

    face = colour if ratio.differs else "#fff"
    ends = ""
    if ratio.low and ratio.high and min(ratio.low, ratio.high) > 0:
        a, b = x(ratio.low), x(ratio.high)
        ends = (
            f'<path d="M{a} 10H{b}M{a} 5V15M{b} 5V15" stroke="{colour}" stroke-width="1.6" '
            'fill="none"/>'
        )
    return (
        '<svg class="forest" viewBox="0 0 200 20" aria-hidden="true">'
        f'<path d="M0 10H200" stroke="{RULE}"/>'
        f'<path d="M{x(1)} 0V20" stroke="{MUTED}" stroke-dasharray="3 2"/>{ends}'
        f'<circle cx="{x(ratio.value)}" cy="10" r="3" fill="{face}" stroke="{colour}" '
        'stroke-width="1.6"/></svg>'
    )


def ceiling_curves(ceiling: CeilingView, name: str) -> str:
    """In-process rate by batch size, one line per threads × sessions. Empty without points."""
    if not ceiling.curves:
        return ""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        sizes = sorted({batch for _, curve in ceiling.curves for batch, _ in curve})
        axes.set_xscale("log", base=2)
        for place, (_, curve) in enumerate(ceiling.curves):
            style = ceiling_style(place)
            axes.plot(*zip(*curve, strict=True), color=style.colour, marker=style.marker)
        axes.set_xticks(_apart(sizes))
        axes.xaxis.set_major_formatter(thousands)
        axes.set_xticks([], minor=True)
        if len(sizes) == 1:
            axes.set_xlim(sizes[0] / 2, sizes[0] * 2)
        axes.set_ylim(0, max(ips for _, c in ceiling.curves for _, ips in c) * 1.08 or 1)
        axes.yaxis.set_major_formatter(thousands)
        axes.set_xlabel("batch size, rows")
        axes.set_ylabel("inferences (rows) per second")

    return svg(name, (3.9, 3.1), draw)


def _apart(sizes: Sequence[int]) -> list[int]:
    """Those of ascending `sizes` that have room for their labels on a logarithmic axis."""
    room = math.log(sizes[-1] / sizes[0]) / 9
    kept: list[int] = []
    for size in reversed(sizes):
        if not kept or math.log(kept[-1] / size) >= room:
            kept.append(size)
    return kept[::-1]
