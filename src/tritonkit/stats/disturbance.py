"""What else took CPU time while arms were measured, and when that makes their figures doubtful."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

BUSY = 0.05
"""A machine is busy if others took more than this share of its CPUs, in the mean of an arm's
levels.

Capacities come out lower by about the share that is gone, and the search ends at ±5 %: what takes
less cannot be told from scatter. It is the mean, and not the worst level or the median: one bad
level of fourteen only widens an interval, and a build that runs a third of the time has no part in
a median. The share of a single window of 2 s was within 0.03 of what all other processes used
together by their own account, so the mean of an arm's is well below the limit on an idle machine.
"""


@dataclass(frozen=True)
class Disturbance:
    """Shares of the time of all CPUs that a comparison used, 0 to 1, over the levels that say so.

    others: what other processes used; stolen: what the hypervisor gave to other machines, None
    where the system does not say. worst: both together in the worst level. by_arm: both together,
    the mean of each arm's levels.
    """

    others: float
    stolen: float | None
    worst: float
    by_arm: Mapping[str, float]

    @property
    def is_busy(self) -> bool:
        """Whether too much is gone for the figures to be trusted."""
        return max(self.by_arm.values()) > BUSY

    @property
    def is_unequal(self) -> bool:
        """Whether one arm had to do with much less than another, so that ratios are off too."""
        return max(self.by_arm.values()) - min(self.by_arm.values()) > BUSY

    @property
    def told(self) -> str:
        """`other processes used 31 % of the CPUs and 2 % was stolen (34 % in the worst level)`."""
        stolen = "" if self.stolen is None else f" and {self.stolen:.0%} was stolen"
        said = f"other processes used {self.others:.0%} of the CPUs{stolen}"
        return f"{said} ({self.worst:.0%} in the worst level)".replace("%", " %")


def disturbance(arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> Disturbance | None:
    """Of arms' levels, as in result.json, by the arm's name. None if none has the shares, as in
    results of older versions.
    """
    others: list[float] = []
    stolen: list[float] = []
    both: dict[str, list[float]] = {}
    for arm, levels in arms.items():
        for level in levels:
            used, taken = (_share(level.get(key)) for key in ("others_cpu", "stolen_cpu"))
            if used is None:
                continue
            others.append(used)
            if taken is not None:
                stolen.append(taken)
            both.setdefault(arm, []).append(used + (taken or 0.0))
    if not others:
        return None
    return Disturbance(
        fmean(others),
        fmean(stolen) if stolen else None,
        max(share for shares in both.values() for share in shares),
        {arm: fmean(shares) for arm, shares in both.items()},
    )


def _share(value: Any) -> float | None:
    """A result may have been written by another program."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
