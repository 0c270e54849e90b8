"""One process's part of a level: its users, from before they connect until the last has gone."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Literal

import gevent
from gevent.hub import Hub
from locust.runners import Runner

from tritonkit.client.address import parse_address
from tritonkit.client.transport import InferRequest
from tritonkit.errors import InputError
from tritonkit.load.arrivals import POISSON, Arrivals, share
from tritonkit.load.priority import first_in_line
from tritonkit.load.sharing import SharedRequests
from tritonkit.load.user import CONNECT_S, DRAIN_S, InferUser, Run
from tritonkit.samples import Sample

# Ctrl-C ends the program as ever; without this gevent prints it as an error first.
Hub.NOT_ERROR = (*Hub.NOT_ERROR, KeyboardInterrupt)

_LOOK_S = 0.02


@dataclass(frozen=True)
class Level:
    """One level of load.

    mode: `closed`, offered = users; `open`, offered = requests per second, which arrive by
    `arrivals`. duration_s: in which all requests are started; the warm-up is part of it.
    """

    mode: Literal["closed", "open"]
    offered: float
    duration_s: float
    seed: int = 0
    arrivals: Arrivals = POISSON


@dataclass(frozen=True)
class LevelRun:
    """What a level left behind.

    samples: one for each request, in the order of their intended starts. generator_cpu: CPU
    seconds per wall second of the busiest process that sent, while requests were started; not of
    the wait for the last answers. first_in_line: whether all of them ran ahead of the other
    processes of the machine; see `priority`.
    """

    samples: list[Sample]
    generator_cpu: float
    first_in_line: bool = False


@dataclass(frozen=True)
class Sending:
    """How requests are sent; see `runner.run_level`."""

    timeout_s: float
    connections: int
    streaming: bool
    shared_memory: bool


class LevelUser(InferUser):
    """A user of a level, without Locust's own statistics, which cost CPU."""

    abstract = True
    reports = False


def new_user_class() -> type[LevelUser]:
    """A class for one level: its users are made by Locust, and find their run on it."""
    made: type[LevelUser] = type("BoundUser", (LevelUser,), {"run_state": Run([], iter(()), None)})
    return made


def users_of(level: Level, sending: Sending) -> int:
    """How many users a level has, in all processes together."""
    return sending.connections if level.mode == "open" else int(level.offered)


def require_sense(
    address: str, requests: Sequence[InferRequest], level: Level, sending: Sending
) -> None:
    """InputError for a level that cannot be run."""
    if not requests:
        raise InputError("no requests to send; give at least one")
    if not 0 < level.duration_s < math.inf:
        raise InputError(f"a level of {level.duration_s:g} s: give more than 0 seconds")
    if users_of(level, sending) < 1:
        what = "users" if level.mode == "closed" else "connections"
        raise InputError(f"no {what}: at least 1 is needed to send anything")
    protocol = parse_address(address).protocol
    if sending.streaming and protocol != "grpc":
        raise InputError(f"{address}: Triton streams over gRPC only; give its grpc:// address")


class Generator:
    """The users that one process has of a level. index, of: which of how many processes.

    A context manager: on leaving it a server forgets the shared memory that it was told of.
    """

    def __init__(
        self,
        user: type[LevelUser],
        address: str,
        requests: Sequence[InferRequest],
        level: Level,
        sending: Sending,
        index: int = 0,
        of: int = 1,
    ):
        arrivals = None
        if level.mode == "open":
            whole = level.arrivals.starts(level.offered, level.duration_s, level.seed)
            arrivals = share(whole, index, of)
        self.run = Run(requests, arrivals, level.duration_s, index=index, of=of)
        self.ahead = False
        self.busy = 0.0
        self._duration_s = level.duration_s
        self._give_up_after_s = level.duration_s + DRAIN_S + sending.timeout_s
        self._shared = None
        if sending.shared_memory:
            most = -(-users_of(level, sending) // of)
            self._shared = SharedRequests(address, requests, most)
        user.run_state = self.run
        user.timeout_s = sending.timeout_s
        user.streaming = sending.streaming
        user.shared = self._shared

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shared is not None:
            self._shared.close()

    def wait_for_users(self, users: int) -> None:
        """Until so many are connected. Not for ever: the server may hang, and that is data."""
        deadline = time.monotonic() + CONNECT_S + 1.0
        while self.run.ready < users and time.monotonic() < deadline:
            gevent.sleep(_LOOK_S / 4)

    def send(self, runner: Runner, start_ns: int, stop: Callable[[], object]) -> None:
        """Send everything, from `start_ns` (time.perf_counter_ns) on, until all is answered, the
        time for that is up, or `stop()` is true. There is a sample for every request then.
        """
        run, users, start_s = self.run, runner.user_greenlets, start_ns / 1e9

        def wait_until(end_s: float) -> None:
            while users and (left_s := end_s - time.perf_counter()) > 0 and not stop():
                gevent.sleep(min(_LOOK_S, left_s))

        with first_in_line() as self.ahead:
            run.start(start_ns)
            cpu = time.process_time()
            wait_until(start_s + self._duration_s)
            # There may have been nothing to send, and the users have gone before the start.
            took_s = max(time.perf_counter() - start_s, _LOOK_S)
            self.busy = (time.process_time() - cpu) / took_s
            # The users end by themselves when the run has no more; the deadline is for a server
            # that hangs.
            wait_until(start_s + self._give_up_after_s)
        if users and stop():
            run.given_up_as = "cancelled"
            run.finish()
        users.kill(block=True)
        run.give_up()


class LevelInterrupted(KeyboardInterrupt):
    """Ctrl-C during a level. run: what was sent until then."""

    def __init__(self, run: LevelRun):
        super().__init__()
        self.run = run


@contextmanager
def ctrl_c_heard() -> Iterator[Callable[[], bool]]:
    """Yields whether Ctrl-C was pressed since. It raises nothing meanwhile: that would hit
    whichever greenlet is at work, and what it was measuring would be lost.
    """
    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    act = before

    def hear(signum: int, frame: FrameType | None) -> None:
        try:
            act(signum, frame)
        except KeyboardInterrupt:
            pressed.set()

    signal.signal(signal.SIGINT, hear)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
