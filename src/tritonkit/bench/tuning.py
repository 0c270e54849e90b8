"""The threads and instances that are best for an arm, found in short runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tritonkit.bench.arms import arm_config, candidates, reached, running
from tritonkit.bench.certificate import runs_on
from tritonkit.bench.result import ArmName, TuningRun
from tritonkit.bench.subject import Comparison, Subject
from tritonkit.load.runner import Level, run_level
from tritonkit.plan.settings import lane_words
from tritonkit.stats.latency import LevelStats, summarise

USERS = 64
MEASURE_S = 1.0
ROUNDS = 2


def tune(
    arm: ArmName, what: Comparison, subject: Subject, out: Path, tell: Callable[[str], None]
) -> tuple[TuningRun, ...]:
    """Short closed loops on all candidates in turn; the one with the highest rate is chosen.

    A server that is up already is its only candidate. All candidates are up at the same time, so
    that rounds over them cost no restarts. Each counts with its best round: what disturbs a short
    run on a busy machine only slows it.
    """
    level = Level("closed", USERS, MEASURE_S)
    best: dict[tuple[int, int], LevelStats] = {}
    with ExitStack() as stack:
        servers = {}
        if arm in what.endpoints:
            server, _ = stack.enter_context(reached(what.endpoints[arm]))
            _, threads, instances = runs_on(server, what.model)
            servers[threads, instances] = server
        else:
            for threads, instances in candidates(arm, len(subject.cpus.server)):
                config = arm_config(arm, subject.config, threads, instances)
                log = out / "logs" / f"{arm}-tuning-{threads}x{instances}.log"
                servers[threads, instances], _ = stack.enter_context(
                    running(arm, what.repository, config, log, subject.cpus.server)
                )
        pairs = list(servers)
        for _ in range(ROUNDS):
            for pair in pairs:
                run = run_level(f"http://{servers[pair].endpoints.http}", subject.requests, level)
                found = summarise(run.samples, duration_s=MEASURE_S, open_loop=False)
                if pair not in best or found.achieved_rps > best[pair].achieved_rps:
                    best[pair] = found
    chosen = max(pairs, key=lambda pair: best[pair].achieved_rps)
    tell(f"{arm}: {'runs' if arm in what.endpoints else 'best'} with {lane_words(*chosen)}")
    return tuple(
        TuningRun(*pair, best[pair].achieved_rps, best[pair].p99_ms, chosen=pair == chosen)
        for pair in pairs
    )
