"""What the server itself counted: requests, executions, and the batches it really ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

SESSION_METRIC = "tritonkit_onnxruntime_session_info"


@dataclass(frozen=True)
class ServerCounters:
    """Cumulative counters of one model, from the statistics extension.

    inferences: rows. executions: runs of the model. batches: rows of a run → such runs.
    """

    requests: int
    inferences: int
    executions: int
    batches: Mapping[int, int]

    def since(self, earlier: ServerCounters) -> ServerCounters:
        """What was counted between two scrapes."""
        batches = Counter(self.batches)
        batches.subtract(earlier.batches)
        return ServerCounters(
            self.requests - earlier.requests,
            self.inferences - earlier.inferences,
            self.executions - earlier.executions,
            {rows: n for rows, n in sorted(batches.items()) if n},
        )

    @property
    def mean_batch(self) -> float | None:
        """Rows per run: nv_inference_count / nv_inference_exec_count. None if nothing ran."""
        return self.inferences / self.executions if self.executions else None


def read_counters(statistics: Mapping[str, Any]) -> ServerCounters:
    """The counters in one model's statistics. Counts of 0 may be missing from the JSON."""
    return ServerCounters(
        requests=int(statistics.get("inference_stats", {}).get("success", {}).get("count", 0)),
        inferences=int(statistics.get("inference_count", 0)),
        executions=int(statistics.get("execution_count", 0)),
        batches={
            int(b["batch_size"]): int(b.get("compute_infer", {}).get("count", 0))
            for b in statistics.get("batch_stats", [])
        },
    )


def read_session_info(metrics_text: str, model: str) -> Iterator[Mapping[str, str]]:
    """What each session of the model says of itself in the embedded Triton's metrics."""
    for family in text_string_to_metric_families(metrics_text):
        if family.name == SESSION_METRIC:
            yield from (s.labels for s in family.samples if s.labels.get("model") == model)
