"""The view of single levels of load: what each showed, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tritonkit.report import formats as f
from tritonkit.report import prose

State = Literal["held", "failed", "excluded"]
"""excluded: the load generator was the limit, so the level tells nothing of the arm."""

_ORDER = ("load", "curve", "search", "rate", "overload", "soak")


@dataclass(frozen=True)
class Scale:
    """How many decimals this result's rates and times get, so that every column aligns."""

    slo_p99_ms: float | None
    rps_decimals: int
    ms_decimals: int

    def rps(self, value: Any) -> str:
        return f.fixed(value, self.rps_decimals)

    def ms(self, value: Any) -> str:
        return f.fixed(value, self.ms_decimals)

    def ms_span(self, interval: Any) -> str:
        return f.span(interval, lambda v: f.fixed(v, 0 if abs(v) >= 100 else self.ms_decimals))


@dataclass(frozen=True)
class Point:
    """One level in the plane of rate and p99."""

    rate_rps: float
    """As offered in an open loop; as achieved in a closed one, which offers none."""
    p99_ms: float
    low_ms: float | None
    high_ms: float | None
    """The ends of the p99's interval; None where it has none."""
    state: State
    errors: bool
    unsteady: bool


@dataclass(frozen=True)
class LevelView:
    """One level as text; `point` is None where nothing was answered."""

    loop: str
    purpose: str
    why: str
    """The purpose in words, with the round."""
    offered: str
    achieved: str
    p50: str
    p50_span: str
    p90: str
    p99: str
    p99_span: str
    max: str
    service_p99: str
    requests: str
    errors: str
    not_sent: str
    mean_batch: str
    lateness: str
    warmup: str
    state: State
    unsteady: bool
    has_errors: bool
    over_budget: bool
    marks: tuple[str, ...]
    """What the level is worth, in words; never empty, so that no mark is colour alone."""
    asides: tuple[str, ...]
    """What else to know about it, without alarm."""
    point: Point | None


def ordered(arm: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """An arm's levels by purpose, closed loops before open, then by rising load and by round."""

    def place(level: Mapping[str, Any]) -> tuple[int, bool, float, float]:
        why, load = purpose(level), f.number(level.get("offered")) or 0.0
        rank = _ORDER.index(why) if why in _ORDER else len(_ORDER)
        return rank, level.get("mode") == "open", load, f.number(level.get("round")) or 0.0

    return sorted((f.mapping(v) for v in f.listed(arm.get("levels"))), key=place)


def purpose(level: Mapping[str, Any]) -> str:
    """Why a level was run. Older results do not say: they have curves, then open loops."""
    given = level.get("purpose")
    if given:
        return str(given)
    return "search" if level.get("mode") == "open" else "curve"


def state(level: Mapping[str, Any]) -> State:
    """What the level decides. Without a budget every counted level is held."""
    if level.get("generator_bound"):
        return "excluded"
    return "failed" if level.get("holds_slo") is False or errors(level) else "held"


def errors(level: Mapping[str, Any]) -> float:
    """How many requests failed."""
    return f.number(level.get("errors")) or 0.0


def unsteady(level: Mapping[str, Any]) -> bool:
    """The level never settled; older results do not know."""
    return level.get("steady") is False


def rate(level: Mapping[str, Any]) -> float:
    """Requests a second: as offered in an open loop, as achieved in a closed one."""
    key = "offered" if level.get("mode") == "open" else "achieved_rps"
    return f.number(level.get(key)) or 0.0


def below_capacity(
    levels: Sequence[Mapping[str, Any]], capacity_rps: float | None
) -> Mapping[str, Any] | None:
    """The level of the search that held nearest below the capacity; None where none did."""
    if not capacity_rps:
        return None
    answered = [v for v in levels if f.number(v.get("p99_ms")) is not None]
    sound = [v for v in answered if state(v) == "held" and rate(v) <= capacity_rps]
    open_loop = [v for v in sound if purpose(v) in ("search", "rate")]
    return max(open_loop or sound, key=rate, default=None)


def level_view(level: Mapping[str, Any], scale: Scale) -> LevelView:
    """One level in words."""
    p99 = f.number(level.get("p99_ms"))
    over = p99 is not None and scale.slo_p99_ms is not None and p99 > scale.slo_p99_ms
    low, high = f.pair(level.get("p99_interval_ms")) or (None, None)
    point = None
    if p99 is not None and p99 > 0:
        flags = bool(errors(level)), unsteady(level)
        point = Point(rate(level), p99, low, high, state(level), *flags)
    return LevelView(
        loop=f.text(level.get("mode")),
        purpose=purpose(level),
        why=prose.why(purpose(level), f.number(level.get("round"))),
        offered=prose.offered(level),
        achieved=scale.rps(level.get("achieved_rps")),
        p50=scale.ms(level.get("p50_ms")),
        p50_span=scale.ms_span(level.get("p50_interval_ms")),
        p90=scale.ms(level.get("p90_ms")),
        p99=scale.ms(p99),
        p99_span=scale.ms_span(level.get("p99_interval_ms")),
        max=scale.ms(level.get("max_ms")),
        service_p99=scale.ms(level.get("service_p99_ms")),
        requests=f.count(level.get("requests")),
        errors=f.count(level.get("errors")),
        not_sent=f.count(level.get("not_sent")),
        mean_batch=f.fixed(level.get("mean_batch"), 1),
        lateness=scale.ms(level.get("lateness_p99_ms")),
        warmup=f.fixed(level.get("warmup_s"), 1),
        state=state(level),
        unsteady=unsteady(level),
        has_errors=errors(level) > 0,
        over_budget=over,
        marks=prose.marks(level, over, state(level)),
        asides=prose.asides(level),
        point=point,
    )
