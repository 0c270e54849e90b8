"""One number for all that a call does: its tries, its waits, its parts."""

from __future__ import annotations

import time
from enum import Enum

from tritonkit.errors import DeadlineError, InputError

# Longer is for ever: locks and sockets count in 64 bits of nanoseconds.
_LONGEST_S = 1e8


class Deadline:
    """So many seconds from now; None is never.

    timeout_s: as given. at_s: when it passes, on time.monotonic's clock.
    """

    __slots__ = ("at_s", "timeout_s")

    def __init__(self, timeout_s: float | None):
        if timeout_s is not None and not (isinstance(timeout_s, int | float) and timeout_s > 0):
            raise InputError(
                f"timeout_s is {timeout_s!r}; it must be more than 0, or None for ever"
            )
        if timeout_s is not None and timeout_s > _LONGEST_S:
            timeout_s = None
        self.timeout_s = timeout_s
        self.at_s = None if timeout_s is None else time.monotonic() + timeout_s

    def left_s(self, what: str) -> float | None:
        """Seconds that are left for `what`. DeadlineError if there are none."""
        if self.at_s is None:
            return None
        left_s = self.at_s - time.monotonic()
        if left_s <= 0:
            raise DeadlineError("timeout", f"{what}: no answer within {self.timeout_s:g} s")
        return left_s


class ClientTimeout(Enum):
    """The type of CLIENT_TIMEOUT."""

    CLIENT_TIMEOUT = "the client's"


CLIENT_TIMEOUT = ClientTimeout.CLIENT_TIMEOUT
"""Of a call's timeout_s: what the client was given."""

Timeout = float | None | ClientTimeout
"""Seconds for all that a call does; None is for ever."""
