"""The page's charts, as inline SVG drawn by matplotlib's object API: no display, no global state.

Text stays text (`svg.fonttype: none`), so it takes the page's font and can be searched. Every id
is prefixed with the chart's name, because a page's ids share one namespace.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tritonkit.report.formats import NBSP
from tritonkit.report.view import ArmView, CeilingView, Point

INK, MUTED, RULE, ALERT, CEILING = "#1d2126", "#555d66", "#d9dde2", "#b3261e", "#c3c9d0"
CLIP = 5
"""The latency chart ends at this multiple of the budget."""


@dataclass(frozen=True)
class Style:
    """A colour and a marker: every series differs in both, so colour is never the only sign."""

    colour: str
    marker: str
    """A matplotlib marker; the legend draws the same shape (`SHAPES`)."""


ARM_STYLES = {
    "ort_baseline": Style("#4a5058", "s"),
    "triton_unbatched": Style("#c46f00", "^"),
    "triton_batched": Style("#0b66a8", "o"),
}
_SPARE_ARM_STYLES = (Style("#7a3e8e", "D"), Style("#00796b", "v"), Style("#8a5a44", "P"))
_CEILING_STYLES = (
    Style("#9a8fc0", "D"),
    Style("#5b4a9c", "v"),
    Style("#2a1a5e", "P"),
    Style("#7d8a97", "X"),
)
SHAPES = {
    "s": "M2 2h10v10H2z",
    "^": "M7 1.5 13 12.5H1z",
    "v": "M7 12.5 13 1.5H1z",
    "o": "M7 1.8a5.2 5.2 0 1 0 .01 0z",
    "D": "M7 .8 13.2 7 7 13.2 .8 7z",
    "P": "M5 1h4v4h4v4H9v4H5V9H1V5h4z",
    "X": "M3.5 1 7 4.5 10.5 1 13 3.5 9.5 7 13 10.5 10.5 13 7 9.5 3.5 13 1 10.5 4.5 7 1 3.5z",
}
"""Marker outlines in a 14 by 14 box, for legends in HTML."""


def arm_style(arm: ArmView, place: int) -> Style:
    """An arm's own style; arms this version does not know take spare ones by their place."""
    return ARM_STYLES.get(arm.key, _SPARE_ARM_STYLES[place % len(_SPARE_ARM_STYLES)])


def ceiling_style(place: int) -> Style:
    """The style of the ceiling's `place`-th curve."""
    return _CEILING_STYLES[place % len(_CEILING_STYLES)]


def top_ms(arms: Sequence[ArmView], slo_p99_ms: float | None) -> float:
    """Where the latency axis ends, so that an overloaded level cannot squeeze all others."""
    lowest = min((v.point.p99_ms for a in arms for v in a.levels if v.point), default=0.0)
    return CLIP * max(slo_p99_ms, lowest) if slo_p99_ms else math.inf


def latency_curves(
    arms: Sequence[ArmView], slo_p99_ms: float | None, name: str, size_in: tuple[float, float]
) -> str:
    """p99 against achieved rate: closed loop joined, open loop hollow. Empty without points."""
    points = [v.point for arm in arms for v in arm.levels if v.point is not None]
    if not points:
        return ""
    top = top_ms(arms, slo_p99_ms)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        heights = [min(p.p99_ms, top) for p in points] + ([slo_p99_ms] if slo_p99_ms else [])
        if min(heights) > 0 and max(heights) / min(heights) >= 10:
            axes.set_yscale("log")
            _plain_log_ticks(axes, max(heights) / min(heights))
            axes.set_ylim(min(heights) / 1.4, max(heights) * 1.4)
        else:
            axes.set_ylim(0, max(heights) * 1.12)
        if max(heights) == top:
            axes.set_ylim(top=top)
        axes.set_xlim(0, max(max(p.achieved_rps for p in points) * 1.05, 1e-9))
        axes.xaxis.set_major_formatter(_thousands)
        if slo_p99_ms:
            axes.axhline(slo_p99_ms, color=ALERT, linewidth=1.1, linestyle=(0, (5, 3)), zorder=2)
            axes.annotate(
                f"p99 budget\n{slo_p99_ms:g} ms",
                (1, slo_p99_ms),
                xycoords=("axes fraction", "data"),
                xytext=(5, 0),
                textcoords="offset points",
                color=ALERT,
                va="center",
            )
        for place, arm in enumerate(arms):
            _draw_arm(axes, arm, arm_style(arm, place), top)
        _label_clipped(axes, [p for p in points if p.p99_ms > top], top, 0.16 / (size_in[0] - 1.3))
        axes.set_xlabel("achieved rate, requests/s")
        axes.set_ylabel("p99 latency, ms")

    return _svg(name, size_in, draw)


def capacity_bars(arms: Sequence[ArmView], ceiling: CeilingView, name: str) -> str:
    """Capacities below the in-process ceiling, one bar each, labelled above the bar."""
    bars = [
        (f"In process, {ceiling.best_at}: {ceiling.best}/s", ceiling.best_ips, CEILING),
        (f"In process, batch 1: {ceiling.batch1}/s", ceiling.batch1_ips, CEILING),
    ]
    for place, arm in enumerate(arms):
        share = f", {arm.share} of the best" if arm.capacity_rps > 0 else ""
        bars.append(
            (
                f"{arm.label}: {arm.capacity}/s{share}",
                arm.capacity_rps,
                arm_style(arm, place).colour,
            )
        )
    top = max((v for _, v, _ in bars if v), default=0.0)
    if top <= 0:
        return ""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for place, (label, value, colour) in enumerate(bars):
            axes.barh(place, value or 0.0, height=0.4, color=colour, zorder=2)
            axes.annotate(
                label,
                (0, place - 0.24),
                xytext=(0, 1.5),
                textcoords="offset points",
                va="bottom",
                color=INK,
            )
        axes.set_ylim(len(bars) - 0.6, -0.85)
        axes.set_xlim(0, top * 1.02)
        axes.set_yticks([])
        axes.xaxis.set_major_formatter(_thousands)
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("inferences (rows) per second")

    return _svg(name, (3.9, 3.1), draw)


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
        axes.set_xticks(sizes if len(sizes) <= 9 else sizes[:: len(sizes) // 8 + 1])
        axes.xaxis.set_major_formatter(_thousands)
        axes.set_xticks([], minor=True)
        if len(sizes) == 1:
            axes.set_xlim(sizes[0] / 2, sizes[0] * 2)
        axes.set_ylim(0, max(ips for _, c in ceiling.curves for _, ips in c) * 1.08 or 1)
        axes.yaxis.set_major_formatter(_thousands)
        axes.set_xlabel("batch size, rows")
        axes.set_ylabel("inferences (rows) per second")

    return _svg(name, (3.9, 3.1), draw)


def batch_histogram(arm: ArmView, style: Style, largest: int, name: str) -> str:
    """The batches that really ran, as shares of all executions; `largest` fixes the x axis."""
    total = sum(n for _, n in arm.histogram)
    if not total:
        return ""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        sizes, counts = zip(*arm.histogram, strict=True)
        shares = [100 * n / total for n in counts]
        axes.bar(sizes, shares, width=0.8 if largest <= 64 else 1.0, color=style.colour, zorder=2)
        axes.set_xlim(0, max(largest, 8) + 1)
        axes.set_ylim(0, max(shares) * 1.08)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.xaxis.set_major_formatter(_thousands)
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}{NBSP}%")
        axes.set_xlabel("batch size, rows")
        axes.set_ylabel("share of executions")

    return _svg(name, (3.9, 2.4), draw)


def _draw_arm(axes: Any, arm: ArmView, style: Style, top: float) -> None:
    """The closed loop's line, then a marker for each level; one beyond `top` stands on the edge."""
    closed = [v.point for v in arm.levels if v.loop == "closed" and v.point and not v.point.again]
    line = [(p.achieved_rps, p.p99_ms) for p in closed]
    if line:
        axes.plot(*zip(*line, strict=True), color=style.colour, zorder=4)
    for level in arm.levels:
        if level.point is None:
            continue
        mark = _Mark(axes, level.point.achieved_rps, min(level.point.p99_ms, top))
        face = style.colour if level.loop == "closed" else "white"
        size, alpha = (4.0, 0.6) if level.point.again else (5.5, 1.0)
        mark.draw(style.marker, size, style.colour, face, alpha=alpha, zorder=5)
        if not level.point.counts:
            mark.draw("x", 9, INK, markeredgewidth=1.4)
        if level.point.is_capacity:
            mark.draw("o", 13, style.colour, markeredgewidth=1.4)


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


def _label_clipped(axes: Any, points: Sequence[Point], top: float, gap: float) -> None:
    """The p99 of the points beyond `top`, upright above the edge. gap: the room that a label
    needs, as a share of the width; points that are closer share one."""
    groups: list[list[Point]] = []
    for point in sorted(points, key=lambda p: p.achieved_rps):
        if groups and point.achieved_rps - groups[-1][0].achieved_rps < gap * axes.get_xlim()[1]:
            groups[-1].append(point)
        else:
            groups.append([point])
    for group in groups:
        ends = {f"{find(p.p99_ms for p in group):,.0f}": None for find in (min, max)}
        axes.annotate(
            "\N{EN DASH}".join(ends) + " ms →",
            (group[0].achieved_rps, top),
            xytext=(0, 7),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="bottom",
            color=MUTED,
        )


def _thousands(value: float, _: int | None = None) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:g}"


def _plain_log_ticks(axes: Any, span: float) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 2000 else (1,)))
    axes.yaxis.set_major_formatter(_thousands)
    axes.yaxis.set_minor_locator(NullLocator())


def _svg(name: str, size_in: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """Draw on a fresh figure and return its `<svg>` element: same input, same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    font_size = 9.0 if size_in[0] > 8 else 8.0
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"tritonkit-{name}",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": font_size,
        "text.parse_math": False,
        "text.color": INK,
        "axes.facecolor": "none",
        "axes.edgecolor": MUTED,
        "axes.labelcolor": MUTED,
        "axes.labelsize": font_size,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": RULE,
        "grid.linewidth": 0.7,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelsize": font_size,
        "ytick.labelsize": font_size,
        "lines.linewidth": 1.6,
        "lines.markersize": 5.5,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=size_in, layout="constrained", facecolor="none")
        draw(figure)
        out = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing)
    return _inline(out.getvalue(), name)


def _inline(document: str, name: str) -> str:
    """The document's `<svg>` element alone, ids prefixed, free to scale with its container."""
    svg = document[document.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return f'{head} aria-hidden="true" focusable="false">{body}'
