"""Legends: only those signs that a chart really shows, each with the words for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tritonkit.report.charts import latency
from tritonkit.report.charts.figure import FAINT, INK, MUTED, SHAPES, arm_style, ceiling_style
from tritonkit.report.levels import Point
from tritonkit.report.view import ReportView

_CIRCLE = SHAPES["o"]
_CROSS = "M2.5 2.5 11.5 11.5M11.5 2.5 2.5 11.5"


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a shape in a colour, and what it stands for."""

    label: str
    colour: str
    path: str
    filled: bool = True
    line: bool = False


def arm_keys(view: ReportView) -> dict[str, Key]:
    """Each arm's own sign, by the arm's key."""
    styles = {arm.key: arm_style(arm.key, place) for place, arm in enumerate(view.arms)}
    return {
        arm.key: Key(arm.label, styles[arm.key].colour, SHAPES[styles[arm.key].marker])
        for arm in view.arms
    }


def curve_keys(view: ReportView) -> list[Key]:
    """For the chart of all arms."""
    points = latency.drawn(view.arms)
    keys = [Key(k.label, k.colour, k.path, line=True) for k in arm_keys(view).values()]
    if any(v.purpose in ("load", "curve") and v.point for a in view.arms for v in a.levels):
        keys.append(Key("joined: closed loop", MUTED, "M7 4.4a2.6 2.6 0 1 0 .01 0z", line=True))
    keys += [Key("apart: Poisson arrivals", MUTED, _CIRCLE)] if _searched(view) else []
    keys += _signs(_searched(view), points)
    if view.slo_p99_ms and any(a.capacity_rps for a in view.arms):
        keys.append(Key("stroke on the budget: capacity, 95 % band", INK, "M7 0V14M0 7H14", False))
    if any(p.p99_ms > latency.top_ms(view.arms, view.slo_p99_ms) for p in points):
        arrow = "M7 13V2M2.5 6.5 7 2 11.5 6.5"
        keys.append(Key("arrow: beyond the top, at this p99", INK, arrow, filled=False))
    return keys


def search_keys(view: ReportView) -> list[Key]:
    """For the charts of single arms, which have no overloaded closed loops to speak of."""
    points = _searched(view)
    keys = level_keys(points)
    if any(p.low_ms is not None for p in points):
        keys.append(Key("upright line: 95 % interval of the p99", MUTED, "M7 0V14", filled=False))
    if any(a.capacity_rps for a in view.arms):
        keys.append(Key("upright line in a band: capacity, 95 %", INK, "M7 0V14M2 0V14M12 0V14"))
    return keys


def level_keys(points: Sequence[Point]) -> list[Key]:
    """For single marks of open levels."""
    keys = [Key("filled: held the budget", MUTED, _CIRCLE)] if points else []
    return keys + _signs(points, points)


def ceiling_keys(view: ReportView) -> list[Key]:
    """For the ceiling by batch size."""
    styles = [ceiling_style(place) for place in range(len(view.ceiling.curves))]
    return [
        Key(label, style.colour, SHAPES[style.marker], line=True)
        for (label, _), style in zip(view.ceiling.curves, styles, strict=True)
    ]


def _searched(view: ReportView) -> list[Point]:
    return [v.point for a in view.arms for v in latency.searched(a) if v.point is not None]


def _signs(opened: Iterable[Point], points: Iterable[Point]) -> list[Key]:
    """What a single mark may say. opened: of the open loop; points: all that are drawn."""
    opened, points = list(opened), list(points)
    keys = []
    if any(p.state == "failed" for p in opened):
        keys.append(Key("hollow: did not hold", MUTED, _CIRCLE, filled=False))
    if any(p.state == "excluded" for p in points):
        keys.append(Key("grey cross: generator was the limit", FAINT, _CROSS, filled=False))
    if any(p.unsteady for p in opened):
        label = "struck through: unsteady"
        keys.append(Key(label, MUTED, f"{_CIRCLE}M7 -1V15", filled=False))
    if any(p.errors and p.state != "excluded" for p in points):
        keys.append(Key("dark cross: had errors", INK, _CROSS, filled=False))
    return keys
