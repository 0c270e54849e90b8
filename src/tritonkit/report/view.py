"""The view model: everything the page and the terminal show, as text and as series to draw.

Pure: a result in, frozen values out; no HTML and no drawing. Where the result leaves something
out, the view says so with a dash, because half a report is worth more than a traceback.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonkit.report import formats as f
from tritonkit.report import prose


@dataclass(frozen=True)
class Point:
    """One level in the throughput-latency plane."""

    achieved_rps: float
    p99_ms: float
    counts: bool
    """False where there were errors: its percentiles leave out the requests that failed."""
    is_capacity: bool
    again: bool
    """The deciding level, measured once more: no part of the arm's curve."""


@dataclass(frozen=True)
class LevelView:
    """One row of the levels table, as text; `point` is None where nothing was answered."""

    loop: str
    offered: str
    achieved: str
    p50: str
    p90: str
    p99: str
    max: str
    requests: str
    errors: str
    mean_batch: str
    lateness: str
    over_budget: bool
    has_errors: bool
    is_capacity: bool
    marks: tuple[str, ...]
    """What the level is worth, in words; never empty, so that no mark is colour alone."""
    asides: tuple[str, ...]
    """What else to know about it, without alarm."""
    point: Point | None


@dataclass(frozen=True)
class TuningView:
    """One thread and instance setting that was tried before the levels ran."""

    threads: str
    instances: str
    achieved: str
    p99: str
    chosen: bool


@dataclass(frozen=True)
class CertificateView:
    """What the arm was proved to be while it was measured."""

    facts: tuple[tuple[str, str], ...]
    statements: tuple[str, ...]
    tuning: tuple[TuningView, ...]
    parallel: str
    """What `instances` are for this arm: instances, or one session's runs at a time."""
    config_json: str


@dataclass(frozen=True)
class ArmView:
    """One way of serving the model."""

    key: str
    label: str
    short: str
    chosen: bool
    capacity: str
    capacity_rps: float
    versus_baseline: str
    share: str
    """Capacity as a share of the best in-process ceiling."""
    generator_bound: bool
    """The capacity may be the load generator's: the arm could do better."""
    p50: str
    p99: str
    mean_batch: str
    threads: str
    instances: str
    setup: str
    """Threads and instances in words."""
    levels: tuple[LevelView, ...]
    histogram: tuple[tuple[int, int], ...]
    """(batch size in rows, executions), ascending."""
    histogram_caption: str
    certificate: CertificateView


@dataclass(frozen=True)
class CeilingView:
    """What ONNX Runtime reaches with no server at all, in inferences (rows) per second."""

    batch1_ips: float | None
    best_ips: float | None
    batch1: str
    best: str
    best_at: str
    summary: str
    above: bool
    """Some arm exceeds the ceiling, as only noise can make it."""
    curves: tuple[tuple[str, tuple[tuple[int, float], ...]], ...]
    """(threads × sessions in words, ((batch, inferences/s), ...)), both ascending."""


@dataclass(frozen=True)
class ReportView:
    """The whole report."""

    model: str
    headline: str
    because: str
    settings: str
    created: str
    kit_version: str
    slo_p99_ms: float | None
    budget: str
    needed: str
    """The rate the user must sustain; empty where none was given."""
    ceiling: CeilingView
    arms: tuple[ArmView, ...]
    method: prose.Method


@dataclass(frozen=True)
class _Scale:
    """How many decimals this result's rates and times get, so that every column aligns."""

    slo_p99_ms: float | None
    rps_decimals: int
    ms_decimals: int


def build_view(result: Mapping[str, Any]) -> ReportView:
    """The view of one `result.json` (schema 1). Unknown keys are ignored, missing ones dashed."""
    arms = [f.mapping(a) for a in f.listed(result.get("arms"))]
    verdict = f.mapping(result.get("verdict"))
    model = f.text(result.get("model"))
    choice = f.text(verdict.get("choice"))
    slo = f.number(result.get("slo_p99_ms"))
    rates = [f.number(f.mapping(v).get("achieved_rps")) or 0.0 for a in arms for v in _levels(a)]
    scale = _Scale(slo, 0 if max(rates, default=0.0) >= 1000 else 1, 1 if (slo or 50) >= 10 else 2)
    base = next((_capacity(a) for a in arms if a.get("name") == prose.BASELINE), 0.0)
    needed = f.number(result.get("rate_rps"))
    return ReportView(
        model=model,
        headline=prose.headline(choice, model, needed),
        because=f.text(verdict.get("because")),
        settings=prose.settings(f.mapping(verdict.get("settings")), choice),
        created=f.moment(f.text(result.get("created_at"))),
        kit_version=f.text(result.get("kit_version")),
        slo_p99_ms=slo,
        budget=f"{f.compact(slo)} ms",
        needed="" if needed is None else f"{f.compact(needed)} requests/s",
        ceiling=_ceiling(f.mapping(result.get("ceiling")), max(map(_capacity, arms), default=0.0)),
        arms=tuple(_arm(a, choice, base, scale) for a in arms),
        method=prose.method(
            f.mapping(result.get("method")), f.mapping(result.get("machine")), needed
        ),
    )


def _levels(arm: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Closed loop first, then open loop, each by rising load; a repeat after its first run."""

    def place(level: Mapping[str, Any]) -> tuple[bool, float, bool]:
        offered = f.number(level.get("offered")) or 0.0
        return level.get("mode") == "open", offered, bool(level.get("repeat"))

    return sorted((f.mapping(v) for v in f.listed(arm.get("levels"))), key=place)


def _capacity(arm: Mapping[str, Any]) -> float:
    return f.number(arm.get("capacity_rps")) or 0.0


def _errors(level: Mapping[str, Any]) -> float:
    return f.number(level.get("errors")) or 0.0


def _capacity_level(arm: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The level the arm's capacity was read from, or None where no level holds the budget."""
    capacity = _capacity(arm)
    sound = (v for v in _levels(arm) if v.get("holds_slo") and not _errors(v))
    return next((v for v in sound if capacity and v.get("achieved_rps") == capacity), None)


def _arm(arm: Mapping[str, Any], choice: str, base: float, scale: _Scale) -> ArmView:
    key = f.text(arm.get("name"))
    certificate = f.mapping(arm.get("certificate"))
    capacity = _capacity(arm)
    at_capacity = _capacity_level(arm)
    at: Mapping[str, Any] = at_capacity or {}
    histogram = _histogram(certificate)
    return ArmView(
        key=key,
        label=prose.ARM_LABELS.get(key, key),
        short=prose.ARM_SHORT_LABELS.get(key, key),
        chosen=key == choice,
        capacity=f.fixed(capacity, scale.rps_decimals) if capacity else "0",
        capacity_rps=capacity,
        versus_baseline=f.ratio(capacity / base if base > 0 else None),
        share=f.percent(arm.get("share_of_ceiling")),
        generator_bound=bool(at.get("generator_bound")),
        p50=f.fixed(at.get("p50_ms"), scale.ms_decimals),
        p99=f.fixed(at.get("p99_ms"), scale.ms_decimals),
        mean_batch=f.fixed(at.get("mean_batch"), 1),
        threads=f.count(certificate.get("threads")),
        instances=f.count(certificate.get("instances")),
        setup=prose.settings({k: certificate.get(k) for k in ("threads", "instances")}, key),
        levels=tuple(_level(v, v is at_capacity, scale) for v in _levels(arm)),
        histogram=histogram,
        histogram_caption=prose.histogram_caption(histogram),
        certificate=_certificate(arm, certificate, scale),
    )


def _level(level: Mapping[str, Any], is_capacity: bool, scale: _Scale) -> LevelView:
    p99 = f.number(level.get("p99_ms"))
    achieved = f.number(level.get("achieved_rps"))
    over = p99 is not None and scale.slo_p99_ms is not None and p99 > scale.slo_p99_ms
    failed = _errors(level) > 0
    point = None
    if p99 is not None and achieved is not None:
        point = Point(achieved, p99, not failed, is_capacity, bool(level.get("repeat")))

    def ms(key: str) -> str:
        return f.fixed(level.get(key), scale.ms_decimals)

    return LevelView(
        loop=f.text(level.get("mode")),
        offered=prose.offered(level),
        achieved=f.fixed(achieved, scale.rps_decimals),
        p50=ms("p50_ms"),
        p90=ms("p90_ms"),
        p99=ms("p99_ms"),
        max=ms("max_ms"),
        requests=f.count(level.get("requests")),
        errors=f.count(level.get("errors")),
        mean_batch=f.fixed(level.get("mean_batch"), 1),
        lateness=ms("lateness_p99_ms"),
        over_budget=over,
        has_errors=failed,
        is_capacity=is_capacity,
        marks=prose.marks(level, over, is_capacity),
        asides=prose.asides(level),
        point=point,
    )


def _histogram(certificate: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    pairs = []
    for size, executions in f.mapping(certificate.get("batch_histogram")).items():
        n = f.number(executions)
        if str(size).isdecimal() and n:
            pairs.append((int(size), int(n)))
    return tuple(sorted(pairs))


def _certificate(
    arm: Mapping[str, Any], certificate: Mapping[str, Any], scale: _Scale
) -> CertificateView:
    config = f.mapping(certificate.get("effective_config"))
    tuning = [f.mapping(t) for t in f.listed(arm.get("tuning"))]
    parallel = "Runs at a time" if arm.get("name") == prose.BASELINE else "Instances"
    return CertificateView(
        facts=(
            ("ONNX Runtime", f.text(certificate.get("ort_version"))),
            ("Threads", f.count(certificate.get("threads"))),
            (parallel, f.count(certificate.get("instances"))),
            ("CPUs", f.cpu_list(certificate.get("cpu_set"))),
            ("Requests", f.count(certificate.get("requests"))),
            ("Executions", f.count(certificate.get("executions"))),
            ("Mean batch", f.counted_rows(certificate.get("mean_batch"))),
        ),
        statements=tuple(str(s) for s in f.listed(certificate.get("statements"))),
        tuning=tuple(
            TuningView(
                threads=f.count(t.get("threads")),
                instances=f.count(t.get("instances")),
                achieved=f.fixed(t.get("achieved_rps"), scale.rps_decimals),
                p99=f.fixed(t.get("p99_ms"), scale.ms_decimals),
                chosen=bool(t.get("chosen")),
            )
            for t in tuning
        ),
        parallel=parallel,
        config_json=json.dumps(config, indent=2, ensure_ascii=False, default=str) if config else "",
    )


def _ceiling(ceiling: Mapping[str, Any], max_capacity: float) -> CeilingView:
    best, batch1 = f.number(ceiling.get("best_ips")), f.number(ceiling.get("batch1_ips"))
    curves: dict[tuple[int, int], dict[int, float]] = {}
    for point in map(f.mapping, f.listed(ceiling.get("points"))):
        threads, batch, ips = (f.number(point.get(k)) for k in ("threads", "batch", "ips"))
        if threads is not None and batch is not None and batch > 0 and ips is not None:
            sessions = int(f.number(point.get("instances")) or 1)
            curves.setdefault((int(threads), sessions), {})[int(batch)] = ips
    best_setup = prose.side_by_side(ceiling.get("best_threads"), ceiling.get("best_instances"))
    return CeilingView(
        batch1_ips=batch1,
        best_ips=best,
        batch1=f.compact(batch1),
        best=f.compact(best),
        best_at=f"batch {f.count(ceiling.get('best_batch'))}, {best_setup}",
        summary=prose.ceiling(ceiling),
        above=best is not None and max_capacity > best,
        curves=tuple(
            (prose.side_by_side(*setup), tuple(sorted(curves[setup].items())))
            for setup in sorted(curves)
        ),
    )
