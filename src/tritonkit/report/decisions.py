"""The view of what is decided from: the ratios of arms, the overload, and the wanted rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonkit.report import formats as f
from tritonkit.report import prose
from tritonkit.report.levels import LevelView, Scale, errors, level_view, purpose


@dataclass(frozen=True)
class RatioView:
    """The capacity of one arm as a multiple of another's."""

    arm: str
    than: str
    """Both are keys of arms."""
    ratio: str
    span: str
    value: float | None
    low: float | None
    high: float | None
    differs: bool
    says: str
    """`more`, `less`, `no difference`, `not decided` or `not known`, so that no reader has to look
    for the 1.
    """


@dataclass(frozen=True)
class OverloadView:
    """One level above an arm's capacity."""

    arm: str
    level: LevelView
    factor: str
    """Offered as a multiple of the capacity."""
    answered: str
    """Achieved as a share of offered."""
    failed: str
    """Errors as a share of all requests, with their kinds."""


@dataclass(frozen=True)
class DemandView:
    """What the wanted rate asks of one arm."""

    arm: str
    holds: str
    headroom: str
    replicas: str
    cost: str


def ratio_views(result: Mapping[str, Any]) -> tuple[RatioView, ...]:
    """Every pair of arms, in the order of the result."""
    return tuple(_ratio(f.mapping(r)) for r in f.listed(result.get("ratios")))


def between(ratios: Sequence[RatioView], arm: str, than: str) -> RatioView | None:
    """The ratio of `arm` to `than`, turned round where the result has it the other way."""
    for found in ratios:
        if (found.arm, found.than) == (arm, than):
            return found
        if (found.than, found.arm) == (arm, than):
            low, value, high = (1 / v if v else None for v in (found.high, found.value, found.low))
            turned = {"arm": arm, "than": than, "ratio": value, "low": low, "high": high}
            return _ratio(turned | {"differs": found.differs})
    return None


def _ratio(measured: Mapping[str, Any]) -> RatioView:
    value, low, high = (f.number(measured.get(k)) for k in ("ratio", "low", "high"))
    differs = bool(measured.get("differs"))
    return RatioView(
        arm=f.text(measured.get("arm")),
        than=f.text(measured.get("than")),
        ratio=f.ratio(value),
        span=f.ratio_span(low, high),
        value=value,
        low=low,
        high=high,
        differs=differs,
        says=prose.difference(value, low, high, differs),
    )


def overload_views(
    arm: str, levels: Sequence[Mapping[str, Any]], capacity_rps: float | None, scale: Scale
) -> tuple[OverloadView, ...]:
    """The levels of one arm that were run above its capacity. levels: all of them, in order."""
    found = []
    for level in levels:
        if purpose(level) != "overload":
            continue
        offered, achieved = f.number(level.get("offered")), f.number(level.get("achieved_rps"))
        share = achieved / offered if offered and achieved is not None else None
        view = level_view(level, scale)
        requests = f.number(level.get("requests"))
        failed = f.percent(errors(level) / requests) if requests else view.errors
        factor = f.ratio(offered / capacity_rps if offered and capacity_rps else None)
        answered = f.percent(share)
        found.append(OverloadView(arm, view, factor, answered, prose.failures(level, failed)))
    return tuple(found)


def demand_view(arm: Mapping[str, Any]) -> DemandView | None:
    """None where no rate was asked for."""
    demand = f.mapping(arm.get("demand"))
    if not demand:
        return None
    return DemandView(
        arm=f.text(arm.get("name")),
        holds=prose.holds(demand.get("holds")),
        headroom=prose.headroom(f.number(demand.get("headroom"))),
        replicas=f.count(demand.get("replicas")),
        cost=f.compact(demand.get("cost_per_million")),
    )
