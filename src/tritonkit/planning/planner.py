"""The plan: measure the service curve, simulate all settings, run the best few, confirm one."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tritonkit.bench.cpus import staying_on
from tritonkit.bench.machine import describe_machine
from tritonkit.bench.subject import Subject, prepare
from tritonkit.bench.verdict import MUST_GAIN
from tritonkit.errors import CheckFailedError, InputError
from tritonkit.load.arrivals import POISSON, Arrivals, require_payloads
from tritonkit.plan.fit import stream_of
from tritonkit.plan.possible import require_budget, require_rate
from tritonkit.plan.search import by_capacity, neighbours
from tritonkit.plan.settings import Settings
from tritonkit.planning.conclude import conclude
from tritonkit.planning.contest import Contest, Winner
from tritonkit.planning.live import Live, Loading
from tritonkit.planning.profiling import profile
from tritonkit.planning.result import Notch, Plan, Session, Tried
from tritonkit.planning.session import ask_session
from tritonkit.planning.variants import with_settings
from tritonkit.profile.curve import CURVE, ServiceCurve, read_curve
from tritonkit.repository import pbtxt
from tritonkit.repository.config import ModelConfig
from tritonkit.repository.layout import version_folder
from tritonkit.verification import VERIFICATION, file_sha256, read_verification

USUAL_MOST_ROWS = 128
"""More rows than that hardly share more of the weights, and take memory."""


@dataclass(frozen=True)
class Question:
    """What to plan for. rate_rps: to be held with the lowest p99; None: as much as possible.

    max_batch_size: the largest that is tried; None: as many rows as were proved to keep apart.
    curve: a curve.json to use instead of measuring one.
    """

    repository: Path
    model: str
    slo_p99_ms: float
    rate_rps: float | None = None
    arrivals: Arrivals = POISSON
    max_batch_size: int | None = None
    curve: Path | None = None
    seed: int = 0


def plan(what: Question, out: Path, tell: Callable[[str], None]) -> Plan:
    """The best settings for the model on this machine. The curve goes to `out/curve.json`, samples
    to `out/samples`, server logs to `out/logs`.

    InputError, with the nearest thing that is possible, for a budget or a rate that no settings
    keep, and for a curve of something else. RepositoryError, ModelError, SetupError, ServerError.
    """
    clock = _Clock()
    subject = prepare(what.repository, what.model, what.seed)
    require_payloads(what.arrivals, len(subject.requests))
    logs = out / "logs"
    for folder in (out / "samples", logs):
        folder.mkdir(parents=True, exist_ok=True)
    loading = Loading(what.slo_p99_ms, what.arrivals, what.seed, out)
    with staying_on(subject.cpus.generator):
        rows = most_rows(subject.config, subject.file, what.max_batch_size)
        curve = _curve(what, subject, rows, out, tell)
        clock.lap("profile")
        stream = stream_of(curve, what.arrivals)
        live = Live(loading, curve, tell)
        rows = min(rows, curve.max_rows)
        contest = Contest(curve, stream, what.slo_p99_ms, what.rate_rps, rows, live)
        require_budget(contest.options, contest.lanes, stream, what.slo_p99_ms)
        ranked = contest.ranked()
        if what.rate_rps is not None:
            best = by_capacity(contest.lanes, contest.options, stream, what.slo_p99_ms)[0]
            require_rate(best, what.slo_p99_ms, what.rate_rps)
        tell(f"simulated {contest.simulated} settings; the best: {ranked[0].settings}")
        clock.lap("search")
        winner = contest.run(what.repository, subject, ranked, logs / "candidates.log")
        clock.lap("live")
        sustains_rps = winner.measured.capacity_rps or winner.at_rps
        least_rps = what.rate_rps or sustains_rps / MUST_GAIN
        session = ask_session(what.repository, subject, least_rps, loading, logs, tell)
        clock.lap("session")
    return _plan(what, subject, contest, winner, session, clock)


def _curve(
    what: Question, subject: Subject, rows: int, out: Path, tell: Callable[[str], None]
) -> ServiceCurve:
    if what.curve is None:
        log = out / "logs" / "profile.log"
        curve = profile(what.repository, subject, rows, what.slo_p99_ms, log, tell)
    else:
        curve = read_curve(what.curve)
        curve.require(what.curve, file_sha256(subject.file), describe_machine())
    curve.write(out / CURVE)
    return curve


def most_rows(config: ModelConfig, file: Path, asked: int | None) -> int:
    """The largest batch to try: as asked, or as many rows as were proved to keep apart, up to
    USUAL_MOST_ROWS; where nothing was proved, as many as the config has.

    CheckFailedError for a model that must not be batched, InputError for more rows than were
    proved.
    """
    proof = read_verification(version_folder(file) / VERIFICATION, file)
    if proof is None:
        return asked or config.max_batch_size
    if not proof.verdict.batchable:
        why = "; ".join(proof.reasons) or "see tritonkit check"
        raise CheckFailedError(
            f"model '{config.name}' is {proof.verdict}: {why}. There is no batching to plan; serve "
            "it unbatched"
        )
    if asked is not None and asked > proof.max_batch_size:
        raise InputError(
            f"model '{config.name}': batches of {asked} rows are more than the "
            f"{proof.max_batch_size} that were proved; export it again with --max-batch-size "
            f"{asked}, or ask for {proof.max_batch_size} or less"
        )
    return asked or min(USUAL_MOST_ROWS, proof.max_batch_size)


def _plan(
    what: Question,
    subject: Subject,
    contest: Contest,
    winner: Winner,
    session: Session,
    clock: _Clock,
) -> Plan:
    config = subject.config
    at_rps = winner.at_rps
    choice, because = conclude(what.slo_p99_ms, what.rate_rps, winner, contest, session)
    tried = tuple(
        Tried(
            settings,
            predicted=contest.predicted(settings, at_rps, contest.from_curve),
            recalibrated=contest.predicted(settings, at_rps),
            measured=contest.measured(settings, at_rps),
            levels=tuple(levels),
        )
        for settings, levels in contest.live.levels.items()
    )
    present = Settings(
        config.max_batch_size, config.dynamic_batching, config.instances, config.intra_op_threads
    )
    notches = neighbours(winner.settings, contest.lanes, contest.max_rows, what.slo_p99_ms)
    if present != winner.settings and _is_known(present, contest):
        notches.insert(0, ("as it is now", present))
    return Plan(
        kit_version=version("tritonkit"),
        model=what.model,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        slo_p99_ms=what.slo_p99_ms,
        rate_rps=what.rate_rps,
        arrivals=what.arrivals.name,
        machine=describe_machine(),
        conclusion=choice,
        because=because,
        winner=winner.settings,
        p99_at_rps=at_rps,
        predicted=winner.predicted,
        measured=winner.measured,
        present=present,
        diff=_diff(config, with_settings(config, winner.settings)),
        tried=tried,
        sensitivity=tuple(
            Notch(change, settings, contest.predicted(settings, at_rps))
            for change, settings in notches
        ),
        session=session,
        corrections=tuple(
            way._asdict() | correction._asdict() for way, correction in contest.corrections.items()
        ),
        simulated_settings=contest.simulated,
        live_runs=contest.live.runs + len(session.levels),
        wall_s=clock.total_s,
        stages_s=clock.stages_s,
    )


def _is_known(settings: Settings, contest: Contest) -> bool:
    """Whether the curve and the simulation can tell of settings that somebody else chose."""
    batching = settings.dynamic_batching
    return (
        settings.way in contest.lanes
        and settings.max_batch_size <= contest.curve.max_rows
        and (batching is None or batching.priorities is None)
    )


def _diff(present: ModelConfig, planned: ModelConfig) -> str:
    """From one config.pbtxt to the other, unified; "" if they are equal."""
    before, after = (pbtxt.encode(config).splitlines(True) for config in (present, planned))
    return "".join(difflib.unified_diff(before, after, "config.pbtxt", "config.pbtxt (planned)"))


class _Clock:
    """How long each stage took, in seconds."""

    def __init__(self) -> None:
        self.stages_s: dict[str, float] = {}
        self._began_s = self._lap_s = time.perf_counter()

    def lap(self, stage: str) -> None:
        """A stage is done."""
        now_s = time.perf_counter()
        self.stages_s[stage] = round(now_s - self._lap_s, 3)
        self._lap_s = now_s

    @property
    def total_s(self) -> float:
        """Since it was made."""
        return round(time.perf_counter() - self._began_s, 3)
