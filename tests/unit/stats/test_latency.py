"""From samples to numbers: what is counted, since when, and how percentiles are taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonkit.samples import NOT_SENT, Sample
from tritonkit.stats.latency import LevelStats, percentile, summarise

MS = 1_000_000
S = 1000 * MS


def sample(intended_ms: float, took_ms: float, *, late_ms: float = 0, error: str = "") -> Sample:
    """A request that was answered took_ms after it was intended, and sent late_ms late."""
    intended, done = int(intended_ms * MS), int((intended_ms + took_ms) * MS)
    return Sample(intended, intended + int(late_ms * MS), done, 0, error)


def closed(samples, warmup_s=0.0, duration_s=1.0) -> LevelStats:
    """The numbers of a closed loop."""
    return summarise(samples, warmup_s=warmup_s, duration_s=duration_s, open_loop=False)


def opened(samples, warmup_s=0.0, duration_s=1.0) -> LevelStats:
    """The numbers of an open loop."""
    return summarise(samples, warmup_s=warmup_s, duration_s=duration_s, open_loop=True)


def test_percentiles():
    """Of 100 requests of 1 to 100 ms the percentiles are 50, 90, 99 and 100 ms."""
    stats = closed([sample(i, 100 - i) for i in range(100)])
    assert (stats.p50_ms, stats.p90_ms, stats.p99_ms, stats.max_ms) == (50, 90, 99, 100)


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


@pytest.mark.parametrize("count", [closed, opened])
def test_latency_from_intended(count):
    """Latency counts from when a request should have been sent, not from when it was."""
    assert count([sample(0, 30, late_ms=20)]).p50_ms == 30


def test_closed_window():
    """A closed loop counts what was answered in the window, whenever it was sent."""
    samples = [
        sample(0, 999),  # before
        sample(0, 1000),  # at the start
        sample(900, 500),
        sample(1900, 99),
        sample(1500, 500),  # at the end: out
    ]
    stats = closed(samples, warmup_s=1, duration_s=1)
    assert (stats.requests, stats.achieved_rps, stats.duration_s) == (3, 3, 1)


def test_open_window():
    """An open loop counts what was intended in the window, whenever it was answered."""
    samples = [
        sample(999, 500),  # before
        sample(1000, 10),  # at the start
        sample(1999, 11),
        sample(2000, 1),  # at the end: out
    ]
    stats = opened(samples, warmup_s=1, duration_s=1)
    assert (stats.requests, stats.max_ms) == (2, 11)


def test_open_duration():
    """An open loop lasts until its last answer is in, so that a backlog lowers the rate."""
    samples = [sample(i * 100, 10) for i in range(9)] + [sample(900, 1100)]
    stats = opened(samples)
    assert (stats.duration_s, stats.achieved_rps) == (2, 5)


def test_quick_open_duration():
    """An open loop lasts no shorter than its window."""
    stats = opened([sample(0, 1)], duration_s=4)
    assert (stats.duration_s, stats.achieved_rps) == (4, 0.25)


@pytest.mark.parametrize("count", [closed, opened])
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
    assert (stats.achieved_rps, stats.max_ms) == (2, 20)


def test_not_sent():
    """An arrival whose turn never came is an error of an open loop."""
    stats = opened([sample(0, 10), sample(500, 0, error=NOT_SENT)])
    assert (stats.requests, stats.errors, stats.error_kinds) == (2, 1, {NOT_SENT: 1})


@pytest.mark.parametrize("samples", [[], [sample(0, 5, error="refused")]])
@pytest.mark.parametrize("count", [closed, opened])
def test_no_success(count, samples):
    """If nothing succeeded there is no latency, and the rate is 0."""
    stats = count(samples)
    assert (stats.p50_ms, stats.p90_ms, stats.p99_ms, stats.max_ms) == (None,) * 4
    assert (stats.achieved_rps, stats.errors) == (0, len(samples))


def test_lateness():
    """Lateness is the 99th percentile of how late requests were sent, in an open loop only."""
    samples = [sample(i * 5, 200, late_ms=i) for i in range(1, 101)]
    assert opened(samples).lateness_p99_ms == 99
    assert closed(samples).lateness_p99_ms is None


def test_lateness_of_failures():
    """Failed requests count for lateness: the generator was late for them too."""
    assert opened([sample(0, 9, late_ms=8, error="timeout")]).lateness_p99_ms == 8


def test_lateness_of_nothing():
    """An open loop that sent nothing was not late."""
    assert opened([]).lateness_p99_ms is None


def test_closed_loop_hung_request():
    """A request of a closed loop that fails after the window was sent in it, and counts."""
    stats = closed([sample(0, 10), sample(500, 30_000, error="timeout")])
    assert (stats.requests, stats.errors) == (2, 1)
