"""How the numbers came about, in prose: the part of the page that a sceptic reads twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonkit.report import formats as f
from tritonkit.report import prose
from tritonkit.report.reservations import shared_cpus
from tritonkit.stats.disturbance import BUSY, Disturbance
from tritonkit.stats.ratio import ALIKE_WITHIN

_FIXED = (
    (
        "Same work",
        "Before it was measured, every arm had to answer the same payloads as the bare ONNX "
        "Runtime session does; otherwise there would be no report.",
    ),
    (
        "Settings",
        "Each arm got its best settings: all its candidates for threads and instances (outside "
        "Triton, runs of the one session at a time) were tried in short closed loops, two rounds "
        "over all of them, the better one counting. The fastest candidate was then measured.",
    ),
)


@dataclass(frozen=True)
class Method:
    """How the numbers came about: paragraphs as (heading, text), then caveats."""

    paragraphs: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def method(
    how: Mapping[str, Any],
    machine: Mapping[str, Any],
    needed_rps: float | None,
    found: Disturbance | None = None,
) -> Method:
    """How it was measured, from the result's `method` and `machine`. found: what else took CPU."""
    paragraphs = [
        ("Machine", _machine(how, machine)),
        *([] if found is None else [("Other processes", _others(found))]),
        ("Requests", _requests(how)),
        *_FIXED,
        ("Load", _load(how)),
        (
            "Latency",
            "In a closed loop latency counts from sending a request to having its whole answer. "
            "In an open loop it counts from the moment at which the request was due, so a request "
            "that had to wait for the generator or for the server is charged with the wait "
            "(no coordinated omission). Service time counts from the real send. Percentiles are "
            "of the raw samples of answered requests, never of a histogram.",
        ),
        (
            "Warm-up",
            "A level's warm-up is found in its own data: the batches of requests at the start "
            "whose latencies all lie on the same side of what the second half shows are cut "
            "(Conway's rule, made robust). What is left is tested for drift: a level in which the "
            "last third of the windows all lie above, or all below, the first, by enough to "
            "matter, is shown as unsteady; if it got worse it does not hold the budget.",
        ),
        (
            "Intervals",
            "The interval of a percentile lies between two of the measured latencies (order "
            "statistics), whatever their distribution, and is widened for the dependence between "
            "neighbours in a queue. Whether a level had enough requests for its p99 follows the "
            "early-stopping rule of MLPerf LoadGen, with the same dependence. "
            f"All intervals are 95{f.NBSP}%.",
        ),
        ("Capacity", _capacity(how)),
        (
            "Ratios",
            "The interval of a ratio comes from the levels of both arms together, round by round: "
            "how fast the machine was in a round is an unknown that both have in common, so what "
            "a round did to both cancels out. Where the interval holds 1, no difference was found; "
            f"one that goes beyond {1 / ALIKE_WITHIN:g} or {ALIKE_WITHIN:g} is too wide for that, "
            "and nothing was decided.",
        ),
        (
            "Not counted",
            "A level is not counted where the generator may have been the limit: the p99 of its "
            f"lateness is above 1 ms and above 5{f.NBSP}% of the latency (or of the budget, where "
            "that is less), or it used a whole core. Such a level is shown in grey and decides "
            "nothing.",
        ),
        (
            "Time split",
            "Queue, input, compute and output are Triton's own counters over the level. Client is "
            "how late the generator itself was with the request. Connection is the wait for one of "
            "its connections where all were busy: a wait for the server, which the server's queue "
            "does not show. Wire is the rest. Where the parts do not add up to the mean latency "
            f"within 10{f.NBSP}%, the page says so.",
        ),
        (
            "Ceiling",
            "The in-process ceiling is ONNX Runtime called directly, with no server and no "
            "network, in a process of its own: bare sessions with the threads × instances of the "
            "Triton arms, at each batch size, with the payload of median size, in inferences "
            "(rows) per second. Each point is the better of two short runs.",
        ),
        ("Verdict", _verdict(how, needed_rps)),
        (
            "Limits",
            "The result holds for this model, this machine and this load. The samples files "
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
    if shared_cpus(how):
        sentences.append(
            "They share CPUs, so the generator's own work lowers every capacity on this page."
        )
    if how.get("generator_first") is True:
        sentences.append("The generator had real-time priority, so that it sends on time.")
    return " ".join(sentences)


def _others(found: Disturbance) -> str:
    limit = f"{BUSY * 100:.0f}{f.NBSP}%"
    return (
        f"{prose.disturbance(found)} That is of all time of the CPUs above, over the levels; the "
        f"generator and the servers are not among them. Above {limit} for an arm the machine "
        "counts as busy."
    )


def _requests(how: Mapping[str, Any]) -> str:
    mix = f.mapping(how.get("payloads"))
    facts = [f"{f.counted(mix.get('count'), 'payload')} from {f.text(mix.get('source'))}"]
    if f.number(mix.get("distinct")) is not None:
        facts.append(f"{f.count(mix.get('distinct'))} of them distinct")
    rows = [
        f"{f.count(n)} of {size} {'row' if str(size) == '1' else 'rows'}"
        for size, n in f.mapping(mix.get("rows")).items()
    ]
    if rows:
        facts.append(", ".join(rows))
    for name, key in (("lengths", "lengths"), ("bytes", "bytes_per_request"), ("bytes", "bytes")):
        if said := _spread(f.mapping(mix.get(key))):
            facts.append(f"{name} {said}")
    return (
        f"Requests went over {f.text(how.get('protocol')).upper()}: {'; '.join(facts)}. Their "
        f"times are drawn with seed {f.text(how.get('seed'))}: others in each round, in which all "
        "arms get the same ones."
    )


def _spread(numbers: Mapping[str, Any]) -> str:
    """`2,048`, or `16 to 128, median 64`."""
    least, middle, most = (f.number(numbers.get(key)) for key in ("least", "median", "most"))
    if least is None or most is None:
        return ""
    if least == most:
        return f.count(least)
    return f"{f.count(least)} to {f.count(most)}, median {f.compact(middle)}"


def _load(how: Mapping[str, Any]) -> str:
    return (
        "In a closed loop, a fixed number of users each send a request, wait for its answer and "
        "send the next. In an open loop, requests leave at random times with a given mean rate "
        "(Poisson arrivals), whether or not earlier ones have been answered. Each level sent for "
        f"{f.compact(how.get('level_duration_s'))} s, and for up to four times as long where its "
        f"rate is too low for a p99 otherwise. {_took(how)}."
    )


def _took(how: Mapping[str, Any]) -> str:
    """How long the comparison took. Its clock begins anew where it was gone on with; that of the
    levels does not.
    """
    levels, budget = (f.number(how.get(key)) for key in ("levels_s", "time_budget_s"))
    of = "" if budget is None else f", of a budget of {f.compact(budget)} s"
    wall = f"{f.compact(how.get('wall_s'))} s"
    if f.number(how.get("resumed")):
        before = "" if levels is None else f"The levels took {f.compact(levels)} s in all{of}. "
        return f"{before}The session that ended the comparison took {wall}"
    spent = "" if levels is None else f"; its levels took {f.compact(levels)} s{of}"
    return f"The comparison took {wall}{spent}"


def _capacity(how: Mapping[str, Any]) -> str:
    rounds = f.number(how.get("rounds"))
    number = "" if rounds is None else f" There were {f.counted(rounds, 'round')}."
    return (
        "The capacity of an arm is the Poisson rate up to which its p99 keeps the budget, with no "
        "errors and without drift. A short level near it holds or fails by chance as well, so the "
        "capacity is where half of the levels hold, and it rests on all of them. It is searched "
        "for in rounds: each round runs one level of every arm, forwards and then backwards "
        "(A B C, C B A), so that a machine that drifts hurts all alike. All servers stay up, and "
        f"only the one under load works.{number} Overload is 1.5 times the capacity found by then."
    )


def _verdict(how: Mapping[str, Any], needed_rps: float | None) -> str:
    order = (
        "From the simplest, the order is: the single session, the same with an asyncio batcher, "
        "Triton without batching, Triton with dynamic batching."
    )
    if needed_rps is not None:
        return (
            f"A rate of {f.compact(needed_rps)} requests/s was asked for. The choice is the "
            "simplest arm that holds exactly this rate: at least two of three counted levels at it "
            f"kept the budget. Replicas are N+1, by the low end of the capacity's interval. {order}"
        )
    gain = f.number(how.get("batching_must_gain"))
    times = "a set multiple of" if gain is None else f"{gain:g} times"
    return (
        "Each arm in turn has to clearly beat the one that would be kept otherwise: with at least "
        f"{times} its capacity, and an interval of that ratio above 1. With less, or no "
        f"difference, the simpler one is kept. {order}"
    )
