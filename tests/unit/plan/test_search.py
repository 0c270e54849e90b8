"""Capacities by simulation, and the settings that have the highest."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tritonkit.plan.predict import capacity_rps, predict, throughput_rps
from tritonkit.plan.search import by_capacity, by_latency, grid, sizes
from tritonkit.plan.settings import Settings, Way
from tritonkit.plan.simulate import Service
from tritonkit.plan.stream import Kind, Poisson
from tritonkit.repository.scheduling import DynamicBatching, QueuePolicy

ALIKE = Poisson()
FLAT = Service((0.010,) * 64)
"""A run costs the same for any number of rows: batching is for nothing."""
LINEAR = Service(tuple(0.010 * rows for rows in range(1, 65)))
"""Every row costs the same: batching gains nothing."""


def ways(services):
    """Threads and instances → service, where a batcher costs nothing."""
    return {Way(*pair, batching): s for pair, s in services.items() for batching in (False, True)}


LANE = ways({(1, 1): FLAT})


def share_waiting_at_most(t: float, load: float) -> float:
    """Of the requests of an M/D/1 queue whose runs take 1 (Erlang)."""
    return (1 - load) * sum(
        (load * (k - t)) ** k / math.factorial(k) * math.exp(-load * (k - t))
        for k in range(math.floor(t) + 1)
    )


def test_capacity_is_where_theory_has_it():
    """Without batching it is the rate at which 99 % of M/D/1's waits are within what the budget
    leaves: of a model so fast that a level has thousands of them."""
    loads = np.linspace(0.3, 0.99, 1000)
    expected = max(u for u in loads if share_waiting_at_most(4.0, u) >= 0.99) / 0.0001
    fast = Service((0.0001,))
    found = np.mean([capacity_rps(Settings(1, None), fast, ALIKE, 0.5, seed=s) for s in range(8)])
    assert found == pytest.approx(expected, rel=0.03)


def test_capacity_holds_and_a_little_more_does_not():
    """It is the edge, to within what was asked for."""
    chosen = Settings(8, DynamicBatching())
    rate_rps = capacity_rps(chosen, FLAT, ALIKE, 50, within=0.01)
    assert predict(chosen, FLAT, ALIKE, rate_rps).holds(50)
    assert not predict(chosen, FLAT, ALIKE, 1.02 * rate_rps).holds(50)


@pytest.mark.parametrize("settings", [Settings(8, None), Settings(8, DynamicBatching(1000))])
def test_no_capacity_below_the_time_of_a_run(settings):
    """A budget that a run alone breaks is held at no rate."""
    assert capacity_rps(settings, FLAT, ALIKE, 9) == 0


def test_throughput_is_never_exceeded():
    """What full runs give is a bound on what a simulation answers."""
    stream = Poisson((Kind(0.5, 1), Kind(0.5, 3, 0, 2.0)))
    service = Service((0.01, 0.012, 0.013, 0.016), (0.001,) * 4, (1.0, 1.5))
    for settings in (Settings(4, None, 2), Settings(4, DynamicBatching(), 2)):
        most_rps = throughput_rps(settings, service, stream)
        assert 0 < capacity_rps(settings, service, stream, 1e6) <= 1.1 * most_rps


def test_batching_for_nothing_is_taken_whole():
    """Where rows cost nothing the largest batches serve most."""
    best, *_ = by_capacity(LANE, list(grid(LANE, 64, 50)), ALIKE, 50)
    assert best.settings.dynamic_batching is not None
    assert best.capacity_rps > 10 * capacity_rps(Settings(64, None), FLAT, ALIKE, 50)
    assert best.settings.max_batch_size >= 32


def test_batching_that_gains_nothing_is_left_out():
    """Where every row costs the same the simplest setting comes first."""
    lanes = ways({(1, 1): LINEAR})
    best, *_ = by_capacity(lanes, list(grid(lanes, 64, 50)), ALIKE, 50)
    assert best.settings == Settings(64, None, 1, 1)


def test_second_instance_that_only_slows_is_left_out():
    """Two instances that share one CPU serve no more than one, which is simpler."""
    lanes = ways({(1, 1): LINEAR, (1, 2): Service(LINEAR.run_s, slowdown=(1.0, 2.0))})
    best, *_ = by_capacity(lanes, list(grid(lanes, 8, 200)), ALIKE, 200)
    assert best.settings.instances == 1


def test_second_instance_on_a_cpu_of_its_own_is_taken():
    """Two instances that do not feel each other serve twice as much."""
    lanes = ways({(1, 1): LINEAR, (1, 2): Service(LINEAR.run_s, slowdown=(1.0, 1.0))})
    best, *_ = by_capacity(lanes, list(grid(lanes, 8, 200)), ALIKE, 200)
    assert best.settings.instances == 2


def test_lowest_latency_at_a_low_rate_waits_for_nobody():
    """Where hardly two requests meet a delay only costs."""
    best, *_ = by_latency(LANE, list(grid(LANE, 8, 50)), ALIKE, 0.1)
    batching = best.settings.dynamic_batching
    assert batching is None or batching.max_queue_delay_us == 0


def test_who_refuses_comes_last():
    """A low p99 of the survivors is no virtue."""
    refusing = Settings(1, DynamicBatching(queue=QueuePolicy(max_queue_size=1)))
    waiting = Settings(1, DynamicBatching())
    found = by_latency(LANE, [refusing, waiting], ALIKE, 99.0)
    assert [option.settings for option in found] == [waiting, refusing]


def test_shapes_that_differ_gain_less():
    """Requests that share no run make smaller batches, and a lower capacity."""
    chosen = Settings(32, DynamicBatching())
    mixed = Poisson(tuple(Kind(shape=shape) for shape in range(8)))
    assert capacity_rps(chosen, FLAT, mixed, 50) < 0.5 * capacity_rps(chosen, FLAT, ALIKE, 50)


def test_grid_keeps_within_its_bounds():
    """No batch above the most, no delay above half the budget, every lane without batching too."""
    lanes = ways({(1, 1): FLAT, (2, 1): FLAT})
    tried = list(grid(lanes, 24, 10))
    assert {s.max_batch_size for s in tried if s.dynamic_batching} == set(sizes(24))
    assert max(s.dynamic_batching.max_queue_delay_us for s in tried if s.dynamic_batching) == 5000
    assert [s.threads for s in tried if s.dynamic_batching is None] == [1, 2]


@pytest.mark.parametrize(("most", "expected"), [(1, []), (2, [2]), (5, [2, 3, 4, 5])])
def test_sizes(most, expected):
    """From 2 to the most, both tried."""
    assert sizes(most) == expected


def test_sizes_are_few():
    """A model of 1,000 rows is not tried at each of them."""
    assert len(sizes(1000)) < 40
