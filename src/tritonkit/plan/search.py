"""The settings that serve most within a budget, or fastest at a rate, of all that can be set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tritonkit.plan.predict import Level, capacity_rps, predict
from tritonkit.plan.simulate import Service, Settings
from tritonkit.plan.stream import Poisson
from tritonkit.repository.scheduling import DynamicBatching

WORTH = 0.02
"""What a more involved setting must gain over a simpler one; less is the model's own error."""

DELAYS_US = (0, 200, 500, 1_000, 2_000, 3_000, 5_000, 8_000, 12_000, 20_000, 35_000, 60_000)

Lanes = Mapping[tuple[int, int], Service]
"""Threads of an instance, instances → how long they take."""


@dataclass(frozen=True)
class Option:
    """Settings with what is predicted of them. at_rate: at the rate that was asked for."""

    settings: Settings
    capacity_rps: float
    at_rate: Level | None = None


def grid(lanes: Lanes, max_rows: int, slo_p99_ms: float) -> Iterator[Settings]:
    """Everything that is tried: without batching, and sizes × delays, on each lane."""
    delays_us = [us for us in DELAYS_US if us <= 0.5e3 * slo_p99_ms]
    for threads, instances in lanes:
        yield Settings(max_rows, None, instances, threads)
        for rows in sizes(max_rows):
            for delay_us in delays_us:
                yield Settings(rows, DynamicBatching(delay_us), instances, threads)


def sizes(max_rows: int) -> list[int]:
    """From 2 on, each about a fifth more than the last, and the most itself."""
    found = {max_rows} if max_rows > 1 else set()
    size = 2.0
    while size < max_rows:
        found.add(round(size))
        size *= 1.2
    return sorted(found)


def by_capacity(
    lanes: Lanes, options: Sequence[Settings], stream: Poisson, slo_p99_ms: float, seed: int = 0
) -> list[Option]:
    """The options, the best first. Of those that are as good the simplest comes first."""

    def found(settings: Settings, within: float) -> Option:
        service = lane(lanes, settings)
        rate_rps = capacity_rps(settings, service, stream, slo_p99_ms, within=within, seed=seed)
        return Option(settings, rate_rps)

    rough = [found(settings, 0.05) for settings in options]
    best = max((option.capacity_rps for option in rough), default=0.0)
    near = [found(o.settings, 0.01) for o in rough if o.capacity_rps >= 0.9 * best]
    far = [o for o in rough if o.capacity_rps < 0.9 * best]
    return _ranked(near) + sorted(far, key=lambda o: -o.capacity_rps)


def by_latency(
    lanes: Lanes, options: Sequence[Settings], stream: Poisson, rate_rps: float, seed: int = 0
) -> list[Option]:
    """The options by their p99 at a rate, the lowest first; those that refuse requests last."""
    levels = [(each, predict(each, lane(lanes, each), stream, rate_rps, seed)) for each in options]
    found = [Option(each, 0.0, level) for each, level in levels]
    return sorted(found, key=_slowness)


def lane(lanes: Lanes, settings: Settings) -> Service:
    """How long the settings' threads and instances take."""
    return lanes[settings.threads, settings.instances]


def _slowness(option: Option) -> tuple[bool, float]:
    level = option.at_rate
    assert level is not None
    return level.refused > 0, math.inf if level.p99_ms is None else level.p99_ms


def _ranked(options: Sequence[Option]) -> list[Option]:
    """The best first, but for what is simpler and within WORTH of it."""
    left, ranked = list(options), []
    while left:
        best = max(option.capacity_rps for option in left)
        good = [option for option in left if option.capacity_rps >= (1 - WORTH) * best]
        chosen = min(good, key=lambda option: _involved(option.settings))
        left.remove(chosen)
        ranked.append(chosen)
    return ranked


def _involved(settings: Settings) -> tuple[bool, int, int, int]:
    """How much there is to understand and to go wrong."""
    delay_us = settings.dynamic_batching.max_queue_delay_us if settings.dynamic_batching else 0
    batching = settings.dynamic_batching is not None
    return batching, delay_us, settings.instances, settings.max_batch_size
