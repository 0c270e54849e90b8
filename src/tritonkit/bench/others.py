"""What other processes, and other machines on the same host, took of the CPUs meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

_ONLINE = Path("/sys/devices/system/cpu/online")


class Taken(NamedTuple):
    """Shares of the CPUs' time, 0 to 1. None where the system does not say."""

    others: float | None
    stolen: float | None


class Look(NamedTuple):
    """Seconds since the system began, over some CPUs. at_s: wall time.

    used: by processes; counted: all that the system accounts for, idle too; stolen: None where it
    knows of none. own: of this process and its descendants, by process: the load generator, and
    the servers that it started. cpus: how many.
    """

    at_s: float
    cpus: int
    used: float
    counted: float
    stolen: float | None
    own: dict[int, float]


def look(cpus: Sequence[int]) -> Look | None:
    """The time of these CPUs, by number, until now. None if the system does not count that."""
    all_times = dict(zip(_online(), psutil.cpu_times(percpu=True), strict=False))
    times = [all_times[cpu] for cpu in cpus if cpu in all_times]
    if not times or len(times) < len(cpus):
        return None
    stolen = [t.steal for t in times if hasattr(t, "steal")]
    # Linux counts what guests of this machine use in `user` as well.
    counted = sum(sum(t) - getattr(t, "guest", 0) - getattr(t, "guest_nice", 0) for t in times)
    return Look(
        time.perf_counter(),
        len(times),
        sum(t.user + getattr(t, "nice", 0.0) + t.system for t in times),
        counted,
        sum(stolen) if stolen else None,
        _own(),
    )


def taken(before: Look | None, after: Look | None) -> Taken:
    """What was taken between two looks at the same CPUs.

    Interrupts count for nobody: those of the load itself look like those of a neighbour.
    """
    if before is None or after is None:
        return Taken(None, None)
    whole = (after.at_s - before.at_s) * after.cpus
    # A sandbox's kernel may count nothing, which is not that nothing ran.
    if whole <= 0 or after.counted - before.counted < whole / 2:
        return Taken(None, None)
    own = sum(spent - before.own.get(pid, 0.0) for pid, spent in after.own.items())
    others = _share((after.used - before.used - own) / whole)
    if before.stolen is None or after.stolen is None:
        return Taken(others, None)
    return Taken(others, _share((after.stolen - before.stolen) / whole))


def _share(found: float) -> float:
    """Counters go by hundredths of a second, so that a share of nothing may come out below 0."""
    return round(min(1.0, max(0.0, found)), 4)


def _online() -> list[int]:
    """The numbers of the CPUs that the system counts, in its order: one that is off has none."""
    try:
        text = _ONLINE.read_text(encoding="ascii").strip()
    except OSError:
        return list(range(os.cpu_count() or 1))
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _own() -> dict[int, float]:
    """CPU seconds of this process and of each of its descendants."""
    this = psutil.Process()
    spent = {}
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            times = process.cpu_times()
            spent[process.pid] = times.user + times.system
    return spent
