"""What to run, by the rule of a verdict: the simplest that does the job."""

from __future__ import annotations

from tritonkit.bench.verdict import MUST_GAIN
from tritonkit.planning.contest import Contest, Winner
from tritonkit.planning.result import Conclusion, Session


def conclude(
    slo_p99_ms: float, rate_rps: float | None, winner: Winner, contest: Contest, session: Session
) -> tuple[Conclusion, str]:
    """The choice, and why, in a sentence."""
    budget = f"within a p99 of {slo_p99_ms:g} ms"
    measured = winner.measured
    capacity_rps = measured.capacity_rps
    if not capacity_rps:
        why = (
            "the load generator was the limit at every level; give it CPUs of its own"
            if capacity_rps is None
            else f"it held the budget at no rate that was tried, from {winner.at_rps:,.0f} on"
        )
        return "none", f"Nothing is decided about {winner.settings} {budget}: {why}."
    if rate_rps is not None:
        if session.holds:
            return "ort_baseline", (
                f"One ONNX Runtime session holds {rate_rps:,.0f} requests/s {budget}, and it is "
                "the simplest to run."
            )
        if not contest.live.holds(winner.settings, rate_rps):
            p99 = "no p99" if measured.p99_ms is None else f"a p99 of {measured.p99_ms:.1f} ms"
            return "none", (
                f"No settings were found that hold {rate_rps:,.0f} requests/s {budget}: the best, "
                f"{winner.settings}, had {p99} there, and sustains about "
                f"{capacity_rps:,.0f}."
            )
        holds = (
            f"Triton with {winner.settings} holds {rate_rps:,.0f} requests/s at a p99 of "
            f"{measured.p99_ms or 0:.1f} ms"
        )
        return _name(winner), f"{holds}; one ONNX Runtime session does not."
    sustains = f"Triton with {winner.settings} sustains {capacity_rps:,.0f} requests/s {budget}"
    if session.holds:
        return "ort_baseline", (
            f"Keep one ONNX Runtime session: it holds {session.asked_rps:,.0f} requests/s {budget},"
            f" and {sustains}, less than the {MUST_GAIN:g}× that it must gain."
        )
    gain = capacity_rps / session.most_rps if session.most_rps else 0.0
    least = max(gain, MUST_GAIN)
    return _name(winner), f"{sustains}, at least {least:.2f}× one ONNX Runtime session."


def _name(winner: Winner) -> Conclusion:
    return "triton_unbatched" if winner.settings.dynamic_batching is None else "triton_batched"
