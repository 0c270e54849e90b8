"""What a level's samples say: throughput and latency percentiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tritonkit.samples import Sample


@dataclass(frozen=True)
class LevelStats:
    """One level in numbers, its warm-up left out. Latencies in milliseconds count from the
    intended start; they are None when no request succeeded.

    achieved_rps: answered requests per second. lateness_p99_ms: how late the generator sent,
    open loop only.
    """

    requests: int
    errors: int
    error_kinds: dict[str, int]
    duration_s: float
    achieved_rps: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    lateness_p99_ms: float | None


def summarise(
    samples: Sequence[Sample], *, warmup_s: float, duration_s: float, open_loop: bool
) -> LevelStats:
    """The numbers of one level.

    An open loop counts the requests that were *intended* in the window, for as long as they
    took; a closed loop those that were answered in it, because its users start no others, and
    those that were sent in it and failed, however late.
    """
    start_ns, end_ns = int(warmup_s * 1e9), int((warmup_s + duration_s) * 1e9)
    if open_loop:
        counted = [s for s in samples if start_ns <= s.intended_ns < end_ns]
        took_s = max([duration_s, *((s.done_ns - start_ns) / 1e9 for s in counted)])
    else:
        counted = [
            s
            for s in samples
            if start_ns <= s.done_ns < end_ns or (s.error and start_ns <= s.intended_ns < end_ns)
        ]
        took_s = duration_s
    good = [s for s in counted if not s.error]
    latency_ms = np.array([s.done_ns - s.intended_ns for s in good]) / 1e6
    lateness_ms = np.array([s.sent_ns - s.intended_ns for s in counted]) / 1e6
    return LevelStats(
        requests=len(counted),
        errors=len(counted) - len(good),
        error_kinds=dict(Counter(s.error for s in counted if s.error)),
        duration_s=took_s,
        achieved_rps=len(good) / took_s,
        p50_ms=percentile(latency_ms, 50),
        p90_ms=percentile(latency_ms, 90),
        p99_ms=percentile(latency_ms, 99),
        max_ms=percentile(latency_ms, 100),
        lateness_p99_ms=percentile(lateness_ms, 99) if open_loop else None,
    )


def percentile(values: np.ndarray, q: float) -> float | None:
    """The smallest value that at least q % of all values do not exceed (nearest rank).

    Never interpolated, so a reported latency is one that a request really had. None if empty.
    """
    if not len(values):
        return None
    return float(np.percentile(values, q, method="inverted_cdf"))
