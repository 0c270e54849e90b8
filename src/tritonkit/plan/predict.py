"""What settings would do under a stream of requests, by simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from tritonkit.plan.batcher import ANSWERED
from tritonkit.plan.settings import Settings
from tritonkit.plan.simulate import Service, Simulated, simulate
from tritonkit.plan.stream import Stream
from tritonkit.stats.confidence import requests_needed
from tritonkit.stats.latency import percentile

HORIZON_S = 10.0
"""How much of the long run is simulated, unless that is too few requests, or very many."""

FEWEST, MOST = 3_000, 30_000
"""Requests of that."""

WARM_UP = 0.1
"""The share of it that is left out: it begins with an empty queue."""

LIVE_S = 1.5
"""How long a live level lasts; up to four times that where so few requests make no p99."""

LEVELS, REQUESTS = (3, 9), 15_000
"""So many live levels are simulated at least and at most, and within that so many requests."""

LEAST_RPS = 0.1


@dataclass(frozen=True)
class Level:
    """A simulated level. mean_batch: rows of a run, None if nothing ran. refused: the share of
    the requests. p50_ms, p99_ms: None if none was answered.
    """

    rate_rps: float
    p50_ms: float | None
    p99_ms: float | None
    mean_batch: float | None
    refused: float

    def holds(self, slo_p99_ms: float) -> bool:
        """No refusals, and p99 within the budget."""
        return self.refused == 0 and self.p99_ms is not None and self.p99_ms <= slo_p99_ms


def predict(
    settings: Settings, service: Service, stream: Stream, rate_rps: float, seed: int = 0
) -> Level:
    """The settings at one rate, in the long run."""
    count = int(min(MOST, max(FEWEST, HORIZON_S * rate_rps)))
    run = _run(settings, service, stream, rate_rps, count, seed)
    counted = slice(int(WARM_UP * count), None)
    answered = run.outcome[counted] == ANSWERED
    latency_ms = (run.done_s - run.intended_s)[counted][answered] * 1e3
    return Level(
        rate_rps,
        percentile(latency_ms, 50),
        percentile(latency_ms, 99),
        run.mean_batch,
        float(1 - answered.mean()),
    )


def live_s(rate_rps: float) -> float:
    """How long a live level at this rate lasts."""
    return min(4 * LIVE_S, max(LIVE_S, requests_needed(99) / rate_rps))


def predict_live(
    settings: Settings, service: Service, stream: Stream, rate_rps: float, seed: int = 0
) -> tuple[float | None, float | None]:
    """p50 and p99, in milliseconds, of a live level, in the median of several; None if nothing
    was answered.

    A live level is short: the queue of a busy server begins empty and does not become as long as
    it would in the long run, and of an overload it shows but the beginning.
    """
    count = max(1, math.ceil(live_s(rate_rps) * rate_rps))
    fewest, most = LEVELS
    latencies_ms = [
        _run(settings, service, stream, rate_rps, count, seed + number).latency_s * 1e3
        for number in range(min(most, max(fewest, REQUESTS // count)))
    ]
    p50s_ms, p99s_ms = (
        [percentile(each, q) for each in latencies_ms if len(each)] for q in (50, 99)
    )
    return _median(p50s_ms), _median(p99s_ms)


def _run(
    settings: Settings, service: Service, stream: Stream, rate_rps: float, count: int, seed: int
) -> Simulated:
    drawn = stream.draw(rate_rps, count, seed)
    return simulate(
        drawn.starts_s,
        settings,
        service,
        rows=drawn.rows,
        shapes=drawn.shapes,
        costs=drawn.costs,
        seed=seed,
    )


def _median(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return median(found) if found else None


def throughput_rps(settings: Settings, service: Service, stream: Stream) -> float:
    """Requests a second at most, if all runs were full and never waited."""
    rows = settings.max_batch_size if settings.dynamic_batching else math.ceil(stream.mean_rows)
    run_s = np.array(service.run_s[:rows]) * service.slowdown[settings.instances - 1]
    gap_s = service.gaps_s[: len(run_s)]
    sizes = np.arange(1, len(run_s) + 1)
    if settings.dynamic_batching is None:
        sizes, run_s, gap_s = sizes[-1:], run_s[-1:], gap_s[-1:]
    rows_per_s = float((sizes / (run_s * stream.mean_cost + gap_s)).max())
    return settings.instances * rows_per_s / stream.mean_rows


def capacity_rps(
    settings: Settings,
    service: Service,
    stream: Stream,
    slo_p99_ms: float,
    *,
    within: float = 0.01,
    seed: int = 0,
) -> float:
    """The highest rate whose p99 keeps the budget, to a factor of 1 + within; 0 if none does.

    It takes for granted that what holds a rate holds a lower one, down to where hardly two
    requests meet. With a delay that is not quite so; then it is one of the rates at which
    holding ends.
    """

    def holds(rate_rps: float) -> bool:
        return predict(settings, service, stream, rate_rps, seed).holds(slo_p99_ms)

    high = throughput_rps(settings, service, stream)
    if not holds(LEAST_RPS):
        return 0.0
    low = LEAST_RPS
    # Most settings hold a good part of what they could serve: look there first.
    for share in (0.5, 0.8, 0.95):
        if not holds(share * high):
            high = share * high
            break
        low = share * high
    while high > (1 + within) * low:
        middle = math.sqrt(low * high)
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
