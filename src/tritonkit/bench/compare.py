"""The comparison: tune each arm, measure all of them in turn, certify, decide."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

from tritonkit.bench.ceiling import measure_ceiling
from tritonkit.bench.cpus import staying_on
from tritonkit.bench.demand import demand
from tritonkit.bench.levels import capacity, guess_rps, trials
from tritonkit.bench.machine import describe_machine
from tritonkit.bench.measure import measure
from tritonkit.bench.progress import PROGRESS, Progress
from tritonkit.bench.result import ArmName, ArmRatio, ArmResult, Ceiling, Certificate, Result
from tritonkit.bench.soak import soak
from tritonkit.bench.subject import Comparison, Subject, prepare
from tritonkit.bench.tuning import tune
from tritonkit.bench.verdict import MUST_GAIN, decide
from tritonkit.client.transport import InferRequest, Region
from tritonkit.load.requests import RequestMix
from tritonkit.payloads import PAYLOADS
from tritonkit.repository import pbtxt
from tritonkit.server.batcher import LACKS
from tritonkit.stats.ratio import ratio
from tritonkit.verification import file_sha256


def compare(what: Comparison, out: Path, tell: Callable[[str], None]) -> Result:
    """Run the comparison, or go on with the one that `out/progress.jsonl` has. Samples go to
    `out/samples`, server logs to `out/logs`.

    RepositoryError, ModelError for what cannot be compared; ServerError if a server does not
    start; CheckFailedError if an arm is not what it should be: then nothing is published.
    """
    started = time.perf_counter()
    subject = prepare(what.repository, what.model, what.seed)
    out.mkdir(parents=True, exist_ok=True)
    progress = Progress(out / PROGRESS, _question(what, subject))
    with staying_on(subject.cpus.generator):
        ceiling = progress.ceiling
        if ceiling is None:
            ceiling = measure_ceiling(what.repository, what.model, subject.cpus.server)
            progress.keep_ceiling(ceiling)
        tell(
            f"in process: {ceiling.batch1_ips:.0f} inferences/s at batch 1, "
            f"{ceiling.best_ips:.0f} at batch {ceiling.best_batch}"
        )
        for arm in what.arms:
            if arm not in progress.tuning:
                progress.keep_tuning(arm, tune(arm, what, subject, out, tell))
        certificates, mix = measure(what, subject, progress.tuning, progress, out, tell)
        arms = tuple(
            _conclude(name, what, progress, certificates[name], ceiling) for name in what.arms
        )
        ratios = _ratios(arms)
        verdict = decide(arms, ratios, what.slo_p99_ms, what.rate_rps)
        soaked = soak(what, subject, progress, verdict.choice, out, tell)
    return Result(
        kit_version=version("tritonkit"),
        model=what.model,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        slo_p99_ms=what.slo_p99_ms,
        rate_rps=what.rate_rps,
        cost_per_hour=what.cost_per_hour,
        machine=describe_machine(),
        method=_method(what, subject, progress, mix, time.perf_counter() - started),
        ceiling=ceiling,
        arms=arms,
        ratios=ratios,
        verdict=verdict,
        soak=soaked,
    )


def _question(what: Comparison, subject: Subject) -> dict[str, Any]:
    """What must be the same for measurements to belong together."""
    return {
        "model": what.model,
        "kit_version": version("tritonkit"),
        "model_sha256": file_sha256(subject.file),
        "config": pbtxt.as_json(subject.config),
        "requests": _digest(subject.requests),
        "slo_p99_ms": what.slo_p99_ms,
        "rate_rps": what.rate_rps,
        "level_s": what.level_s,
        "arms": list(what.arms),
        "endpoints": dict(what.endpoints),
        "seed": what.seed,
        "machine": describe_machine(),
        "cpus": [list(subject.cpus.server), list(subject.cpus.generator)],
    }


def _digest(requests: Sequence[InferRequest]) -> str:
    digest = hashlib.sha256()
    for request in requests:
        for tensor in request.inputs:
            digest.update(f"{tensor.name} {tensor.datatype} {tensor.shape} ".encode())
            assert not isinstance(tensor.data, Region)
            digest.update(tensor.data)
    return digest.hexdigest()


def _conclude(
    name: ArmName,
    what: Comparison,
    progress: Progress,
    certificate: Certificate,
    ceiling: Ceiling,
) -> ArmResult:
    levels = progress.levels(name)
    found = capacity(levels)
    interval = None if found is None else (found.low_rps, found.high_rps)
    return ArmResult(
        name=name,
        certificate=certificate,
        tuning=progress.tuning[name],
        levels=tuple(levels),
        capacity_rps=None if found is None else found.rps,
        capacity_interval_rps=interval,
        counted_levels=len(trials(levels)),
        share_of_ceiling=None if found is None else found.rps / ceiling.best_ips,
        demand=None
        if what.rate_rps is None
        else demand(levels, interval, what.rate_rps, what.cost_per_hour),
        lacks=LACKS if name == "ort_batcher" else (),
    )


def _ratios(arms: Sequence[ArmResult]) -> tuple[ArmRatio, ...]:
    """Of every pair, the more involved arm's capacity as a multiple of the simpler one's."""
    found = []
    for than, arm in combinations(arms, 2):
        ours, theirs = trials(arm.levels), trials(than.levels)
        both = ratio(ours, guess_rps(arm.levels), theirs, guess_rps(than.levels))
        found.append(ArmRatio(arm.name, than.name, both.ratio, both.low, both.high, both.differs))
    return tuple(found)


def _method(
    what: Comparison, subject: Subject, progress: Progress, mix: RequestMix, wall_s: float
) -> dict[str, Any]:
    return {
        "protocol": "http",
        "level_duration_s": what.level_s,
        "time_budget_s": what.time_budget_s,
        "rounds": max(step.level.round for step in progress.steps),
        "levels_s": progress.spent_s,
        "resumed": progress.resumed,
        "seed": what.seed,
        "payloads": asdict(mix),
        "generator_cpus": subject.cpus.generator,
        "server_cpus": () if what.endpoints else subject.cpus.server,
        "generator_first": progress.first_in_line,
        "wall_s": wall_s,
        "batching_must_gain": MUST_GAIN,
        "notes": _notes(what, subject),
    }


def _notes(what: Comparison, subject: Subject) -> list[str]:
    notes = []
    if what.level_s < 5:
        notes.append(
            f"Levels of {what.level_s:g} s give a rough p99 each; the capacity rests on all of "
            "them together."
        )
    if what.endpoints:
        where = ", ".join(f"{arm} at {http}" for arm, http in what.endpoints.items())
        notes.append(
            f"Servers that were up already, as they were ({where}): their threads, instances and "
            "CPUs are what whoever started them chose, and the ceiling is that of the machine with "
            "the load generator."
        )
    if subject.payload_source != PAYLOADS:
        notes.append("The inputs were random values, not real requests.")
    return notes
