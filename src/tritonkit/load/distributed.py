"""Several processes that load one server together: a Locust master and its workers.

A level of many samples goes to the master as it is measured, raw, by messages of Locust's:

| message | from | says |
|---|---|---|
| call | master | asks whether it listens to these messages yet, as they would be lost before |
| here | worker | that it does |
| begin | master | which of how many workers it is; in `run_level` also the level and its requests |
| ready | worker | that it can start, or the error why not |
| start | master | when, by the clock of the wall |
| samples | worker | those of about a second |
| finish | master | that the level ends now, and whether what is under way is given up |
| done | worker | how many samples it has sent in all, and its CPU |

From begin on they carry the number of the test, because one that was given up may still be
answered.

The times of each worker count from its own start. Workers on one host start together; on several
hosts as nearly so as their clocks agree.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gevent
from locust.rpc import Message
from locust.runners import HEARTBEAT_LIVENESS, MasterRunner, WorkerRunner

from tritonkit.errors import InputError, TritonkitError
from tritonkit.load.user import Run
from tritonkit.samples import Sample

log = logging.getLogger(__name__)

CALL, HERE, BEGIN, READY, START, SAMPLES, FINISH, DONE = (
    f"tritonkit {word}"
    for word in ("call", "here", "begin", "ready", "start", "samples", "finish", "done")
)

LEAD_S = 0.1
"""From when all workers are ready to the start: so long may a message take."""

_CHUNK = 50_000  # samples in a message
_FLUSH_S = 1.0
_SKEW_NS = 2_000_000_000  # beyond it a worker's clock is of no use
_SILENT_S = 8
"""After so long without one of Locust's heartbeats, one a second, a worker is taken for lost.
Locust calls it missing after 4 s; on a busy machine one comes back after that.
"""


@dataclass
class Part:
    """What the master knows of one worker's part of a test."""

    worker: str
    index: int
    ready: bool = False
    error: TritonkitError | None = None
    samples: list[Sample] = field(default_factory=list)
    sent: int | None = None  # as the worker says, when it is done
    cpu: float = 0.0
    length_s: float = 0.0
    first_in_line: bool = False
    lost: bool = False  # it has ended, or is not heard of any more
    pid: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be expected of it."""
        return self.sent is not None or self.lost


class Parts:
    """The master's side of one test after another: the parts of all workers of the present one."""

    def __init__(self, runner: MasterRunner):
        self._runner = runner
        self._test = 0
        self._here: set[str] = set()
        self.parts: dict[str, Part] = {}
        for message, listener in (
            (HERE, self._on_here),
            (READY, self._on_ready),
            (SAMPLES, self._on_samples),
            (DONE, self._on_done),
        ):
            runner.register_message(message, listener)

    def have(self, workers: Iterable[str]) -> bool:
        """Whether all of them listen, by their ids. Calls those that have not answered, so ask
        until it is so: Locust has a worker ready before it has read what is to listen there.
        """
        silent = set(workers) - self._here
        for worker in silent:
            self._runner.send_message(CALL, {}, worker)
        return not silent

    def begin(self, workers: Sequence[str], what: Mapping[str, Any]) -> None:
        """Tell the workers, by their ids, that a test begins, and which of them each is."""
        self._test += 1
        self.parts = {worker: Part(worker, i) for i, worker in enumerate(workers)}
        for part in self.parts.values():
            self._send(BEGIN, {**what, "index": part.index, "of": len(workers)}, part)

    @property
    def are_ready(self) -> bool:
        """Whether all can start, or have said why not, or are lost."""
        return all(part.ready or part.lost for part in self.parts.values())

    @property
    def are_over(self) -> bool:
        """Whether nothing more is to be expected."""
        return all(part.is_over for part in self.parts.values())

    @property
    def error(self) -> TritonkitError | None:
        """The first reason why a worker cannot start."""
        return next((part.error for part in self.parts.values() if part.error), None)

    def start(self) -> None:
        """Let all start at one time, LEAD_S from now."""
        now_ns = time.time_ns()
        for part in self.parts.values():
            self._send(START, {"now_ns": now_ns, "at_ns": now_ns + int(LEAD_S * 1e9)}, part)

    def finish(self, *, cancel: bool = False) -> None:
        """Let the level end now. cancel: and what is under way too."""
        for part in self.parts.values():
            if not part.is_over:
                self._send(FINISH, {"cancel": cancel}, part)

    def wait_until_over(self, timeout_s: float) -> None:
        """Until all have delivered that still can."""
        deadline = time.monotonic() + timeout_s
        while not self.are_over and time.monotonic() < deadline:
            gevent.sleep(0.02)
            self.look_for_lost()

    def look_for_lost(self) -> None:
        """Take for lost whose heartbeats have stopped: there is nothing else to know it by where
        workers are on other hosts.
        """
        for part in self.parts.values():
            node = self._runner.clients.get(part.worker)
            # Locust counts it down each second, from HEARTBEAT_LIVENESS at each heartbeat.
            if node is None or node.heartbeat < HEARTBEAT_LIVENESS - _SILENT_S:
                part.lost = part.lost or not part.is_over

    def samples(self) -> list[Sample]:
        """All that was delivered, in the order of their intended starts."""
        return sorted(s for part in self.parts.values() for s in part.samples)

    def losses(self) -> Iterator[str]:
        """What is missing when the test is over, one line for each worker."""
        for part in self.parts.values():
            name = f"load worker {part.index}" + (f" (process {part.pid})" if part.pid else "")
            got = len(part.samples)
            if part.sent is None:
                yield f"{name} ended before its time; {got} of its samples had come"
            elif part.sent != got:
                yield f"{name} sent {part.sent} samples and {got} came"

    def _send(self, message: str, what: Mapping[str, Any], part: Part) -> None:
        self._runner.send_message(message, {**what, "test": self._test}, part.worker)

    def _part(self, msg: Message) -> Part | None:
        part = self.parts.get(msg.node_id)
        return part if part is not None and msg.data["test"] == self._test else None

    def _on_here(self, msg: Message, **_: Any) -> None:
        self._here.add(msg.node_id)

    def _on_ready(self, msg: Message, **_: Any) -> None:
        if (part := self._part(msg)) is not None:
            part.ready, part.pid = True, msg.data["pid"]
            if (text := msg.data["error"]) is not None:
                # exit_code tells the user's mistakes, which are InputErrors, from failures.
                part.error = (InputError if msg.data["exit_code"] == 2 else TritonkitError)(text)

    def _on_samples(self, msg: Message, **_: Any) -> None:
        if (part := self._part(msg)) is not None:
            part.samples.extend(Sample(*sample) for sample in msg.data["samples"])

    def _on_done(self, msg: Message, **_: Any) -> None:
        if (part := self._part(msg)) is not None:
            part.sent, part.cpu = msg.data["sent"], msg.data["cpu"]
            part.length_s, part.first_in_line = msg.data["length_s"], msg.data["first_in_line"]


class Delivery:
    """A worker's side of one test after another.

    on_begin: called with what `begin` says, before Locust starts the users. on_start: with the
    time to start at, of `time.perf_counter_ns`. on_finish: with whether to cancel.
    """

    def __init__(
        self,
        runner: WorkerRunner,
        *,
        on_begin: Callable[[Mapping[str, Any]], None],
        on_start: Callable[[int], None],
        on_finish: Callable[[bool], None],
    ):
        self._runner = runner
        self._calls = on_begin, on_start, on_finish
        self._test = 0
        self._sent = 0
        self._is_done = True
        for message, listener, concurrent in (
            (CALL, self._on_call, False),
            (BEGIN, self._on_begin, False),  # Locust's order to start the users comes next
            (START, self._on_start, False),
            (FINISH, self._on_finish, True),
        ):
            runner.register_message(message, listener, concurrent)

    @property
    def is_under_way(self) -> bool:
        """Whether a test has begun and is not yet done."""
        return not self._is_done

    def ready(self, error: TritonkitError | None = None) -> None:
        """Tell the master that this worker can start, or why it cannot."""
        text, exit_code = (None, 0) if error is None else (str(error), error.exit_code)
        self._send(READY, {"pid": os.getpid(), "error": text, "exit_code": exit_code})

    def keep_delivering(self, run: Run) -> None:
        """Send what is measured, about each second, until it is done."""
        test = self._test

        def deliver() -> None:
            while not self._is_done and self._test == test:
                self._flush(run)
                gevent.sleep(_FLUSH_S)

        gevent.spawn(deliver)

    def done(self, run: Run, *, cpu: float, first_in_line: bool) -> None:
        """Send the rest, when nothing more is to be expected of the run. Once for each test."""
        if self._is_done:
            return
        self._flush(run)
        self._is_done = True
        said = {"sent": self._sent, "cpu": cpu, "first_in_line": first_in_line}
        self._send(DONE, {**said, "length_s": run.length_s})

    def _flush(self, run: Run) -> None:
        samples, run.samples = run.samples, []
        for i in range(0, len(samples), _CHUNK):
            chunk = samples[i : i + _CHUNK]
            self._send(SAMPLES, {"samples": chunk})
            self._sent += len(chunk)

    def _send(self, message: str, what: dict[str, Any]) -> None:
        self._runner.send_message(message, {**what, "test": self._test})

    def _on_call(self, msg: Message, **_: Any) -> None:
        self._runner.send_message(HERE, {})

    def _on_begin(self, msg: Message, **_: Any) -> None:
        self._test, self._sent, self._is_done = msg.data["test"], 0, False
        self._calls[0](msg.data)

    def _on_start(self, msg: Message, **_: Any) -> None:
        if msg.data["test"] == self._test and not self._is_done:
            self._calls[1](_here(msg.data["now_ns"], msg.data["at_ns"]))

    def _on_finish(self, msg: Message, **_: Any) -> None:
        if msg.data["test"] == self._test and not self._is_done:
            self._calls[2](msg.data["cancel"])


def _here(now_ns: int, at_ns: int) -> int:
    """A time of the master's clock as `time.perf_counter_ns` of this process; now_ns: when it
    was told.
    """
    wall_ns, here_ns = time.time_ns(), time.perf_counter_ns()
    if abs(wall_ns - now_ns) > _SKEW_NS:
        log.warning(
            "the clocks of this host and the master's differ by %.0f s: this worker starts when "
            "the message comes, not by the clock; let both hosts use NTP",
            (wall_ns - now_ns) / 1e9,
        )
        wall_ns = now_ns
    return here_ns + at_ns - wall_ns
