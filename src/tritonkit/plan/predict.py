"""What settings would do under a stream of requests, by simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tritonkit.plan.batcher import ANSWERED
from tritonkit.plan.settings import Settings
from tritonkit.plan.simulate import Service, Simulated, simulate
from tritonkit.plan.stream import Stream
from tritonkit.stats.latency import percentile

HORIZON_S = 10.0
"""How long a simulated level lasts, unless that is too few requests for a p99, or very many."""

FEWEST, MOST = 3_000, 30_000
"""Requests of a simulated level."""

WARM_UP = 0.1
"""The share of a level that is left out: it begins with an empty queue."""

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
    """The settings at one rate."""
    run = run_at(settings, service, stream, rate_rps, seed)
    counted = slice(int(WARM_UP * len(run.intended_s)), None)
    answered = run.outcome[counted] == ANSWERED
    latency_ms = (run.done_s - run.intended_s)[counted][answered] * 1e3
    return Level(
        rate_rps,
        percentile(latency_ms, 50),
        percentile(latency_ms, 99),
        run.mean_batch,
        float(1 - answered.mean()),
    )


def run_at(
    settings: Settings, service: Service, stream: Stream, rate_rps: float, seed: int = 0
) -> Simulated:
    """The requests of a level at one rate, and what became of them."""
    count = int(min(MOST, max(FEWEST, HORIZON_S * rate_rps)))
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
