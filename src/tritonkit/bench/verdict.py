"""From measured arms to a decision, in one plain sentence. Batching must earn its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from tritonkit.bench.arms import BATCHING
from tritonkit.bench.demand import held_at
from tritonkit.bench.result import ArmRatio, ArmResult, Choice, Verdict

MUST_GAIN = 1.2
"""A more involved arm is chosen only if it sustains at least this multiple of a simpler one, and
if the interval of that multiple does not hold 1.

Less than that is not worth running Triton or a scheduler for.
"""

LABELS: Mapping[Choice, str] = {
    "ort_baseline": "one ONNX Runtime session",
    "ort_batcher": "one ONNX Runtime session with an asyncio batcher",
    "triton_unbatched": "Triton without batching",
    "triton_batched": "Triton with dynamic batching",
}


def decide(
    arms: Sequence[ArmResult],
    ratios: Sequence[ArmRatio],
    slo_p99_ms: float,
    rate_rps: float | None,
) -> Verdict:
    """The simplest arm that does the job. arms: from the simplest to the most involved.

    With a rate, the first arm that holds it within the budget. Without, each arm in turn has to
    clearly beat the one that would be kept otherwise.
    """
    if rate_rps is not None:
        return _decide_for_rate(arms, slo_p99_ms, rate_rps)
    if all(not arm.capacity_rps for arm in arms):
        return _none_holds(arms, slo_p99_ms)
    measured = [arm for arm in arms if arm.capacity_rps is not None]
    chosen = measured[0]
    for arm in measured[1:]:
        if _clearly_beats(ratios, arm, chosen):
            chosen = arm
    left_out = [arm for arm in arms if arm.capacity_rps is None]
    others = [arm for arm in measured if arm is not chosen]
    undecided = [arm for arm in others if _is_undecided(ratios, arm, chosen)]
    decided = [arm for arm in others if arm not in undecided]
    found = [_of(ratios, one, other) for one, other in combinations(measured, 2)]
    all_known = len(measured) > 1 and not left_out and all(x.ratio is not None for x in found)
    no_difference = all_known and not any(x.differs for x in found)
    place = measured.index(chosen)
    simpler = [arm for arm in decided if measured.index(arm) < place]
    more = [arm for arm in decided if measured.index(arm) > place]
    sustains = (
        f"{_capital(LABELS[chosen.name])} sustains {_capacity(chosen)} requests/s within "
        f"p99 {slo_p99_ms:g} ms"
    )
    because = ", ".join([sustains, *(_versus(ratios, chosen, arm) for arm in simpler)])
    if more:
        reaches = " and ".join(_versus_chosen(ratios, chosen, arm) for arm in more)
        because += (
            f"; {reaches}: not the {MUST_GAIN:g}×, with an interval above 1, that it must gain"
        )
    if no_difference:
        because = f"No difference was found, so the simplest is kept: {_lower(because)}"
    elif chosen.name not in BATCHING:
        # It pays or not only by arms that batch and of which that much is known.
        if any(arm.name in BATCHING for arm in (*undecided, *left_out)):
            because = f"Whether batching pays was not decided: {_lower(because)}"
        elif any(arm.name in BATCHING for arm in more):
            because = f"Batching does not pay: {_lower(because)}"
    if undecided:
        because += f"; {_not_decided(undecided, chosen)}"
    if left_out:
        because += f"; {_not_judged(left_out)}"
    return Verdict(chosen.name, f"{because}.", _settings(chosen), no_difference)


def _is_undecided(ratios: Sequence[ArmRatio], arm: ArmResult, chosen: ArmResult) -> bool:
    """Whether either of the two would be kept, if it were known how much both sustain."""
    found = _of(ratios, chosen, arm)
    if found.ratio is not None or not arm.capacity_rps:
        return False
    surely_more = (found.low or 0.0) >= MUST_GAIN
    surely_no_more = found.high is not None and found.high < MUST_GAIN
    return not (surely_more if found.arm == chosen.name else surely_no_more)


def _not_decided(undecided: Sequence[ArmResult], chosen: ArmResult) -> str:
    """Of which arms it is not known what they sustain at most."""
    no_end = [LABELS[arm.name] for arm in (chosen, *undecided) if _has_no_end(arm)]
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


def _none_holds(arms: Sequence[ArmResult], slo_p99_ms: float) -> Verdict:
    if all(arm.capacity_rps is None for arm in arms):
        return Verdict(
            "none",
            "No verdict: the load generator was the limit at every level; give it CPUs of its "
            "own, or more time with --thorough.",
            None,
        )
    lowest = min(
        (level.p99_ms for a in arms for level in a.levels if level.p99_ms is not None),
        default=None,
    )
    found = "no request succeeded" if lowest is None else f"the lowest p99 was {lowest:.1f} ms"
    return Verdict(
        "none", f"No arm keeps p99 within {slo_p99_ms:g} ms at any load tried; {found}.", None
    )


def _of(ratios: Sequence[ArmRatio], one: ArmResult, other: ArmResult) -> ArmRatio:
    """The pair's ratio, which has the more involved arm first."""
    return next(r for r in ratios if {r.arm, r.than} == {one.name, other.name})


def _clearly_beats(ratios: Sequence[ArmRatio], more: ArmResult, simpler: ArmResult) -> bool:
    found = _of(ratios, more, simpler)
    if found.ratio is None:  # the simpler one sustains nothing, or there is no upper end
        nothing = bool(more.capacity_rps) and not simpler.capacity_rps
        return nothing or (found.low or 0.0) >= MUST_GAIN
    return found.ratio >= MUST_GAIN and found.differs


def _decide_for_rate(arms: Sequence[ArmResult], slo_p99_ms: float, rate_rps: float) -> Verdict:
    for arm in arms:
        if arm.demand is None or not arm.demand.holds:
            continue
        failed = [a for a in arms[: arms.index(arm)] if a.demand and a.demand.holds is False]
        unknown = [a for a in arms[: arms.index(arm)] if a.demand and a.demand.holds is None]
        tail = f"; {' and '.join(LABELS[a.name] for a in failed)} did not" if failed else ""
        if unknown:
            tail += f"; {_not_judged(unknown)}"
        simplest = "" if tail else ", and it is the simplest to run"
        p99 = sorted(
            x.p99_ms
            for x in arm.levels
            if x.purpose == "rate" and not x.generator_bound and x.p99_ms is not None
        )
        return Verdict(
            arm.name,
            f"{_capital(LABELS[arm.name])} holds {rate_rps:,g} requests/s at p99 "
            f"{p99[len(p99) // 2]:.1f} ms, within the budget of {slo_p99_ms:g} ms{simplest}{tail}.",
            _settings(arm),
        )
    if all(arm.demand is None or arm.demand.holds is None for arm in arms):
        return _none_holds([], slo_p99_ms)
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
    return Verdict(
        "none",
        f"No arm holds {rate_rps:,g} requests/s within p99 {slo_p99_ms:g} ms; {most}.",
        None,
    )


def _versus(ratios: Sequence[ArmRatio], chosen: ArmResult, simpler: ArmResult) -> str:
    if not simpler.capacity_rps:
        return f"where {LABELS[simpler.name]} never kept the budget"
    found = _of(ratios, chosen, simpler)
    return f"{_ratio(found)} {LABELS[simpler.name]} ({simpler.capacity_rps:,.0f})"


def _versus_chosen(ratios: Sequence[ArmRatio], chosen: ArmResult, more: ArmResult) -> str:
    found = _of(ratios, chosen, more)
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


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _lower(text: str) -> str:
    return text if text.startswith("Triton") else text[0].lower() + text[1:]


def _settings(arm: ArmResult) -> dict[str, int]:
    config = arm.certificate.effective_config
    batching = config.get("dynamic_batching", {})
    settings = {"threads": arm.certificate.threads, "instances": arm.certificate.instances}
    if arm.name in BATCHING:
        settings |= {
            "max_batch_size": int(config["max_batch_size"]),
            "max_queue_delay_us": int(batching.get("max_queue_delay_microseconds", 0)),
        }
    return settings
