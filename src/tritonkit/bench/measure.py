"""All arms under load, in turn, level by level and round by round."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tritonkit.bench.arms import arm_config, reached, running
from tritonkit.bench.certificate import certify, require_as_asked
from tritonkit.bench.levels import (
    Wanted,
    capacity,
    connections,
    length_s,
    next_curve,
    next_search,
    overload,
    trials,
)
from tritonkit.bench.others import look, taken
from tritonkit.bench.progress import Progress, Step
from tritonkit.bench.result import ArmLevel, ArmName, Certificate, TuningRun
from tritonkit.bench.subject import Comparison, Subject, check_answers
from tritonkit.client.client import Client
from tritonkit.load.level import LevelCut, LevelRecord, measure_level
from tritonkit.load.requests import RequestMix, describe
from tritonkit.load.runner import Level
from tritonkit.repository.config import ModelConfig
from tritonkit.samples import write_samples
from tritonkit.server.interface import Server
from tritonkit.stats.capacity import is_narrow
from tritonkit.stats.confidence import requests_needed

NARROW = 0.05
"""The search ends when the interval of each arm's capacity is within so much of it."""

LEAST_SEARCHED = 4
"""Levels of the search that each arm gets in any case."""


class Arm:
    """An arm while it is measured: its name and config, its live server, a client of it."""

    def __init__(self, name: ArmName, config: ModelConfig, server: Server, client: Client):
        self.name = name
        self.config = config
        self.server = server
        self.client = client

    @property
    def address(self) -> str:
        """Where load goes."""
        return f"http://{self.server.endpoints.http}"


def measure(
    what: Comparison,
    subject: Subject,
    tuning: Mapping[ArmName, tuple[TuningRun, ...]],
    progress: Progress,
    out: Path,
    tell: Callable[[str], None],
) -> tuple[dict[ArmName, Certificate], RequestMix]:
    """Measure all arms into `progress`, each round forwards or backwards (A B C, C B A, …).
    Returns each arm's certificate, and what was in the requests.

    All servers are up the whole time and only the one under load works, so a machine that
    drifts hurts all arms alike.
    """
    with ExitStack() as stack:
        arms = []
        for name in what.arms:
            best = next(run for run in tuning[name] if run.chosen)
            config = arm_config(name, subject.config, best.threads, best.instances)
            log = out / "logs" / f"{name}.log"
            server, client = stack.enter_context(
                reached(what.endpoints[name])
                if name in what.endpoints
                else running(name, what.repository, config, log, subject.cpus.server)
            )
            require_as_asked(name, server, config)
            check_answers(name, what.model, client, subject)
            arms.append(Arm(name, config, server, client))
        _Rounds(what, subject, arms, progress, out, tell).run()
        certificates = {
            arm.name: certify(arm.name, arm.server, arm.config, progress.counters(arm.name))
            for arm in arms
        }
        spec = arms[0].client.spec(what.model)
        return certificates, describe(spec, subject.requests, subject.payload_source)


@contextmanager
def cut_kept(samples: Path) -> Iterator[None]:
    """A level that is cut leaves its samples beside the file that it would have had. It is run
    again if the comparison is gone on with.
    """
    try:
        yield
    except LevelCut as cut:
        write_samples(samples.with_name(f"{samples.name}.cut"), cut.measured.samples)
        raise cut.reason from None


class _Rounds:
    """One level of each arm a round, until the search is done or the time is up."""

    def __init__(
        self,
        what: Comparison,
        subject: Subject,
        arms: Sequence[Arm],
        progress: Progress,
        out: Path,
        tell: Callable[[str], None],
    ):
        self._what = what
        self._subject = subject
        self._arms = arms
        self._progress = progress
        self._out = out
        self._tell = tell

    def run(self) -> None:
        while not self._is_over():
            self._round(self._wanted)
        self._round(self._overload)

    def _is_over(self) -> bool:
        searched = [self._searched(arm) for arm in self._arms]
        if min(searched) < LEAST_SEARCHED:
            return False
        steps = self._progress.steps
        a_round_s = len(self._arms) * self._progress.spent_s / max(1, len(steps))
        if self._progress.spent_s + 2 * a_round_s > self._what.time_budget_s:  # the overload's too
            return True
        found = [capacity(self._progress.levels(arm.name)) for arm in self._arms]
        return all(c is not None and is_narrow(c, NARROW) for c in found)

    def _searched(self, arm: Arm) -> int:
        return sum(x.purpose in ("search", "rate") for x in self._progress.levels(arm.name))

    def _wanted(self, arm: Arm) -> Wanted | None:
        levels = self._progress.levels(arm.name)
        return next_curve(levels) or next_search(levels, self._what.rate_rps)

    def _overload(self, arm: Arm) -> Wanted | None:
        levels = self._progress.levels(arm.name)
        return None if any(x.purpose == "overload" for x in levels) else overload(levels)

    def _round(self, choose: Callable[[Arm], Wanted | None]) -> None:
        number = self._progress.next_round
        for arm in self._arms if number % 2 else self._arms[::-1]:
            if (wanted := choose(arm)) is not None:
                self._measure(arm, wanted, number)

    def _measure(self, arm: Arm, wanted: Wanted, number: int) -> None:
        began_s = time.perf_counter()
        what = self._what
        level = Level(
            wanted.mode,
            wanted.offered,
            length_s(wanted, what.level_s, requests_needed(99)),
            what.seed + number,  # other arrivals each round; the same for all arms
        )
        name = f"samples/{number:03d}-{arm.name}-{wanted.purpose}-{wanted.offered:g}.csv.gz"
        cpus = sorted({*self._subject.cpus.server, *self._subject.cpus.generator})
        before = look(cpus)
        with cut_kept(self._out / name):
            measured = measure_level(
                arm.address,
                arm.client,
                what.model,
                self._subject.requests,
                level,
                slo_p99_ms=what.slo_p99_ms,
                purpose=wanted.purpose,
                round=number,
                # A closed loop has as many as users, whatever this is.
                connections=connections(wanted.offered, what.slo_p99_ms),
            )
        others_cpu, stolen_cpu = taken(before, look(cpus))
        write_samples(self._out / name, measured.samples)
        record = ArmLevel(
            **{**vars(measured.record), "samples": name},
            # What a server of somebody else takes looks like what others take.
            others_cpu=None if arm.name in what.endpoints else others_cpu,
            stolen_cpu=stolen_cpu,
        )
        took_s = time.perf_counter() - began_s
        self._progress.keep_step(
            Step(arm.name, record, measured.counters, took_s, measured.first_in_line)
        )
        self._tell(self._line(arm, record))

    def _line(self, arm: Arm, level: LevelRecord) -> str:
        load = f"{level.offered:g} users" if level.mode == "closed" else f"{level.offered:g} req/s"
        p99 = "-" if level.p99_ms is None else f"{level.p99_ms:.1f} ms"
        errors = f", {level.errors} errors" if level.errors else ""
        said = {"overload": "overload", "rate": "the rate asked for"}.get(level.purpose, "")
        holds = "holds" if level.holds_slo else "does not hold"
        within = level.p99_ms is not None and level.p99_ms <= self._what.slo_p99_ms
        if within and not level.holds_slo and not level.errors:
            holds += f" ({level.unsteady_because})"
        if level.generator_bound:
            holds = "does not count: the generator was the limit"
        elif level.purpose != "curve" and (found := self._so_far(arm)):
            holds += f" → {found}"
        return (
            f"{arm.name}: {load}{' (' + said + ')' if said else ''}: "
            f"{level.achieved_rps:.0f} req/s, p99 {p99}{errors}, {holds}"
        )

    def _so_far(self, arm: Arm) -> str:
        levels = self._progress.levels(arm.name)
        found = capacity(levels)
        if found is None or not trials(levels):
            return ""
        high = "" if found.high_rps is None else f"{found.high_rps:.0f}"
        return f"capacity {found.rps:.0f} ({found.low_rps:.0f}–{high})"
