"""Levels and arms with just what a test is about."""

from collections.abc import Callable, Sequence
from itertools import combinations

import pytest

from tritonkit.bench.result import ArmLevel, ArmName, ArmRatio, ArmResult, Certificate


@pytest.fixture
def level() -> Callable[..., ArmLevel]:
    """`level("open", 100, p99=12, holds=True, purpose="search", round=3)`."""

    def make(mode, offered, *, rps=None, p99: float | None = 10.0, holds=True, **more):
        rps = offered if rps is None else rps
        return ArmLevel(
            **{
                "requests": int(rps),
                "errors": 0,
                "error_kinds": {},
                "not_sent": 0,
                "late": 0,
                "no_connection": 0,
                "warmup_s": 0.0,
                "duration_s": 1.0,
                "achieved_rps": rps,
                "mean_ms": p99,
                "p50_ms": p99,
                "p90_ms": p99,
                "p99_ms": p99,
                "max_ms": p99,
                "p50_interval_ms": None,
                "p99_interval_ms": None,
                "p99_enough": True,
                "p99_needs": 459,
                "service_p50_ms": p99,
                "service_p99_ms": p99,
                "lateness_p99_ms": None,
                "steady": True,
                "unsteady_because": "",
                "mode": mode,
                "offered": offered,
                "arrivals": "poisson" if mode == "open" else "",
                "seed": 0,
                "generator_cpu": 0.1,
                "generator_bound": False,
                "mean_batch": 1.0,
                "time_split": None,
                "holds_slo": holds,
                "purpose": "search" if mode == "open" else "curve",
                **more,
            }
        )

    return make


@pytest.fixture
def arm(level) -> Callable[..., ArmResult]:
    """`arm("ort_baseline", 100)` sustains 100 requests/s, 90 to 110; None was never measured."""

    def make(name: ArmName, rps: float | None = 0.0, levels: Sequence[ArmLevel] = (), **more):
        config = {"max_batch_size": 32, "instance_group": [{"count": 3}]}
        if name in (
            "ort_batcher",
            "triton_batched",
        ):  # 64-bit numbers are strings in protobuf's JSON
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
        levels = levels or [
            level("closed", 4, rps=rps or 50, p99=10 if rps else 90, holds=bool(rps))
        ]
        interval = None if rps is None else (0.9 * rps, 1.1 * rps)
        share = None if rps is None else rps / 1000
        return ArmResult(name, certificate, (), tuple(levels), rps, interval, 8, share, **more)

    return make


@pytest.fixture
def ratios() -> Callable[..., tuple[ArmRatio, ...]]:
    """The ratios of all pairs of arms, each within so much of the truth."""

    def make(arms: Sequence[ArmResult], within=0.1) -> tuple[ArmRatio, ...]:
        found = []
        for than, one in combinations(arms, 2):
            if one.capacity_rps and than.capacity_rps:
                ratio = one.capacity_rps / than.capacity_rps
                low, high = ratio * (1 - within), ratio * (1 + within)
                differs = not low <= 1 <= high
                found.append(ArmRatio(one.name, than.name, ratio, low, high, differs))
            else:
                differs = None not in (one.capacity_rps, than.capacity_rps) and bool(
                    one.capacity_rps or than.capacity_rps
                )
                found.append(ArmRatio(one.name, than.name, None, None, None, differs))
        return tuple(found)

    return make
