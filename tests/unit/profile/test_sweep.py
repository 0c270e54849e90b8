"""Points, kinds and scatter, from samples and counters."""

import numpy as np
import pytest

from tritonkit.client.transport import infer_request
from tritonkit.errors import ServerFaultError
from tritonkit.profile.sweep import kinds, point, relative
from tritonkit.samples import Sample
from tritonkit.stats.scrape import ServerCounters

MS = 1_000_000


def sample(sent_ms, took_ms, payload=0, error=""):
    """A request sent then, and done so much later."""
    return Sample(sent_ms * MS, sent_ms * MS, int((sent_ms + took_ms) * MS), payload, error)


def requests(*lengths):
    """One for each length."""
    return [infer_request("m", {"x": np.zeros((1, n), np.float32)}) for n in lengths]


COUNTED = ServerCounters(
    requests=4,
    inferences=4,
    executions=2,
    batches={1: 1, 3: 1},
    run_ns={1: 2 * MS, 3: 6 * MS},
    queue_ns=4 * MS,
    input_ns=2 * MS,
    compute_ns=16 * MS,
    output_ns=2 * MS,
)


def test_a_point_is_made_of_means():
    """Of the client's latencies and of the server's counters."""
    found = point("closed", 4, [sample(0, 7), sample(1, 9), sample(2, 8), sample(3, 8)], COUNTED)
    assert found.latency_s == pytest.approx(0.008)
    assert (found.queue_s, found.run_s) == pytest.approx((0.001, 0.005))
    assert found.around_s == pytest.approx(0.002)
    assert [(r.rows, r.count, r.mean_s) for r in found.runs] == [(1, 1, 0.002), (3, 1, 0.006)]


def test_it_lasts_until_the_last_answer():
    """From the first request, whenever that was."""
    assert point("open", 9.0, [sample(5, 7), sample(20, 30)], COUNTED).took_s == pytest.approx(
        0.045
    )


def test_errors_are_left_out():
    """A request that failed says nothing of the service time."""
    good = [sample(0, 8), sample(1, 8)]
    found = point("open", 9.0, [*good, sample(2, 900, error="timeout")], COUNTED)
    assert found.latency_s == pytest.approx(0.008)


@pytest.mark.parametrize(
    ("samples", "counted"),
    [([sample(0, 8, error="timeout")], COUNTED), ([sample(0, 8)], ServerCounters())],
)
def test_nothing_answered_is_an_error(samples, counted):
    """A plan cannot be made of it, and it says what happened instead."""
    with pytest.raises(ServerFaultError, match="no request was answered"):
        point("closed", 1, samples, counted)


def test_kinds_are_by_shape():
    """Each request is of the kind of its shape, in the order of the requests."""
    found, kind_of = kinds([], requests(8, 16, 8))
    assert [kind.elements for kind in found] == [8, 16] and kind_of == (0, 1, 0)


def test_costs_are_relative_to_the_mean_request():
    """Twice the time is twice the cost, and all requests together have a mean of 1."""
    alone = [sample(i, (4, 8)[i % 2], i % 2) for i in range(20)]
    found, kind_of = kinds(alone, requests(10, 20))
    costs = [found[kind].cost for kind in kind_of]
    assert costs == pytest.approx([2 / 3, 4 / 3])


def test_a_kind_that_was_not_seen_lies_on_the_line():
    """By the elements of its inputs, between those that were."""
    alone = [sample(i, (4, 8)[i % 2], i % 2) for i in range(20)]
    found, _ = kinds(alone, requests(10, 20, 15))
    assert found[2].cost == pytest.approx((found[0].cost + found[1].cost) / 2)


def test_one_kind_costs_one():
    """There is nothing to compare it with."""
    found, _ = kinds([sample(0, 8)], requests(8, 8))
    assert [kind.cost for kind in found] == [1.0]


def test_shorter_inputs_never_cost_more():
    """A slope that falls is noise."""
    alone = [sample(i, (9, 8)[i % 2], i % 2) for i in range(20)]
    found, _ = kinds(alone, requests(10, 20))
    assert found[0].cost == pytest.approx(found[1].cost)


def test_scatter_is_within_a_kind():
    """What differs between kinds is cost, and no scatter."""
    alone = [sample(i, (4, 8)[i % 2], i % 2) for i in range(20)]
    assert set(np.round(relative(alone, requests(10, 20)), 6)) == {1.0}


def test_scatter_keeps_the_tail():
    """One in a hundred that took five times as long is in the last quantile."""
    alone = [sample(i, 50 if i % 100 == 99 else 10) for i in range(1000)]
    found = relative(alone, requests(8))
    assert found[-1] > 3 and found[len(found) // 2] == pytest.approx(10 / 10.4)
