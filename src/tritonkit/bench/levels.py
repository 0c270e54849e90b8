"""Which levels of load an arm is measured at, and the record of each."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Literal

from tritonkit.bench.result import LevelRecord
from tritonkit.bench.verdict import capacity, holds_budget
from tritonkit.stats.latency import summarise

if TYPE_CHECKING:  # importing it patches the process for gevent
    from tritonkit.load.runner import Level, LevelRun

USERS = (1, 4, 16, 64, 128)
"""Closed-loop levels, tried upwards until one breaks the budget."""

OPEN_SHARES = (0.6, 0.85)
"""Open-loop levels, as shares of what the closed loop sustained within the budget."""

Mode = Literal["closed", "open"]

Plan = Generator[tuple[Mode, float], LevelRecord, list[LevelRecord]]
"""Asks for a level as (mode, offered), is sent its record, and returns all records in the end."""


def plan_levels(rate_rps: float | None) -> Plan:
    """The few levels that surround an arm's capacity, each chosen by what the last one showed.

    Closed loop: USERS until one breaks the budget, then once between the last that held and
    the first that did not. Open loop: shares of the capacity found so, and `rate_rps` if given.
    At last the level that decides is measured once more, so that no verdict rests on one
    moment of a busy machine.
    """
    closed: list[LevelRecord] = []
    for users in USERS:
        closed.append((yield "closed", users))
        if not closed[-1].holds_slo:
            break
    if not closed[-1].holds_slo and len(closed) > 1:
        between = math.isqrt(int(closed[-2].offered * closed[-1].offered))
        closed.append((yield "closed", between))
    sustained = capacity(closed) or closed[0].achieved_rps
    rates = [_round(sustained * share) for share in OPEN_SHARES if sustained > 0]
    if rate_rps is not None:
        rates.append(rate_rps)
    opened = []
    for rate in rates:
        opened.append((yield "open", rate))
    levels = sorted(closed, key=_offered) + sorted(opened, key=_offered)
    decides = _deciding(levels, rate_rps)
    again = yield decides.mode, decides.offered
    return [*levels, replace(again, repeat=True)]


def _deciding(levels: list[LevelRecord], rate_rps: float | None) -> LevelRecord:
    """The level at the wanted rate; else the one that set the capacity; else the first."""
    if rate_rps is not None:
        return next(x for x in levels if x.mode == "open" and x.offered == rate_rps)
    holding = [level for level in levels if level.holds_slo]
    return max(holding, key=lambda x: x.achieved_rps) if holding else levels[0]


def _offered(level: LevelRecord) -> float:
    return level.offered


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
