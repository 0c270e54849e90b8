"""Questions that a service curve answers without a server."""

from dataclasses import replace
from pathlib import Path

import pytest

from tritonkit.errors import InputError
from tritonkit.plan.predict import predict
from tritonkit.plan.search import by_capacity, by_latency, grid, lane
from tritonkit.plan.settings import Way
from tritonkit.plan.simulate import Service
from tritonkit.plan.stream import Poisson
from tritonkit.plan.what_if import WhatIf, answer, few, parse_what_if

MOST = 32
# A run takes 5 ms and 0.2 ms more for each row: 192 a second one by one, 2,800 in full batches.
RUN_S = tuple(0.005 + 0.0002 * rows for rows in range(1, MOST + 1))
SERVICES = {
    (2, 1): Service(run_s=RUN_S),
    (1, 2): Service(run_s=tuple(1.6 * s for s in RUN_S), slowdown=(1.0, 1.3)),
}
LANES = {Way(*pair, batching): s for pair, s in SERVICES.items() for batching in (False, True)}
HALF = {key: replace(s, run_s=tuple(s / 2 for s in s.run_s)) for key, s in LANES.items()}
STREAM = Poisson()


def either(service):
    """One thread, one instance, with a batcher and without."""
    return {Way(1, 1, batching): service for batching in (False, True)}


def ask(lanes=LANES, **what):
    return answer(WhatIf(Path("c"), **what), lanes, STREAM, MOST)


def test_all_keys():
    """Every key of a question is read."""
    assert parse_what_if("rate=2e3,slo=20,replicas=3,s=a/c.json") == WhatIf(
        Path("a/c.json"), 2000.0, 20.0, 3
    )


def test_only_the_curve_is_needed():
    """The rest is as a plan has it: the most that one replica serves within 50 ms."""
    assert parse_what_if("s=c.json") == WhatIf(Path("c.json"), None, 50.0, 1)


def test_a_comma_in_a_name():
    """A file's name may have commas."""
    assert parse_what_if("s=a,b.json,rate=5").curve == Path("a,b.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rate=3", "which curve"),
        ("s=,rate=3", "which curve"),
        ("", "none of s="),
        ("s=c,x=1", "'x=1' is none of"),
        ("fast,s=c", "'fast' is none of"),
        ("s=c,rate=", "rate= is no number above 0"),
        ("s=c,rate=0", "rate=0 is no number above 0"),
        ("s=c,rate=2x", "rate=2x is no number"),
        ("s=c,slo=nan", "slo=nan is no number"),
        ("s=c,slo=inf", "slo=inf is no number"),
        ("s=c,replicas=1.5", "no whole number"),
        ("s=c,replicas=-1", "no number above 0"),
        ("s=c,rate=1,rate=2", "given twice"),
    ],
)
def test_no_question(text, said):
    """What is none is refused in one line that says what is wrong with it."""
    with pytest.raises(InputError) as raised:
        parse_what_if(text)
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("slo_p99_ms", [15.0, 25.0, 50.0, 200.0])
def test_near_the_whole_grid(slo_p99_ms):
    """The few settings that are tried come as near the most as settings are told apart."""
    full = by_capacity(LANES, list(grid(LANES, MOST, slo_p99_ms)), STREAM, slo_p99_ms)
    most_rps = max(option.merit for option in full)
    assert ask(slo_p99_ms=slo_p99_ms).most_rps >= 0.95 * most_rps


def test_p99_near_the_whole_grid():
    """With a rate the p99 is nearly the lowest of the whole grid."""
    full = by_latency(LANES, list(grid(LANES, MOST, 50.0)), STREAM, 500.0)
    assert ask(rate_rps=500.0).p99_ms <= 1.1 * full[0].p99_ms


def test_far_fewer_are_tried():
    """A quarter of the full grid at most."""
    assert len(few(LANES, MOST, 50.0)) < 0.25 * len(list(grid(LANES, MOST, 50.0)))


def test_p99_is_that_of_the_settings():
    """The p99 is what the simulation gives for the settings at a replica's share of the rate."""
    said = ask(rate_rps=900.0, replicas=3)
    level = predict(said.settings, lane(LANES, said.settings), STREAM, 300.0)
    assert said.p99_ms == level.p99_ms


def test_capacity_holds():
    """The settings keep the budget at their capacity, and not a tenth above it."""
    said = ask()
    service = lane(LANES, said.settings)
    assert predict(said.settings, service, STREAM, said.capacity_rps).holds(50.0)
    assert not predict(said.settings, service, STREAM, 1.1 * said.capacity_rps).holds(50.0)


def test_replicas_needed():
    """As many as the rate has times the most of one, and one more for a loss."""
    most_rps = ask().most_rps
    said = ask(rate_rps=2.5 * most_rps)
    assert (said.replicas_needed, said.replicas_if_one_fails) == (3, 4)


def test_too_much():
    """A rate beyond all settings has no p99, and a headroom below 1."""
    said = ask(rate_rps=2 * ask().most_rps)
    assert said.p99_ms is None and said.headroom == pytest.approx(0.5)


def test_a_replica_more():
    """With a second replica the same rate is no longer too much."""
    said = ask(rate_rps=1.8 * ask().most_rps, replicas=2)
    assert said.p99_ms <= 50.0 and said.headroom >= 1.0


def test_half_the_budget():
    """Less time leaves less capacity."""
    assert ask(slo_p99_ms=12.0).most_rps < 0.9 * ask(slo_p99_ms=24.0).most_rps


def test_a_faster_model():
    """Twice as fast serves about twice as much, or more."""
    assert ask(HALF).most_rps > 1.9 * ask().most_rps


def test_no_budget():
    """A budget that a single request breaks is refused with what it takes."""
    with pytest.raises(InputError, match=r"already take a p99 of 5\.2 ms"):
        ask(slo_p99_ms=5.0)
    assert ask(slo_p99_ms=8.0).most_rps > 0


def test_no_gain_no_batching():
    """Where batches gain nothing the answer is the simplest: none."""
    flat = either(Service(run_s=tuple(0.01 * rows for rows in range(1, 9))))
    said = answer(WhatIf(Path("c"), slo_p99_ms=100.0), flat, STREAM, 8)
    assert said.settings.dynamic_batching is None


def test_hardly_a_gain():
    """So it is where batches gain less than they must."""
    gains = either(Service(run_s=(0.01, *(0.00985 * rows for rows in range(2, 9)))))
    said = answer(WhatIf(Path("c"), slo_p99_ms=2000.0), gains, STREAM, 8)
    assert said.settings.dynamic_batching is None


def test_beside_the_few():
    """What is beside the best of the few that are tried is tried as well."""
    found = {ask(slo_p99_ms=slo_p99_ms).settings for slo_p99_ms in (11.0, 12.0, 15.0, 20.0)}
    assert not found <= {s for ms in (11.0, 12.0, 15.0, 20.0) for s in few(LANES, MOST, ms)}
