"""The view model of a plan: what the page and the terminal show of one `plan.json`.

Pure, like the comparison's: a document in, frozen values out. Where it leaves something out, or
was edited by hand, the view has a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tritonkit.report import formats as f
from tritonkit.report import plan_prose as words
from tritonkit.report import prose
from tritonkit.report.levels import LevelView, Scale, level_view, ordered, rate
from tritonkit.report.plan_figures import (
    ErrorView,
    NotchView,
    OutcomeView,
    betters,
    errors,
    measured_outcome,
    notch_view,
    off,
    outcome,
    p99s_ms,
    weak,
)
from tritonkit.report.reservations import reservations
from tritonkit.stats.disturbance import disturbance


@dataclass(frozen=True)
class TriedView:
    """Settings that were run live."""

    key: str
    label: str
    batching: str
    lane: str
    """Threads × instances, `2×1`."""
    is_winner: bool
    is_present: bool
    is_batched: bool
    predicted: OutcomeView
    recalibrated: OutcomeView
    measured: OutcomeView
    error: str
    """Of the capacity that the curve alone predicted."""
    levels: tuple[LevelView, ...]


@dataclass(frozen=True)
class SettingView:
    """One setting, as it is and as it is planned."""

    name: str
    present: str
    planned: str


@dataclass(frozen=True)
class StageView:
    """Where time went. share: of all, 0 to 1."""

    label: str
    seconds: str
    percent: str
    share: float


@dataclass(frozen=True)
class PlanView:
    """The whole report of a plan."""

    model: str
    headline: str
    settings: str
    """What to run, in a few words."""
    because: str
    choice: str
    created: str
    kit_version: str
    slo_p99_ms: float | None
    budget: str
    wanted: str
    p99_at: str
    winner: str
    setting_rows: tuple[SettingView, ...]
    diff: tuple[tuple[str, str], ...]
    """(kind, line) of the unified diff: `add`, `del`, `at` or empty."""
    errors: tuple[ErrorView, ErrorView]
    weak: tuple[str, ...]
    """Why what was measured hardly tests the predictions."""
    tried: tuple[TriedView, ...]
    session: str
    session_most: str
    session_says: str
    session_levels: tuple[LevelView, ...]
    rule: str
    notches: tuple[NotchView, ...]
    is_bettered: bool
    """Some change is predicted to be better than the winner."""
    stages: tuple[StageView, ...]
    took: str
    simulated: str
    live_runs: str
    reservations: tuple[str, ...]
    limits: tuple[str, ...]
    machine: str
    recalibration: str


def build_plan_view(document: Mapping[str, Any]) -> PlanView:
    """The view of one plan. Unknown keys are ignored, missing ones dashed."""
    slo = f.number(document.get("slo_p99_ms"))
    at_rps = f.number(document.get("p99_at_rps"))
    needed = f.number(document.get("rate_rps"))
    winner, present = f.mapping(document.get("winner")), f.mapping(document.get("present"))
    entries = [f.mapping(t) for t in f.listed(document.get("tried"))]
    runs = [ordered(entry) for entry in entries]
    session = f.mapping(document.get("session"))
    session_runs = ordered(session)
    most = max((rate(level) for levels in runs for level in levels), default=0.0)
    scale = Scale(slo, 0 if most >= 1000 else 1, 1 if (slo or 50) >= 10 else 2)
    tried = tuple(
        _tried(entry, levels, place, winner, present, scale)
        for place, (entry, levels) in enumerate(zip(entries, runs, strict=True))
    )
    own = next((place for place, t in enumerate(tried) if t.is_winner), None)
    at_rate = [] if own is None else p99s_ms(runs[own], at_rps)
    predicted = outcome(document.get("predicted"), scale)
    measured = measured_outcome(document.get("measured"), scale)
    p99_at = "the plan's rate" if at_rps is None else f"{f.compact(at_rps)} requests/s"
    base = predicted if own is None else tried[own].recalibrated
    notches = [f.mapping(n) for n in f.listed(document.get("sensitivity"))]
    model, choice = f.text(document.get("model")), f.text(document.get("conclusion"))
    return PlanView(
        model=model,
        headline=words.headline(choice, model, needed),
        settings=_settings(choice, winner, session),
        because=f.text(document.get("because")),
        choice=choice,
        created=f.moment(f.text(document.get("created_at"))),
        kit_version=f.text(document.get("kit_version")),
        slo_p99_ms=slo,
        budget=f"{f.compact(slo)} ms",
        wanted=_wanted(needed),
        p99_at=p99_at,
        winner=words.described(winner),
        setting_rows=_setting_rows(present, winner),
        diff=tuple((_kind(line), line) for line in _lines(document.get("diff"))),
        errors=errors(predicted, measured, at_rate, p99_at, scale),
        weak=weak(measured, at_rate, scale),
        tried=tried,
        session=words.session(session),
        session_most=scale.rps(session.get("most_rps")),
        session_says=_session_says(session),
        session_levels=tuple(_level(level, scale) for level in session_runs),
        rule=words.chosen_by(needed),
        notches=tuple(notch_view(n, winner, base, scale) for n in notches),
        is_bettered=any(betters(n, base, scale, needed is not None) for n in notches),
        stages=_stages(f.mapping(document.get("stages_s"))),
        took=f.compact(document.get("wall_s")),
        simulated=f.count(document.get("simulated_settings")),
        live_runs=f.count(document.get("live_runs")),
        reservations=_reservations(tried, entries, slo),
        limits=tuple(words.limits(f.text(document.get("arrivals")), len(tried), _length(runs))),
        machine=_machine(f.mapping(document.get("machine"))),
        recalibration=words.recalibration(
            [f.mapping(c) for c in f.listed(document.get("corrections"))],
            [f.mapping(entry.get("settings")) for entry in entries],
        ),
    )


def _wanted(needed_rps: float | None) -> str:
    if needed_rps is None:
        return "the highest rate"
    return f"{f.compact(needed_rps)} requests/s at the lowest p99"


def _settings(choice: str, winner: Mapping[str, Any], session: Mapping[str, Any]) -> str:
    if choice == prose.BASELINE:
        setup = {k: session.get(k) for k in ("threads", "instances")}
        return prose.settings(setup, prose.BASELINE)
    lead = "the best found: " if choice == "none" and winner else ""
    return f"{lead}{words.described(winner)}" if winner else ""


def _tried(
    entry: Mapping[str, Any],
    levels: Sequence[Mapping[str, Any]],
    place: int,
    winner: Mapping[str, Any],
    present: Mapping[str, Any],
    scale: Scale,
) -> TriedView:
    settings = f.mapping(entry.get("settings"))
    predicted = outcome(entry.get("predicted"), scale)
    measured = measured_outcome(entry.get("measured"), scale)
    return TriedView(
        key=str(place),
        label=words.described(settings),
        batching=words.batching(settings) if settings else f.DASH,
        lane=f"{f.count(settings.get('threads'))}×{f.count(settings.get('instances'))}",
        is_winner=bool(settings) and settings == winner,
        is_present=bool(settings) and settings == present,
        is_batched=settings.get("dynamic_batching") is not False,
        predicted=predicted,
        recalibrated=outcome(entry.get("recalibrated"), scale),
        measured=measured,
        error=words.signed(off(predicted.capacity_rps, measured.capacity_rps)),
        levels=tuple(_level(level, scale) for level in levels),
    )


def _level(level: Mapping[str, Any], scale: Scale) -> LevelView:
    """A plan has no rounds: the number says which of all live levels it was."""
    view, number = level_view(level, scale), f.number(level.get("round"))
    why = prose.why(view.purpose, None)
    return replace(view, why=f"{why}, level {number:.0f}" if number else why)


def _setting_rows(present: Mapping[str, Any], winner: Mapping[str, Any]) -> tuple[SettingView, ...]:
    def batched(settings: Mapping[str, Any]) -> str:
        says = settings.get("dynamic_batching")
        return "on" if says is True else "off" if says is False else f.DASH

    def row(name: str, write: Any, key: str) -> SettingView:
        return SettingView(name, write(present.get(key)), write(winner.get(key)))

    return (
        SettingView("Dynamic batching", batched(present), batched(winner)),
        row("Largest batch", f.count, "max_batch_size"),
        row("Queue delay", words.delay, "max_queue_delay_us"),
        row("Instances", f.count, "instances"),
        row("Threads per instance", f.count, "threads"),
    )


def _lines(diff: Any) -> list[str]:
    return diff.splitlines() if isinstance(diff, str) else []


def _kind(line: str) -> str:
    if line.startswith(("+++", "---")):
        return ""
    return {"+": "add", "-": "del", "@": "at"}.get(line[:1], "")


def _session_says(session: Mapping[str, Any]) -> str:
    """Whether one session does what it would be chosen for."""
    asked = f.number(session.get("asked_rps"))
    if asked is None:
        return ""
    rate_rps = f.compact(asked)
    if session.get("holds") is True:
        return f"holds {rate_rps}, chosen for that"
    if f.listed(session.get("levels")):
        return f"does not hold the {rate_rps} needed"
    return f"needed to be chosen: {rate_rps}"


def _stages(stages_s: Mapping[str, Any]) -> tuple[StageView, ...]:
    known = {name: f.number(s) for name, s in stages_s.items()}
    total = sum(s for s in known.values() if s is not None and s > 0)
    found = []
    for name, seconds in known.items():
        share = seconds / total if seconds is not None and seconds > 0 else 0.0
        label = words.STAGES.get(name, str(name))
        written = f.DASH if seconds is None else f.fixed(seconds, 1)
        percent = f.percent(share) if seconds is not None else f.DASH
        found.append(StageView(label, written, percent, share))
    return tuple(found)


def _reservations(
    tried: Sequence[TriedView], entries: Sequence[Mapping[str, Any]], slo: float | None
) -> tuple[str, ...]:
    """Those of a comparison, whose levels are alike."""
    arms = [
        {
            "name": view.label,
            "levels": entry.get("levels"),
            "capacity_rps": view.measured.capacity_rps,
            "capacity_interval_rps": [view.measured.low_rps, view.measured.high_rps],
        }
        for view, entry in zip(tried, entries, strict=True)
    ]
    against_them = reservations({"slo_p99_ms": slo, "arms": arms})
    found = disturbance(
        {
            view.label: [f.mapping(v) for v in f.listed(entry.get("levels"))]
            for view, entry in zip(tried, entries, strict=True)
        }
    )
    if found is not None and found.is_busy:
        return (f"The machine was busy: {found.told}.", *against_them)
    return against_them


def _length(runs: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """How long the live levels lasted, with what was cut of them."""
    lengths_s = [
        lasted + (f.number(level.get("warmup_s")) or 0.0)
        for levels in runs
        for level in levels
        if (lasted := f.number(level.get("duration_s"))) is not None
    ]
    if not lengths_s:
        return "a few seconds at most"
    least, most = (f.fixed(find(lengths_s), 1) for find in (min, max))
    return f"{least} s" if least == most else f"{least} to {most} s"


def _machine(machine: Mapping[str, Any]) -> str:
    return (
        f"{f.text(machine.get('cpu_model'))}, {f.counted(machine.get('cpus'), 'CPU')}, "
        f"{f.gibibytes(machine.get('memory_bytes'))} of memory, {f.text(machine.get('os'))}, "
        f"Python {f.text(machine.get('python'))}."
    )
