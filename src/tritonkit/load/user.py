"""The Locust user that sends inference requests, in a closed or an open loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gevent
from gevent.event import Event
from locust import User, task
from locust.exception import StopUser

from tritonkit.client.address import parse_address
from tritonkit.client.connect import blocking_transport
from tritonkit.client.transport import InferRequest, Transport
from tritonkit.errors import RequestError
from tritonkit.samples import NOT_SENT, Sample

# How long after the last intended start an overloaded level may still send and wait.
DRAIN_S = 3.0


class Run:
    """What the users of one level share: the requests, the schedule, the samples.

    arrivals: intended starts in seconds (open loop), or None for a closed loop, in which each
    user sends its next request when it has the answer to the last. duration_s: no request is
    started later; None means until `finish()`. The clock starts with `start()`.
    """

    def __init__(
        self,
        requests: Sequence[InferRequest],
        arrivals: Iterator[float] | None,
        duration_s: float | None,
    ):
        self._requests = requests
        self._messages: dict[type, list[Any]] = {}
        self.samples: list[Sample] = []
        self._arrivals = arrivals
        self._duration_ns = None if duration_s is None else int(duration_s * 1e9)
        self._start_ns = 0
        self._turn = 0
        self._finished = Event()

    def start(self, in_s: float = 0.0) -> None:
        """Set the clock's zero, `in_s` from now."""
        self._start_ns = time.perf_counter_ns() + int(in_s * 1e9)

    def finish(self) -> None:
        """Set the end to now. What is under way may end; what was due gets DRAIN_S to be sent."""
        self._duration_ns = self.now_ns()
        self._finished.set()

    def messages(self, transport: Transport) -> list[Any]:
        """The requests as `transport` sends them; encoded once for all users of the run."""
        kind = type(transport)
        if kind not in self._messages:
            self._messages[kind] = [transport.encode(request) for request in self._requests]
        return self._messages[kind]

    @property
    def length_s(self) -> float:
        """Seconds from the start to the end, or until now if there is none yet."""
        return (self.now_ns() if self._duration_ns is None else self._duration_ns) / 1e9

    def wait_until(self, intended_ns: int) -> bool:
        """Sleep until a request is due. False if the run's end comes before that."""
        early_s = (intended_ns - self.now_ns()) / 1e9
        if early_s > 0:
            self._finished.wait(early_s)
        return self._duration_ns is None or intended_ns < self._duration_ns

    def now_ns(self) -> int:
        """Nanoseconds since the start."""
        return time.perf_counter_ns() - self._start_ns

    def next_turn(self) -> tuple[int, int] | None:
        """(intended start in ns, which payload) of the next request; None when there is none."""
        turn = self._turn
        self._turn += 1
        if self._arrivals is None:
            now_ns = self.now_ns()
            if self._duration_ns is not None and now_ns >= self._duration_ns:
                return None
            return now_ns, self._payload(turn)
        for start_s in self._arrivals:
            intended_ns = int(start_s * 1e9)
            if self._duration_ns is None:
                return intended_ns, self._payload(turn)
            if intended_ns >= self._duration_ns:
                return None
            if self.now_ns() < self._duration_ns + DRAIN_S * 1e9:
                return intended_ns, self._payload(turn)
            # Overloaded: the level is over, and this arrival's turn never came.
            self._not_sent(intended_ns, turn)
        return None

    def give_up(self) -> None:
        """Record what was due and never sent, when there are no users left to do so."""
        for start_s in self._arrivals or ():
            intended_ns = int(start_s * 1e9)
            if self._duration_ns is None or intended_ns >= self._duration_ns:
                return
            self._not_sent(intended_ns, self._turn)

    def _payload(self, turn: int) -> int:
        return turn % len(self._requests)

    def _not_sent(self, intended_ns: int, turn: int) -> None:
        now_ns = self.now_ns()
        self.samples.append(Sample(intended_ns, now_ns, now_ns, self._payload(turn), NOT_SENT))


class InferUser(User):
    """Sends the run's requests over connections of its own until the run has no more.

    An open loop has as many users as requests may be in flight. Each takes the next arrival and
    waits for its intended start; if all are busy the arrival goes late, and its latency counts
    from the intended start all the same.
    """

    abstract = True
    run_state: Run
    request_name = "infer"
    timeout_s = 30.0

    def on_start(self) -> None:
        """Connect."""
        host = self.host or ""
        # Locust's hosts are URLs of HTTP servers, where an address alone is a gRPC server's.
        address = parse_address(host if "://" in host else f"http://{host}")
        self._transport = blocking_transport(address, tls=None, compression=None)

    def on_stop(self) -> None:
        """Disconnect."""
        self._transport.close()

    @task
    def send_until_done(self) -> None:
        """One task for all requests: Locust's own loop would cost as much as a request."""
        run, send = self.run_state, self._transport.send
        messages = run.messages(self._transport)
        fire: Callable[..., None] = self.environment.events.request.fire
        while (turn := run.next_turn()) is not None:
            intended_ns, payload = turn
            if not run.wait_until(intended_ns):
                break
            error: RequestError | None = None
            sent_ns = run.now_ns()
            try:
                send(messages[payload], timeout_s=self.timeout_s)
            except RequestError as failure:
                error = failure
            except gevent.GreenletExit:  # the level is given up, and no answer has come
                run.samples.append(Sample(intended_ns, sent_ns, run.now_ns(), payload, "timeout"))
                raise
            done_ns = run.now_ns()
            kind = error.kind if error else ""
            run.samples.append(Sample(intended_ns, sent_ns, done_ns, payload, kind))
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
