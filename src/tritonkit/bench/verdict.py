"""From measured arms to a decision, in one plain sentence. Batching must earn its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tritonkit.bench.result import ArmResult, Choice, LevelRecord, Verdict
from tritonkit.stats.latency import LevelStats

MUST_GAIN = 1.2
"""A more involved arm is chosen only if it sustains at least this multiple of a simpler one.

Less than that is within what a busy machine does to a short run, and not worth running Triton
or a scheduler for.
"""

LABELS: Mapping[Choice, str] = {
    "ort_baseline": "one ONNX Runtime session",
    "triton_unbatched": "Triton without batching",
    "triton_batched": "Triton with dynamic batching",
}


def holds_budget(stats: LevelStats, slo_p99_ms: float) -> bool:
    """No errors, and p99 within the budget.

    In an open loop latency counts from the intended start, so a server that falls behind the
    rate cannot hold a p99 for longer than the budget itself.
    """
    return stats.errors == 0 and stats.p99_ms is not None and stats.p99_ms <= slo_p99_ms


def capacity(levels: Sequence[LevelRecord]) -> float:
    """The highest rate of any level that holds the budget; 0 if none does."""
    return max((level.achieved_rps for level in levels if level.holds_slo), default=0.0)


def decide(arms: Sequence[ArmResult], slo_p99_ms: float, rate_rps: float | None) -> Verdict:
    """The simplest arm that does the job. arms: from the simplest to the most involved.

    With a rate, the first arm that holds it within the budget. Without, the first arm that no
    more involved one beats by MUST_GAIN or more.
    """
    if rate_rps is not None:
        return _decide_for_rate(arms, slo_p99_ms, rate_rps)
    best = max(arms, key=lambda a: a.capacity_rps)
    if best.capacity_rps == 0:
        lowest = min(
            (level.p99_ms for a in arms for level in a.levels if level.p99_ms is not None),
            default=None,
        )
        found = "no request succeeded" if lowest is None else f"the lowest p99 was {lowest:.1f} ms"
        return Verdict(
            "none", f"No arm keeps p99 within {slo_p99_ms:g} ms at any load tried; {found}.", None
        )
    chosen = next(a for a in arms if a.capacity_rps * MUST_GAIN > best.capacity_rps)
    sustains = (
        f"{_capital(LABELS[chosen.name])} sustains {chosen.capacity_rps:,.0f} requests/s within "
        f"p99 {slo_p99_ms:g} ms"
    )
    simpler = arms[: arms.index(chosen)]
    more = arms[arms.index(chosen) + 1 :]
    parts = [sustains]
    if simpler:
        parts.append(" and ".join(_beats(chosen, arm) for arm in simpler))
    because = ", ".join(parts)
    if more:
        reaches = " and ".join(_share(chosen, arm) for arm in more)
        because += f"; {reaches}, less than the {MUST_GAIN:g}× that it must gain"
    if chosen.name != "triton_batched":
        because = f"Batching does not pay: {_lower(because)}"
    return Verdict(chosen.name, f"{because}.", _settings(chosen))


def _decide_for_rate(arms: Sequence[ArmResult], slo_p99_ms: float, rate_rps: float) -> Verdict:
    for arm in arms:
        level = _holding(arm, rate_rps)
        if level is not None:
            failed = arms[: arms.index(arm)]
            tail = f"; {', '.join(LABELS[a.name] for a in failed)} did not" if failed else ""
            simplest = "" if failed else ", and it is the simplest to run"
            return Verdict(
                arm.name,
                f"{_capital(LABELS[arm.name])} holds {rate_rps:,g} requests/s at p99 "
                f"{level.p99_ms:.1f} ms, within the budget of {slo_p99_ms:g} ms{simplest}{tail}.",
                _settings(arm),
            )
    best = max(arms, key=lambda a: a.capacity_rps)
    most = (
        f"the most that was sustained is {best.capacity_rps:,.0f} requests/s, "
        f"by {LABELS[best.name]}"
        if best.capacity_rps
        else "none kept the budget at any load tried"
    )
    return Verdict(
        "none",
        f"No arm holds {rate_rps:,g} requests/s within p99 {slo_p99_ms:g} ms; {most}.",
        None,
    )


def _holding(arm: ArmResult, rate_rps: float) -> LevelRecord | None:
    """The arm's last run at this rate, if every run at it kept the budget."""
    runs = [x for x in arm.levels if x.mode == "open" and x.offered == rate_rps]
    return runs[-1] if runs and all(x.holds_slo for x in runs) else None


def _beats(chosen: ArmResult, simpler: ArmResult) -> str:
    if not simpler.capacity_rps:
        return f"where {LABELS[simpler.name]} never kept the budget"
    ratio = chosen.capacity_rps / simpler.capacity_rps
    return f"{ratio:.1f}× {LABELS[simpler.name]} ({simpler.capacity_rps:,.0f})"


def _share(chosen: ArmResult, other: ArmResult) -> str:
    ratio = other.capacity_rps / chosen.capacity_rps
    return f"{LABELS[other.name]} reaches {other.capacity_rps:,.0f} ({ratio:.2f}×)"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _lower(text: str) -> str:
    return text if text.startswith("Triton") else text[0].lower() + text[1:]


def _settings(arm: ArmResult) -> dict[str, int]:
    config = arm.certificate.effective_config
    batching = config.get("dynamic_batching", {})
    settings = {"threads": arm.certificate.threads, "instances": arm.certificate.instances}
    if arm.name == "triton_batched":
        settings |= {
            "max_batch_size": int(config["max_batch_size"]),
            "max_queue_delay_us": int(batching.get("max_queue_delay_microseconds", 0)),
        }
    return settings
