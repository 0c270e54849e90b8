"""By how much one arm's capacity exceeds another's, and how sure that is.

The arms take turns, so what slows the machine in a round slows both. The model is that of an arm's
capacity twice, with one more unknown: how fast the machine was in each round, common to both arms.
What the levels say of the two capacities together is summed over all speeds that the rounds may
have had, and the interval is that of their ratio. So rounds are compared in pairs as far as they
move together, and the few levels of a short run give a wide interval, not a false one.

A bootstrap over rounds was the other way. Of two equal arms it saw a difference in 7 to 13 of 100
comparisons of 5 rounds, as what it draws often lacks the few levels around the capacity; drawn from
the beliefs of each sample, so that it was safe, it missed every second difference of 2 times with
8 rounds; and with 40 rounds it was no narrower (simulated).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tritonkit.stats.capacity import (
    WIDTHS,
    Capacity,
    Trial,
    believe,
    chance,
    estimate,
    log_prior,
    width_deviations,
)

# The scatter of the rounds' speeds (ln, standard deviation) that is thought possible: how likely.
SPEEDS = {0.0: 0.55, 0.05: 0.2, 0.15: 0.2, 0.4: 0.05}
# A round's speed, in standard deviations, and its chance: the normal distribution in seven points.
NODES, NODE_CHANCES = np.polynomial.hermite_e.hermegauss(7)
NODE_CHANCES /= NODE_CHANCES.sum()
# Both arms run on one machine: if one scatters more than usual, so does the other, mostly.
WIDTHS_CORRELATE = 0.85
CENTRES = 41
# So many rounds' chances are multiplied before the logarithm is taken, which is the slow part.
AT_ONCE = 10
TINY = 1e-300

ALIKE_WITHIN = 2.5
"""An interval that holds 1 says "no difference" if neither of its ends is further from 1 than this
many times; else the two were hardly compared, and nothing was found out.

That is wide, as a default run (10 to 12 levels an arm) cannot do better. Of pairs of equal arms, on
a machine whose speed scatters by 10 % or less, 97 to 100 of 100 were within 2.5 times; 83 to 98
within 2; hardly any within 1.2, which is what a verdict asks of a gain. It has to be 95. With 5
levels 33 to 65 are, and where the speed scatters by 30 %, 68 to 87: those are told to measure for
longer. (60 pairs each, simulated as in benchmarks/capacity.py.) Runs with --thorough, of 40 levels,
came to 1.1 to 1.3 times.
"""


@dataclass(frozen=True)
class Ratio:
    """A ratio of capacities with its 95 % interval.

    ratio is None if there is no such number: the lower one is 0, or one has no upper end. high is
    None if the interval has none.
    """

    ratio: float | None
    low: float
    high: float | None

    @property
    def differs(self) -> bool:
        """Whether the two differ: the interval does not hold 1."""
        return self.low > 1 or (self.high is not None and self.high < 1)


def says_no_difference(low: float | None, high: float | None) -> bool:
    """Whether an interval of a ratio says that there is no difference: it holds 1, and is narrow
    enough to have shown one. None: there is no such end.
    """
    if low is None or high is None:
        return False
    return 1 / ALIKE_WITHIN <= low <= 1 <= high <= ALIKE_WITHIN


def ratio(
    ours: Sequence[Trial], ours_guess_rps: float, theirs: Sequence[Trial], theirs_guess_rps: float
) -> Ratio:
    """The ratio of two arms that took turns in the same rounds, ours to theirs.

    A round may lack either. Where an arm only held or only failed, its capacity is a bound, and the
    ratio is that of the two intervals.
    """
    ours_is, theirs_is = estimate(ours, ours_guess_rps), estimate(theirs, theirs_guess_rps)
    if not (_both_ways(ours) and _both_ways(theirs) and ours_is.rps and theirs_is.rps):
        return ratio_of(ours_is, theirs_is)
    arms = [_Arm(ours, ours_guess_rps), _Arm(theirs, theirs_guess_rps)]
    apart = (arms[0].centres[:, None] - arms[1].centres).ravel()
    weights = _weights(*arms).ravel()
    order = np.argsort(apart)
    below = np.cumsum(weights[order]) - weights[order] / 2
    low, high = np.exp(np.interp((0.025, 0.975), below, apart[order])).tolist()
    middle = ours_is.rps / theirs_is.rps
    return Ratio(middle, min(low, middle), max(high, middle))


def ratio_of(now: Capacity, before: Capacity) -> Ratio:
    """The ratio of two capacities from their intervals alone, as of two runs on different days.

    The distances of each end on the logarithmic scale add up as independent errors do. It knows
    nothing of a machine that was faster on one of the days.
    """
    if now.high_rps is None or before.high_rps is None or not (now.rps and before.rps):
        # One of the two is a bound: then so is the ratio, at the far ends of both.
        known = before.high_rps is not None and before.rps > 0 and now.high_rps is not None
        low = now.low_rps / before.high_rps if before.high_rps else 0.0
        high = (
            now.high_rps / before.low_rps if before.low_rps and now.high_rps is not None else None
        )
        return Ratio(0.0 if known else None, low, high)
    down = math.hypot(_apart(now.rps, now.low_rps), _apart(before.high_rps, before.rps))
    up = math.hypot(_apart(now.high_rps, now.rps), _apart(before.rps, before.low_rps))
    middle = now.rps / before.rps
    return Ratio(
        middle, middle * math.exp(-down), None if math.isinf(up) else middle * math.exp(up)
    )


def _apart(higher: float, lower: float) -> float:
    return math.log(higher / lower) if lower else math.inf


def _both_ways(trials: Iterable[Trial]) -> bool:
    return len({trial.held for trial in trials}) == 2


class _Arm:
    """An arm's trials by round, and the centres to look at."""

    def __init__(self, trials: Sequence[Trial], guess_rps: float):
        self.guess_rps = guess_rps
        self.rounds: dict[int, list[Trial]] = defaultdict(list)
        for trial in trials:
            self.rounds[trial.round].append(trial)
        belief = believe(trials, guess_rps)
        weight = float(belief.weights.sum())
        low, high = belief.centre(0.0005 * weight), belief.centre(0.9995 * weight)
        self.centres = np.linspace(low, high, CENTRES)

    def chances(self, number: int) -> np.ndarray:
        """Of what came out in a round: scatter of speeds × (centre and width) × speed."""
        speeds = np.array(list(SPEEDS))[:, None, None] * NODES
        centres = self.centres[:, None] + speeds  # scatter × centre × speed
        result = np.ones((*centres.shape, len(WIDTHS)))
        for trial in self.rounds.get(number, ()):
            result *= chance(trial, centres[..., None])
        shaped: np.ndarray = result.swapaxes(2, 3).reshape(len(SPEEDS), -1, len(NODES))
        return shaped


def _weights(ours: _Arm, theirs: _Arm) -> np.ndarray:
    """Of each centre of ours (axis 0) with each of theirs (1); they add up to 1."""
    logs = _log_prior(ours, theirs)
    product = np.ones_like(logs)
    numbers = sorted({*ours.rounds, *theirs.rounds})
    for count, number in enumerate(numbers, 1):
        product *= (ours.chances(number) * NODE_CHANCES) @ theirs.chances(number).swapaxes(1, 2)
        if count % AT_ONCE == 0 or count == len(numbers):
            logs += np.log(np.maximum(product, TINY))
            product.fill(1.0)
    weights = np.exp(logs - logs.max()).sum(axis=0)
    shape = CENTRES, len(WIDTHS)
    by_centre = weights.reshape(*shape, *shape).sum(axis=(1, 3))
    result: np.ndarray = by_centre / by_centre.sum()
    return result


def _log_prior(ours: _Arm, theirs: _Arm) -> np.ndarray:
    """Scatter of speeds × (centre and width of ours) × (of theirs), as a logarithm."""
    rho, usual = WIDTHS_CORRELATE, width_deviations()
    widths = -0.5 * (
        (usual[:, None] ** 2 - 2 * rho * np.outer(usual, usual) + usual**2) / (1 - rho**2)
    )
    of_ours, of_theirs = (log_prior(a.centres, a.guess_rps) for a in (ours, theirs))
    both = of_ours[:, None, None, None] + widths[None, :, None, :] + of_theirs[None, None, :, None]
    size = CENTRES * len(WIDTHS)
    scatter = np.log(list(SPEEDS.values()))[:, None, None]
    result: np.ndarray = scatter + both.reshape(1, size, size)
    return result
