"""What Triton would do with a stream of requests: the samples of a run that never took place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tritonkit.errors import InputError
from tritonkit.plan.batcher import ANSWERED, QUEUE_FULL, TIMED_OUT, run_batcher
from tritonkit.plan.settings import Settings
from tritonkit.repository.scheduling import DynamicBatching, TimeoutAction
from tritonkit.samples import Sample

_ERRORS = {QUEUE_FULL: "unavailable", TIMED_OUT: "unavailable"}
"""What the client calls Triton's refusals: it answers 503 to both."""


@dataclass(frozen=True)
class Service:
    """How long a server takes, in seconds; one of these for each number of threads.

    run_s: of a run of 1, 2, … rows while nothing else runs. gap_s: after it, before its instance
    takes the next. slowdown: of a run while 1, 2, … instances are at work; begins with 1.
    scatter: factors on the time of a run, drawn at random; their mean should be 1.
    before_s: from when a request is sent until it waits in the queue. after_s, after_each_s: from
    the end of its run until its answer is with the client: of the first request of the run, and
    more for each request before it, since the answers are sent one after the other.
    """

    run_s: tuple[float, ...]
    gap_s: tuple[float, ...] = ()
    slowdown: tuple[float, ...] = (1.0,)
    scatter: tuple[float, ...] = (1.0,)
    before_s: float = 0.0
    after_s: float = 0.0
    after_each_s: float = 0.0

    @property
    def gaps_s(self) -> NDArray[np.float64]:
        """gap_s for every size of `run_s`, 0 where none is given."""
        gaps = np.zeros(len(self.run_s))
        gaps[: len(self.gap_s)] = self.gap_s[: len(gaps)]
        return gaps


@dataclass(frozen=True)
class Simulated:
    """Requests and what became of them; arrays of one value for each request.

    intended_s, done_s: since the start. begun_s: of its run. company: rows of its run, 0 for one
    that was refused. outcome: ANSWERED, QUEUE_FULL or TIMED_OUT. runs: of the model. rows: in them.
    """

    intended_s: NDArray[np.float64]
    begun_s: NDArray[np.float64]
    done_s: NDArray[np.float64]
    company: NDArray[np.int64]
    outcome: NDArray[np.int8]
    runs: int
    rows: int

    @property
    def mean_batch(self) -> float | None:
        """Rows of a run."""
        return self.rows / self.runs if self.runs else None

    @property
    def latency_s(self) -> NDArray[np.float64]:
        """Of the answered requests, in their order."""
        latency: NDArray[np.float64] = (self.done_s - self.intended_s)[self.outcome == ANSWERED]
        return latency

    def samples(self) -> list[Sample]:
        """As a load generator that is always on time would have recorded them."""
        return [
            Sample(start, start, done, 0, _ERRORS.get(outcome, ""))
            for start, done, outcome in zip(
                np.rint(self.intended_s * 1e9).astype(np.int64).tolist(),
                np.rint(self.done_s * 1e9).astype(np.int64).tolist(),
                self.outcome.tolist(),
                strict=True,
            )
        ]


def simulate(
    starts_s: Sequence[float] | NDArray[np.float64],
    settings: Settings,
    service: Service,
    *,
    rows: Sequence[int] | NDArray[np.int64] | None = None,
    shapes: Sequence[int] | NDArray[np.int64] | None = None,
    costs: Sequence[float] | NDArray[np.float64] | None = None,
    seed: int = 0,
) -> Simulated:
    """Send requests at these times, ascending, in seconds.

    rows: of each request, 1 if not given. shapes: requests of different ones share no run.
    costs: factors on the time of a run, by its first request: longer inputs take longer.
    InputError for more rows than a run may have, more instances than `slowdown` knows, and for
    what the model does not have.
    """
    starts = np.ascontiguousarray(starts_s, np.float64)
    n = len(starts)
    rows_of = np.ones(n, np.int64) if rows is None else np.ascontiguousarray(rows, np.int64)
    shape_of = np.zeros(n, np.int64) if shapes is None else np.ascontiguousarray(shapes, np.int64)
    cost_of = np.ones(n) if costs is None else np.ascontiguousarray(costs, np.float64)
    batching = settings.dynamic_batching
    most = settings.max_batch_size if batching else int(rows_of.max(initial=1))
    _check(starts, rows_of, shape_of, cost_of, settings, service, most)
    rules = batching or DynamicBatching()
    run_s = np.concatenate(([0.0], service.run_s))
    gap_s = np.concatenate(([0.0], service.gaps_s))
    scatter = np.asarray(service.scatter, np.float64)
    factor = (
        np.random.default_rng(seed).choice(scatter, n)
        if len(scatter) > 1
        else (np.full(n, scatter[0]))
    )
    begun, ended = np.zeros(n), np.zeros(n)
    place, company = np.zeros(n, np.int64), np.zeros(n, np.int64)
    outcome = np.zeros(n, np.int8)
    runs = run_batcher(
        starts + service.before_s,
        rows_of,
        shape_of,
        cost_of,
        batching is not None,
        most,
        rules.max_queue_delay_us / 1e6,
        np.asarray(rules.preferred_batch_sizes, np.int64),
        settings.instances,
        rules.queue.max_queue_size,
        rules.queue.default_timeout_us / 1e6,
        rules.queue.timeout_action is TimeoutAction.REJECT,
        run_s,
        gap_s,
        np.concatenate(([1.0], 1.0 / np.asarray(service.slowdown, np.float64))),
        factor,
        begun,
        ended,
        place,
        company,
        outcome,
    )
    answered = outcome == ANSWERED
    after = np.where(answered, service.after_s + service.after_each_s * place, service.after_s)
    return Simulated(
        intended_s=starts,
        begun_s=begun,
        done_s=ended + after,
        company=company,
        outcome=outcome,
        runs=int(runs),
        rows=int(rows_of[answered].sum()),
    )


def _check(
    starts: NDArray[np.float64],
    rows: NDArray[np.int64],
    shapes: NDArray[np.int64],
    costs: NDArray[np.float64],
    settings: Settings,
    service: Service,
    most: int,
) -> None:
    if not len(starts) == len(rows) == len(shapes) == len(costs):
        raise InputError(
            f"{len(starts)} requests, {len(rows)} numbers of rows, {len(shapes)} shapes, "
            f"{len(costs)} costs; give one of each"
        )
    if len(starts) and not (np.isfinite(starts).all() and (np.diff(starts) >= 0).all()):
        raise InputError("the times of arrival must be finite and ascending")
    if rows.min(initial=1) < 1 or rows.max(initial=1) > most:
        raise InputError(
            f"a request has {rows.min(initial=1)} to {rows.max(initial=1)} rows; "
            f"a run takes 1 to {most}"
        )
    if most > len(service.run_s):
        raise InputError(
            f"the service curve ends at {len(service.run_s)} rows, a run may have {most}"
        )
    if settings.instances > len(service.slowdown):
        raise InputError(
            f"the service curve knows {len(service.slowdown)} instances at work, not "
            f"{settings.instances}"
        )
    if settings.dynamic_batching is not None and settings.dynamic_batching.priorities is not None:
        raise InputError("queues with priority levels are not simulated; leave priorities out")
