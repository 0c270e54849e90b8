"""Whether a figure keeps its bar."""

from __future__ import annotations

import math


def misses(figure: float, low: float | None, high: float | None) -> bool:
    """low, high: the bar's ends, None where it has none. What is no number misses it."""
    least = -math.inf if low is None else low
    most = math.inf if high is None else high
    return not least <= figure <= most
