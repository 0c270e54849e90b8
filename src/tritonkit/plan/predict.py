"""What settings would do under a stream of requests, by simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from tritonkit.plan.settings import Settings
from tritonkit.plan.simulate import Service, Simulated, simulate
from tritonkit.plan.stream import Requests, Stream
from tritonkit.stats.confidence import requests_needed
from tritonkit.stats.latency import percentile

LIVE_S = 1.5
"""How long a live level lasts; up to four times that where so few requests make no p99."""

FEWEST, MOST = 200, 20_000
"""Requests of a simulated level, at rates at which nobody would run one live."""

LEVELS = (3, 9)
"""So many levels are simulated at least and at most, and within that MOST requests."""

AGAIN = 3
"""So often the requests of a live level are simulated: how runs scatter is all that is left to
luck."""

LEAST_RPS = 0.1


@dataclass(frozen=True)
class Level:
    """What live levels show: percentiles in the median over several of them, None if nothing was
    answered. mean_batch: rows of a run, None if nothing ran. refused: the share of the requests.

    A live level is short: the queue of a busy server begins empty and may not become as long as it
    would in an hour, and of an overload it shows but the beginning.
    """

    p50_ms: float | None
    p99_ms: float | None
    mean_batch: float | None
    refused: float

    def holds(self, slo_p99_ms: float) -> bool:
        """No refusals, and p99 within the budget: in half of the levels, as a capacity wants it."""
        return self.refused == 0 and self.p99_ms is not None and self.p99_ms <= slo_p99_ms


def live_s(rate_rps: float) -> float:
    """How long a live level at this rate lasts."""
    return min(4 * LIVE_S, max(LIVE_S, requests_needed(99) / rate_rps))


def predict(
    settings: Settings, service: Service, stream: Stream, rate_rps: float, seed: int = 0
) -> Level:
    """The settings at one rate."""
    count = max(FEWEST, min(MOST, math.ceil(live_s(rate_rps) * rate_rps)))
    fewest, most = LEVELS
    seeds = range(seed, seed + min(most, max(fewest, MOST // count)))
    return _level([_run(settings, service, stream.draw(rate_rps, count, s), s) for s in seeds])


def predict_again(settings: Settings, service: Service, requests: Requests) -> Level:
    """The settings under requests that came once: no other luck with arrivals than a live level
    had.
    """
    return _level([_run(settings, service, requests, seed) for seed in range(AGAIN)])


def _run(settings: Settings, service: Service, requests: Requests, seed: int) -> Simulated:
    return simulate(
        requests.starts_s,
        settings,
        service,
        rows=requests.rows,
        shapes=requests.shapes,
        costs=requests.costs,
        seed=seed,
    )


def _level(runs: Sequence[Simulated]) -> Level:
    latencies_ms = [run.latency_s * 1e3 for run in runs]
    executions = sum(run.runs for run in runs)
    return Level(
        _median(latencies_ms, 50),
        _median(latencies_ms, 99),
        sum(run.rows for run in runs) / executions if executions else None,
        1 - sum(map(len, latencies_ms)) / sum(len(run.intended_s) for run in runs),
    )


def _median(samples: Sequence[np.ndarray], q: float) -> float | None:
    """Of a percentile of each; None if none has one."""
    found = [p for each in samples if (p := percentile(each, q)) is not None]
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
