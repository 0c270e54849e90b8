"""How sure a percentile is: its interval, what dependence costs, how many requests it takes.

Neighbours in a queue wait for the same things, so n latencies say as much as n / f independent
ones. f is found on the data by blocking: the share of requests above a threshold is averaged over
blocks of 1, 2, 4, … neighbours, and the variance of these averages, which independence would halve
each time, tells how far neighbours depend on each other (Flyvbjerg and Petersen, "Error estimates
on averages of correlated data", J. Chem. Phys. 91, 1989).
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np

MIN_EFFECTIVE = 100
"""An interval needs a level as long as so many independent requests: in a shorter one the
dependence itself cannot be seen, and its intervals would be far too narrow."""

LEAST_BLOCKS = 16
"""With fewer blocks their variance is too rough to be believed."""

THRESHOLDS = (50.0, 90.0, 99.0)
"""Where dependence is looked for, in percent. A level has few requests above its p99, so that how
they cluster shows late; the thresholds below it bound that from the requests there are."""


def percentile_interval(
    values: np.ndarray, q: float, inflation: float, confidence: float = 0.95
) -> tuple[float, float] | None:
    """The interval of percentile q between two of the values, whatever their distribution.

    Of m independent values the number below the true percentile is binomial (m, q), so two order
    statistics enclose it with a known probability (David and Nagaraja, "Order Statistics", 7.1).
    m is the number of values over `inflation`. None if m is below MIN_EFFECTIVE, or too small for
    q: then the largest value may well lie below the percentile, and no upper end can be given.
    """
    effective = int(len(values) / inflation)
    if effective < MIN_EFFECTIVE:
        return None
    below = _at_most(effective, q / 100)
    tail = (1 - confidence) / 2
    low = int(np.searchsorted(below, tail, side="right"))
    high = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    if low < 1 or high > effective:
        return None
    low = math.floor(low * len(values) / effective)
    high = math.ceil(high * len(values) / effective)
    ordered = np.partition(values, (low - 1, high - 1))
    return float(ordered[low - 1]), float(ordered[high - 1])


def variance_inflation(values: np.ndarray, q: float) -> float:
    """f: how many dependent values, in time order, say as much about percentile q as one
    independent value would. At least 1, and rather too high than too low.

    A level that is short against its own dependence hides some of it. The last doubling of the
    blocks is therefore continued once more (as in lugsail estimates: Vats and Flegal, Biometrika
    109, 2022), and what is still hidden is left to MIN_EFFECTIVE.
    """
    if not len(values):
        return 1.0
    thresholds = [t for t in THRESHOLDS if t < q] + [q]
    found = np.percentile(values, thresholds, method="inverted_cdf")
    return max(_blocking(values > threshold) for threshold in found)


def _blocking(above: np.ndarray) -> float:
    """The largest ratio of the blocks' variance to the one of independence."""
    share = float(above.mean())
    independent = share * (1 - share)
    if independent == 0:
        return 1.0
    ratios = []
    blocks = above.astype(float)
    size = 1
    while len(blocks) >= LEAST_BLOCKS:
        ratios.append(size * float(blocks.var(ddof=1)) / independent)
        pairs = len(blocks) // 2
        blocks = (blocks[: 2 * pairs : 2] + blocks[1 : 2 * pairs : 2]) / 2
        size *= 2
    continued = [2 * b - a for a, b in pairwise(ratios)]
    return max([1.0, *ratios[1:], *continued])


@lru_cache
def requests_needed(q: float, over: int = 1, confidence: float = 0.99) -> int:
    """How many requests show that percentile q is below a latency that `over` of them exceeded.

    MLPerf LoadGen's early-stopping rule (Inference Rules, appendix "Early Stopping Criterion",
    loadgen/early_stopping.cc; confidence 0.99, tolerance 0): the smallest n = over + h for which
    a server whose percentile q is just at that latency would show `over` or fewer slower requests
    with a probability of at most 1 - confidence. 459 for p99 if none was slower, 662 if one was.
    """
    if not (0 < q < 100 and over >= 0 and 0 < confidence < 1):
        raise ValueError(f"no number of requests for percentile {q}, {over} over, {confidence}")
    few, many = over, over + 1
    while not _shown(many, q, over, confidence):
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        if _shown(middle, q, over, confidence):
            many = middle
        else:
            few = middle
    return many


def _shown(requests: int, q: float, over: int, confidence: float) -> bool:
    chance = float(_at_most(requests, 1 - q / 100)[over])
    return chance <= (1 - confidence) * (1 + 1e-9)  # equal but for the rounding


def _at_most(trials: int, p: float) -> np.ndarray:
    """Of a binomial (trials, p): the probabilities of at most 0, 1, … trials successes."""
    k = np.arange(trials + 1)
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(k[1:]))))
    ways = log_factorial[-1] - log_factorial - log_factorial[::-1]
    return np.cumsum(np.exp(ways + k * math.log(p) + (trials - k) * math.log1p(-p)))
