"""What all charts share: styles, and a figure as inline SVG.

Drawn by matplotlib's object API: no display, no global state. Text stays text (`svg.fonttype:
none`), so it takes the page's font and can be searched. Every id is prefixed with the chart's
name, because a page's ids share one namespace.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

INK, MUTED, FAINT, RULE = "#1d2126", "#555d66", "#8a929b", "#d9dde2"
ALERT, CEILING = "#b3261e", "#c3c9d0"


@dataclass(frozen=True)
class Style:
    """A colour and a marker: every series differs in both, so colour is never the only sign."""

    colour: str
    marker: str
    """A matplotlib marker; the legend draws the same shape (`SHAPES`)."""


ARM_STYLES = {
    "ort_baseline": Style("#4a5058", "s"),
    "ort_batcher": Style("#7a3e8e", "D"),
    "triton_unbatched": Style("#c46f00", "^"),
    "triton_batched": Style("#0b66a8", "o"),
}
_SPARE_ARM_STYLES = (Style("#00796b", "v"), Style("#8a5a44", "P"))
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


def arm_style(key: str, place: int) -> Style:
    """An arm's own style; arms this version does not know take spare ones by their place."""
    return ARM_STYLES.get(key, _SPARE_ARM_STYLES[place % len(_SPARE_ARM_STYLES)])


def ceiling_style(place: int) -> Style:
    """The style of the ceiling's `place`-th curve."""
    return _CEILING_STYLES[place % len(_CEILING_STYLES)]


def thousands(value: float, _: int | None = None) -> str:
    """A tick's number, for matplotlib's formatters: with its decimals, or two ticks might show the
    same; never with an exponent.
    """
    return f"{value:z,.6f}".rstrip("0").rstrip(".")


def space_ticks(axes: Any, width_in: float) -> None:
    """As many ticks on the linear x axis as have room for their labels. width_in: of the axis."""
    import matplotlib

    character_pt = 0.62 * matplotlib.rcParams["xtick.labelsize"]
    locator = axes.xaxis.get_major_locator()
    axes.xaxis.set_major_formatter(thousands)
    for most in range(7, 0, -1):
        locator.set_params(nbins=most)
        labels = [thousands(tick) for tick in locator.tick_values(*axes.get_xlim())]
        if (max(map(len, labels)) + 2) * character_pt * most <= 72 * width_in:
            break


def plain_log_ticks(axes: Any, span: float) -> None:
    """1, 2, 5, 10 on a logarithmic y axis. span: its largest value over its smallest."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 2000 else (1,)))
    axes.yaxis.set_major_formatter(thousands)
    axes.yaxis.set_minor_locator(NullLocator())


def svg(name: str, size_in: tuple[float, float], draw: Callable[[Any], None]) -> str:
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
