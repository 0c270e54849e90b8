"""The settings that serve most within a budget, or fastest at a rate, of all that can be set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tritonkit.plan.predict import capacity_rps, predict
from tritonkit.plan.settings import Settings, Way, lane_words
from tritonkit.plan.simulate import Service
from tritonkit.plan.stream import Stream
from tritonkit.repository.scheduling import DynamicBatching

WORTH = 0.02
"""What a more involved setting must gain over a simpler one; less is the model's own error."""

NEAR = 0.9
"""Options that reach less than this share of the best are not ranked."""

DELAYS_US = (0, 200, 500, 1_000, 2_000, 3_000, 5_000, 8_000, 12_000, 20_000, 35_000, 60_000)

Lanes = Mapping[Way, Service]
"""How long runs take."""


APART = 1.6
"""Sizes and delays that differ by less than this factor do much the same."""


@dataclass(frozen=True)
class Option:
    """Settings with what is predicted of them, one or the other: the highest rate within the
    budget, or the p99 at a rate (None if not all were answered).
    """

    settings: Settings
    capacity_rps: float | None = None
    p99_ms: float | None = None

    @property
    def merit(self) -> float:
        """More is better; 0 is none."""
        if self.capacity_rps is not None:
            return self.capacity_rps
        return 1.0 / self.p99_ms if self.p99_ms else 0.0


def grid(lanes: Lanes, max_rows: int, slo_p99_ms: float) -> Iterator[Settings]:
    """Everything that is tried: without batching, and sizes × delays, on each lane."""
    for threads, instances in pairs(lanes):
        yield Settings(max_rows, None, instances, threads)
        for rows in sizes(max_rows):
            for delay_us in delays_us(slo_p99_ms):
                yield Settings(rows, DynamicBatching(delay_us), instances, threads)


def pairs(lanes: Iterable[Way]) -> list[tuple[int, int]]:
    """Threads of an instance and instances, each pair once."""
    return list(dict.fromkeys((way.threads, way.instances) for way in lanes))


def sizes(max_rows: int) -> list[int]:
    """From 2 on, each about a fifth more than the last, and the most itself."""
    found = {max_rows} if max_rows > 1 else set()
    size = 2.0
    while size < max_rows:
        found.add(round(size))
        size *= 1.2
    return sorted(found)


def neighbours(
    settings: Settings, lanes: Lanes, max_rows: int, slo_p99_ms: float
) -> list[tuple[str, Settings]]:
    """What is one notch away, each with what is changed: size, delay, lane, or no batching."""
    batching = settings.dynamic_batching
    found = [
        (
            lane_words(threads, instances),
            replace(settings, threads=threads, instances=instances),
        )
        for threads, instances in pairs(lanes)
        if (threads, instances) != (settings.threads, settings.instances)
    ]
    if batching is None:
        batched = replace(settings, max_batch_size=max_rows, dynamic_batching=DynamicBatching())
        return [*found, ("with batching", batched)]
    for rows in _beside(settings.max_batch_size, sizes(max_rows)):
        found.append((f"max_batch_size {rows}", replace(settings, max_batch_size=rows)))
    for delay_us in _beside(batching.max_queue_delay_us, delays_us(slo_p99_ms)):
        other = replace(settings, dynamic_batching=DynamicBatching(delay_us))
        found.append((f"max_queue_delay {delay_us:,} µs", other))
    plain = replace(settings, max_batch_size=max_rows, dynamic_batching=None)
    return [*found, ("without batching", plain)]


def _beside(value: int, notches: Sequence[int]) -> list[int]:
    below = [notch for notch in notches if notch < value]
    above = [notch for notch in notches if notch > value]
    return below[-1:] + above[:1]


def delays_us(slo_p99_ms: float) -> list[int]:
    """Queue delays to try: one that takes half of the budget is the longest."""
    return [us for us in DELAYS_US if us <= 0.5e3 * slo_p99_ms]


def by_capacity(
    lanes: Lanes, options: Sequence[Settings], stream: Stream, slo_p99_ms: float, seed: int = 0
) -> list[Option]:
    """Those options that come near the best, which is first. Of those that are as good the simplest
    comes first.
    """

    def found(settings: Settings, within: float) -> Option:
        service = lane(lanes, settings)
        rate_rps = capacity_rps(settings, service, stream, slo_p99_ms, within=within, seed=seed)
        return Option(settings, rate_rps)

    def holds(settings: Settings, rate_rps: float) -> bool:
        level = predict(settings, lane(lanes, settings), stream, rate_rps, seed)
        return level.holds(slo_p99_ms)

    # Most options are out after one level, at a rate that the best so far holds easily.
    rough: list[Option] = []
    best_rps = 0.0
    for settings in np.random.default_rng(seed).permutation(np.array(options, object)):
        if best_rps == 0.0 or holds(settings, NEAR * best_rps):
            rough.append(found(settings, 0.05))
            best_rps = max(best_rps, rough[-1].merit)
    near = [o.settings for o in rough if o.merit >= NEAR * best_rps]
    return _ranked([found(settings, 0.01) for settings in near])


def by_latency(
    lanes: Lanes, options: Sequence[Settings], stream: Stream, rate_rps: float, seed: int = 0
) -> list[Option]:
    """The options by their p99 at a rate, the lowest first. Of those that are as good the simplest
    comes first.
    """
    levels = [(each, predict(each, lane(lanes, each), stream, rate_rps, seed)) for each in options]
    return _ranked(
        [Option(each, p99_ms=None if level.refused else level.p99_ms) for each, level in levels]
    )


def spread(ranked: Sequence[Option], count: int) -> list[Option]:
    """The best of the ranked that batch, and after it the best of those that are not like any that
    was taken: another lane, or a size or a delay that is well apart.
    """
    batching = [o for o in ranked if o.settings.dynamic_batching is not None]
    taken: list[Option] = []
    for option in batching:
        if len(taken) < count and not any(_alike(option.settings, t.settings) for t in taken):
            taken.append(option)
    return taken


def lane(lanes: Lanes, settings: Settings) -> Service:
    """How long runs take under the settings."""
    return lanes[settings.way]


def _ranked(options: Sequence[Option]) -> list[Option]:
    """The best first, but for what is simpler and within WORTH of it."""
    left, ranked = list(options), []
    while left:
        best = max(option.merit for option in left)
        good = [option for option in left if option.merit >= (1 - WORTH) * best]
        chosen = min(good, key=lambda option: involved(option.settings))
        left.remove(chosen)
        ranked.append(chosen)
    return ranked


def _alike(one: Settings, other: Settings) -> bool:
    if (one.threads, one.instances) != (other.threads, other.instances):
        return False
    waits_us = [
        settings.dynamic_batching.max_queue_delay_us if settings.dynamic_batching else 0
        for settings in (one, other)
    ]
    sizes_near = max(one.max_batch_size, other.max_batch_size) < APART * min(
        one.max_batch_size, other.max_batch_size
    )
    # A millisecond is little beside any run that is worth to be batched.
    return sizes_near and max(waits_us) + 1000 < APART * (min(waits_us) + 1000)


def involved(settings: Settings) -> tuple[bool, int, int, int]:
    """How much there is to understand and to go wrong."""
    delay_us = settings.dynamic_batching.max_queue_delay_us if settings.dynamic_batching else 0
    batching = settings.dynamic_batching is not None
    return batching, delay_us, settings.instances, settings.max_batch_size
