"""The report's sentences and labels: everything it says that is not a bare number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonkit.report import formats as f

BASELINE = "ort_baseline"

ARM_LABELS = {
    BASELINE: "Single ONNX Runtime session",
    "triton_unbatched": "Triton, no batching",
    "triton_batched": "Triton, dynamic batching",
}
ARM_SHORT_LABELS = {
    BASELINE: "ONNX Runtime",
    "triton_unbatched": "Triton plain",
    "triton_batched": "Triton batched",
}
_HEADLINES = {
    BASELINE: "Keep the single ONNX Runtime session for {}",
    "triton_unbatched": "Serve {} with Triton, without batching",
    "triton_batched": "Serve {} with Triton and dynamic batching",
    "none": "None of the three ways serves {} within the budget",
}


@dataclass(frozen=True)
class Method:
    """How the numbers came about: paragraphs as (heading, text), then caveats."""

    paragraphs: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def headline(choice: str, model: str, needed_rps: float | None) -> str:
    """The verdict as one line. A choice this version does not know is shown as it is."""
    if choice == "none" and needed_rps is not None:
        rate = f.compact(needed_rps)
        return f"None of the three ways serves {model} at {rate} requests/s within the budget"
    if choice in _HEADLINES:
        return _HEADLINES[choice].format(model)
    return f"Verdict for {model}: {choice}"


def settings(chosen: Mapping[str, Any], arm: str) -> str:
    """An arm's settings in words; empty where there are none. Unknown ones are kept.

    The baseline has one session: its `instances` are the runs that it makes at a time.
    """
    each, many = ("run", "run at a time") if arm == BASELINE else ("instance", "instance")
    plural = "runs at a time" if arm == BASELINE else "instances"
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


def offered(level: Mapping[str, Any]) -> str:
    """What was offered, with its unit: users in a closed loop, requests/s in an open one."""
    if level.get("mode") == "open":
        return f"{f.compact(level.get('offered'))} rps"
    return f.counted(level.get("offered"), "user")


def marks(level: Mapping[str, Any], over: bool, is_capacity: bool) -> tuple[str, ...]:
    """What a reader must know about a level, worst first."""
    errors = f.number(level.get("errors")) or 0
    found: list[str] = []
    if level.get("p99_ms") is None:
        found.append("nothing answered")
    elif over:
        found.append("over budget")
    elif is_capacity:
        found.append("sets the capacity")
    elif not errors:
        found.append("holds" if level.get("holds_slo") else "does not hold")
    if errors:
        kinds = f.mapping(level.get("error_kinds"))
        detail = ", ".join(f"{f.count(n)} {kind}" for kind, n in kinds.items())
        found.append(f"errors: {detail}" if detail else "errors")
    return tuple(found)


def asides(level: Mapping[str, Any]) -> tuple[str, ...]:
    """What else there is to know about a level; nothing to be alarmed at."""
    found = ["again"] if level.get("repeat") else []
    if level.get("generator_bound"):
        late = f.number(level.get("lateness_p99_ms")) or 0.0
        found.append(f"sent late ({f.compact(late)} ms)" if late >= 1 else "generator-bound")
    return tuple(found)


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
        f"{f.count(measured.get('best_batch'))}, {best / batch1:.2f} times as many. That factor "
        "is about the most that batching can gain in computation."
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


def method(how: Mapping[str, Any], machine: Mapping[str, Any], needed_rps: float | None) -> Method:
    """How it was measured, from the result's `method` and `machine`."""
    paragraphs = [
        ("Machine", _machine(how, machine)),
        ("Load", _load(how)),
        (
            "Same work",
            "Before it was measured, every arm had to answer the same payloads as the bare ONNX "
            "Runtime session does; otherwise there would be no report.",
        ),
        (
            "Settings",
            "Each arm got its best settings: all its candidates for threads and instances (for "
            "the single session, runs at a time) were tried in short closed loops, two rounds "
            "over all of them, the better one counting. The fastest candidate was then measured.",
        ),
        (
            "Order",
            "The arms were measured in turn, level by level, forwards and then backwards, so that "
            "a machine that drifts hurts all of them alike. All servers were up the whole time, "
            "and only the one under load worked. At the end, the level that decides was measured "
            "once more (“again”), so that no verdict rests on one moment.",
        ),
        (
            "Latency",
            "Latency is what the client sees: in a closed loop from sending a request to having "
            "its whole answer, in an open loop from the moment the request was due, so that a "
            "late start counts. "
            "Percentiles are over the answered requests of a level.",
        ),
        (
            "Ceiling",
            "The in-process ceiling is ONNX Runtime called directly, with no server and no "
            "network, in a process of its own: bare sessions with the threads × instances of the "
            "Triton arms, at each batch size, with the payload of median size, in inferences "
            "(rows) per second. Each point is the better of two short runs.",
        ),
        (
            "Capacity",
            "The capacity of an arm is the rate achieved at its best level that holds: p99 within "
            "the budget, with no errors, in the first run or again. If no level holds, it is 0. "
            "A level is generator-bound where the load generator sent late or used a whole core. "
            "Lateness is inside the latency, so such a level is never better than real; the arm "
            "may do better than it shows there.",
        ),
        ("Verdict", _verdict(how, needed_rps)),
        (
            "Limits",
            "The result holds for this model, this machine and this load. Every row of the table "
            "is one run; how far “again” lies from the first run shows how much runs differ. The "
            "samples files beside the result hold every request.",
        ),
    ]
    return Method(tuple(paragraphs), tuple(str(n) for n in f.listed(how.get("notes"))))


def _machine(how: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    generator, server = how.get("generator_cpus"), how.get("server_cpus")
    sentences = [
        f"{f.text(machine.get('cpu_model'))}, {f.counted(machine.get('cpus'), 'CPU')}, "
        f"{f.gibibytes(machine.get('memory_bytes'))} of memory, {f.text(machine.get('os'))}, "
        f"Python {f.text(machine.get('python'))}."
    ]
    if f.listed(generator) or f.listed(server):
        sentences.append(
            f"The load generator ran on CPUs {f.cpu_list(generator)}, "
            f"the server on CPUs {f.cpu_list(server)}."
        )
    if set(f.listed(generator)) & set(f.listed(server)):
        sentences.append(
            "They share CPUs, so the generator's own work lowers every capacity on this page."
        )
    return " ".join(sentences)


def _load(how: Mapping[str, Any]) -> str:
    payloads = f.mapping(how.get("payloads"))
    return (
        f"Requests went over {f.text(how.get('protocol')).upper()}, drawn from "
        f"{f.counted(payloads.get('count'), 'payload')} ({f.text(payloads.get('source'))}), "
        f"seed {f.text(how.get('seed'))}. "
        "In a closed loop, a fixed number of users each send a request, wait for its answer and "
        "send the next. In an open loop, requests leave at a given rate whether or not earlier "
        "ones have been answered; how late the generator sent them is in the table. "
        f"Each level ran for {f.compact(how.get('level_duration_s'))} s after "
        f"{f.compact(how.get('warmup_s'))} s of warm-up, which is not counted. "
        f"The whole comparison took {f.compact(how.get('wall_s'))} s."
    )


def _verdict(how: Mapping[str, Any], needed_rps: float | None) -> str:
    order = (
        "From the simplest, the order is: the single session, Triton without batching, Triton "
        "with dynamic batching."
    )
    if needed_rps is not None:
        return (
            f"A rate of {f.compact(needed_rps)} requests/s was asked for. The choice is the "
            "simplest arm that holds exactly this rate in an open loop within the budget, with no "
            f"errors, in the first run or again. {order}"
        )
    gain = f.number(how.get("batching_must_gain"))
    times = "a set multiple of" if gain is None else f"{gain:g} times"
    return (
        "The choice is the simplest arm that no other clearly beats, that is, with at least "
        f"{times} its capacity. So batching must have that over each simpler arm; with less, or a "
        f"tie, the simpler arm is kept. {order}"
    )
