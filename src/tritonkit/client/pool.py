"""Several servers for the same models: whose turn it is, and who rests after failing.

Round robin. A server whose connection failed rests, at first for REST_S, then twice as long with
every further failure; so does one that has been unavailable or silent STRIKES times in a row. After
its rest it is asked whether it is ready before it gets a request. If all rest, the one that has
rested longest is tried all the same: an attempt beats a refusal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tritonkit.client.address import parse_address
from tritonkit.client.events import Event, ServerBack, ServerRested
from tritonkit.errors import InputError, RequestError

REST_S = 0.25
LONGEST_REST_S = 10.0
STRIKES = 3

_LOST = ("refused", "closed")
_STRIKE = ("unavailable", "timeout")


@dataclass(eq=False, slots=True)
class Member:
    """One server. transport: a Transport or an AsyncTransport.

    regions: the shared memory that it knows. shares_memory: False once it has refused a region.
    """

    transport: Any
    regions: set[str] = field(default_factory=set)
    shares_memory: bool = True
    rests: int = 0
    rests_until_s: float = 0.0
    strikes: int = 0
    on_trial: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether its address says that it is on this machine."""
        with suppress(InputError):  # what a transport of the user's calls itself
            return parse_address(self.transport.address).is_loopback
        return False


class Pool:
    """The servers of a client. tell: gets ServerRested and ServerBack."""

    def __init__(
        self,
        transports: Sequence[Any],
        tell: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.members = tuple(Member(transport) for transport in transports)
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._turn = 0

    def pick(self, tried: Collection[Member] = (), sticky: int | None = None) -> Member:
        """The server for the next try of a request that `tried` have failed already.

        sticky: requests with the same number always get the same server. If the returned member is
        `on_trial` the caller has to ask whether it is ready, and report, before it sends anything.
        """
        if len(self.members) == 1:
            return self.members[0]
        if sticky is not None:
            return self.members[sticky % len(self.members)]
        with self._lock:
            start = self._turn
            self._turn = (start + 1) % len(self.members)
            ring = self.members[start:] + self.members[:start]
            fresh = [m for m in ring if m not in tried] or ring
            now_s = self._clock()
            for member in fresh:
                if not member.rests:
                    return member
                if member.rests_until_s <= now_s and not member.on_trial:
                    member.on_trial = True
                    return member
            return min(fresh, key=lambda m: m.rests_until_s)

    def report(self, member: Member, error: RequestError | None) -> None:
        """How a request to `member` went; None if it was answered."""
        if error is None and not member.rests and not member.strikes:
            return  # the usual case takes no lock
        kind = error.kind if error is not None else ""
        event: Event | None = None
        with self._lock:
            member.on_trial = False
            if kind in _STRIKE:
                member.strikes += 1
            if kind in _LOST or member.strikes >= STRIKES:
                now_s = self._clock()
                # Many requests fail at once when a server dies: that is one failure.
                if member.rests_until_s <= now_s:
                    rest_s = min(REST_S * 2**member.rests, LONGEST_REST_S)
                    member.rests += 1
                    member.rests_until_s = now_s + rest_s
                    event = ServerRested(member.transport.address, rest_s, kind)
                if kind in _LOST:
                    member.regions.clear()  # whoever is there next knows none of them
            elif kind not in (*_STRIKE, "cancelled"):  # it has answered, if only to refuse
                if member.rests:
                    event = ServerBack(member.transport.address)
                member.rests, member.strikes, member.rests_until_s = 0, 0, 0.0
        if event is not None:
            self._tell(event)
