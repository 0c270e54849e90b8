"""The health of a model, from made-up counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tritonkit.stats.health import health_of
from tritonkit.stats.traffic import Batching, Look

BATCHING = Batching(32, "dynamic", instances=1)


@dataclass(frozen=True)
class Second:
    """What a model did in one. run_ms: of each run, of `rows` rows; queue_ms: of each request."""

    requests: int = 100
    rows: int = 1
    run_ms: float = 2.0
    queue_ms: float = 0.1
    failed: int = 0


def looks(*seconds: Second) -> list[Look]:
    """One before, and one after each second."""
    success = failed = runs = queue_ns = run_ns = in_server_ns = rows = 0
    batches: dict[int, list[int]] = {}

    def look(second: int) -> Look:
        def of(count: int, ns: float) -> dict[str, int]:
            return {"count": count, "ns": round(ns)}

        stats = {
            "success": of(success, in_server_ns),
            "fail": of(failed, failed * 1e6),
            "queue": of(success, queue_ns),
            "compute_input": of(success, 0),
            "compute_infer": of(success, run_ns),
            "compute_output": of(success, 0),
            "cache_hit": of(0, 0),
            "cache_miss": of(0, 0),
        }
        record: dict[str, Any] = {
            "name": "m",
            "version": "1",
            "inference_count": rows,
            "execution_count": runs,
            "inference_stats": stats,
            "batch_stats": [
                {
                    "batch_size": size,
                    "compute_input": of(n, 0),
                    "compute_infer": of(n, ns),
                    "compute_output": of(n, 0),
                }
                for size, (n, ns) in batches.items()
            ],
        }
        return Look(second * 10**9, [record])

    found = [look(0)]
    for number, each in enumerate(seconds, 1):
        done = each.requests // each.rows
        success += each.requests
        failed += each.failed
        runs += done
        rows += done * each.rows
        queue_ns += round(each.requests * each.queue_ms * 1e6)
        run_ns += round(each.requests * each.run_ms * 1e6)
        in_server_ns += round(each.requests * (each.queue_ms + each.run_ms) * 1e6)
        size = batches.setdefault(each.rows, [0, 0])
        size[0] += done
        size[1] += round(done * each.run_ms * 1e6)
        found.append(look(number))
    return found


def of(*seconds: Second, batching: Batching = BATCHING, slo: float | None = None) -> Any:
    return health_of(batching, looks(*seconds), "1", slo)[0]


BUSY = Second(requests=400, run_ms=2.0)


def test_a_quiet_model_is_healthy():
    """With a word on how much it does."""
    found = of(*[BUSY] * 4)
    assert found.state == "healthy" and found.reason.startswith("80 %")


def test_no_requests_are_no_fault():
    """Idle is healthy."""
    assert of(*[Second(requests=0)] * 4) == ("healthy", "no requests")


@pytest.mark.parametrize(
    ("failed", "state"), [(0, "healthy"), (1, "healthy"), (5, "degraded"), (50, "failing")]
)
def test_failures(failed, state):
    """One of some hundred is luck, a tenth is failing."""
    assert of(*[Second(requests=200, failed=failed)] * 4).state == state


def test_a_mean_above_the_budget_breaks_it():
    """Whatever the p99 is, it is more."""
    slow = Second(requests=10, run_ms=20, queue_ms=40)
    assert of(*[slow] * 4, slo=50).state == "failing"
    assert of(*[slow] * 4, slo=70).state == "healthy"


def test_a_queue_that_grows():
    """Twice as many that wait in the second half."""
    found = of(*(Second(requests=200, queue_ms=10.0 * 3**k, run_ms=2.0) for k in range(4)))
    assert found.state == "degraded" and "grows" in found.reason


def test_a_queue_that_stays_does_not_grow():
    """Nor is one that others wait in a fault where the instances have time."""
    assert of(*[Second(requests=400, queue_ms=20.0, rows=8, run_ms=8.0)] * 4).state == "healthy"


def test_batches_that_collapsed():
    """Requests wait, and each runs alone."""
    found = of(*[Second(requests=400, queue_ms=50.0, run_ms=2.0)] * 4)
    assert found.state == "degraded" and "doctor" in found.reason


def test_without_a_batcher_nothing_collapses():
    """Each request alone is what was asked for; that it is saturated is said."""
    plain = Batching(32, "none", instances=1)
    full = Second(requests=500, queue_ms=50.0, run_ms=2.0)
    assert "work" in of(*[full] * 4, batching=plain).reason
    assert of(*[Second(requests=300, queue_ms=50.0)] * 4, batching=plain).state == "healthy"


def test_the_worst_comes_first():
    """Failures before a queue."""
    bad = Second(requests=500, queue_ms=50.0, run_ms=2.0, failed=300)
    assert "failed" in of(*[bad] * 4).reason
