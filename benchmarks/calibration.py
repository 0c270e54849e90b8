"""Whether the kit's statistics keep their word, on queues whose truth is known.

    python benchmarks/calibration.py           a few minutes; nothing is served or measured
    python benchmarks/calibration.py --quick   whether it runs; the figures mean little

The queues have one server, a mean service time of 1 ms, and Poisson arrivals at a share of what it
can do: M/M/1 (exponential service times), M/G/1 (lognormal ones, their coefficient of variation
given), and for comparison latencies that do not depend on each other. Seeds are fixed. Exits 1 if
a figure misses its bar.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from bars import misses

from tritonkit.stats.confidence import percentile_interval, variance_inflation
from tritonkit.stats.steady import settle
from tritonkit.stats.trend import trend

BURN_IN = 3000  # requests that bring a queue from empty to its steady state


@dataclass(frozen=True)
class Row:
    """One figure. low, high: its bar, None if it has none."""

    what: str
    case: str
    figure: float
    low: float | None = None
    high: float | None = None

    @property
    def failed(self) -> bool:
        return misses(self.figure, self.low, self.high)


@dataclass(frozen=True)
class Queue:
    """load: 0 for latencies without a queue. variation: of the service times."""

    load: float
    variation: float = 1.0

    def __str__(self) -> str:
        if not self.load:
            return "independent"
        kind = "M/M/1" if self.variation == 1 else f"M/G/1 cv {self.variation:g}"
        return f"{kind} {self.load:.0%}"

    def latencies(self, rng: np.random.Generator, n: int, burn_in: int = 0) -> np.ndarray:
        """Of n requests in turn, from an empty queue on if it does not burn in (Lindley 1952)."""
        n += burn_in
        if self.variation == 1:
            service = rng.exponential(1, n)
        else:
            spread = math.log1p(self.variation**2)
            service = rng.lognormal(-spread / 2, math.sqrt(spread), n)
        if not self.load:
            return service[burn_in:]
        gaps = rng.exponential(1 / self.load, n)
        walk = np.concatenate(([0.0], np.cumsum(service[:-1] - gaps[1:])))
        return (walk - np.minimum.accumulate(walk) + service)[burn_in:]

    def percentile(self, q: float, n: int) -> float:
        """The true one; of M/G/1 from a run of n."""
        if self.variation == 1:
            return -math.log(1 - q / 100) / (1 - self.load)
        return float(np.percentile(self.latencies(np.random.default_rng(99), n, BURN_IN), q))


def coverage(times: int, sizes: tuple[int, ...]) -> Iterator[Row]:
    """How often the 95 % intervals hold the truth: of those given, and wrong ones of all levels."""
    queues = [Queue(load) for load in (0, 0.5, 0.8, 0.9)]
    queues += [Queue(load, 2) for load in (0.5, 0.8, 0.9)]
    for queue in queues:
        true = {q: queue.percentile(q, 200 * max(sizes)) for q in (50, 99)}
        for n in sizes:
            rng = np.random.default_rng(n)
            found: dict[int, list[bool]] = {q: [] for q in true}
            for _ in range(times):
                values = queue.latencies(rng, n, BURN_IN)
                for q in true:
                    inside = percentile_interval(values, q, variance_inflation(values, q))
                    if inside is not None:
                        found[q].append(inside[0] <= true[q] <= inside[1])
            for q, hits in found.items():
                case = f"{queue}, n {n}, p{q}"
                yield Row("interval given", case, len(hits) / times)
                if hits:
                    yield Row("  of these right", case, sum(hits) / len(hits))
                    yield Row("  wrong, of all", case, hits.count(False) / times, high=0.07)


def steadiness(times: int) -> Iterator[Row]:
    """How often a level is called unsteady."""
    for n in (500, 1000, 2500, 10_000):
        for queue in (Queue(0), Queue(0.5), Queue(0.8), Queue(0.8, 0.3), Queue(0.8, 2), Queue(0.9)):
            for start, burn_in in (("from empty", 0), ("in full swing", BURN_IN)):
                rng = np.random.default_rng(n)
                levels = (queue.latencies(rng, n, burn_in) for _ in range(times))
                case = f"{queue} {start}, n {n}"
                high = 0.05 if queue.load <= 0.8 and (queue.variation <= 1 or n >= 2500) else None
                yield Row("false alarm", case, _share(_unsteady(x) for x in levels), high=high)
        for queue in (Queue(1.1), Queue(1.1, 0.3), Queue(1.1, 2), Queue(1.3)):
            rng = np.random.default_rng(n)
            levels = (queue.latencies(rng, n) for _ in range(times))
            low = 0.9 if n >= 2500 and queue.variation <= 1 else None
            case = f"{queue}, n {n}"
            yield Row("overload found", case, _share(_unsteady(x) for x in levels), low=low)
        step, rng = np.repeat((1.0, 1.5), n // 2), np.random.default_rng(n)
        levels = (step * rng.lognormal(0, 0.3, n) for _ in range(times))
        case = f"latency × 1.5 from the middle on, n {n}"
        yield Row("step found", case, _share(_unsteady(x) for x in levels), low=0.9)


def warm_up(times: int) -> Iterator[Row]:
    """What is cut, and what that does to the mean, beside MSER-5."""
    n = 2500
    at = np.arange(n) / n
    stall = np.where((at > 0.1) & (at < 0.15), (0.15 - at) * n, 0)

    def light(rng: np.random.Generator) -> np.ndarray:
        return rng.lognormal(-0.045, 0.3, n)

    # what, a level, the mean it should have, how much of it should be cut
    cases: list[tuple[str, Callable[[np.random.Generator], np.ndarray], float, float]] = [
        ("light load", light, 1, 0),
        ("M/M/1 80%", lambda r: Queue(0.8).latencies(r, n, BURN_IN), 5, 0),
        ("M/M/1 80% from empty", lambda r: Queue(0.8).latencies(r, n), 5, 0),
        ("M/M/1 90% from empty", lambda r: Queue(0.9).latencies(r, n), 10, 0),
        ("first tenth × 3", lambda r: light(r) * np.where(at < 0.1, 3, 1), 1, 0.1),
        ("× 5, decays", lambda r: light(r) * (1 + 4 * np.exp(-at / 0.05)), 1, 0.2),
        ("stall after a tenth", lambda r: light(r) + stall, 1 + float(stall.mean()), 0),
    ]
    rules = (("settle", lambda x: settle(x)[0]), ("MSER-5", mser5))
    for name, level, mean, cut in cases:
        for rule, first in rules:
            rng = np.random.default_rng(5)
            levels = [level(rng) for _ in range(times)]
            firsts = [first(x) for x in levels]
            found = np.mean([x[i:].mean() for x, i in zip(levels, firsts, strict=True)])
            ours = rule == "settle"
            bars = {"low": cut - 0.05, "high": cut + 0.05} if ours else {}
            yield Row("share cut", f"{name}, {rule}", float(np.mean(firsts)) / n, **bars)
            bars = {"low": -0.1, "high": 0.1} if ours else {}
            yield Row("  bias of the mean", f"{name}, {rule}", float(found / mean - 1), **bars)


def mser5(latency: np.ndarray) -> int:
    """White's rule (1997) on means of five, for comparison: nothing is cut if it wants half."""
    means = latency[: len(latency) // 5 * 5].reshape(-1, 5).mean(axis=1)
    left = len(means) - np.arange(len(means))
    sums = np.cumsum(means[::-1])[::-1]
    squares = np.cumsum(means[::-1] ** 2)[::-1]
    half = len(means) // 2
    best = int(np.argmin(((squares - sums**2 / left) / left**2)[: half + 1]))
    return 0 if best == half else 5 * best


def trends(times: int) -> Iterator[Row]:
    """How often a series of a soak is said to rise or fall, and to rise if it does."""
    for n in (60, 300, 900):
        at = np.arange(n) / n
        # what: the series without noise, and the noise
        quiet = {
            "noise of 10%": (np.full(n, 100.0), 10),
            "step of 30% at the start": (100 + 30.0 * (at > 0.05), 1),
            "step of 10% in the middle": (100 + 10.0 * (at > 0.5), 1),
            "taking 20% more, then no more": (120 - 20 * np.exp(-at / 0.1), 1),
            "saw of 20%, 3 teeth": (100 + 20 * ((at * 3) % 1), 1),
            "saw of 20%, 7.5 teeth": (100 + 20 * ((at * 7.5) % 1), 1),
        }
        for name, (base, noise) in quiet.items():
            rng = np.random.default_rng(n)
            found = [_trends(base + rng.normal(0, noise, n)) for _ in range(times)]
            alarms = float(np.mean(np.abs(found)))
            yield Row("false alarm", f"{name}, {n} points", alarms, high=0.05)
        rng = np.random.default_rng(n)
        high = 0.05 if n >= 300 else None
        alarms = float(np.mean([abs(_trends(100 + _dependent(rng, n, 2))) for _ in range(times)]))
        yield Row("false alarm", f"dependent noise of 2%, {n} points", alarms, high=high)
        leaks = {
            "3%, noise of 1%": (100 + 3 * at, 1),
            "5%, noise of 2%": (100 + 5 * at, 2),
            "10% on a saw of 20%, 6 teeth": (100 + 10 * at + 20 * ((at * 6) % 1), 1),
            "6% after a step of 30%": (100 + 6 * at + 30 * (at > 0.05), 1),
        }
        for name, (base, noise) in leaks.items():
            rng = np.random.default_rng(n)
            found = [_trends(base + rng.normal(0, noise, n)) for _ in range(times)]
            low = 0.9 if n >= 300 else None
            yield Row("leak found", f"{name}, {n} points", found.count(1) / times, low=low)


def _dependent(rng: np.random.Generator, n: int, sd: float) -> np.ndarray:
    """Noise each of whose points is four fifths the one before."""
    kept = 0.8 ** np.arange(60)
    return np.convolve(rng.normal(0, 0.6 * sd, n + 59), kept, "valid")


def _trends(series: np.ndarray) -> int:
    found = trend(range(len(series)), series)
    return found.rises - found.falls


def _unsteady(latency_ms: np.ndarray) -> bool:
    return bool(settle(latency_ms)[1])


def _share(found: Iterator[bool]) -> float:
    return float(np.mean(list(found)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Whether the kit's statistics keep their word.")
    parser.add_argument("--quick", action="store_true", help="few levels of each: a smoke run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    asked = parser.parse_args()
    times = 10 if asked.quick else 400
    sizes = (500, 2000) if asked.quick else (500, 2000, 10_000, 50_000)
    parts = {
        "Intervals of percentiles": coverage(times, sizes),
        "Steadiness of a level": steadiness(times),
        "Warm-up": warm_up(times),
        "Trends of a soak": trends(times),
    }
    rows = []
    for title, part in parts.items():
        print(title)
        for row in part:
            rows.append(row)
            bar = "" if row.low is None else f"≥ {row.low:g} "
            bar += "" if row.high is None else f"≤ {row.high:g}"
            end = f"{bar} {'MISSED' if row.failed else ''}"
            print(f"  {row.what:20}{row.case:52}{row.figure:7.3f}  {end}".rstrip(), flush=True)
    if asked.json is not None:
        written = [{**asdict(row), "failed": row.failed} for row in rows]
        asked.json.write_text(json.dumps({"rows": written}, indent=1) + "\n", encoding="utf-8")
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
