"""Triton's batcher thread, payload by payload, as slow and as literal as can be.

A second model beside the kit's, to test it by: it fills payloads ahead of the instances as Triton
does, up to two for each, and lets them grow until they are taken. The kit's model says that this
comes to the same as forming a batch when an instance is free.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass
class Payload:
    """Requests that will run together. saturated: no more are added."""

    requests: list[int] = field(default_factory=list)
    rows: int = 0
    saturated: bool = False
    queued: bool = False
    taken: bool = False


def run_payloads(enter, rows, shape, max_rows, delay, instances, run_time):
    """(begun, ended, rows of its run) of each request; one speed for all instances."""
    n = len(enter)
    begun, ended, company = [0.0] * n, [0.0] * n, [0] * n
    waiting: deque[int] = deque()
    payloads: deque[Payload] = deque()
    current = Payload()
    free_at: list[float] = []  # of the instances that work
    now, next_in = 0.0, 0

    def batcher() -> float | None:
        """One turn after another of the batcher thread. Returns when it wants to be woken."""
        nonlocal current
        while True:
            if current.saturated or current.taken:
                current = Payload()
            if not waiting:
                return None
            if len(payloads) >= 2 * instances:
                return None
            count, more, cannot_grow = 0, 0, False
            for request in waiting:
                first = current.requests[0] if current.requests else waiting[0]
                if current.rows + more and (
                    current.rows + more + rows[request] > max_rows or shape[request] != shape[first]
                ):
                    cannot_grow = True
                    break
                count += 1
                more += rows[request]
            cannot_grow |= current.rows + more >= max_rows
            oldest = enter[waiting[0]] + delay
            if not (cannot_grow or delay == 0 or now >= oldest or current.rows):
                return oldest
            for _ in range(count):
                current.requests.append(waiting.popleft())
            current.rows += more
            current.saturated = cannot_grow
            if current.requests and not current.queued:
                current.queued = True
                payloads.append(current)
            take()
            if not current.saturated and not current.taken:
                return None

    def take() -> None:
        """Instances that are free take what is ready."""
        while payloads and len(free_at) < instances:
            payload = payloads.popleft()
            payload.taken = True
            done = now + run_time[payload.rows]
            free_at.append(done)
            for request in payload.requests:
                begun[request], ended[request], company[request] = now, done, payload.rows

    wake = None
    while next_in < n or free_at or waiting or payloads:
        events = [enter[next_in]] if next_in < n else []
        events += free_at
        if wake is not None:
            events.append(wake)
        now = min(events)
        if next_in < n and enter[next_in] == now:
            waiting.append(next_in)
            next_in += 1
        elif now in free_at:
            free_at.remove(now)
        take()
        wake = batcher()
    return begun, ended, company
