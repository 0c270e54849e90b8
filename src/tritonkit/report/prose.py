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


def headline(choice: str, model: str) -> str:
    """The verdict as one line. A choice this version does not know is shown as it is."""
    if choice in _HEADLINES:
        return _HEADLINES[choice].format(model)
    return f"Verdict for {model}: {choice}"


def settings(chosen: Mapping[str, Any]) -> str:
    """The chosen settings in words; empty where the verdict has none. Unknown ones are kept."""
    known = {
        "max_batch_size": lambda v: f"max batch size {f.count(v)}",
        "max_queue_delay_us": lambda v: f"max queue delay {f.count(v)} µs",
        "instances": lambda v: f.counted(v, "instance"),
        "threads": lambda v: f.counted(v, "thread") + " per instance",
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
    found: list[str] = []
    errors = f.number(level.get("errors")) or 0
    if level.get("p99_ms") is None:
        found.append("nothing answered")
    if over:
        found.append("over budget")
    if errors > 0:
        kinds = f.mapping(level.get("error_kinds"))
        detail = ", ".join(f"{f.count(n)} {kind}" for kind, n in kinds.items())
        found.append(f"errors: {detail}" if detail else "errors")
    if level.get("generator_bound"):
        found.append("generator-bound")
    if is_capacity:
        found.append("sets the capacity")
    if not found:
        found.append("holds" if level.get("holds_slo") else "does not hold")
    return tuple(found)


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


def method(how: Mapping[str, Any], machine: Mapping[str, Any]) -> Method:
    """How it was measured, from the result's `method` and `machine`."""
    paragraphs = [
        ("Machine", _machine(how, machine)),
        ("Load", _load(how)),
        (
            "Latency",
            "Latency is what the client sees, from sending a request to having its whole answer. "
            "Percentiles are over the answered requests of a level.",
        ),
        (
            "Ceiling",
            "The in-process ceiling is the rate at which ONNX Runtime computes when it is called "
            "directly, with no server and no network, tried over thread counts and batch sizes. "
            "It is in inferences (rows) per second; no server can be expected to exceed it.",
        ),
        (
            "Capacity",
            "The capacity of an arm is the highest rate achieved at any level whose p99 keeps the "
            "budget, with no errors, and where the load generator was not itself the limit. "
            "If there is no such level, the capacity is 0.",
        ),
        ("Verdict", _verdict(how)),
        (
            "Limits",
            "The result holds for this model, this machine and this load. Every row of the table "
            "is one run, so small differences between rows are not evidence. The samples files "
            "beside the result hold every request.",
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


def _verdict(how: Mapping[str, Any]) -> str:
    gain = f.number(how.get("batching_must_gain"))
    times = "a set multiple of" if gain is None else f"{f.compact(gain)} times"
    return (
        f"Batching is chosen only if its capacity is at least {times} that of each simpler arm. "
        "Ties go to the simpler arm: the single session before Triton, Triton without batching "
        "before Triton with it."
    )
