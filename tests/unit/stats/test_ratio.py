"""The ratio of two arms: equal ones are no different, unequal ones are, and bounds stay bounds."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from tritonkit.stats.capacity import Capacity, Trial, estimate, next_rate
from tritonkit.stats.ratio import Ratio, ratio, ratio_of

GUESS = 400.0


def turns(times, rounds, *, scatter=0.1, drift=0.0, seed=0):
    """Two arms that take turns, the first of so many times the capacity of the second, 400.

    scatter: of the speed of each level; drift: of each round's, common to both (ln, standard
    deviations). Of 50 levels one fails at any rate.
    """
    rng = np.random.default_rng(seed)
    arms: tuple[list[Trial], list[Trial]] = ([], [])
    for number in range(rounds):
        speed = drift * rng.normal()
        for arm, capacity in zip(arms, (400 * times, 400), strict=True):
            rate = next_rate(arm, GUESS)
            here = capacity * math.exp(speed + scatter * rng.normal())
            arm.append(Trial(rate, bool(rate <= here and rng.uniform() > 0.02), number))
    return arms


def found(times, rounds, **machine) -> Ratio:
    """The ratio of the two."""
    ours, theirs = turns(times, rounds, **machine)
    return ratio(ours, GUESS, theirs, GUESS)


@pytest.mark.parametrize(
    ("scatter", "drift"), [(0.02, 0.0), (0.1, 0.0), (0.3, 0.0), (0.05, 0.2)], ids=str
)
@pytest.mark.parametrize("rounds", [5, 10])
def test_equal_arms(scatter, drift, rounds):
    """Of 20 comparisons of equal arms at least 19 come out "no difference"."""
    equal = [found(1, rounds, scatter=scatter, drift=drift, seed=s) for s in range(20)]
    assert sum(not r.differs for r in equal) >= 19


def test_twice_as_fast():
    """Of 20 comparisons of 10 rounds at least 19 find that one arm holds twice as much."""
    assert sum(found(2, 10, seed=s).differs for s in range(20)) >= 19


def test_many_rounds_find_a_fifth():
    """With 40 rounds 20 % more are found."""
    assert sum(found(1.2, 40, scatter=0.05, seed=s).differs for s in range(5)) >= 4


def test_interval_holds_the_ratio():
    """Of 20 intervals at least 18 hold the true ratio."""
    ratios = [found(2, 10, seed=s) for s in range(20)]
    assert sum(r.low <= 2 <= r.high for r in ratios) >= 18


def test_the_capacities_are_divided():
    """The ratio is that of the two capacities as they are reported."""
    ours, theirs = turns(2, 8)
    both = ratio(ours, GUESS, theirs, GUESS)
    assert both.ratio == pytest.approx(estimate(ours, GUESS).rps / estimate(theirs, GUESS).rps)
    assert both.low <= both.ratio <= both.high


def test_the_other_way_round():
    """Theirs to ours is the inverse of ours to theirs."""
    ours, theirs = turns(1.5, 8)
    there, back = ratio(ours, GUESS, theirs, GUESS), ratio(theirs, GUESS, ours, GUESS)
    assert back.ratio == pytest.approx(1 / there.ratio)
    assert back.low == pytest.approx(1 / there.high, rel=0.02)
    assert back.high == pytest.approx(1 / there.low, rel=0.02)


def test_rounds_are_paired():
    """What slows both arms in the same rounds does not widen the interval as it does unpaired."""
    ours, theirs = turns(1, 40, scatter=0.03, drift=0.4)
    unpaired = [Trial(t.rate_rps, t.held, t.round + 1000) for t in theirs]
    paired, apart = ratio(ours, GUESS, theirs, GUESS), ratio(ours, GUESS, unpaired, GUESS)
    assert math.log(paired.high / paired.low) < 0.9 * math.log(apart.high / apart.low)


def test_a_lack_of_levels():
    """Rounds in which an arm has no level, as the generator was the limit, are no error."""
    ours, theirs = turns(2, 12)
    both = ratio(ours[2:], GUESS, [*theirs[:5], *theirs[7:]], GUESS)
    assert both.low < 2 < both.high


def test_several_levels_in_a_round():
    """A round may have two levels of an arm, one of them at a rate that the user wants."""
    ours, theirs = turns(2, 12)
    more = [Trial(200, True, number) for number in range(12)]
    both = ratio([*ours, *more], GUESS, [*theirs, *more], GUESS)
    assert both.low < 2 < both.high


def test_thousands_of_levels():
    """Many levels, all said to be of one round, are no error."""
    ours, theirs = turns(1.5, 10)
    flat = [[Trial(t.rate_rps, t.held, 0) for t in arm] * 100 for arm in (ours, theirs)]
    both = ratio(flat[0], GUESS, flat[1], GUESS)
    assert 0 < both.low < both.high < math.inf


def test_deterministic():
    """The same levels give the same ratio."""
    ours, theirs = turns(1.2, 8)
    assert ratio(ours, GUESS, theirs, GUESS) == ratio(ours, GUESS, theirs, GUESS)


HELD = [Trial(rate, True, i) for i, rate in enumerate((400, 1000, 2500, 4000))]
FAILED = [Trial(rate, False, i) for i, rate in enumerate((400, 170, 70, 30, 20, 14, 14))]


def test_theirs_holds_nothing():
    """Against an arm that holds nothing there is no ratio, but a low end, and they differ."""
    both = ratio(turns(1, 8)[0], GUESS, FAILED, GUESS)
    assert (both.ratio, both.high, both.differs) == (None, None, True)
    assert both.low > 5


def test_ours_holds_nothing():
    """An arm that holds nothing is 0 times the other, and they differ."""
    both = ratio(FAILED, GUESS, turns(1, 8)[0], GUESS)
    assert (both.ratio, both.low, both.differs) == (0, 0, True)
    assert both.high < 0.2


def test_one_lucky_level():
    """An arm that held once by luck and else nothing holds nothing, and the ratio is a bound."""
    lucky = [*FAILED, *FAILED, Trial(14, True, 20), *(Trial(13.5, False, i) for i in range(20))]
    assert estimate(lucky, GUESS).rps == 0
    assert ratio(turns(1, 8)[0], GUESS, lucky, GUESS).ratio is None


def test_neither_holds_anything():
    """Two arms that hold nothing are no different."""
    assert ratio(FAILED, GUESS, FAILED, GUESS) == Ratio(None, 0, None)
    assert not ratio(FAILED, GUESS, FAILED, GUESS).differs


def test_ours_has_no_upper_end():
    """Of an arm of which nothing failed there is a low end of the ratio only."""
    both = ratio(HELD, GUESS, turns(1, 8)[0], GUESS)
    assert (both.ratio, both.high, both.differs) == (None, None, True)
    assert both.low > 2


def test_theirs_has_no_upper_end():
    """Against an arm of which nothing failed there is a high end only."""
    both = ratio(turns(1, 8)[0], GUESS, HELD, GUESS)
    assert (both.ratio, both.low, both.differs) == (None, 0, True)
    assert both.high < 0.5


def test_neither_has_an_upper_end():
    """Two arms of which nothing failed are no different."""
    assert not ratio(HELD, GUESS, HELD, GUESS).differs


@pytest.mark.parametrize("ours", [[], HELD, FAILED, HELD[:1], FAILED[:1], HELD[:1] + FAILED[:1]])
@pytest.mark.parametrize("theirs", [[], HELD, FAILED, HELD[:1], HELD[:1] + FAILED[:1] * 12])
def test_json(ours, theirs):
    """Whatever the levels showed, the ratio can be written as JSON, and its ends are in order."""
    both = ratio(ours, GUESS, theirs, GUESS)
    assert json.dumps(asdict(both), allow_nan=False)
    assert both.low <= (both.ratio if both.ratio is not None else both.low)
    assert both.high is None or both.low <= both.high


def test_ratio_of_two_runs():
    """The ends' distances, as logarithms, add up as the sides of a right angle."""
    both = ratio_of(Capacity(200, 100, 400), Capacity(100, 50, 200))
    side = math.sqrt(2)
    assert both.ratio == 2
    assert both.low == pytest.approx(2 / 2**side)
    assert both.high == pytest.approx(2 * 2**side)


def test_ratio_of_one_sided_errors():
    """A low end comes from the low end now and the high end before, and not from the others."""
    both = ratio_of(Capacity(100, 80, 100), Capacity(100, 100, 100))
    assert (both.low, both.high) == (pytest.approx(0.8), pytest.approx(1))


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (Capacity(0, 0, 10), Capacity(100, 80, 120), Ratio(0, 0, 0.125)),
        (Capacity(100, 80, 120), Capacity(0, 0, 10), Ratio(None, 8, None)),
        (Capacity(0, 0, 10), Capacity(0, 0, 10), Ratio(None, 0, None)),
        (Capacity(100, 80, None), Capacity(50, 40, 80), Ratio(None, 1, None)),
        (Capacity(100, 80, 120), Capacity(50, 40, None), Ratio(None, 0, 3)),
        (Capacity(100, 80, None), Capacity(50, 40, None), Ratio(None, 0, None)),
        (Capacity(0, 0, 10), Capacity(50, 40, None), Ratio(None, 0, 0.25)),
        (Capacity(100, 80, 120), Capacity(60, 0, 120), Ratio(100 / 60, None, None)),
    ],
)
def test_ratio_of_bounds(now, before, expected):
    """Capacities that are bounds make ratios that are bounds."""
    both = ratio_of(now, before)
    assert (both.ratio, both.high) == (expected.ratio, expected.high)
    assert expected.low is None or both.low == expected.low


@pytest.mark.parametrize(
    ("interval", "differs"),
    [
        ((0.9, 1.1), False),
        ((1.01, 1.1), True),
        ((0.8, 0.99), True),
        ((1.0, 1.2), False),
        ((0.8, 1.0), False),
        ((0.5, None), False),
        ((1.5, None), True),
    ],
)
def test_differs(interval, differs):
    """Two arms differ if the interval does not hold 1."""
    assert Ratio(1.0, *interval).differs is differs
