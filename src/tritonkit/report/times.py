"""The view of where a request's time goes, per arm at a low load and just below its capacity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonkit.report import formats as f
from tritonkit.report import prose
from tritonkit.report.levels import Scale, below_capacity, purpose

PARTS = ("client", "connection", "wire", "queue", "input", "compute", "output")
"""In the order in which a request passes them, but for the way back."""


@dataclass(frozen=True)
class TimeView:
    """The mean latency of one level, taken apart. ms: of PARTS, None where not known."""

    arm: str
    at: str
    ms: tuple[float | None, ...]
    shown: tuple[str, ...]
    total: str
    sum_ms: float
    """Of the known parts: what a bar of them adds up to."""
    remark: str
    """Where the parts do not add up to what the client saw, or one is negative; else empty."""


@dataclass(frozen=True)
class Times:
    """All arms at one kind of load."""

    title: str
    rows: tuple[TimeView, ...]


def times(
    arms: Sequence[tuple[str, Sequence[Mapping[str, Any]], float | None]], scale: Scale
) -> tuple[Times, ...]:
    """arms: (key, levels in order, capacity). A kind of load without any split is left out."""
    low = [(key, _lowest(levels)) for key, levels, _ in arms]
    near = [(key, below_capacity(levels, capacity)) for key, levels, capacity in arms]
    found = []
    for title, picked in ((prose.LOW_LOAD, low), (prose.NEAR_CAPACITY, near)):
        rows = [_time(key, level, scale) for key, level in picked if level is not None]
        if any(row.sum_ms > 0 for row in rows):
            found.append(Times(title, tuple(rows)))
    return tuple(found)


def _lowest(levels: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The lightest closed loop: one user, where it was run."""
    closed = [v for v in levels if purpose(v) == "curve"]
    return min(closed, key=lambda v: f.number(v.get("offered")) or 0.0, default=None)


def _time(arm: str, level: Mapping[str, Any], scale: Scale) -> TimeView:
    split = f.mapping(level.get("time_split"))
    ms = tuple(f.number(split.get(f"{part}_ms")) for part in PARTS)
    digits = max(scale.ms_decimals, 2)
    return TimeView(
        arm=arm,
        at=prose.offered(level),
        ms=ms,
        shown=tuple(f.fixed(v, digits) for v in ms),
        total=f.fixed(split.get("total_ms"), digits),
        sum_ms=sum(v for v in ms if v is not None and v > 0),
        remark=prose.split_remark(split) or _below_zero(ms, split, digits),
    )


def _below_zero(ms: Sequence[float | None], split: Mapping[str, Any], digits: int) -> str:
    """Of the parts that are negative even as they are shown, with so many digits."""
    parts = {p: v for p, v in zip(PARTS, ms, strict=True) if v is not None and round(v, digits) < 0}
    total_ms = f.number(split.get("total_ms"))
    if not parts or not total_ms or total_ms < 0:
        return ""
    return prose.below_zero([*parts], -min(parts.values()) / total_ms)
