"""The comparison: for each arm start its server, load it, certify it; then decide."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from tritonkit.bench.arms import (
    ARMS,
    arm_config,
    arm_server,
    require_batchable,
    tuning_candidates,
)
from tritonkit.bench.ceiling import measure_ceiling
from tritonkit.bench.certificate import certify
from tritonkit.bench.levels import measure_levels, record
from tritonkit.bench.machine import describe_machine, usable_cpus
from tritonkit.bench.result import ArmName, ArmResult, Ceiling, LevelRecord, Result, TuningRun
from tritonkit.bench.verdict import MUST_GAIN, capacity, decide
from tritonkit.client.http import EncodedRequest, HttpConnection, encode_infer
from tritonkit.errors import CheckFailedError
from tritonkit.load.runner import Level, run_level
from tritonkit.payloads import Payload, random_payloads, read_payloads
from tritonkit.repository import pbtxt
from tritonkit.repository.config import ModelConfig
from tritonkit.repository.layout import PAYLOADS, model_file, read_config
from tritonkit.samples import write_samples
from tritonkit.server.interface import Server
from tritonkit.server.onnxruntime_backend.session import open_session
from tritonkit.signature import read_signature
from tritonkit.stats.scrape import ServerCounters, read_counters

WARMUP_S = 0.6
TUNING_USERS = 32
TUNING_S = 1.5
RANDOM_PAYLOADS = 64
CHECKED_PAYLOADS = 8
ANSWER_RTOL, ANSWER_ATOL = 1e-3, 1e-4

Tell = Callable[[str], None]
"""Called with one line whenever a step is done."""


@dataclass(frozen=True)
class Comparison:
    """What to compare. level_s: the counted seconds of each level; seed: of the arrivals."""

    repository: Path
    model: str
    slo_p99_ms: float
    rate_rps: float | None
    level_s: float
    seed: int = 0


@dataclass(frozen=True)
class _Subject:
    """The model under test, ready to send: what every arm shares."""

    config: ModelConfig
    file: Path
    payloads: Sequence[Payload]
    payload_source: str
    requests: Sequence[EncodedRequest]
    answers: Sequence[Mapping[str, np.ndarray]]
    cpus: tuple[int, ...]


def compare(what: Comparison, out: Path, tell: Tell) -> Result:
    """Run the comparison. Samples go to `out/samples`, server logs to `out/logs`.

    RepositoryError, ModelError for what cannot be compared; ServerError if a server does not
    start; CheckFailedError if an arm is not what it should be: then nothing is published.
    """
    started = time.perf_counter()
    subject = _prepare(what)
    ceiling = _measure_ceiling(subject, tell)
    arms = tuple(_measure_arm(arm, what, subject, ceiling, out, tell) for arm in ARMS)
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


def _prepare(what: Comparison) -> _Subject:
    config = read_config(what.repository, what.model)
    require_batchable(config)
    file = model_file(what.repository, what.model)
    recorded = what.repository / what.model / PAYLOADS
    if recorded.is_file():
        payloads, source = read_payloads(recorded), PAYLOADS
    else:
        payloads = random_payloads(read_signature(file), RANDOM_PAYLOADS, what.seed)
        source = "random values drawn from the signature"
    outputs = [t.name for t in config.outputs]
    session = open_session(file, pbtxt.as_json(config))
    answers = [
        dict(zip(outputs, session.run(outputs, p), strict=True))
        for p in payloads[:CHECKED_PAYLOADS]
    ]
    return _Subject(
        config=config,
        file=file,
        payloads=payloads,
        payload_source=source,
        requests=[encode_infer(what.model, p, outputs) for p in payloads],
        answers=answers,
        cpus=usable_cpus(),
    )


def _measure_ceiling(subject: _Subject, tell: Tell) -> Ceiling:
    threads = tuple(sorted({1, len(subject.cpus)}))
    # The median payload: where lengths vary, the row that stands for most of them.
    row = sorted(subject.payloads, key=_elements)[len(subject.payloads) // 2]
    ceiling = measure_ceiling(subject.file, subject.config, row, threads)
    tell(
        f"in process: {ceiling.batch1_ips:.0f} inferences/s at batch 1, "
        f"{ceiling.best_ips:.0f} at batch {ceiling.best_batch}"
    )
    return ceiling


def _measure_arm(
    arm: ArmName, what: Comparison, subject: _Subject, ceiling: Ceiling, out: Path, tell: Tell
) -> ArmResult:
    tuning = _tune(arm, what, subject, out, tell)
    best = next(run for run in tuning if run.chosen)
    config = arm_config(arm, subject.config, best.threads, best.instances)
    with _running(arm, what, config, subject, out / "logs" / f"{arm}.log") as (server, http):
        _check_answers(arm, what.model, http, subject)
        before = _counters(http, what.model)

        def measure(mode: Literal["closed", "open"], offered: float) -> LevelRecord:
            level = Level(mode, offered, what.level_s, WARMUP_S, what.seed)
            samples = f"samples/{arm}-{mode}-{offered:g}.csv.gz"
            earlier = _counters(http, what.model)
            run = run_level(server.endpoints.http, subject.requests, level)
            write_samples(out / samples, run.samples)
            mean_batch = _counters(http, what.model).since(earlier).mean_batch
            measured = record(level, run, mean_batch, what.slo_p99_ms, samples)
            tell(_line(arm, measured))
            return measured

        levels = measure_levels(measure, what.rate_rps)
        certificate = certify(arm, server, config, _counters(http, what.model).since(before))
    sustained = capacity(levels)
    return ArmResult(
        name=arm,
        certificate=certificate,
        tuning=tuple(tuning),
        levels=tuple(levels),
        capacity_rps=sustained,
        share_of_ceiling=sustained / ceiling.best_ips,
    )


def _tune(
    arm: ArmName, what: Comparison, subject: _Subject, out: Path, tell: Tell
) -> list[TuningRun]:
    """A short closed loop for each candidate; the one with the highest rate is chosen."""
    level = Level("closed", TUNING_USERS, TUNING_S, WARMUP_S)
    measured = []
    for threads, instances in tuning_candidates(len(subject.cpus)):
        config = arm_config(arm, subject.config, threads, instances)
        log = out / "logs" / f"{arm}-tuning-{threads}x{instances}.log"
        with _running(arm, what, config, subject, log) as (server, _):
            run = run_level(server.endpoints.http, subject.requests, level)
        measured.append((threads, instances, record(level, run, None, what.slo_p99_ms, "")))
    best = max(measured, key=lambda m: m[2].achieved_rps)
    tell(f"{arm}: best with {best[0]} thread(s) × {best[1]} instance(s)")
    return [
        TuningRun(threads, instances, r.achieved_rps, r.p99_ms, chosen=r is best[2])
        for threads, instances, r in measured
    ]


@contextmanager
def _running(
    arm: ArmName, what: Comparison, config: ModelConfig, subject: _Subject, log: Path
) -> Iterator[tuple[Server, HttpConnection]]:
    """A running arm and a control connection to it; both end with the block."""
    with tempfile.TemporaryDirectory(prefix="tritonkit-arm-") as work:
        variant = Path(work) / "repository"
        with arm_server(arm, what.repository, config, variant, log, subject.cpus) as server:
            http = HttpConnection(server.endpoints.http)
            try:
                yield server, http
            finally:
                http.close()


def _check_answers(arm: str, model: str, http: HttpConnection, subject: _Subject) -> None:
    """CheckFailedError unless the arm answers as the bare session does: same work, same result."""
    for payload, answer in zip(subject.payloads, subject.answers, strict=False):
        given = http.infer(model, payload, list(answer))
        for name, expected in answer.items():
            if expected.dtype.kind == "f":
                same = np.allclose(given[name], expected, ANSWER_RTOL, ANSWER_ATOL, equal_nan=True)
            else:
                same = np.array_equal(given[name], expected)
            if not same:
                raise CheckFailedError(
                    f"{arm}: output '{name}' is not what the ONNX Runtime session gives for the "
                    "same input; the comparison is not published"
                )


def _counters(http: HttpConnection, model: str) -> ServerCounters:
    return read_counters(http.model_statistics(model))


def _elements(payload: Payload) -> int:
    return sum(array.size for array in payload.values())


def _line(arm: str, level: LevelRecord) -> str:
    load = f"{level.offered:g} users" if level.mode == "closed" else f"{level.offered:g} req/s"
    p99 = "-" if level.p99_ms is None else f"{level.p99_ms:.1f} ms"
    errors = f", {level.errors} errors" if level.errors else ""
    return f"{arm}: {load}: {level.achieved_rps:.0f} req/s, p99 {p99}{errors}"


def _notes(what: Comparison, subject: _Subject) -> list[str]:
    notes = [
        "The load generator and the server under test share the same CPUs; every arm pays that.",
        "Each level ran once and the arms one after another, so differences of a few percent "
        "are noise.",
        f"Every arm answered the first {len(subject.answers)} payloads as the bare ONNX Runtime "
        "session does.",
    ]
    if what.level_s < 10:
        notes.append(f"Levels of {what.level_s:g} s give a rough p99.")
    if subject.payload_source != PAYLOADS:
        notes.append("The inputs were random values, not real requests.")
    return notes
