"""How sure percentiles are: intervals, dependence between neighbours, and how many it takes."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonkit.stats.confidence import (
    percentile_interval,
    requests_needed,
    variance_inflation,
)


def queue(seed, n, load):
    """Latencies in a steady M/M/1 queue; the mean service time is 1. The truth is known: they
    are exponential with a mean of 1 / (1 - load)."""
    rng = np.random.default_rng(seed)
    n += 2000
    service, gaps = rng.exponential(1, n), rng.exponential(1 / load, n)
    walk = np.concatenate(([0.0], np.cumsum(service[:-1] - gaps[1:])))
    return (walk - np.minimum.accumulate(walk) + service)[2000:]


@pytest.mark.parametrize(
    "q, over, requests", [(99, 0, 459), (99, 1, 662), (90, 0, 44), (90, 1, 64), (50, 0, 7)]
)
def test_loadgen_needs(q, over, requests):
    """The numbers are the ones of LoadGen's early stopping."""
    assert requests_needed(q, over) == requests


@given(st.integers(1, 99), st.integers(0, 20), st.sampled_from([0.9, 0.99]))
def test_needs_are_the_smallest(q, over, confidence):
    """So many show the percentile, and one fewer do not, by exact binomial probabilities."""

    def chance(n):
        slow = Fraction(100 - q, 100)
        return sum(math.comb(n, k) * slow**k * (1 - slow) ** (n - k) for k in range(over + 1))

    needed = requests_needed(q, over, confidence)
    allowed = 1 - Fraction(confidence).limit_denominator(100)
    assert chance(needed) <= allowed < chance(needed - 1)


@pytest.mark.parametrize(
    "q, over, confidence", [(0, 0, 0.9), (100, 0, 0.9), (9, -1, 0.9), (9, 0, 1)]
)
def test_impossible_needs(q, over, confidence):
    """What no number of requests can show is refused, not searched for ever."""
    with pytest.raises(ValueError, match="no number of requests"):
        requests_needed(q, over, confidence)


def test_median_of_a_hundred():
    """Of 100 independent values the 40th and the 61st enclose the median, as the tables say."""
    assert percentile_interval(np.arange(1.0, 101), 50, 1.0) == (40, 61)


def test_order_does_not_matter():
    """The interval is one of ranks: the order of the values is the inflation's affair."""
    values = np.random.default_rng(0).permutation(np.arange(1.0, 101))
    assert percentile_interval(values, 50, 1.0) == (40, 61)


@given(st.integers(400, 3000), st.floats(1, 4), st.sampled_from([50, 90, 99]))
def test_interval_holds_the_percentile(n, inflation, q):
    """An interval lies between values that occurred, and around the percentile of the sample."""
    values = np.random.default_rng(n).exponential(1, n)
    found = percentile_interval(values, q, inflation)
    if found is not None:
        assert set(found) <= set(values)
        assert found[0] <= np.percentile(values, q, method="inverted_cdf") <= found[1]


def test_dependence_widens():
    """Values that say as much as a quarter of them have an interval twice as wide."""
    values = np.arange(100_000.0)
    alone, together = (percentile_interval(values, 50, f) for f in (1.0, 4.0))
    assert together[1] - together[0] == pytest.approx(2 * (alone[1] - alone[0]), rel=0.02)


def test_too_few_for_p99():
    """With 367 values the largest may be below the p99, so there is no interval; 368 do."""
    values = np.arange(368.0)
    assert percentile_interval(values[:-1], 99, 1.0) is None
    assert percentile_interval(values, 99, 1.0) is not None


def test_too_dependent():
    """Many values that say no more than a few have no interval at all."""
    values = np.arange(10_000.0)
    assert percentile_interval(values, 50, 101.0) is None
    assert percentile_interval(values, 50, 99.0) is not None


@pytest.mark.parametrize("q", [50, 99])
def test_no_dependence(q):
    """Independent values count nearly in full."""
    values = np.random.default_rng(1).exponential(1, 20_000)
    assert 1 <= variance_inflation(values, q) < 2


def test_dependence_in_a_queue():
    """In a queue at 80 % load 27 neighbours say as much about the median as one request alone."""
    assert 27 / 1.5 < variance_inflation(queue(2, 100_000, 0.8), 50) < 27 * 1.5


def test_hidden_dependence():
    """Of that, a level of 2000 requests shows at least three quarters."""
    found = [variance_inflation(queue(seed, 2000, 0.8), 50) for seed in range(40)]
    assert 0.75 * 27 < np.mean(found) < 27


def test_dependence_is_in_the_order():
    """The same latencies in random order depend on nothing."""
    values = np.random.default_rng(3).permutation(queue(2, 100_000, 0.8))
    assert variance_inflation(values, 50) < 2


def test_p99_no_less_dependent():
    """The few requests above the p99 cannot hide a dependence that the others show."""
    values = queue(4, 1000, 0.8)
    assert variance_inflation(values, 99) >= variance_inflation(values, 50) > 5


@pytest.mark.parametrize("values", [[], [1.0], [5.0] * 1000, [1.0, 2.0] * 500])
def test_never_less_than_one(values):
    """Nothing, equal values and values that take turns say no more than independent ones."""
    assert variance_inflation(np.array(values), 50) == 1


@pytest.mark.parametrize("load, q", [(0.5, 50), (0.8, 50), (0.5, 99)])
def test_coverage(load, q):
    """Of the intervals from a queue at least nine in ten hold the true percentile."""
    true = -math.log(1 - q / 100) / (1 - load)
    held = []
    for seed in range(100):
        values = queue(seed, 10_000, load)
        found = percentile_interval(values, q, variance_inflation(values, q))
        if found is not None:
            held.append(found[0] <= true <= found[1])
    assert len(held) > 90
    assert np.mean(held) >= 0.9


def test_coverage_without_dependence():
    """The same intervals, if neighbours were taken for independent, would mostly be wrong."""
    true = math.log(2) / 0.2
    found = [percentile_interval(queue(seed, 10_000, 0.8), 50, 1.0) for seed in range(100)]
    assert np.mean([low <= true <= high for low, high in found]) < 0.6
