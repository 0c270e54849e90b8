"""How many requests a second the model of the batcher gets through, on one core.

    python benchmarks/simulator.py

Poisson arrivals at 70 % of what each setting can serve, a million requests at a time; the time of
drawing them is not counted. Exits 1 below half a million requests a second.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from tritonkit.plan.settings import Settings
from tritonkit.plan.simulate import Service, simulate
from tritonkit.repository.scheduling import DynamicBatching

WANTED_RPS = 500_000
REQUESTS = 1_000_000
ROUNDS = 5
SERVICE = Service(
    run_s=tuple(0.0004 + 0.0001 * rows for rows in range(1, 65)),
    slowdown=(1.0, 1.2, 1.9, 2.6),
    scatter=tuple(np.linspace(0.8, 1.2, 101)),
)
SETTINGS = {
    "unbatched": Settings(64, None),
    "max batch 8": Settings(8, DynamicBatching()),
    "max batch 64": Settings(64, DynamicBatching()),
    "max batch 64, delay 5 ms": Settings(64, DynamicBatching(5000)),
    "max batch 64, delay 5 ms, 4 instances": Settings(64, DynamicBatching(5000), 4),
}


def _speed_rps(settings: Settings) -> float:
    """Of the fastest round: another process can only make it slower."""
    rows = settings.max_batch_size if settings.dynamic_batching else 1
    slowdown = SERVICE.slowdown[settings.instances - 1]
    rate_rps = 0.7 * rows * settings.instances / SERVICE.run_s[rows - 1] / slowdown
    arrivals = np.cumsum(np.random.default_rng(1).exponential(1 / rate_rps, REQUESTS))
    simulate(arrivals[:10], settings, SERVICE)  # compiles it
    best_s = float("inf")
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        simulate(arrivals, settings, SERVICE)
        best_s = min(best_s, time.perf_counter() - began_s)
    return REQUESTS / best_s


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    slowest = float("inf")
    for name, settings in SETTINGS.items():
        speed_rps = _speed_rps(settings)
        slowest = min(slowest, speed_rps)
        print(f"{name:<40}{speed_rps / 1e6:6.1f} million requests/s")
    sys.exit(int(slowest < WANTED_RPS))


if __name__ == "__main__":
    main()
