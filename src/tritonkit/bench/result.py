"""result.json as frozen values. Rates are requests per second, latencies milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tritonkit.load.level import LevelRecord

SCHEMA = 2

ArmName = Literal["ort_baseline", "ort_batcher", "triton_unbatched", "triton_batched"]
Choice = Literal["ort_baseline", "ort_batcher", "triton_unbatched", "triton_batched", "none"]


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
class Demand:
    """What it takes for an arm to serve the wanted rate, going by its capacity.

    holds: by the levels that were run at exactly this rate; None if none of them counts.
    headroom: how much more than the rate it sustains, by the low end of its capacity; -0.2 is a
    fifth less. replicas: enough for the rate when one of them is down (N+1); None if it sustains
    nothing. cost_per_million: requests, of all replicas, in the unit of the price; None without.
    """

    rate_rps: float
    holds: bool | None
    headroom: float | None
    replicas: int | None
    cost_per_million: float | None


@dataclass(frozen=True, kw_only=True)
class ArmLevel(LevelRecord):
    """A level of a comparison, which knows what is its own and what is not.

    others_cpu, stolen_cpu: shares of the time of all its CPUs, 0 to 1, that went to processes other
    than the generator and the servers, and to other machines of the same host. None where the
    system does not say, and in levels that an older version measured.
    """

    others_cpu: float | None = None
    stolen_cpu: float | None = None


@dataclass(frozen=True)
class ArmResult:
    """One arm: its certificate, its levels, and the most that it sustained within the budget.

    capacity_rps: requests a second, Poisson; None where no level of it could be counted because
    the generator was the limit. capacity_interval_rps: 95 %; the upper end is None if nothing
    that was tried failed. counted_levels: how many levels the capacity
    rests on. lacks: what the arm does not have that Triton has.
    """

    name: ArmName
    certificate: Certificate
    tuning: tuple[TuningRun, ...]
    levels: tuple[ArmLevel, ...]
    capacity_rps: float | None
    capacity_interval_rps: tuple[float, float | None] | None
    counted_levels: int
    share_of_ceiling: float | None
    demand: Demand | None = None
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArmRatio:
    """The capacity of one arm as a multiple of another's, with its 95 % interval.

    differs: the interval does not hold 1. Where it does, that is "no difference" only if it is
    narrow enough; see `stats.ratio.says_no_difference`. ratio is None where there is no such
    number, because one sustains nothing, or nothing that was tried failed; high is None where there
    is no upper end.
    """

    arm: ArmName
    than: ArmName
    ratio: float | None
    low: float | None
    high: float | None
    differs: bool


@dataclass(frozen=True)
class SoakFinding:
    """What a soak showed. series: that which trends, `rss_bytes`, `shm_bytes`, `achieved_rps` or
    `p99_ms`; `server` for what befell the server.
    """

    series: str
    text: str


@dataclass(frozen=True)
class Soak:
    """An arm under a steady load for long. The lists go together, one value for each level.

    minutes: how long it was, which is less than was asked for if the server was lost. at_s:
    seconds of the soak until the middle of the level. rss_bytes: of all of the server's
    processes; shm_bytes: what they have mapped of /dev/shm.
    """

    arm: ArmName
    rate_rps: float
    minutes: float
    at_s: tuple[float, ...]
    achieved_rps: tuple[float, ...]
    p99_ms: tuple[float | None, ...]
    rss_bytes: tuple[int, ...]
    shm_bytes: tuple[int, ...]
    errors: int
    findings: tuple[SoakFinding, ...]


@dataclass(frozen=True)
class Verdict:
    """What to deploy, and why in one sentence. settings: of the chosen arm's config.

    no_difference: no arm was found to sustain more or less than another, and each ratio is known
    well enough to say so. undecided: arms that may be the better choice, for all that is known.
    """

    choice: Choice
    because: str
    settings: Mapping[str, int] | None
    no_difference: bool = False
    undecided: tuple[ArmName, ...] = ()


@dataclass(frozen=True)
class Result:
    """All of a comparison."""

    kit_version: str
    model: str
    created_at: str
    slo_p99_ms: float
    rate_rps: float | None
    cost_per_hour: float | None
    machine: Mapping[str, Any]
    method: Mapping[str, Any]
    ceiling: Ceiling
    arms: tuple[ArmResult, ...]
    ratios: tuple[ArmRatio, ...]
    verdict: Verdict
    soak: Soak | None = None
    schema: int = field(default=SCHEMA)

    def as_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        return asdict(self)
