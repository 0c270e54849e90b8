"""From measured points to service times."""

from pathlib import Path

import numpy as np
import pytest

from tritonkit.load.arrivals import POISSON, Arrival, Trace
from tritonkit.plan.fit import pooled, requests_of, run_times_s, service, services, stream_of
from tritonkit.plan.settings import Way
from tritonkit.profile.curve import Kind, Lane, Point, Runs, ServiceCurve, read_curve
from tritonkit.samples import Sample


def point(mode="closed", offered=8, took_s=1.0, queue_s=0.0, around_s=0.0005, runs=()):
    """A level whose runs are (rows, count, seconds)."""
    runs = tuple(Runs(*each) for each in runs)
    requests = sum(r.rows * r.count for r in runs)
    run_s = sum(r.rows * r.count * r.mean_s for r in runs) / requests
    return Point(mode, offered, took_s, around_s + queue_s + run_s, queue_s, run_s, runs)


def lane(threads=1, instances=1, batched=(), plain_s=0.002, slow=1.0):
    """A lane whose plain runs take `plain_s`, `slow` times that under pressure."""
    alone = point(offered=1, runs=[(1, 400, plain_s)])
    pressed_s = slow * plain_s
    count = round(instances / (pressed_s + 0.0001))
    pressed = point(offered=16, queue_s=0.02, runs=[(1, count, pressed_s)])
    return Lane(threads, instances, (alone, pressed), tuple(batched), (0.9, 1.0, 1.1))


ONE_KIND = (Kind(8, 1.0),)


def curve(*lanes, kinds=ONE_KIND, kind_of=(0,)):
    return ServiceCurve("m", "0" * 64, {}, "0", 64, kinds, kind_of, lanes)


def test_run_times_are_those_that_were_measured():
    """Sizes that were seen often enough have their own means."""
    points = [point(runs=[(1, 50, 0.001), (4, 50, 0.002), (16, 50, 0.005)])]
    found = run_times_s(points, 16)
    assert found[[0, 3, 15]] == pytest.approx([0.001, 0.002, 0.005])


def test_run_times_between_are_linear():
    """Sizes that were not seen lie between those that were."""
    found = run_times_s([point(runs=[(1, 50, 0.001), (11, 50, 0.003)])], 11)
    assert found == pytest.approx(np.linspace(0.001, 0.003, 11))


def test_run_times_beyond_go_on():
    """Beyond the largest size the curve goes on as it came."""
    found = run_times_s([point(runs=[(1, 50, 0.001), (11, 50, 0.003)])], 21)
    assert found[20] == pytest.approx(0.005)


def test_run_times_never_fall():
    """A larger run that took less by chance makes both the mean of the two."""
    found = run_times_s([point(runs=[(2, 10, 0.003), (8, 30, 0.001), (32, 10, 0.004)])], 32)
    assert found[1] == found[7] == pytest.approx(0.0015)
    assert (np.diff(found) >= 0).all()


def test_sizes_that_were_hardly_seen_are_taken_together():
    """One odd run of a size does not make a step of the curve."""
    runs = [(60, 1, 0.010), (61, 1, 0.030), (62, 1, 0.008), (63, 1, 0.012), (64, 20, 0.012)]
    found = run_times_s([point(runs=[(1, 90, 0.001), *runs])], 64)
    assert found[63] == pytest.approx((0.010 + 0.030 + 0.008 + 0.012 + 20 * 0.012) / 24, rel=0.02)


def test_points_add_up():
    """The same size in two levels counts by how many runs each had."""
    points = [point(runs=[(4, 30, 0.002)]), point(runs=[(4, 10, 0.006)])]
    assert run_times_s(points, 4)[3] == pytest.approx(0.003)


def test_pooled_is_the_nearest_in_squares():
    """Against all non-decreasing steps of a fine grid no other is nearer."""
    values, weights = [3.0, 1.0, 2.0, 2.5], [1.0, 2.0, 1.0, 1.0]
    found = pooled(values, weights)
    off = np.dot(weights, (found - values) ** 2)
    grid = np.linspace(1, 3, 21)
    rivals = (
        np.dot(weights, (np.array([a, b, c, d]) - values) ** 2)
        for a in grid
        for b in grid[grid >= a]
        for c in grid[grid >= b]
        for d in grid[grid >= c]
    )
    assert off <= min(rivals) + 1e-9


def test_the_gap_is_what_runs_do_not_fill():
    """Under pressure an instance does a run and a gap, one after the other."""
    own = lane()
    assert service(own, own, 8, True).gap_s[0] == pytest.approx(0.0001, rel=0.02)


def test_gaps_grow_to_those_of_large_batches():
    """From the plain model under pressure to the largest batches under pressure."""
    large = point(took_s=1.05, offered=64, queue_s=0.02, runs=[(33, 50, 0.020)])
    own = lane(batched=[large])
    gaps = service(own, own, 64, True).gap_s
    assert gaps[32] == pytest.approx(0.001) and gaps[63] == pytest.approx(0.001)
    assert gaps[16] == pytest.approx((gaps[0] + gaps[32]) / 2)


def test_instances_slow_each_other():
    """Two instances whose runs take half as long again as one's alone."""
    alone, two = lane(), lane(instances=2, slow=1.5)
    assert service(two, alone, 8, True).slowdown == pytest.approx((1.0, 1.5), rel=0.01)


def test_instances_alone_take_as_long_as_one():
    """The run times of several instances are those of one alone; the slowdown has the rest."""
    alone, two = lane(), lane(instances=2, slow=1.5)
    assert service(two, alone, 8, True).run_s[0] == pytest.approx(0.002)


def test_answers_come_one_after_the_other():
    """What is around a request and grows with its batch, by its place in it."""
    base_s, each_s = 0.0005, 0.00002
    batched = [
        point(around_s=base_s + each_s * (rows - 1) / 2, runs=[(rows, 50, 0.01)])
        for rows in (4, 16, 64)
    ]
    own = lane(batched=batched)
    assert service(own, own, 64, True).after_each_s == pytest.approx(each_s)


def test_scatter_has_a_mean_of_one():
    """So that it moves percentiles and not the throughput."""
    own = lane()
    assert np.mean(service(own, own, 8, True).scatter) == pytest.approx(1.0)


def test_live_points_count_for_their_lane_only():
    """A live level on one lane changes that lane."""
    slow = point("open", runs=[(1, 10_000, 0.008)])
    found = services(curve(lane(1), lane(2)), [(Way(2, 1, True), slow)])
    assert found[1, 1, True].run_s[0] == found[2, 1, False].run_s[0] == pytest.approx(0.002)
    assert 0.004 < found[2, 1, True].run_s[0] <= 0.008


def test_live_levels_say_what_lies_around_a_run():
    """While the CPUs are busy a request takes longer on its way; the batcher's lane has its own."""
    way = Way(1, 1, False)
    live = [
        (way, point("open", 100.0, around_s=s, runs=[(1, 9, 0.002)])) for s in (1e-3, 3e-3, 9e-3)
    ]
    found = services(curve(lane(batched=[point(runs=[(1, 9, 0.002)])])), live)
    idle = services(curve(lane(batched=[point(runs=[(1, 9, 0.002)])])))
    assert found[way].before_s + found[way].after_s == pytest.approx(3e-3)
    assert idle[way].before_s + idle[way].after_s == pytest.approx(5e-4)
    assert found[Way(1, 1, True)] == idle[Way(1, 1, True)]


def test_a_batcher_that_costs_something_costs_it_where_it_is():
    """Runs of one row that take longer with the batcher do not without it."""
    own = lane(batched=[point(runs=[(1, 50, 0.003), (4, 50, 0.006)])])
    assert service(own, own, 8, False).run_s[0] == pytest.approx(0.002)
    assert service(own, own, 8, True).run_s[0] == pytest.approx(0.003)


def test_poisson_of_the_measured_kinds():
    """Each kind as often as among the payloads, with its own shape and cost."""
    kinds = (Kind(8, 0.5), Kind(32, 1.5))
    stream = stream_of(curve(lane(), kinds=kinds, kind_of=(0, 1, 0, 0)), POISSON)
    drawn = stream.draw(100.0, 20_000, 1)
    assert (drawn.shapes == 0).mean() == pytest.approx(0.75, abs=0.02)
    assert set(zip(drawn.shapes.tolist(), drawn.costs.tolist(), strict=True)) == {
        (0, 0.5),
        (1, 1.5),
    }


def test_the_requests_of_a_level():
    """In the order in which they were due, each of the kind of its payload."""
    kinds = (Kind(8, 0.5), Kind(32, 1.5))
    samples = [Sample(2_000_000, 2_100_000, 9_000_000, 1, ""), Sample(0, 0, 10, 2, "timeout")]
    found = requests_of(curve(lane(), kinds=kinds, kind_of=(0, 1, 0)), samples)
    assert found.starts_s.tolist() == [0.0, 0.002]
    assert found.shapes.tolist() == [0, 1]
    assert found.costs.tolist() == [0.5, 1.5]
    assert found.rows.tolist() == [1, 1]


def test_a_trace_keeps_its_gaps_and_payloads():
    """At its own rate it is what was recorded, from some place on."""
    arrivals = Trace("t.jsonl", (Arrival(0.1, 1), Arrival(0.2, 0), Arrival(0.5, 0)))
    kinds = (Kind(8, 0.5), Kind(32, 1.5))
    stream = stream_of(curve(lane(), kinds=kinds, kind_of=(0, 1)), arrivals)
    drawn = stream.draw(3 / arrivals.length_s, 6, 0)
    gaps = np.diff(drawn.starts_s)
    assert set(gaps.round(3).tolist()) == {0.1, 0.101, 0.3}
    assert sorted(drawn.shapes.tolist()) == [0, 0, 0, 0, 1, 1]


def test_a_trace_can_be_sped_up():
    """Twice the rate halves every gap."""
    arrivals = Trace("t.jsonl", tuple(Arrival(t) for t in (0.1, 0.2, 0.5)))
    stream = stream_of(curve(lane()), arrivals)
    slow, fast = (stream.draw(rate, 50, 3).starts_s for rate in (10.0, 20.0))
    assert fast == pytest.approx(slow / 2)


def test_a_curve_survives_its_file(tmp_path: Path):
    """What is written is what is read."""
    own = curve(lane(batched=[point(runs=[(4, 50, 0.002)])]))
    own.write(tmp_path / "curve.json")
    assert read_curve(tmp_path / "curve.json") == own
