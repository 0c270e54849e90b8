"""The dynamic batcher alone, on real event loops, with a numpy function for a model."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import numpy as np
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonkit.errors import DeadlineError, InputError, ServerFaultError, UnavailableError
from tritonkit.server.batcher import LACKS, Batcher, Feeds, Limits, Ran, joined, queue_bound
from tritonkit.server.counters import Counters

LONG_US = 3_600_000_000
POISON = -1.0


class PoisonError(Exception):
    """What the model raises for a batch with POISON in it."""


class Model:
    """y = 2x and z = -x. Every run waits for its turn if `gated`; `ran` has the parts of each."""

    def __init__(self, gated: bool = False):
        self.gated = gated
        self.ran: list[list[np.ndarray]] = []
        self.turns: list[asyncio.Event] = []
        self.most_at_once = self._now = 0

    async def run(self, outputs: tuple[str, ...], parts: Sequence[Feeds]) -> Ran:
        self.ran.append([part["x"] for part in parts])
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            if self.gated:
                self.turns.append(asyncio.Event())
                await self.turns[-1].wait()
        finally:
            self._now -= 1
        x = joined(parts)["x"]
        if (x == POISON).any():
            raise PoisonError
        return Ran([{"y": 2 * x, "z": -x}[name] for name in outputs], *[time.perf_counter_ns()] * 3)

    def open(self) -> None:
        """Let all runs go, now and later."""
        self.gated = False
        for turn in self.turns:
            turn.set()

    def sizes(self) -> list[list[int]]:
        """The rows of each request of each run."""
        return [[len(x) for x in parts] for parts in self.ran]

    def values(self) -> list[list[float]]:
        """The first value of each request of each run."""
        return [[float(x.ravel()[0]) for x in parts] for parts in self.ran]


def batcher_of(model: Model | Callable, counters: Counters | None = None, **limits: int) -> Batcher:
    usual = {"max_rows": 4, "max_delay_us": 0, "max_queue": 1000}
    usual |= {"default_timeout_us": 0, "concurrency": 1}
    run = model.run if isinstance(model, Model) else model
    return Batcher(run, Limits(**usual | limits), counters or Counters())


def x(value: float, rows: int = 1, width: int = 2, dtype: type = np.float32) -> Feeds:
    return {"x": np.full((rows, width), value, dtype)}


async def settle() -> None:
    """Let everything happen that needs no more than turns of the loop."""
    for _ in range(8):
        await asyncio.sleep(0)


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on asyncio's loop and on uvloop's, whose timers differ."""

    @pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
    def run(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(asyncio.wait_for(test(), 60))

    run.__doc__ = test.__doc__
    run.__name__ = test.__name__
    return run


@on_a_loop
async def test_each_gets_its_own_rows():
    """Requests that shared a run get the rows that they brought, in every output."""
    model = Model()
    batcher = batcher_of(model, max_rows=8)
    futures = [batcher.submit(x(i, rows), ["z", "y"]) for i, rows in enumerate([1, 3, 2])]
    answers = await asyncio.gather(*futures)
    assert model.sizes() == [[1, 3, 2]]
    for i, (rows, (z, y)) in enumerate(zip([1, 3, 2], answers, strict=True)):
        assert z.tolist() == [[-i, -i]] * rows and y.tolist() == [[2 * i, 2 * i]] * rows


@on_a_loop
async def test_what_waits_goes_when_a_run_is_free():
    """Without a delay a run takes at once what is there, and the next what came meanwhile."""
    model = Model(gated=True)
    batcher = batcher_of(model)
    first = batcher.submit(x(0), ["y"])
    await settle()
    rest = [batcher.submit(x(i), ["y"]) for i in (1, 2, 3)]
    await settle()
    assert model.values() == [[0]] and batcher.queued == 3
    model.open()
    await asyncio.gather(first, *rest)
    assert model.values() == [[0], [1, 2, 3]] and batcher.queued == 0


@on_a_loop
async def test_a_batch_is_never_above_the_maximum():
    """A batch ends before the request that would push it above the maximum; none is split."""
    model = Model()
    batcher = batcher_of(model)
    await asyncio.gather(*(batcher.submit(x(0, rows), ["y"]) for rows in (3, 3, 2, 2, 4, 1)))
    assert model.sizes() == [[3], [3], [2, 2], [4], [1]]


@on_a_loop
async def test_a_small_request_does_not_overtake():
    """A request that would still fit waits behind the one before it that does not."""
    model = Model()
    batcher = batcher_of(model)
    await asyncio.gather(*(batcher.submit(x(0, rows), ["y"]) for rows in (3, 2, 1)))
    assert model.sizes() == [[3], [2, 1]]


@on_a_loop
async def test_like_requests_meet_across_others():
    """Shapes that alternate make full batches, and the oldest request's goes first."""
    model = Model()
    batcher = batcher_of(model)
    widths = (2, 3, 2, 3, 3)
    await asyncio.gather(*(batcher.submit(x(i, 1, w), ["y"]) for i, w in enumerate(widths)))
    assert model.values() == [[0, 2], [1, 3, 4]]


@pytest.mark.parametrize(
    "other",
    [(x(1, 1, 3), ["y"]), (x(1, dtype=np.float64), ["y"]), (x(1), ["z"]), (x(1), ["y", "z"])],
    ids=["shape", "dtype", "output", "outputs"],
)
def test_what_differs_does_not_share(other):
    """Requests of another shape, type or wish for outputs run apart."""
    model = Model()

    async def ask():
        batcher = batcher_of(model)
        return await asyncio.gather(batcher.submit(x(0), ["y"]), batcher.submit(*other))

    _, answer = asyncio.run(ask())
    assert model.values() == [[0], [1]] and len(answer) == len(other[1])


@on_a_loop
async def test_runs_at_a_time():
    """So many runs are made at a time as the limit says, and no more."""
    model = Model(gated=True)
    batcher = batcher_of(model, max_rows=1, concurrency=2)
    futures = [batcher.submit(x(i), ["y"]) for i in range(5)]
    await settle()
    assert len(model.turns) == 2
    model.turns[1].set()
    await settle()
    assert model.values() == [[0], [1], [2]] and not futures[0].done() and futures[1].done()
    model.open()
    await asyncio.gather(*futures)
    assert model.most_at_once == 2


@on_a_loop
async def test_a_delay_waits_for_company():
    """With a delay a request waits although a run is free; a full batch goes at once."""
    model = Model()
    batcher = batcher_of(model, max_delay_us=LONG_US)
    futures = [batcher.submit(x(i), ["y"]) for i in range(3)]
    await settle()
    assert model.ran == []
    futures.append(batcher.submit(x(3), ["y"]))
    await asyncio.gather(*futures)
    assert model.values() == [[0, 1, 2, 3]]


@on_a_loop
async def test_a_batch_that_cannot_grow_goes_at_once():
    """A delay is not waited for if the next request does not fit."""
    model = Model()
    batcher = batcher_of(model, max_delay_us=LONG_US)
    first, second = batcher.submit(x(0, 3), ["y"]), batcher.submit(x(1, 2), ["y"])
    await first
    assert model.values() == [[0]] and not second.done()
    second.cancel()


@on_a_loop
async def test_a_full_batch_does_not_wait_behind_another_lane():
    """A full batch goes while an older request of another shape waits for company."""
    model = Model()
    batcher = batcher_of(model, max_delay_us=LONG_US, max_rows=2)
    older = batcher.submit(x(0, 1, 3), ["y"])
    await asyncio.gather(batcher.submit(x(1), ["y"]), batcher.submit(x(2), ["y"]))
    assert model.values() == [[1, 2]] and not older.done()
    older.cancel()


@on_a_loop
async def test_a_delay_ends():
    """A request without company goes by itself once its delay is over, not before."""
    began = time.perf_counter_ns()
    (y,) = await batcher_of(Model(), max_delay_us=2400).submit(x(1), ["y"])
    assert y.tolist() == [[2, 2]] and time.perf_counter_ns() - began >= 2_400_000


@on_a_loop
async def test_a_delay_is_not_waited_for_busily():
    """A delay that is shorter than the loop's timers can be takes a timer, not a hundred turns."""
    batcher = batcher_of(Model(), max_delay_us=300)
    looks = []
    batcher._wait_for_company = lambda now: looks.append(Batcher._wait_for_company(batcher, now))
    await batcher.submit(x(0), ["y"])
    assert len(looks) <= 3


@on_a_loop
async def test_a_full_queue_rejects_at_once():
    """A request that finds the queue full is refused in Triton's words; the others are served."""
    model = Model(gated=True)
    batcher = batcher_of(model, max_queue=2)
    futures = [batcher.submit(x(0), ["y"])]
    await settle()
    futures += [batcher.submit(x(i), ["y"]) for i in (1, 2)]
    with pytest.raises(UnavailableError, match=r"^Exceeds maximum queue size$") as raised:
        batcher.submit(x(3), ["y"])
    assert raised.value.kind == "unavailable" and batcher.queued == 2
    model.open()
    await asyncio.gather(*futures)
    assert model.values() == [[0], [1, 2]]
    assert (await batcher.submit(x(4), ["y"]))[0].tolist() == [[8, 8]]


@on_a_loop
async def test_what_can_run_at_once_does_not_queue():
    """Requests that arrive together while runs are free are not refused for a short queue."""
    model = Model()
    batcher = batcher_of(model, max_queue=2, concurrency=2)
    await asyncio.gather(*(batcher.submit(x(i), ["y"]) for i in range(6)))
    assert model.values() == [[0, 1], [2, 3], [4, 5]]


@on_a_loop
async def test_a_cancelled_request_is_not_run():
    """Who gives up in the queue is dropped, and makes room for another at once."""
    model = Model(gated=True)
    batcher = batcher_of(model, max_queue=2)
    futures = [batcher.submit(x(0), ["y"])]
    await settle()
    futures += [batcher.submit(x(i), ["y"]) for i in (1, 2)]
    futures[1].cancel()
    await settle()
    assert batcher.queued == 1
    futures.append(batcher.submit(x(3), ["y"]))
    model.open()
    await asyncio.gather(*futures, return_exceptions=True)
    assert model.values() == [[0], [2, 3]] and futures[1].cancelled()


@on_a_loop
async def test_cancelled_in_the_very_turn_of_the_dispatch():
    """A request that is given up just before its batch is formed is not run either."""
    model = Model()
    batcher = batcher_of(model)
    futures = [batcher.submit(x(i), ["y"]) for i in (0, 1)]
    futures[0].cancel()
    await futures[1]
    assert model.values() == [[1]] and batcher.queued == 0


@on_a_loop
async def test_cancelled_in_a_run():
    """Who gives up during a run does no harm to the others of the batch."""
    model = Model(gated=True)
    batcher = batcher_of(model)
    futures = [batcher.submit(x(i), ["y"]) for i in (1, 2, 3)]
    await settle()
    futures[1].cancel()
    model.open()
    first, _, last = await asyncio.gather(*futures, return_exceptions=True)
    assert first[0].tolist() == [[2, 2]] and last[0].tolist() == [[6, 6]]
    assert futures[1].cancelled()


@on_a_loop
async def test_a_cancelled_task():
    """Cancelling the task that waits gives its request up."""
    model = Model(gated=True)
    batcher = batcher_of(model)
    first = batcher.submit(x(0), ["y"])
    await settle()

    async def caller():
        await batcher.submit(x(1), ["y"])

    task = asyncio.create_task(caller())
    await settle()
    assert batcher.queued == 1
    task.cancel()
    await settle()
    assert batcher.queued == 0
    model.open()
    await first
    assert model.values() == [[0]]


@pytest.mark.parametrize(("default", "own"), [(0, 1500), (1500, 0), (1500, LONG_US), (LONG_US, 99)])
def test_a_deadline_that_passes(default, own):
    """Who waits longer than the shorter of both timeouts is told so meanwhile, and never run."""

    async def ask():
        model = Model(gated=True)
        batcher = batcher_of(model, default_timeout_us=default)
        first = batcher.submit(x(0), ["y"], LONG_US)
        await settle()
        began = time.perf_counter_ns()
        late = batcher.submit(x(1), ["y"], own)
        with pytest.raises(DeadlineError, match=r"^Request timeout expired$") as raised:
            await late
        assert raised.value.kind == "timeout" and not first.done() and batcher.queued == 0
        assert time.perf_counter_ns() - began >= min(t for t in (default, own) if t) * 1000
        model.open()
        await first
        assert model.values() == [[0]]

    for new_loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(asyncio.wait_for(ask(), 60))


@on_a_loop
async def test_a_deadline_that_passed_unseen():
    """Who is too late when a run gets free is not run, even if no timer has said so yet."""
    model = Model(gated=True)
    batcher = batcher_of(model)
    first = batcher.submit(x(0), ["y"])
    await settle()
    futures = [batcher.submit(x(1), ["y"], 50), batcher.submit(x(2), ["y"])]
    until = time.perf_counter_ns() + 60_000
    while time.perf_counter_ns() < until:  # the loop is busy elsewhere
        pass
    model.open()
    late, good = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(late, DeadlineError) and good[0].tolist() == [[4, 4]]
    await first
    assert model.values() == [[0], [2]]


@on_a_loop
async def test_a_deadline_that_is_kept():
    """Who is served in time is served, and its timer does nothing afterwards."""
    batcher = batcher_of(Model())
    (y,) = await batcher.submit(x(1), ["y"], 60_000_000)
    assert y.tolist() == [[2, 2]]


@on_a_loop
async def test_poison_reaches_only_its_own_request():
    """A batch that fails is run again request by request, and only the bad one's caller is told."""
    model, counters = Model(), Counters()
    batcher = batcher_of(model, counters, max_rows=8)
    futures = [batcher.submit(x(v, 2), ["y"]) for v in (1, POISON, 3)]
    good, bad, other = await asyncio.gather(*futures, return_exceptions=True)
    assert good[0].tolist() == [[2, 2]] * 2 and other[0].tolist() == [[6, 6]] * 2
    assert isinstance(bad, PoisonError)
    assert model.values() == [[1, POISON, 3], [1], [POISON], [3]]
    ran = counters.as_json("m")["model_stats"][0]
    assert (ran["inference_count"], ran["execution_count"]) == (4, 2)
    assert (await batcher.submit(x(5), ["y"]))[0].tolist() == [[10, 10]]


@on_a_loop
async def test_poison_alone():
    """A request that fails by itself is not tried twice."""
    model = Model()
    with pytest.raises(PoisonError):
        await batcher_of(model).submit(x(POISON), ["y"])
    assert len(model.ran) == 1


@on_a_loop
async def test_a_run_that_cannot_begin():
    """A batch whose run cannot even begin is a batch that failed, and its run is free again."""
    model = Model()

    def run(outputs, parts):
        if len(parts) > 1:
            raise PoisonError
        return model.run(outputs, parts)

    batcher = batcher_of(run)
    for _ in range(2):
        answers = await asyncio.gather(*(batcher.submit(x(i), ["y"]) for i in range(2)))
        assert [y.tolist() for (y,) in answers] == [[[0, 0]], [[2, 2]]]


@on_a_loop
async def test_a_retry_leaves_out_who_is_gone():
    """Of a batch that failed, who gave up or is too late meanwhile is not run again."""
    model = Model(gated=True)
    batcher = batcher_of(model)
    values = ((POISON, 0), (1, 0), (2, 500_000), (3, 0))
    futures = [batcher.submit(x(v), ["y"], timeout) for v, timeout in values]
    await settle()
    assert len(model.ran) == 1
    futures[1].cancel()
    time.sleep(0.5)  # the loop is busy elsewhere
    model.open()
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert model.values() == [[POISON, 1, 2, 3], [POISON], [3]]
    assert [type(o) for o in outcomes] == [
        *(PoisonError, asyncio.CancelledError, DeadlineError, list)
    ]


@pytest.mark.parametrize("shape", [(), (1,), (3, 2)])
def test_an_output_without_the_batch(shape):
    """An output whose leading size is not the batch's cannot be split: an error that names it."""

    async def run(outputs, parts):
        rows = len(joined(parts)["x"])
        return Ran([np.zeros((rows, 2)), np.zeros(shape)], 0, 0, 0)

    async def ask():
        batcher = batcher_of(run)
        futures = [batcher.submit(x(i, 2), ["y", "odd"]) for i in range(2)]
        return await asyncio.gather(*futures, return_exceptions=True)

    for error in asyncio.run(ask()):
        assert isinstance(error, ServerFaultError) and error.kind == "failed"
        assert str(error).startswith(f"output 'odd' has shape {list(shape)} for a batch of 2 rows")


@pytest.mark.parametrize("rows", [0, 5])
def test_rows_that_fit_no_batch(rows):
    """A request of no rows, or of more than the largest batch, is refused."""

    async def ask():
        batcher_of(Model()).submit(x(0, rows), ["y"])

    with pytest.raises(InputError, match=f"{rows} rows; at most 4 are taken"):
        asyncio.run(ask())


@on_a_loop
async def test_drain():
    """A drain answers all that wait, delay or not, and takes no more."""
    model = Model(gated=True)
    batcher = batcher_of(model, max_delay_us=LONG_US)
    futures = [batcher.submit(x(i, 3), ["y"]) for i in range(3)]
    await settle()
    draining = asyncio.create_task(batcher.drain(60))
    await settle()
    with pytest.raises(UnavailableError, match="is stopping") as raised:
        batcher.submit(x(9), ["y"])
    assert raised.value.kind == "unavailable" and not draining.done()
    model.open()
    await draining
    assert [f.result()[0][0, 0] for f in futures] == [0, 2, 4]


@on_a_loop
async def test_a_drain_that_takes_too_long():
    """What has not begun when the time is over is refused, so that everybody gets an answer."""
    model = Model(gated=True)
    batcher = batcher_of(model, max_rows=1)
    running, *waiting = [batcher.submit(x(i), ["y"]) for i in range(3)]
    await settle()
    await batcher.drain(0.01)
    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(error, UnavailableError)
    model.open()
    assert (await running)[0].tolist() == [[0, 0]] and model.values() == [[0]]


def test_a_loop_that_ends():
    """When the loop is torn down in the middle of a run nobody is left waiting."""
    model = Model(gated=True)
    futures = []

    async def ask():
        batcher = batcher_of(model, max_rows=1)
        futures.extend(batcher.submit(x(i), ["y"]) for i in range(3))
        await settle()

    asyncio.run(ask())
    assert all(future.cancelled() for future in futures) and model.values() == [[0]]


def test_counters():
    """A run's times count once for it and once for each of its requests, queueing each its own."""
    counters = Counters()
    enqueued = []

    async def run(outputs, parts):
        taken = max(enqueued) + 1_000
        rows = len(joined(parts)["x"])
        return Ran([np.zeros((rows, 1))], taken, taken + 20, taken + 320)

    async def ask():
        batcher = batcher_of(run, counters)
        futures = [batcher.submit(x(0, rows), ["y"]) for rows in (1, 2)]
        enqueued.extend(r.enqueued_ns for r in batcher._waiting())
        await asyncio.gather(*futures)

    asyncio.run(ask())
    (statistics,) = counters.as_json("m")["model_stats"]
    assert (statistics["inference_count"], statistics["execution_count"]) == (3, 1)
    stats = statistics["inference_stats"]
    assert stats["queue"] == {"count": 2, "ns": 2_000 + enqueued[1] - enqueued[0]}
    assert stats["compute_input"] == {"count": 2, "ns": 40}
    assert stats["compute_infer"] == {"count": 2, "ns": 600}
    (batch,) = statistics["batch_stats"]
    assert batch["batch_size"] == 3 and batch["compute_infer"] == {"count": 1, "ns": 300}
    assert stats["compute_output"]["ns"] == 2 * batch["compute_output"]["ns"]


def test_one_request_is_not_copied():
    """The inputs of a lone request are run as they are; those of several are put together."""
    one, two = x(1), x(2)
    assert joined([one])["x"] is one["x"]
    assert joined([one, two])["x"].tolist() == [[1, 1], [2, 2]]


def test_queue_bound():
    """The bound that was asked for holds; without one there is still one, above any real use."""
    assert queue_bound(3, 64, 2) == 3
    assert queue_bound(0, 4, 1) == 1024
    assert queue_bound(0, 64, 2) == 2048


def test_what_it_lacks_is_said_in_short_phrases():
    """The list for the report is of single lines without a full stop."""
    assert all(len(phrase) < 100 and phrase[-1] != "." and "\n" not in phrase for phrase in LACKS)


def test_nothing_is_left_of_100_000_requests():
    """After a hundred thousand requests, some given up, late or bad, nothing of them remains."""

    async def user(batcher: Batcher, model: Model, i: int) -> None:
        for turn in range(1000):
            value = POISON if (i, turn % 250) == (7, 3) else float(turn)
            future = batcher.submit(x(value, 1, 2 + i % 3), ["y"], 10**8 * (i % 2))
            if i == 5 and turn % 10 == 0:
                future.cancel()
            try:
                (y,) = await future
                assert y[0, 0] == 2 * value
            except (PoisonError, asyncio.CancelledError):
                pass

    async def ask():
        model = Model()
        batcher = batcher_of(model, max_rows=16)
        await asyncio.gather(*(user(batcher, model, i) for i in range(100)))
        await settle()
        model.ran.clear()
        gc.collect()
        kinds = [type(thing).__name__ for thing in gc.get_objects()]
        left = {k: kinds.count(k) for k in ("_Request", "_Lane", "TimerHandle")}
        assert left == {"_Request": 0, "_Lane": 0, "TimerHandle": 0}
        assert len(asyncio.all_tasks()) == 1
        assert (batcher.queued, batcher._lanes, batcher._runs, batcher._free) == (0, {}, set(), 1)

    asyncio.run(ask())


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"),
            st.integers(1, 4),
            st.sampled_from([2, 3]),
            st.sampled_from([("y",), ("z", "y")]),
            st.sampled_from([False, False, False, True]),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("release")),
        st.tuples(st.just("turn")),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(
    STEPS,
    st.sampled_from([1, 2]),
    st.sampled_from([2, 5, 1000]),
    st.sampled_from([0, LONG_US]),
)
def test_whatever_happens(steps, concurrency, max_queue, delay):
    """Of any requests, in any order of events, each ends once and rightly; no batch is above the
    maximum or of mixed kinds; like requests run in their order; who gave up is not run.
    """
    asyncio.run(
        asyncio.wait_for(_whatever_happens(steps, concurrency, max_queue, delay), timeout=60)
    )


async def _whatever_happens(steps, concurrency, max_queue, delay):
    model = Model(gated=True)
    limits = {"concurrency": concurrency, "max_queue": max_queue, "max_delay_us": delay}
    batcher = batcher_of(model, **limits)
    ended = defaultdict(int)
    sent, run_before_cancel, rejected = [], {}, 0
    for step in steps:
        if step[0] == "submit":
            _, rows, width, outputs, poison = step
            feeds = x(len(sent) + 1, rows, width)
            if poison:
                feeds["x"][-1, -1] = POISON
            queued = batcher.queued
            try:
                future = batcher.submit(feeds, outputs)
            except UnavailableError:
                assert queued >= max_queue
                rejected += 1
                continue
            sent.append((future, feeds["x"], outputs, poison))
            future.add_done_callback(
                partial(lambda i, _: ended.update({i: ended[i] + 1}), len(sent))
            )
        elif step[0] == "cancel" and step[1] < len(sent):
            future = sent[step[1]][0]
            if future.cancel():
                started = {int(v) for batch in model.values() for v in batch}
                run_before_cancel[step[1]] = step[1] + 1 in started
        elif step[0] == "release":
            for turn in model.turns:
                if not turn.is_set():
                    turn.set()
                    break
        elif step[0] == "turn":
            await settle()
        assert batcher.queued <= max_queue
    draining = asyncio.create_task(batcher.drain(60))
    await settle()
    model.open()
    await draining
    outcomes = await asyncio.gather(*(s[0] for s in sent), return_exceptions=True)
    assert len(outcomes) + rejected == sum(step[0] == "submit" for step in steps)
    for i, ((_, array, outputs, poison), outcome) in enumerate(zip(sent, outcomes, strict=True)):
        assert ended[i + 1] == 1
        if i in run_before_cancel:
            assert isinstance(outcome, asyncio.CancelledError)
        elif poison:
            assert isinstance(outcome, PoisonError)
        else:
            wanted = [{"y": 2 * array, "z": -array}[name] for name in outputs]
            assert [o.tolist() for o in outcome] == [w.tolist() for w in wanted]
    kinds = {i + 1: (s[1].shape[1], s[2]) for i, s in enumerate(sent)}
    first_run = []
    for batch, rows in zip(model.values(), model.sizes(), strict=True):
        assert sum(rows) <= 4
        assert len({kinds[int(value)] for value in batch}) == 1
        first_run += [int(value) for value in batch if int(value) not in first_run]
    for kind in set(kinds.values()):
        ids = [i for i in first_run if kinds[i] == kind]
        assert ids == sorted(ids)
    for i, began in run_before_cancel.items():
        assert (i + 1 in first_run) == began
    assert model.most_at_once <= concurrency
    assert (batcher.queued, batcher._lanes, batcher._runs) == (0, {}, set())
    assert batcher._free == concurrency
