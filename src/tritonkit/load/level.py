"""One level of load on a live server: run it, and record it with what the server counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from tritonkit.client.client import Client
from tritonkit.client.transport import InferRequest
from tritonkit.errors import RequestError
from tritonkit.load.arrivals import require_payloads
from tritonkit.samples import Sample
from tritonkit.stats.latency import LevelStats, summarise
from tritonkit.stats.scrape import ServerCounters, read_counters
from tritonkit.stats.split import TimeSplit, split
from tritonkit.stats.steady import got_better

if TYPE_CHECKING:  # importing it patches the process for gevent
    from tritonkit.load.runner import Level

Purpose = Literal["load", "curve", "search", "rate", "overload", "soak"]

LATE_MS = 1.0
LATE_SHARE = 0.05
BUSY = 0.9


@dataclass(frozen=True, kw_only=True)
class LevelRecord(LevelStats):
    """One level of load. offered: users (closed) or requests per second (open, the mean).

    generator_bound: the generator may be what was measured, because it sent late or used a whole
    core; such a level decides nothing. holds_slo: None without a budget, and of a level that was
    cut. purpose: why it was run, in a comparison; round: in which of its rounds, from 1. samples:
    its file, relative to the result; "" if there is none.
    """

    mode: Literal["closed", "open"]
    offered: float
    arrivals: str
    seed: int
    generator_cpu: float
    generator_bound: bool
    mean_batch: float | None
    time_split: TimeSplit | None
    holds_slo: bool | None
    purpose: Purpose = "load"
    round: int = 0
    samples: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        return asdict(self)


@dataclass(frozen=True)
class Measured:
    """A level as it was: its record, every request, and what the server counted meanwhile.

    first_in_line: whether the generator ran ahead of the machine's other processes.
    """

    record: LevelRecord
    samples: Sequence[Sample]
    counters: ServerCounters
    first_in_line: bool


class LevelCut(Exception):
    """A level that ended early. measured: until then. reason: what is to be raised about it."""

    def __init__(self, measured: Measured, reason: BaseException):
        super().__init__(str(reason))
        self.measured = measured
        self.reason = reason


def measure_level(
    address: str,
    client: Client,
    model: str,
    requests: Sequence[InferRequest],
    level: Level,
    *,
    slo_p99_ms: float | None = None,
    purpose: Purpose = "load",
    round: int = 0,
    **how: Any,
) -> Measured:
    """Load the server at `address`, which `client` asks for its counters before and after.

    how: as for `runner.run_level`. LevelCut on Ctrl-C, or if a process of the generator is lost.
    InputError, before anything is sent, for a level that makes no sense.
    """
    from tritonkit.load.runner import GeneratorError, LevelInterrupted, run_level

    if level.mode == "open":
        require_payloads(level.arrivals, len(requests))
    before = model_counters(client, model)
    cut: LevelInterrupted | GeneratorError | None = None
    try:
        run = run_level(address, requests, level, **how)
    except (LevelInterrupted, GeneratorError) as early:
        run, cut = early.run, early
    counted = _counted_since(before, client, model)
    is_open = level.mode == "open"
    stationary = not is_open or level.arrivals.stationary
    duration_s = level.duration_s if cut is None else _length_s(run.samples, level.duration_s)
    stats = summarise(
        run.samples,
        duration_s=duration_s,
        open_loop=is_open,
        stationary=stationary,
    )
    record = LevelRecord(
        **vars(stats),
        mode=level.mode,
        offered=level.offered,
        arrivals=level.arrivals.name if is_open else "",
        seed=level.seed,
        generator_cpu=run.generator_cpu,
        generator_bound=generator_bound(stats, run.generator_cpu, slo_p99_ms),
        mean_batch=counted.mean_batch,
        time_split=split(run.samples, counted),
        holds_slo=holds_budget(stats, slo_p99_ms, stationary) if slo_p99_ms and not cut else None,
        purpose=purpose,
        round=round,
    )
    measured = Measured(record, run.samples, counted, run.first_in_line)
    if cut is not None:
        raise LevelCut(measured, cut)
    return measured


def model_counters(client: Client, model: str) -> ServerCounters:
    """What the server has counted for the model up to now, in the version that answers."""
    return read_counters(client.statistics(model)[-1])


def _counted_since(before: ServerCounters, client: Client, model: str) -> ServerCounters:
    """Nothing if the server does not answer any more, or was started anew: that is no reason to
    lose what was measured.
    """
    try:
        counted = model_counters(client, model).since(before)
    except RequestError:
        return before.since(before)
    return counted if counted.requests >= 0 else before.since(before)


def _length_s(samples: Sequence[Sample], duration_s: float) -> float:
    """Of a level that was cut: until its last request was over or given up."""
    last_ns = max((s.done_ns for s in samples), default=0)
    return min(duration_s, last_ns / 1e9) if last_ns > 0 else duration_s


def holds_budget(stats: LevelStats, slo_p99_ms: float, stationary: bool = True) -> bool:
    """No errors, p99 within the budget, and nothing that gets worse: it would break it later.
    stationary: where the load changes on purpose so does the latency, and that says nothing.

    In an open loop latency counts from the intended start, so a server that falls behind the
    rate cannot hold a p99 for longer than the budget itself.
    """
    within = stats.p99_ms is not None and stats.p99_ms <= slo_p99_ms
    stays = stats.steady or not stationary or got_better(stats.unsteady_because)
    return stats.errors == 0 and within and stays


def generator_bound(
    stats: LevelStats, generator_cpu: float, slo_p99_ms: float | None = None
) -> bool:
    """Whether the generator may be what was measured: it used a whole core, or the p99 of its
    lateness is above 1 ms and above 5 % of the latency's, or of the budget if that is less. By its
    latency alone a level that fails would count, and one that holds and was as late would not.
    """
    p99_ms = stats.p99_ms or 0.0
    if slo_p99_ms:
        p99_ms = min(stats.p99_ms or slo_p99_ms, slo_p99_ms)  # nothing answered: it fails
    late_ms = stats.lateness_p99_ms or 0.0
    return late_ms > max(LATE_MS, LATE_SHARE * p99_ms) or generator_cpu > BUSY
