"""Results to draw: made up, realistic in layout, never measured and never shipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tritonkit.report.html import render_html

USERS = (1, 2, 4, 8, 16, 32, 64)
KEYS = ("ort_baseline", "triton_unbatched", "triton_batched")


def _level(
    arm: str, mode: str, offered: float, rps: float, p99: float | None, slo: float
) -> dict[str, Any]:
    return {
        "mode": mode,
        "offered": offered,
        "requests": int(rps * 4),
        "duration_s": 4.0,
        "achieved_rps": rps,
        "p50_ms": None if p99 is None else p99 * 0.55,
        "p90_ms": None if p99 is None else p99 * 0.8,
        "p99_ms": p99,
        "max_ms": None if p99 is None else p99 * 1.7,
        "errors": 0,
        "error_kinds": {},
        "lateness_p99_ms": 0.4 if mode == "open" else None,
        "mean_batch": None
        if arm == "ort_baseline"
        else max(1.0, offered * 0.45)
        if arm == "triton_batched" and mode == "closed"
        else 1.0,
        "generator_bound": False,
        "repeat": False,
        "holds_slo": p99 is not None and p99 <= slo,
        "samples": f"samples/{arm}-{mode}-{offered}.csv.gz",
    }


def _arm(
    name: str,
    slo: float,
    ceiling: float,
    closed: Sequence[tuple[float, float]],
    opened: Sequence[tuple[float, float]] = (),
    histogram: dict[str, int] | None = None,
) -> dict[str, Any]:
    levels = [_level(name, "closed", u, *p, slo) for u, p in zip(USERS, closed, strict=True)]
    levels += [_level(name, "open", round(rps), rps, p99, slo) for rps, p99 in opened]
    capacity = max((v["achieved_rps"] for v in levels if v["holds_slo"]), default=0.0)
    decides = next((v for v in levels if v["achieved_rps"] == capacity), levels[0])
    again = _level(
        name,
        decides["mode"],
        decides["offered"],
        decides["achieved_rps"] * 0.97,
        decides["p99_ms"] * 1.05,
        slo,
    )
    levels.append(again | {"repeat": True})
    histogram = histogram or {}
    executions = sum(histogram.values()) or 12345
    rows = sum(int(k) * v for k, v in histogram.items()) or 12345
    triton = name != "ort_baseline"
    return {
        "name": name,
        "certificate": {
            "effective_config": {
                "name": "ranker",
                "backend": "onnxruntime",
                "max_batch_size": 64 if name == "triton_batched" else 0,
                "instance_group": [{"kind": "KIND_CPU", "count": 1}],
            }
            if triton
            else {"intra_op_num_threads": 2, "execution_mode": "sequential"},
            "ort_version": "1.31.1",
            "threads": 2,
            "instances": 1,
            "cpu_set": [0, 1],
            "mean_batch": rows / executions,
            "batch_histogram": histogram if triton else {},
            "requests": rows,
            "executions": executions,
            "statements": [
                "The configuration read back from the server is the one that was written.",
                f"{executions} executions for {rows} requests.",
            ],
        },
        "tuning": [
            {"threads": 1, "instances": 2, "achieved_rps": 590.0, "p99_ms": 132.0, "chosen": False},
            {"threads": 2, "instances": 1, "achieved_rps": 612.0, "p99_ms": 121.0, "chosen": True},
        ],
        "levels": levels,
        "capacity_rps": capacity,
        "share_of_ceiling": capacity / ceiling,
    }


def _result(model: str, slo: float, ceiling: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "kit_version": "0.1.0",
        "model": model,
        "created_at": "2026-11-22T04:12:33+00:00",
        "slo_p99_ms": slo,
        "rate_rps": None,
        "machine": {
            "cpu_model": "Intel(R) Xeon(R) Processor @ 2.70GHz",
            "cpus": 2,
            "memory_bytes": 8_323_000_000,
            "os": "Linux 6.8",
            "python": "3.11.9",
        },
        "method": {
            "protocol": "http",
            "level_duration_s": 4.0,
            "warmup_s": 1.0,
            "seed": 0,
            "payloads": {"count": 256, "source": "payloads.npz"},
            "generator_cpus": [0, 1],
            "server_cpus": [0, 1],
            "wall_s": 104.2,
            "batching_must_gain": 1.2,
            "notes": ["The load generator and the server share two CPUs."],
        },
        "ceiling": ceiling,
        **rest,
    }


def _ceiling(batch1: float, gain: float) -> dict[str, Any]:
    """A ceiling that rises with the batch from `batch1` towards `gain` times it, with 2 threads."""
    points = [
        {"threads": t, "instances": n, "batch": b, "ips": part * gain * b / (gain - 1 + b)}
        for t, n, part in ((2, 1, batch1), (1, 2, 0.9 * batch1), (1, 1, 0.5 * batch1))
        for b in USERS
    ]
    best = max(points, key=lambda p: p["ips"])
    return {
        "batch1_ips": batch1,
        "best_ips": best["ips"],
        "best_batch": best["batch"],
        "best_threads": best["threads"],
        "best_instances": best["instances"],
        "points": points,
    }


def ranker_result() -> dict[str, Any]:
    """Dynamic batching wins: about 3,200 rps against about 600 and 700."""
    slo, ceiling = 50.0, _ceiling(1250.0, 11.5)
    rates = {
        "ort_baseline": (212, 390, 566, 652, 694, 701, 699),
        "triton_unbatched": (180, 331, 488, 577, 604, 611, 598),
        "triton_batched": (171, 322, 690, 1210, 1985, 2760, 3204),
    }
    p99s = {
        "ort_baseline": (6.1, 7.4, 10.9, 18.8, 34.2, 71.0, 148.0),
        "triton_unbatched": (7.0, 8.8, 12.5, 21.7, 41.9, 88.1, 181.0),
        "triton_batched": (7.3, 8.9, 9.1, 11.0, 14.8, 22.4, 38.7),
    }
    opened = {
        "ort_baseline": ((350.0, 9.9), (560.0, 33.0)),
        "triton_unbatched": ((300.0, 10.4), (480.0, 38.5)),
        "triton_batched": ((1600.0, 17.2), (2563.2, 31.0)),
    }
    histograms: dict[str, dict[str, int]] = {
        "triton_unbatched": {"1": 12345},
        "triton_batched": {
            str(b): int(900 / (1 + abs(b - 27) / 6) + (1400 if b == 1 else 0)) for b in range(1, 65)
        },
    }
    arms = [
        _arm(
            k,
            slo,
            ceiling["best_ips"],
            list(zip(rates[k], p99s[k], strict=True)),
            opened[k],
            histograms.get(k),
        )
        for k in KEYS
    ]
    verdict = {
        "choice": "triton_batched",
        "because": "Dynamic batching holds p99 within 50 ms up to 3,204 requests/s, 4.6 times the "
        "694 of the single session and 5.3 times the 604 of Triton without batching.",
        "settings": {
            "max_batch_size": 64,
            "max_queue_delay_us": 0,
            "instances": 1,
            "threads": 2,
        },
    }
    return _result("ranker", slo, ceiling, arms=arms, verdict=verdict)


def file_type_result() -> dict[str, Any]:
    """Batching does not pay: every arm reaches about 110 rps."""
    slo, ceiling = 200.0, _ceiling(121.0, 1.06)
    arms = []
    for k, factor in zip(KEYS, (1.0, 0.97, 0.99), strict=True):
        closed = [
            (rps * factor, p99 / factor)
            for rps, p99 in zip(
                (62, 98, 109, 111.4, 111, 110.8, 110.2),
                (19.8, 25.1, 48.3, 92.0, 171.2, 344.0, 702.0),
                strict=True,
            )
        ]
        histogram = {
            "triton_unbatched": {"1": 2891},
            "triton_batched": {"1": 910, "2": 340, "4": 160, "8": 55},
        }.get(k)
        arms.append(_arm(k, slo, ceiling["best_ips"], closed, [(78.0, 41.0)], histogram))
    verdict = {
        "choice": "ort_baseline",
        "because": "Dynamic batching reaches 110.3 requests/s within 200 ms, 0.99 times the 111.4 "
        "of the single session; it had to reach 1.2 times.",
        "settings": {"threads": 2, "instances": 1},
    }
    return _result("file_type", slo, ceiling, arms=arms, verdict=verdict)


def none_result() -> dict[str, Any]:
    """Nothing holds the budget; errors, nulls, an empty histogram and a saturated generator."""
    result = file_type_result()
    result |= {"model": "vision <b>&</b> [red]large[/red]", "slo_p99_ms": 5.0, "rate_rps": 400.0}
    result["verdict"] = {
        "choice": "none",
        "because": "No level of any arm keeps p99 within 5 ms.",
        "settings": None,
    }
    result["ceiling"]["points"] = []
    result["an_unknown_key"] = {"kept": "out"}
    for arm in result["arms"]:
        arm |= {"capacity_rps": 0.0, "share_of_ceiling": 0.0}
        arm["certificate"] |= {"batch_histogram": {}, "ort_version": None, "mean_batch": None}
        for level in arm["levels"]:
            level["holds_slo"] = False
        arm["levels"][-3] |= {
            "generator_bound": True,
            "errors": 3,
            "error_kinds": {"timeout": 2, "refused": 1},
        }
        dead = dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "max_ms", "mean_batch"))
        arm["levels"][-2] |= {**dead, "errors": 312, "error_kinds": {"timeout": 312}}
    return result


@pytest.fixture
def ranker() -> dict[str, Any]:
    return ranker_result()


@pytest.fixture
def file_type() -> dict[str, Any]:
    return file_type_result()


@pytest.fixture
def none() -> dict[str, Any]:
    return none_result()


@pytest.fixture(scope="session", params=[ranker_result, file_type_result, none_result])
def rendered(request: pytest.FixtureRequest) -> tuple[dict[str, Any], str]:
    """Each of the three results in turn with its page, drawn once because drawing is slow."""
    result = request.param()
    return result, render_html(result)
