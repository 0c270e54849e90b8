"""From a capacity to replicas and money."""

import pytest

from tritonkit.bench.demand import demand, held_at, holds_rate, rate_of_a_day


def test_rate_of_a_day():
    """A day's requests, spread evenly, times how far the peak is above that."""
    assert rate_of_a_day(8_640_000, 3) == 300


@pytest.mark.parametrize(
    ("low", "rate", "replicas"), [(100, 100, 2), (100, 101, 3), (100, 10, 2), (99, 1000, 12)]
)
def test_replicas(low, rate, replicas):
    """So many as serve the rate when one of them is down."""
    found = demand([], (low, 2 * low), rate, None).replicas
    assert found == replicas
    assert (found - 1) * low >= rate > (found - 2) * low


def test_headroom_goes_by_the_low_end():
    """Headroom is what the arm surely has beyond the rate."""
    assert demand([], (150, 400), 100, None).headroom == pytest.approx(0.5)
    assert demand([], (80, 400), 100, None).headroom == pytest.approx(-0.2)


def test_cost():
    """An hour of all replicas, over the requests that they serve in it."""
    found = demand([], (100, 110), 250, 0.9)
    assert found.replicas == 4
    assert found.cost_per_million == pytest.approx(4 * 0.9 / (250 * 3600) * 1e6)


def test_no_price_no_cost():
    """Without a price there is no cost."""
    assert demand([], (100, 110), 250, None).cost_per_million is None


@pytest.mark.parametrize("interval", [None, (0.0, 5.0)])
def test_nothing_sustained(interval):
    """What sustains nothing for sure gets no number of replicas."""
    found = demand([], interval, 10, 1.0)
    assert (found.headroom, found.replicas, found.cost_per_million) == (None, None, None)


@pytest.mark.parametrize(
    ("holds", "expected"),
    [
        ((True,), True),
        ((True, True, False), True),
        ((True, False), False),
        ((False, False, True), False),
        ((), None),
    ],
)
def test_holds_two_of_three(level, holds, expected):
    """One bad level of three is a hiccup; more are not."""
    levels = [level("open", 50, holds=h, purpose="rate") for h in holds]
    assert holds_rate(levels, 50) is expected


def test_only_levels_at_the_rate_count(level):
    """Levels of the search, at other rates, and those that the generator bounded say nothing."""
    levels = [
        level("open", 50, holds=False, purpose="search"),
        level("open", 60, holds=False, purpose="rate"),
        level("open", 50, holds=False, purpose="rate", generator_bound=True),
    ]
    assert holds_rate(levels, 50) is None
    assert holds_rate([*levels, level("open", 50, purpose="rate")], 50) is True


def test_levels_that_held_at_the_rate(level):
    """How many levels at the rate held, of those that count."""
    levels = [level("open", 50, holds=h, purpose="rate") for h in (True, False, True)]
    bound = level("open", 50, purpose="rate", generator_bound=True)
    assert held_at([*levels, bound, level("open", 60)], 50) == (2, 3)
