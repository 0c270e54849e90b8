"""What if there is more traffic, a smaller budget, another replica? From a service curve alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonkit.errors import InputError
from tritonkit.plan.possible import require_budget
from tritonkit.plan.predict import capacity_rps, predict, throughput_rps
from tritonkit.plan.search import (
    WORTH,
    Lanes,
    by_latency,
    delays_us,
    involved,
    lane,
    neighbours,
    pairs,
    sizes,
)
from tritonkit.plan.settings import Settings
from tritonkit.plan.stream import Stream
from tritonkit.repository.scheduling import DynamicBatching

USUAL_SLO_MS = 50.0

EVERY = 3
"""Of the sizes and delays of the full grid so many times fewer are tried, and then what is beside
the best of them: a tenth of the time, and hardly worse.
"""

WITHIN = 0.02
"""How near a capacity is found: nearer than what settings must gain to be called better."""

_KEYS = "s=curve.json, rate=R, slo=MS, replicas=N"


@dataclass(frozen=True)
class WhatIf:
    """A question. rate_rps: of all replicas together; None: as much as they serve."""

    curve: Path
    rate_rps: float | None = None
    slo_p99_ms: float = USUAL_SLO_MS
    replicas: int = 1


@dataclass(frozen=True)
class Answer:
    """What is predicted. settings: without a rate those of the highest capacity, with one those of
    the lowest p99 at each replica's share of it, as a plan chooses.

    p99_ms: at that share; None without a rate, or where the share is more than any settings
    serve. capacity_rps: of one replica under the settings, within the budget; most_rps: under the
    settings that serve most. headroom: what all replicas serve under the settings, relative to the
    rate. replicas_needed: the fewest that serve the rate within the budget.
    """

    settings: Settings
    p99_ms: float | None
    capacity_rps: float
    most_rps: float
    headroom: float | None
    replicas_needed: int | None

    @property
    def replicas_if_one_fails(self) -> int | None:
        """One more than is needed."""
        return None if self.replicas_needed is None else self.replicas_needed + 1


def parse_what_if(text: str) -> WhatIf:
    """`rate=2000,slo=50,replicas=2,s=curve.json`. InputError for anything else.

    A comma without a key behind it belongs to the name of the file.
    """
    given: dict[str, str] = {}
    last = ""
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = key.strip()
        if equals and key in ("rate", "slo", "replicas", "s"):
            if key in given:
                raise InputError(f"--what-if {text}: {key} is given twice; give it once")
            given[key], last = value, key
        elif last == "s" and not equals:
            given["s"] += f",{part}"
        else:
            raise InputError(f"--what-if {text}: {part!r} is none of {_KEYS}")
    if not given.get("s", "").strip():
        raise InputError(f"--what-if {text}: which curve? add s=curve.json, which a plan wrote")
    replicas = _number(text, given, "replicas", 1.0)
    if replicas is None or replicas != int(replicas):
        raise InputError(f"--what-if {text}: replicas={given['replicas']} is no whole number")
    return WhatIf(
        Path(given["s"].strip()),
        _number(text, given, "rate", None),
        _number(text, given, "slo", USUAL_SLO_MS) or USUAL_SLO_MS,
        int(replicas),
    )


def answer(what: WhatIf, lanes: Lanes, stream: Stream, max_rows: int) -> Answer:
    """The answer. InputError for a budget that requests that come one by one break already."""
    options = few(lanes, max_rows, what.slo_p99_ms)
    require_budget(options, lanes, stream, what.slo_p99_ms)
    best, most_rps = _most(lanes, options, stream, max_rows, what.slo_p99_ms)
    if what.rate_rps is None:
        return Answer(best, None, most_rps, most_rps, None, None)
    needed = math.ceil(what.rate_rps / most_rps)
    share_rps = what.rate_rps / what.replicas
    if share_rps > most_rps:
        return Answer(
            best, None, most_rps, most_rps, what.replicas * most_rps / what.rate_rps, needed
        )
    fastest, p99_ms = _fastest(lanes, [*options, best], stream, max_rows, what, share_rps)
    serves_rps = most_rps
    if fastest != best:
        serves_rps = max(share_rps, _capacity(fastest, lanes, stream, what.slo_p99_ms))
    headroom = what.replicas * serves_rps / what.rate_rps
    return Answer(fastest, p99_ms, serves_rps, max(most_rps, serves_rps), headroom, needed)


def few(lanes: Lanes, max_rows: int, slo_p99_ms: float) -> list[Settings]:
    """The full grid, thinned out; the largest size and no delay stay."""
    rows = sizes(max_rows)[::-1][::EVERY]
    waits_us = delays_us(slo_p99_ms)[::EVERY]
    found = []
    for threads, instances in pairs(lanes):
        found.append(Settings(max_rows, None, instances, threads))
        for size in rows:
            found += [
                Settings(size, DynamicBatching(wait_us), instances, threads) for wait_us in waits_us
            ]
    return found


def _most(
    lanes: Lanes, options: Sequence[Settings], stream: Stream, max_rows: int, slo_p99_ms: float
) -> tuple[Settings, float]:
    """The settings that serve most within the budget, and how much. Of those that are as good the
    simplest.
    """

    def bound_rps(settings: Settings) -> float:
        return throughput_rps(settings, lane(lanes, settings), stream)

    def holds(settings: Settings, rate_rps: float) -> bool:
        if rate_rps > bound_rps(settings):
            return False
        return predict(settings, lane(lanes, settings), stream, rate_rps).holds(slo_p99_ms)

    seen: dict[Settings, None] = {}
    best, most_rps = options[0], 0.0
    near = sorted(options, key=bound_rps, reverse=True)
    while near:  # first all options, then what is beside the best, until that is no better
        before = best
        for settings in near:
            if settings in seen:
                continue
            seen[settings] = None
            if most_rps == 0.0 or holds(settings, (1 + WITHIN) * most_rps):
                found_rps = _capacity(settings, lanes, stream, slo_p99_ms)
                best, most_rps = max((best, most_rps), (settings, found_rps), key=lambda x: x[1])
        moved = best != before
        near = [s for _, s in neighbours(best, lanes, max_rows, slo_p99_ms)] if moved else []
    for settings in sorted(seen, key=involved):
        if settings == best or involved(settings) >= involved(best):
            break
        if holds(settings, (1 - WORTH) * most_rps):
            return settings, _capacity(settings, lanes, stream, slo_p99_ms)
    return best, most_rps


def _fastest(
    lanes: Lanes,
    options: Sequence[Settings],
    stream: Stream,
    max_rows: int,
    what: WhatIf,
    rate_rps: float,
) -> tuple[Settings, float | None]:
    """The settings of the lowest p99 at a rate, and that."""
    best = by_latency(lanes, options, stream, rate_rps)[0]
    while True:
        beside = [s for _, s in neighbours(best.settings, lanes, max_rows, what.slo_p99_ms)]
        next_best = by_latency(lanes, [best.settings, *beside], stream, rate_rps)[0]
        if next_best.merit <= best.merit:  # as good and simpler is no reason to go on
            return best.settings, best.p99_ms
        best = next_best


def _capacity(settings: Settings, lanes: Lanes, stream: Stream, slo_p99_ms: float) -> float:
    service = lane(lanes, settings)
    return capacity_rps(settings, service, stream, slo_p99_ms, within=WITHIN)


def _number(text: str, given: Mapping[str, str], key: str, usual: float | None) -> float | None:
    if key not in given:
        return usual
    try:
        number = float(given[key])
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"--what-if {text}: {key}={given[key]} is no number above 0")
    return number
