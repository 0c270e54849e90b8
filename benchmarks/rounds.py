"""Two ways to do the same thing, taking turns: which is faster, by how much, and how sure that is.

The speed of a machine changes within seconds, so only what was measured side by side is compared:
in each round both have a short turn, first one and then the other (A B, B A, A B, …), and only the
ratio of these two counts. The result is the median of the rounds' ratios.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    contextmanager,
)
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Check = Callable[[Any], None]
"""Is given what a call returned; raises if that is wrong."""


@dataclass(frozen=True)
class Arm:
    """open: gives, as a context manager, a function that does the thing once (threads: a plain
    one; tasks: a coroutine function). each: every thread opens its own; else all share one.
    """

    open: Callable[[], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]]
    each: bool = False


class Rate(NamedTuple):
    """calls_per_s: of all threads or tasks together. cpu_us: of this process, for each call."""

    calls_per_s: float
    cpu_us: float


Turn = Callable[[float], Rate]
"""Calls for so many seconds."""


class Ratio(NamedTuple):
    """ratio: of the calls per second, ours to theirs, with its 95% interval (low, high).
    The others are medians over the rounds.
    """

    ratio: float
    low: float
    high: float
    ours_per_s: float
    theirs_per_s: float
    ours_cpu_us: float
    theirs_cpu_us: float


def compare(ours: Turn, theirs: Turn, *, rounds: int, turn_s: float) -> Ratio:
    """Let the two take turns of turn_s seconds, after one each that does not count."""
    ours(turn_s)
    theirs(turn_s)
    pairs = []
    for i in range(rounds):
        if i % 2:
            second, first = theirs(turn_s), ours(turn_s)
        else:
            first, second = ours(turn_s), theirs(turn_s)
        pairs.append((first, second))
    rates = np.array(pairs)  # round, arm, field of Rate
    ratios = rates[:, 0, 0] / rates[:, 1, 0]
    (ours_per_s, ours_cpu_us), (theirs_per_s, theirs_cpu_us) = np.median(rates, axis=0).tolist()
    low, high = interval(ratios)
    return Ratio(
        *(float(np.median(ratios)), low, high, ours_per_s, theirs_per_s),
        *(ours_cpu_us, theirs_cpu_us),
    )


def interval(values: Sequence[float] | np.ndarray, samples: int = 2000) -> tuple[float, float]:
    """The 95% bootstrap interval of the median."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), (samples, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5)).tolist()
    return low, high


@contextmanager
def threads(arm: Arm, concurrency: int, check: Check) -> Iterator[Turn]:
    """Gives a turn in which so many threads call, one call after the other in each.

    The threads stay from turn to turn, and each opens and closes its own where the arm says so.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(concurrency)]
        calls = []
        for worker in workers if arm.each else workers[:1]:
            opened: Any = arm.open()
            calls.append(worker.submit(opened.__enter__).result())
            stack.callback(lambda w, o: w.submit(o.__exit__, *[None] * 3).result(), worker, opened)
        if not arm.each:
            calls *= concurrency
        for worker, call in zip(workers, calls, strict=True):
            check(worker.submit(call).result())

        def turn(seconds: float) -> Rate:
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            end_s = began_s + seconds
            under_way = [
                w.submit(_call_until, c, end_s) for w, c in zip(workers, calls, strict=True)
            ]
            count = sum(future.result() for future in under_way)
            return _rate(count, began_s, began_cpu_s)

        yield turn


@contextmanager
def tasks(arm: Arm, concurrency: int, check: Check, runner: asyncio.Runner) -> Iterator[Turn]:
    """The same with so many tasks of one event loop, which share what the arm opens."""
    opened: Any = arm.open()
    call = runner.run(opened.__aenter__())
    try:
        check(runner.run(call()))

        async def again(end_s: float) -> int:
            count = 0
            while not count or time.perf_counter() < end_s:
                await call()
                count += 1
            return count

        async def all_tasks(end_s: float) -> int:
            return sum(await asyncio.gather(*(again(end_s) for _ in range(concurrency))))

        def turn(seconds: float) -> Rate:
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            return _rate(runner.run(all_tasks(began_s + seconds)), began_s, began_cpu_s)

        yield turn
    finally:
        runner.run(opened.__aexit__(None, None, None))


def _call_until(call: Callable[[], Any], end_s: float) -> int:
    count = 0
    while not count or time.perf_counter() < end_s:
        call()
        count += 1
    return count


def _rate(count: int, began_s: float, began_cpu_s: float) -> Rate:
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return Rate(count / took_s, cpu_s / count * 1e6)
