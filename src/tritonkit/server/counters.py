"""What a server counts of its model, in the shape of Triton's statistics extension.

Source: docs/protocol/extension_statistics.md of triton-inference-server/server. Times are
cumulative nanoseconds.
"""

from __future__ import annotations

import time
from typing import Any

_PHASES = ("compute_input", "compute_infer", "compute_output")


class Counters:
    """Requests, runs and their times since the server started. Use it from one thread."""

    def __init__(self) -> None:
        self._success = _Total()
        self._fail = _Total()
        self._queue = _Total()
        self._phases = {phase: _Total() for phase in _PHASES}
        self._batches: dict[int, dict[str, _Total]] = {}
        self._rows = 0
        self._last_ms = 0

    def ran(
        self,
        rows: int,
        *,
        requests: int,
        queue_ns: int,
        input_ns: int,
        infer_ns: int,
        output_ns: int,
    ) -> None:
        """One run of the model. queue_ns: of all its requests together; the others: of the run,
        and each of its requests is said to have taken as long.
        """
        batch = self._batches.get(rows)
        if batch is None:
            batch = self._batches[rows] = {phase: _Total() for phase in _PHASES}
        for phase, ns in zip(_PHASES, (input_ns, infer_ns, output_ns), strict=True):
            batch[phase].add(1, ns)
            self._phases[phase].add(requests, requests * ns)
        self._queue.add(requests, queue_ns)
        self._rows += rows
        self._last_ms = time.time_ns() // 1_000_000

    def succeeded(self, ns: int) -> None:
        """One request, from its arrival in the server until its answer was ready."""
        self._success.add(1, ns)

    def failed(self, ns: int) -> None:
        """One request that got no answer: rejected, too late, given up, or in error."""
        self._fail.add(1, ns)

    def as_json(self, model: str) -> dict[str, Any]:
        """The answer to GET /v2/models/M/stats."""
        nothing = _Total().as_json()
        statistics = {
            "name": model,
            "version": "1",
            "last_inference": self._last_ms,
            "inference_count": self._rows,
            "execution_count": sum(b["compute_infer"].count for b in self._batches.values()),
            "inference_stats": {
                "success": self._success.as_json(),
                "fail": self._fail.as_json(),
                "queue": self._queue.as_json(),
                **{phase: total.as_json() for phase, total in self._phases.items()},
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "response_stats": {},
            "batch_stats": [
                {"batch_size": rows, **{phase: t.as_json() for phase, t in batch.items()}}
                for rows, batch in sorted(self._batches.items())
            ],
            "memory_usage": [],
        }
        return {"model_stats": [statistics]}


class _Total:
    """How often, and how long altogether."""

    __slots__ = ("count", "ns")

    def __init__(self) -> None:
        self.count = 0
        self.ns = 0

    def add(self, count: int, ns: int) -> None:
        self.count += count
        self.ns += ns

    def as_json(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}
