"""How a model that serves is doing: one word, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from tritonkit.stats.causes import FAILING, HARDLY, about
from tritonkit.stats.traffic import Batching, Look, Traffic, read_traffic

SOME_FAIL = 0.01
"""The share of failures that is more than an odd one."""

SATURATED = 0.95
"""Of the instances' time: with more to do a queue has no end."""

GROWN = 2.0
"""A queue that becomes so many times as long from one half of the time to the other grows."""

QUEUED = 4.0
"""Fewer requests that wait, in the mean, are luck."""

FEWEST = 20
"""Requests that say something."""


class Health(NamedTuple):
    """reason: the numbers, in one line."""

    state: Literal["healthy", "degraded", "failing"]
    reason: str


def health_of(
    batching: Batching, looks: Sequence[Look], version: str, slo_p99_ms: float | None = None
) -> tuple[Health, Traffic]:
    """Of one version of a model between the first look and the last; the worst that shows.

    slo_p99_ms: a budget. Triton's counters have no percentiles: it is broken for certain where the
    mean breaks it, and nothing is said of it elsewhere.
    """
    traffic = read_traffic(looks, version, batching.instances)
    middle = len(looks) // 2
    halves = [
        read_traffic(part, version, batching.instances)
        for part in (looks[: middle + 1], looks[middle:])
    ]
    for rule in _RULES:
        if (found := rule(batching, traffic, halves, slo_p99_ms)) is not None:
            return found, traffic
    ended = traffic.requests + traffic.failures
    if not ended:
        return Health("healthy", "no requests"), traffic
    return Health("healthy", f"{about(traffic.busy * 100)} % of the instances' time"), traffic


Rule = Callable[[Batching, Traffic, Sequence[Traffic], float | None], Health | None]


def _fails(b: Batching, t: Traffic, halves: Sequence[Traffic], slo: float | None) -> Health | None:
    ended = t.requests + t.failures
    share = t.failures / ended if ended else 0.0
    if share < SOME_FAIL:
        return None
    reason = f"{t.failures:,} of {ended:,} requests failed"
    return Health("failing" if share >= FAILING else "degraded", reason)


def _late(b: Batching, t: Traffic, halves: Sequence[Traffic], slo: float | None) -> Health | None:
    if slo is None or t.server_ms is None or t.server_ms <= slo:
        return None
    return Health(
        "failing",
        f"requests take {about(t.server_ms)} ms in the mean; the budget of their p99 is "
        f"{about(slo)} ms",
    )


def _grows(b: Batching, t: Traffic, halves: Sequence[Traffic], slo: float | None) -> Health | None:
    before, after = (half.waiting for half in halves)
    if t.requests < FEWEST or after < QUEUED or after < GROWN * before:
        return None
    return Health(
        "degraded", f"the queue grows: from {about(before)} requests that wait to {about(after)}"
    )


def _collapsed(
    b: Batching, t: Traffic, halves: Sequence[Traffic], slo: float | None
) -> Health | None:
    together = t.requests_per_run
    if b.scheduler == "none" or b.max_batch_size <= 1 or together is None:
        return None
    if t.requests < FEWEST or t.waiting < QUEUED or together > HARDLY:
        return None
    return Health(
        "degraded",
        f"{about(t.waiting)} requests wait, and yet each has a run of its own; `tritonkit doctor` "
        "says why",
    )


def _saturated(
    b: Batching, t: Traffic, halves: Sequence[Traffic], slo: float | None
) -> Health | None:
    if t.requests < FEWEST or t.busy < SATURATED or t.waiting < QUEUED:
        return None
    return Health(
        "degraded",
        f"the instances work {about(t.busy * 100)} % of the time, and {about(t.waiting)} requests "
        "wait",
    )


_RULES: tuple[Rule, ...] = (_fails, _late, _grows, _collapsed, _saturated)
"""What is certain comes first."""
