"""What memory a server's processes hold."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil

_SHARED = "/dev/shm/"


def rss_bytes(pids: Iterable[int]) -> int:
    """Resident memory of the processes, summed; pages that they share count once for each."""
    total = 0
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            total += psutil.Process(pid).memory_info().rss
    return total


def shm_bytes(pids: Iterable[int]) -> int:
    """Memory of the files in /dev/shm that the processes have mapped, each file once."""
    files: dict[str, int] = {}
    for pid in pids:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            for area in psutil.Process(pid).memory_maps(grouped=False):
                if area.path.startswith(_SHARED):
                    files[area.path] = max(files.get(area.path, 0), area.size)
    return sum(files.values())
