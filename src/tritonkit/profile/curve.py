"""ServiceCurve: how long a model's runs take on one machine, as measured. `curve.json` holds it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tritonkit.errors import InputError

SCHEMA = 1
CURVE = "curve.json"


@dataclass(frozen=True)
class Runs:
    """Runs of one size: how many there were, and what they took in the mean, copying included."""

    rows: int
    count: int
    mean_s: float


@dataclass(frozen=True)
class Point:
    """One level of load on one lane, in means.

    offered: users (closed) or requests a second (open). took_s: from its first request to its last
    answer. latency_s, queue_s, run_s: of a request, as the client saw it from the real send, in
    Triton's queue, and in its run. runs: by their size, ascending.
    """

    mode: Literal["closed", "open"]
    offered: float
    took_s: float
    latency_s: float
    queue_s: float
    run_s: float
    runs: tuple[Runs, ...]

    @property
    def around_s(self) -> float:
        """Of a request: what neither the queue nor the run took. Below 0 only by noise."""
        return self.latency_s - self.queue_s - self.run_s

    @property
    def executions(self) -> int:
        """How many runs there were."""
        return sum(runs.count for runs in self.runs)

    @property
    def mean_run_s(self) -> float:
        """Of a run, where `run_s` is of a request: large runs count for more requests there."""
        return sum(runs.count * runs.mean_s for runs in self.runs) / self.executions

    @property
    def mean_rows(self) -> float:
        """Of a run."""
        return sum(runs.count * runs.rows for runs in self.runs) / self.executions


@dataclass(frozen=True)
class Lane:
    """A model with so many threads for each of so many instances.

    plain: without a scheduler, each request a run of its own. batched: with batches as large as
    they get and no delay, from one user upwards. alone: latencies of single requests on the idle
    server, each relative to the mean of its kind: how much a run scatters.
    """

    threads: int
    instances: int
    plain: tuple[Point, ...]
    batched: tuple[Point, ...]
    alone: tuple[float, ...]


@dataclass(frozen=True)
class Kind:
    """Requests of one shape. elements: of their inputs. cost: what a run of one takes, relative to
    the mean over all requests.
    """

    elements: int
    cost: float


@dataclass(frozen=True)
class ServiceCurve:
    """What was measured, and of what.

    model_sha256: of the model's file. machine: as `machine.describe_machine` has it. max_rows: the
    most that a run may have. kinds: of requests; requests of different kinds share no run.
    kind_of: of each of the model's payloads, as an index into kinds.
    """

    model: str
    model_sha256: str
    machine: Mapping[str, Any]
    kit_version: str
    max_rows: int
    kinds: tuple[Kind, ...]
    kind_of: tuple[int, ...]
    lanes: tuple[Lane, ...]

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        work = path.with_name(f".{path.name}.part")
        try:
            work.write_text(json.dumps({"schema": SCHEMA, **asdict(self)}, allow_nan=False))
            work.replace(path)
        finally:
            work.unlink(missing_ok=True)

    def require(self, path: Path, model_sha256: str, machine: Mapping[str, Any]) -> None:
        """InputError unless it is of this model's file and of this machine."""
        if self.model_sha256 != model_sha256:
            raise InputError(
                f"{path} is the curve of another model file ('{self.model}'); leave out --curve "
                "to measure this one"
            )
        for what in ("cpu_model", "cpus"):
            if self.machine.get(what) != machine.get(what):
                raise InputError(
                    f"{path} was measured on another machine ({what} {self.machine.get(what)}, "
                    f"here {machine.get(what)}); leave out --curve to measure this one"
                )


def read_curve(path: Path) -> ServiceCurve:
    """What `ServiceCurve.write` wrote. InputError for anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is no curve.json; give one that tritonkit plan wrote") from error
    try:
        if document.pop("schema") != SCHEMA:
            raise InputError(f"{path} is of another version of the kit; measure it again")
        kinds = tuple(Kind(**kind) for kind in document.pop("kinds"))
        lanes = tuple(_lane(lane) for lane in document.pop("lanes"))
        kind_of = tuple(int(kind) for kind in document.pop("kind_of"))
        curve = ServiceCurve(**document, kinds=kinds, kind_of=kind_of, lanes=lanes)
        for wrong in _wrong(curve):
            raise ValueError(wrong)
        return curve
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} is no whole curve.json ({error}); measure it again with tritonkit plan"
        ) from error


def _wrong(curve: ServiceCurve) -> Iterator[str]:
    """What a file that was cut or changed by hand may say, and a measured curve does not."""
    if not isinstance(curve.model, str) or not isinstance(curve.machine, Mapping):
        yield "its model or machine is none"
    if type(curve.max_rows) is not int or curve.max_rows < 1:
        yield f"max_rows is {curve.max_rows}"
    if not (curve.kind_of and curve.lanes):
        yield "it has no measurements"
    if not set(curve.kind_of) <= set(range(len(curve.kinds))):
        yield "a payload is of no kind"
    for lane in curve.lanes:
        points = (*lane.plain, *lane.batched)
        runs = [run for point in points for run in point.runs]
        if not (lane.plain and lane.batched and lane.alone and all(p.runs for p in points)):
            yield "a lane has no measurements"
        if min(lane.threads, lane.instances) < 1:
            yield "a lane has no threads or no instances"
        if not all(1 <= run.rows <= curve.max_rows and run.count >= 1 for run in runs):
            yield f"it has runs of other sizes than 1 to {curve.max_rows} rows"
        times = [point.took_s for point in points] + [run.mean_s for run in runs]
        if not all(math.isfinite(x) and x > 0 for x in (*times, *lane.alone)):
            yield "it has times that are not above 0"
        others = [x for p in points for x in (p.latency_s, p.queue_s, p.run_s)]
        if not all(math.isfinite(x) and x >= 0 for x in others):
            yield "it has times below 0"
    if not all(math.isfinite(kind.cost) and kind.cost > 0 for kind in curve.kinds):
        yield "a kind of request costs nothing"


def _lane(lane: Mapping[str, Any]) -> Lane:
    return Lane(
        int(lane["threads"]),
        int(lane["instances"]),
        tuple(map(_point, lane["plain"])),
        tuple(map(_point, lane["batched"])),
        tuple(map(float, lane["alone"])),
    )


def _point(point: Mapping[str, Any]) -> Point:
    return Point(**{**point, "runs": tuple(Runs(**runs) for runs in point["runs"])})
