"""result.json as frozen values. Rates are requests per second, latencies milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SCHEMA = 1

ArmName = Literal["ort_baseline", "triton_unbatched", "triton_batched"]
Choice = Literal["ort_baseline", "triton_unbatched", "triton_batched", "none"]


@dataclass(frozen=True)
class CeilingPoint:
    """Inferences (rows) per second of `instances` bare sessions at a time, `threads` each."""

    threads: int
    instances: int
    batch: int
    ips: float


@dataclass(frozen=True)
class Ceiling:
    """The most that ONNX Runtime reaches in process, without any server.

    batch1_ips: at batch 1; best_ips: at the best batch size; each with its best threads and
    instances.
    """

    batch1_ips: float
    best_ips: float
    best_batch: int
    best_threads: int
    best_instances: int
    points: tuple[CeilingPoint, ...]


@dataclass(frozen=True)
class TuningRun:
    """One short run that was made to find an arm's best threads and instances."""

    threads: int
    instances: int
    achieved_rps: float
    p99_ms: float | None
    chosen: bool


@dataclass(frozen=True)
class Certificate:
    """What really ran. All of it was read back from the server, nothing from what was asked."""

    effective_config: Mapping[str, Any]
    ort_version: str | None
    threads: int
    instances: int
    cpu_set: tuple[int, ...]
    mean_batch: float | None
    batch_histogram: Mapping[str, int]
    requests: int
    executions: int
    statements: tuple[str, ...]


@dataclass(frozen=True)
class LevelRecord:
    """One level of load on one arm. offered: users (closed) or requests per second (open).

    generator_bound: the generator may be part of what was measured: it was late, or it used a
    whole core. Its lateness is inside the latencies, so the level is never better than real.
    repeat: the level that decides, measured once more at the end.
    """

    mode: Literal["closed", "open"]
    offered: float
    requests: int
    duration_s: float
    achieved_rps: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    errors: int
    error_kinds: Mapping[str, int]
    lateness_p99_ms: float | None
    generator_cpu: float
    generator_bound: bool
    mean_batch: float | None
    holds_slo: bool
    samples: str
    repeat: bool = False


@dataclass(frozen=True)
class ArmResult:
    """One arm: its certificate, its levels, and the most that it sustained within the budget."""

    name: ArmName
    certificate: Certificate
    tuning: tuple[TuningRun, ...]
    levels: tuple[LevelRecord, ...]
    capacity_rps: float
    share_of_ceiling: float


@dataclass(frozen=True)
class Verdict:
    """What to deploy, and why in one sentence. settings: of the chosen Triton config."""

    choice: Choice
    because: str
    settings: Mapping[str, int] | None


@dataclass(frozen=True)
class Result:
    """All of a comparison."""

    kit_version: str
    model: str
    created_at: str
    slo_p99_ms: float
    rate_rps: float | None
    machine: Mapping[str, Any]
    method: Mapping[str, Any]
    ceiling: Ceiling
    arms: tuple[ArmResult, ...]
    verdict: Verdict
    schema: int = field(default=SCHEMA)

    def as_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        return asdict(self)
