"""The verdict in one plain sentence, with the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tritonkit.bench.arms import BATCHING
from tritonkit.bench.demand import held_at
from tritonkit.bench.result import ArmRatio, ArmResult
from tritonkit.bench.standing import MUST_GAIN, Standing, pair
from tritonkit.stats.disturbance import Disturbance

LABELS: Mapping[str, str] = {
    "ort_baseline": "one ONNX Runtime session",
    "ort_batcher": "one ONNX Runtime session with an asyncio batcher",
    "triton_unbatched": "Triton without batching",
    "triton_batched": "Triton with dynamic batching",
}

GENERATOR_WAS_THE_LIMIT = (
    "No verdict: the load generator was the limit at every level; give it CPUs of its own, or "
    "more time with --thorough."
)


def why_kept(standing: Standing, ratios: Sequence[ArmRatio], slo_p99_ms: float) -> str:
    """How much the arm that is kept sustains, against what, how surely, and what is not known."""
    kept, undecided, left_out = standing.kept, standing.undecided, standing.left_out
    sustains = (
        f"{_capital(LABELS[kept.name])} sustains {_capacity(kept)} requests/s within "
        f"p99 {slo_p99_ms:g} ms"
    )
    said = ", ".join([sustains, *(_versus(ratios, kept, arm) for arm in standing.simpler)])
    if standing.more:
        reaches = " and ".join(_versus_kept(ratios, kept, arm) for arm in standing.more)
        said += f"; {reaches}: not the {MUST_GAIN:g}×, with an interval above 1, that it must gain"
    if standing.no_difference:
        said = f"No difference was found, so the simplest is kept: {_lower(said)}"
    elif kept.name not in BATCHING:
        # It pays or not only by arms that batch and of which that much is known.
        if any(arm.name in BATCHING for arm in (*undecided, *left_out)):
            said = f"Whether batching pays was not decided: {_lower(said)}"
        elif any(arm.name in BATCHING for arm in standing.more):
            said = f"Batching does not pay: {_lower(said)}"
    wide = [arm for arm in undecided if pair(ratios, kept, arm).ratio is not None]
    no_end = [arm for arm in undecided if arm not in wide]
    if wide:
        said += f"; {_too_wide(ratios, wide, kept)}"
    if no_end:
        said += f"; {_without_end(no_end, kept)}"
    if left_out:
        said += f"; {_not_judged(left_out)}"
    return f"{said}."


def why_none_holds(arms: Sequence[ArmResult], slo_p99_ms: float) -> str:
    """Where no arm keeps the budget at any load: how near the best of them came."""
    lowest = min(
        (level.p99_ms for a in arms for level in a.levels if level.p99_ms is not None),
        default=None,
    )
    found = "no request succeeded" if lowest is None else f"the lowest p99 was {lowest:.1f} ms"
    return f"No arm keeps p99 within {slo_p99_ms:g} ms at any load tried; {found}."


def why_for_rate(
    arm: ArmResult, before: Sequence[ArmResult], slo_p99_ms: float, rate_rps: float
) -> str:
    """The arm holds the rate. before: the simpler arms, of which none is known to."""
    failed = [a for a in before if a.demand and a.demand.holds is False]
    unknown = [a for a in before if a.demand and a.demand.holds is None]
    tail = f"; {' and '.join(LABELS[a.name] for a in failed)} did not" if failed else ""
    if unknown:
        tail += f"; {_not_judged(unknown)}"
    simplest = "" if tail else ", and it is the simplest to run"
    p99 = sorted(
        x.p99_ms
        for x in arm.levels
        if x.purpose == "rate" and not x.generator_bound and x.p99_ms is not None
    )
    return (
        f"{_capital(LABELS[arm.name])} holds {_rate(rate_rps)} requests/s at p99 "
        f"{p99[len(p99) // 2]:.1f} ms, within the budget of {slo_p99_ms:g} ms{simplest}{tail}."
    )


def why_none_for_rate(arms: Sequence[ArmResult], slo_p99_ms: float, rate_rps: float) -> str:
    """No arm holds the rate, though at least one was judged: what came nearest."""
    unknown = [a for a in arms if a.demand is None or a.demand.holds is None]
    best = max((a for a in arms if a not in unknown), key=lambda a: a.capacity_rps or 0.0)
    most = "none kept the budget at any load tried"
    if (best.capacity_rps or 0.0) >= rate_rps:
        held, counted = held_at(best.levels, rate_rps)
        most = (
            f"that takes two of three levels at it, and {LABELS[best.name]} came nearest with "
            f"{held} of {counted}: its capacity, {_capacity(best)}, is where about half of them "
            "hold"
        )
    elif best.capacity_rps:
        most = (
            f"the most that was sustained is {_capacity(best)} requests/s, by {LABELS[best.name]}"
        )
    if unknown:
        most += f"; {_not_judged(unknown)}"
    return f"No arm holds {_rate(rate_rps)} requests/s within p99 {slo_p99_ms:g} ms; {most}."


def busy(found: Disturbance) -> str:
    """A warning, to stand beside a verdict of a busy machine."""
    unequal = ""
    if found.is_unequal:
        (less, least), *_, (more, most) = sorted((x, arm) for arm, x in found.by_arm.items())
        unequal = (
            f", {more:.0%} while {LABELS[most]} was measured but {less:.0%} while "
            f"{LABELS[least]} was, so ratios are off too"
        ).replace("%", " %")
    return (
        f"The machine was busy: {found.told}{unequal}; the figures say little, so run it again "
        "on an idle machine."
    )


def _too_wide(ratios: Sequence[ArmRatio], arms: Sequence[ArmResult], kept: ArmResult) -> str:
    """Of which arms the ratio is known so roughly that it says nothing."""
    spans = [_span(pair(ratios, kept, arm), kept) for arm in arms]
    named = [f"{LABELS[arm.name]} ({arm.capacity_rps:,.0f})" for arm in arms]
    of = "the interval of the ratio is" if len(arms) == 1 else "the intervals of the ratios are"
    return (
        f"{_were(named)} not decided: {of} too wide ({_and(spans)}); run again with --thorough, "
        "or with a larger --time-budget-s"
    )


def _span(found: ArmRatio, kept: ArmResult) -> str:
    """The ends of the ratio to the arm that is kept."""
    low, high = found.low or 0.0, found.high or 0.0
    if found.arm == kept.name:
        low, high = (1 / high if high else 0.0), (1 / low if low else 0.0)
    return f"{low:.2f}–{high:.2f}" if high else f"at least {low:.2f}"


def _without_end(undecided: Sequence[ArmResult], kept: ArmResult) -> str:
    """Of which arms it is not known what they sustain at most."""
    no_end = [LABELS[arm.name] for arm in (kept, *undecided) if _has_no_end(arm)]
    return (
        f"{_were([_at_least(arm) for arm in undecided])} not decided: nothing that was tried on "
        f"{_and(no_end)} failed, so the load generator, or the time, was the limit"
    )


def _at_least(arm: ArmResult) -> str:
    low = f"at least {arm.capacity_interval_rps[0]:,.0f}" if arm.capacity_interval_rps else ""
    return f"{LABELS[arm.name]} ({low if _has_no_end(arm) else f'{arm.capacity_rps:,.0f}'})"


def _not_judged(arms: Sequence[ArmResult]) -> str:
    return f"{_were([LABELS[arm.name] for arm in arms])} not judged: the generator was the limit"


def _were(names: Sequence[str]) -> str:
    return f"{_and(names)} {'was' if len(names) == 1 else 'were'}"


def _and(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _has_no_end(arm: ArmResult) -> bool:
    return arm.capacity_interval_rps is not None and arm.capacity_interval_rps[1] is None


def _versus(ratios: Sequence[ArmRatio], kept: ArmResult, simpler: ArmResult) -> str:
    if not simpler.capacity_rps:
        return f"where {LABELS[simpler.name]} never kept the budget"
    found = pair(ratios, kept, simpler)
    return f"{_ratio(found)} {LABELS[simpler.name]} ({simpler.capacity_rps:,.0f})"


def _versus_kept(ratios: Sequence[ArmRatio], kept: ArmResult, more: ArmResult) -> str:
    found = pair(ratios, kept, more)
    reached = f"{more.capacity_rps or 0:,.0f}"
    return f"{LABELS[more.name]} reaches {', '.join(filter(None, (reached, _ratio(found))))}"


def _ratio(found: ArmRatio) -> str:
    if found.ratio is None:  # chosen, or decided against, by the end that is known
        most = "" if found.high is None else f"at most {found.high:.2f}×"
        return f"at least {found.low:.2f}×" if found.low else most
    if found.low is None or found.high is None:
        return f"{found.ratio:.2f}×"
    return f"{found.ratio:.2f}× ({found.low:.2f}–{found.high:.2f})"


def _capacity(arm: ArmResult) -> str:
    text = f"{arm.capacity_rps:,.0f}"
    if arm.capacity_interval_rps is None:
        return text
    low, high = arm.capacity_interval_rps
    return (
        f"{text} ({low:,.0f}–{high:,.0f})" if high is not None else f"{text} (at least {low:,.0f})"
    )


def _rate(rps: float) -> str:
    """A user's own rate as it was given, a computed one without its decimals."""
    return f"{rps:,.0f}" if rps >= 100 else f"{rps:.3g}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _lower(text: str) -> str:
    return text if text.startswith("Triton") else text[0].lower() + text[1:]
