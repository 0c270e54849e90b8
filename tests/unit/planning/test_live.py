"""The staircase of live levels, and traces at another rate."""

import math

import pytest

from tritonkit.load.arrivals import POISSON, Arrival, Trace
from tritonkit.planning.live import at_rate, next_near
from tritonkit.stats.capacity import Trial, estimate


def searched(capacity_rps: float, guess_rps: float, levels: int) -> list[Trial]:
    """The search on a server that holds any rate up to its capacity."""
    trials: list[Trial] = []
    for number in range(levels):
        rate_rps = next_near(trials, guess_rps)
        trials.append(Trial(rate_rps, rate_rps <= capacity_rps, number))
    return trials


def test_it_begins_at_the_guess():
    """A prediction is a good place to begin."""
    assert next_near([], 1234.5) == 1230.0


@pytest.mark.parametrize("off", [0.6, 0.8, 0.95, 1.05, 1.2, 1.5])
def test_it_closes_in(off):
    """Within eight levels rates on both sides of the capacity are near it."""
    trials = searched(1000.0, off * 1000.0, 8)
    held = max(t.rate_rps for t in trials if t.held)
    failed = min(t.rate_rps for t in trials if not t.held)
    assert 0.85 < held / 1000 <= 1 < failed / 1000 < 1.15


@pytest.mark.parametrize("off", [0.7, 1.0, 1.3])
def test_what_it_finds_is_the_capacity(off):
    """The estimate from eight levels is within 10 %."""
    found = estimate(searched(1000.0, off * 1000.0, 8), off * 1000.0)
    assert found.rps == pytest.approx(1000.0, rel=0.1)


def test_a_trace_at_another_rate():
    """All gaps shrink alike, and the payloads stay."""
    trace = Trace("t.jsonl", (Arrival(0.1, 3), Arrival(0.4), Arrival(0.999, 1)))
    faster = list(at_rate(trace, 30.0, 0.1).starts(0.0, 0.1, 0))
    assert [a.start_s for a in faster] == pytest.approx([0.01, 0.04, 0.0999])
    assert [a.payload for a in faster] == [3, None, 1]


def test_a_trace_begins_again():
    """It lasts as long as the level, at the mean rate that was asked for."""
    trace = Trace("t.jsonl", (Arrival(0.1), Arrival(0.4), Arrival(0.999)))
    arrivals = list(at_rate(trace, 30.0, 10.0).starts(0.0, 10.0, 0))
    assert len(arrivals) == pytest.approx(300, abs=3)
    starts = [a.start_s for a in arrivals]
    assert starts == sorted(starts) and not math.isclose(starts[2], starts[3])


def test_poisson_stays_poisson():
    """Its rate is the level's."""
    assert at_rate(POISSON, 30.0, 1.0) is POISSON
