"""What would batching buy? Rows per second at each batch size, in this process, on this CPU.

It is the ceiling of what a server can gain: no queue, no copies, no client. A model that gains
nothing here gains nothing there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

from tritonkit.errors import ModelError

MIN_GAIN = 1.1
"""What batching must bring at least to be called a help: waiting for a batch, putting it together
and taking it apart costs a server time that is not measured here, and a tenth is soon lost."""

_NEARLY_BEST = 0.95
_MIN_ROUNDS = 5
_MAX_ROUNDS = 15
_TURN_NS = 5_000_000
_CONFIDENCE = 0.9

Rounds = Sequence[Mapping[int, float]]
"""Batch size → seconds of a run, once for each round; each round has the same batch sizes."""


@dataclass(frozen=True)
class Gain:
    """ratios: batch size → rows per second, relative to batch 1. intervals: how sure that is.

    seconds: a run at that size. left_out: batch size → why it was not measured. As text it is
    the one line that says what batching buys.
    """

    ratios: Mapping[int, float]
    seconds: Mapping[int, float]
    intervals: Mapping[int, tuple[float, float]]
    left_out: Mapping[int, str]

    @property
    def best(self) -> int:
        """The batch size to name: the smallest above 1 that is within 5 % of the best ratio, as
        a larger one costs latency and memory for next to nothing. 1 if no other was measured."""
        batched = {batch: ratio for batch, ratio in self.ratios.items() if batch > 1}
        enough = _NEARLY_BEST * max(batched.values(), default=1.0)
        return min((batch for batch, ratio in batched.items() if ratio >= enough), default=1)

    @property
    def helps(self) -> bool:
        """Whether the gain at the best batch size is above MIN_GAIN beyond doubt.

        The best is picked from several, and of several sizes that gain nothing the luckiest seems
        to gain a little; so it is the low end of its interval that must be above."""
        return self.intervals[self.best][0] > MIN_GAIN

    def __str__(self) -> str:
        best = self.best
        ratio, (low, high) = self.ratios[best], self.intervals[best]
        if best == 1:
            reasons = [f"{b}: {why}" for b, why in sorted(self.left_out.items())]
            return "not measured at any batch above 1" + (f" ({reasons[0]})" if reasons else "")
        if self.helps:
            return f"{ratio:.1f}× at {best}"
        if ratio <= MIN_GAIN:
            return f"{ratio:.1f}×: batching will not help this model on this CPU"
        return (
            f"{ratio:.1f}× at {best}, which is not certain: {low:.1f}× to {high:.1f}× as measured; "
            "try again when the machine is idle"
        )


def batches_up_to(max_batch: int) -> tuple[int, ...]:
    """1, 2, 4, … and `max_batch` itself."""
    powers = (2**i for i in range(max(1, max_batch).bit_length()))
    return tuple(sorted({*powers, max(1, max_batch)}))


def measure_gain(
    prepare: Callable[[int], Callable[[], object]],
    batches: Sequence[int],
    *,
    budget_s: float,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Gain:
    """Time runs at 1 and all `batches`, in rounds: 1, 2, 4, …, 1, 2, 4, …

    prepare: batch size → what to time, such as `partial(model.run, inputs)`. In rounds, a
    machine that slows down slows all sizes alike. Each turn lasts 5 ms or one run, whichever is
    longer, so that short runs are timed with caches as warm as a busy server's. Warm-up turns do
    not count.

    At least 5 rounds of each size that is measured, as fewer have no 90 % confidence. A size is
    left out where these would not fit into `budget_s` if its time grew with its rows; so are
    sizes at which `prepare` or the run raises ModelError, which at size 1 is not caught. A run
    cannot be interrupted: one that takes longer than foreseen is waited for.
    """
    end_ns = clock_ns() + int(budget_s * 1e9)
    runs: dict[int, Callable[[], object]] = {}
    spans: dict[int, float] = {}
    turns: dict[int, float] = {}
    left_out: dict[int, str] = {}
    too_slow = f"too slow for the {budget_s:g} s given"
    for batch in sorted({1, *batches}):
        if runs:
            expected = spans[max(runs)] * batch / max(runs)
            needed = (1 + _MIN_ROUNDS) * expected + _MIN_ROUNDS * sum(turns.values())
            if too_slow in left_out.values() or clock_ns() + needed > end_ns:
                left_out[batch] = too_slow
                continue
        try:
            run = prepare(batch)
            start = clock_ns()
            spans[batch] = _turn(run, clock_ns)
        except ModelError as error:
            if batch == 1:
                raise
            left_out[batch] = str(error)
            continue
        runs[batch], turns[batch] = run, clock_ns() - start
    while len(runs) > 1 and clock_ns() + _MIN_ROUNDS * sum(turns.values()) > end_ns:
        slowest = max(runs)
        left_out[slowest] = too_slow
        del runs[slowest], turns[slowest]
    rounds: list[dict[int, float]] = []
    if len(runs) == 1:
        rounds.append({1: spans[1] / 1e9})
    while len(runs) > 1 and len(rounds) < _MAX_ROUNDS:
        if len(rounds) >= _MIN_ROUNDS and clock_ns() + sum(turns.values()) > end_ns:
            break
        rounds.append({batch: _turn(run, clock_ns) / 1e9 for batch, run in runs.items()})
    return gain_of(rounds, left_out)


def gain_of(rounds: Rounds, left_out: Mapping[int, str] | None = None) -> Gain:
    """What the times say. Each round has batch 1.

    A ratio is the median of the ratios *within* each round: a round is short, so what slows the
    machine for longer slows both sides of it. Not the best of all rounds: short runs slip
    through between two disturbances more easily than long ones, which would make large batches
    look worse than they are.

    An interval holds the median with 90 % confidence, whatever the distribution of the noise
    (by order statistics, as for the sign test), if there are at least 5 rounds.
    """
    batches = sorted(rounds[0])
    ratios = {b: sorted(b * times[1] / max(times[b], 1e-9) for times in rounds) for b in batches}
    rank = _rank(len(rounds))
    return Gain(
        ratios={b: median(seen) for b, seen in ratios.items()} | {1: 1.0},
        seconds={b: median(times[b] for times in rounds) for b in batches},
        intervals={b: (seen[rank], seen[-1 - rank]) for b, seen in ratios.items()}
        | {1: (1.0, 1.0)},
        left_out=dict(left_out or {}),
    )


def _rank(count: int) -> int:
    """How many values at either end of `count` sorted ones the interval leaves out."""
    outside, rank = 2 / 2**count, 0
    while outside + 2 * comb(count, rank + 1) / 2**count <= 1 - _CONFIDENCE:
        rank += 1
        outside += 2 * comb(count, rank) / 2**count
    return rank


def _turn(run: Callable[[], object], clock_ns: Callable[[], int]) -> float:
    """Mean nanoseconds of a run: once, and again until the turn is over."""
    start = clock_ns()
    count, spent = 0, 0
    while spent < _TURN_NS:
        run()
        count += 1
        spent = clock_ns() - start
    return spent / count
