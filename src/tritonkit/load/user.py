"""The Locust user that sends inference requests, in a closed or an open loop."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import gevent
from gevent.event import Event
from locust import User, task
from locust.exception import StopUser

from tritonkit.client.address import parse_address
from tritonkit.client.connect import blocking_transport
from tritonkit.client.operations import Operation
from tritonkit.client.transport import InferRequest, Transport
from tritonkit.errors import RequestError
from tritonkit.load.arrivals import Arrival
from tritonkit.load.pacer import Pacer, Turn
from tritonkit.load.sharing import SharedRequests
from tritonkit.samples import NOT_SENT, Sample

# How long after the last intended start an overloaded level may still send and wait.
DRAIN_S = 3.0

CONNECT_S = 2.0
"""How long a user tries to connect before its first request, which may be the one to succeed."""


class Run:
    """What the users of one level in one process share: the requests, the turns, the samples.

    arrivals: intended starts (open loop), or None for a closed loop, in which each user sends its
    next request when it has the answer to the last. duration_s: no request is started later; None
    means until `finish()`. Nothing is sent before `start()`.

    index, of: which of how many processes this is; in a closed loop they send the payloads in
    turn. Of the arrivals it is given those of this process alone.
    """

    def __init__(
        self,
        requests: Sequence[InferRequest],
        arrivals: Iterator[Arrival] | None,
        duration_s: float | None,
        *,
        index: int = 0,
        of: int = 1,
    ):
        self.requests = requests
        self.samples: list[Sample] = []
        self.ready = 0  # users that are connected
        self.given_up_as = "timeout"  # what became of a request whose user is killed
        self._messages: dict[type, list[Any]] = {}
        self._arrivals = arrivals
        self._duration_ns = None if duration_s is None else int(duration_s * 1e9)
        self._turns = itertools.count(index, of)
        self._zero_ns = 0
        self._started = Event()
        self._pacer: Pacer | None = None

    def start(self, at_ns: int | None = None) -> None:
        """Set the clock's zero, in `time.perf_counter_ns`; now if it is not given."""
        self._zero_ns = time.perf_counter_ns() if at_ns is None else at_ns
        if self._arrivals is not None:
            self._pacer = Pacer(self._open_turns(self._arrivals), self._zero_ns)
        self._started.set()

    def finish(self) -> None:
        """Set the end to now. What is under way may end; what was due gets DRAIN_S to be sent."""
        now_ns = self.now_ns()
        if self._duration_ns is None or now_ns < self._duration_ns:
            self._duration_ns = now_ns
            if self._pacer is not None:
                self._pacer.finish(now_ns)
        if not self._started.is_set():
            self._arrivals = None if self._arrivals is None else iter(())
            self.start()

    def give_up(self) -> None:
        """Record what was due and never sent, when there are no users left to do so."""
        if self._pacer is not None:
            end_ns = self.now_ns() if self._duration_ns is None else self._duration_ns
            for turn in self._pacer.left():
                if turn.intended_ns >= end_ns:
                    return
                self._not_sent(turn)

    def messages(self, transport: Transport) -> list[Any]:
        """The requests as `transport` sends them; encoded once for all users of the run."""
        kind = type(transport)
        if kind not in self._messages:
            self._messages[kind] = [transport.encode(request) for request in self.requests]
        return self._messages[kind]

    @property
    def length_s(self) -> float:
        """Seconds from the start to the end, or until now if there is none yet."""
        return (self.now_ns() if self._duration_ns is None else self._duration_ns) / 1e9

    def now_ns(self) -> int:
        """Nanoseconds since the start; negative before it, 0 as long as it is not known."""
        return time.perf_counter_ns() - self._zero_ns if self._zero_ns else 0

    def next_turn(self) -> Turn | None:
        """The next request to send, when its time has come; None when there is none."""
        if not self._started.is_set():
            self._started.wait()
        if self._pacer is not None:
            return self._next_open(self._pacer)
        if (early_ns := -self.now_ns()) > 0:
            gevent.sleep(early_ns / 1e9)
        now_ns = self.now_ns()
        if self._duration_ns is not None and now_ns >= self._duration_ns:
            return None
        return Turn(now_ns, next(self._turns) % len(self.requests))

    def _next_open(self, pacer: Pacer) -> Turn | None:
        while (turn := pacer.take()) is not None:
            if self._duration_ns is None or self.now_ns() < self._duration_ns + DRAIN_S * 1e9:
                return turn
            # Overloaded: the level is over, and this arrival's turn never came.
            self._not_sent(turn)
        return None

    def _open_turns(self, arrivals: Iterator[Arrival]) -> Iterator[Turn]:
        for turn, (start_s, payload) in enumerate(arrivals):
            intended_ns = int(start_s * 1e9)
            if self._duration_ns is not None and intended_ns >= self._duration_ns:
                return
            yield Turn(intended_ns, (turn if payload is None else payload) % len(self.requests))

    def _not_sent(self, turn: Turn) -> None:
        now_ns = self.now_ns()
        put_off_ns = turn.put_off_ns or now_ns
        self.samples.append(
            Sample(turn.intended_ns, now_ns, now_ns, turn.payload, NOT_SENT, put_off_ns)
        )


class InferUser(User):
    """Sends the run's requests over connections of its own until the run has no more.

    An open loop has as many users as requests may be in flight. If all are busy an arrival goes
    late, and its latency counts from the intended start all the same.

    run_state: what it shares with the other users. shared: its tensors in shared memory, if they
    are to be there. streaming: send each request as a stream, of any number of answers; it is done
    when the last is in. reports: tell Locust of every request, for its web page and statistics.
    """

    abstract = True
    run_state: Run
    shared: SharedRequests | None = None
    streaming: ClassVar[bool] = False
    reports: ClassVar[bool] = True
    request_name = "infer"
    timeout_s = 30.0

    def on_start(self) -> None:
        """Connect, so that the first requests do not pay for it."""
        self._transport: Transport | None = None
        if not self.run_state.requests:
            return  # the run was refused, perhaps for the address
        host = self.host or ""
        # Locust's hosts are URLs of HTTP servers, where an address alone is a gRPC server's.
        address = parse_address(host if "://" in host else f"http://{host}")
        transport = self._transport = blocking_transport(address, tls=None, compression=None)
        self._message = self._messages(transport)
        with suppress(RequestError):  # then every request will say so
            transport.call(Operation.LIVE, {}, timeout_s=min(CONNECT_S, self.timeout_s))
        self.run_state.ready += 1
        if address.protocol == "grpc":
            _make_threads(self.run_state.ready)

    def on_stop(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.close()

    @task
    def send_until_done(self) -> None:
        """One task for all requests: Locust's own loop would cost as much as a request."""
        run, transport = self.run_state, self._transport
        if transport is None:
            raise StopUser
        message = self._message
        send = partial(_stream, transport) if self.streaming else transport.send
        fire: Callable[..., None] = self.environment.events.request.fire
        while (turn := run.next_turn()) is not None:
            intended_ns, payload, put_off_ns = turn
            error: RequestError | None = None
            encoded = message(payload)
            sent_ns = run.now_ns()
            try:
                send(encoded, timeout_s=self.timeout_s)
            except RequestError as failure:
                error = failure
            except (gevent.GreenletExit, KeyboardInterrupt):  # given up, and no answer has come
                kind = run.given_up_as
                done_ns = run.now_ns()
                run.samples.append(Sample(intended_ns, sent_ns, done_ns, payload, kind, put_off_ns))
                raise
            done_ns = run.now_ns()
            kind = error.kind if error else ""
            run.samples.append(Sample(intended_ns, sent_ns, done_ns, payload, kind, put_off_ns))
            if self.reports:
                fire(
                    request_type="infer",
                    name=self.request_name,
                    response_time=(done_ns - intended_ns) / 1e6,
                    response_length=0,  # reading the answer would cost the server CPU
                    exception=error,
                    context={},
                )
            if error is not None:
                gevent.sleep(0.01)  # a dead server must not turn the generator into a busy loop
        raise StopUser

    def _messages(self, transport: Transport) -> Callable[[int], Any]:
        """The message of each payload; encoded when it is first sent where each user has others."""
        if self.shared is None:
            return self.run_state.messages(transport).__getitem__
        requests = self.shared.of_a_user()
        encoded: dict[int, Any] = {}

        def message(payload: int) -> Any:
            if payload not in encoded:
                encoded[payload] = transport.encode(requests(payload))
            return encoded[payload]

        return message


def _make_threads(users: int) -> None:
    """A thread for each request that may be in flight: under gevent, gRPC waits for each answer in
    one of the hub's, which are 10 by default; the answers of the others would lie there unread.
    """
    pool = gevent.get_hub().threadpool
    pool.maxsize = max(pool.maxsize, users + 10)
    pool.size = max(pool.size, users)  # now, so that they go ahead with the generator


def _stream(transport: Transport, message: Any, *, timeout_s: float) -> None:
    """Done when the last answer is in."""
    for _ in transport.stream(message, timeout_s=timeout_s):
        pass
