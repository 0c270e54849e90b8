"""What machine a figure was taken on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil


def usable_cpus() -> tuple[int, ...]:
    """The CPUs that this process may use, by number."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cpu_limit(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """How many CPUs' worth of time this process may use: no more than its CPUs, and no more than
    its cgroups grant it (`docker --cpus`, Kubernetes limits), rounded down, at least 1.

    cgroups: where they are mounted. own: which of them are this process's.
    """
    shares = [quota for folder in _own_cgroups(cgroups, own) if (quota := _quota(folder))]
    return max(1, int(min([len(usable_cpus()), *shares])))


def _own_cgroups(cgroups: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's CPU cgroups, v1 and v2, and of all above them.

    In a container the paths may be the host's while the mount shows the container's own as its
    root, so the root is always among them.
    """
    if not own.is_file():
        return
    for line in own.read_text(encoding="utf-8", errors="replace").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers or "cpu" in controllers.split(","):
            place = Path(path.strip().lstrip("/"))
            for below in (place, *place.parents):
                yield cgroups / controllers / below


def _quota(cgroup: Path) -> float | None:
    """The CPUs that one cgroup grants; None if it sets no limit."""
    try:
        if (cgroup / "cpu.max").is_file():  # v2: "200000 100000", or "max 100000"
            quota, period = (cgroup / "cpu.max").read_text(encoding="utf-8").split()
        else:  # v1: -1 is no limit
            quota = (cgroup / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (cgroup / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def describe_machine() -> dict[str, Any]:
    """CPU model, how many CPUs it may use, memory, operating system, Python."""
    return {
        "cpu_model": _cpu_model(),
        "cpus": cpu_limit(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
