"""Whether a level counts, and whether it holds its budget."""

from dataclasses import replace

import pytest

from tritonkit.load.level import generator_bound, holds_budget
from tritonkit.stats.latency import LevelStats, summarise

NOTHING = summarise([], duration_s=1.0, open_loop=True)


def late(lateness_p99_ms: float | None, p99_ms: float | None) -> LevelStats:
    """A level with these two."""
    return replace(NOTHING, lateness_p99_ms=lateness_p99_ms, p99_ms=p99_ms)


@pytest.mark.parametrize(
    "lateness_ms, p99_ms, bound",
    [(1, 2, False), (1.1, 2, True), (1.1, 20, True), (4.9, 100, False), (5.1, 100, True)],
)
def test_late(lateness_ms, p99_ms, bound):
    """Late is more than 1 ms and more than 5 % of the p99."""
    assert generator_bound(late(lateness_ms, p99_ms), 0.1) is bound


@pytest.mark.parametrize("p99_ms", [100, 101, 5000, None])
def test_late_whatever_the_outcome(p99_ms):
    """With a budget the same lateness is too much where the level just holds, and where it fails
    by far or nothing is answered.
    """
    assert generator_bound(late(5.1, p99_ms), 0.1, 100)
    assert not generator_bound(late(4.9, p99_ms), 0.1, 100)


def test_late_for_a_quick_level():
    """Of a level well within its budget the p99 is measured, too: it is 5 % of that."""
    assert generator_bound(late(2, 20), 0.1, 100)
    assert not generator_bound(late(2, 50), 0.1, 100)


def test_short_budget():
    """1 ms is not late, however short the budget is."""
    assert not generator_bound(late(0.9, 3), 0.1, 5)


def test_late_with_no_answer():
    """Without a budget or an answer more than 1 ms is late."""
    assert generator_bound(late(1.1, None), 0.1)


@pytest.mark.parametrize("slo_p99_ms", [None, 100])
def test_busy(slo_p99_ms):
    """A generator that used a whole core was the limit, in a closed loop as well."""
    assert generator_bound(late(None, 20), 0.91, slo_p99_ms)
    assert not generator_bound(late(None, 20), 0.9, slo_p99_ms)


@pytest.mark.parametrize(
    ("because", "holds"),
    [
        ("", True),
        ("latency fell from 9 to 1 ms (medians of the first and the last third)", True),
        ("latency rose from 1 to 9 ms (medians of the first and the last third)", False),
        ("requests answered fell from 100 to 50 % (first and last third)", False),
        ("throughput rose from 100 to 150 requests/s (first and last third)", True),
    ],
)
def test_what_gets_better_leaves_no_budget(because, holds):
    """Within the budget only a drift for the worse breaks it."""
    stats = replace(NOTHING, p99_ms=10.0, errors=0, steady=not because, unsteady_because=because)
    assert holds_budget(stats, 50.0) is holds
    assert not holds_budget(stats, 9.0)


def test_a_load_that_changes_leaves_the_drift_out():
    """A ramp's latency rises because it was asked to; p99 and errors still count."""
    drifts = "latency rose from 1 to 9 ms (medians of the first and the last third)"
    stats = replace(NOTHING, p99_ms=10.0, errors=0, steady=False, unsteady_because=drifts)
    assert not holds_budget(stats, 50.0)
    assert holds_budget(stats, 50.0, stationary=False)
    assert not holds_budget(stats, 9.0, stationary=False)
