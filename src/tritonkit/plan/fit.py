"""From a measured curve to the service times that a simulation takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tritonkit.load.arrivals import Arrivals, Trace
from tritonkit.plan.settings import Way
from tritonkit.plan.simulate import Service
from tritonkit.plan.stream import Kind, Poisson, Replay, Requests, Stream
from tritonkit.profile.curve import Lane, Point, Runs, ServiceCurve
from tritonkit.samples import Sample

FEW = 3
"""So many runs at least make a step of the curve; sizes that had fewer are taken together."""

WIDER = 1.15
"""And so are sizes that are no further apart than this factor."""

LEAST_S = 20e-6
"""Nothing around a run takes less: what a request costs on the way to the server and back."""


def stream_of(curve: ServiceCurve, arrivals: Arrivals) -> Stream:
    """The requests that the curve was measured with, as they arrive.

    arrivals: Poisson or a trace, whose payloads are those that the curve knows by number.
    """
    kinds = tuple(
        Kind(share=curve.kind_of.count(number), shape=number, cost=kind.cost)
        for number, kind in enumerate(curve.kinds)
    )
    if not isinstance(arrivals, Trace):
        return Poisson(kinds)
    starts_s = [arrival.start_s for arrival in arrivals.arrivals]
    first_s = arrivals.length_s - starts_s[-1] + starts_s[0]
    payloads = (
        turn if arrival.payload is None else arrival.payload
        for turn, arrival in enumerate(arrivals.arrivals)
    )
    return Replay(
        gaps_s=(first_s, *np.diff(starts_s).tolist()),
        kind_of=tuple(curve.kind_of[payload % len(curve.kind_of)] for payload in payloads),
        kinds=kinds,
    )


def requests_of(curve: ServiceCurve, samples: Sequence[Sample]) -> Requests:
    """The very requests of a live level, as they were to be sent."""
    ordered = sorted(samples, key=lambda sample: sample.intended_ns)
    kind_of = [curve.kind_of[sample.payload] for sample in ordered]
    return Requests(
        starts_s=np.array([sample.intended_ns for sample in ordered]) / 1e9,
        rows=np.ones(len(ordered), np.int64),
        shapes=np.array(kind_of, np.int64),
        costs=np.array([curve.kinds[kind].cost for kind in kind_of]),
    )


def services(curve: ServiceCurve, live: Sequence[tuple[Way, Point]] = ()) -> dict[Way, Service]:
    """How long runs take, in every way that was measured.

    live: points of open loops, with the way they were measured in.
    """
    by_lane = {(lane.threads, lane.instances): lane for lane in curve.lanes}
    found = {}
    for (threads, instances), lane in by_lane.items():
        alone = by_lane.get((threads, 1), lane)
        for batching in (False, True):
            way = Way(threads, instances, batching)
            more = [point for of, point in live if of == way]
            found[way] = service(lane, alone, curve.max_rows, batching, more)
    return found


def service(
    lane: Lane, alone: Lane, max_rows: int, batching: bool, live: Sequence[Point] = ()
) -> Service:
    """How long runs take on one lane. alone: the lane of as many threads with one instance."""
    points = (*_points(lane, batching), *live)
    base_s = _around_s(lane, () if batching else live)
    if lane.instances == 1:
        run_s, slowdown = run_times_s(points, max_rows), (1.0,)
    else:
        run_s = run_times_s(_points(alone, batching), max_rows)
        together = _slowdown(run_s, points, lane.instances)
        slowdown = tuple(np.linspace(1.0, together, lane.instances).tolist())
    return Service(
        run_s=tuple(run_s.tolist()),
        gap_s=tuple(_gaps_s(lane, max_rows).tolist()),
        slowdown=slowdown,
        scatter=tuple((np.array(lane.alone) / np.mean(lane.alone)).tolist()),
        before_s=base_s / 2,
        after_s=base_s / 2,
        after_each_s=_after_each_s(lane.batched, base_s),
    )


def _points(lane: Lane, batching: bool) -> Sequence[Point]:
    """Those that tell of runs with a batcher, or without: it costs runs that do without it nothing.

    Requests of several shapes keep Triton's batcher busy while they wait, and it takes the CPU
    from the runs.
    """
    if not batching:
        return lane.plain
    small = any(runs.rows == 1 and runs.count >= FEW for p in lane.batched for runs in p.runs)
    return lane.batched if small else (*lane.plain, *lane.batched)


def run_times_s(points: Iterable[Point], max_rows: int) -> NDArray[np.float64]:
    """What a run of 1, 2, … max_rows rows takes.

    Never less for more rows: of sizes that say otherwise the weighted mean is taken (isotonic
    regression by pooling adjacent violators; Barlow et al., 1972). Between sizes that were seen it
    is linear; beyond the last it goes on as from the first to the last.
    """
    steps = _together(runs for point in points for runs in point.runs)
    sizes, means_s, counts = zip(*steps, strict=True)
    times = pooled(means_s, counts)
    first, last = sizes[0], sizes[-1]
    slope = (times[-1] - times[0]) / (last - first) if last > first else times[0] / last
    rows = np.arange(1, max_rows + 1)
    inside = np.interp(rows, sizes, times)
    return np.where(rows > last, times[-1] + slope * (rows - last), inside)


def pooled(values: Sequence[float], weights: Sequence[float]) -> NDArray[np.float64]:
    """The non-decreasing sequence that is nearest in weighted squares."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (a, v, m), (b, w, n) = blocks[-2:]
            blocks[-2:] = [((a * v + b * w) / (v + w), v + w, m + n)]
    return np.repeat([value for value, _, _ in blocks], [n for _, _, n in blocks])


def _together(runs: Iterable[Runs]) -> list[tuple[float, float, int]]:
    """Rows, seconds and number of runs: sizes near each other as one, in the mean, so that each
    has enough runs.
    """
    groups: list[list[Runs]] = []
    for one in sorted(runs, key=lambda r: r.rows):
        if groups and (one.rows <= WIDER * groups[-1][0].rows or _count(groups[-1]) < FEW):
            groups[-1].append(one)
        else:
            groups.append([one])
    if len(groups) > 1 and _count(groups[-1]) < FEW:
        groups[-2:] = [groups[-2] + groups[-1]]
    return [
        (
            sum(r.count * r.rows for r in group) / _count(group),
            sum(r.count * r.mean_s for r in group) / _count(group),
            _count(group),
        )
        for group in groups
    ]


def _count(group: Sequence[Runs]) -> int:
    return sum(runs.count for runs in group)


def _slowdown(alone_s: NDArray[np.float64], points: Sequence[Point], instances: int) -> float:
    """How much slower runs are while all instances work: in points that had users for them."""
    ratios, weights = [], []
    for point in points:
        if point.mode == "closed" and point.offered < 4 * instances:
            continue
        for runs in point.runs:
            ratios.append(runs.mean_s / alone_s[runs.rows - 1])
            weights.append(runs.count)
    return max(1.0, float(np.average(ratios, weights=weights))) if ratios else 1.0


def _around_s(lane: Lane, live: Sequence[Point]) -> float:
    """What lies around a run of one request: as in live levels, if there are any, where the CPUs
    are as busy as they will be; else as on the idle server.
    """
    found = np.median([p.around_s for p in live]) if live else min(p.around_s for p in lane.plain)
    return max(LEAST_S, float(found))


def _gaps_s(lane: Lane, max_rows: int) -> NDArray[np.float64]:
    """What an instance rests after a run although requests wait, by the rows of the run: straight
    from the plain model under pressure to the largest batches under pressure.
    """
    plain = lane.plain[-1]
    gap_one = _gap_s(plain, lane.instances)
    pressed = [p for p in lane.batched if p.queue_s > 0.5 * p.run_s]
    if not pressed:
        return np.full(max_rows, gap_one)
    most = max(pressed, key=lambda p: p.mean_rows)
    rows = np.arange(1, max_rows + 1)
    return np.interp(rows, [1.0, max(2.0, most.mean_rows)], [gap_one, _gap_s(most, lane.instances)])


def _gap_s(point: Point, instances: int) -> float:
    return max(0.0, instances * point.took_s / point.executions - point.mean_run_s)


def _after_each_s(points: Sequence[Point], base_s: float) -> float:
    """How much later each answer of a run comes than the one before it: the median over points."""
    found = []
    for point in points:
        rows = np.array([r.rows for r in point.runs])
        count = np.array([r.count for r in point.runs])
        behind = float((count * rows * (rows - 1) / 2).sum() / (count * rows).sum())
        if behind >= 1:
            found.append((point.around_s - base_s) / behind)
    return max(0.0, float(np.median(found))) if found else 0.0
