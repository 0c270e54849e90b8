"""What machine a figure was taken on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import psutil


def usable_cpus() -> tuple[int, ...]:
    """The CPUs that this process may use, by number."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def describe_machine() -> dict[str, Any]:
    """CPU model, usable CPUs, memory, operating system, Python."""
    return {
        "cpu_model": _cpu_model(),
        "cpus": len(usable_cpus()),
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
