"""What a sceptic may hold against a result, said before they have to look for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tritonkit.report import formats as f
from tritonkit.report import levels, prose

Level = Mapping[str, Any]

WAITED = 0.05
"""A level is no longer an open loop where more than this share of its requests found no free
connection: the server never saw more of them at a time than there are connections.
"""


def reservations(result: Mapping[str, Any]) -> tuple[str, ...]:
    """One sentence each; empty where there is nothing to hold against it."""
    found: list[str] = []
    slo_p99_ms = f.number(result.get("slo_p99_ms"))
    arms = [f.mapping(arm) for arm in f.listed(result.get("arms"))]
    for arm in arms:
        label = prose.arm_label(f.text(arm.get("name")))
        found += [f"{label}: {text}." for text in _of_arm(arm, slo_p99_ms)]
    found += _few_requests([level for arm in arms for level in levels.ordered(arm)])
    how = f.mapping(result.get("method"))
    found += [f"Payloads: {w}" for w in f.listed(f.mapping(how.get("payloads")).get("warnings"))]
    return tuple(found + _of_method(how))


def shared_cpus(how: Mapping[str, Any]) -> list[int]:
    """The CPUs that generator and server both used."""
    both = (f.listed(how.get(key)) for key in ("generator_cpus", "server_cpus"))
    generator, server = ({int(c) for c in cpus if f.number(c) is not None} for cpus in both)
    return sorted(generator & server)


def _of_arm(arm: Mapping[str, Any], slo_p99_ms: float | None) -> list[str]:
    runs = levels.ordered(arm)
    excluded = [v for v in runs if levels.state(v) == "excluded"]
    # Beyond the budget latency is bound to grow; only within it that is why a level failed.
    within = [v for v in runs if (f.number(v.get("p99_ms")) or 0.0) <= (slo_p99_ms or math.inf)]
    restless = [v for v in within if levels.unsteady(v)]
    found = []
    if runs and "capacity_rps" in arm and arm["capacity_rps"] is None:
        found.append("the capacity is not known, because no level of its search counts")
    if excluded:
        worst = max(excluded, key=levels.rate)
        found.append(
            f"{_so_many(excluded, runs)} not counted, {prose.generator_limit(worst)} "
            f"{_at(worst, excluded)}"
        )
    if restless:
        because = restless[-1].get("unsteady_because")
        tail = f": {because} {_at(restless[-1], restless)}" if because else ""
        found.append(f"{_so_many(restless, runs)} not steady{tail}")
    found += _waited(runs)
    ends = f.pair(arm.get("capacity_interval_rps"))
    if ends is not None and ends[1] is None and f.number(arm.get("capacity_rps")):
        found.append("the capacity may be higher, because nothing that was tried failed")
    return found


def _waited(runs: Sequence[Level]) -> list[str]:
    """Of the levels that held: one that failed would have failed without them."""
    held = [v for v in runs if v.get("holds_slo") is True and levels.state(v) == "held"]
    waited = [v for v in held if _share_waited(v) > WAITED]
    if not waited:
        return []
    worst = max(waited, key=_share_waited)
    more = f", and more than 1 in 20 in {len(waited) - 1} more that held" if waited[1:] else ""
    return [
        f"{f.count(worst.get('no_connection'))} of {f.counted(worst.get('requests'), 'request')} "
        f"at {f.compact(worst.get('offered'))} req/s waited for one of the generator's "
        f"connections{more}; the server saw no more at a time than there are connections"
    ]


def _share_waited(level: Level) -> float:
    waited, requests = (f.number(level.get(key)) for key in ("no_connection", "requests"))
    return waited / requests if waited and requests else 0.0


def _few_requests(runs: Sequence[Level]) -> list[str]:
    few = [v for v in runs if v.get("p99_enough") is False]
    if not few:
        return []
    return [
        f"{_so_many(few, runs)} short of the requests that a p99 of its own needs; capacities rest "
        "on all levels together."
    ]


def _of_method(how: Mapping[str, Any]) -> list[str]:
    found = []
    if shared := shared_cpus(how):
        found.append(
            f"Generator and server shared {'CPU' if len(shared) == 1 else 'CPUs'} "
            f"{f.cpu_list(shared)}, so the generator's own work lowers every capacity."
        )
    if how.get("generator_first") is False:
        found.append(
            "The generator had no priority over the servers, so it may have sent late where it "
            "shared a CPU with them."
        )
    if resumed := f.number(how.get("resumed")):
        times = "once" if resumed == 1 else "twice" if resumed == 2 else f"{f.count(resumed)} times"
        found.append(f"The run was interrupted and taken up again {times}.")
    return found


def _so_many(some: Sequence[Level], runs: Sequence[Level]) -> str:
    verb = "is" if len(some) == 1 else "are"
    return f"{len(some)} of {f.counted(len(runs), 'level')} {verb}"


def _at(level: Level, group: Sequence[Level]) -> str:
    """Names the level that a sentence speaks of, as one of several where it is."""
    return f"at {prose.offered(level)}" + (", for one" if len(group) > 1 else "")
