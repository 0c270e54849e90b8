"""The comparison: tune each arm, measure all of them in turn, certify, decide."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tritonkit.bench.arms import ARMS
from tritonkit.bench.ceiling import measure_ceiling
from tritonkit.bench.machine import describe_machine
from tritonkit.bench.measure import WARMUP_S, measure
from tritonkit.bench.result import Result
from tritonkit.bench.subject import Comparison, Subject, prepare
from tritonkit.bench.tuning import tune
from tritonkit.bench.verdict import MUST_GAIN, decide
from tritonkit.payloads import PAYLOADS


def compare(what: Comparison, out: Path, tell: Callable[[str], None]) -> Result:
    """Run the comparison. Samples go to `out/samples`, server logs to `out/logs`.

    RepositoryError, ModelError for what cannot be compared; ServerError if a server does not
    start; CheckFailedError if an arm is not what it should be: then nothing is published.
    """
    started = time.perf_counter()
    subject = prepare(what)
    ceiling = measure_ceiling(what.repository, what.model, len(subject.cpus))
    tell(
        f"in process: {ceiling.batch1_ips:.0f} inferences/s at batch 1, "
        f"{ceiling.best_ips:.0f} at batch {ceiling.best_batch}"
    )
    tuning = {arm: tune(arm, what, subject, out, tell) for arm in ARMS}
    arms = measure(what, subject, tuning, ceiling, out, tell)
    return Result(
        kit_version=version("tritonkit"),
        model=what.model,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        slo_p99_ms=what.slo_p99_ms,
        rate_rps=what.rate_rps,
        machine=describe_machine(),
        method={
            "protocol": "http",
            "level_duration_s": what.level_s,
            "warmup_s": WARMUP_S,
            "seed": what.seed,
            "payloads": {"count": len(subject.payloads), "source": subject.payload_source},
            "generator_cpus": subject.cpus,
            "server_cpus": subject.cpus,
            "wall_s": time.perf_counter() - started,
            "batching_must_gain": MUST_GAIN,
            "notes": _notes(what, subject),
        },
        ceiling=ceiling,
        arms=arms,
        verdict=decide(arms, what.slo_p99_ms, what.rate_rps),
    )


def _notes(what: Comparison, subject: Subject) -> list[str]:
    notes = []
    if what.level_s < 10:
        notes.append(f"Levels of {what.level_s:g} s give a rough p99.")
    if subject.payload_source != PAYLOADS:
        notes.append("The inputs were random values, not real requests.")
    return notes
