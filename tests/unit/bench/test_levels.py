"""Which levels an arm is measured at, and what is made of them."""

import pytest

from tritonkit.bench.levels import (
    Wanted,
    capacity,
    connections,
    guess_rps,
    length_s,
    next_curve,
    next_search,
    overload,
    trials,
)


@pytest.fixture
def searched(level):
    """The levels of an arm that holds up to so many requests/s, after so many of the search."""

    def run(most_rps, count, rate_rps=None):
        levels = [level("closed", 64, rps=1.2 * most_rps, holds=False)]
        for number in range(count):
            wanted = next_search(levels, rate_rps)
            holds = wanted.offered <= most_rps
            found = {"purpose": wanted.purpose, "holds": holds, "round": number}
            levels.append(level("open", wanted.offered, **found))
        return levels

    return run


def test_curve(level):
    """Closed loops go upwards."""
    levels = []
    while (wanted := next_curve(levels)) is not None:
        assert (wanted.mode, wanted.purpose) == ("closed", "curve")
        levels.append(level("closed", wanted.offered))
    assert [x.offered for x in levels] == [1, 16, 64]


@pytest.mark.parametrize("most_rps", [40, 1000, 25_000])
def test_search_finds(searched, most_rps):
    """The search ends near the rate up to which the arm holds, and its interval has it."""
    levels = searched(most_rps, 12)
    found = capacity(levels)
    assert found.rps == pytest.approx(most_rps, rel=0.1)
    assert found.low_rps <= most_rps <= found.high_rps


def test_rates_are_for_people(searched):
    """Rates have three significant digits."""
    assert all(float(f"{x.offered:.3g}") == x.offered for x in searched(1234.5, 8)[1:])


def test_rate_takes_turns(searched):
    """Where a rate was asked for, every other level is at exactly that rate."""
    levels = searched(1000, 6, rate_rps=777.7)
    assert [x.purpose for x in levels[1:]] == ["rate", "search"] * 3
    assert {x.offered for x in levels if x.purpose == "rate"} == {777.7}


def test_generator_bound_levels_do_not_count(level):
    """A level at which the generator was the limit is no trial, held or not."""
    bound = [level("open", 10, holds=h, generator_bound=True) for h in (True, False)]
    assert trials(bound) == [] and capacity(bound) is None
    assert len(trials([*bound, level("open", 5)])) == 1


def test_soak_is_no_trial(level):
    """What is measured after the verdict does not change it; closed loops say nothing either."""
    assert trials([level("open", 5, purpose="soak"), level("closed", 5)]) == []


def test_overload_is_a_trial(level):
    """The level beyond capacity is as good a trial as any."""
    (found,) = trials([level("open", 150, holds=False, purpose="overload", round=9)])
    assert (found.rate_rps, found.held, found.round) == (150, False, 9)


def test_search_gets_slower_where_the_generator_is_the_limit(level):
    """After two levels in a row that the generator bounded, the search goes on below them."""
    curve = [level("closed", 64, rps=1000)]
    first = next_search(curve, None).offered
    bound = [level("open", first, generator_bound=True)]
    assert next_search(curve + bound, None).offered == first
    assert next_search(curve + 2 * bound, None).offered == pytest.approx(0.8 * first, rel=0.01)
    healthy = level("open", first, holds=False)
    assert next_search([*curve, *bound, healthy], None).offered < first


def test_overload_level(searched):
    """Overload is one and a half times the capacity."""
    levels = searched(1000, 12)
    assert overload(levels) == Wanted(
        "open", float(f"{1.5 * capacity(levels).rps:.3g}"), "overload"
    )


def test_no_overload_without_capacity(level):
    """An arm without a capacity is not overloaded."""
    assert overload([level("closed", 1)]) is None


def test_guess(level):
    """The search begins below what the closed loops reached, and above nothing."""
    assert guess_rps([level("closed", 1, rps=50), level("closed", 16, rps=200)]) == 160
    assert guess_rps([level("closed", 1, rps=0, holds=False)]) > 0


@pytest.mark.parametrize(
    ("wanted", "length"),
    [
        (Wanted("open", 1000, "search"), 2.5),
        (Wanted("open", 100, "search"), 5.0),
        (Wanted("open", 1, "search"), 10.0),
        (Wanted("closed", 1, "curve"), 2.5),
    ],
)
def test_length(wanted, length):
    """A slow rate gets a longer level, so that its p99 rests on enough, but not any longer."""
    assert length_s(wanted, 2.5, 500) == length


@pytest.mark.parametrize(
    ("rate_rps", "slo_p99_ms", "most"),
    [
        (5800, 50, 256),
        (2500, 50, 250),
        (2000.1, 50, 201),
        (1281, 50, 129),
        (1280, 50, 128),
        (1, 50, 128),
        (0, 50, 128),
        (1e6, 1e6, 256),
    ],
)
def test_connections(rate_rps, slo_p99_ms, most):
    """Twice what is in flight where a level just holds the budget, between 128 and 256."""
    assert connections(rate_rps, slo_p99_ms) == most
