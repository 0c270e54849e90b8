"""Would one ONNX Runtime session do as well as what was planned? Asked of a live one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tritonkit.bench.arms import arm_config, candidates, running
from tritonkit.bench.demand import holds_rate
from tritonkit.bench.subject import Subject
from tritonkit.planning.live import Loading
from tritonkit.planning.result import Session
from tritonkit.profile.sweep import Target

USERS = 16
CLOSED_S = 0.7
LEVELS = 3


def ask_session(
    repository: Path,
    subject: Subject,
    rate_rps: float,
    loading: Loading,
    logs: Path,
    tell: Callable[[str], None],
) -> Session:
    """Whether a session, at its best threads and runs at a time, holds the rate within the budget.

    If its closed loop does not even reach the rate no more is asked. Otherwise two of three levels
    at it must hold.
    """
    from tritonkit.load.runner import Level, run_level  # patches the process for gevent

    with ExitStack() as stack:
        targets: dict[tuple[int, int], Target] = {}
        reached: dict[tuple[int, int], float] = {}
        for threads, instances in candidates("ort_baseline", len(subject.cpus.server)):
            config = arm_config("ort_baseline", subject.config, threads, instances)
            log = logs / f"session-{threads}x{instances}.log"
            server, client = stack.enter_context(
                running("ort_baseline", repository, config, log, subject.cpus.server)
            )
            target = Target(
                f"http://{server.endpoints.http}", client, subject.config.name, subject.requests
            )
            targets[threads, instances] = target
            run = run_level(target.address, target.requests, Level("closed", USERS, CLOSED_S))
            ends_s = [s.done_ns / 1e9 for s in run.samples if not s.error]
            reached[threads, instances] = len(ends_s) / max([CLOSED_S, *ends_s])
        best = max(reached, key=lambda pair: reached[pair])
        if reached[best] < rate_rps:
            tell(f"one session answers {reached[best]:.0f} req/s at most")
            return Session(*best, reached[best], rate_rps, False, ())
        levels = tuple(
            loading.level(targets[best], rate_rps, "rate", number).record
            for number in range(1, LEVELS + 1)
        )
    holds = bool(holds_rate(levels, rate_rps))
    tell(f"one session {'holds' if holds else 'does not hold'} {rate_rps:.0f} req/s")
    return Session(*best, reached[best], rate_rps, holds, levels)
