"""The search for an arm's capacity: where it looks, what it concludes, when it has enough."""

import json
import math
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest

from tritonkit.stats.capacity import Capacity, Trial, believe, estimate, is_narrow, next_rate

INF = math.inf


def searched(holds, guess_rps, levels, **limits) -> list[Trial]:
    """A search in which the level at a rate holds if `holds` says so."""
    trials: list[Trial] = []
    for number in range(levels):
        rate = next_rate(trials, guess_rps, **limits)
        trials.append(Trial(rate, bool(holds(rate)), number))
    return trials


def up_to(capacity_rps):
    """A server that never scatters."""
    return lambda rate: rate <= capacity_rps


def scattering(capacity_rps, scatter, hiccups=0.0, seed=0):
    """A machine whose speed scatters (ln, standard deviation), and that is away now and then."""
    rng = np.random.default_rng(seed)
    return lambda rate: (
        rate <= capacity_rps * math.exp(scatter * rng.normal()) and rng.uniform() >= hiccups
    )


def after(holds, guess_rps, levels) -> Capacity:
    """What a search of so many levels concludes."""
    return estimate(searched(holds, guess_rps, levels), guess_rps)


def test_first_rate():
    """The search begins at the guess."""
    assert next_rate([], 420) == 420


@pytest.mark.parametrize("guess_rps", [123.456, 98765.4321, 1.23456])
def test_rates_are_for_people(guess_rps):
    """A rate has three significant digits at most."""
    for trial in searched(up_to(guess_rps * 0.7), guess_rps, 8):
        assert trial.rate_rps == float(f"{trial.rate_rps:.3g}")


@pytest.mark.parametrize("off", [1 / 3, 1, 3])
def test_sharp_capacity_is_found(off):
    """Of a server that never scatters 12 levels find the capacity within 8 %."""
    found = after(up_to(500), 500 * off, 12)
    assert found.rps == pytest.approx(500, rel=0.08)
    assert found.low_rps < 500 < found.high_rps


@pytest.mark.parametrize("off", [1 / 20, 20])
def test_a_guess_that_is_far_off(off):
    """A guess that is off by 20 times costs levels, but not the result."""
    assert after(up_to(500), 500 * off, 20).rps == pytest.approx(500, rel=0.15)


def test_more_levels_narrow_the_interval():
    """The interval of 40 levels is less than half as wide as that of 10."""
    trials = searched(scattering(500, 0.1), 400, 40)
    few, many = estimate(trials[:10], 400), estimate(trials, 400)
    assert math.log(many.high_rps / many.low_rps) < math.log(few.high_rps / few.low_rps) / 2


def test_scatter_widens_the_interval():
    """The interval says how much the machine scatters."""
    calm, wild = (after(scattering(500, scatter), 400, 40) for scatter in (0.02, 0.3))
    assert math.log(wild.high_rps / wild.low_rps) > 3 * math.log(calm.high_rps / calm.low_rps)


@pytest.mark.parametrize(("scatter", "hiccups"), [(0.02, 0.02), (0.1, 0.02), (0.05, 0.1)])
def test_intervals_hold_the_capacity(scatter, hiccups):
    """Of 20 searches of 12 levels at least 18 intervals hold the capacity."""
    found = [
        after(scattering(500, scatter, hiccups, seed), (200, 1200)[seed % 2], 12)
        for seed in range(20)
    ]
    assert sum(c.low_rps <= 500 <= (c.high_rps or INF) for c in found) >= 18


def test_one_hiccup_hardly_matters():
    """A level that failed far below rates that held is a hiccup."""
    trials = searched(up_to(500), 400, 12)
    lower = estimate([*trials, Trial(100, False, 12)], 400)
    assert lower.rps == pytest.approx(estimate(trials, 400).rps, rel=0.05)


def test_failures_at_a_rate_are_no_hiccups():
    """Levels that fail again and again pull the capacity down."""
    trials = searched(up_to(500), 400, 12)
    failed = [Trial(100, False, 12 + i) for i in range(12)]
    assert estimate([*trials, *failed], 400).rps < 300


def test_no_trials():
    """Without any level the capacity is about the guess, and may be far lower or higher."""
    found = estimate([], 300)
    assert found.rps == pytest.approx(300, rel=0.1)
    assert found.low_rps < 300 / 5
    assert found.high_rps is None


def test_nothing_holds():
    """A server that cannot keep the budget at a trickle is known for it after 5 levels."""
    found = after(lambda rate: False, 300, 5)
    assert (found.rps, found.low_rps) == (0, 0)
    assert found.high_rps < 300 / 10


def test_one_failure_is_not_nothing():
    """One level that fails at the guess makes the capacity lower, and not 0."""
    found = estimate([Trial(300, False, 0)], 300)
    assert 0 < found.rps < 300
    assert found.low_rps < 300 / 5


def test_a_low_capacity_is_not_nothing():
    """A server that holds a fifteenth of the guess is not said to hold nothing."""
    found = after(up_to(20), 300, 10)
    assert found.low_rps > 0
    assert found.low_rps <= 20 <= found.high_rps


@pytest.mark.parametrize("guess_rps", [0, 0.5, 10, 300])
def test_the_lowest_rate(guess_rps):
    """However long nothing holds, no rate is asked that has hardly a request a level."""
    rates = [trial.rate_rps for trial in searched(lambda rate: False, guess_rps, 30)]
    assert min(rates) >= max(guess_rps / 31, min(2, guess_rps / 3.01, 0.02))


def test_nothing_fails():
    """An arm of which nothing fails has no upper end, and at least the highest rate that held."""
    trials = searched(lambda rate: True, 300, 5)
    found = estimate(trials, 300)
    assert found.high_rps is None
    assert found.rps == max(trial.rate_rps for trial in trials)
    assert 300 < found.low_rps <= found.rps


def test_steps_upwards():
    """While everything holds the steps grow, to three times what has held and not more."""
    rates = [trial.rate_rps for trial in searched(lambda rate: True, 300, 8)]
    assert all(b <= 3.02 * a for a, b in pairwise(rates))
    assert rates[-1] > 100_000


def test_the_most_that_can_be_sent():
    """Nothing is asked above what the generator can send."""
    trials = searched(lambda rate: True, 300, 8, most_rps=1000)
    assert max(trial.rate_rps for trial in trials) == 1000
    assert next_rate([], 300, most_rps=200) == 200


def test_both_sides():
    """Where levels scatter, the search looks above the capacity as often as below it."""
    rates = [trial.rate_rps for trial in searched(scattering(500, 0.1), 500, 30)[6:]]
    assert 8 <= sum(rate > 500 for rate in rates) <= 16


def test_both_sides_beside_a_wanted_rate():
    """Levels at a rate that the user wants, between those of the search, do not make it lean."""
    holds, trials, rates = scattering(500, 0.1), [], []
    for number in range(30):
        trials.append(Trial(300, bool(holds(300)), number))
        rates.append(next_rate(trials, 500))
        trials.append(Trial(rates[-1], bool(holds(rates[-1])), number))
    assert 8 <= sum(rate > 500 for rate in rates[6:]) <= 16


def test_deterministic():
    """The same levels give the same next rate and the same capacity."""
    trials = searched(scattering(500, 0.1), 400, 9)
    assert next_rate(trials, 400) == next_rate(list(trials), 400)
    assert estimate(trials, 400) == estimate(list(trials), 400)


def test_order_does_not_matter():
    """What the levels say does not depend on when each was run."""
    trials = searched(scattering(500, 0.1), 400, 9)
    turned = estimate(trials[::-1], 400)
    assert turned.rps == pytest.approx(estimate(trials, 400).rps)


@pytest.mark.parametrize("trials", [[], [Trial(300, False, 0)], [Trial(300, True, 0)]])
def test_weights(trials):
    """The chances of everything that may be add up to 1."""
    belief = believe(trials, 300)
    assert belief.weights.sum() + belief.never == pytest.approx(1)


@pytest.mark.parametrize("holds", [lambda rate: True, lambda rate: False, up_to(500)])
def test_json(holds):
    """A capacity can be written as JSON, whatever came out."""
    assert json.dumps(asdict(after(holds, 300, 5)), allow_nan=False)


@pytest.mark.parametrize(
    ("capacity", "narrow"),
    [
        (Capacity(100, 96, 104), True),
        (Capacity(100, 94, 104), False),
        (Capacity(100, 96, 106), False),
        (Capacity(0, 0, 9), True),
        (Capacity(100, 99, None), True),
        (Capacity(100, 60, None), False),
        (Capacity(100, 0, 400), False),
    ],
)
def test_is_narrow(capacity, narrow):
    """A capacity is known well enough if both ends are within the share; 0 needs no more."""
    assert is_narrow(capacity, 0.05) is narrow


def test_search_ends():
    """A search on a calm machine ends, with the capacity in its interval."""
    holds, trials = scattering(500, 0.02, 0.02), []
    while not is_narrow(found := estimate(trials, 300), 0.05):
        trials.append(Trial(rate := next_rate(trials, 300), bool(holds(rate)), len(trials)))
        assert len(trials) < 80
    assert found.low_rps <= 500 <= found.high_rps


def test_a_guess_of_nothing():
    """A closed loop of which nothing was answered gives a guess of 0, and the search goes on."""
    assert after(up_to(50), 0, 20).rps == pytest.approx(50, rel=0.2)
