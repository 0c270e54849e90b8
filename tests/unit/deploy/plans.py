"""Plans in the planner's own form, with just what a deployment reads of them."""

from __future__ import annotations

from typing import Any

from tritonkit.load.level import LevelRecord
from tritonkit.plan.settings import Settings as Planned
from tritonkit.planning.result import Outcome, Plan, Session, Tried
from tritonkit.stats.split import TimeSplit


def level(
    offered: float, queue_ms: float, *, holds: bool = True, bound: bool = False
) -> LevelRecord:
    split = TimeSplit(
        client_ms=0.1,
        wire_ms=0.1,
        queue_ms=queue_ms,
        input_ms=0.1,
        compute_ms=1.0,
        output_ms=0.1,
        total_ms=queue_ms + 1.4,
        adds_up=True,
        remark="",
    )
    # The rest of the record is nothing that is read here.
    rest = dict.fromkeys(LevelRecord.__dataclass_fields__)
    said = {"mode": "open", "offered": offered, "holds_slo": holds, "generator_bound": bound}
    return LevelRecord(**{**rest, **said, "time_split": split})


def plan_of(
    model: str,
    settings: Planned,
    *,
    levels: Any = (),
    capacity_rps: float | None = 1000.0,
    interval_rps: tuple[float, float | None] | None = (900.0, 1200.0),
    conclusion: Any = "triton_batched",
) -> dict[str, Any]:
    """plan.json of a plan that tried these settings alone."""
    measured = Outcome(capacity_rps, 10.0, interval_rps)
    return Plan(
        kit_version="0",
        model=model,
        created_at="2026-01-01T00:00:00+00:00",
        slo_p99_ms=50.0,
        rate_rps=None,
        arrivals="poisson",
        machine={"cpu_model": "A CPU", "cpus": 4},
        conclusion=conclusion,
        because="It is so.",
        winner=settings,
        p99_at_rps=700.0,
        predicted=measured,
        measured=measured,
        present=settings,
        diff="",
        tried=(Tried(settings, measured, measured, measured, tuple(levels)),),
        sensitivity=(),
        session=Session(1, 1, 100.0, 100.0, False, ()),
        corrections=(),
        simulated_settings=1,
        live_runs=1,
        wall_s=1.0,
        stages_s={},
    ).as_json()
