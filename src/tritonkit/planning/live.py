"""Live levels on the candidates of a plan, and what they say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from tritonkit.bench.demand import holds_rate
from tritonkit.bench.levels import connections
from tritonkit.load.arrivals import Arrival, Arrivals, Trace
from tritonkit.load.level import LevelRecord, Measured, Purpose, measure_level
from tritonkit.plan.fit import requests_of
from tritonkit.plan.predict import live_s
from tritonkit.plan.recalibrate import Seen
from tritonkit.plan.settings import Settings, Way
from tritonkit.profile.curve import Point, ServiceCurve
from tritonkit.profile.sweep import Target, point
from tritonkit.samples import write_samples
from tritonkit.stats.capacity import Capacity, Trial, estimate, for_people

FIRST_STEP, LEAST_STEP = 0.25, 0.05
"""Of the search for a capacity, as shares of the rate."""


@dataclass(frozen=True)
class Loading:
    """How open levels are loaded: the budget, the pattern of arrivals and their seed, and the
    folder in whose `samples` each leaves its requests.
    """

    slo_p99_ms: float
    arrivals: Arrivals
    seed: int
    out: Path

    def level(
        self,
        target: Target,
        rate_rps: float,
        purpose: Purpose,
        number: int,
    ) -> Measured:
        """One open level at a rate. number: of the level; it has arrivals of its own."""
        from tritonkit.load.runner import Level  # patches the process for gevent

        length_s = live_s(rate_rps)
        arrivals = at_rate(self.arrivals, rate_rps, length_s)
        measured = measure_level(
            target.address,
            target.client,
            target.model,
            target.requests,
            Level("open", rate_rps, length_s, self.seed + number, arrivals),
            slo_p99_ms=self.slo_p99_ms,
            purpose=purpose,
            round=number,
            connections=connections(rate_rps, self.slo_p99_ms),
        )
        name = f"samples/{number:03d}-{target.model}-{purpose}-{rate_rps:g}.csv.gz"
        write_samples(self.out / name, measured.samples)
        return replace(measured, record=replace(measured.record, samples=name))


class Live:
    """The levels so far, by settings. points, seen: what they say for the recalibration."""

    def __init__(self, loading: Loading, curve: ServiceCurve, tell: Callable[[str], None]):
        self.levels: dict[Settings, list[LevelRecord]] = defaultdict(list)
        self.points: list[tuple[Way, Point]] = []
        self.seen: list[Seen] = []
        self.runs = 0
        self._loading = loading
        self._curve = curve
        self._tell = tell

    def search(self, target: Target, settings: Settings, guess_rps: float) -> None:
        """The next level of the search for the settings' capacity."""
        rate_rps = next_near(self._searched(settings), guess_rps)
        self.level(target, settings, rate_rps, "search")

    def level(self, target: Target, settings: Settings, rate_rps: float, purpose: Purpose) -> None:
        """One level at a rate."""
        self.runs += 1
        measured = self._loading.level(target, rate_rps, purpose, self.runs)
        record = measured.record
        self.levels[settings].append(record)
        if measured.counters.executions and record.p99_ms is not None:
            found = point("open", rate_rps, measured.samples, measured.counters)
            self.points.append((settings.way, found))
        if not record.generator_bound and record.p50_ms is not None and record.p99_ms is not None:
            requests = requests_of(self._curve, measured.samples)
            self.seen.append(Seen(settings, requests, record.p50_ms, record.p99_ms))
        p99 = "-" if record.p99_ms is None else f"{record.p99_ms:.1f} ms"
        holds = "holds" if record.holds_slo else "does not hold"
        if record.generator_bound:
            holds = "does not count: the generator was the limit"
        self._tell(f"{settings}: {rate_rps:.0f} req/s, p99 {p99}, {holds}")

    def trials(self, settings: Settings) -> list[Trial]:
        """What the settings' levels say of their capacity."""
        return [_trial(x) for x in self.levels[settings] if not x.generator_bound]

    def _searched(self, settings: Settings) -> list[Trial]:
        return [_trial(x) for x in self.levels[settings] if x.purpose == "search"]

    def capacity(self, settings: Settings, guess_rps: float) -> Capacity | None:
        """Of the settings, as measured; None if no level of theirs counts."""
        trials = self.trials(settings)
        return estimate(trials, guess_rps) if trials else None

    def holds(self, settings: Settings, rate_rps: float) -> bool:
        """Whether two of three levels of the settings at this rate held."""
        return bool(holds_rate(self.levels[settings], rate_rps))

    def p99_ms(self, settings: Settings, rate_rps: float) -> float | None:
        """The median over the levels at this rate; None if none of them has one."""
        found = [
            x.p99_ms
            for x in self.levels[settings]
            if x.offered == rate_rps and not x.generator_bound and x.p99_ms is not None
        ]
        return median(found) if found else None


def _trial(level: LevelRecord) -> Trial:
    held = bool(level.holds_slo) and not level.generator_bound
    return Trial(level.offered, held, level.round)


def next_near(trials: Sequence[Trial], guess_rps: float) -> float:
    """The rate of the next level of a search that begins at a good guess.

    A staircase: up after a level that held, down after one that did not, in steps that get smaller
    with every turn. `stats.capacity.next_rate`, which knows no more than a closed loop's
    throughput, would go much further.
    """
    if not trials:
        return for_people(guess_rps)
    turns = sum(one.held != other.held for one, other in pairwise(trials))
    step = 1 + max(LEAST_STEP, FIRST_STEP / (1 + turns))
    last = trials[-1]
    return for_people(last.rate_rps * step if last.held else last.rate_rps / step)


def at_rate(arrivals: Arrivals, rate_rps: float, duration_s: float) -> Arrivals:
    """A trace is sped up to the rate, and begins again when it is over; all else has a rate."""
    if not isinstance(arrivals, Trace):
        return arrivals
    own = arrivals.arrivals
    faster = rate_rps / (len(own) / arrivals.length_s)
    cycle_s = arrivals.length_s / faster
    times = int(duration_s / cycle_s) + 1
    again = (
        Arrival(cycle * cycle_s + each.start_s / faster, each.payload)
        for cycle in range(times)
        for each in own
    )
    return Trace(arrivals.name, tuple(again))
