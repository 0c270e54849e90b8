"""Which arm to keep, going by capacities: the simplest that no other clearly beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from tritonkit.bench.result import ArmRatio, ArmResult
from tritonkit.stats.ratio import says_no_difference

MUST_GAIN = 1.2
"""A more involved arm is chosen only if it sustains at least this multiple of a simpler one, and
if the interval of that multiple does not hold 1.

Less than that is not worth running Triton or a scheduler for.
"""


@dataclass(frozen=True)
class Standing:
    """Where the others stand beside the arm that is kept; in each group the simplest is first.

    simpler, more: simpler or more involved arms of which enough is known. undecided: arms that
    would be kept instead, or might be, if more were known. left_out: no level of theirs counts.
    no_difference: all of them were compared, and no two were found to differ.
    """

    kept: ArmResult
    simpler: tuple[ArmResult, ...]
    more: tuple[ArmResult, ...]
    undecided: tuple[ArmResult, ...]
    left_out: tuple[ArmResult, ...]
    no_difference: bool


def stand(arms: Sequence[ArmResult], ratios: Sequence[ArmRatio]) -> Standing:
    """Each arm in turn has to clearly beat the one that would be kept otherwise. arms: from the
    simplest to the most involved; at least one of them was measured.
    """
    measured = [arm for arm in arms if arm.capacity_rps is not None]
    kept = measured[0]
    for arm in measured[1:]:
        if _clearly_beats(ratios, arm, kept):
            kept = arm
    left_out = tuple(arm for arm in arms if arm.capacity_rps is None)
    others = [arm for arm in measured if arm is not kept]
    undecided = tuple(arm for arm in others if _is_undecided(ratios, arm, kept))
    decided = [arm for arm in others if arm not in undecided]
    place = measured.index(kept)
    pairs = [pair(ratios, one, other) for one, other in combinations(measured, 2)]
    return Standing(
        kept,
        tuple(arm for arm in decided if measured.index(arm) < place),
        tuple(arm for arm in decided if measured.index(arm) > place),
        undecided,
        left_out,
        len(measured) > 1 and not left_out and all(map(_no_difference, pairs)),
    )


def pair(ratios: Sequence[ArmRatio], one: ArmResult, other: ArmResult) -> ArmRatio:
    """The pair's ratio, which has the more involved arm first."""
    return next(r for r in ratios if {r.arm, r.than} == {one.name, other.name})


def _clearly_beats(ratios: Sequence[ArmRatio], more: ArmResult, simpler: ArmResult) -> bool:
    found = pair(ratios, more, simpler)
    if found.ratio is None:  # the simpler one sustains nothing, or there is no upper end
        nothing = bool(more.capacity_rps) and not simpler.capacity_rps
        return nothing or (found.low or 0.0) >= MUST_GAIN
    return found.ratio >= MUST_GAIN and found.differs


def _is_undecided(ratios: Sequence[ArmRatio], arm: ArmResult, kept: ArmResult) -> bool:
    """Whether either of the two would be kept, if it were known how much both sustain: an end of
    the ratio is not known, or the two are so far apart that the ratio says nothing.
    """
    found = pair(ratios, kept, arm)
    if not arm.capacity_rps or (found.differs and found.ratio is not None) or _no_difference(found):
        return False
    surely_more = (found.low or 0.0) >= MUST_GAIN
    surely_no_more = found.high is not None and found.high < MUST_GAIN
    return not (surely_more if found.arm == kept.name else surely_no_more)


def _no_difference(found: ArmRatio) -> bool:
    return found.ratio is not None and says_no_difference(found.low, found.high)
