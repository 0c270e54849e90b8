"""Whether the search for the capacity and the ratio of two arms keep their word, by simulation.

    python benchmarks/capacity.py           some twenty minutes; nothing is served or measured
    python benchmarks/capacity.py --quick   whether it runs; the figures mean little

Every request is simulated: Poisson arrivals, levels of 2.5 s from an empty queue, p99 of what came
out against the budget. One server answers a request at a time, the other takes all that wait, up
to 64, as one batch. The machine's speed differs from level to level, drifts, and is now and then
away. The kit knows none of it: it is told which levels held, and begins at a guess that is up to
three times too high or too low. Seeds are fixed. Exits 1 if a figure misses its bar.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing import Pool
from pathlib import Path
from typing import Any, NamedTuple

# A process for each core; numpy's own threads would only be in their way.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from bars import misses

from tritonkit.stats.capacity import Trial, estimate, is_narrow, next_rate
from tritonkit.stats.ratio import Ratio, ratio

LEVEL_S = 2.5
OFF = 3.0  # how wrong a guess may be, either way
MOST_LEVELS = 120  # of a search for an interval of ±5 %


@dataclass(frozen=True)
class Server:
    """fixed_s, each_s: a batch of n takes fixed_s + n · each_s, more or less. most: of a batch."""

    name: str
    fixed_s: float
    each_s: float
    most: int
    budget_s: float

    def faster(self, times: float) -> Server:
        """All times shorter, the budget's too: its capacity is so many times this one's."""
        return replace(
            self,
            fixed_s=self.fixed_s / times,
            each_s=self.each_s / times,
            budget_s=self.budget_s / times,
        )

    def holds(
        self,
        rng: np.random.Generator,
        rate_rps: float,
        *,
        speed: float = 1.0,
        stall_s: float = 0.0,
        level_s: float = LEVEL_S,
    ) -> bool:
        """One level. stall_s: the server is away for so long at some moment."""
        times = np.sort(rng.uniform(0, level_s, rng.poisson(rate_rps * level_s)))
        if not len(times):
            return False
        noise = rng.gamma(40, 1 / 40, len(times)) / speed
        stall_at = rng.uniform(0, level_s)
        run = self._one_by_one if self.most == 1 else self._in_batches
        latency = run(times, noise, stall_at, stall_s)
        rank = math.ceil(0.99 * len(latency)) - 1
        return bool(np.partition(latency, rank)[rank] <= self.budget_s)

    def _one_by_one(
        self, times: np.ndarray, noise: np.ndarray, stall_at: float, stall_s: float
    ) -> np.ndarray:
        service = (self.fixed_s + self.each_s) * noise
        service[min(int(np.searchsorted(times, stall_at)), len(times) - 1)] += stall_s
        before = np.cumsum(service) - service
        return before + service + np.maximum.accumulate(times - before) - times

    def _in_batches(
        self, times: np.ndarray, noise: np.ndarray, stall_at: float, stall_s: float
    ) -> np.ndarray:
        arrivals, factors = times.tolist(), noise.tolist()
        done = np.empty(len(times))
        first, free_at, stalled = 0, 0.0, not stall_s
        while first < len(arrivals):
            start = max(free_at, arrivals[first])
            last = min(bisect_right(arrivals, start, first), first + self.most)
            free_at = start + (self.fixed_s + self.each_s * (last - first)) * factors[first]
            if start >= stall_at and not stalled:
                free_at, stalled = free_at + stall_s, True
            done[first:last] = free_at
            first = last
        return done - times


SERVERS = (
    Server("one by one", 0.0025, 0.0, 1, 0.020),
    Server("batches", 0.003, 0.0003, 64, 0.050),
)


@dataclass(frozen=True)
class Machine:
    """scatter: of its speed between levels (ln, standard deviation). drift: how far the speed
    swings, slowly, in all of a run. hiccups: the share of levels in which it is away, 50 to 300 ms.
    """

    name: str
    scatter: float
    drift: float = 0.0
    hiccups: float = 0.02

    def levels(self, rng: np.random.Generator, count: int) -> Iterator[tuple[float, float]]:
        """The speed and the stall of each level, in the order in which they are run."""
        x, period = np.arange(count) / count, rng.uniform(0.5, 2)
        swing = np.sin(2 * np.pi * (x / period + rng.uniform())) + rng.uniform(-1, 1) * (x - 0.5)
        speeds = self.drift * (swing - np.median(swing)) + self.scatter * rng.normal(size=count)
        away = rng.uniform(size=count) < self.hiccups
        yield from zip(
            np.exp(speeds).tolist(), (away * rng.uniform(0.05, 0.3, count)).tolist(), strict=True
        )


USUAL = Machine("10%", 0.1)
MACHINES = (
    Machine("2%", 0.02),
    USUAL,
    Machine("20%", 0.2),
    Machine("30%", 0.3),
    Machine("5%, drifts by 10%", 0.05, 0.1),
    Machine("5%, drifts by 30%", 0.05, 0.3),
    Machine("5%, hiccup in 1 of 10", 0.05, 0.0, 0.1),
)


class Task(NamedTuple):
    """One comparison: two arms on one machine, round by round. truth_rps: the second arm's
    capacity; the first has times as much.
    """

    seed: int
    server: Server
    machine: Machine
    truth_rps: float
    times: float
    rounds: tuple[int, ...]


class Found(NamedTuple):
    """After so many rounds. holds: the capacity's interval holds it; half: its half width (ln);
    both of the second arm. off: what it is off by (ln).
    """

    holds: bool
    half: float
    off: float
    ratio: Ratio


def compare(task: Task) -> list[Found]:
    """Search both arms' capacities, in turns, and look at them after some of the rounds."""
    rng = np.random.default_rng(task.seed)
    servers = (task.server.faster(task.times), task.server)
    truths = (task.truth_rps * task.times, task.truth_rps)
    guesses = [t * math.exp(rng.uniform(-1, 1) * math.log(OFF)) for t in truths]
    trials: tuple[list[Trial], list[Trial]] = ([], [])
    levels = task.machine.levels(rng, 2 * max(task.rounds))
    found = []
    for number in range(1, max(task.rounds) + 1):
        for arm in (0, 1) if number % 2 else (1, 0):
            speed, stall_s = next(levels)
            rate = next_rate(trials[arm], guesses[arm])
            held = servers[arm].holds(rng, rate, speed=speed, stall_s=stall_s)
            trials[arm].append(Trial(rate, held, number))
        if number in task.rounds:
            is_now = estimate(trials[1], guesses[1])
            high = math.inf if is_now.high_rps is None else is_now.high_rps
            found.append(
                Found(
                    is_now.low_rps <= truths[1] <= high,
                    math.log(high / is_now.low_rps) / 2 if is_now.low_rps else math.inf,
                    math.log(is_now.rps / truths[1]) if is_now.rps else -math.inf,
                    ratio(trials[0], guesses[0], trials[1], guesses[1]),
                )
            )
    return found


def search(task: Task) -> int:
    """How many levels it takes to an interval of ±5 %; MOST_LEVELS if it takes more."""
    rng = np.random.default_rng(task.seed)
    guess = task.truth_rps * math.exp(rng.uniform(-1, 1) * math.log(OFF))
    trials: list[Trial] = []
    for number, (speed, stall_s) in enumerate(task.machine.levels(rng, MOST_LEVELS)):
        rate = next_rate(trials, guess)
        held = task.server.holds(rng, rate, speed=speed, stall_s=stall_s)
        trials.append(Trial(rate, held, number))
        if number % 2 and is_narrow(estimate(trials, guess), 0.05):
            return number + 1
    return MOST_LEVELS


def true_capacity(server: Server, scatter: float, levels: int, level_s: float = LEVEL_S) -> float:
    """The rate at which half of the levels hold, by bisection."""
    rng = np.random.default_rng(7)
    low, high = math.log(10), math.log(10_000)
    while high - low > 0.004:
        middle = (low + high) / 2
        count = levels if high - low < 0.4 else 20
        held = sum(
            server.holds(
                rng, math.exp(middle), speed=math.exp(scatter * rng.normal()), level_s=level_s
            )
            for _ in range(count)
        )
        low, high = (middle, high) if held > count / 2 else (low, middle)
    return math.exp((low + high) / 2)


@dataclass(frozen=True)
class Row:
    """One figure. low, high: its bar, None if it has none."""

    what: str
    server: str
    machine: str
    after: str
    figure: float
    low: float | None = None
    high: float | None = None

    @property
    def failed(self) -> bool:
        """Whether it misses its bar."""
        return misses(self.figure, self.low, self.high)


def equal_arms(pool: Any, times: int, levels: int, rounds: tuple[int, ...]) -> Iterator[Row]:
    """Intervals of the capacity that hold it, and equal arms that come out different."""
    for server in SERVERS:
        for machine in MACHINES:
            truth = true_capacity(server, machine.scatter, levels)
            tasks = [Task(i, server, machine, truth, 1.0, rounds) for i in range(times)]
            runs = pool.map(compare, tasks, chunksize=4)
            # A drift as large as that is no scatter: in few rounds the machine is another one.
            bar = 0.92 - _chance(times) if machine.drift < 0.3 else None
            for after, found in zip(rounds, zip(*runs, strict=True), strict=True):
                where = (server.name, machine.name, f"{after} rounds")
                yield Row("capacity's interval holds", *where, _share(f.holds for f in found), bar)
                yield Row("  half of it", *where, float(np.median([f.half for f in found])))
                yield Row("  off by, median", *where, float(np.median([f.off for f in found])))
                alarms = _share(f.ratio.differs for f in found)
                yield Row("false alarm", *where, alarms, high=0.05 + _chance(times))


def unequal_arms(pool: Any, times: int, levels: int, rounds: tuple[int, ...]) -> Iterator[Row]:
    """Differences that are found, and intervals of the ratio that hold it."""
    for server in SERVERS:
        truth = true_capacity(server, USUAL.scatter, levels)
        for gap in (1.2, 1.5, 2.0):
            tasks = [Task(i, server, USUAL, truth, gap, rounds) for i in range(times)]
            runs = pool.map(compare, tasks, chunksize=4)
            for after, found in zip(rounds, zip(*runs, strict=True), strict=True):
                where = (server.name, USUAL.name, f"{after} rounds")
                seen = _share(f.ratio.differs for f in found)
                low = 0.9 - _chance(times) if gap == 2 and after >= 12 else None
                yield Row(f"{gap:g} times is found", *where, seen, low)
                holds = _share(f.ratio.low <= gap <= (f.ratio.high or math.inf) for f in found)
                yield Row("  its interval holds", *where, holds, 0.95 - _chance(times))


def levels_needed(pool: Any, times: int, levels: int) -> Iterator[Row]:
    """How many levels it takes to know the capacity to ±5 %."""
    for server in SERVERS:
        for machine in MACHINES[:2]:
            truth = true_capacity(server, machine.scatter, levels)
            tasks = [Task(i, server, machine, truth, 1.0, ()) for i in range(times)]
            took = float(np.median(pool.map(search, tasks, chunksize=2)))
            most = f"levels, at most {MOST_LEVELS}"
            yield Row("levels to ±5 %, median", server.name, machine.name, most, took)


def short_levels(levels: int) -> Iterator[Row]:
    """By how much a capacity of short levels is above one of long levels, with a steady machine."""
    for server in SERVERS:
        long = true_capacity(server, 0.0, max(20, levels // 20), 60.0)
        short = true_capacity(server, 0.0, levels)
        yield Row("2.5-s levels : 60-s levels", server.name, "0%", "", short / long)


def _share(values: Iterator[bool]) -> float:
    return float(np.mean(list(values)))


def _chance(times: int) -> float:
    """How far a share near 95 % may be off by chance, of so many."""
    return 2 * math.sqrt(0.05 * 0.95 / times)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Whether capacities and ratios keep their word.")
    parser.add_argument("--quick", action="store_true", help="few of each: a smoke run")
    parser.add_argument("--times", type=int, help="comparisons of each kind (200)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    asked = parser.parse_args(arguments)
    times = asked.times or (4 if asked.quick else 200)
    levels = 40 if asked.quick else 1000
    rounds = (5, 8) if asked.quick else (5, 8, 10, 12, 40)
    rows = []
    with Pool() as pool:
        parts = {
            "Equal arms": equal_arms(pool, times, levels, rounds),
            "Unequal arms": unequal_arms(pool, times, levels, rounds),
            "Levels needed": levels_needed(pool, max(2, times // 4), levels),
            "Short levels": short_levels(levels),
        }
        for title, part in parts.items():
            print(title)
            for row in part:
                rows.append(row)
                bar = "" if row.low is None else f"≥ {row.low:.3f} "
                bar += "" if row.high is None else f"≤ {row.high:.3f}"
                where = f"{row.server:12}{row.machine:24}{row.after:24}"
                end = f"{bar} {'MISSED' if row.failed else ''}"
                print(f"  {row.what:28}{where}{row.figure:8.3f}  {end}".rstrip(), flush=True)
    if asked.json is not None:
        written = [{**asdict(row), "failed": row.failed} for row in rows]
        asked.json.write_text(json.dumps({"rows": written}, indent=1) + "\n", encoding="utf-8")
    return 1 if any(row.failed for row in rows) and not asked.quick else 0


if __name__ == "__main__":
    sys.exit(main())
