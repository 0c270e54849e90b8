"""The view of a soak: a few series over time, and what was found in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonkit.report import formats as f
from tritonkit.report import prose

_SERIES = (
    ("achieved_rps", "Answered, requests/s", 1.0),
    ("p99_ms", "p99, ms", 1.0),
    ("rss_bytes", "Memory (RSS), MiB", 2.0**20),
    ("shm_bytes", "Shared memory, MiB", 2.0**20),
)


@dataclass(frozen=True)
class SeriesView:
    """One quantity over a soak. points: (minutes since it began, value)."""

    key: str
    label: str
    points: tuple[tuple[float, float], ...]
    caption: str


@dataclass(frozen=True)
class SoakView:
    """One arm under a steady load for long."""

    arm: str
    summary: str
    findings: tuple[str, ...]
    series: tuple[SeriesView, ...]


def soak_view(soak: Mapping[str, Any]) -> SoakView | None:
    """None where there was no soak."""
    if not soak:
        return None
    found = [f.mapping(x) for x in f.listed(soak.get("findings"))]
    at_s = [f.number(t) for t in f.listed(soak.get("at_s"))]
    series = []
    for key, label, unit in _SERIES:
        values = [f.number(v) for v in f.listed(soak.get(key))]
        points = tuple(
            (t / 60, v / unit)
            for t, v in zip(at_s, values, strict=False)
            if t is not None and v is not None
        )
        texts = [f.text(x.get("text")) for x in found if x.get("series") == key]
        caption = "; ".join(texts) or prose.no_trend(points)
        series.append(SeriesView(key, label, points, caption))
    return SoakView(
        arm=f.text(soak.get("arm")),
        summary=prose.soak(soak),
        findings=tuple(f.text(x.get("text")) for x in found),
        series=tuple(series),
    )
