"""Levels and arms with just what a test is about."""

from collections.abc import Callable, Sequence

import pytest

from tritonkit.bench.result import ArmName, ArmResult, Certificate, LevelRecord
from tritonkit.bench.verdict import capacity


@pytest.fixture
def level() -> Callable[..., LevelRecord]:
    """`level("open", 100, rps=99, p99=12, holds=True)`."""

    def make(mode, offered, *, rps, p99: float | None = 10.0, holds=True) -> LevelRecord:
        return LevelRecord(
            mode=mode,
            offered=offered,
            requests=int(rps),
            duration_s=1.0,
            achieved_rps=rps,
            p50_ms=p99,
            p90_ms=p99,
            p99_ms=p99,
            max_ms=p99,
            errors=0,
            error_kinds={},
            lateness_p99_ms=None,
            generator_cpu=0.1,
            generator_bound=False,
            mean_batch=1.0,
            holds_slo=holds,
            samples="",
        )

    return make


@pytest.fixture
def arm(level) -> Callable[..., ArmResult]:
    """`arm("ort_baseline", 100)` sustains 100 requests/s; or give its levels."""

    def make(name: ArmName, rps=0.0, levels: Sequence[LevelRecord] | None = None) -> ArmResult:
        if levels is None:
            levels = [level("closed", 4, rps=rps or 50, p99=10 if rps else 90, holds=rps > 0)]
        config = {"max_batch_size": 32, "instance_group": [{"count": 3}]}
        if name == "triton_batched":  # 64-bit numbers are strings in protobuf's JSON
            config["dynamic_batching"] = {"max_queue_delay_microseconds": "500"}
        certificate = Certificate(
            effective_config=config,
            ort_version="1",
            threads=2,
            instances=3,
            cpu_set=(0,),
            mean_batch=1.0,
            batch_histogram={},
            requests=1,
            executions=1,
            statements=(),
        )
        return ArmResult(name, certificate, (), tuple(levels), capacity(levels), 1.0)

    return make
