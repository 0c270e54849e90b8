"""From measured arms to a decision, in one plain sentence. Batching must earn its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tritonkit.bench.arms import BATCHING
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
    no_difference = len(measured) > 1 and not any(ratio.differs for ratio in ratios)
    sustains = (
        f"{_capital(LABELS[chosen.name])} sustains {_capacity(chosen)} requests/s within "
        f"p99 {slo_p99_ms:g} ms"
    )
    place = measured.index(chosen)
    simpler, more = measured[:place], measured[place + 1 :]
    parts = [sustains, *(_versus(ratios, chosen, arm) for arm in simpler)]
    because = ", ".join(parts)
    if more:
        reaches = " and ".join(_versus_chosen(ratios, chosen, arm) for arm in more)
        because += (
            f"; {reaches}: not the {MUST_GAIN:g}×, with an interval above 1, that it must gain"
        )
    if no_difference:
        because = f"No difference was found, so the simplest is kept: {_lower(because)}"
    elif chosen.name not in BATCHING:
        because = f"Batching does not pay: {_lower(because)}"
    left_out = [LABELS[arm.name] for arm in arms if arm.capacity_rps is None]
    if left_out:
        because += f"; {' and '.join(left_out)} was not judged: the generator was the limit"
    return Verdict(chosen.name, f"{because}.", _settings(chosen), no_difference)


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
            tail += (
                f"; {' and '.join(LABELS[a.name] for a in unknown)} was not judged: the generator "
                "was the limit"
            )
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
    best = max(arms, key=lambda a: a.capacity_rps or 0.0)
    most = (
        f"the most that was sustained is {_capacity(best)} requests/s, by {LABELS[best.name]}"
        if best.capacity_rps
        else "none kept the budget at any load tried"
    )
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
    if found.ratio is None:
        return f"at least {found.low:.2f}×" if found.low else ""
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
