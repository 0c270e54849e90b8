"""What the server itself counted: requests, executions, and the batches it really ran."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

_PHASES = ("compute_input", "compute_infer", "compute_output")

SESSION_METRIC = "tritonkit_onnxruntime_session_info"


@dataclass(frozen=True)
class ServerCounters:
    """Cumulative counters of one model, from the statistics extension.

    requests: answered. inferences: rows. executions: runs of the model. batches: rows of a run →
    such runs; run_ns: → the time of all such runs together, once for each run.
    The other times are sums over the answered requests, in nanoseconds: success_ns from a
    request's arrival in the server to its answer, the others its parts. Here a run's time counts
    for each of the requests that shared it. failures, failed_ns: requests that ended in an error,
    and their time in the server. cache_hits, cache_misses: answered from the response cache or
    not, where the model has one; a hit has a queue_ns, but no run.
    """

    requests: int = 0
    inferences: int = 0
    executions: int = 0
    batches: Mapping[int, int] = field(default_factory=dict)
    run_ns: Mapping[int, int] = field(default_factory=dict)
    success_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    compute_ns: int = 0
    output_ns: int = 0
    failures: int = 0
    failed_ns: int = 0
    cache_hits: int = 0
    cache_misses: int = 0

    def since(self, earlier: ServerCounters) -> ServerCounters:
        """What was counted between two scrapes."""
        return self._with(earlier, -1)

    def __add__(self, other: ServerCounters) -> ServerCounters:
        return self._with(other, 1)

    def _with(self, other: ServerCounters, sign: int) -> ServerCounters:
        def total(ours: Any, theirs: Any) -> Any:
            if not isinstance(ours, Mapping):
                return ours + sign * theirs
            by_rows = ((r, ours.get(r, 0) + sign * theirs.get(r, 0)) for r in {**ours, **theirs})
            return {rows: n for rows, n in sorted(by_rows) if n}

        names = (f.name for f in fields(self))
        return ServerCounters(**{n: total(getattr(self, n), getattr(other, n)) for n in names})

    @property
    def mean_batch(self) -> float | None:
        """Rows per run: nv_inference_count / nv_inference_exec_count. None if nothing ran."""
        return self.inferences / self.executions if self.executions else None


def read_counters(statistics: Mapping[str, Any]) -> ServerCounters:
    """The counters in one model's statistics. Counts of 0 may be missing from the JSON, and 64-bit
    numbers may be strings.
    """
    durations = statistics.get("inference_stats") or {}

    def total(name: str, what: str = "ns") -> int:
        return int((durations.get(name) or {}).get(what) or 0)

    return ServerCounters(
        requests=total("success", "count"),
        inferences=int(statistics.get("inference_count", 0)),
        executions=int(statistics.get("execution_count", 0)),
        batches={
            int(b["batch_size"]): int(b.get("compute_infer", {}).get("count", 0))
            for b in statistics.get("batch_stats", [])
        },
        run_ns={
            int(b["batch_size"]): sum(int(b.get(phase, {}).get("ns", 0)) for phase in _PHASES)
            for b in statistics.get("batch_stats", [])
        },
        success_ns=total("success"),
        queue_ns=total("queue"),
        input_ns=total("compute_input"),
        compute_ns=total("compute_infer"),
        output_ns=total("compute_output"),
        failures=total("fail", "count"),
        failed_ns=total("fail"),
        cache_hits=total("cache_hit", "count"),
        cache_misses=total("cache_miss", "count"),
    )


def read_session_info(metrics_text: str, model: str) -> Iterator[Mapping[str, str]]:
    """What each session of the model says of itself in the embedded Triton's metrics."""
    for family in text_string_to_metric_families(metrics_text):
        if family.name == SESSION_METRIC:
            yield from (s.labels for s in family.samples if s.labels.get("model") == model)
