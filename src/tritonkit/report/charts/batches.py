"""The batches that really ran."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from tritonkit.report.charts.figure import Style, space_ticks, svg, thousands
from tritonkit.report.formats import NBSP
from tritonkit.report.view import ArmView

_BARS = 64


def batch_histogram(arm: ArmView, style: Style, largest: int, name: str) -> str:
    """The batches that really ran, as shares of all executions; `largest` fixes the x axis. Where
    there are more sizes than bars that can be told apart, neighbours share one.
    """
    total = sum(n for _, n in arm.histogram)
    if not total:
        return ""
    width = 1 if largest <= _BARS else math.ceil(largest / _BARS)
    bars: Counter[int] = Counter()
    for size, executions in arm.histogram:
        bars[(size - 1) // width] += executions

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        middles = [place * width + (1 + width) / 2 for place in bars]
        shares = [100 * n / total for n in bars.values()]
        axes.bar(middles, shares, width=0.8 * width, color=style.colour, zorder=2)
        axes.set_xlim(0, max(largest, 8) + width)
        axes.set_ylim(0, max(shares) * 1.08)
        axes.xaxis.get_major_locator().set_params(integer=True)
        space_ticks(axes, 3.3)
        axes.yaxis.set_major_formatter(lambda v, _: f"{thousands(v)}{NBSP}%")
        axes.set_xlabel("batch size, rows" + (f" (a bar: {width:,} sizes)" if width > 1 else ""))
        axes.set_ylabel("share of executions")

    return svg(name, (3.9, 2.4), draw)
