"""The requests that a plan is made for: when they come, and what they are like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Kind:
    """Requests that are alike. share: of all requests, relative to the other kinds.

    rows: of each. shape: requests of different shapes share no run. cost: what a run of theirs
    takes, relative to the service curve.
    """

    share: float = 1.0
    rows: int = 1
    shape: int = 0
    cost: float = 1.0


@dataclass(frozen=True)
class Requests:
    """Drawn requests; arrays of one value for each. starts_s: ascending."""

    starts_s: NDArray[np.float64]
    rows: NDArray[np.int64]
    shapes: NDArray[np.int64]
    costs: NDArray[np.float64]

    def faster(self, times: float) -> Requests:
        """The same at so many times the rate."""
        return replace(self, starts_s=self.starts_s / times)


class Stream(Protocol):
    """Requests that can come at any rate.

    The same seed gives the same requests at any rate, only closer together: so settings and rates
    are compared on the same luck.
    """

    @property
    def mean_rows(self) -> float:
        """Rows of a request."""

    @property
    def mean_cost(self) -> float:
        """Of a row."""

    def draw(self, rate_rps: float, count: int, seed: int) -> Requests:
        """So many requests at this rate."""


@dataclass(frozen=True)
class Poisson:
    """Independent requests of some kinds."""

    kinds: tuple[Kind, ...] = (Kind(),)

    @property
    def mean_rows(self) -> float:
        """Rows of a request."""
        return self._mean([kind.rows for kind in self.kinds])

    @property
    def mean_cost(self) -> float:
        """Of a row."""
        costs = self._mean([kind.cost * kind.rows for kind in self.kinds])
        return costs / self.mean_rows

    def draw(self, rate_rps: float, count: int, seed: int) -> Requests:
        """So many requests at this rate."""
        random = np.random.default_rng(seed)
        starts_s = np.cumsum(random.standard_exponential(count)) / rate_rps
        shares = np.array([kind.share for kind in self.kinds])
        drawn = random.choice(len(self.kinds), count, p=shares / shares.sum())
        return Requests(
            starts_s,
            np.array([kind.rows for kind in self.kinds], np.int64)[drawn],
            np.array([kind.shape for kind in self.kinds], np.int64)[drawn],
            np.array([kind.cost for kind in self.kinds], np.float64)[drawn],
        )

    def _mean(self, values: list[float]) -> float:
        return float(np.average(values, weights=[kind.share for kind in self.kinds]))


@dataclass(frozen=True)
class Replay:
    """Requests that were recorded, again and again, faster or slower than they came.

    gaps_s: how long after the request before it each came. kind_of: of each.
    """

    gaps_s: tuple[float, ...]
    kind_of: tuple[int, ...]
    kinds: tuple[Kind, ...] = (Kind(),)

    @property
    def mean_rows(self) -> float:
        """Rows of a request."""
        return float(np.mean([self.kinds[kind].rows for kind in self.kind_of]))

    @property
    def mean_cost(self) -> float:
        """Of a row."""
        own = [self.kinds[kind] for kind in self.kind_of]
        return sum(kind.cost * kind.rows for kind in own) / sum(kind.rows for kind in own)

    def draw(self, rate_rps: float, count: int, seed: int) -> Requests:
        """So many requests at this mean rate, from a place in the record that the seed decides."""
        first = int(np.random.default_rng(seed).integers(len(self.gaps_s)))
        places = (first + np.arange(count)) % len(self.gaps_s)
        gaps_s = np.array(self.gaps_s)
        of = np.array(self.kind_of)[places]
        return Requests(
            np.cumsum(gaps_s[places]) / (rate_rps * gaps_s.mean()),
            np.array([kind.rows for kind in self.kinds], np.int64)[of],
            np.array([kind.shape for kind in self.kinds], np.int64)[of],
            np.array([kind.cost for kind in self.kinds], np.float64)[of],
        )
