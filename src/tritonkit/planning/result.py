"""plan.json as frozen values. Rates are requests per second, latencies milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tritonkit.load.level import LevelRecord
from tritonkit.plan.settings import Settings

SCHEMA = 1

Conclusion = Literal["ort_baseline", "triton_unbatched", "triton_batched", "none"]


@dataclass(frozen=True)
class Outcome:
    """What settings do, predicted or measured. capacity_rps: the highest rate within the budget;
    None if no level that was measured counts.

    capacity_interval_rps: 95 %, of what was measured; its upper end is None if nothing failed.
    p99_ms: at the plan's `p99_at_rps`; None if nothing was answered, or it was not measured.
    """

    capacity_rps: float | None
    p99_ms: float | None
    capacity_interval_rps: tuple[float, float | None] | None = None


@dataclass(frozen=True)
class Tried:
    """Settings that were run live. predicted: from the curve alone; recalibrated: with what all
    live levels showed; measured: capacity_rps from its levels.
    """

    settings: Settings
    predicted: Outcome
    recalibrated: Outcome
    measured: Outcome
    levels: tuple[LevelRecord, ...]


@dataclass(frozen=True)
class Notch:
    """What one change to the winner, or the present config, would do. change: in words."""

    change: str
    settings: Settings
    outcome: Outcome


@dataclass(frozen=True)
class Session:
    """One shared ONNX Runtime session without Triton: threads of it, and runs at a time.

    most_rps: of a closed loop, which no capacity is above. asked_rps: the rate that decides between
    it and the winner; levels: at that rate, none where most_rps was enough to know.
    """

    threads: int
    instances: int
    most_rps: float
    asked_rps: float
    holds: bool
    levels: tuple[LevelRecord, ...]


@dataclass(frozen=True)
class Plan:
    """What a planning run found.

    winner: the best settings of Triton. conclusion: what to run, by the rule of a verdict: the
    simplest of a session, Triton without and with batching that does the job; because: in a
    sentence. present: the settings that the model has now. diff: from its config.pbtxt to the
    planned one, unified; "" if they are equal. p99_at_rps: the rate at which p99s are compared.
    """

    kit_version: str
    model: str
    created_at: str
    slo_p99_ms: float
    rate_rps: float | None
    arrivals: str
    machine: Mapping[str, Any]
    conclusion: Conclusion
    because: str
    winner: Settings
    p99_at_rps: float
    predicted: Outcome
    measured: Outcome
    present: Settings
    diff: str
    tried: tuple[Tried, ...]
    sensitivity: tuple[Notch, ...]
    session: Session
    corrections: tuple[Mapping[str, float], ...]
    simulated_settings: int
    live_runs: int
    wall_s: float
    stages_s: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        document: dict[str, Any] = {"schema": SCHEMA, **asdict(self)}
        document["winner"] = settings_json(self.winner)
        document["present"] = settings_json(self.present)
        for entry, tried in zip(document["tried"], self.tried, strict=True):
            entry["settings"] = settings_json(tried.settings)
        for entry, notch in zip(document["sensitivity"], self.sensitivity, strict=True):
            entry["settings"] = settings_json(notch.settings)
        return document


def settings_json(settings: Settings) -> dict[str, Any]:
    """Of settings what a plan decides. max_queue_delay_us: None without dynamic batching."""
    batching = settings.dynamic_batching
    return {
        "max_batch_size": settings.max_batch_size,
        "dynamic_batching": batching is not None,
        "max_queue_delay_us": batching.max_queue_delay_us if batching else None,
        "instances": settings.instances,
        "threads": settings.threads,
    }
