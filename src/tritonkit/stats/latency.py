"""What a level's samples say: throughput and latency percentiles, and how far to trust them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tritonkit.samples import NOT_SENT, Sample
from tritonkit.stats.confidence import percentile_interval, requests_needed, variance_inflation
from tritonkit.stats.steady import answered_drift, latency_drift, settle, throughput_drift

LATE_MS = 1.0
"""A request sent later than so long after its intended start is late."""

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class LevelStats:
    """One level in numbers, its warm-up left out. Latencies in milliseconds count from the
    intended start, those named service from the real send; they are None if none succeeded.

    requests: those that count, and the errors of the whole level: no error is cut away with the
    warm-up. not_sent: how many of the errors are arrivals whose turn never came. late: sent more
    than LATE_MS after the intended start; no_connection: how many found all connections busy;
    lateness_p99_ms: how late the generator was, a wait for a connection left out, as that is the
    server's doing. Of an open loop only (0 and None in a closed one).
    warmup_s: what was left out at the start, 0 if the level never settled. duration_s: the rest,
    and in an open loop until the last answer was in; achieved_rps: requests answered per second
    of it.
    p50_interval_ms, p99_interval_ms: 95 %, or None if the level is too short to give any.
    p99_enough: whether it had the p99_needs answered requests that a p99 takes. That number
    grows with the dependence between neighbours, of which a short level shows only a part.
    steady, unsteady_because: whether latency or throughput drifted, and how ("" if not, or if
    there are too few requests to tell).
    """

    requests: int
    errors: int
    error_kinds: dict[str, int]
    not_sent: int
    late: int
    no_connection: int
    warmup_s: float
    duration_s: float
    achieved_rps: float
    mean_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    p50_interval_ms: Interval | None
    p99_interval_ms: Interval | None
    p99_enough: bool
    p99_needs: int
    service_p50_ms: float | None
    service_p99_ms: float | None
    lateness_p99_ms: float | None
    steady: bool
    unsteady_because: str


def summarise(
    samples: Sequence[Sample], *, duration_s: float, open_loop: bool, stationary: bool = True
) -> LevelStats:
    """The numbers of one level. duration_s: of all that was sent, its warm-up included.

    An open loop counts the requests that were *intended* in the window, for as long as they
    took; a closed loop those that were answered in it, because its users start no others, and
    those that were sent in it and failed, however late. The warm-up is found by `settle`; a
    level whose latency drifts even without it has none, and is counted whole. So is one whose
    load was not stationary: its start differs from the rest because it was asked to.
    """
    columns = zip(*samples, strict=True) if samples else ((),) * len(Sample._fields)
    intended_ns, sent_ns, done_ns, _, errors, put_off_ns = columns
    intended, sent, done = (np.array(t, dtype=np.int64) for t in (intended_ns, sent_ns, done_ns))
    put_off = np.array([t is not None for t in put_off_ns], dtype=bool)
    ready = np.array([s if t is None else t for t, s in zip(put_off_ns, sent_ns, strict=True)])
    good = np.array([not error for error in errors], dtype=bool)
    at, end_ns = intended if open_loop else done, int(duration_s * 1e9)
    within = (at >= 0) & (at < end_ns)
    if not open_loop:
        within |= ~good & (intended >= 0) & (intended < end_ns)

    in_order = np.flatnonzero(within & good)
    in_order = in_order[np.argsort(at[in_order], kind="stable")]
    latency_ms = (done - intended)[in_order] / 1e6
    cut, drift = settle(latency_ms) if stationary else (0, latency_drift(latency_ms))
    start_ns = int(at[in_order[cut]]) if cut else 0
    counted = within & (at >= start_ns)
    in_order, latency_ms = in_order[cut:], latency_ms[cut:]

    took_s = duration_s - start_ns / 1e9
    if open_loop and len(in_order):
        # Not until a request that was given up: that is no time in which any was answered.
        took_s = max(took_s, (int(done[in_order].max()) - start_ns) / 1e9)
    times = (start_ns / 1e9, duration_s)
    if not drift and open_loop:
        drift = answered_drift(intended[counted] / 1e9, good[counted], *times)
    elif not drift:
        drift = throughput_drift(done[in_order] / 1e9, *times)

    kinds = Counter(error for error, counts in zip(errors, within, strict=True) if error and counts)
    late = (sent - intended)[counted] / 1e6 > LATE_MS
    lateness_ms = (ready - intended)[counted] / 1e6
    service_ms = (done - sent)[in_order] / 1e6
    inflation = variance_inflation(latency_ms, 99)
    needs = math.ceil(requests_needed(99) * inflation)
    return LevelStats(
        requests=len(in_order) + kinds.total(),
        errors=kinds.total(),
        error_kinds=dict(kinds),
        not_sent=kinds[NOT_SENT],
        late=int(np.count_nonzero(late)) if open_loop else 0,
        no_connection=int(np.count_nonzero(put_off[counted])),
        warmup_s=start_ns / 1e9,
        duration_s=took_s,
        achieved_rps=len(in_order) / took_s,
        mean_ms=float(latency_ms.mean()) if len(latency_ms) else None,
        p50_ms=percentile(latency_ms, 50),
        p90_ms=percentile(latency_ms, 90),
        p99_ms=percentile(latency_ms, 99),
        max_ms=percentile(latency_ms, 100),
        p50_interval_ms=percentile_interval(latency_ms, 50, variance_inflation(latency_ms, 50)),
        p99_interval_ms=percentile_interval(latency_ms, 99, inflation),
        p99_enough=len(latency_ms) >= needs,
        p99_needs=needs,
        service_p50_ms=percentile(service_ms, 50),
        service_p99_ms=percentile(service_ms, 99),
        lateness_p99_ms=percentile(lateness_ms, 99) if open_loop else None,
        steady=not drift,
        unsteady_because=drift,
    )


def percentile(values: np.ndarray, q: float) -> float | None:
    """The smallest value that at least q % of all values do not exceed (nearest rank).

    Never interpolated, so a reported latency is one that a request really had. None if empty.
    """
    if not len(values):
        return None
    return float(np.percentile(values, q, method="inverted_cdf"))
