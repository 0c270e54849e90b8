"""What the report of a plan says in words: settings, errors of predictions, and their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tritonkit.bench.verdict import MUST_GAIN
from tritonkit.plan.search import WORTH
from tritonkit.report import formats as f
from tritonkit.report import prose

CAPACITY_WITHIN, P99_WITHIN = 0.1, 0.2
"""How far a prediction may be from what was measured before the report calls it a miss."""

STAGES = {
    "profile": "Measuring how long a run takes",
    "search": "Simulating all settings",
    "live": "Running the best few on Triton",
    "session": "Asking one ONNX Runtime session",
}
METHOD = (
    "Triton's own counters, under closed loops and on an idle server, first gave how long a run "
    "takes by its rows, threads and instances, and a simulation of Triton's batcher went through "
    "all settings with those times. The best few that differ, and the best without batching, then "
    "ran on Triton in short open loops, which corrected the times, and the winner was confirmed "
    "with further levels."
)


def headline(choice: str, model: str, needed_rps: float | None) -> str:
    """What to do. A conclusion that this version does not know is shown as it is."""
    if choice == "none":
        at = "" if needed_rps is None else f" at {f.compact(needed_rps)} requests/s"
        return f"No settings were found that serve {model}{at} within the budget"
    if choice in prose.ARM_LABELS:
        return prose.headline(choice, model, needed_rps)
    return f"Plan for {model}: {choice}"


def batching(settings: Mapping[str, Any]) -> str:
    """`batch 110, delay 2 ms`, or `no batching`."""
    if settings.get("dynamic_batching") is False:
        return "no batching"
    waits = delay(settings.get("max_queue_delay_us"))
    wait = {"0": ", no delay", f.DASH: ""}.get(waits, f", delay {waits}")
    return f"batch {f.count(settings.get('max_batch_size'))}{wait}"


def lane(threads: Any, instances: Any) -> str:
    """`1 thread × 2 instances`."""
    pair = f.counted(threads, "thread"), f.counted(instances, "instance")
    return " × ".join(pair).replace(" ", f.NBSP)


def described(settings: Mapping[str, Any]) -> str:
    """Settings in a few words; a dash where there are none."""
    if not settings:
        return f.DASH
    return f"{batching(settings)}, {lane(settings.get('threads'), settings.get('instances'))}"


def delay(delay_us: Any) -> str:
    """A queue delay in ms: `0.2 ms`, `0`."""
    us = f.number(delay_us)
    return f.DASH if us is None else f"{f.compact(us / 1e3)}{f.NBSP}ms" if us else "0"


def change(settings: Mapping[str, Any], winner: Mapping[str, Any], otherwise: str) -> str:
    """In what settings differ from the winner's: `2 threads instead of 1`."""
    if not settings or not winner:
        return otherwise
    is_batched = [each.get("dynamic_batching") is not False for each in (settings, winner)]
    if is_batched[0] != is_batched[1]:
        return "without batching" if is_batched[1] else "with batching"
    said = []
    if is_batched[0]:
        sizes, waits = (
            [write(each.get(key)) for each in (settings, winner)]
            for key, write in (("max_batch_size", f.count), ("max_queue_delay_us", delay))
        )
        said += [f"batch {sizes[0]} instead of {sizes[1]}"] if sizes[0] != sizes[1] else []
        said += [f"delay {waits[0]} instead of {waits[1]}"] if waits[0] != waits[1] else []
    for key, singular in (("threads", "thread"), ("instances", "instance")):
        if f.count(settings.get(key)) != f.count(winner.get(key)):
            ours = f.counted(settings.get(key), singular)
            said.append(f"{ours} instead of {f.count(winner.get(key))}")
    return ", ".join(said) or otherwise


def signed(share: float | None) -> str:
    """A share with its sign as a percentage: `+2.9 %`. Those near a limit keep a decimal."""
    if share is None:
        return f.DASH
    sign = "+" if share > 0 else "\N{MINUS SIGN}" if share < 0 else ""
    return f"{sign}{f.fixed(abs(share) * 100, 1 if abs(share) < 0.25 else 0)}{f.NBSP}%"


def verdict(error: float | None, within: float, is_inside: bool) -> str:
    """What a prediction's error is worth, in a few words. is_inside: it lies in the interval of
    what was measured.
    """
    if error is None:
        return "not known"
    limit = f"{within * 100:.0f}{f.NBSP}%"
    if abs(error) <= within:
        return f"within {limit}"
    return f"off by more than {limit}{', inside the interval' if is_inside else ''}"


def missed(name: str, error: float | None, within: float, is_inside: bool) -> str:
    """That a prediction missed, in a sentence; empty where it did not. name: what was predicted."""
    if error is None or abs(error) <= within:
        return ""
    way = "low" if error < 0 else "high"
    off = signed(error).lstrip("+\N{MINUS SIGN}")
    said = f"{name} was predicted {off} too {way}: more than the {within * 100:.0f}{f.NBSP}% "
    tail = "; it is still inside the interval of what was measured." if is_inside else "."
    return f"{said}that a prediction may be off{tail}"


def notch(capacity: float | None, p99: float | None, is_over: bool) -> str:
    """What one change does. capacity, p99: as ratios to the winner's. is_over: p99 is above the
    budget.
    """
    if capacity is None and p99 is None:
        return "not known"
    said = []
    if capacity is not None and _differs(capacity):
        said.append("serves more" if capacity > 1 else "serves less")
    if is_over:
        said.append("over the budget at this rate")
    elif p99 is not None and _differs(p99):
        said.append("slower" if p99 > 1 else "faster")
    return ", ".join(said) or "about the same"


def _differs(ratio: float) -> bool:
    """As it is shown, with two decimals: equal figures shall not get different words."""
    return round(abs(round(ratio, 2) - 1), 2) > WORTH


def session(asked: Mapping[str, Any]) -> str:
    """What one session without Triton was asked, and whether it does the job."""
    most, rate = f.number(asked.get("most_rps")), f.number(asked.get("asked_rps"))
    if most is None or rate is None:
        return "One ONNX Runtime session was not asked."
    setup = prose.settings({k: asked.get(k) for k in ("threads", "instances")}, prose.BASELINE)
    lead = f"One ONNX Runtime session without Triton ({setup}) reaches {f.compact(most)} requests/s"
    if not f.listed(asked.get("levels")) and most < rate:
        return (
            f"{lead} in a closed loop, which no open one exceeds: less than the {f.compact(rate)} "
            "at which it would have been chosen."
        )
    holds = "holds" if asked.get("holds") is True else "does not hold"
    return (
        f"{lead} in a closed loop, and {holds} {f.compact(rate)}, the rate at which it would be "
        "chosen, within the budget."
    )


def chosen_by(needed_rps: float | None) -> str:
    """By which rule Triton has to win."""
    if needed_rps is not None:
        return "The simplest that holds the wanted rate is chosen."
    return (
        f"Triton has to serve at least {MUST_GAIN:g} times as much as one session, and batching as "
        "much more than Triton without it; otherwise the simpler one is kept."
    )


def limits(arrivals: str, tried: int, length_s: str) -> list[str]:
    """What a reader may not conclude. length_s: of the live levels, in words."""
    pattern = (
        "Requests arrived at random (Poisson). Traffic in bursts needs more room than this."
        if arrivals == "poisson"
        else f"Requests arrived as in {arrivals}. Other traffic may need other settings."
    )
    return [
        "Predictions and measurements hold for this machine, this model file and these payloads. "
        "On another machine other settings may be best: plan again there.",
        f"The live levels lasted {length_s}. That ranks settings; it does not show what builds up "
        "over minutes. Measure for longer before you promise a figure (tritonkit compare).",
        pattern,
        f"Only {f.counted(tried, 'setting')} ran live. All that is said of others, one notch more "
        "or less included, is simulated.",
        "“Recalibrated” has seen the levels that it stands beside. It shows how well the model "
        "can be fitted to them, not how well it predicts.",
        "A p99 far above the budget is of an overload, in which the queue grows as long as the "
        "load lasts. That it is too high is all it says.",
    ]


def recalibration(
    corrections: Sequence[Mapping[str, Any]], tried: Sequence[Mapping[str, Any]]
) -> str:
    """How the live levels changed the times of the curve. tried: the settings that ran live; the
    corrections of other ways to run were not measured. Empty where nothing is known of any.
    """
    ways = [(s.get("threads"), s.get("instances"), s.get("dynamic_batching")) for s in tried]
    said = []
    for correction in corrections:
        threads, instances, batching = (
            correction.get(key) for key in ("threads", "instances", "batching")
        )
        pace = f.number(correction.get("pace"))
        if pace is not None and (threads, instances, batching) in ways:
            how = "with" if batching else "without"
            said.append(f"{f.ratio(pace)} for {lane(threads, instances)} {how} batching")
    if not said:
        return ""
    return f"The live levels changed the times of the curve by these factors: {', '.join(said)}."
