"""The candidates of a plan on a live server: their levels, the recalibration, the winner."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tritonkit.bench.subject import Subject
from tritonkit.bench.verdict import MUST_GAIN
from tritonkit.plan.fit import services
from tritonkit.plan.predict import capacity_rps, predict, throughput_rps
from tritonkit.plan.recalibrate import Correction, corrections
from tritonkit.plan.search import (
    WORTH,
    Lanes,
    Option,
    by_capacity,
    by_latency,
    grid,
    lane,
    spread,
)
from tritonkit.plan.settings import Settings, Way
from tritonkit.plan.stream import Stream
from tritonkit.planning.live import Live
from tritonkit.planning.result import Outcome
from tritonkit.planning.variants import variants
from tritonkit.profile.curve import ServiceCurve
from tritonkit.profile.sweep import Target
from tritonkit.stats.capacity import for_people

OF_CAPACITY = 0.7
"""Without a rate, p99s are compared at this share of a winner's predicted capacity."""

CANDIDATES = 3
"""Settings with batching that are run live, and one without."""

ROUNDS = 4
"""Live levels of each candidate before the times are recalibrated: at the rate of the p99s, and
around its capacity, in turn.
"""

CONFIRMED = 4
"""More levels of a winner's search, after AT_RATE at the rate of the p99s."""

AT_RATE = 3

RIVAL = 1.05
"""A candidate that was measured so many times better than the winner is confirmed as well."""


@dataclass(frozen=True)
class Winner:
    """Settings that were confirmed. at_rps: the rate of the p99s. predicted: by what was known
    before they were confirmed; measured: after.
    """

    settings: Settings
    at_rps: float
    predicted: Outcome
    measured: Outcome


@dataclass
class Contest:
    """All settings, what is predicted of them by now, and what live levels showed.

    rate_rps: to be held with the lowest p99; None: as much as possible. max_rows: of a batch.
    """

    curve: ServiceCurve
    stream: Stream
    slo_p99_ms: float
    rate_rps: float | None
    max_rows: int
    live: Live
    simulated: int = 0
    corrections: Mapping[Way, Correction] = field(default_factory=dict)
    _guesses: dict[Settings, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.from_curve: Lanes = services(self.curve)
        self.lanes = self.from_curve
        self.options = list(grid(self.lanes, self.max_rows, self.slo_p99_ms))

    def ranked(self) -> list[Option]:
        """The best by what is known by now."""
        self.simulated += len(self.options)
        if self.rate_rps is None:
            return by_capacity(self.lanes, self.options, self.stream, self.slo_p99_ms)
        return by_latency(self.lanes, self.options, self.stream, self.rate_rps)

    def best_plain(self) -> Settings:
        """The best settings without batching."""
        plain = [settings for settings in self.options if settings.dynamic_batching is None]
        if self.rate_rps is None:
            return by_capacity(self.lanes, plain, self.stream, self.slo_p99_ms)[0].settings
        return by_latency(self.lanes, plain, self.stream, self.rate_rps)[0].settings

    def predicted(self, settings: Settings, at_rps: float, lanes: Lanes | None = None) -> Outcome:
        """What the settings do, by what is known by now, or by these lanes."""
        service = lane(lanes or self.lanes, settings)
        return Outcome(
            capacity_rps(settings, service, self.stream, self.slo_p99_ms),
            predict(settings, service, self.stream, at_rps).p99_ms,
        )

    def measured(self, settings: Settings, at_rps: float) -> Outcome:
        """What live levels showed of the settings."""
        found = self.live.capacity(settings, self._guess_rps(settings))
        p99_ms = self.live.p99_ms(settings, at_rps)
        if found is None:
            return Outcome(None, p99_ms)
        return Outcome(found.rps, p99_ms, (found.low_rps, found.high_rps))

    def recalibrate(self) -> None:
        """Bring what is predicted in line with all live levels."""
        fitted = services(self.curve, self.live.points)
        self.corrections = corrections(fitted, self.live.seen, self.slo_p99_ms)
        self.lanes = {key: self.corrections[key].applied(fitted[key]) for key in fitted}

    def run(
        self, repository: Path, subject: Subject, ranked: Sequence[Option], log: Path
    ) -> Winner:
        """Run the best few live, recalibrate, and confirm the best by then.

        Batching has to gain MUST_GAIN over the best settings without it, or those win.
        """
        plain = self.best_plain()
        candidates = [*(option.settings for option in spread(ranked, CANDIDATES)), plain]
        with variants(repository, subject, candidates, log) as targets:

            @contextmanager
            def target(settings: Settings) -> Iterator[Target]:
                if settings in targets:
                    yield targets[settings]
                    return
                with variants(repository, subject, [settings], log.with_suffix(".2.log")) as more:
                    yield more[settings]

            for number in range(ROUNDS):
                for settings in candidates[:: -1 if number % 2 else 1]:
                    if number % 2:
                        self.live.search(targets[settings], settings, self._guess_rps(settings))
                    else:
                        rate_rps = self._p99_rps(self._guess_rps(settings))
                        self.live.level(targets[settings], settings, rate_rps, "rate")
            self.recalibrate()
            best = self._best(candidates)
            with target(best) as live:
                winner = self._confirm(best, live)
            for other in (self._most(candidates), plain):
                self.recalibrate()
                if self._wins(other, winner):
                    winner = self._confirm(other, targets[other])
        return winner

    def _best(self, tested: Sequence[Settings]) -> Settings:
        """The best as predicted; one that was tested already, if it is as good."""
        ranked = self.ranked()
        good = [o.settings for o in ranked if o.merit >= (1 - WORTH) * ranked[0].merit]
        return next((settings for settings in good if settings in tested), good[0])

    def _confirm(self, settings: Settings, target: Target) -> Winner:
        guess_rps = self._likely_rps(settings)
        at_rps = self._p99_rps(guess_rps)
        predicted = self.predicted(settings, at_rps)
        for _ in range(AT_RATE):
            self.live.level(target, settings, at_rps, "rate")
        for _ in range(CONFIRMED):
            self.live.search(target, settings, guess_rps)
        return Winner(settings, at_rps, predicted, self.measured(settings, at_rps))

    def _wins(self, other: Settings, winner: Winner) -> bool:
        """Whether one that was run live is to be confirmed rather than the winner so far."""
        if other == winner.settings:
            return False
        simpler = other.dynamic_batching is None
        if self.rate_rps is not None:
            return self.live.holds(other, self.rate_rps) and (
                simpler or not self.live.holds(winner.settings, self.rate_rps)
            )
        must_gain = 1 / MUST_GAIN if simpler else RIVAL
        return self._measured_rps(other) > must_gain * self._measured_rps(winner.settings)

    def _most(self, candidates: Sequence[Settings]) -> Settings:
        """The candidate that was measured best."""
        if self.rate_rps is None:
            return max(candidates, key=self._measured_rps)
        rate_rps = self.rate_rps
        return min(candidates, key=lambda each: self.live.p99_ms(each, rate_rps) or math.inf)

    def _p99_rps(self, capacity_rps: float) -> float:
        """The rate at which p99s are looked at, in three significant digits."""
        return self.rate_rps or for_people(OF_CAPACITY * capacity_rps)

    def _measured_rps(self, settings: Settings) -> float:
        return self.measured(settings, 0.0).capacity_rps or 0.0

    def _guess_rps(self, settings: Settings) -> float:
        """Where the search for the settings' capacity begins, and what its estimate leans on."""
        if settings not in self._guesses:
            self._guesses[settings] = self._likely_rps(settings)
        return self._guesses[settings]

    def _likely_rps(self, settings: Settings) -> float:
        """The predicted capacity; where nothing is predicted to hold, a rate at which much runs."""
        service = lane(self.lanes, settings)
        found_rps = capacity_rps(settings, service, self.stream, self.slo_p99_ms)
        return found_rps or OF_CAPACITY * throughput_rps(settings, service, self.stream)
