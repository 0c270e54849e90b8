"""The service curve of a packaged model, measured on one embedded Triton."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from tritonkit.bench.machine import describe_machine
from tritonkit.bench.subject import Subject
from tritonkit.plan.settings import Settings, lane_words
from tritonkit.planning.variants import variants
from tritonkit.profile.curve import Lane, ServiceCurve
from tritonkit.profile.sweep import kinds, measure_lane
from tritonkit.repository.config import DynamicBatching
from tritonkit.samples import Sample
from tritonkit.verification import file_sha256

UNTIL = 1.5
"""A lane's closed loops grow until a request takes so many times the budget: larger batches could
not be used.
"""


def profile(
    repository: Path,
    subject: Subject,
    max_rows: int,
    slo_p99_ms: float,
    log: Path,
    tell: Callable[[str], None],
) -> ServiceCurve:
    """Measure all lanes, one after the other, on one server."""
    wanted = lanes(len(subject.cpus.server))
    plain = [Settings(max_rows, None, i, t) for t, i in wanted]
    batched = [Settings(max_rows, DynamicBatching(), i, t) for t, i in wanted]
    found: list[Lane] = []
    alone: list[Sample] = []
    with variants(repository, subject, [*plain, *batched], log) as targets:
        for (threads, instances), one, many in zip(wanted, plain, batched, strict=True):
            lane, samples = measure_lane(
                targets[one],
                targets[many],
                threads,
                instances,
                max_rows=max_rows,
                until_s=UNTIL * slo_p99_ms / 1e3,
            )
            found.append(lane)
            alone.extend(samples)
            best = max(lane.batched, key=lambda p: p.mean_rows)
            tell(
                f"{lane_words(threads, instances)}: a run takes "
                f"{lane.plain[0].mean_run_s * 1e3:.2f} ms, of {best.mean_rows:.0f} rows "
                f"{best.mean_run_s * 1e3:.2f} ms"
            )
    of_requests, kind_of = kinds(alone, subject.requests)
    return ServiceCurve(
        model=subject.config.name,
        model_sha256=file_sha256(subject.file),
        machine=describe_machine(),
        kit_version=version("tritonkit"),
        max_rows=max_rows,
        kinds=of_requests,
        kind_of=kind_of,
        lanes=tuple(found),
    )


def lanes(cpus: int) -> Sequence[tuple[int, int]]:
    """(threads, instances) that use all CPUs or one thread: all threads for one run, a thread for
    each of many, halves and quarters; and for each number of threads one instance, which shows
    what instances cost each other.
    """
    threads = sorted({cpus, max(1, cpus // 2), max(1, cpus // 4), 1}, reverse=True)
    pairs = [pair for t in threads for pair in ((t, 1), (t, cpus // t))]
    return list(dict.fromkeys(pairs))
