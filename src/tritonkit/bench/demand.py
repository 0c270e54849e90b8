"""From an arm's capacity to machines and money."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tritonkit.bench.result import Demand
from tritonkit.load.level import LevelRecord

SECONDS_A_DAY = 86_400
SECONDS_AN_HOUR = 3_600


def rate_of_a_day(requests: float, peak_factor: float) -> float:
    """The requests per second to plan for: the day's mean times how far the peak is above it."""
    return requests / SECONDS_A_DAY * peak_factor


def held_at(levels: Sequence[LevelRecord], rate_rps: float) -> tuple[int, int]:
    """How many of the levels at this rate kept the budget, and how many count."""
    asked = [x for x in levels if x.purpose == "rate" and x.offered == rate_rps]
    counted = [x for x in asked if not x.generator_bound]
    return sum(bool(x.holds_slo) for x in counted), len(counted)


def holds_rate(levels: Sequence[LevelRecord], rate_rps: float) -> bool | None:
    """Whether two of three counted levels at this rate kept the budget, as a hiccup of the
    machine breaks one. None if no level at it counts.

    It asks more than a capacity does, at which only half of the levels hold.
    """
    held, counted = held_at(levels, rate_rps)
    return 3 * held >= 2 * counted if counted else None


def demand(
    levels: Sequence[LevelRecord],
    interval_rps: tuple[float, float | None] | None,
    rate_rps: float,
    cost_per_hour: float | None,
) -> Demand:
    """What it takes to serve `rate_rps` with an arm whose capacity has this 95 % interval.

    It goes by the low end, so that it is enough. cost_per_hour: of one replica. The price of a
    million requests is that of all replicas at this rate, the spare one too.
    """
    low_rps = interval_rps[0] if interval_rps else 0.0
    holds = holds_rate(levels, rate_rps)
    if low_rps <= 0:
        return Demand(rate_rps, holds, None, None, None)
    replicas = math.ceil(rate_rps / low_rps) + 1
    cost = None
    if cost_per_hour is not None:
        cost = cost_per_hour * replicas / (rate_rps * SECONDS_AN_HOUR) * 1e6
    return Demand(rate_rps, holds, low_rps / rate_rps - 1, replicas, cost)
