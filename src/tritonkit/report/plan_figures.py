"""The figures of a plan: what settings do, predicted beside measured, and one notch further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tritonkit.plan.recalibrate import OVERLOADED
from tritonkit.plan.search import WORTH
from tritonkit.report import formats as f
from tritonkit.report import plan_prose as words
from tritonkit.report.levels import Scale, rate

WIDE = 1.25
"""An interval wider than this factor on both sides hardly tests a prediction."""


@dataclass(frozen=True)
class OutcomeView:
    """What settings do, as text. p99: at the plan's rate; `> 150` of a vast overload."""

    capacity: str
    span: str
    p99: str
    capacity_rps: float | None
    low_rps: float | None
    high_rps: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class ErrorView:
    """One figure of the winner, predicted beside measured."""

    name: str
    unit: str
    predicted: str
    measured: str
    span: str
    """The interval of what was measured; empty without one."""
    known_as: str
    """How well the measured one is known: its interval, or the p99s of its levels."""
    error: str
    says: str
    missed: str
    """A sentence; empty where the prediction did not miss."""


@dataclass(frozen=True)
class NotchView:
    """One change to the winner."""

    change: str
    capacity: str
    capacity_ratio: str
    p99: str
    p99_ratio: str
    says: str


def outcome(value: Any, scale: Scale) -> OutcomeView:
    """Of an outcome in plan.json, predicted or measured."""
    found = f.mapping(value)
    interval = found.get("capacity_interval_rps")
    low, high = f.pair(interval) or (None, None)
    capacity, p99 = f.number(found.get("capacity_rps")), f.number(found.get("p99_ms"))
    return OutcomeView(
        capacity=f.DASH if capacity is None else scale.rps(capacity) if capacity else "0",
        span=f.span(interval, scale.rps),
        p99=_p99(p99, scale),
        capacity_rps=capacity,
        low_rps=low,
        high_rps=high,
        p99_ms=p99,
    )


def _p99(p99_ms: float | None, scale: Scale) -> str:
    if p99_ms is not None and _is_vast(p99_ms, scale):
        return f"> {f.compact(OVERLOADED * (scale.slo_p99_ms or 0.0))}"
    return scale.ms(p99_ms)


def _is_vast(p99_ms: float, scale: Scale) -> bool:
    """So far above the budget that the number says no more than that it is."""
    return bool(scale.slo_p99_ms) and p99_ms > OVERLOADED * (scale.slo_p99_ms or 0.0)


def measured_outcome(value: Any, scale: Scale) -> OutcomeView:
    """Of live levels. Where none counted plan.json has a capacity of 0 without an interval."""
    found = outcome(value, scale)
    if found.low_rps is None and not found.capacity_rps:
        return replace(found, capacity=f.DASH, capacity_rps=None)
    return found


def off(predicted: float | None, measured: float | None) -> float | None:
    """How far a prediction is off, as a share of what was measured."""
    return None if predicted is None or not measured else f.number(predicted / measured - 1)


def errors(
    predicted: OutcomeView,
    measured: OutcomeView,
    at_rate: Sequence[float],
    p99_at: str,
    scale: Scale,
) -> tuple[ErrorView, ErrorView]:
    """at_rate: the p99s of the winner's levels at the plan's rate."""
    capacity = off(predicted.capacity_rps, measured.capacity_rps)
    p99 = off(predicted.p99_ms, measured.p99_ms)
    inside = _is_inside(predicted.capacity_rps, measured)
    limits = words.CAPACITY_WITHIN, words.P99_WITHIN
    each = [scale.ms(p99_ms) for p99_ms in sorted(at_rate)]
    return (
        ErrorView(
            name="Capacity",
            unit="requests/s",
            predicted=predicted.capacity,
            measured=measured.capacity,
            span=measured.span,
            known_as=f"95{f.NBSP}%: {measured.span}" if measured.span else "no interval",
            error=words.signed(capacity),
            says=words.verdict(capacity, limits[0], inside),
            missed=words.missed("The capacity", capacity, limits[0], inside),
        ),
        ErrorView(
            name=f"p99 at {p99_at}",
            unit="ms",
            predicted=predicted.p99,
            measured=measured.p99,
            span="",
            known_as=f"its levels: {', '.join(each)}" if each else "no level",
            error=words.signed(p99),
            says=words.verdict(p99, limits[1], False),
            missed=words.missed(f"The p99 at {p99_at}", p99, limits[1], False),
        ),
    )


def _is_inside(value: float | None, measured: OutcomeView) -> bool:
    if value is None or measured.low_rps is None:
        return False
    return measured.low_rps <= value and (measured.high_rps is None or value <= measured.high_rps)


def p99s_ms(levels: Sequence[Mapping[str, Any]], at_rps: float | None) -> list[float]:
    """Of the levels at the plan's rate that count, as they were run."""
    found = [
        f.number(level.get("p99_ms"))
        for level in levels
        if rate(level) == at_rps and not level.get("generator_bound")
    ]
    return [p99 for p99 in found if p99 is not None]


def weak(measured: OutcomeView, at_rate: Sequence[float], scale: Scale) -> tuple[str, ...]:
    """Why what was measured hardly tests the predictions; empty where it does."""
    found = []
    capacity, low, high = measured.capacity_rps, measured.low_rps, measured.high_rps
    if capacity and low is not None and (high is None or high > WIDE**2 * max(low, 1e-9)):
        found.append(
            f"The interval of the measured capacity, {measured.span} requests/s, is too wide to "
            "test what was predicted of it."
        )
    least = min(at_rate, default=0.0)
    if least > 0 and max(at_rate) > (1 + words.P99_WITHIN) * least:
        found.append(
            f"The levels at that rate had p99s from {scale.ms(least)} to {scale.ms(max(at_rate))} "
            "ms: they differ among themselves by more than a prediction may be off."
        )
    return tuple(found)


def notch_view(
    notch: Mapping[str, Any], winner: Mapping[str, Any], base: OutcomeView, scale: Scale
) -> NotchView:
    """One change to the winner. base: what is predicted of the winner, by the same simulation."""
    found = outcome(notch.get("outcome"), scale)
    capacity, p99 = _ratios(found, base)
    is_over = bool(scale.slo_p99_ms) and (found.p99_ms or 0.0) > (scale.slo_p99_ms or 0.0)
    vast = found.p99_ms is not None and _is_vast(found.p99_ms, scale)
    return NotchView(
        change=words.change(f.mapping(notch.get("settings")), winner, f.text(notch.get("change"))),
        capacity=found.capacity,
        capacity_ratio=f.ratio(capacity),
        p99=found.p99,
        p99_ratio=f.DASH if vast else f.ratio(p99),
        says=words.notch(capacity, p99, is_over),
    )


def betters(notch: Mapping[str, Any], base: OutcomeView, scale: Scale, needed: bool) -> bool:
    """Whether a change is predicted to be better than the winner, at what the plan was for.
    needed: at a rate the lowest p99 is; otherwise the highest capacity.
    """
    capacity, p99 = _ratios(outcome(notch.get("outcome"), scale), base)
    if needed:
        return p99 is not None and p99 < 1 - WORTH
    return capacity is not None and capacity > 1 + WORTH


def _ratios(found: OutcomeView, base: OutcomeView) -> tuple[float | None, float | None]:
    """Capacity and p99 as multiples of the winner's, predicted alike."""
    pairs = (found.capacity_rps, base.capacity_rps), (found.p99_ms, base.p99_ms)
    capacity, p99 = (None if a is None or not b else f.number(a / b) for a, b in pairs)
    return capacity, p99
