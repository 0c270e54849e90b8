"""A steady load for long on the arm that was chosen: does anything grow, or get worse?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tritonkit.bench.arms import arm_config, running
from tritonkit.bench.levels import capacity
from tritonkit.bench.memory import rss_bytes, shm_bytes
from tritonkit.bench.progress import Progress
from tritonkit.bench.result import Choice, Soak, SoakFinding
from tritonkit.bench.subject import Comparison, Subject
from tritonkit.load.level import measure_level
from tritonkit.load.runner import Level
from tritonkit.samples import write_samples
from tritonkit.stats.trend import Trend, trend

SHARE = 0.7
"""How much of its capacity an arm is loaded with, where no rate was asked for."""

LEVELS = 30
"""So many levels make a soak, so that a trend can be told from scatter."""

_LONGEST_S = 60.0


def soak(
    what: Comparison,
    subject: Subject,
    progress: Progress,
    choice: Choice,
    out: Path,
    tell: Callable[[str], None],
) -> Soak | None:
    """Load the chosen arm for what.soak_minutes, level after level. None if there is no such arm,
    or nothing to do.
    """
    if choice == "none" or not what.soak_minutes:
        return None
    found = capacity(progress.levels(choice))
    rate = what.rate_rps or float(f"{SHARE * (found.rps if found else 0):.3g}")
    best = next(run for run in progress.tuning[choice] if run.chosen)
    config = arm_config(choice, subject.config, best.threads, best.instances)
    length_s = what.soak_minutes * 60
    level_s = min(_LONGEST_S, length_s / LEVELS)
    rows: list[tuple[float, float, float | None, int, int, int]] = []
    tell(f"{choice}: {rate:g} req/s for {what.soak_minutes:g} minutes")
    log = out / "logs" / f"{choice}-soak.log"
    with running(choice, what.repository, config, log, subject.cpus.server) as (server, client):
        began_s = time.perf_counter()
        while (at_s := time.perf_counter() - began_s) < length_s - level_s / 2:
            measured = measure_level(
                f"http://{server.endpoints.http}",
                client,
                what.model,
                subject.requests,
                Level("open", rate, level_s, what.seed + len(rows)),
                slo_p99_ms=what.slo_p99_ms,
                purpose="soak",
                round=len(rows) + 1,
            )
            write_samples(out / f"samples/soak-{len(rows) + 1:03d}.csv.gz", measured.samples)
            level, pids = measured.record, server.pids()
            rows.append(
                (
                    at_s + level_s / 2,
                    level.achieved_rps,
                    level.p99_ms,
                    rss_bytes(pids),
                    shm_bytes(pids),
                    level.errors,
                )
            )
    at, rates, p99s, rss, shm, errors = zip(*rows, strict=True)
    return Soak(
        arm=choice,
        rate_rps=rate,
        minutes=what.soak_minutes,
        at_s=at,
        achieved_rps=rates,
        p99_ms=p99s,
        rss_bytes=rss,
        shm_bytes=shm,
        errors=sum(errors),
        findings=tuple(_findings(at, rates, p99s, rss, shm)),
    )


def _findings(
    at_s: Sequence[float],
    achieved_rps: Sequence[float],
    p99_ms: Sequence[float | None],
    rss: Sequence[int],
    shm: Sequence[int],
) -> list[SoakFinding]:
    found = []
    for series, name, values, bad in (
        ("rss_bytes", "resident memory", rss, "rises"),
        ("shm_bytes", "shared memory", shm, "rises"),
        ("achieved_rps", "throughput", achieved_rps, "falls"),
        ("p99_ms", "p99", p99_ms, "rises"),
    ):
        known = [(t, float(v)) for t, v in zip(at_s, values, strict=True) if v is not None]
        seen: Trend = trend([t for t, _ in known], [v for _, v in known])
        if getattr(seen, bad):
            found.append(SoakFinding(series, f"{name} {bad}: {_amount(series, seen)}"))
    return found


def _amount(series: str, seen: Trend) -> str:
    unit = {"achieved_rps": "requests/s", "p99_ms": "ms"}.get(series, "MiB")
    change = seen.change / 2**20 if unit == "MiB" else seen.change
    return f"{change:+,.1f} {unit} ({seen.relative:+.0%}) over the soak"
