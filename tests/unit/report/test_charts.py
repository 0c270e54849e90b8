"""Facts about what is drawn: labels apart, bars that can be read."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from tritonkit.report.charts import batches, capacity, latency
from tritonkit.report.charts.figure import arm_style
from tritonkit.report.view import ReportView, build_view

Result = dict[str, Any]
DIGIT_PT = 0.64 * 8
"""The width of a digit of 8 pt in the font that the charts are measured with."""


def _x_ticks(svg: str) -> list[tuple[float, float]]:
    """Left and right end of each label of the x axis, in points."""
    axis = svg[svg.index("-matplotlib.axis_1") : svg.index("-matplotlib.axis_2")]
    found = re.findall(r'<text [^>]*x="([\d.]+)"[^>]*>([\d,.]+)</text>', axis)
    half = [(float(x), DIGIT_PT * (len(t) - 0.5 * t.count(",")) / 2) for x, t in found]
    return [(x - h, x + h) for x, h in half]


def _apart(svg: str) -> bool:
    ticks = _x_ticks(svg)
    return len(ticks) >= 2 and all(a[1] < b[0] for a, b in pairwise(ticks))


def _times(result: Result, factor: float) -> ReportView:
    """The view of the result with all rates so many times as high."""
    for key in ("best_ips", "batch1_ips"):
        result["ceiling"][key] *= factor
    for arm in result["arms"]:
        arm["capacity_rps"] *= factor
        arm["capacity_interval_rps"] = [v and v * factor for v in arm["capacity_interval_rps"]]
        for level in arm["levels"]:
            level["offered"] *= factor
            level["achieved_rps"] *= factor
    return build_view(result)


@pytest.mark.parametrize("factor", [0.001, 0.3, 1.0, 137.0, 900.0, 70_000.0])
def test_labels_of_rates_never_touch(ranker: Result, factor: float) -> None:
    """However many digits a rate has, there are as many ticks as have room, and two at least."""
    view = _times(ranker, factor)
    arm, slo = view.arms[3], view.slo_p99_ms
    span_ms = latency.search_span_ms(view.arms, slo)
    assert _apart(capacity.capacity_bars(view.arms, view.ceiling, "a"))
    assert _apart(latency.search_panel(arm, arm_style(arm.key, 3), slo, span_ms, "b"))
    assert _apart(latency.latency_curves(view.arms, slo, "c", (3.7, 3.7)))


def test_labels_of_batch_sizes_never_touch(ranker: Result) -> None:
    """Of sizes that are close on a logarithmic axis, some go without a label; the largest has."""
    sizes = (1, 2, 3, 4, 5, 6, 7, 8, 96, 100, 128, 1000, 1024)
    ranker["ceiling"]["points"] = [{"threads": 1, "batch": b, "ips": 9.0 * b} for b in sizes]
    svg = capacity.ceiling_curves(build_view(ranker).ceiling, "c")
    assert _apart(svg) and ">1,024</text>" in svg and ">1,000</text>" not in svg


def _widths(svg: str) -> list[float]:
    """Of the bars, from the first to the last; without figure, axes and the axes' lines."""
    patches = re.findall(r'-patch_\d+">\s*<path d="M ([\d.]+) [\d.]+\s*L ([\d.]+) [^"]*z', svg)
    return [float(right) - float(left) for left, right in patches[2:]]


def test_a_far_ceiling_makes_no_slivers_of_the_arms(ranker: Result) -> None:
    """Where the ceiling is far beyond every arm its bars are broken, and the arms' can be read."""
    ranker["ceiling"] |= {"best_ips": 5.4e6, "batch1_ips": 2.2e5}
    view = build_view(ranker)
    svg = capacity.capacity_bars(view.arms, view.ceiling, "c")
    assert svg.count("beyond the axis") == 2
    assert _widths(svg)[5] / _widths(svg)[0] > 0.25


def test_a_near_ceiling_is_drawn_to_scale(ranker: Result) -> None:
    """Where it can be, every bar is as long as its number."""
    view = build_view(ranker)
    svg = capacity.capacity_bars(view.arms, view.ceiling, "c")
    assert "beyond the axis" not in svg
    assert _widths(svg)[5] / _widths(svg)[0] == pytest.approx(5374 / 12_349, rel=0.01)


@pytest.mark.parametrize(("largest", "bars", "sizes"), [(64, 64, ""), (1000, 63, "16 sizes")])
def test_bars_of_many_batch_sizes_are_wide_enough(
    ranker: Result, largest: int, bars: int, sizes: str
) -> None:
    """More sizes than bars can be told apart share some, which the axis says."""
    histogram = {str(size): 2 for size in range(1, largest + 1)}
    ranker["arms"][3]["certificate"]["batch_histogram"] = histogram
    arm = build_view(ranker).arms[3]
    svg = batches.batch_histogram(arm, arm_style(arm.key, 3), largest, "b")
    assert len(_widths(svg)) == bars and min(_widths(svg)) > 2
    assert ("a bar: " in svg) is bool(sizes) and sizes in svg
