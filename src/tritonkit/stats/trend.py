"""Whether what a long run was watched for (memory, throughput, p99) goes up or down all through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEAST_POINTS = 20
"""Fewer say nothing."""

BLOCKS = 200
"""A longer series is judged by the medians of so many blocks."""

CONFIDENCE = 0.95
SURE = 0.999
"""Of the slope's interval; and how sure a finding must be, as a soak has several series."""

STILL = 0.25
"""What goes on has in the second half of the run at least this share of the whole run's slope."""


@dataclass(frozen=True)
class Trend:
    """A series over time. slope_per_s: Theil and Sen's, with its 95 % interval; None if there are
    too few points. change: what the slope makes of the whole run; relative: that, as a share of
    the typical value. rises, falls: it does so all through, beyond chance, and by enough to
    matter.
    """

    points: int
    slope_per_s: float | None
    slope_low_per_s: float | None
    slope_high_per_s: float | None
    change: float
    relative: float
    rises: bool
    falls: bool


def trend(at_s: Sequence[float], values: Sequence[float | None], *, matters: float = 0.02) -> Trend:
    """Whether values, taken at at_s, trend. None and NaN are gaps, and of values at the same
    time the last counts. matters: the smallest `Trend.relative` that is a finding.

    The slope is the median of those between all pairs (Sen 1968), its significance Mann and
    Kendall's (1945) with Hamed and Rao's correction for dependence (J. Hydrology 204, 1998), which
    also widens the interval. What a step leaves behind, memory taken at the start for example,
    can have such a slope too, so a trend must go on in the second half of the run.
    """
    kept = {t: v for t, v in zip(at_s, values, strict=True) if v is not None and math.isfinite(v)}
    if len(kept) < LEAST_POINTS:
        return Trend(len(kept), None, None, None, 0.0, 0.0, False, False)
    times, series = np.array(sorted(kept.items()), dtype=float).T
    blocks = min(BLOCKS, len(series))
    x = np.array([np.median(part) for part in np.array_split(times, blocks)])
    y = np.array([np.median(part) for part in np.array_split(series, blocks)])
    slopes = np.sort(_slopes(x, y))
    slope = float(np.median(slopes))
    score = float(np.sign(slopes).sum())
    error = math.sqrt(_score_variance(y, y - slope * x))
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error
    low, high = (
        float(slopes[min(max(round((len(slopes) + end) / 2), 0), len(slopes) - 1)])
        for end in (-half, half)
    )
    change = slope * float(times[-1] - times[0])
    typical = float(np.median(np.abs(series))) or float(np.abs(series).max())
    relative = change / typical if typical else 0.0
    sure = error > 0 and (abs(score) - 1) / error > NormalDist().inv_cdf((1 + SURE) / 2)
    found = sure and abs(relative) >= matters and _goes_on(x, y, slope)
    return Trend(
        *(len(kept), slope, low, high, change, relative),
        *(found and change > 0, found and change < 0),
    )


def _goes_on(x: np.ndarray, y: np.ndarray, slope: float) -> bool:
    """Whether the second half of the run still goes the way of the whole."""
    half = len(x) // 2
    later = float(np.median(_slopes(x[half:], y[half:])))
    return later * slope > 0 and abs(later) >= STILL * abs(slope)


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Those between all pairs of points."""
    earlier, later = np.triu_indices(len(x), 1)
    slopes: np.ndarray = (y[later] - y[earlier]) / (x[later] - x[earlier])
    return slopes


def _score_variance(y: np.ndarray, rest: np.ndarray) -> float:
    """The variance of Mann and Kendall's score if there is no trend; rest: y without its slope."""
    n = len(y)
    ties = np.unique(y, return_counts=True)[1]
    independent = (n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18
    _, value, counts = np.unique(rest, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[value] - (n + 1) / 2  # ties share theirs
    lags = np.arange(1, n)
    together = np.correlate(ranks, ranks, "full")[n:] / ((ranks @ ranks) or 1.0)
    beyond_chance = np.abs(together) > NormalDist().inv_cdf((1 + CONFIDENCE) / 2) / math.sqrt(n)
    weights = (n - lags) * (n - lags - 1) * (n - lags - 2)
    correction = 1 + 2 / (n * (n - 1) * (n - 2)) * float((weights * together)[beyond_chance].sum())
    return float(independent) * max(1.0, correction)
