"""A steady load for long on the arm that was chosen: does anything grow, or get worse?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tritonkit.bench.arms import arm_config, running
from tritonkit.bench.growth import findings
from tritonkit.bench.levels import capacity, connections
from tritonkit.bench.measure import cut_kept
from tritonkit.bench.memory import rss_bytes, shm_bytes
from tritonkit.bench.progress import Progress, SoakEnd, SoakLevel, SoakOf
from tritonkit.bench.result import Choice, Soak
from tritonkit.bench.subject import Comparison, Subject
from tritonkit.errors import RequestError
from tritonkit.load.level import measure_level
from tritonkit.load.runner import Level
from tritonkit.samples import Sample, write_samples
from tritonkit.server.interface import Server
from tritonkit.stats.capacity import for_people

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
    """Load the chosen arm for what.soak_minutes, level after level, or go on with the soak that
    `progress` has. None if there is no such arm, or nothing to do.

    A server that is lost ends it with a finding: that is what a soak is for.
    """
    if choice == "none" or not what.soak_minutes:
        return None
    found = capacity(progress.levels(choice))
    rate = what.rate_rps or for_people(SHARE * (found.rps if found else 0))
    of = SoakOf(choice, rate, what.soak_minutes)
    if not any(end.of == of for end in progress.soak_ends):
        _load(of, what, subject, progress, out, tell)
    levels = [level for level in progress.soak_levels if level.of == of]
    end = next(end for end in progress.soak_ends if end.of == of)
    return Soak(
        arm=choice,
        rate_rps=rate,
        minutes=end.after_s / 60,
        at_s=tuple(level.at_s for level in levels),
        achieved_rps=tuple(level.achieved_rps for level in levels),
        p99_ms=tuple(level.p99_ms for level in levels),
        rss_bytes=tuple(level.rss_bytes for level in levels),
        shm_bytes=tuple(level.shm_bytes for level in levels),
        errors=sum(level.errors for level in levels),
        findings=tuple(findings(levels, end)),
    )


def _load(
    of: SoakOf,
    what: Comparison,
    subject: Subject,
    progress: Progress,
    out: Path,
    tell: Callable[[str], None],
) -> None:
    """Measure what is missing of the soak into `progress`."""
    length_s = of.minutes * 60
    level_s = min(_LONGEST_S, length_s / LEVELS)
    before = [level for level in progress.soak_levels if level.of == of]
    done_s = before[-1].at_s + level_s / 2 if before else 0.0
    gone_on = f", of which {done_s / 60:.3g} are done" if before else ""
    tell(f"{of.arm}: {of.rate_rps:g} req/s for {of.minutes:g} minutes{gone_on}")
    best = next(run for run in progress.tuning[of.arm] if run.chosen)
    config = arm_config(of.arm, subject.config, best.threads, best.instances)
    log = out / "logs" / f"{of.arm}-soak.log"
    with running(of.arm, what.repository, config, log, subject.cpus.server) as (server, client):
        began_s, answered_s = time.perf_counter() - done_s, done_s
        while (at_s := time.perf_counter() - began_s) < length_s - level_s / 2:
            number = len(progress.soak_levels) + 1
            samples = out / f"samples/soak-{number:03d}.csv.gz"
            try:
                with cut_kept(samples):
                    measured = measure_level(
                        f"http://{server.endpoints.http}",
                        client,
                        what.model,
                        subject.requests,
                        Level("open", of.rate_rps, level_s, what.seed + number),
                        slo_p99_ms=what.slo_p99_ms,
                        purpose="soak",
                        round=number,
                        connections=connections(of.rate_rps, what.slo_p99_ms),
                    )
            except RequestError as error:  # it was asked for its counters, and does not answer
                end = SoakEnd(of, answered_s, _lost(server, answered_s, error))
                progress.keep_soak_end(end)
                tell(f"{of.arm}: {end.because}")
                return
            write_samples(samples, measured.samples)
            level, pids = measured.record, server.pids()
            progress.keep_soak_level(
                SoakLevel(
                    of,
                    at_s + level_s / 2,
                    level.achieved_rps,
                    level.p99_ms,
                    rss_bytes(pids),
                    shm_bytes(pids),
                    level.errors,
                    progress.resumed,
                )
            )
            answered_s = max(answered_s, at_s + _last_answer_s(measured.samples))
    progress.keep_soak_end(SoakEnd(of, length_s))


def _last_answer_s(samples: Sequence[Sample]) -> float:
    """Since the level began; 0 if nothing was answered."""
    return max((s.done_ns for s in samples if not s.error), default=0) / 1e9


def _lost(server: Server, after_s: float, error: RequestError) -> str:
    after = f"after {after_s / 60:.3g} minutes"
    if not server.pids():
        return f"the server died {after}; its last words are in logs/{server.log.name}"
    return f"the server stopped answering {after}: {error}"
