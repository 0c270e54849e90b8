"""Bring the service times of a lane in line with what live levels showed.

A closed loop shows the mean of runs, and an idle server how they scatter. At the rates that matter
the machine is busier than in either: runs take longer, and now and then much longer. Two numbers
for each lane make up for that: a pace on all times, and an exponent on their scatter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tritonkit.plan.predict import predict
from tritonkit.plan.search import Lanes
from tritonkit.plan.settings import Settings
from tritonkit.plan.simulate import Service
from tritonkit.plan.stream import Stream

PACES = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5)
EXPONENTS = (0.5, 0.75, 1.0, 1.4, 2.0, 2.8, 4.0)
"""What is tried. 1 and 1 are the times as they were measured."""

OVERLOADED = 3.0
"""A p99 that is so many times the budget, or more, says no more than that the rate is too high."""

DOUBT = 0.1
"""How far, as a logarithm, a measured percentile may be off by chance. Against it stands how far
pace and exponent are from 1, so that a few short levels do not bend the curve."""


@dataclass(frozen=True)
class Seen:
    """A live open level: the settings, the rate in requests a second, and its percentiles."""

    settings: Settings
    rate_rps: float
    p50_ms: float
    p99_ms: float


class Correction(NamedTuple):
    """A factor on all times of a lane, and an exponent on the scatter of its runs."""

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


def corrections(
    lanes: Lanes, seen: Sequence[Seen], stream: Stream, slo_p99_ms: float
) -> Mapping[tuple[int, int], Correction]:
    """For every lane; those without live levels get the mean of the others."""
    found = {}
    for lane, service in lanes.items():
        own = [s for s in seen if (s.settings.threads, s.settings.instances) == lane]
        if own:
            found[lane] = _best(service, own, stream, slo_p99_ms)
    if not found:
        return dict.fromkeys(lanes, Correction())
    pace, exponent = (
        math.exp(np.mean([math.log(x) for x in each])) for each in zip(*found.values(), strict=True)
    )
    return {lane: found.get(lane, Correction(pace, exponent)) for lane in lanes}


def _best(service: Service, seen: Sequence[Seen], stream: Stream, slo_p99_ms: float) -> Correction:
    def cost(correction: Correction) -> float:
        corrected = correction.applied(service)
        off = sum(_off(s, corrected, stream, slo_p99_ms) for s in seen)
        return off / DOUBT**2 + sum(math.log(x) ** 2 for x in correction)

    best = Correction()
    for _ in range(2):  # first one number, then the other, twice: they hardly depend on each other
        best = min((Correction(pace, best.exponent) for pace in PACES), key=cost)
        best = min((Correction(best.pace, exponent) for exponent in EXPONENTS), key=cost)
    return best


def _off(seen: Seen, service: Service, stream: Stream, slo_p99_ms: float) -> float:
    """How far the prediction of a level is from what was seen, squared."""
    said = predict(seen.settings, service, stream, seen.rate_rps)
    most_ms = OVERLOADED * slo_p99_ms
    pairs = ((said.p50_ms, seen.p50_ms), (said.p99_ms, seen.p99_ms))
    return sum(
        math.log(min(most_ms, math.inf if ours is None else ours) / min(most_ms, theirs)) ** 2
        for ours, theirs in pairs
    )
