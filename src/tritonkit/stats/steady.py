"""Whether and since when a level is steady: its warm-up, and the drift of what is left.

Both are made for short levels of heavy-tailed latencies that depend on their neighbours, where
many a textbook rule cries wolf; `benchmarks/calibration.py` has the figures.
"""

from __future__ import annotations

import numpy as np

LEAST_TO_SETTLE = 200
LEAST_TO_DRIFT = 500
"""With fewer requests nothing is said about warm-up or drift: a steady queue at high load may spend
so short a level in one busy period."""

BATCHES = 50
LEAST_BATCH = 10
"""For the warm-up a level is cut into so many batches of neighbours, of at least so many each."""

OFF = 1.1
"""A batch less than so far from the settled level needs no cutting."""

WINDOWS = 15
"""A drift must show in each of a third of so many windows against each of another third. Windows
without a drift are ordered so once in 252 times, in either direction."""

LATENCY_DRIFT = 1.25
THROUGHPUT_DRIFT = 1.1
"""And by how much the first and the last third must differ for it to matter."""


def settle(latency_ms: np.ndarray) -> tuple[int, str]:
    """How many of a level's first latencies, in time order, are its warm-up, and why it is not
    steady even without it, or "".

    A level that does not settle has no warm-up: nothing may be cut from it to make it look good.
    One whose latency rises from its first to its last third has not settled, whatever could be cut.
    """
    whole = latency_drift(latency_ms)
    if whole and not got_better(whole):
        return 0, whole
    first = warm_up(latency_ms)
    drift = latency_drift(latency_ms[first:])
    return (0, drift) if drift else (first, "")


def warm_up(latency_ms: np.ndarray) -> int:
    """How many of the first latencies are unlike the second half.

    They are the batches from the start on whose geometric means all lie outside nine tenths of the
    second half's, all above or all below. So a hiccup later on stays in, however bad, also one
    right after a start that was quick, and so does all of a level that has not settled when its
    first half is over. It is Conway's rule (1963: cut until the first is neither the largest nor
    the smallest of the rest) made robust. The better known MSER-5 (White 1997) is not used: it
    minimises a standard error, so it cuts away every early stall, and chance's busy periods too.
    """
    if len(latency_ms) < LEAST_TO_SETTLE:
        return 0
    batches = min(BATCHES, len(latency_ms) // LEAST_BATCH)
    bounds = np.linspace(0, len(latency_ms), batches + 1).astype(int)
    sums = np.add.reduceat(np.log(np.maximum(latency_ms, 1e-6)), bounds[:-1])
    levels = sums / np.diff(bounds)
    rest = levels[batches // 2 :]
    low, middle, high = np.percentile(rest, (5, 50, 95))
    above = (levels > high) & (levels - middle > np.log(OFF))
    below = (levels < low) & (middle - levels > np.log(OFF))
    off = above if above[0] else below
    first = int(np.argmin(off)) if not off.all() else batches
    return 0 if first >= batches // 2 else int(bounds[first])


def latency_drift(latency_ms: np.ndarray) -> str:
    """Why latencies in time order are not steady, or "".

    The windows' medians and their lowest deciles must both drift. A queue that keeps up is empty
    again and again, however long it was in between; only one that does not has no quick answers
    left. That tells overload from the waves of a steady queue at high load.
    """
    if len(latency_ms) < LEAST_TO_DRIFT:
        return ""
    windows = np.array_split(latency_ms, WINDOWS)
    middles, lows = np.array([np.percentile(window, (50, 10)) for window in windows]).T
    direction = _direction(middles)
    third = len(latency_ms) // 3
    medians = np.array([np.median(latency_ms[:third]), np.median(latency_ms[-third:])])
    if not direction or direction != _direction(lows) or not _differ(medians, LATENCY_DRIFT):
        return ""
    return f"latency {_went(medians)} ms (medians of the first and the last third)"


def got_better(drift: str) -> bool:
    """Whether a drift went the way that one would wish: it leaves no budget later."""
    better = ("latency fell", "throughput rose", "requests answered rose")
    return drift.startswith(better)


def throughput_drift(done_s: np.ndarray, start_s: float, end_s: float) -> str:
    """Why the answers of a closed loop, at done_s, did not come at a steady rate, or ""."""
    if len(done_s) < LEAST_TO_DRIFT:
        return ""
    counts = np.histogram(done_s, WINDOWS, (start_s, end_s))[0]
    rates = np.histogram(done_s, 3, (start_s, end_s))[0] / ((end_s - start_s) / 3)
    if not _direction(counts) or not _differ(rates, THROUGHPUT_DRIFT):
        return ""
    return f"throughput {_went(rates)} requests/s (first and last third)"


def answered_drift(intended_s: np.ndarray, good: np.ndarray, start_s: float, end_s: float) -> str:
    """Why an open loop's share of answered requests is not steady, or "".

    The share, not the rate: how many are sent at a time is the arrivals' affair.
    """
    if len(intended_s) < LEAST_TO_DRIFT:
        return ""
    shares = _shares(intended_s, good, start_s, end_s, WINDOWS)
    thirds = 100 * _shares(intended_s, good, start_s, end_s, 3)
    if not _direction(shares) or not _differ(thirds, THROUGHPUT_DRIFT):
        return ""
    return f"requests answered {_went(thirds)} % (first and last third)"


def _shares(
    intended_s: np.ndarray, good: np.ndarray, start_s: float, end_s: float, windows: int
) -> np.ndarray:
    """The share of good ones in each window in which there were any."""
    sent = np.histogram(intended_s, windows, (start_s, end_s))[0]
    answered = np.histogram(intended_s[good], windows, (start_s, end_s))[0]
    share: np.ndarray = answered[sent > 0] / sent[sent > 0]
    return share


def _direction(windows: np.ndarray) -> int:
    """1 if the last third of the windows all lie above all of the first, -1 if below, else 0."""
    third = WINDOWS // 3
    first, last = windows[:third], windows[-third:]
    return int(last.min() > first.max()) - int(last.max() < first.min())


def _differ(values: np.ndarray, factor: float) -> bool:
    """Whether the first and the last differ by more than the factor."""
    first, *_, last = values.tolist()
    return bool(max(first, last) > factor * min(first, last))


def _went(values: np.ndarray) -> str:
    first, *_, last = values.tolist()
    rose = "rose" if last > first else "fell"
    return f"{rose} from {_number(first)} to {_number(last)}"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
