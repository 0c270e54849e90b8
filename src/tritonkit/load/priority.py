"""Scheduling ahead of what else runs on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PRIORITY = 1  # the lowest of the real-time ones is above all ordinary ones


@contextmanager
def first_in_line() -> Iterator[bool]:
    """Let this process run as soon as it has something to do. Yields whether that was permitted.

    A generator on the server's machine otherwise waits for a CPU behind the threads of the very
    server that it loads, and sends late. It needs root or CAP_SYS_NICE. Holds for the threads
    there are; those and the processes that are started meanwhile are ordinary ones.
    """
    before = _ahead()
    try:
        yield bool(before)
    finally:
        for thread, (policy, priority) in before.items():
            _restore(thread, policy, priority)


def _ahead() -> dict[int, tuple[int, int]]:
    """Each thread that was put ahead, and its policy and priority before."""
    before: dict[int, tuple[int, int]] = {}
    tasks = Path("/proc/self/task")
    if not hasattr(os, "SCHED_RESET_ON_FORK") or not tasks.is_dir():
        return before  # no Linux
    ahead = os.SCHED_RR | os.SCHED_RESET_ON_FORK
    for thread in [int(task.name) for task in tasks.iterdir()]:
        with suppress(OSError):
            was = os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority
            os.sched_setscheduler(thread, ahead, os.sched_param(_PRIORITY))
            before[thread] = was
    return before


def _restore(thread: int, policy: int, priority: int) -> None:
    # Whoever may go ahead by a resource limit alone may not take the one flag back.
    for flags in (0, os.SCHED_RESET_ON_FORK):
        with suppress(OSError):  # or the thread has ended
            os.sched_setscheduler(thread, policy | flags, os.sched_param(priority))
            return
