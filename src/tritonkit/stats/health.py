"""How a model that serves is doing: one word, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Sequence
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
    middle = len(looks) // 2
    traffic, first, second = (
        read_traffic(part, version, batching.instances)
        for part in (looks, looks[: middle + 1], looks[middle:])
    )
    shown = _Shown(batching, traffic, first, second, slo_p99_ms)
    for rule in _OF_ANY if traffic.requests < FEWEST else (*_OF_ANY, *_OF_MANY):
        if (found := rule(shown)) is not None:
            return found, traffic
    if not traffic.requests + traffic.failures:
        return Health("healthy", "no requests"), traffic
    return Health("healthy", f"{about(traffic.busy * 100)} % of the instances' time"), traffic


class _Shown(NamedTuple):
    """What the rules go by. first, second: the halves of the traffic's time."""

    batching: Batching
    traffic: Traffic
    first: Traffic
    second: Traffic
    slo_p99_ms: float | None


def _fails(shown: _Shown) -> Health | None:
    failures = shown.traffic.failures
    ended = shown.traffic.requests + failures
    share = failures / ended if ended else 0.0
    if share < SOME_FAIL:
        return None
    reason = f"{failures:,} of {ended:,} requests failed"
    return Health("failing" if share >= FAILING else "degraded", reason)


def _late(shown: _Shown) -> Health | None:
    mean_ms, budget_ms = shown.traffic.server_ms, shown.slo_p99_ms
    if budget_ms is None or mean_ms is None or mean_ms <= budget_ms:
        return None
    return Health(
        "failing",
        f"requests take {about(mean_ms)} ms in the mean; the budget of their p99 is "
        f"{about(budget_ms)} ms",
    )


def _grows(shown: _Shown) -> Health | None:
    before, after = shown.first.waiting, shown.second.waiting
    if after < QUEUED or after < GROWN * before:
        return None
    return Health(
        "degraded", f"the queue grows: from {about(before)} requests that wait to {about(after)}"
    )


def _collapsed(shown: _Shown) -> Health | None:
    batching, waiting = shown.batching, shown.traffic.waiting
    together = shown.traffic.requests_per_run
    if batching.scheduler == "none" or batching.max_batch_size <= 1 or together is None:
        return None
    if waiting < QUEUED or together > HARDLY:
        return None
    return Health(
        "degraded",
        f"{about(waiting)} requests wait, and yet each has a run of its own; `tritonkit doctor` "
        "says why",
    )


def _saturated(shown: _Shown) -> Health | None:
    busy, waiting = shown.traffic.busy, shown.traffic.waiting
    if busy < SATURATED or waiting < QUEUED:
        return None
    return Health(
        "degraded",
        f"the instances work {about(busy * 100)} % of the time, and {about(waiting)} requests wait",
    )


_OF_ANY = (_fails, _late)
_OF_MANY = (_grows, _collapsed, _saturated)
"""The rules, what is certain first; the latter of at least FEWEST requests."""
