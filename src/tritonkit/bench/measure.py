"""All arms under load, in turn, level by level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from tritonkit.bench.arms import ARMS, arm_config, running
from tritonkit.bench.certificate import certify
from tritonkit.bench.levels import Mode, plan_levels, record
from tritonkit.bench.result import ArmName, ArmResult, Ceiling, LevelRecord, TuningRun
from tritonkit.bench.subject import Comparison, Subject, check_answers
from tritonkit.bench.verdict import capacity
from tritonkit.client.client import Client
from tritonkit.load.runner import Level, run_level
from tritonkit.repository.config import ModelConfig
from tritonkit.samples import write_samples
from tritonkit.server.interface import Server
from tritonkit.stats.scrape import ServerCounters, read_counters

WARMUP_S = 0.5


class _Arm:
    """An arm while it is measured: its live server, its records, what was counted before."""

    def __init__(self, name: ArmName, config: ModelConfig, server: Server, client: Client):
        self.name = name
        self.config = config
        self.server = server
        self.client = client
        self.before = self.counters()
        self.levels: list[LevelRecord] = []

    def counters(self) -> ServerCounters:
        return read_counters(self.client.statistics(self.config.name)[-1])


def measure(
    what: Comparison,
    subject: Subject,
    tuning: Mapping[ArmName, tuple[TuningRun, ...]],
    ceiling: Ceiling,
    out: Path,
    tell: Callable[[str], None],
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
            server, client = stack.enter_context(
                running(name, what.repository, config, log, subject.cpus)
            )
            check_answers(name, what.model, client, subject)
            arms.append(_Arm(name, config, server, client))
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
    arm: _Arm, mode: Mode, offered: float, what: Comparison, subject: Subject, out: Path
) -> LevelRecord:
    level = Level(mode, offered, what.level_s, WARMUP_S, what.seed)
    earlier = arm.counters()
    run = run_level(f"http://{arm.server.endpoints.http}", subject.requests, level)
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


def _line(arm: str, level: LevelRecord) -> str:
    load = f"{level.offered:g} users" if level.mode == "closed" else f"{level.offered:g} req/s"
    p99 = "-" if level.p99_ms is None else f"{level.p99_ms:.1f} ms"
    errors = f", {level.errors} errors" if level.errors else ""
    return f"{arm}: {load}: {level.achieved_rps:.0f} req/s, p99 {p99}{errors}"
