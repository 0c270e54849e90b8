"""From measured arms to a decision. Batching must earn its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tritonkit.bench.arms import BATCHING
from tritonkit.bench.result import ArmRatio, ArmResult, Verdict
from tritonkit.bench.standing import MUST_GAIN, stand
from tritonkit.bench.wording import (
    GENERATOR_WAS_THE_LIMIT,
    busy,
    why_for_rate,
    why_kept,
    why_none_for_rate,
    why_none_holds,
)
from tritonkit.stats.disturbance import disturbance

__all__ = ["MUST_GAIN", "decide"]


def decide(
    arms: Sequence[ArmResult],
    ratios: Sequence[ArmRatio],
    slo_p99_ms: float,
    rate_rps: float | None,
) -> Verdict:
    """The simplest arm that does the job. arms: from the simplest to the most involved.

    With a rate, the first arm that holds it within the budget. Without, each arm in turn has to
    clearly beat the one that would be kept otherwise. A busy machine changes nothing in that, as
    the arms took turns and their intervals show how it scattered; but it is said.
    """
    if rate_rps is not None:
        verdict = _decide_for_rate(arms, slo_p99_ms, rate_rps)
    else:
        verdict = _decide(arms, ratios, slo_p99_ms)
    found = disturbance({arm.name: [vars(level) for level in arm.levels] for arm in arms})
    if found is None or not found.is_busy:
        return verdict
    return replace(verdict, because=f"{verdict.because} {busy(found)}")


def _decide(arms: Sequence[ArmResult], ratios: Sequence[ArmRatio], slo_p99_ms: float) -> Verdict:
    if all(arm.capacity_rps is None for arm in arms):
        return Verdict("none", GENERATOR_WAS_THE_LIMIT, None)
    if all(not arm.capacity_rps for arm in arms):
        return Verdict("none", why_none_holds(arms, slo_p99_ms), None)
    standing = stand(arms, ratios)
    return Verdict(
        standing.kept.name,
        why_kept(standing, ratios, slo_p99_ms),
        _settings(standing.kept),
        standing.no_difference,
        tuple(arm.name for arm in standing.undecided),
    )


def _decide_for_rate(arms: Sequence[ArmResult], slo_p99_ms: float, rate_rps: float) -> Verdict:
    for place, arm in enumerate(arms):
        if arm.demand is not None and arm.demand.holds:
            because = why_for_rate(arm, arms[:place], slo_p99_ms, rate_rps)
            return Verdict(arm.name, because, _settings(arm))
    if all(arm.demand is None or arm.demand.holds is None for arm in arms):
        return Verdict("none", GENERATOR_WAS_THE_LIMIT, None)
    return Verdict("none", why_none_for_rate(arms, slo_p99_ms, rate_rps), None)


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
