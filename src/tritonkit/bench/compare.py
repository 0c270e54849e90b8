"""The comparison: for each arm start its server, load it, certify it; then decide."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tritonkit.bench.arms import (
    ARMS,
    arm_config,
    arm_server,
    candidates,
    require_batchable,
)
from tritonkit.bench.ceiling import measure_ceiling
from tritonkit.bench.certificate import certify
from tritonkit.bench.levels import Mode, plan_levels, record
from tritonkit.bench.machine import describe_machine, usable_cpus
from tritonkit.bench.result import ArmName, ArmResult, Ceiling, LevelRecord, Result, TuningRun
from tritonkit.bench.verdict import MUST_GAIN, capacity, decide
from tritonkit.client.http import EncodedRequest, HttpConnection, encode_infer
from tritonkit.errors import CheckFailedError
from tritonkit.load.runner import Level, run_level
from tritonkit.payloads import PAYLOADS, Payload, load_payloads
from tritonkit.repository import pbtxt
from tritonkit.repository.config import ModelConfig
from tritonkit.repository.layout import model_file, read_config
from tritonkit.samples import write_samples
from tritonkit.server.interface import Server
from tritonkit.server.onnxruntime_backend.session import open_session
from tritonkit.stats.scrape import ServerCounters, read_counters

WARMUP_S = 0.5
TUNING_USERS = 32
TUNING_S = 0.7
TUNING_ROUNDS = 2
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
    ceiling = measure_ceiling(what.repository, what.model, len(subject.cpus))
    tell(
        f"in process: {ceiling.batch1_ips:.0f} inferences/s at batch 1, "
        f"{ceiling.best_ips:.0f} at batch {ceiling.best_batch}"
    )
    tuning = {arm: _tune(arm, what, subject, out, tell) for arm in ARMS}
    arms = _measure(what, subject, tuning, ceiling, out, tell)
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
    payloads, source = load_payloads(what.repository / what.model, file, what.seed)
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


def _tune(
    arm: ArmName, what: Comparison, subject: _Subject, out: Path, tell: Tell
) -> tuple[TuningRun, ...]:
    """Short closed loops on all candidates in turn; the one with the highest rate is chosen.

    All candidates are up at the same time, so that rounds over them cost no restarts. Each
    counts with its best round: what disturbs a short run on a busy machine only slows it.
    """
    level = Level("closed", TUNING_USERS, TUNING_S, WARMUP_S)
    pairs = candidates(arm, len(subject.cpus))
    best: dict[tuple[int, int], LevelRecord] = {}
    with ExitStack() as stack:
        servers = {}
        for threads, instances in pairs:
            config = arm_config(arm, subject.config, threads, instances)
            log = out / "logs" / f"{arm}-tuning-{threads}x{instances}.log"
            servers[threads, instances], _ = stack.enter_context(
                _running(arm, what, config, subject, log)
            )
        for _ in range(TUNING_ROUNDS):
            for pair in pairs:
                run = run_level(servers[pair].endpoints.http, subject.requests, level)
                found = record(level, run, None, what.slo_p99_ms, samples="")
                if pair not in best or found.achieved_rps > best[pair].achieved_rps:
                    best[pair] = found
    chosen = max(pairs, key=lambda pair: best[pair].achieved_rps)
    tell(f"{arm}: best with {chosen[0]} thread(s) × {chosen[1]} instance(s)")
    return tuple(
        TuningRun(*pair, best[pair].achieved_rps, best[pair].p99_ms, chosen=pair == chosen)
        for pair in pairs
    )


class _Arm:
    """An arm while it is measured: its live server, its records, what was counted before."""

    def __init__(self, name: ArmName, config: ModelConfig, server: Server, http: HttpConnection):
        self.name = name
        self.config = config
        self.server = server
        self.http = http
        self.before = self.counters()
        self.levels: list[LevelRecord] = []

    def counters(self) -> ServerCounters:
        return read_counters(self.http.model_statistics(self.config.name))


def _measure(
    what: Comparison,
    subject: _Subject,
    tuning: Mapping[ArmName, tuple[TuningRun, ...]],
    ceiling: Ceiling,
    out: Path,
    tell: Tell,
) -> tuple[ArmResult, ...]:
    """Measure all arms level by level, in turn, forwards and backwards (A B C, C B A, …).

    All servers are up the whole time and only the one under load works, so a machine that
    drifts hurts all arms alike.
    """
    with ExitStack() as stack:
        arms = []
        for name in ARMS:
            best = next(run for run in tuning[name] if run.chosen)
            config = arm_config(name, subject.config, best.threads, best.instances)
            log = out / "logs" / f"{name}.log"
            server, http = stack.enter_context(_running(name, what, config, subject, log))
            _check_answers(name, what.model, http, subject)
            arms.append(_Arm(name, config, server, http))
        plans = {arm.name: plan_levels(what.rate_rps) for arm in arms}
        wanted = {name: next(plan) for name, plan in plans.items()}
        while wanted:
            for arm in arms:
                if arm.name not in wanted:
                    continue
                level = _measure_level(arm, *wanted[arm.name], what, subject, out)
                tell(_line(arm.name, level))
                try:
                    wanted[arm.name] = plans[arm.name].send(level)
                except StopIteration as done:
                    arm.levels = done.value
                    del wanted[arm.name]
            arms.reverse()
        arms.sort(key=lambda arm: ARMS.index(arm.name))
        return tuple(_conclude(arm, tuning[arm.name], ceiling) for arm in arms)


def _measure_level(
    arm: _Arm, mode: Mode, offered: float, what: Comparison, subject: _Subject, out: Path
) -> LevelRecord:
    level = Level(mode, offered, what.level_s, WARMUP_S, what.seed)
    earlier = arm.counters()
    run = run_level(arm.server.endpoints.http, subject.requests, level)
    mean_batch = arm.counters().since(earlier).mean_batch
    samples = _free(out, f"samples/{arm.name}-{mode}-{offered:g}")
    write_samples(out / samples, run.samples)
    return record(level, run, mean_batch, what.slo_p99_ms, samples)


def _free(out: Path, stem: str) -> str:
    """A file name that is not taken: a level that is measured again gets a number."""
    name, count = f"{stem}.csv.gz", 1
    while (out / name).exists():
        count += 1
        name = f"{stem}-{count}.csv.gz"
    return name


def _conclude(arm: _Arm, tuning: tuple[TuningRun, ...], ceiling: Ceiling) -> ArmResult:
    sustained = capacity(arm.levels)
    counted = arm.counters().since(arm.before)
    return ArmResult(
        name=arm.name,
        certificate=certify(arm.name, arm.server, arm.config, counted),
        tuning=tuning,
        levels=tuple(arm.levels),
        capacity_rps=sustained,
        share_of_ceiling=sustained / ceiling.best_ips,
    )


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


def _line(arm: str, level: LevelRecord) -> str:
    load = f"{level.offered:g} users" if level.mode == "closed" else f"{level.offered:g} req/s"
    p99 = "-" if level.p99_ms is None else f"{level.p99_ms:.1f} ms"
    errors = f", {level.errors} errors" if level.errors else ""
    return f"{arm}: {load}: {level.achieved_rps:.0f} req/s, p99 {p99}{errors}"


def _notes(what: Comparison, subject: _Subject) -> list[str]:
    notes = [
        "The load generator and the server under test share the same CPUs; every arm pays that.",
        "Levels ran on all arms in turn, forwards and backwards; the level that decides ran "
        "twice. Differences of a few percent are noise.",
        f"Every arm answered the first {len(subject.answers)} payloads as the bare ONNX Runtime "
        "session does.",
    ]
    if what.level_s < 10:
        notes.append(f"Levels of {what.level_s:g} s give a rough p99.")
    if subject.payload_source != PAYLOADS:
        notes.append("The inputs were random values, not real requests.")
    return notes
