"""The view model: everything the page and the terminal show, as text and as series to draw.

Pure: a result in, frozen values out; no HTML and no drawing. Where the result leaves something
out, the view says so with a dash, because half a report is worth more than a traceback.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonkit.report import formats as f
from tritonkit.report import prose
from tritonkit.report.decisions import (
    DemandView,
    OverloadView,
    RatioView,
    between,
    demand_view,
    overload_views,
    ratio_views,
)
from tritonkit.report.levels import LevelView, Scale, below_capacity, level_view, ordered
from tritonkit.report.method import Method, method
from tritonkit.report.reservations import reservations
from tritonkit.report.soak import SoakView, soak_view
from tritonkit.report.times import Times, times
from tritonkit.stats.disturbance import disturbance


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
    """`not known` where the generator was the limit of every level."""
    capacity_rps: float | None
    low_rps: float | None
    high_rps: float | None
    capacity_span: str
    capacity_note: str
    """The interval in words, or why there is none."""
    counted_levels: str
    versus_words: str
    """Its ratio to the single session with its interval; empty where there is none."""
    share: str
    """Capacity as a share of the best in-process ceiling."""
    p50: str
    p99: str
    p99_at: str
    """The rate of the level that p50, p99 and mean batch are of: it held nearest below capacity."""
    mean_batch: str
    setup: str
    """Threads and instances in words."""
    threads: str
    instances: str
    lacks: tuple[str, ...]
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
    against: str
    """The ratio that the choice rests on, with its interval; empty where there is none."""
    because: str
    settings: str
    created: str
    kit_version: str
    slo_p99_ms: float | None
    budget: str
    needed: str
    """The rate the user must sustain; empty where none was given."""
    cost_per_hour: str
    reservations: tuple[str, ...]
    ceiling: CeilingView
    arms: tuple[ArmView, ...]
    ratios: tuple[RatioView, ...]
    overloads: tuple[OverloadView, ...]
    times: tuple[Times, ...]
    demands: tuple[DemandView, ...]
    soak: SoakView | None
    method: Method


def build_view(result: Mapping[str, Any]) -> ReportView:
    """The view of one `result.json`. Unknown keys are ignored, missing ones dashed."""
    arms = [f.mapping(a) for a in f.listed(result.get("arms"))]
    verdict = f.mapping(result.get("verdict"))
    model = f.text(result.get("model"))
    choice = f.text(verdict.get("choice"))
    slo = f.number(result.get("slo_p99_ms"))
    runs = {i: ordered(a) for i, a in enumerate(arms)}
    rates = [f.number(v.get("achieved_rps")) or 0.0 for r in runs.values() for v in r]
    scale = Scale(slo, 0 if max(rates, default=0.0) >= 1000 else 1, 1 if (slo or 50) >= 10 else 2)
    needed = f.number(result.get("rate_rps"))
    cost = f.number(result.get("cost_per_hour"))
    ratios = ratio_views(result)
    most = max((_capacity(a) or 0.0 for a in arms), default=0.0)
    overloads = [
        overload_views(f.text(a.get("name")), runs[i], f.number(a.get("capacity_rps")), scale)
        for i, a in enumerate(arms)
    ]
    found = disturbance(
        {f.text(a.get("name")): [f.mapping(v) for v in f.listed(a.get("levels"))] for a in arms}
    )
    against_them = reservations(result)
    if found is not None and found.is_busy:
        against_them = (f"The machine was busy: {found.told}.", *against_them)
    return ReportView(
        model=model,
        headline=prose.headline(choice, model, needed, bool(f.listed(verdict.get("undecided")))),
        against=_against(choice, arms, ratios),
        because=f.text(verdict.get("because")),
        settings=prose.settings(f.mapping(verdict.get("settings")), choice),
        created=f.moment(f.text(result.get("created_at"))),
        kit_version=f.text(result.get("kit_version")),
        slo_p99_ms=slo,
        budget=f"{f.compact(slo)} ms",
        needed="" if needed is None else f"{f.compact(needed)} requests/s",
        cost_per_hour="" if cost is None else f.compact(cost),
        reservations=against_them,
        ceiling=_ceiling(f.mapping(result.get("ceiling")), most),
        arms=tuple(_arm(a, runs[i], choice, ratios, scale) for i, a in enumerate(arms)),
        ratios=ratios,
        overloads=tuple(view for views in overloads for view in views),
        times=times(
            [(f.text(a.get("name")), runs[i], _capacity(a)) for i, a in enumerate(arms)], scale
        ),
        demands=tuple(view for a in arms if (view := demand_view(a)) is not None),
        soak=soak_view(f.mapping(result.get("soak"))),
        method=method(
            f.mapping(result.get("method")), f.mapping(result.get("machine")), needed, found
        ),
    )


def _capacity(arm: Mapping[str, Any]) -> float | None:
    return f.number(arm.get("capacity_rps"))


def _against(choice: str, arms: Sequence[Mapping[str, Any]], ratios: Sequence[RatioView]) -> str:
    """The chosen arm's ratio to the best of the others, its strongest rival."""
    rivals = [a for a in arms if a.get("name") != choice and _capacity(a)]
    best = max(rivals, key=lambda a: _capacity(a) or 0.0, default=None)
    ratio = None if best is None else between(ratios, choice, f.text(best.get("name")))
    if ratio is None or ratio.value is None:
        return ""
    return prose.against(ratio.ratio, ratio.span, ratio.than, ratio.value < 1, ratio.says)


def _arm(
    arm: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    choice: str,
    ratios: Sequence[RatioView],
    scale: Scale,
) -> ArmView:
    key = f.text(arm.get("name"))
    certificate = f.mapping(arm.get("certificate"))
    capacity = _capacity(arm)
    ends = f.pair(arm.get("capacity_interval_rps")) or (None, None)
    span = f.span(arm.get("capacity_interval_rps"), scale.rps)
    near: Mapping[str, Any] = below_capacity(runs, capacity) or {}
    histogram = _histogram(certificate)
    base = between(ratios, key, prose.BASELINE)
    return ArmView(
        key=key,
        label=prose.arm_label(key),
        short=prose.arm_short(key),
        chosen=key == choice,
        capacity="not known" if capacity is None else scale.rps(capacity) if capacity else "0",
        capacity_rps=capacity,
        low_rps=ends[0],
        high_rps=ends[1],
        capacity_span=span,
        capacity_note=prose.capacity_note(capacity, span),
        counted_levels=f.count(arm.get("counted_levels")),
        versus_words="baseline" if key == prose.BASELINE else _versus(base),
        share=f.percent(arm.get("share_of_ceiling")),
        p50=scale.ms(near.get("p50_ms")),
        p99=scale.ms(near.get("p99_ms")),
        p99_at=prose.offered(near) if near else "",
        mean_batch=f.fixed(near.get("mean_batch"), 1),
        setup=prose.settings({k: certificate.get(k) for k in ("threads", "instances")}, key),
        threads=f.count(certificate.get("threads")),
        instances=f.count(certificate.get("instances")),
        lacks=tuple(f.text(x) for x in f.listed(arm.get("lacks"))),
        levels=tuple(level_view(v, scale) for v in runs),
        histogram=histogram,
        histogram_caption=prose.histogram_caption(histogram),
        certificate=_certificate(arm, certificate, scale),
    )


def _versus(ratio: RatioView | None) -> str:
    if ratio is None or ratio.value is None:
        return ""
    return prose.versus_baseline(ratio.ratio, ratio.span, ratio.says)


def _histogram(certificate: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    pairs = []
    for size, executions in f.mapping(certificate.get("batch_histogram")).items():
        n = f.number(executions)
        if n and str(size).isdecimal() and len(str(size)) < 10:
            pairs.append((int(size), int(n)))
    return tuple(sorted(pairs))


def _certificate(
    arm: Mapping[str, Any], certificate: Mapping[str, Any], scale: Scale
) -> CertificateView:
    config = f.mapping(certificate.get("effective_config"))
    tuning = [f.mapping(t) for t in f.listed(arm.get("tuning"))]
    one_session = arm.get("name") in (prose.BASELINE, prose.BATCHER)
    parallel = "Runs at a time" if one_session else "Instances"
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
                achieved=scale.rps(t.get("achieved_rps")),
                p99=scale.ms(t.get("p99_ms")),
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
