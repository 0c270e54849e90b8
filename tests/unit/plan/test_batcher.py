"""The model of Triton's batcher: against theory, against a literal model, and its own promises."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.plan.payloads import run_payloads

from tritonkit.errors import InputError
from tritonkit.plan.batcher import ANSWERED, QUEUE_FULL, TIMED_OUT
from tritonkit.plan.settings import Settings
from tritonkit.plan.simulate import Service, simulate
from tritonkit.repository.scheduling import (
    DynamicBatching,
    Priorities,
    QueuePolicy,
    TimeoutAction,
)

MILLION = 1_000_000


def poisson(rate_rps: float, n: int, seed: int = 0) -> np.ndarray:
    """Times of arrival."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate_rps, n))


def waits(arrivals: np.ndarray, instances: int) -> np.ndarray:
    """Before a run of one second, without batching."""
    alone = Settings(1, None, instances)
    run = simulate(arrivals, alone, Service((1.0,), slowdown=(1.0,) * instances))
    return run.begun_s - run.intended_s


def batched(rows: int, delay_us: int = 0, instances: int = 1, **queue) -> Settings:
    """With dynamic batching."""
    policy = QueuePolicy(**queue)
    return Settings(rows, DynamicBatching(delay_us, queue=policy), instances)


# Theory


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_mean_wait_of_one_server(load):
    """M/D/1: the mean wait is u / 2(1-u) runs at a load of u (Pollaczek and Khinchine)."""
    expected = load / (2 * (1 - load))
    assert waits(poisson(load, 4 * MILLION), 1).mean() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_wait_of_one_server_in_all(share):
    """M/D/1: the share of waits up to t is Erlang's, not only their mean."""
    load = 0.7
    t = float(np.quantile(waits(poisson(load, 4 * MILLION), 1), share))
    terms = (
        (load * (k - t)) ** k / math.factorial(k) * math.exp(-load * (k - t))
        for k in range(math.floor(t) + 1)
    )
    assert (1 - load) * sum(terms) == pytest.approx(share, abs=0.02 * (1 - share) + 0.001)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.5), (2, 0.8), (4, 0.8)])
def test_mean_wait_of_several_servers(servers, load):
    """M/D/c: what was at a server one service time ago has left it (Crommelin, 1932), which gives
    the distribution of requests in the system."""
    rate = load * servers
    most = 200
    arrive = np.array([math.exp(-rate + j * math.log(rate) - math.lgamma(j + 1))
                       for j in range(most)])  # fmt: skip
    there = np.zeros(most)
    there[0] = 1.0
    for _ in range(3000):
        stay = np.concatenate(([there[: servers + 1].sum()], there[servers + 1 :]))
        there = np.convolve(stay, arrive)[:most]
        there /= there.sum()
    queue = sum((j - servers) * p for j, p in enumerate(there) if j > servers)
    found = waits(poisson(rate, 4 * MILLION), servers).mean()
    assert found == pytest.approx(queue / rate, rel=0.02)


def test_a_queue_that_is_never_full_batches_all():
    """When requests come far faster than they are answered, every run is a full one."""
    run = simulate(poisson(1000.0, 10_000), batched(8), Service((1.0,) * 8))
    assert run.mean_batch == pytest.approx(8, rel=0.01)


# The literal model


@st.composite
def streams(draw):
    """Requests: times with ties, rows, shapes; and what serves them."""
    n = draw(st.integers(1, 40))
    gaps = draw(st.lists(st.integers(0, 30), min_size=n, max_size=n))
    max_rows = draw(st.integers(1, 8))
    rows = draw(st.lists(st.integers(1, max_rows), min_size=n, max_size=n))
    shapes = draw(st.lists(st.integers(0, draw(st.integers(0, 2))), min_size=n, max_size=n))
    delay = draw(st.sampled_from([0, 29, 81, 221]))
    instances = draw(st.integers(1, 3))
    run = draw(st.lists(st.integers(1, 60), min_size=max_rows, max_size=max_rows))
    # No two things happen at once, for then which is first is chance in Triton, too: each request
    # has a fraction of its own, runs are even and delays odd.
    enter = [t + i / 1024 for i, t in enumerate(np.cumsum(gaps).tolist())]
    return enter, rows, shapes, max_rows, delay, instances, [0, *(2 * r for r in run)]


@settings(max_examples=400, deadline=None)
@given(streams())
def test_as_payload_by_payload(stream):
    """Batches formed ahead, which grow until they are taken, are those formed when they are."""
    enter, rows, shapes, max_rows, delay, instances, run_time = stream
    expected = run_payloads(enter, rows, shapes, max_rows, delay, instances, run_time)
    run = simulate(
        [t / 1e6 for t in enter],
        batched(max_rows, delay, instances),
        Service(tuple(r / 1e6 for r in run_time[1:]), slowdown=(1.0,) * instances),
        rows=rows,
        shapes=shapes,
    )
    assert run.company.tolist() == expected[2]
    np.testing.assert_allclose(run.begun_s * 1e6, expected[0], atol=1e-3)
    np.testing.assert_allclose(run.done_s * 1e6, expected[1], atol=1e-3)


# Promises


@st.composite
def anything(draw):
    """A stream of requests, settings with a queue policy, and a service that scatters."""
    n = draw(st.integers(0, 60))
    enter = np.cumsum(draw(st.lists(st.floats(0, 0.02), min_size=n, max_size=n)))
    max_rows = draw(st.integers(1, 6))
    rows = draw(st.lists(st.integers(1, max_rows), min_size=n, max_size=n))
    shapes = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    instances = draw(st.integers(1, 3))
    policy = QueuePolicy(
        draw(st.sampled_from([0, 0, 1, 3])),
        draw(st.sampled_from([0, 0, 500, 20_000])),
        draw(st.sampled_from(list(TimeoutAction))),
    )
    preferred = tuple(draw(st.sets(st.integers(1, max_rows), max_size=2)))
    dynamic = DynamicBatching(draw(st.sampled_from([0, 100, 30_000])), preferred, queue=policy)
    service = Service(
        run_s=tuple(draw(st.lists(st.floats(1e-4, 0.05), min_size=max_rows, max_size=max_rows))),
        gap_s=tuple(draw(st.lists(st.floats(0, 0.01), max_size=max_rows))),
        slowdown=tuple(1 + 0.5 * k for k in range(instances)),
        scatter=(0.5, 1.0, 1.5),
        before_s=0.001,
        after_s=0.002,
        after_each_s=0.0005,
    )
    chosen = Settings(max_rows, draw(st.sampled_from([dynamic, None])), instances)
    return enter, rows, shapes, chosen, service


@settings(max_examples=400, deadline=None)
@given(anything())
def test_every_request_ends_once(case):
    """Each is answered, or refused for a reason, not before it came; what ran is what was asked."""
    enter, rows, shapes, chosen, service = case
    run = simulate(enter, chosen, service, rows=rows, shapes=shapes)
    assert set(run.outcome.tolist()) <= {ANSWERED, QUEUE_FULL, TIMED_OUT}
    assert (run.begun_s >= run.intended_s + service.before_s - 1e-12).all()
    assert (run.done_s >= run.begun_s).all()
    answered = run.outcome == ANSWERED
    assert run.rows == sum(r for r, ok in zip(rows, answered, strict=True) if ok)
    assert ((run.company > 0) == answered).all()
    together: dict[tuple[float, int], int] = {}
    for i in np.flatnonzero(answered):
        key = (run.begun_s[i], int(run.company[i]))
        together[key] = together.get(key, 0) + rows[i]
    assert all(total % size == 0 for (_, size), total in together.items())


@settings(max_examples=300, deadline=None)
@given(anything())
def test_runs_are_within_bounds(case):
    """No run has more rows than it may, and no more runs are under way than there are instances."""
    enter, rows, shapes, chosen, service = case
    service = replace(service, after_s=0.0, after_each_s=0.0)
    run = simulate(enter, chosen, service, rows=rows, shapes=shapes)
    if chosen.dynamic_batching is None:
        assert run.runs == len(rows)
    else:
        assert run.company.max(initial=0) <= chosen.max_batch_size
    answered = run.outcome == ANSWERED
    events = sorted(
        [(t, 1, i) for i, t in enumerate(run.begun_s) if answered[i]]
        + [(t, 0, i) for i, t in enumerate(run.done_s) if answered[i]]
    )
    alive, most = {}, 0
    for _, starts, i in events:
        if starts:
            alive[i] = run.begun_s[i]
            most = max(most, len(set(alive.values())))
        else:
            alive.pop(i)
    assert most <= chosen.instances


@settings(max_examples=300, deadline=None)
@given(anything())
def test_first_come_first_served(case):
    """Nobody's run begins before that of one who came earlier, unless that one was put behind."""
    enter, rows, shapes, chosen, service = case
    run = simulate(enter, chosen, service, rows=rows, shapes=shapes)
    policy = chosen.dynamic_batching and chosen.dynamic_batching.queue
    if policy and policy.default_timeout_us and policy.timeout_action is TimeoutAction.DELAY:
        return
    begun = run.begun_s[run.outcome == ANSWERED]
    assert (np.diff(begun) >= 0).all()


# Single rules


def test_no_delay_takes_what_waits():
    """A free instance takes the first at once; those that come meanwhile go together."""
    run = simulate([0, 0.1, 0.2, 0.3], batched(8), Service((1.0,) * 8))
    assert run.company.tolist() == [1, 3, 3, 3]
    assert run.begun_s.tolist() == [0, 1, 1, 1]


def test_delay_waits_for_company():
    """A batch that can grow goes when its oldest has waited the delay."""
    run = simulate([0, 0.1, 0.9], batched(8, 500_000), Service((0.1,) * 8))
    assert run.begun_s.tolist() == pytest.approx([0.5, 0.5, 1.4])


def test_full_batch_does_not_wait():
    """A batch that cannot grow goes at once."""
    run = simulate([0, 0.1, 0.2], batched(2, 500_000), Service((0.01,) * 2))
    assert run.begun_s.tolist() == pytest.approx([0.1, 0.1, 0.7])


def test_another_shape_ends_a_batch():
    """A request of another shape shares no run, and what is before it waits no longer."""
    run = simulate([0, 0.1, 0.2], batched(8, 500_000), Service((0.01,) * 8), shapes=[0, 1, 1])
    assert run.company.tolist() == [1, 2, 2]
    assert run.begun_s.tolist() == pytest.approx([0.1, 0.6, 0.6])


def test_a_request_is_not_cut():
    """What does not fit whole waits for the next run."""
    run = simulate([0, 0.1, 0.2, 0.3], batched(4), Service((1.0,) * 4), rows=[1, 3, 2, 2])
    assert run.company.tolist() == [1, 3, 4, 4]


def test_preferred_size_goes_before_the_delay():
    """A preferred size is not waited beyond."""
    dynamic = DynamicBatching(500_000, (2,))
    run = simulate([0, 0.1, 0.2], Settings(8, dynamic), Service((0.01,) * 8))
    assert run.begun_s.tolist() == pytest.approx([0.1, 0.1, 0.7])


def test_a_full_queue_refuses():
    """While a run is under way, so many may wait and no more."""
    arrivals = [0, 0.1, 0.2, 0.3]
    run = simulate(arrivals, batched(1, max_queue_size=2), Service((1.0,)))
    assert run.outcome.tolist() == [ANSWERED, ANSWERED, ANSWERED, QUEUE_FULL]
    assert run.done_s[3] == pytest.approx(0.3)


def test_a_request_that_waited_too_long_is_refused():
    """When a batch is formed, which may be long after it expired."""
    run = simulate([0, 0.01, 0.09], batched(1, default_timeout_us=20_000), Service((0.1,)))
    assert run.outcome.tolist() == [ANSWERED, TIMED_OUT, ANSWERED]
    assert run.done_s.tolist() == pytest.approx([0.1, 0.1, 0.2])


def test_a_request_that_waited_too_long_is_put_behind():
    """With DELAY it is answered, after those that came later."""
    policy = {"default_timeout_us": 20_000, "timeout_action": TimeoutAction.DELAY}
    run = simulate([0, 0.01, 0.09, 0.19], batched(1, **policy), Service((0.1,)))
    assert run.done_s.tolist() == pytest.approx([0.1, 0.4, 0.2, 0.3])


def test_instances_slow_each_other():
    """Two runs at once take 1.5 times as long each, and the rest goes faster when one has ended."""
    service = Service((1.0,), slowdown=(1.0, 1.5))
    run = simulate([0.0, 0.0], Settings(1, None, 2), service)
    assert run.done_s.tolist() == pytest.approx([1.5, 1.5])
    run = simulate([0.0, 0.75], Settings(1, None, 2), service)
    # The first has 0.25 left when the second comes, which takes 0.375; that has 0.75 left then.
    assert run.done_s.tolist() == pytest.approx([1.125, 1.875])


def test_longer_inputs_take_longer():
    """A cost is a factor on the time of a run."""
    run = simulate([0, 0.1], batched(1), Service((1.0,)), costs=[0.5, 2.0])
    assert run.done_s.tolist() == pytest.approx([0.5, 2.5])


def test_the_gap_after_a_run():
    """The answer does not wait for it, the next run does."""
    run = simulate([0.0, 0.0], Settings(1, None), Service((1.0,), gap_s=(0.25,)))
    assert run.done_s.tolist() == pytest.approx([1.0, 2.25])


def test_overheads_are_in_the_latency():
    """The way to the queue, the way back, and the turn among those that ran together."""
    service = Service((1.0, 1.0), before_s=0.1, after_s=0.2, after_each_s=0.01)
    run = simulate([0.0, 0.0], batched(2, 1000), service)
    assert run.latency_s.tolist() == pytest.approx([1.3, 1.31])


def test_same_seed_same_run():
    """Scatter is drawn from the seed."""
    service = Service((1.0,), scatter=(0.5, 1.5))
    again = [simulate(poisson(0.5, 100), batched(1), service, seed=s).done_s for s in (1, 1, 2)]
    assert (again[0] == again[1]).all()
    assert (again[0] != again[2]).any()


def test_samples_are_those_of_a_run():
    """One for each request, in its order, with the kind of its refusal."""
    run = simulate([0, 0.1, 0.2], batched(1, max_queue_size=1), Service((0.3,)))
    samples = run.samples()
    assert [s.error for s in samples] == ["", "", "unavailable"]
    assert [s.intended_ns for s in samples] == [0, 100_000_000, 200_000_000]
    assert [s.done_ns for s in samples] == [300_000_000, 600_000_000, 200_000_000]


def test_nothing_came():
    """No requests, no runs."""
    run = simulate([], batched(4), Service((1.0,) * 4))
    assert (run.runs, run.mean_batch, run.samples()) == (0, None, [])


@pytest.mark.parametrize(
    ("arrivals", "chosen", "more", "said"),
    [
        ([1, 0], batched(1), {}, "ascending"),
        ([0, math.nan], batched(1), {}, "finite"),
        ([0], batched(1), {"rows": [2]}, "a run takes 1 to 1"),
        ([0], batched(2), {"rows": [0]}, "a run takes 1 to 2"),
        ([0], batched(4), {}, "ends at 2 rows"),
        ([0], batched(1, instances=2), {}, "knows 1 instances"),
        ([0], batched(1), {"rows": [1, 1]}, "give one of each"),
        ([0], Settings(1, DynamicBatching(priorities=Priorities(2, 1))), {}, "priority"),
    ],
)
def test_refusals(arrivals, chosen, more, said):
    """What cannot be simulated is said, not guessed."""
    with pytest.raises(InputError, match=said):
        simulate(arrivals, chosen, Service((1.0, 1.0)), **more)
