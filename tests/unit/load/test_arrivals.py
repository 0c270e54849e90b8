"""Arrivals: as many as the rate says, spaced as they should be, the same for the same seed."""

import statistics
from itertools import islice, pairwise

import pytest

from tritonkit.load.arrivals import constant, poisson


def gaps(starts: list[float]) -> list[float]:
    """From 0 to the first start, and from each start to the next."""
    return [b - a for a, b in pairwise([0.0, *starts])]


def test_constant_spacing():
    """A constant rate starts at once and then evenly."""
    starts = list(constant(4, 2))
    assert starts == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]


@pytest.mark.parametrize(("rate", "duration"), [(100, 3), (1, 5), (0.5, 8), (1000, 0.1)])
def test_constant_rate(rate, duration):
    """A constant rate has rate × duration starts, all within the duration."""
    starts = list(constant(rate, duration))
    assert len(starts) == rate * duration
    assert max(starts) < duration


def test_poisson_rate():
    """Random arrivals come at the rate: 20 000 expected, ± 3 standard deviations."""
    assert abs(len(list(poisson(2000, 10, seed=1))) - 20_000) < 3 * 20_000**0.5


def test_poisson_gaps_are_exponential():
    """The gaps have the mean and the deviation of an exponential, both 1/rate, and its median."""
    found = gaps(list(poisson(50, 1000, seed=7)))
    assert statistics.mean(found) == pytest.approx(1 / 50, rel=0.02)
    assert statistics.stdev(found) == pytest.approx(1 / 50, rel=0.02)
    assert statistics.median(found) == pytest.approx(0.6931 / 50, rel=0.02)


def test_poisson_gaps_are_independent():
    """A gap says nothing about the next one: their correlation is about 0."""
    found = gaps(list(poisson(50, 1000, seed=7)))
    assert abs(statistics.correlation(found[:-1], found[1:])) < 0.02


def test_poisson_starts_at_random():
    """The first arrival, too, comes after a random gap."""
    firsts = [next(poisson(10, 100, seed)) for seed in range(2000)]
    assert statistics.mean(firsts) == pytest.approx(0.1, rel=0.1)


def test_poisson_ascends_within_the_duration():
    """Arrivals ascend, and none is after the end."""
    starts = list(poisson(300, 2, seed=3))
    assert starts == sorted(starts)
    assert 0 < starts[0] < starts[-1] < 2


def test_poisson_seed():
    """The same seed gives the same arrivals, another one others."""
    first, again, other = (list(poisson(100, 5, seed)) for seed in (4, 4, 5))
    assert first == again
    assert first != other


def test_longer_run_begins_alike():
    """A longer run of a seed begins as a shorter one does."""
    short = list(poisson(100, 1, seed=4))
    assert list(islice(poisson(100, 9, seed=4), len(short))) == short


def test_rate_too_low():
    """A rate that is too low for the duration may start nothing."""
    assert list(poisson(1e-9, 1, seed=0)) == []
