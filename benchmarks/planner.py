"""The planner held against the real Triton. One of:

    python benchmarks/planner.py accuracy [MODEL=SLO_MS …]
        Plan each model several times: do the winners do what was predicted of them?
    python benchmarks/planner.py sweep [MODEL=SLO_MS]
        Measure all settings of a grid live, then the sweep's best and the plan's in turn.
    python benchmarks/planner.py batcher [MODEL=SLO_MS]
        The planned settings and the hand-written batcher at its best threads, in turn.

Models lie in model_repository/; scripts/export_and_package.py makes them. Budgets are p99s. Results
go to --json FILE as well. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

from tritonkit.load.runner import Level, run_level  # first: it patches the process for gevent

# ruff: isort: split
import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bars import misses

from tritonkit.bench.arms import arm_config, candidates, running
from tritonkit.bench.subject import Subject, prepare
from tritonkit.load.arrivals import POISSON
from tritonkit.plan.settings import Settings
from tritonkit.planning.live import Loading
from tritonkit.planning.planner import Question, most_rows, plan
from tritonkit.planning.profiling import lanes
from tritonkit.planning.result import Plan
from tritonkit.planning.variants import variants, with_settings
from tritonkit.profile.curve import CURVE
from tritonkit.profile.sweep import Target
from tritonkit.repository.config import DynamicBatching
from tritonkit.stats.capacity import Capacity, Trial, estimate, next_rate
from tritonkit.stats.ratio import Ratio, ratio

REPOSITORY = Path("model_repository")
DEFAULTS = {"ranker": 50.0, "text_embedder": 100.0, "file_type": 100.0}

SWEEP_SIZES = (4, 8, 16, 32, 48, 64, 128)
SWEEP_DELAYS_US = (0, 1_000, 3_000, 8_000)
SWEEP_LEVELS = 6
"""Levels on each of the sweep's settings: as many as give a capacity to about 10 %."""

PLANS = 5
"""Of each model whose predictions are tried, the later ones with the curve of the first."""

LEVELS_APART = 1_000
"""From one plan's seed to the next; its levels have those in between."""

AT_RATE = 12
"""Levels at the rate of a winner's p99, besides those of its plan. On a shared machine many levels
have some tenths of a second in which all is slow, and three say little of the median."""

AT_LENGTH = 32
"""Levels on each of the arms that are compared at length."""


@dataclass(frozen=True)
class Row:
    """A figure and its bar."""

    what: str
    figure: float
    low: float | None
    high: float | None
    said: str

    @property
    def failed(self) -> bool:
        return misses(self.figure, self.low, self.high)


class Arms:
    """Live arms, measured in turn; each level has arrivals of its own."""

    def __init__(
        self, loading: Loading, targets: Mapping[str, Target], guesses: Mapping[str, float]
    ):
        self._loading = loading
        self._targets = targets
        self._guesses = guesses
        self.trials: dict[str, list[Trial]] = {name: [] for name in targets}
        self._number = 0

    def round(self) -> None:
        """One level of the search of each, forwards or backwards."""
        self._number += 1
        names = list(self._targets)
        for name in names if self._number % 2 else names[::-1]:
            rate_rps = next_rate(self.trials[name], self._guesses[name])
            target = self._targets[name]
            record = self._loading.level(target, rate_rps, "search", self._number).record
            if not record.generator_bound:
                trial = Trial(rate_rps, bool(record.holds_slo), self._number)
                self.trials[name].append(trial)

    def capacity(self, name: str) -> Capacity:
        """As measured so far."""
        return estimate(self.trials[name], self._guesses[name])

    def ratio(self, ours: str, theirs: str) -> Ratio:
        """Of two capacities."""
        return ratio(
            self.trials[ours], self._guesses[ours], self.trials[theirs], self._guesses[theirs]
        )


def tell(line: str) -> None:
    """Progress, to stderr."""
    print(line, file=sys.stderr, flush=True)


def planned(model: str, slo_ms: float, out: Path, curve: Path | None = None, seed: int = 0) -> Plan:
    """The plan, and a line on it."""
    found = plan(Question(REPOSITORY, model, slo_ms, curve=curve, seed=seed), out, tell)
    tell(f"{model}: {found.because} ({found.wall_s:.0f} s)")
    return found


def accuracy(models: Mapping[str, float], out: Path) -> Iterator[Row]:
    """Of what was predicted of winners before they were confirmed, in the median over plans.

    What they are held against is the confirmation, some seconds later, and for p99 more levels at
    once after it: a minute later the machine may be another one. Each plan has arrivals of its own:
    else all would have the same luck.
    """
    for model, slo_ms in models.items():
        found, p99s_ms = [], []
        for number in range(PLANS):
            own, seed = out / f"{model}-{number}", LEVELS_APART * number
            curve = out / f"{model}-0" / CURVE if number else None
            found.append(planned(model, slo_ms, own, curve, seed))
            more = Loading(slo_ms, POISSON, seed + LEVELS_APART // 2, made(own / "p99"))
            p99s_ms.append(p99_ms(found[-1], more))
        yield predicted(
            f"{model}: capacity, predicted : measured, req/s",
            [(each.predicted.capacity_rps, each.measured.capacity_rps) for each in found],
            0.1,
        )
        yield predicted(
            f"{model}: p99 at 70 % of it, predicted : measured, ms",
            [(each.predicted.p99_ms, seen) for each, seen in zip(found, p99s_ms, strict=True)],
            0.2,
        )
        yield Row(f"{model}: wall time of a plan, s", found[0].wall_s, None, None, "")


def p99_ms(of: Plan, loading: Loading) -> float | None:
    """The median over a winner's levels at one rate: those of its plan, and AT_RATE more."""
    subject = prepare(REPOSITORY, of.model)
    levels = [x for each in of.tried if each.settings == of.winner for x in each.levels]
    with variants(REPOSITORY, subject, [of.winner], loading.out / "log") as live:
        levels += (
            loading.level(live[of.winner], of.p99_at_rps, "rate", number).record
            for number in range(AT_RATE)
        )
    known = [x.p99_ms for x in levels if x.offered == of.p99_at_rps and not x.generator_bound]
    found = [p99 for p99 in known if p99 is not None]
    tell(f"{of.model}: p99 {', '.join(f'{p99:.1f}' for p99 in found)} ms")
    return median(found) if found else None


def predicted(what: str, pairs: Sequence[tuple[float | None, float | None]], bar: float) -> Row:
    """pairs: predicted and measured, None if nothing was answered or counted."""
    known = [(ours, theirs) for ours, theirs in pairs if ours and theirs]
    figure = median(ours / theirs for ours, theirs in known)
    said = ", ".join(f"{ours:.3g} : {theirs:.3g}" for ours, theirs in known)
    return Row(what, figure, 1 - bar, 1 + bar, said)


def sweep(model: str, slo_ms: float, out: Path) -> Iterator[Row]:
    """The plan against the best of all settings of a grid."""
    found = planned(model, slo_ms, out / model)
    subject = prepare(REPOSITORY, model)
    loading = Loading(slo_ms, POISSON, 100, made(out / "sweep"))
    most = most_rows(subject.config, subject.file, None)  # as many as a plan may choose
    best: tuple[float, Settings] | None = None
    began_s = time.perf_counter()
    settings = [
        Settings(rows, DynamicBatching(delay_us), instances, threads)
        for threads, instances in lanes(len(subject.cpus.server))
        for rows in SWEEP_SIZES
        if rows <= most
        for delay_us in SWEEP_DELAYS_US
    ]
    for some in groups(settings, len(SWEEP_DELAYS_US)):
        with variants(REPOSITORY, subject, some, out / "log") as live:
            targets = {str(each): live[each] for each in some}
            guess_rps = best[0] if best else found.predicted.capacity_rps or 1.0
            arms = Arms(loading, targets, dict.fromkeys(targets, guess_rps))
            for _ in range(SWEEP_LEVELS):
                arms.round()
            for each in some:
                capacity = arms.capacity(str(each))
                tell(f"sweep: {each!s}: {capacity.rps:.0f} req/s")
                if best is None or capacity.rps > best[0]:
                    best = capacity.rps, each
    sweep_s = time.perf_counter() - began_s
    assert best is not None
    both = {"plan": found.winner, "sweep": best[1]}
    again = Loading(slo_ms, POISSON, 300, made(out / "both"))
    with variants(REPOSITORY, subject, list(dict.fromkeys(both.values())), out / "log") as live:
        if both["plan"] == both["sweep"]:
            yield Row("capacity, plan : sweep's best", 1.0, 0.95, None, "the same settings")
        else:
            targets = {name: live[each] for name, each in both.items()}
            arms = Arms(again, targets, dict.fromkeys(targets, best[0]))
            for _ in range(AT_LENGTH):
                arms.round()
            yield compared("capacity, plan : sweep's best", arms, "plan", "sweep", 0.95, both)
    yield Row("wall time, plan : sweep", found.wall_s / sweep_s, None, 0.1, f"{sweep_s:.0f} s")
    yield Row(
        "wall time of the plan, s", found.wall_s, None, 90.0, f"{len(settings)} settings swept"
    )


def batcher(model: str, slo_ms: float, out: Path) -> Iterator[Row]:
    """The planned settings against the session with the batcher by hand, as large and at its best
    threads and runs at a time.
    """
    found = planned(model, slo_ms, out / model)
    subject = prepare(REPOSITORY, model)
    loading = Loading(slo_ms, POISSON, 100, made(out / "batcher"))
    config = with_settings(
        subject.config,
        Settings(found.winner.max_batch_size, DynamicBatching(), 1, 1),
    )
    reached: dict[tuple[int, int], float] = {}
    for threads, instances in candidates("ort_batcher", len(subject.cpus.server)):
        with by_hand(config, subject, threads, instances, out) as target:
            run = run_level(target.address, target.requests, Level("closed", 64, 1.5))
        reached[threads, instances] = len(run.samples)
    best = max(reached, key=lambda pair: reached[pair])
    with (
        variants(REPOSITORY, subject, [found.winner], out / "log") as live,
        by_hand(config, subject, *best, out) as other,
    ):
        targets = {"plan": live[found.winner], "batcher": other}
        arms = Arms(loading, targets, dict.fromkeys(targets, found.predicted.capacity_rps or 1.0))
        for _ in range(AT_LENGTH):
            arms.round()
    named = {"plan": found.winner, "batcher": best}
    yield compared("capacity, planned Triton : ort_batcher", arms, "plan", "batcher", 1.2, named)


@contextmanager
def by_hand(config, subject: Subject, threads: int, instances: int, out: Path) -> Iterator[Target]:
    """The session with the hand-written batcher."""
    own = arm_config("ort_batcher", config, threads, instances)
    cpus = subject.cpus.server
    with running("ort_batcher", REPOSITORY, own, out / "by-hand.log", cpus) as (server, client):
        address = f"http://{server.endpoints.http}"
        yield Target(address, client, config.name, subject.requests)


def compared(
    what: str, arms: Arms, ours: str, theirs: str, least: float, named: Mapping[str, object]
) -> Row:
    """The ratio of two arms."""
    found = arms.ratio(ours, theirs)
    said = "; ".join(
        f"{name}: {each} {arms.capacity(name).rps:.0f} req/s" for name, each in named.items()
    )
    span = f"{found.low or 0:.2f}-{found.high or float('inf'):.2f}"
    return Row(what, found.ratio or 0.0, least, None, f"{span}; {said}")


def made(folder: Path) -> Path:
    """A folder for samples."""
    (folder / "samples").mkdir(parents=True)
    return folder


def groups(settings: Sequence[Settings], size: int) -> Iterator[Sequence[Settings]]:
    """So many at a time."""
    return (settings[i : i + size] for i in range(0, len(settings), size))


def main() -> int:
    """Run one of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=("accuracy", "sweep", "batcher"))
    parser.add_argument("models", nargs="*", metavar="MODEL=SLO_MS")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    models = {
        name: float(slo) if slo else DEFAULTS.get(name, 50.0)
        for name, _, slo in (text.partition("=") for text in asked.models)
    } or DEFAULTS
    logging.getLogger("locust").setLevel(logging.ERROR)
    rows = []
    with tempfile.TemporaryDirectory(prefix="tritonkit-benchmark-") as work:
        out = Path(work)
        first = next(iter(models.items()))
        found = {
            "accuracy": lambda: accuracy(models, out),
            "sweep": lambda: sweep(*first, out),
            "batcher": lambda: batcher(*first, out),
        }[asked.which]()
        for row in found:
            rows.append(row)
            mark = "MISSED" if row.failed else "ok"
            print(f"{row.what}: {row.figure:.3g} [{mark}] {row.said}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps([vars(row) for row in rows], indent=1))
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
