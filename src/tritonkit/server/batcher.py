"""A dynamic batcher by hand, on asyncio: what a team writes that does without Triton, done right.

It knows nothing of HTTP or of ONNX Runtime: requests are arrays, and a callable runs them. All of
it happens on one event loop, so it needs no locks; only the callable may leave the loop.

Requests queue in lanes: those of a lane have the same inputs, but for their rows, and want the
same outputs, so they may share a run. A lane is first in, first out. Whenever a run is free, of
the lanes that may go that with the oldest request goes, as full as it can be. So, unlike Triton's
one queue, which ends a batch at the first request of another shape, mixed shapes still make full
batches. Nobody starves for it: every run takes the oldest request that may go, so a request waits
for no more runs than there were older requests.

What it lacks beside Triton is in LACKS.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from tritonkit.errors import DeadlineError, InputError, ServerFaultError, UnavailableError
from tritonkit.server.counters import Counters

LACKS: tuple[str, ...] = (
    "one Python process: requests are read, batched and answered under one lock (the GIL)",
    "one model and one version, loaded at the start; a new one needs a restart",
    "HTTP only: no gRPC, no streams, no shared memory, no compressed bodies",
    "no priorities, preferred batch sizes, preserved order or ragged batches",
    "no sequences: stateful models cannot be served",
    "no ensembles, no response cache, no rate limiter across models",
    "no metrics, traces or log settings; only counters and times of the model",
    "waits of whole milliseconds: the timers of the event loop are no finer",
    "one session on the CPU; no instances on several devices",
    "code of your own, to be tested, secured and maintained",
)
"""What this batcher lacks beside Triton, each a short phrase."""

LEAST_QUEUE = 1024
QUEUED_BATCHES = 16

Feeds = Mapping[str, np.ndarray]


class Ran(NamedTuple):
    """One run: its outputs in the order asked for, and when, on the clock perf_counter_ns.

    taken_ns: its thread began. began_ns: the inputs were ready. ended_ns: the model was done.
    """

    outputs: Sequence[np.ndarray]
    taken_ns: int
    began_ns: int
    ended_ns: int


Run = Callable[[tuple[str, ...], Sequence[Feeds]], Awaitable[Ran]]
"""Runs the model once on the `joined` inputs of all requests of a batch, for the named outputs."""


def joined(parts: Sequence[Feeds]) -> Feeds:
    """The inputs of several requests as one, row after row. Those of a single one are not copied.

    The Run calls it, because there it can be done off the event loop.
    """
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def queue_bound(asked: int, max_rows: int, concurrency: int) -> int:
    """How many requests may wait: as asked, or where nothing was (0) enough for QUEUED_BATCHES full
    batches of every run, and for LEAST_QUEUE users at once.

    Who queues behind 16 full runs will hardly be answered while it still counts; without any
    bound an overload would fill the memory and make everybody late.
    """
    return asked or max(LEAST_QUEUE, QUEUED_BATCHES * max_rows * concurrency)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """max_rows: of a batch. max_delay_us: how long the oldest request may wait for company while
    a run is free; 0 takes what is queued at once. max_queue: requests that wait; one more is
    rejected. default_timeout_us: how long a request may wait; 0 is for ever. concurrency: runs at
    a time.
    """

    max_rows: int
    max_delay_us: int
    max_queue: int
    default_timeout_us: int
    concurrency: int


class _Request:
    """A request in the queue, or in a run."""

    __slots__ = ("deadline_ns", "enqueued_ns", "feeds", "future", "lane", "rows", "timer")

    def __init__(
        self, feeds: Feeds, rows: int, lane: _Lane, future: asyncio.Future[list[np.ndarray]]
    ):
        self.feeds = feeds
        self.rows = rows
        self.lane = lane
        self.future = future
        self.enqueued_ns = time.perf_counter_ns()
        self.deadline_ns: int | None = None
        self.timer: asyncio.TimerHandle | None = None

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def expired(self, now_ns: int) -> bool:
        return self.deadline_ns is not None and now_ns >= self.deadline_ns


class _Lane:
    """Requests that may share a batch, in their order. rows: of all of them."""

    __slots__ = ("key", "outputs", "requests", "rows")

    def __init__(self, key: Hashable, outputs: tuple[str, ...]):
        self.key = key
        self.outputs = outputs
        self.requests: OrderedDict[_Request, None] = OrderedDict()
        self.rows = 0

    def head(self) -> _Request:
        return next(iter(self.requests))


class Batcher:
    """Gathers requests into batches and runs them, `limits.concurrency` at a time.

    An error reaches only the request that caused it: a batch that fails is run again request by
    request. What ran is counted in `counters`. Use it from one event loop at a time.
    """

    def __init__(self, run: Run, limits: Limits, counters: Counters):
        self._run = run
        self._limits = limits
        self._counters = counters
        self._lanes: dict[Hashable, _Lane] = {}
        self._queued = 0
        self._free = limits.concurrency
        self._runs: set[asyncio.Task[None]] = set()
        self._to_dispatch: asyncio.Handle | None = None
        self._delay_timer: asyncio.TimerHandle | None = None
        self._stopping = False

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return self._queued

    def submit(
        self, feeds: Feeds, outputs: Sequence[str], timeout_us: int = 0
    ) -> asyncio.Future[list[np.ndarray]]:
        """Queue one request; the future gives its outputs, in the order of `outputs`.

        feeds: all of the same rows on their first axis, 1 to max_rows; they must not change until
        it is answered. Cancel the future to give the request up: in the queue it is dropped, in a
        run its answer is. timeout_us: how long it may wait, if that is less than the default.

        UnavailableError at once if the queue is full, or by the future if the server stops.
        DeadlineError by the future if it waited too long; then it was not run.
        """
        rows = len(next(iter(feeds.values())))
        if not 1 <= rows <= self._limits.max_rows:
            raise InputError(f"{rows} rows; at most {self._limits.max_rows} are taken")
        if self._stopping:
            raise _stopped()
        if self._queued >= self._limits.max_queue:
            self._dispatch()  # what arrived together with this one may just be waiting for it
        if self._queued >= self._limits.max_queue:
            raise UnavailableError("unavailable", "Exceeds maximum queue size")
        loop = asyncio.get_running_loop()
        outputs = tuple(outputs)
        key = (outputs, *((name, array.dtype, array.shape[1:]) for name, array in feeds.items()))
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key, outputs)
        request = _Request(feeds, rows, lane, loop.create_future())
        request.future.add_done_callback(partial(self._given_up, request))
        lane.requests[request] = None
        lane.rows += rows
        self._queued += 1
        default = self._limits.default_timeout_us
        if wait_us := min(timeout_us, default) if timeout_us and default else timeout_us or default:
            request.deadline_ns = request.enqueued_ns + wait_us * 1000
            request.timer = loop.call_later(_whole_ms(wait_us * 1000), self._expire, request)
        if self._free and self._to_dispatch is None:
            # Not at once: what else has arrived by now shall come along.
            self._to_dispatch = loop.call_soon(self._dispatch)
        return request.future

    async def drain(self, within_s: float) -> None:
        """Take no more requests, answer those that are here, and return.

        What has not begun to run after within_s is answered with an UnavailableError, and what
        still runs then is not waited for.
        """
        self._stopping = True
        self._dispatch()
        ends = time.monotonic() + within_s
        while self._runs and (left := ends - time.monotonic()) > 0:
            await asyncio.wait(self._runs, timeout=left)
        for request in self._waiting():
            self._leave(request)
            request.fail(_stopped())

    def _waiting(self) -> list[_Request]:
        return [request for lane in self._lanes.values() for request in lane.requests]

    def _given_up(self, request: _Request, future: asyncio.Future[list[np.ndarray]]) -> None:
        if request in request.lane.requests:
            self._leave(request)

    def _leave(self, request: _Request) -> None:
        """Take a request out of the queue."""
        lane = request.lane
        del lane.requests[request]
        lane.rows -= request.rows
        self._queued -= 1
        if not lane.requests and self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]
        if request.timer is not None:
            request.timer.cancel()
            request.timer = None  # it holds the request, and the request it

    def _expire(self, request: _Request) -> None:
        if request in request.lane.requests:
            if not request.expired(time.perf_counter_ns()):  # timers may be early by a little
                loop = request.future.get_loop()
                request.timer = loop.call_later(0.001, self._expire, request)
                return
            self._leave(request)
            request.fail(_too_late())

    def _dispatch(self) -> None:
        """Start a run for every lane that may go, as long as runs are free."""
        if self._to_dispatch is not None:
            self._to_dispatch.cancel()
            self._to_dispatch = None
        while self._free and self._lanes:
            now = time.perf_counter_ns()
            ready = [lane for lane in self._lanes.values() if self._due_in_ns(lane, now) <= 0]
            if not ready:
                self._wait_for_company(now)
                return
            lane = min(ready, key=_age) if len(ready) > 1 else ready[0]
            if batch := self._take(lane, now):
                self._start(lane.outputs, batch)

    def _due_in_ns(self, lane: _Lane, now_ns: int) -> int:
        """How long the lane still waits for company: not at all if its batch cannot grow."""
        if self._stopping or lane.rows >= self._limits.max_rows:
            return 0
        return lane.head().enqueued_ns + self._limits.max_delay_us * 1000 - now_ns

    def _wait_for_company(self, now_ns: int) -> None:
        if self._delay_timer is not None:
            return  # it goes off no later than any lane is due, because all wait equally long
        due_in = min(self._due_in_ns(lane, now_ns) for lane in self._lanes.values())
        loop = asyncio.get_running_loop()
        self._delay_timer = loop.call_later(_whole_ms(due_in), self._delay_is_over)

    def _delay_is_over(self) -> None:
        self._delay_timer = None
        self._dispatch()

    def _take(self, lane: _Lane, now_ns: int) -> list[_Request]:
        """The lane's next batch; may be empty, if all that waited did so for too long."""
        batch: list[_Request] = []
        room = self._limits.max_rows
        while lane.requests and (request := lane.head()).rows <= room:
            self._leave(request)
            if request.future.done():
                continue  # given up just now, its callback has not run yet
            if request.expired(now_ns):
                request.fail(_too_late())
                continue
            batch.append(request)
            room -= request.rows
        return batch

    def _start(self, outputs: tuple[str, ...], batch: list[_Request]) -> None:
        """Begin one of the free runs: here and now, if run() is no coroutine but gives a future."""
        self._free -= 1
        loop = asyncio.get_running_loop()
        running: Awaitable[Ran]
        try:
            running = self._run(outputs, [request.feeds for request in batch])
        except Exception as error:
            running = loop.create_future()
            running.set_exception(error)
        task = loop.create_task(self._finish(outputs, batch, running))
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)

    async def _finish(
        self, outputs: tuple[str, ...], batch: list[_Request], running: Awaitable[Ran]
    ) -> None:
        answers: list[tuple[_Request, list[np.ndarray]]] = []
        try:
            answers = self._split(outputs, batch, await running)
        except Exception as error:  # whatever the model raises
            if len(batch) == 1:
                batch[0].fail(error)
            else:
                await self._run_each(outputs, batch)
        except BaseException:  # the loop is being torn down
            for request in (*batch, *self._waiting()):
                request.future.cancel()
            raise
        finally:
            self._free += 1
        # The next run shall not wait until these answers are handed out.
        self._dispatch()
        for request, arrays in answers:
            if not request.future.done():
                request.future.set_result(arrays)

    async def _run_each(self, outputs: tuple[str, ...], batch: Sequence[_Request]) -> None:
        for request in batch:
            if request.future.done():
                continue
            if request.expired(time.perf_counter_ns()):
                request.fail(_too_late())
                continue
            try:
                ran = await self._run(outputs, [request.feeds])
                ((_, arrays),) = self._split(outputs, [request], ran)
            except Exception as error:
                request.fail(error)
            else:
                if not request.future.done():
                    request.future.set_result(arrays)

    def _split(
        self, outputs: tuple[str, ...], batch: Sequence[_Request], ran: Ran
    ) -> list[tuple[_Request, list[np.ndarray]]]:
        """Each request's rows of what ran, as views; and count the run."""
        rows = sum(request.rows for request in batch)
        for name, array in zip(outputs, ran.outputs, strict=True):
            if array.ndim == 0 or array.shape[0] != rows:
                raise ServerFaultError(
                    "failed",
                    f"output '{name}' has shape {list(array.shape)} for a batch of {rows} rows, so "
                    "it cannot be split; serve the model without batching",
                )
        answers = []
        begin = 0
        for request in batch:
            end = begin + request.rows
            answers.append((request, [array[begin:end] for array in ran.outputs]))
            begin = end
        self._counters.ran(
            rows,
            requests=len(batch),
            queue_ns=sum(ran.taken_ns - request.enqueued_ns for request in batch),
            input_ns=ran.began_ns - ran.taken_ns,
            infer_ns=ran.ended_ns - ran.began_ns,
            output_ns=time.perf_counter_ns() - ran.ended_ns,
        )
        return answers


def _age(lane: _Lane) -> int:
    return lane.head().enqueued_ns


def _whole_ms(wait_ns: int) -> float:
    """Seconds, rounded up to a millisecond: the loop's timers are no finer, and uvloop's would
    otherwise round to the nearest, even to none.
    """
    return max(1, -(-wait_ns // 1_000_000)) / 1000


def _too_late() -> DeadlineError:
    return DeadlineError("timeout", "Request timeout expired")


def _stopped() -> UnavailableError:
    return UnavailableError("unavailable", "the server is stopping and takes no more requests")
