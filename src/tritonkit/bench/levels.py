"""Which levels of load an arm is measured at, and the record of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Literal

from tritonkit.bench.result import LevelRecord
from tritonkit.bench.verdict import capacity, holds_budget
from tritonkit.load.runner import Level, LevelRun
from tritonkit.stats.latency import summarise

USERS = (1, 4, 16, 64)
"""Closed-loop levels, tried upwards until one breaks the budget."""

OPEN_SHARES = (0.6, 0.85)
"""Open-loop levels, as shares of what the closed loop sustained within the budget."""

Measure = Callable[[Literal["closed", "open"], float], LevelRecord]
"""(mode, offered) → the record of one measured level."""


def measure_levels(measure: Measure, rate_rps: float | None) -> list[LevelRecord]:
    """Measure an arm at a few levels that surround its capacity.

    Closed loop: USERS until one breaks the budget, then once between the last that held and
    the first that did not. Open loop: shares of the capacity found so, and `rate_rps` if given.
    """
    closed: list[LevelRecord] = []
    for users in USERS:
        closed.append(measure("closed", users))
        if not closed[-1].holds_slo:
            break
    if closed[-1].holds_slo:
        closed.append(measure("closed", 2 * closed[-1].offered))
    elif len(closed) > 1:
        closed.append(measure("closed", 2 * closed[-2].offered))
    sustained = capacity(closed) or closed[0].achieved_rps
    rates = [_round(sustained * share) for share in OPEN_SHARES if sustained > 0]
    if rate_rps is not None:
        rates.append(rate_rps)
    opened = [measure("open", rate) for rate in rates]
    return sorted(closed, key=lambda r: r.offered) + sorted(opened, key=lambda r: r.offered)


def record(
    level: Level, run: LevelRun, mean_batch: float | None, slo_p99_ms: float, samples: str
) -> LevelRecord:
    """The record of one level. samples: where its samples lie, relative to the result."""
    is_open = level.mode == "open"
    stats = summarise(
        run.samples, warmup_s=level.warmup_s, duration_s=level.duration_s, open_loop=is_open
    )
    return LevelRecord(
        mode=level.mode,
        offered=level.offered,
        generator_cpu=run.generator_cpu,
        generator_bound=generator_bound(stats.lateness_p99_ms, stats.p99_ms, run.generator_cpu),
        mean_batch=mean_batch,
        holds_slo=holds_budget(stats, slo_p99_ms),
        samples=samples,
        **asdict(stats),
    )


def generator_bound(
    lateness_p99_ms: float | None, p99_ms: float | None, generator_cpu: float
) -> bool:
    """Whether the generator may be what was measured: it used a whole core, or it sent later
    than 1 ms and 5 % of the latency."""
    late = (lateness_p99_ms or 0.0) > max(1.0, 0.05 * (p99_ms or 0.0))
    return late or generator_cpu > 0.9


def _round(rate: float) -> float:
    """Two or three significant digits, for people."""
    return float(f"{rate:.3g}")
