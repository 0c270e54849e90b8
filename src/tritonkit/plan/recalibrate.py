"""Bring the service times of a lane in line with what live levels showed.

A closed loop shows the mean of runs, and an idle server how they scatter. At the rates that matter
the machine is busier than in either: runs take longer, and now and then much longer. Two numbers
for each way to run make up for that: a pace on all times, and an exponent on their scatter.

Each live level is simulated with the very requests that it had, at their times: in levels of some
hundred requests the luck of their arrivals moves p99, and is no sign of slow runs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tritonkit.plan.predict import predict_again
from tritonkit.plan.search import Lanes
from tritonkit.plan.settings import Settings, Way
from tritonkit.plan.simulate import Service
from tritonkit.plan.stream import Requests

PACES = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5)
EXPONENTS = (0.5, 0.75, 1.0, 1.4, 2.0, 2.8, 4.0)
"""What is tried. 1 and 1 are the times as they were measured."""

OVERLOADED = 3.0
"""A p99 that is so many times the budget, or more, says no more than that the rate is too high."""

DOUBT_P50, DOUBT_P99 = 0.15, 0.4
"""How far, as a logarithm, p50 and p99 of a live level are off by chance: so much they differ from
level to level at one rate (benchmarks/README.md). Against it stands how far pace and exponent are
from 1, so that a few short levels do not bend the curve."""

FASTER = 1.06
"""A percentile is off by what it would be at so many times the rate as well. Near saturation that
is a lot: there a level tells where saturation is, and hardly how runs scatter."""


@dataclass(frozen=True)
class Seen:
    """A live open level: the settings, its very requests, and its percentiles."""

    settings: Settings
    requests: Requests
    p50_ms: float
    p99_ms: float


class Correction(NamedTuple):
    """A factor on all times, and an exponent on the scatter of runs."""

    pace: float = 1.0
    exponent: float = 1.0

    def applied(self, service: Service) -> Service:
        """The service with it."""
        scatter = np.array(service.scatter) ** self.exponent
        return replace(
            service,
            run_s=tuple(self.pace * s for s in service.run_s),
            gap_s=tuple(self.pace * s for s in service.gap_s),
            scatter=tuple((scatter / scatter.mean()).tolist()),
        )


def corrections(lanes: Lanes, seen: Sequence[Seen], slo_p99_ms: float) -> Mapping[Way, Correction]:
    """For every way to run; those without live levels get the mean of the others."""
    found = {}
    for way, service in lanes.items():
        own = [s for s in seen if s.settings.way == way]
        if own:
            found[way] = _best(service, own, slo_p99_ms)
    if not found:
        return dict.fromkeys(lanes, Correction())
    pace, exponent = (
        math.exp(np.mean([math.log(x) for x in each])) for each in zip(*found.values(), strict=True)
    )
    return {way: found.get(way, Correction(pace, exponent)) for way in lanes}


def _best(service: Service, seen: Sequence[Seen], slo_p99_ms: float) -> Correction:
    most_ms = OVERLOADED * slo_p99_ms

    @functools.cache
    def cost(correction: Correction) -> float:
        corrected = correction.applied(service)
        off = sum(abs(math.log(x)) for x in correction)
        for level in seen:
            here = predict_again(level.settings, corrected, level.requests)
            beyond = predict_again(level.settings, corrected, level.requests.faster(FASTER))
            p50s_ms = here.p50_ms, beyond.p50_ms, level.p50_ms
            p99s_ms = here.p99_ms, beyond.p99_ms, level.p99_ms
            off += _off(DOUBT_P50, p50s_ms, most_ms) + _off(DOUBT_P99, p99s_ms, most_ms)
        return off

    best = Correction()
    for _ in range(2):  # first one number, then the other, twice: they hardly depend on each other
        best = min((Correction(pace, best.exponent) for pace in PACES), key=cost)
        best = min((Correction(best.pace, exponent) for exponent in EXPONENTS), key=cost)
    return best


def _off(doubt: float, each_ms: Sequence[float | None], most_ms: float) -> float:
    """How far a predicted percentile is from the one that was seen, in doubts: without squares, as
    a level in which the machine stood still says little of the others. each_ms: predicted,
    predicted at a rate beyond, and seen.
    """
    here, beyond, seen = (math.log(min(most_ms, math.inf if ms is None else ms)) for ms in each_ms)
    return abs(here - seen) / (doubt + abs(beyond - here))
