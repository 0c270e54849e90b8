"""Results to draw: made up, realistic in layout, never measured and never shipped."""

from __future__ import annotations

from typing import Any

import pytest

from tritonkit.report.html import render_html

KEYS = ("ort_baseline", "ort_batcher", "triton_unbatched", "triton_batched")
LACKS = ("one model and one version; a new one needs a restart", "HTTP only: no gRPC, no streams")
SHARES = (0.93, 1.04, 0.98, 1.01, 0.95, 1.08)
"""Rates of the search as shares of the capacity, one a round; what is above 1 fails."""


def _level(mode: str, offered: float, rps: float, p99: float, slo: float, **rest: Any) -> Any:
    """One level, settled and counted, that holds if its p99 does. rest: what differs."""
    opened = mode == "open"
    return {
        "mode": mode,
        "offered": offered,
        "arrivals": "poisson" if opened else "",
        "seed": 0,
        "purpose": "search" if opened else "curve",
        "round": 0,
        "requests": round(rps * 4),
        "errors": 0,
        "error_kinds": {},
        "not_sent": 0,
        "late": 3 if opened else 0,
        "no_connection": 0,
        "warmup_s": 0.4,
        "duration_s": 3.6,
        "achieved_rps": rps,
        "mean_ms": p99 * 0.5,
        "p50_ms": p99 * 0.45,
        "p90_ms": p99 * 0.8,
        "p99_ms": p99,
        "max_ms": p99 * 1.7,
        "p50_interval_ms": [p99 * 0.43, p99 * 0.47],
        "p99_interval_ms": [p99 * 0.93, p99 * 1.12],
        "p99_enough": True,
        "p99_needs": 662,
        "service_p50_ms": p99 * 0.44,
        "service_p99_ms": p99 * 0.97,
        "lateness_p99_ms": 0.31 if opened else None,
        "steady": True,
        "unsteady_because": "",
        "generator_cpu": 0.42,
        "generator_bound": False,
        "mean_batch": 1.0,
        "time_split": _split(p99 * 0.5),
        "holds_slo": p99 <= slo,
        "samples": f"samples/{mode}-{offered:g}.csv.gz",
        **rest,
    }


def _split(total: float) -> dict[str, Any]:
    """A time split that adds up: shares of the total in ms."""
    shares = {
        "client": 0.05,
        "connection": 0.01,
        "wire": 0.15,
        "queue": 0.3,
        "input": 0.02,
        "compute": 0.44,
    }
    parts = {f"{part}_ms": total * share for part, share in shares.items()}
    return {
        **parts,
        "output_ms": total * 0.03,
        "total_ms": total,
        "adds_up": True,
        "remark": "",
    }


def _p99(base: float, rate: float, capacity: float, slo: float) -> float:
    """A p99 that meets the budget at the capacity and grows without bound soon after."""
    slo = max(slo, 2 * base)
    return base + (slo - base) * (0.12 * rate / capacity) / max(1.12 - rate / capacity, 0.002)


def _arm(name: str, slo: float, capacity: float, base: float, ceiling: float) -> dict[str, Any]:
    """An arm with its curve, its search in six rounds and its overload."""
    levels = []
    for users in (1, 4, 16, 64, 128):
        rate = capacity * 1.02 * users / (users + 9)
        levels.append(_level("closed", users, rate, _p99(base, rate, capacity, slo), slo))
    for place, share in enumerate(SHARES):
        rate = round(capacity * share)
        p99 = _p99(base, rate, capacity, slo)
        levels.append(_level("open", rate, rate * 0.997, p99, slo, round=place + 1))
    over = {"purpose": "overload", "round": 6, "holds_slo": False}
    rate = round(capacity * 1.5)
    levels.append(_level("open", rate, capacity * 1.05, slo * 24, slo, **over))
    batched = name in ("ort_batcher", "triton_batched")
    histogram = {
        str(b): int(900 / (1 + abs(b - 27) / 6) + (1400 if b == 1 else 0)) for b in range(1, 65)
    }
    if not batched:
        histogram = {"1": 12345}
    for level in levels:
        level["mean_batch"] = max(1.0, level["achieved_rps"] / 90) if batched else 1.0
    rows, executions = sum(int(b) * n for b, n in histogram.items()), sum(histogram.values())
    return {
        "name": name,
        "certificate": {
            "effective_config": {"name": "ranker", "max_batch_size": 64 if batched else 0},
            "ort_version": "1.31.1",
            "threads": 2,
            "instances": 1,
            "cpu_set": [0, 1],
            "mean_batch": rows / executions,
            "batch_histogram": histogram,
            "requests": rows,
            "executions": executions,
            "statements": [f"{executions} executions for {rows} requests."],
        },
        "tuning": [
            {"threads": 1, "instances": 2, "achieved_rps": 590.0, "p99_ms": 132.0, "chosen": False},
            {"threads": 2, "instances": 1, "achieved_rps": 612.0, "p99_ms": 121.0, "chosen": True},
        ],
        "levels": levels,
        "capacity_rps": capacity,
        "capacity_interval_rps": [capacity * 0.96, capacity * 1.05],
        "counted_levels": 6,
        "share_of_ceiling": capacity / ceiling,
        "lacks": list(LACKS) if name == "ort_batcher" else [],
        "demand": None,
    }


def _ratios(arms: list[dict[str, Any]], spread: float) -> list[dict[str, Any]]:
    """Every pair, the more involved arm first. spread: of the interval, as a share."""
    found = []
    for place, arm in enumerate(arms):
        for than in arms[:place]:
            if not arm["capacity_rps"] or not than["capacity_rps"]:
                found.append(dict.fromkeys(("ratio", "low", "high")) | {"differs": False})
            else:
                ratio = arm["capacity_rps"] / than["capacity_rps"]
                low, high = ratio * (1 - spread), ratio * (1 + spread)
                differs = not low <= 1 <= high
                found.append({"ratio": ratio, "low": low, "high": high, "differs": differs})
            found[-1] |= {"arm": arm["name"], "than": than["name"]}
    return found


def _ceiling(batch1: float, gain: float) -> dict[str, Any]:
    """A ceiling that rises with the batch from `batch1` towards `gain` times it, with 2 threads."""
    points = [
        {"threads": t, "instances": n, "batch": b, "ips": part * gain * b / (gain - 1 + b)}
        for t, n, part in ((2, 1, batch1), (1, 2, 0.9 * batch1), (1, 1, 0.5 * batch1))
        for b in (1, 2, 4, 8, 16, 32, 64)
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


def _result(model: str, slo: float, **rest: Any) -> dict[str, Any]:
    return {
        "schema": 2,
        "kit_version": "0.2.0",
        "model": model,
        "created_at": "2026-11-22T04:12:33+00:00",
        "slo_p99_ms": slo,
        "rate_rps": None,
        "cost_per_hour": None,
        "machine": {
            "cpu_model": "Intel(R) Xeon(R) Processor @ 2.70GHz",
            "cpus": 8,
            "memory_bytes": 8_323_000_000,
            "os": "Linux 6.8",
            "python": "3.11.9",
        },
        "method": {
            "protocol": "http",
            "level_duration_s": 4.0,
            "seed": 0,
            "payloads": {
                "source": "payloads.npz",
                "count": 256,
                "distinct": 256,
                "rows": {"1": 204, "8": 52},
                "lengths": {"least": 16, "median": 64, "most": 128},
                "bytes_per_request": {"least": 2048, "median": 2048, "most": 2048},
                "warnings": [],
            },
            "generator_cpus": [0, 1],
            "server_cpus": [2, 3, 4, 5, 6, 7],
            "generator_first": True,
            "time_budget_s": 240.0,
            "levels_s": 187.4,
            "rounds": 6,
            "wall_s": 204.2,
            "batching_must_gain": 1.2,
            "resumed": 0,
            "notes": [],
        },
        "soak": None,
        **rest,
    }


def _soak() -> dict[str, Any]:
    """Ten minutes in 20 levels; memory grows."""
    at_s = [15.0 + 30 * i for i in range(20)]
    text = "RSS grew by 3.1 MiB a minute, 31 MiB over the soak"
    return {
        "arm": "triton_batched",
        "rate_rps": 3900.0,
        "minutes": 10.0,
        "at_s": at_s,
        "achieved_rps": [3898.0 + (i % 3) * 4 for i in range(20)],
        "p99_ms": [None if i == 7 else 24.0 + (i % 4) for i in range(20)],
        "rss_bytes": [int(2**20 * (410 + 1.55 * i)) for i in range(20)],
        "shm_bytes": [64 * 2**20] * 20,
        "errors": 0,
        "findings": [{"series": "rss_bytes", "text": text}],
    }


def ranker_result() -> dict[str, Any]:
    """Dynamic batching wins, with every part that a result may have and something to excuse."""
    slo, ceiling = 50.0, _ceiling(1250.0, 11.5)
    capacities = dict(zip(KEYS, (785.0, 4310.0, 862.0, 5374.0), strict=True))
    arms = [_arm(k, slo, c, 3.0, ceiling["best_ips"]) for k, c in capacities.items()]
    for arm in arms:
        room = arm["capacity_interval_rps"][0] / 2000.0 - 1
        replicas = int(2000.0 // arm["capacity_interval_rps"][0]) + 2
        arm["demand"] = {
            "rate_rps": 2000.0,
            "holds": room > 0,
            "headroom": room,
            "replicas": replicas,
            "cost_per_million": replicas * 0.4 / 3600 / 2000 * 1e6,
        }
        p99 = 20.0 if room > 0 else 900.0
        capacity = arm["capacity_rps"]
        at_rate = {"purpose": "rate", "round": 6}
        wanted = _level("open", 2000, min(2000, capacity), p99, slo, **at_rate)
        arm["levels"].append(wanted)
    arms[3]["levels"][8] |= {
        "generator_bound": True,
        "generator_cpu": 0.97,
        "lateness_p99_ms": 3.4,
        "holds_slo": False,
    }
    arms[0]["levels"][9] |= {
        "steady": False,
        "unsteady_because": "p99 rose by 61 % from the first third to the last",
        "holds_slo": False,
    }
    arms[0]["levels"][5] |= {"p99_enough": False, "p99_needs": 4601}
    arms[1]["levels"][11] |= {
        "errors": 9100,
        "error_kinds": {"unavailable": 9100},
        "requests": 25860,
        "p99_ms": 71.0,
    }
    arms[2]["levels"][0]["time_split"] |= {
        "wire_ms": 0.1,
        "adds_up": False,
        "remark": "adds up to 78 % of what the client saw",
    }
    arms[3]["capacity_interval_rps"][1] = None
    return _result(
        "ranker",
        slo,
        rate_rps=2000.0,
        cost_per_hour=0.4,
        ceiling=ceiling,
        arms=arms,
        ratios=_ratios(arms, 0.08),
        soak=_soak(),
        verdict={
            "choice": "triton_batched",
            "because": "Triton with dynamic batching sustains 5,374 requests/s within p99 50 ms, "
            "6.8× one ONNX Runtime session (785).",
            "settings": {
                "max_batch_size": 64,
                "max_queue_delay_us": 0,
                "instances": 1,
                "threads": 2,
            },
            "no_difference": False,
        },
    )


def file_type_result() -> dict[str, Any]:
    """Batching does not pay: three arms that do not differ, and nothing else to say."""
    slo, ceiling = 200.0, _ceiling(121.0, 1.06)
    arms = [
        _arm(k, slo, 111.0 * factor, 12.0, ceiling["best_ips"])
        for k, factor in (("ort_baseline", 1.0), ("triton_unbatched", 0.97), (KEYS[3], 0.99))
    ]
    return _result(
        "file_type",
        slo,
        ceiling=ceiling,
        arms=arms,
        ratios=_ratios(arms, 0.06),
        verdict={
            "choice": "ort_baseline",
            "because": "Batching does not pay: no difference was found between the arms.",
            "settings": {"threads": 2, "instances": 1},
            "no_difference": True,
        },
    )


def none_result() -> dict[str, Any]:
    """Nothing holds the budget; errors, nulls, an empty histogram and a saturated generator."""
    slo, ceiling = 5.0, _ceiling(121.0, 1.06)
    arms = [_arm(k, slo, 110.0, 12.0, ceiling["best_ips"]) for k in KEYS]
    for arm in arms:
        arm |= {"capacity_rps": 0.0, "capacity_interval_rps": None, "share_of_ceiling": 0.0}
        arm["demand"] = {"rate_rps": 400.0, "holds": False, "headroom": None}
        arm["certificate"] |= {"batch_histogram": {}, "ort_version": None, "mean_batch": None}
        for level in arm["levels"]:
            level["holds_slo"] = False
        dead = dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "max_ms", "mean_batch", "time_split"))
        arm["levels"][6] |= {"errors": 3, "error_kinds": {"timeout": 2, "refused": 1}}
        arm["levels"][7] |= {**dead, "errors": 312, "error_kinds": {"timeout": 312}}
    arms[1] |= {"capacity_rps": None, "share_of_ceiling": None, "counted_levels": 0}
    for level in arms[1]["levels"]:
        level |= {"generator_bound": True}
    result = _result(
        "vision <b>&</b> [red]large[/red]",
        slo,
        rate_rps=400.0,
        ceiling=ceiling | {"points": []},
        arms=arms,
        ratios=_ratios(arms, 0.06),
        verdict={
            "choice": "none",
            "because": "No arm keeps p99 within 5 ms at any load tried.",
            "settings": None,
            "no_difference": False,
        },
        an_unknown_key={"kept": "out"},
    )
    result["method"] |= {
        "generator_cpus": [0, 1],
        "server_cpus": [0, 1],
        "generator_first": False,
        "resumed": 2,
        "notes": ["The machine has two CPUs."],
    }
    result["method"]["payloads"]["warnings"] = ["every payload is identical"]
    return result


def old_result() -> dict[str, Any]:
    """A result of schema 1: no purpose, no intervals, no ratios; its levels may be repeated."""
    keys = ("mode", "offered", "requests", "duration_s", "achieved_rps", "p50_ms", "p90_ms")
    keys += ("p99_ms", "max_ms", "errors", "error_kinds", "lateness_p99_ms", "mean_batch")
    keys += ("generator_bound", "holds_slo", "samples")
    result = file_type_result()
    for key in ("ratios", "soak", "cost_per_hour"):
        del result[key]
    for key in ("generator_first", "time_budget_s", "levels_s", "rounds", "resumed"):
        del result["method"][key]
    result["method"] |= {"payloads": {"count": 256, "source": "payloads.npz"}, "warmup_s": 0.5}
    del result["verdict"]["no_difference"]
    for arm in result["arms"]:
        for key in ("capacity_interval_rps", "counted_levels", "lacks", "demand"):
            del arm[key]
        arm["levels"] = [{key: level[key] for key in keys} for level in arm["levels"][:8]]
        arm["levels"].append(arm["levels"][3] | {"repeat": True})
        arm["capacity_rps"] = arm["levels"][3]["achieved_rps"]
    return result | {"schema": 1}


@pytest.fixture
def ranker() -> dict[str, Any]:
    return ranker_result()


@pytest.fixture
def file_type() -> dict[str, Any]:
    return file_type_result()


@pytest.fixture
def none() -> dict[str, Any]:
    return none_result()


@pytest.fixture
def old() -> dict[str, Any]:
    return old_result()


@pytest.fixture(scope="session")
def ranker_page() -> str:
    """The page of `ranker`, for tests that change nothing in it: drawing is slow."""
    return render_html(ranker_result())


@pytest.fixture(scope="session")
def file_type_page() -> str:
    """The page of `file_type`, likewise."""
    return render_html(file_type_result())


@pytest.fixture(scope="session", params=[ranker_result, file_type_result, none_result, old_result])
def rendered(request: pytest.FixtureRequest) -> tuple[dict[str, Any], str]:
    """Each of the results in turn with its page, drawn once because drawing is slow."""
    result = request.param()
    return result, render_html(result)


def plan_document() -> dict[str, Any]:
    """A plan.json. The winner's capacity is predicted well, its p99 is not."""
    slo = 50.0

    def settings(rows: int, delay_us: int | None, instances: int, threads: int) -> Any:
        return {
            "max_batch_size": rows,
            "dynamic_batching": delay_us is not None,
            "max_queue_delay_us": delay_us,
            "instances": instances,
            "threads": threads,
        }

    def outcome(rps: float, p99: float | None, interval: Any = None) -> Any:
        return {"capacity_rps": rps, "p99_ms": p99, "capacity_interval_rps": interval}

    def level(place: int, rps: float, p99: float, why: str = "search", **rest: Any) -> Any:
        return _level("open", rps, rps, p99, slo, purpose=why, round=place, **rest)

    winner, plain = settings(64, 2_000, 1, 2), settings(128, None, 1, 2)
    small, present = settings(16, 0, 2, 1), settings(8, 0, 1, 2)
    return {
        "schema": 1,
        "kit_version": "0.1.0",
        "model": "ranker",
        "created_at": "2026-03-04T05:06:07+00:00",
        "slo_p99_ms": slo,
        "rate_rps": None,
        "arrivals": "poisson",
        "machine": {
            "cpu_model": "Some CPU",
            "cpus": 2,
            "memory_bytes": 16 * 2**30,
            "os": "Linux-6.1",
            "python": "3.11.7",
        },
        "conclusion": "triton_batched",
        "because": "Triton with batch 64 sustains 2,500 requests/s.",
        "winner": winner,
        "p99_at_rps": 1750.0,
        "predicted": outcome(2400.0, 20.0),
        "measured": outcome(2500.0, 30.0, [2300.0, 2700.0]),
        "present": present,
        "diff": "--- config.pbtxt\n+++ config.pbtxt (planned)\n@@ -1 +1 @@\n-max_batch_size: 8\n"
        "+max_batch_size: 64\n",
        "tried": [
            {
                "settings": winner,
                "predicted": outcome(2000.0, 25.0),
                "recalibrated": outcome(2450.0, 22.0),
                "measured": outcome(2500.0, 30.0, [2300.0, 2700.0]),
                "levels": [
                    level(1, 2000.0, 35.0),
                    level(4, 1750.0, 29.0, "rate"),
                    level(5, 1750.0, 30.0, "rate"),
                    level(6, 2900.0, 2400.0),
                ],
            },
            {
                "settings": small,
                "predicted": outcome(1900.0, 40.0),
                "recalibrated": outcome(1850.0, 41.0),
                "measured": outcome(1800.0, None, [1500.0, None]),
                "levels": [level(2, 1800.0, 48.0)],
            },
            {
                "settings": plain,
                "predicted": outcome(480.0, 24_000.0),
                "recalibrated": outcome(470.0, 25_000.0),
                "measured": outcome(0.0, None),
                "levels": [level(3, 480.0, 12.0, generator_bound=True)],
            },
        ],
        "sensitivity": [
            {
                "change": "max_batch_size 53",
                "settings": settings(53, 2_000, 1, 2),
                "outcome": outcome(2450.0, 22.0),
            },
            {
                "change": "max_queue_delay 3,000 µs",
                "settings": settings(64, 3_000, 1, 2),
                "outcome": outcome(2205.0, 33.0),
            },
            {"change": "without batching", "settings": plain, "outcome": outcome(470.0, 25_000.0)},
        ],
        "session": {
            "threads": 2,
            "instances": 2,
            "most_rps": 2200.0,
            "asked_rps": 2083.0,
            "holds": False,
            "levels": [level(1, 2083.0, 190.0, "rate")],
        },
        "corrections": [
            {"threads": 2, "instances": 1, "batching": True, "pace": 0.85, "exponent": 1.0},
            {"threads": 1, "instances": 1, "batching": True, "pace": 0.9},
        ],
        "simulated_settings": 1326,
        "live_runs": 7,
        "wall_s": 61.5,
        "stages_s": {"profile": 20.0, "search": 1.5, "live": 36.0, "session": 4.0},
    }


@pytest.fixture
def planned() -> dict[str, Any]:
    return plan_document()
