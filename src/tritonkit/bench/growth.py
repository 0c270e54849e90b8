"""What a soak showed: what grew or got worse, and what befell the server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from tritonkit.bench.progress import SoakEnd, SoakLevel
from tritonkit.bench.result import SoakFinding
from tritonkit.stats.trend import LEAST_POINTS, Trend, trend


def findings(levels: Sequence[SoakLevel], end: SoakEnd) -> Iterator[SoakFinding]:
    """What befell the server, and what trends. A server that was started afresh begins with
    fresh memory, so each one's part of the soak is looked at for itself.
    """
    if end.because:
        yield SoakFinding("server", end.because)
    parts = [list(part) for _, part in groupby(levels, key=lambda level: level.resumed)]
    if len(parts) > 1:
        breaks = " and ".join(f"{part[0].at_s / 60:.3g}" for part in parts[1:])
        yield SoakFinding(
            "server",
            f"the soak was interrupted and went on with a fresh server at minute {breaks}; "
            "trends were looked for in each part",
        )
    most = max(map(len, parts), default=0)
    if most < LEAST_POINTS:
        yield SoakFinding(
            "server",
            f"one server had {most} levels at most, and a trend takes {LEAST_POINTS}: whether "
            "anything grows is not known",
        )
    for part in parts:
        span = "the soak" if len(parts) == 1 else f"minutes {_span(part)}"
        yield from _trends(part, span)


def _span(part: Sequence[SoakLevel]) -> str:
    return f"{part[0].at_s / 60:.3g} to {part[-1].at_s / 60:.3g}"


def _trends(part: Sequence[SoakLevel], span: str) -> Iterator[SoakFinding]:
    at_s = [level.at_s for level in part]
    for series, name, bad in (
        ("rss_bytes", "resident memory", "rises"),
        ("shm_bytes", "shared memory", "rises"),
        ("achieved_rps", "throughput", "falls"),
        ("p99_ms", "p99", "rises"),
    ):
        seen = trend(at_s, [getattr(level, series) for level in part])
        if getattr(seen, bad):
            yield SoakFinding(series, f"{name} {bad}: {_amount(series, seen)} over {span}")


def _amount(series: str, seen: Trend) -> str:
    unit = {"achieved_rps": "requests/s", "p99_ms": "ms"}.get(series, "MiB")
    change = seen.change / 2**20 if unit == "MiB" else seen.change
    return f"{change:+,.1f} {unit} ({seen.relative:+.0%})"
