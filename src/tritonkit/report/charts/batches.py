"""The batches that really ran."""

from __future__ import annotations

from typing import Any

from tritonkit.report.charts.figure import Style, svg, thousands
from tritonkit.report.formats import NBSP
from tritonkit.report.view import ArmView


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
        axes.xaxis.set_major_formatter(thousands)
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}{NBSP}%")
        axes.set_xlabel("batch size, rows")
        axes.set_ylabel("share of executions")

    return svg(name, (3.9, 2.4), draw)
