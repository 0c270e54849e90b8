"""An arm's capacity: the highest Poisson rate whose p99 keeps the budget, found by short levels.

A short level holds or fails by chance as well: its p99 comes from few requests, and the machine is
faster or slower from one level to the next. So the capacity is the rate at which half of the
levels hold, and no level decides alone.

The chance that a level at the rate r holds is taken as a logistic curve that falls in ln r. Its
centre (the capacity) and its width (the scatter) are unknown; what the levels so far say of both
is a grid of weights. Beside the curve one case is kept in mind: that nothing holds at any rate, as
the service time alone is above the budget.

Only whether a level held counts, not by how much. How p99 rises towards the budget differs from
server to server: an estimate that used it was 2 to 14 % too low after 10 levels, and its 95 %
intervals held the capacity of a server with a tight budget 6 times of 10 (simulated).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HICCUP = 0.03
"""The chance that a level fails at any rate, because the machine was away for a moment."""

LUCK = 0.002
"""The chance that a level holds at any rate."""

WIDTHS = np.geomspace(0.012, 0.5, 11)
"""The widths of the curve that are thought possible, in ln r. A machine whose speed scatters by
10 % (standard deviation) makes it 0.055, and p99 of 1,000 requests adds about as much."""

# What is believed before the first level, in ln r and ln width: the guess is right within a factor
# of 2 or so, and the width is rather large. A few levels outweigh the first, many the second: a few
# cannot show how much a machine scatters, and their interval has to be safe on a bad one.
GUESS_SPREAD = 0.8
USUAL_WIDTH, WIDTH_SPREAD = 0.2, 1.0
# The chance that nothing holds at any rate.
NEVER = 0.01
# Rates lie on both sides of the centre in turn, as levels at the centre do not tell the width. In
# standard deviations of where a level's own edge might be.
ASIDE = 0.4
# Nothing is asked below guess / REACH, nor below FEWEST_RPS, where a level has hardly a request.
REACH = 30.0
FEWEST_RPS = 2.0
# How far from all that was tried the next rate may be: more above it only floods the server.
STEP = 3.0
# A capacity is 0 if that is as sure.
SURE = 0.9
GRID = 0.08


@dataclass(frozen=True)
class Trial:
    """One level: its rate, whether it kept the budget, and in which round it was measured.

    Levels that were bound by the generator are no trials.
    """

    rate_rps: float
    held: bool
    round: int


@dataclass(frozen=True)
class Capacity:
    """An arm's capacity with its 95 % interval.

    rps is 0 if nothing holds, and high_rps is then the rate from which on that is known. high_rps
    is None if nothing failed: the capacity is then at least about rps, the highest rate asked.
    """

    rps: float
    low_rps: float
    high_rps: float | None


@dataclass(frozen=True)
class Belief:
    """What trials say. weights: of each centre (axis 0, ln rps) and width (axis 1); with the chance
    that nothing ever holds they add up to 1.
    """

    centres: np.ndarray
    weights: np.ndarray
    never: float

    def quantile(self, share: float) -> float:
        """The rate in rps below which the capacity is with this chance."""
        return 0.0 if share < self.never else math.exp(self.centre(share - self.never))

    def centre(self, weight: float) -> float:
        """The centre below which there is so much weight."""
        by_centre = self.weights.sum(axis=1)
        return float(np.interp(weight, np.cumsum(by_centre) - by_centre / 2, self.centres))


def next_rate(trials: Sequence[Trial], guess_rps: float, most_rps: float = math.inf) -> float:
    """The rate that the next level should have, to three significant digits.

    guess_rps: where the capacity may be, within a factor of 3 or so; a closed loop's throughput.
    most_rps: nothing above it is asked, as the generator cannot send more.
    """
    if not trials:
        return for_people(min(_tame(guess_rps), most_rps))
    belief = believe(trials, guess_rps)
    weights = belief.weights / belief.weights.sum()
    mean = float(weights.sum(axis=1) @ belief.centres)
    spread = float(weights.sum(axis=1) @ (belief.centres - mean) ** 2)
    scatter = math.exp(float(weights.sum(axis=0) @ np.log(WIDTHS**2))) * math.pi**2 / 3
    aside = math.sqrt(spread + scatter)
    rate = math.exp(mean + ASIDE * aside * _side(trials, mean, aside))
    tried = [t.rate_rps for t in trials]
    rate = min(max(rate, min(tried) / STEP), max(tried) * STEP)
    return for_people(min(max(rate, _floor(guess_rps)), most_rps))


def _side(trials: Sequence[Trial], mean: float, near: float) -> int:
    """On which side of the centre the next rate lies, and how far. Until levels held and failed,
    on the side to which they lead, in growing steps; then on the one where fewer are near.
    """
    held = sum(t.held for t in trials)
    if held in (0, len(trials)):
        return len(trials) - 1 if held else 1 - len(trials)
    apart = [math.log(t.rate_rps) - mean for t in trials]
    above = sum(0 < x < near for x in apart)
    below = sum(-near < x <= 0 for x in apart)
    return 1 if above < below else -1


def estimate(trials: Sequence[Trial], guess_rps: float) -> Capacity:
    """The capacity that the trials show. Without any it is the guess, from 0 to no end."""
    belief = believe(trials, guess_rps)
    low, middle, high = (belief.quantile(share) for share in (0.025, 0.5, 0.975))
    floor = _floor(guess_rps)
    below = belief.never + float(belief.weights[belief.centres < math.log(floor)].sum())
    if below >= SURE:
        return Capacity(0.0, 0.0, max(high, floor))
    # Where nothing may hold, but that is not sure, it is where it would be otherwise.
    middle = middle or math.exp(belief.centre((1 - belief.never) / 2))
    middle = min(middle, max((t.rate_rps for t in trials), default=middle))
    failed = any(not t.held for t in trials)
    return Capacity(middle, min(low, middle), max(high, middle) if failed else None)


def is_narrow(capacity: Capacity, within: float) -> bool:
    """Whether the capacity is known well enough: its interval lies within this share of it on
    both sides, or it is 0. One without an upper end never is, unless its lower end is near.
    """
    if capacity.rps == 0.0:
        return True
    high = capacity.rps if capacity.high_rps is None else capacity.high_rps
    return capacity.low_rps >= capacity.rps * (1 - within) and high <= capacity.rps * (1 + within)


def believe(trials: Sequence[Trial], guess_rps: float) -> Belief:
    """What the trials say, first on a coarse grid, then on a fine one where the weight is."""
    rates = [math.log(r) for r in (_tame(guess_rps), *(t.rate_rps for t in trials))]
    reach = math.log(2 * REACH)
    coarse = _weigh(trials, guess_rps, np.arange(min(rates) - reach, max(rates) + reach, GRID))
    sure = float(coarse.weights.sum())
    low, high = coarse.centre(0.0001 * sure), coarse.centre(0.9999 * sure)
    fine = np.linspace(low - GRID, high + GRID, 121)
    belief = _weigh(trials, guess_rps, fine)
    return Belief(fine, belief.weights * (sure / belief.weights.sum()), coarse.never)


def _weigh(trials: Sequence[Trial], guess_rps: float, centres: np.ndarray) -> Belief:
    prior = log_prior(centres, guess_rps)[:, None] - 0.5 * width_deviations() ** 2
    prior += math.log(1 - NEVER) - math.log(np.exp(prior).sum())
    for trial in trials:
        prior += np.log(chance(trial, centres[:, None]))
    held = sum(t.held for t in trials)
    never = math.log(NEVER) + held * math.log(LUCK) + (len(trials) - held) * math.log(1 - LUCK)
    most = max(float(prior.max()), never)
    weights, never = np.exp(prior - most), math.exp(never - most)
    total = float(weights.sum()) + never
    return Belief(centres, weights / total, never / total)


def chance(trial: Trial, centres: np.ndarray) -> np.ndarray:
    """The chance of what came out, for each centre and width. centres: ends in an axis of 1."""
    above = np.clip((math.log(trial.rate_rps) - centres) / WIDTHS, -50, 50)
    holds = LUCK + (1 - LUCK - HICCUP) / (1 + np.exp(above))
    result: np.ndarray = holds if trial.held else 1 - holds
    return result


def log_prior(centres: np.ndarray, guess_rps: float) -> np.ndarray:
    """What is believed of the centres before the first level, as a logarithm without scale."""
    off = (centres - math.log(_tame(guess_rps))) / GUESS_SPREAD
    result: np.ndarray = -2 * np.log1p(off**2 / 3)  # Student's t: a guess may be quite wrong
    return result


def width_deviations() -> np.ndarray:
    """How far each width is from the usual one, in standard deviations of what is believed."""
    result: np.ndarray = (np.log(WIDTHS) - math.log(USUAL_WIDTH)) / WIDTH_SPREAD
    return result


def _tame(guess_rps: float) -> float:
    """A guess of 0 (nothing was answered) is none."""
    return max(guess_rps, FEWEST_RPS / REACH)


def _floor(guess_rps: float) -> float:
    guess_rps = _tame(guess_rps)
    return max(guess_rps / REACH, min(FEWEST_RPS, guess_rps / STEP))


def for_people(rate_rps: float) -> float:
    """Three significant digits, in which a rate is easier to read and to say."""
    return float(f"{rate_rps:.3g}")
