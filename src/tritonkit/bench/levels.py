"""Which level of load an arm is measured at next, from what its earlier levels showed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tritonkit.load.level import LevelRecord, Purpose
from tritonkit.stats.capacity import Capacity, Trial, estimate, for_people, next_rate

USERS = (1, 16, 64)
"""Closed-loop levels, which show the curve up to where the server is full."""

OF_THROUGHPUT = 0.8
"""Where the search for the capacity begins, as a share of the most that a closed loop reached."""

OVERLOAD = 1.5
"""The level beyond capacity, as a multiple of it."""

RATE_EVERY = 2
"""Where a rate was asked for, one level of so many is at it; the others search the capacity."""

LEAST_CONNECTIONS = 128
MOST_CONNECTIONS = 256
"""With 320 and more at once Triton's HTTP front end now and then loses an answer that its
statistics count as given, and the request times out; with 256 none was lost."""

BACK_OFF = 0.8
"""How much slower the search goes on once the generator was the limit twice in a row."""


@dataclass(frozen=True)
class Wanted:
    """A level that is to be measured. offered: users (closed) or requests per second (open)."""

    mode: Literal["closed", "open"]
    offered: float
    purpose: Purpose


def next_curve(levels: Sequence[LevelRecord]) -> Wanted | None:
    """The next closed loop, upwards; None when that is done."""
    done = sum(x.purpose == "curve" for x in levels)
    return Wanted("closed", USERS[done], "curve") if done < len(USERS) else None


def next_search(levels: Sequence[LevelRecord], rate_rps: float | None) -> Wanted:
    """The next level of the search for the capacity, or one at the rate that was asked for."""
    searched = [x for x in levels if x.purpose in ("search", "rate")]
    if rate_rps is not None and len(searched) % RATE_EVERY == 0:
        return Wanted("open", rate_rps, "rate")
    search = [x for x in searched if x.purpose == "search"]
    late = 0
    while late < len(search) and search[-1 - late].generator_bound:
        late += 1
    most_rps = BACK_OFF * search[-1].offered if late >= 2 else math.inf
    rate = next_rate(trials(levels), guess_rps(levels), most_rps)
    return Wanted("open", for_people(rate), "search")


def overload(levels: Sequence[LevelRecord]) -> Wanted | None:
    """The level beyond the capacity; None for an arm that has none."""
    found = capacity(levels)
    if found is None or not found.rps:
        return None
    return Wanted("open", for_people(OVERLOAD * found.rps), "overload")


def guess_rps(levels: Sequence[LevelRecord]) -> float:
    """Where to look for the capacity first: a share of the closed loops' best throughput."""
    reached = [x.achieved_rps for x in levels if x.mode == "closed"]
    return OF_THROUGHPUT * max([1.0, *reached])


def trials(levels: Sequence[LevelRecord]) -> list[Trial]:
    """What the open levels say of the capacity. Those that the generator bounded say nothing."""
    return [
        Trial(x.offered, bool(x.holds_slo), x.round)
        for x in levels
        if x.mode == "open" and x.purpose != "soak" and not x.generator_bound
    ]


def capacity(levels: Sequence[LevelRecord]) -> Capacity | None:
    """The arm's capacity, with its interval; None if no level of it counts."""
    counted = trials(levels)
    return estimate(counted, guess_rps(levels)) if counted else None


def length_s(wanted: Wanted, level_s: float, enough: int) -> float:
    """How long the level takes: level_s, or up to four times that where its rate is too low for
    so many requests as p99 needs.
    """
    if wanted.mode == "closed" or wanted.offered <= 0:
        return level_s
    return min(4 * level_s, max(level_s, enough / wanted.offered))


def connections(rate_rps: float, slo_p99_ms: float) -> int:
    """How many requests an open level may have in flight, so that it is the server that is the
    limit and not the number of connections.

    By Little's law a level that just holds the budget has on average no more than rate × budget
    in flight; twice that is for its peaks.
    """
    in_flight = math.ceil(2 * rate_rps * slo_p99_ms / 1000)
    return min(MOST_CONNECTIONS, max(LEAST_CONNECTIONS, in_flight))
