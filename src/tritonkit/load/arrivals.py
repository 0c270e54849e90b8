"""When requests should start, as pure functions: seconds since the start, ascending."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator


def constant(rate_rps: float, duration_s: float) -> Iterator[float]:
    """Evenly spaced starts."""
    for i in itertools.count():
        start_s = i / rate_rps
        if start_s >= duration_s:
            return
        yield start_s


def poisson(rate_rps: float, duration_s: float, seed: int) -> Iterator[float]:
    """Independent users: exponential gaps with mean 1/rate_rps, the same for the same seed."""
    gaps = random.Random(seed)
    start_s = gaps.expovariate(rate_rps)
    while start_s < duration_s:
        yield start_s
        start_s += gaps.expovariate(rate_rps)
