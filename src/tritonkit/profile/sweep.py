"""Closed loops on a live model, from one user upwards: the points of a lane."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tritonkit.client.client import Client
from tritonkit.client.transport import InferRequest
from tritonkit.errors import ServerFaultError
from tritonkit.load.level import model_counters
from tritonkit.profile.curve import Kind, Lane, Point, Runs
from tritonkit.samples import Sample
from tritonkit.stats.scrape import ServerCounters

PRESSED = 16
"""Users for each instance, so that it never waits for one."""

ENOUGH_RUNS = 60
LEAST_S, MOST_S = 0.6, 2.0
"""A level lasts for so many runs, as the level before had them, within these bounds."""

FACTOR = 2
"""From one number of users to the next."""

MOST_USERS = 256
"""With more connections Triton's HTTP front end now and then loses an answer."""

LEAST_COST = 0.5
"""No kind of request takes less than this share of the fastest that was seen."""

ALONE = 99
"""Of the latencies on an idle server so many quantiles are kept."""


Shape = tuple[tuple[int, ...], ...]
"""Of a request: of all its inputs."""


@dataclass(frozen=True)
class Target:
    """A live model: where load goes, a client of its server, its requests by name of the model."""

    address: str
    client: Client
    model: str
    requests: Sequence[InferRequest]


def measure_lane(
    plain: Target, batched: Target, threads: int, instances: int, *, max_rows: int, until_s: float
) -> tuple[Lane, Sequence[Sample]]:
    """The lane of two models that differ by their scheduler alone, and requests one by one.

    Users double until runs cannot get larger than max_rows, or a request takes until_s.
    """
    alone, samples = closed_loop(plain, 1, LEAST_S)
    enough_s = min(MOST_S, max(LEAST_S, ENOUGH_RUNS * alone.latency_s))
    if enough_s > LEAST_S:
        alone, samples = closed_loop(plain, 1, enough_s)
    pressed, _ = closed_loop(plain, min(MOST_USERS, PRESSED * instances), enough_s)
    points: list[Point] = []
    users = 2 * instances
    most = min(MOST_USERS, FACTOR * max_rows * instances)
    while users <= most and (not points or points[-1].latency_s < until_s):
        points.append(closed_loop(batched, users, enough_s)[0])
        users *= FACTOR
    scatter = relative(samples, plain.requests)
    return Lane(threads, instances, (alone, pressed), tuple(points), scatter), samples


def closed_loop(target: Target, users: int, duration_s: float) -> tuple[Point, Sequence[Sample]]:
    """One closed loop, as a point, and its samples."""
    from tritonkit.load.runner import Level, run_level  # patches the process for gevent

    before = model_counters(target.client, target.model)
    run = run_level(target.address, target.requests, Level("closed", users, duration_s))
    counted = model_counters(target.client, target.model).since(before)
    return point("closed", users, run.samples, counted), run.samples


def point(
    mode: Literal["closed", "open"],
    offered: float,
    samples: Sequence[Sample],
    counted: ServerCounters,
) -> Point:
    """A level as a point. ServerFaultError if none was answered, or nothing was counted."""
    good = [s for s in samples if not s.error]
    if not good or not counted.executions or not counted.requests:
        kinds = sorted({s.error for s in samples if s.error})
        raise ServerFaultError(
            "failed",
            f"no request was answered ({', '.join(kinds) or 'nothing was counted'}), so there is "
            "nothing to plan with; see the server's log",
        )
    runs = [
        Runs(rows, count, counted.run_ns[rows] / count / 1e9)
        for rows, count in sorted(counted.batches.items())
    ]
    in_run_ns = counted.input_ns + counted.compute_ns + counted.output_ns
    return Point(
        mode=mode,
        offered=offered,
        took_s=(max(s.done_ns for s in good) - min(s.sent_ns for s in good)) / 1e9,
        latency_s=float(np.mean([s.done_ns - s.sent_ns for s in good])) / 1e9,
        queue_s=counted.queue_ns / counted.requests / 1e9,
        run_s=in_run_ns / counted.requests / 1e9,
        runs=tuple(runs),
    )


def relative(samples: Sequence[Sample], requests: Sequence[InferRequest]) -> tuple[float, ...]:
    """Quantiles of the latencies, each relative to the mean of its kind of request."""
    of_kind = _latencies_s(samples, requests)
    all_of = np.concatenate([np.array(found) / np.mean(found) for found in of_kind.values()])
    shares = (np.arange(ALONE) + 0.5) / ALONE
    return tuple(float(x) for x in np.quantile(all_of, shares))


def kinds(
    alone: Sequence[Sample], requests: Sequence[InferRequest]
) -> tuple[tuple[Kind, ...], tuple[int, ...]]:
    """The kinds of the requests, what each costs by what it took alone, and each request's kind.

    A kind's time is taken from a straight line over all kinds, by the elements of their inputs:
    of some kinds there may be but a few.
    """
    shapes = [_shape(request) for request in requests]
    each = list(dict.fromkeys(shapes))
    kind_of = tuple(each.index(shape) for shape in shapes)
    elements = np.array([sum(math.prod(dims) for dims in shape) for shape in each])
    latencies = _latencies_s(alone, requests)
    seen = [kind for kind, shape in enumerate(each) if shape in latencies]
    if len(set(elements[seen])) < 2:
        costs = np.ones(len(each))
    else:
        medians_s = [float(np.median(latencies[each[kind]])) for kind in seen]
        weights = np.sqrt([len(latencies[each[kind]]) for kind in seen])
        slope, base_s = np.polyfit(elements[seen], medians_s, 1, w=weights)
        times_s = np.maximum(base_s + max(0.0, slope) * elements, LEAST_COST * min(medians_s))
        costs = times_s / np.mean(times_s[list(kind_of)])
    return tuple(map(Kind, elements.tolist(), costs.tolist())), kind_of


def _shape(request: InferRequest) -> Shape:
    """The shapes of its inputs: what requests of one run have in common, but for the rows."""
    return tuple(tuple(tensor.shape) for tensor in request.inputs)


def _latencies_s(
    samples: Sequence[Sample], requests: Sequence[InferRequest]
) -> dict[Shape, list[float]]:
    found: dict[Shape, list[float]] = defaultdict(list)
    for sample in samples:
        if not sample.error:
            latency_s = (sample.done_ns - sample.sent_ns) / 1e9
            found[_shape(requests[sample.payload])].append(latency_s)
    return found
