"""Trends of a soak: leaks are found, and what only looks like one is not."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonkit.stats.trend import LEAST_POINTS, trend

N = 300
AT = np.arange(N) / N
EVERY_S = 2.0


def of(series):
    """The trend of values taken every two seconds."""
    return trend(EVERY_S * np.arange(len(series)), series)


def noise(seed=0, sd=1.0, n=N):
    return np.random.default_rng(seed).normal(0, sd, n)


def share(series, seeds=50):
    """The shares of noisy runs said to rise, and to fall."""
    found = [of(series + noise(seed)) for seed in range(seeds)]
    return np.mean([t.rises for t in found]), np.mean([t.falls for t in found])


def test_leak():
    """Memory that grows by 3 % over the run is found through noise of 1 %."""
    rises, falls = share(100 + 3 * AT)
    assert rises >= 0.95
    assert falls == 0


def test_fall():
    """So is a throughput that falls by as much."""
    rises, falls = share(100 - 3 * AT)
    assert rises == 0
    assert falls >= 0.95


def test_noise():
    """Noise does not trend."""
    assert share(np.full(N, 100.0)) == (0, 0)


def test_wild_noise():
    """Nor does noise of 30 %, as of a p99."""
    found = [of(np.random.default_rng(seed).lognormal(0, 0.3, N)) for seed in range(100)]
    assert sum(t.rises or t.falls for t in found) <= 2


def test_dependent_noise():
    """Nor does noise that is much like its neighbours, which an uncorrected test takes for one."""
    kept = 0.9 ** np.arange(100)
    found = [of(100 + np.convolve(noise(s, 1, N + 99), kept, "valid")) for s in range(100)]
    assert sum(t.rises or t.falls for t in found) <= 5


@pytest.mark.parametrize("at", [0.03, 0.1, 0.3, 0.5, 0.8])
def test_step(at):
    """Memory that is taken once, early or late, and then no more, is no leak."""
    assert share(100 + 10.0 * (at < AT)) == (0, 0)


@pytest.mark.parametrize("fades", [0.05, 0.1, 0.15])
def test_saturation(fades):
    """Nor is memory that is taken less and less."""
    assert share(120 - 20 * np.exp(-AT / fades))[0] <= 0.05


@pytest.mark.parametrize("teeth", [2, 3, 4.5, 7.3, 20])
def test_saw(teeth):
    """Nor is memory that is given back each time."""
    assert share(100 + 20 * ((AT * teeth) % 1)) == (0, 0)


def test_leak_on_a_saw():
    """A leak under garbage that is collected is found."""
    assert share(100 + 10 * AT + 20 * ((AT * 6) % 1)) == (1, 0)


def test_leak_after_a_step():
    """A leak is found behind what is taken at the start."""
    assert share(100 + 6 * AT + 30 * (AT > 0.05)) == (1, 0)


def test_late_leak():
    """A leak that begins when a third of the run is over is found."""
    assert share(100 + 10 * np.maximum(0, AT - 1 / 3)) == (1, 0)


def test_leak_that_ends():
    """One that ends in the first half is over and done."""
    rises, falls = share(100 + 10 * np.minimum(AT, 0.4))
    assert rises <= 0.05
    assert falls == 0


def test_leak_in_steps():
    """A leak that shows in steps, as memory comes in pages, is found."""
    assert share(100 + np.floor(AT * 10)) == (1, 0)


def test_too_small():
    """A rise of 1 %, however sure, does not matter, unless it is said to."""
    series = 100 + AT + noise(sd=0.01)
    assert not of(series).rises
    assert trend(EVERY_S * np.arange(N), series, matters=0.005).rises


def test_figures():
    """Slope, change and share of a straight line are what they are."""
    t = of(np.linspace(90, 110, 101))
    assert t.slope_per_s == pytest.approx(0.1)
    assert (t.points, t.change, t.relative) == (101, pytest.approx(20), pytest.approx(0.2))


def test_slope_interval():
    """The interval of the slope holds the true one 19 times of 20, and is not all there is."""
    found = [of(100 + 3 * AT + noise(seed)) for seed in range(200)]
    true = 3 / (N * EVERY_S)
    assert np.mean([t.slope_low_per_s <= true <= t.slope_high_per_s for t in found]) >= 0.93
    assert np.mean([t.slope_low_per_s > 0 for t in found]) > 0.95


def test_outliers():
    """A few wild values move neither slope nor finding."""
    series = 100 + noise()
    series[::29] = 1e6
    assert not of(series).rises
    assert abs(of(series).relative) < 0.02


@pytest.mark.parametrize("gap", [None, float("nan"), float("inf")])
def test_gaps(gap):
    """Gaps are left out."""
    series = list(100 + 10 * AT)
    series[::3] = [gap] * len(series[::3])
    t = of(series)
    assert (t.points, t.rises) == (200, True)
    assert t.relative == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("value", [0, 5, 5e9])
def test_constant(value):
    """What does not change does not trend."""
    t = of([value] * N)
    assert (t.slope_per_s, t.relative, t.rises, t.falls) == (0, 0, False, False)


def test_from_zero():
    """What grows from nothing has a share too."""
    t = of(np.maximum(0, np.arange(N) - N / 2))
    assert t.change > 0
    assert t.relative > 0


@pytest.mark.parametrize(
    "n, found", [(0, False), (1, False), (LEAST_POINTS - 1, False), (LEAST_POINTS, True)]
)
def test_few_points(n, found):
    """A few points have no slope and raise no alarm."""
    t = of(np.arange(n) + 10.0)
    assert (t.slope_per_s is not None, t.rises) == (found, found)


def test_same_times():
    """Values at one time are one point: there is no slope over no time."""
    assert trend([7.0] * 50, list(range(50))).points == 1


def test_unordered():
    """The order in which the points are given does not matter."""
    order = np.random.default_rng(0).permutation(N)
    series = 100 + 5 * AT + noise()
    assert trend(order * EVERY_S, series[order]) == of(series)


def test_long_series():
    """A day of points each second is judged all the same."""
    n = 86_400
    assert of(100 + 3 * np.arange(n) / n + noise(n=n, sd=5)).rises


@given(
    st.lists(
        st.one_of(st.none(), st.floats(-1e12, 1e12), st.integers(-3, 3).map(float)), max_size=60
    )
)
def test_any_series(series):
    """Whatever the series, there is an answer that can be written down, and never two at once."""
    t = of(series)
    json.dumps(asdict(t), allow_nan=False)
    assert not (t.rises and t.falls)
