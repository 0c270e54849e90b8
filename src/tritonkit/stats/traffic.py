"""What a model did between looks at its statistics, and what its config lets Triton do.

A look is what the statistics extension answers: one record for each version of a model that is
loaded. Its counters begin with the model's warm-up runs, and a request counts when it has ended.
Two things it does not count: requests that were refused because the queue was full, and runs of a
backend that does not report them. Measured on Triton 2.51.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from tritonkit.stats.scrape import read_counters

_ENOUGH_RUNS = 3

Record = Mapping[str, Any]
"""The statistics of one version of a model."""


class Look(NamedTuple):
    """at_ns: of one clock for all looks. records: of each loaded version."""

    at_ns: int
    records: Sequence[Record]


@dataclass(frozen=True)
class Batching:
    """What of a model's config decides over its batches.

    scheduler: "none" runs each request alone. preferred: batch sizes, if none is max_batch_size,
    which is what Triton fills in itself and holds nothing. max_queue_size: requests, 0 for no
    bound. timeout_us: after which a queued request is refused; 0 for never. instances: on all
    devices together. must_agree: inputs in which requests must be alike to share a run, as their
    shape is dynamic or they are optional. steps: of an ensemble, which runs nothing itself.
    """

    max_batch_size: int
    scheduler: Literal["none", "dynamic", "sequence"]
    delay_us: int = 0
    preferred: tuple[int, ...] = ()
    max_queue_size: int = 0
    timeout_us: int = 0
    instances: int = 1
    must_agree: tuple[str, ...] = ()
    response_cache: bool = False
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What one version of a model did while it was watched.

    watched_s: from the first look to the last. traffic_s: the part of it between the first request
    and the last; rates and numbers in flight are of that part. requests: answered well, cache_hits
    of them from the response cache. failures: the others that were answered. rows: that were run.
    runs: executions of the model. batches: rows of a run → runs. run_ms: rows of a run → mean time
    of such a run. queue_ms, server_ms, failed_ms: mean of a request: waiting for its run,
    altogether, and altogether of those that failed. in_flight: requests in the server at
    once, in the mean: by Little's law the rate times the time of each. waiting: those of them that
    wait for a run. running: instances that run at once. busy: the share of all instances' time.
    None: nothing to take it from.
    """

    watched_s: float
    traffic_s: float
    requests: int
    failures: int
    cache_hits: int
    rows: int
    runs: int
    batches: Mapping[int, int] = field(default_factory=dict)
    run_ms: Mapping[int, float] = field(default_factory=dict)
    queue_ms: float | None = None
    server_ms: float | None = None
    failed_ms: float | None = None
    in_flight: float = 0.0
    waiting: float = 0.0
    running: float = 0.0
    busy: float = 0.0

    @property
    def rate_rps(self) -> float:
        """Requests a second, failed ones too."""
        return (self.requests + self.failures) / self.traffic_s if self.traffic_s else 0.0

    @property
    def rows_per_request(self) -> float:
        """Of those that were run; 1 if none was."""
        return self.rows / self._run_requests if self._run_requests and self.rows else 1.0

    @property
    def mean_batch(self) -> float | None:
        """Rows of a run."""
        return self.rows / self.runs if self.runs else None

    @property
    def requests_per_run(self) -> float | None:
        """How many requests share a run; 1 is no batching by the server."""
        return max(1.0, self._run_requests / self.runs) if self.runs else None

    @property
    def usual_company(self) -> float | None:
        """Requests in the run of a request, in the mean over requests: a few large runs count for
        more than the many small ones around them."""
        rows = sum(rows * n for rows, n in self.batches.items())
        squares = sum(rows * rows * n for rows, n in self.batches.items())
        return max(1.0, squares / rows / self.rows_per_request) if rows else None

    @property
    def mean_run_ms(self) -> float | None:
        """Of all sizes."""
        runs = sum(self.batches.values())
        spent = sum(n * self.run_ms[rows] for rows, n in self.batches.items())
        return spent / runs if runs else None

    @property
    def row_ms(self) -> dict[int, float]:
        """Rows of a run → what one of them costs."""
        return {rows: ms / rows for rows, ms in self.run_ms.items()}

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        derived = ("rate_rps", "rows_per_request", "mean_batch", "requests_per_run", "row_ms")
        return asdict(self) | {name: getattr(self, name) for name in derived}

    @property
    def _run_requests(self) -> int:
        return max(0, self.requests - self.cache_hits)


class RowGain(NamedTuple):
    """What a row costs in the smallest runs, of `alone` rows, and in runs of twice that or more."""

    alone: int
    alone_ms: float
    shared_ms: float

    @property
    def ratio(self) -> float:
        """How many times cheaper; infinite where a run took no time that could be measured."""
        return self.alone_ms / self.shared_ms if self.shared_ms else math.inf


def row_gain(traffic: Traffic) -> RowGain | None:
    """None unless there were runs of sizes that can be compared, a few of each."""
    sizes = sorted(rows for rows, n in traffic.batches.items() if n >= _ENOUGH_RUNS)
    if not sizes:
        return None
    large = {rows: n for rows, n in traffic.batches.items() if rows >= 2 * sizes[0]}
    if sum(large.values()) < _ENOUGH_RUNS:
        return None
    spent_ms = sum(n * traffic.run_ms[rows] for rows, n in large.items())
    shared_ms = spent_ms / sum(rows * n for rows, n in large.items())
    return RowGain(sizes[0], traffic.row_ms[sizes[0]], shared_ms)


def read_batching(config: Mapping[str, Any]) -> Batching:
    """What a config, as the server answers it, says of batching."""
    dynamic, sequence = config.get("dynamic_batching"), config.get("sequence_batching")
    # Of the two strategies only `oldest` forms batches of a queue as the dynamic batcher does.
    rules = dynamic if dynamic is not None else (sequence or {}).get("oldest") or {}
    most = int(config.get("max_batch_size", 0))
    policy = rules.get("default_queue_policy") or {}
    preferred = {int(size) for size in rules.get("preferred_batch_size", ())}
    rejects = policy.get("timeout_action", "REJECT") in ("REJECT", 0)
    return Batching(
        max_batch_size=most,
        scheduler="dynamic" if dynamic is not None else "sequence" if sequence else "none",
        delay_us=int(rules.get("max_queue_delay_microseconds", 0)),
        preferred=tuple(sorted(preferred - {most})) if most not in preferred else (),
        max_queue_size=int(policy.get("max_queue_size", 0)),
        timeout_us=int(policy.get("default_timeout_microseconds", 0)) if rejects else 0,
        instances=sum(map(_instances, config.get("instance_group", ()))) or 1,
        must_agree=tuple(_must_agree(config)),
        response_cache=bool((config.get("response_cache") or {}).get("enable", False)),
        steps=tuple(
            str(step["model_name"])
            for step in (config.get("ensemble_scheduling") or {}).get("step", ())
        ),
    )


def _instances(group: Mapping[str, Any]) -> int:
    return (int(group.get("count", 0)) or 1) * (len(group.get("gpus", ())) or 1)


def _must_agree(config: Mapping[str, Any]) -> Iterator[str]:
    """Source: core, src/dynamic_batch_scheduler.cc and scheduler_utils.cc."""
    for tensor in config.get("input", ()):
        dynamic = any(int(dim) < 0 for dim in tensor.get("dims", ()))
        loose = tensor.get("allow_ragged_batch", False)
        if (dynamic and not loose) or tensor.get("optional") or tensor.get("is_shape_tensor"):
            yield str(tensor["name"])


def versions(looks: Sequence[Look]) -> list[str]:
    """The versions that did something while watched, the busiest first; all if none did."""
    done = _done(looks)
    active = {version: n for version, n in done.items() if n > 0} or done
    return sorted(active, key=lambda version: (-active[version], version))


def has_traffic(looks: Sequence[Look]) -> bool:
    """Whether any request ended between the looks."""
    return any(_done(looks).values())


def _done(looks: Sequence[Look]) -> dict[str, int]:
    first, last = looks[0].records, looks[-1].records
    return {r["version"]: _ended(r) - _ended(_of(first, r["version"])) for r in last}


def went_backwards(looks: Sequence[Look]) -> bool:
    """Whether a counter was lower than before, or a version went: they began anew."""
    for earlier, later in pairwise(looks):
        for record in earlier.records:
            after = _of(later.records, record["version"])
            before = read_counters(record)
            since = read_counters(after).since(before)
            counts = (since.requests, since.inferences, since.executions, *since.batches.values())
            if min(counts) < 0 or _ended(after) < _ended(record):
                return True
    return False


def read_traffic(looks: Sequence[Look], version: str, instances: int) -> Traffic:
    """What the version did between the first look and the last."""
    records = [_of(look.records, version) for look in looks]
    begun, ended = _with_traffic(records)
    traffic_ns = looks[ended].at_ns - looks[begun].at_ns
    counted = read_counters(records[-1]).since(read_counters(records[0]))
    in_server_ns = counted.success_ns + counted.failed_ns
    spent_ns = sum(counted.run_ns.values())
    return Traffic(
        watched_s=(looks[-1].at_ns - looks[0].at_ns) / 1e9,
        traffic_s=traffic_ns / 1e9,
        requests=counted.requests,
        failures=counted.failures,
        cache_hits=counted.cache_hits,
        rows=counted.inferences,
        runs=counted.executions,
        batches=counted.batches,
        run_ms={rows: counted.run_ns.get(rows, 0) / n / 1e6 for rows, n in counted.batches.items()},
        queue_ms=_mean_ms(counted.queue_ns, counted.requests),
        server_ms=_mean_ms(counted.success_ns, counted.requests),
        failed_ms=_mean_ms(counted.failed_ns, counted.failures),
        in_flight=in_server_ns / traffic_ns if traffic_ns else 0.0,
        waiting=counted.queue_ns / traffic_ns if traffic_ns else 0.0,
        running=spent_ns / traffic_ns if traffic_ns else 0.0,
        busy=min(1.0, spent_ns / traffic_ns / instances) if traffic_ns else 0.0,
    )


def _mean_ms(total_ns: int, count: int) -> float | None:
    return total_ns / count / 1e6 if count else None


def _with_traffic(records: Sequence[Record]) -> tuple[int, int]:
    """The looks before the first request ended, and after the last had."""
    ended = [_ended(record) for record in records]
    begun = max((i for i, n in enumerate(ended) if n == ended[0]), default=0)
    over = min((i for i, n in enumerate(ended) if n == ended[-1]), default=0)
    return (begun, over) if begun < over else (0, len(ended) - 1)


def _ended(record: Record) -> int:
    """Requests that ended, well or not."""
    stats = record.get("inference_stats", {})
    return sum(int(stats.get(name, {}).get("count", 0)) for name in ("success", "fail"))


def _of(records: Sequence[Record], version: str) -> Record:
    return next((record for record in records if record["version"] == version), {})
