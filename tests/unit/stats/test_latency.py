"""From samples to numbers: what is counted, since when, and how percentiles are taken."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonkit.samples import NOT_SENT, Sample
from tritonkit.stats.latency import LevelStats, percentile, summarise

MS = 1_000_000


def sample(intended_ms: float, took_ms: float, *, late_ms: float = 0, error: str = "") -> Sample:
    """A request that was answered took_ms after it was intended, and sent late_ms late."""
    intended, done = int(intended_ms * MS), int((intended_ms + took_ms) * MS)
    return Sample(intended, intended + int(late_ms * MS), done, 0, error)


def closed(samples, duration_s=1.0) -> LevelStats:
    """The numbers of a closed loop."""
    return summarise(samples, duration_s=duration_s, open_loop=False)


def opened(samples, duration_s=1.0) -> LevelStats:
    """The numbers of an open loop."""
    return summarise(samples, duration_s=duration_s, open_loop=True)


both = pytest.mark.parametrize("count", [closed, opened])


def at_a_rate(latencies_ms) -> list[Sample]:
    """Requests at one a millisecond, that take so long."""
    return [sample(i, float(took)) for i, took in enumerate(latencies_ms)]


def light(n, seed=0):
    """Latencies of about 5 ms, that do not depend on each other."""
    return np.random.default_rng(seed).lognormal(np.log(5), 0.2, n)


def test_percentiles():
    """Of 100 requests of 1 to 100 ms the percentiles are 50, 90, 99 and 100 ms."""
    stats = closed([sample(i, 100 - i) for i in range(100)])
    assert (stats.p50_ms, stats.p90_ms, stats.p99_ms, stats.max_ms) == (50, 90, 99, 100)
    assert stats.mean_ms == 50.5


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=300),
    st.sampled_from([1, 50, 90, 99, 99.9, 100]),
)
def test_nearest_rank(values, q):
    """A percentile is a value that occurred, and the smallest that q % do not exceed."""
    found = percentile(np.array(values), q)
    assert found in values
    assert sum(v <= found for v in values) >= q / 100 * len(values) - 1e-9
    assert sum(v < found for v in values) < q / 100 * len(values) + 1e-9


def test_percentile_of_nothing():
    """Nothing has no percentile."""
    assert percentile(np.array([]), 99) is None


@both
def test_latency_from_intended(count):
    """Latency counts from when a request should have been sent, not from when it was."""
    assert count([sample(0, 30, late_ms=20)]).p50_ms == 30


@both
def test_service_from_sent(count):
    """Service latency counts from when it was."""
    stats = count([sample(0, 30, late_ms=20)])
    assert (stats.service_p50_ms, stats.service_p99_ms) == (10, 10)


def test_closed_window():
    """A closed loop counts what was answered in the window, whenever it was sent."""
    samples = [sample(0, 0), sample(100, 500), sample(900, 99), sample(500, 500)]
    stats = closed(samples, 1)
    assert (stats.requests, stats.achieved_rps, stats.duration_s) == (3, 3, 1)


def test_open_window():
    """An open loop counts what was intended in the window, whenever it was answered."""
    stats = opened([sample(0, 10), sample(999, 11), sample(1000, 1)], 1)
    assert (stats.requests, stats.max_ms) == (2, 11)


def test_open_duration():
    """An open loop lasts until its last answer is in, so that a backlog lowers the rate."""
    samples = [sample(i * 100, 10) for i in range(9)] + [sample(900, 1100)]
    stats = opened(samples)
    assert (stats.duration_s, stats.achieved_rps) == (2, 5)


def test_hung_request_does_not_lengthen():
    """Nor until the timeout of a request that was never answered: the rate is of the others."""
    samples = [sample(i * 100, 10) for i in range(9)] + [sample(900, 30_000, error="timeout")]
    stats = opened(samples)
    assert (stats.duration_s, stats.achieved_rps, stats.errors) == (1, 9, 1)
    late = opened([*samples, sample(950, 1050)])
    assert (late.duration_s, late.achieved_rps) == (2, 5)


def test_quick_open_duration():
    """An open loop lasts no shorter than its window."""
    stats = opened([sample(0, 1)], duration_s=4)
    assert (stats.duration_s, stats.achieved_rps) == (4, 0.25)


@both
def test_errors(count):
    """Failed requests are counted by kind, and count neither for the rate nor for latency."""
    samples = [
        sample(0, 10),
        sample(1, 20),
        sample(2, 900, error="timeout"),
        sample(3, 1, error="http_503"),
        sample(4, 1, error="http_503"),
    ]
    stats = count(samples)
    assert (stats.requests, stats.errors) == (5, 3)
    assert stats.error_kinds == {"timeout": 1, "http_503": 2}
    assert (stats.achieved_rps, stats.max_ms, stats.service_p99_ms) == (2, 20, 20)


def test_not_sent():
    """An arrival whose turn never came is an error of an open loop, and counted by itself."""
    stats = opened([sample(0, 10), sample(500, 0, error=NOT_SENT), sample(600, 9, error="timeout")])
    assert (stats.requests, stats.errors, stats.not_sent) == (3, 2, 1)
    assert stats.error_kinds == {NOT_SENT: 1, "timeout": 1}


@pytest.mark.parametrize("samples", [[], [sample(0, 5, error="refused")]])
@both
def test_no_success(count, samples):
    """If nothing succeeded there is no latency, the rate is 0, and nothing is sure."""
    stats = count(samples)
    assert (stats.p50_ms, stats.p90_ms, stats.p99_ms, stats.max_ms, stats.mean_ms) == (None,) * 5
    assert (stats.service_p50_ms, stats.service_p99_ms) == (None, None)
    assert (stats.p50_interval_ms, stats.p99_interval_ms) == (None, None)
    assert (stats.achieved_rps, stats.errors) == (0, len(samples))
    assert (stats.p99_enough, stats.p99_needs) == (False, 662)


def test_lateness():
    """Lateness is the 99th percentile of how late requests were sent, in an open loop only."""
    samples = [sample(i * 5, 200, late_ms=i) for i in range(1, 101)]
    assert opened(samples).lateness_p99_ms == 99
    assert closed(samples).lateness_p99_ms is None


def test_put_off():
    """What waited for a connection was sent late, and by the server's doing."""
    samples = [sample(i, 9, late_ms=5) for i in range(4)]
    samples[2] = samples[2]._replace(put_off_ns=samples[2].intended_ns + 200_000)
    stats = opened([samples[2]] * 3)
    assert (stats.late, stats.no_connection, stats.lateness_p99_ms) == (3, 3, 0.2)
    assert opened(samples).lateness_p99_ms == 5


def test_late():
    """Requests sent more than a millisecond after their intended start are late."""
    samples = [sample(i, 9, late_ms=late) for i, late in enumerate((0, 1, 1.001, 5))]
    assert opened(samples).late == 2
    assert closed(samples).late == 0


def test_lateness_of_failures():
    """Failed requests count for lateness: the generator was late for them too."""
    stats = opened([sample(0, 9, late_ms=8, error="timeout")])
    assert (stats.lateness_p99_ms, stats.late) == (8, 1)


def test_lateness_of_nothing():
    """An open loop that sent nothing was not late."""
    assert opened([]).lateness_p99_ms is None


def test_closed_loop_hung_request():
    """A request of a closed loop that fails after the window was sent in it, and counts."""
    stats = closed([sample(0, 10), sample(500, 30_000, error="timeout")])
    assert (stats.requests, stats.errors) == (2, 1)


def slow_start(n=1000):
    """A level of a second whose first 100 requests take four times as long."""
    latencies = light(n)
    latencies[:100] *= 4
    return at_a_rate(latencies)


@both
def test_warm_up(count):
    """A slow start is left out: of the requests, the latencies, and the time."""
    samples = slow_start()
    stats = count(samples)
    assert stats.warmup_s == pytest.approx(0.1, abs=0.03)
    assert stats.requests == pytest.approx(900, abs=30)
    assert stats.max_ms < 12
    assert stats.duration_s == pytest.approx(1 - stats.warmup_s, abs=0.01)
    assert stats.achieved_rps == pytest.approx(1000, rel=0.02)
    assert stats.steady


def test_what_is_counted_adds_up():
    """The warm-up ends where the first request that counts starts, or in a closed loop ends."""
    samples = slow_start()
    stats = opened(samples)
    assert stats.requests == sum(s.intended_ns >= round(stats.warmup_s * 1e9) for s in samples)
    stats = closed(samples)
    since, until = round(stats.warmup_s * 1e9), 10**9
    assert stats.requests == sum(since <= s.done_ns < until for s in samples)


def test_start_that_was_asked_for():
    """Where the load itself changes, a start unlike the rest counts, and is said to be steady."""
    samples = slow_start()
    stats = summarise(samples, duration_s=1.0, open_loop=True, stationary=False)
    assert (stats.warmup_s, stats.requests, stats.duration_s) == (
        0,
        1000,
        pytest.approx(1, rel=0.05),
    )
    assert stats.max_ms > 20
    assert stats.steady


def test_overload_under_a_load_that_changes():
    """It drifts all the same if latency rises all through."""
    stats = summarise(overload(), duration_s=1.0, open_loop=True, stationary=False)
    assert stats.unsteady_because.startswith("latency rose from 2")


@both
def test_no_warm_up(count):
    """A level that starts as it goes on is counted whole."""
    assert count(at_a_rate(np.tile([4.0, 5.0, 6.0, 7.0], 250))).warmup_s == 0


@both
def test_errors_of_the_warm_up(count):
    """An error is not cut away with the warm-up."""
    samples = slow_start()
    failed = [s._replace(error="timeout") for s in samples[:3]]
    stats = count([*failed, *samples])
    assert stats.warmup_s > 0.05
    assert (stats.errors, stats.error_kinds) == (3, {"timeout": 3})
    assert stats.requests == count(samples).requests + 3


def test_warm_up_that_is_late():
    """How late the generator was in the warm-up does not matter: nothing was counted there."""
    samples = [
        s._replace(sent_ns=s.sent_ns + (3 * MS if i < 50 else 0))
        for i, s in enumerate(slow_start())
    ]
    stats = opened(samples)
    assert (stats.late, stats.lateness_p99_ms) == (0, 0)


@both
def test_stall_shows(count):
    """A server that stops for a tenth of the level is in its p99, its mean and its max."""
    at = np.arange(1000)
    waits = np.where((at >= 400) & (at < 500), 500 - at, 0)
    stats = count(at_a_rate(light(1000) + waits))
    assert stats.p99_ms > 85
    assert stats.max_ms > 100
    assert stats.warmup_s < 0.05
    assert stats.steady


def overload(n=1000):
    """Requests that find the server ever further behind."""
    return at_a_rate(light(n) + np.arange(n) * 0.1)


def test_overload():
    """An overloaded open loop is unsteady, says so, and none of it is cut."""
    stats = opened(overload())
    assert not stats.steady
    assert stats.unsteady_because.startswith("latency rose from 2")
    assert stats.warmup_s == 0


def test_what_does_not_settle_has_no_warm_up():
    """A level that drifts even after its slow start is counted whole."""
    samples = slow_start(3000)
    drifting = [s._replace(done_ns=s.done_ns + i * 10_000) for i, s in enumerate(samples)]
    assert opened(samples, 3).warmup_s > 0
    stats = opened(drifting, 3)
    assert (stats.steady, stats.warmup_s, stats.requests) == (False, 0, 3000)


@both
def test_steady(count):
    """A level that goes on as it is, is steady and has nothing to say."""
    stats = count(at_a_rate(light(1000)))
    assert (stats.steady, stats.unsteady_because) == (True, "")


def test_closed_loop_that_loses_throughput():
    """A closed loop that answers ever less is unsteady."""
    at_ms = np.cumsum(np.linspace(0.5, 1.5, 1000))
    stats = closed([sample(t, 1) for t in at_ms], at_ms[-1] / 1000)
    assert stats.unsteady_because.startswith("throughput fell from")
    assert opened([sample(t, 1) for t in at_ms], at_ms[-1] / 1000).steady


def test_open_loop_that_answers_less():
    """An open loop whose server dies halfway is unsteady, though what it answered was quick."""
    samples = [s._replace(error="refused" if i > 500 else "") for i, s in enumerate(overload())]
    quick = [s._replace(done_ns=s.intended_ns + 5 * MS) for s in samples]
    assert opened(quick + at_a_rate(light(1000))).unsteady_because.startswith("requests answered")


@both
def test_intervals(count):
    """The intervals are around their percentiles, and of a level of this length not wide."""
    stats = count(at_a_rate(light(5000)), 5.0)
    for value, (low, high) in (
        (stats.p50_ms, stats.p50_interval_ms),
        (stats.p99_ms, stats.p99_interval_ms),
    ):
        assert low < value < high
        assert high / low < 1.2
    assert stats.p99_enough
    assert 662 <= stats.p99_needs < 1500


def test_too_few_for_a_p99():
    """A short level has a p99, and says that it takes more requests to know it."""
    stats = opened(at_a_rate(light(300)))
    assert stats.p99_ms is not None
    assert (stats.p99_enough, stats.p99_interval_ms) == (False, None)
    assert stats.p99_needs >= 662


def test_dependent_requests_need_more():
    """A p99 takes more requests where each is like its neighbours, as in a queue."""
    waves = 1 + np.sin(np.arange(5000) / 30)
    samples = at_a_rate(light(5000) * waves)
    mixed = [samples[i] for i in np.random.default_rng(0).permutation(5000)]
    again = at_a_rate([(s.done_ns - s.intended_ns) / MS for s in mixed])
    dependent, independent = opened(samples, 5), opened(again, 5)
    assert dependent.max_ms == independent.max_ms
    assert dependent.p99_needs > 5 * independent.p99_needs
    assert (dependent.p99_enough, independent.p99_enough) == (False, True)


@both
def test_order_does_not_matter(count):
    """Samples of several processes may come in any order."""
    samples = slow_start()
    mixed = [samples[i] for i in np.random.default_rng(1).permutation(len(samples))]
    expected, found = count(samples), count(mixed)
    assert replace(found, mean_ms=expected.mean_ms) == expected
    assert found.mean_ms == pytest.approx(expected.mean_ms)


@given(
    st.lists(
        st.builds(
            Sample,
            st.integers(-(10**7), 2 * 10**9),
            st.integers(0, 2 * 10**9),
            st.integers(0, 4 * 10**9),
            st.just(0),
            st.sampled_from(["", "", "timeout", NOT_SENT]),
        ),
        max_size=40,
    ),
    st.integers(1, 40),
    st.booleans(),
)
def test_any_samples(samples, times, open_loop):
    """Whatever the samples, the numbers can be written down, and fit each other."""
    stats = summarise(samples * times, duration_s=1.5, open_loop=open_loop)
    json.dumps(asdict(stats), allow_nan=False)
    assert 0 <= stats.not_sent <= stats.errors <= stats.requests
    assert stats.errors == sum(stats.error_kinds.values())
    assert stats.steady == (stats.unsteady_because == "")
    assert (stats.p50_ms is None) == (stats.requests == stats.errors)
