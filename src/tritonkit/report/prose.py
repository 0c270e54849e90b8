"""The report's labels and short sentences: everything it says that is not a bare number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tritonkit.report import formats as f
from tritonkit.stats.disturbance import Disturbance
from tritonkit.stats.ratio import says_no_difference
from tritonkit.stats.split import WITHIN
from tritonkit.stats.trend import LEAST_POINTS

BASELINE = "ort_baseline"
BATCHER = "ort_batcher"

ARM_LABELS = {
    BASELINE: "Single ONNX Runtime session",
    BATCHER: "ONNX Runtime + asyncio batcher",
    "triton_unbatched": "Triton, no batching",
    "triton_batched": "Triton, dynamic batching",
}
ARM_SHORT_LABELS = {
    BASELINE: "ONNX Runtime",
    BATCHER: "ORT + batcher",
    "triton_unbatched": "Triton plain",
    "triton_batched": "Triton batched",
}
BATCHER_IS = (
    "ONNX Runtime + asyncio batcher is what many teams write by hand: a web server that collects "
    "requests in a queue until a batch is full or a wait is over, and runs one session."
)
_HEADLINES = {
    BASELINE: "Keep the single ONNX Runtime session for {}",
    BATCHER: "Serve {} with ONNX Runtime and an asyncio batcher",
    "triton_unbatched": "Serve {} with Triton, without batching",
    "triton_batched": "Serve {} with Triton and dynamic batching",
    "none": "None of the arms serves {} within the budget",
}
LOW_LOAD = "At the lightest load"
NEAR_CAPACITY = "At the level that held nearest below capacity"
NO_DIFFERENCE = "no difference"
NOT_DECIDED = "not decided"
_WHY = {"curve": "closed loop", "rate": "wanted rate"}


def arm_label(key: str) -> str:
    """An arm's name in words; one that this version does not know is shown as it is."""
    return ARM_LABELS.get(key, key)


def arm_short(key: str) -> str:
    """An arm's name in a few letters."""
    return ARM_SHORT_LABELS.get(key, key)


def headline(choice: str, model: str, needed_rps: float | None, is_undecided: bool = False) -> str:
    """What to do. A choice this version does not know is shown as it is. is_undecided: another arm
    may be the better choice, for all that is known.
    """
    if choice == "none" and needed_rps is not None:
        rate = f.compact(needed_rps)
        return f"None of the arms serves {model} at {rate} requests/s within the budget"
    if choice in _HEADLINES:
        return _HEADLINES[choice].format(model) + (" for now: not decided" if is_undecided else "")
    return f"Verdict for {model}: {choice}"


def against(ratio: str, span: str, rival: str, is_less: bool, says: str) -> str:
    """The chosen arm beside the best of the others, in one line. is_less: than that rival."""
    ends = f" (95{f.NBSP}%: {span})" if span else ""
    best = "the best" if is_less else "the next best"
    tails = {NO_DIFFERENCE: f": {says}", NOT_DECIDED: f": {says}, the interval is too wide"}
    tail = tails.get(says, "")
    if is_less:  # it was chosen for a wanted rate, and the ratio is no praise
        return f"Its capacity is {ratio}{ends} that of {arm_label(rival)}, {best}{tail}"
    return f"{ratio}{ends} the capacity of {arm_label(rival)}, {best}{tail}"


def versus_baseline(ratio: str, span: str, says: str) -> str:
    """`4.60× (4.12–5.20×) the single session`, with a word where that shows no difference."""
    ends = f" ({span})" if span else ""
    tail = f", {says}" if says in (NO_DIFFERENCE, NOT_DECIDED) else ""
    return f"{ratio}{ends} the single session{tail}"


def difference(ratio: float | None, low: float | None, high: float | None, differs: bool) -> str:
    """What a ratio and its interval say. No difference is a finding, not a failure, unless the
    interval is so wide that nothing was found; one that is known at one end only may still say
    that they differ.
    """
    if not differs and ratio is None:
        return "not known"
    if not differs:
        return NO_DIFFERENCE if says_no_difference(low, high) else NOT_DECIDED
    return "more" if ((low if ratio is None else ratio) or 0.0) > 1 else "less"


def disturbance(found: Disturbance) -> str:
    """What else took CPU time from the arms, and in which of them most."""
    by_arm = [f"{arm_short(arm)} {x * 100:.0f} %" for arm, x in found.by_arm.items()]
    text = f"{found.told}; both together for each arm: {', '.join(by_arm)}."
    return f"{text[0].upper()}{text[1:]}".replace(" %", f"{f.NBSP}%")


def capacity_note(capacity_rps: float | None, interval: str) -> str:
    """What stands below a capacity: its interval, or why there is none."""
    if capacity_rps is None:
        return "not measured: the generator was the limit"
    if capacity_rps <= 0:
        return "no rate held the budget"
    return f"95{f.NBSP}%: {interval}" if interval else "no interval"


def settings(chosen: Mapping[str, Any], arm: str) -> str:
    """An arm's settings in words; empty where there are none. Unknown ones are kept.

    Outside Triton there is one session: its `instances` are the runs that it makes at a time.
    """
    one_session = arm in (BASELINE, BATCHER)
    each, many = ("run", "run at a time") if one_session else ("instance", "instance")
    plural = "runs at a time" if one_session else "instances"
    known = {
        "max_batch_size": lambda v: f"max batch size {f.count(v)}",
        "max_queue_delay_us": lambda v: f"max queue delay {f.count(v)} µs",
        "instances": lambda v: f.counted(v, many, plural),
        "threads": lambda v: f"{f.counted(v, 'thread')} per {each}",
    }
    parts = [
        known[k](v) if k in known else f"{str(k).replace('_', ' ')} {f.text(v)}"
        for k, v in chosen.items()
        if v is not None
    ]
    return ", ".join(parts)


def why(purpose: str, round_: float | None) -> str:
    """Why a level was run, and in which round: `search, round 3`."""
    text = _WHY.get(purpose, purpose)
    return f"{text}, round {round_:.0f}" if round_ and purpose in ("search", "rate") else text


def offered(level: Mapping[str, Any]) -> str:
    """What was offered, with its unit: users in a closed loop, requests/s in an open one."""
    if level.get("mode") == "open":
        return f"{f.compact(level.get('offered'))} rps"
    return f.counted(level.get("offered"), "user")


def marks(level: Mapping[str, Any], over: bool, state: str) -> tuple[str, ...]:
    """What a reader must know about a level, worst first."""
    failed = f.number(level.get("errors")) or 0
    found: list[str] = []
    if state == "excluded":
        found.append(f"not counted: {generator_limit(level)}")
    if level.get("p99_ms") is None:
        found.append("nothing answered")
    elif over:
        found.append("over budget")
    if failed:
        kinds = error_kinds(level)
        found.append(f"errors: {kinds}" if kinds else "errors")
    if level.get("steady") is False:
        because = level.get("unsteady_because")
        found.append(f"unsteady: {because}" if because else "unsteady")
    if not found:
        held = level.get("holds_slo")
        found.append("holds" if held is True else "does not hold" if held is False else "run")
    return tuple(found)


def asides(level: Mapping[str, Any]) -> tuple[str, ...]:
    """What else there is to know about a level; nothing to be alarmed at."""
    found = []
    if level.get("p99_enough") is False:
        needs = f.number(level.get("p99_needs"))
        found.append("p99 of too few requests" + (f", needs {f.count(needs)}" if needs else ""))
    late, requests = f.number(level.get("late")) or 0.0, f.number(level.get("requests")) or 0.0
    if late > requests / 100:  # a few always are, and the p99 of the lateness is in the table
        found.append(f"{f.count(late)} sent late")
    if unsent := f.number(level.get("not_sent")):
        found.append(f"{f.count(unsent)} not sent")
    arrivals = level.get("arrivals")
    if level.get("mode") == "open" and arrivals and arrivals != "poisson":
        found.append(str(arrivals))
    return tuple(found)


def generator_limit(level: Mapping[str, Any]) -> str:
    """What made the generator the limit of a level, by its own two numbers."""
    facts = []
    late, cpu = f.number(level.get("lateness_p99_ms")), f.number(level.get("generator_cpu"))
    if late is not None:
        facts.append(f"p99 of lateness {f.compact(late)} ms")
    if cpu is not None:
        facts.append(f"{f.percent(cpu)} of a core")
    return "the generator was the limit" + (f" ({', '.join(facts)})" if facts else "")


def error_kinds(level: Mapping[str, Any]) -> str:
    """`2 timeout, 1 refused`."""
    kinds = f.mapping(level.get("error_kinds"))
    return ", ".join(f"{f.count(n)} {kind}" for kind, n in kinds.items())


def failures(level: Mapping[str, Any], share: str) -> str:
    """The errors of a level as a share, with their kinds."""
    if f.number(level.get("errors")) == 0:
        return "none"
    kinds = error_kinds(level)
    return f"{share} ({kinds})" if kinds else share


def split_remark(split: Mapping[str, Any]) -> str:
    """Where the time of a level cannot be trusted to its parts."""
    if not split:
        return "not recorded"
    remark = split.get("remark")
    if remark:
        return str(remark)
    return "does not add up" if split.get("adds_up") is False else ""


def below_zero(parts: Sequence[str], share: float) -> str:
    """What negative parts of a time split mean. share: of the total, the lowest of them."""
    which = f"{' and '.join(parts)} below 0 by {f.percent(share)} of the total"
    if share > WITHIN:
        return f"{which}: the clocks are not of the same requests, or one of them is wrong"
    return f"{which}: the client and the server time apart and agree no closer; read it as 0"


def holds(value: Any) -> str:
    """Whether an arm holds the wanted rate."""
    return "yes" if value is True else "no" if value is False else "not known"


def headroom(share: float | None) -> str:
    """How much more than the wanted rate an arm sustains, with its sign."""
    if share is None:
        return f.DASH
    return f"{share * 100:+,.0f}{f.NBSP}%".replace("-", "\N{MINUS SIGN}")


def reaches(capacity: str, capacity_rps: float | None, versus: str) -> str:
    """What an arm reaches, to stand beside what it lacks."""
    if capacity_rps is None:
        return "What it reaches is not known: the generator was the limit."
    return f"It reaches {capacity} requests/s{', ' if versus else ''}{versus}."


def soak(measured: Mapping[str, Any]) -> str:
    """What was soaked, for how long, and how many requests failed."""
    arm = arm_label(f.text(measured.get("arm")))
    rate, minutes = f.compact(measured.get("rate_rps")), f.compact(measured.get("minutes"))
    failed = f.number(measured.get("errors"))
    errors = "no errors" if failed == 0 else f.counted(failed, "error")
    return f"{arm} under {rate} requests/s for {minutes} minutes, {errors}."


def no_trend(points: Sequence[tuple[float, float]]) -> str:
    """What is said of a series in which nothing was found."""
    if not points:
        return "not recorded"
    first, last = (f.compact(points[i][1]) for i in (0, -1))
    found = "no trend found" if len(points) >= LEAST_POINTS else "too short to find a trend"
    return f"{found}; {first} at the start, {last} at the end"


def side_by_side(threads: Any, sessions: Any) -> str:
    """So many bare sessions at a time: `2 threads`, `1 thread × 2 sessions`."""
    each = f.counted(threads, "thread")
    return each if sessions in (None, 1) else f"{each} × {f.counted(sessions, 'session')}"


def ceiling(measured: Mapping[str, Any]) -> str:
    """What batching could buy at most, going by ONNX Runtime with no server."""
    best, batch1 = f.number(measured.get("best_ips")), f.number(measured.get("batch1_ips"))
    if best is None or not batch1:
        return "The in-process ceiling was not measured."
    lead = "ONNX Runtime called directly, with no server, reaches"
    if measured.get("best_batch") == 1:
        return (
            f"{lead} {f.compact(best)} inferences/s at batch 1 and no more at any larger batch: "
            "there is nothing for batching to gain in computation."
        )
    return (
        f"{lead} {f.compact(batch1)} inferences/s at batch 1 and {f.compact(best)} at batch "
        f"{f.count(measured.get('best_batch'))}, {f.ratio(best / batch1, '')} times as many. That "
        "factor is about the most that batching can gain in computation."
    )


def histogram_caption(histogram: Sequence[tuple[int, int]]) -> str:
    """The histogram's totals in words."""
    executions = sum(n for _, n in histogram)
    rows = sum(size * n for size, n in histogram)
    if not executions:
        return "No batch sizes were recorded."
    single = sum(n for size, n in histogram if size == 1) / executions
    return (
        f"{f.counted(executions, 'execution')} of {f.counted(rows, 'row')} in all: "
        f"{rows / executions:.1f} rows on average, {f.percent(single)} of the executions "
        f"with one row."
    )
