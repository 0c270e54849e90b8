"""Warm-up and drift: what is cut, what must not be, and which levels are called unsteady."""

import numpy as np
import pytest

from tritonkit.stats.steady import (
    LEAST_TO_DRIFT,
    LEAST_TO_SETTLE,
    answered_drift,
    got_better,
    latency_drift,
    settle,
    throughput_drift,
    warm_up,
)

N = 2500
AT = np.arange(N) / N


def light(seed=0, n=N):
    """Latencies of about 1 ms that do not depend on each other."""
    return np.random.default_rng(seed).lognormal(0, 0.3, n)


def queue(seed, n, load, variation=1.0, burn_in=3000):
    """Latencies in an M/G/1 queue, as lognormal service times of 1 ms make them."""
    rng = np.random.default_rng(seed)
    n += burn_in
    spread = np.log1p(variation**2)
    service = rng.lognormal(-spread / 2, np.sqrt(spread), n)
    gaps = rng.exponential(1 / load, n)
    walk = np.concatenate(([0.0], np.cumsum(service[:-1] - gaps[1:])))
    return (walk - np.minimum.accumulate(walk) + service)[burn_in:]


def stall(begin, end):
    """What an open loop's requests wait for a server that stops for a part of the level."""
    return np.where((begin <= AT) & (end > AT), (end - AT) * N, 0)


@pytest.mark.parametrize("factor", [3, 1 / 3])
def test_start_is_cut(factor):
    """A first tenth that is slower, or quicker, than the rest is warm-up, and no more is."""
    assert warm_up(light() * np.where(AT < 0.1, factor, 1)) == pytest.approx(0.1 * N, abs=0.02 * N)


def test_start_of_some_is_cut():
    """So is a first tenth in which only every fourth request is slow."""
    slow = (AT < 0.1) & (np.arange(N) % 4 == 0)
    assert warm_up(light() * np.where(slow, 5, 1)) == pytest.approx(0.1 * N, abs=0.02 * N)


def test_decay_is_cut():
    """A start that fades is cut until little of it is left."""
    fading = 4 * np.exp(-AT / 0.05)
    cut = warm_up(light() * (1 + fading))
    assert 0.12 * N < cut < 0.22 * N
    assert fading[cut] < 0.4


def test_no_start():
    """Of levels without a warm-up less than 1 % is cut."""
    assert np.mean([warm_up(light(seed)) for seed in range(100)]) < 0.01 * N


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_no_start_in_a_queue(load):
    """Nor more of a queue's, whose neighbours are alike."""
    assert np.mean([warm_up(queue(seed, N, load)) for seed in range(100)]) < 0.01 * N


@pytest.mark.parametrize("begin", [0.05, 0.1, 0.2, 0.4, 0.7])
def test_stall_is_not_cut(begin):
    """A server that stops for a twentieth of the level, early or late, is no warm-up."""
    assert warm_up(light() + stall(begin, begin + 0.05)) == 0


def test_stall_after_the_start():
    """A warm-up is cut without the stall that comes later."""
    cut = warm_up(light() * np.where(AT < 0.1, 3, 1) + stall(0.3, 0.4))
    assert cut == pytest.approx(0.1 * N, abs=0.02 * N)


@pytest.mark.parametrize("factor", [1 / 3, 3])
def test_other_side_is_not_cut(factor):
    """What lies on the other side of the level than its first batch is no part of its warm-up: a
    stall right after a quick start stays in, and so do quick answers after a slow one.
    """
    first, then = AT < 0.02, (AT >= 0.02) & (AT < 0.1)
    cut = warm_up(light() * np.where(first, factor, np.where(then, 1 / factor, 1)))
    assert cut == pytest.approx(0.02 * N)


@pytest.mark.parametrize("last", [5, 1 / 5])
def test_what_never_settles_is_not_cut(last):
    """A latency that grows, or falls, all through has no warm-up: nothing is cut from it."""
    assert warm_up(np.linspace(1, last, N) * (1 + light() / 100)) == 0


def test_half_is_too_much():
    """A start that lasts into the second half is no warm-up."""
    assert warm_up(light() * np.where(AT < 0.52, 5, 1)) == 0
    assert warm_up(light() * np.where(AT < 0.45, 5, 1)) > 0.4 * N


def test_settle():
    """A level with a slow start settles without it, and is steady."""
    first, drift = settle(light() * np.where(AT < 0.4, 3, 1))
    assert first == pytest.approx(0.4 * N, abs=0.02 * N)
    assert drift == ""


def test_settle_never():
    """A level that drifts after its slow start has no warm-up, and is unsteady."""
    values = light() * np.where(AT < 0.1, 5, np.where(AT < 0.6, 1, 1.6))
    assert warm_up(values) > 0
    first, drift = settle(values)
    assert first == 0
    assert "rose" in drift


def test_overload_is_not_cut():
    """Overload is found, and nothing is cut from it, even where its start could be."""
    found = [settle(queue(seed, LEAST_TO_DRIFT, 1.3, 1, 0)) for seed in range(40)]
    assert any(warm_up(queue(seed, LEAST_TO_DRIFT, 1.3, 1, 0)) for seed in range(40))
    assert sum("rose" in drift for _, drift in found) >= 38
    assert all(first == 0 for first, drift in found if drift)


@pytest.mark.parametrize("burn_in", [0, 3000])
def test_steady_queue_settles(burn_in):
    """A queue at 80 % load is steady in at least 95 of 100 levels, its start cut or not."""
    alarms = [settle(queue(seed, 1000, 0.8, 1, burn_in))[1] for seed in range(200)]
    assert sum(map(bool, alarms)) <= 10


@pytest.mark.parametrize("n, cut", [(LEAST_TO_SETTLE - 1, False), (LEAST_TO_SETTLE, True)])
def test_too_few_to_settle(n, cut):
    """Of a few requests none are cut."""
    values = light(0, n)
    values[: n // 10] *= 10
    assert bool(warm_up(values)) is cut


@pytest.mark.parametrize("values", [np.array([]), np.zeros(N), np.ones(N)])
def test_nothing_to_settle(values):
    """Nothing, and latencies that are all the same, have neither warm-up nor drift."""
    assert warm_up(values) == 0
    assert latency_drift(values) == ""


@pytest.mark.parametrize("variation", [0.3, 1])
@pytest.mark.parametrize("burn_in", [0, 3000])
def test_steady_queue(variation, burn_in):
    """A queue at 80 % load is called steady in at least 95 of 100 levels, short ones too."""
    for n in (LEAST_TO_DRIFT, 2500):
        alarms = [latency_drift(queue(seed, n, 0.8, variation, burn_in)) for seed in range(200)]
        assert sum(map(bool, alarms)) <= 10


@pytest.mark.parametrize("variation", [0.3, 1])
def test_overload(variation):
    """A queue at 110 % load is found in at least 19 of 20 levels."""
    found = [latency_drift(queue(seed, 5000, 1.1, variation, 0)) for seed in range(20)]
    assert sum("rose" in drift for drift in found) >= 19


def test_overload_says_how_much():
    """The reason has the medians of the first and the last third."""
    drift = latency_drift(np.linspace(0, 3000, 3001))
    assert drift == "latency rose from 500 to 2,500 ms (medians of the first and the last third)"


@pytest.mark.parametrize("at", [0.4, 0.5, 0.65])
def test_step(at):
    """A latency that is half as much again from some moment on is not steady."""
    assert "rose from" in latency_drift(light() * np.where(at < AT, 1.5, 1))


def test_fall():
    """Nor is one that keeps falling."""
    assert "fell from" in latency_drift(light() * (2 - AT))


def test_small_drift():
    """A tenth more is no drift that matters, however sure it is."""
    assert latency_drift(1 + 0.1 * AT) == ""
    assert latency_drift(1 + 0.5 * AT)


@pytest.mark.parametrize("begin", [0.1, 0.45, 0.8, 0.9])
def test_stall_is_no_drift(begin):
    """A stall, wherever it is, is not a drift; it shows in the percentiles."""
    assert latency_drift(light() + stall(begin, begin + 0.08)) == ""


def test_bursts_are_no_drift():
    """A latency that goes up and down with bursts of load is steady."""
    assert latency_drift(light() * (3 + np.sin(AT * 2 * np.pi * 5))) == ""


def test_more_slow_ones_are_no_drift():
    """While as many quick answers as ever come, a queue keeps up."""
    slow = np.random.default_rng(0).random(N) < 0.2 + 0.6 * AT
    assert latency_drift(np.where(slow, 10.0, 1.0) * light()) == ""


def test_too_few_to_drift():
    """A few requests raise no alarm."""
    values = np.linspace(1, 9, LEAST_TO_DRIFT)
    assert latency_drift(values)
    assert latency_drift(values[1:]) == ""


def answers(*rates):
    """Answers at these rates, for one second each, evenly spaced."""
    return np.concatenate([i + (np.arange(r) + 0.5) / r for i, r in enumerate(rates)])


@pytest.mark.parametrize("rates", [(600, 500, 400), (600, 600, 300), (900, 600, 0)])
def test_throughput_falls(rates):
    """A closed loop whose throughput falls is not steady."""
    first, _, last = rates
    assert throughput_drift(answers(*rates), 0, 3) == (
        f"throughput fell from {first} to {last} requests/s (first and last third)"
    )


def test_throughput_rises():
    """Nor is one whose throughput rises all through."""
    assert "rose from 400 to 600" in throughput_drift(answers(400, 500, 600), 0, 3)


def test_window_is_the_levels():
    """Windows without any answer count: they are where the server stood still."""
    assert "to 0 requests/s" in throughput_drift(answers(600, 300), 0, 3)
    assert throughput_drift(answers(600, 600), 0, 2) == ""


@pytest.mark.parametrize("rates", [(600, 600, 600), (600, 590, 580), (600, 300, 600)])
def test_throughput_is_steady(rates):
    """A steady rate, one that hardly falls and one that recovers are no drift."""
    assert throughput_drift(answers(*rates), 0, 3) == ""


def test_throughput_by_chance():
    """Answers at random raise hardly an alarm."""
    drawn = [np.random.default_rng(seed).uniform(0, 3, 600) for seed in range(200)]
    assert sum(bool(throughput_drift(done_s, 0, 3)) for done_s in drawn) <= 10


def test_few_answers():
    """Nor do a few answers."""
    assert throughput_drift(answers(300, 100, 0), 0, 3) == ""


def test_answered_falls():
    """An open loop whose requests fail more and more is not steady."""
    intended = answers(600, 600, 600)
    good = np.arange(1800) < 1000
    drift = answered_drift(intended, good, 0, 3)
    assert drift == "requests answered fell from 100 to 0 % (first and last third)"


def test_answered_evenly():
    """One whose requests fail now and then is, and its errors are counted elsewhere."""
    intended = answers(600, 600, 600)
    assert answered_drift(intended, np.arange(1800) % 5 > 0, 0, 3) == ""


def test_arrivals_may_vary():
    """How many are sent at a time does not matter while all are answered."""
    intended = answers(900, 700, 0, 300, 100)
    assert answered_drift(intended, np.ones(len(intended), bool), 0, 5) == ""
    assert throughput_drift(intended, 0, 5)


def test_what_got_better():
    """Latency that falls, throughput that rises: both are drifts, and neither is a trouble."""
    assert got_better(latency_drift(light() * (2 - AT)))
    assert not got_better(latency_drift(light() * (1 + AT)))
    assert not got_better("")
