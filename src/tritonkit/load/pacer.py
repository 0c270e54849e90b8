"""Hands each arrival of an open loop to a free user, at its time.

One alarm for the whole loop, and not a timer for each user: gevent's timers are rounded up to
whole milliseconds by epoll, and a greenlet that only waits has to be woken before it can send.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import gevent
from gevent.hub import Waiter

_CLOCK_MONOTONIC, _TFD_TIMER_ABSTIME = 1, 1
_READ = 1


class Turn(NamedTuple):
    """A request to be sent: when, in nanoseconds since the start, and which payload.

    put_off_ns: when it was due and no user was free; None if one was.
    """

    intended_ns: int
    payload: int
    put_off_ns: int | None = None


class Pacer:
    """The turns of an open loop.

    turns: ascending. zero_ns: `time.perf_counter_ns` at the start. A turn whose time comes while
    all users are busy waits for the next that is free, in order.
    """

    def __init__(self, turns: Iterator[Turn], zero_ns: int):
        self._turns = turns
        self._zero_ns = zero_ns
        self._next = next(turns, None)
        self._due: deque[Turn] = deque()
        self._free: list[Waiter] = []
        self._alarm = Alarm(self._ring)
        self._set_alarm()

    def take(self) -> Turn | None:
        """The next turn, at its time; None if there is none left. For a free user to wait in."""
        if self._due:
            return self._due.popleft()
        if self._next is None:
            return None
        waiter = Waiter()
        # The user that was busy last sends next: its connection is open, and the fewest are.
        self._free.append(waiter)
        try:
            turn: Turn | None = waiter.get()
            return turn
        except BaseException:  # the greenlet is killed
            if waiter in self._free:
                self._free.remove(waiter)
            raise

    def finish(self, end_ns: int) -> None:
        """Drop the turns that are intended at `end_ns` or later."""
        if self._next is not None and self._next.intended_ns < end_ns:
            self._turns = _until(self._turns, end_ns)
        else:
            self._turns, self._next = iter(()), None
        self._alarm.set(time.perf_counter_ns())

    def left(self) -> Iterator[Turn]:
        """Give up: the turns that nobody has taken. Users that wait are sent home."""
        self._alarm.close()
        left = [*self._due, *([] if self._next is None else [self._next])]
        self._due.clear()
        self._next, turns = None, self._turns
        gevent.get_hub().loop.run_callback(self._ring)
        yield from left
        yield from turns

    def _ring(self) -> None:
        """Called by the hub, which alone may switch to a greenlet and get control back."""
        while self._next is not None:
            if self._zero_ns + self._next.intended_ns > time.perf_counter_ns():
                self._set_alarm()
                return
            turn, self._next = self._next, next(self._turns, None)
            if self._free:
                self._free.pop().switch(turn)  # comes back when the request is sent
            else:
                put_off_ns = time.perf_counter_ns() - self._zero_ns
                self._due.append(turn._replace(put_off_ns=put_off_ns))
        while self._free:
            self._free.pop().switch(None)

    def _set_alarm(self) -> None:
        now = self._zero_ns if self._next is None else self._zero_ns + self._next.intended_ns
        self._alarm.set(now)


def _until(turns: Iterator[Turn], end_ns: int) -> Iterator[Turn]:
    for turn in turns:
        if turn.intended_ns >= end_ns:
            return
        yield turn


class Alarm:
    """Has the hub call `ring` at a time of `time.perf_counter_ns`.

    By a timerfd where there is one (Linux), to some ten microseconds; else by a timer of gevent's.
    """

    def __init__(self, ring: Callable[[], None]):
        self._ring = ring
        self._file = _timerfd()
        loop = gevent.get_hub().loop
        if self._file is None:
            self._watcher = loop.timer(0)
        else:
            self._watcher = loop.io(self._file, _READ)
            self._watcher.start(self._rang)

    def set(self, at_ns: int) -> None:
        """Ring once, at `at_ns` or at once if that is past, and not when it was to before."""
        if self._file is not None:
            _set_timerfd(self._file, max(at_ns, 1))
            return
        self._watcher.stop()
        self._watcher.close()
        after_s = max(0, at_ns - time.perf_counter_ns()) / 1e9
        self._watcher = gevent.get_hub().loop.timer(after_s)
        self._watcher.start(self._ring, update=True)

    def close(self) -> None:
        """Never ring again."""
        self._watcher.stop()
        self._watcher.close()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _rang(self) -> None:
        assert self._file is not None
        with suppress(BlockingIOError):  # set anew in between
            os.read(self._file, 8)
        self._ring()


# os.timerfd_create is there from Python 3.13 on.
def _timerfd() -> int | None:
    create = getattr(_libc, "timerfd_create", None)
    if create is None:
        return None
    file: int = create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    return file if file >= 0 else None


def _set_timerfd(file: int, at_ns: int) -> None:
    seconds, nanoseconds = divmod(at_ns, 1_000_000_000)
    # struct itimerspec: an interval of none, and the time.
    when = (ctypes.c_long * 4)(0, 0, seconds, nanoseconds)
    if _libc.timerfd_settime(file, _TFD_TIMER_ABSTIME, when, None):
        raise OSError(ctypes.get_errno(), "timerfd_settime")


_libc = ctypes.CDLL(None, use_errno=True)
