"""When requests should start: patterns of arrivals, as pure functions of a rate and a seed.

All but the constant one and the trace are Poisson processes, as independent users make them, whose
rate may change. They are drawn by inversion, which is exact: arrivals of a Poisson process of rate
1 are moved to where the integral of the wanted rate reaches them.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from tritonkit.errors import InputError

LEAST_RPS, MOST_RPS = 1e-9, 1e6
"""No generator comes near the most; a schedule beyond it is a mistake that would fill memory."""

_LEAST_ON_S = 1e-3
_NUMBER = r"([0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?)"
_GRAMMAR = (
    "poisson, constant, bursts, bursts:ON_S,OFF_S, steps:RATExSECONDS,RATExSECONDS, "
    "ramp:FROM-TO, or a trace FILE.jsonl"
)


class Arrival(NamedTuple):
    """A request's intended start, in seconds since that of its level.

    payload: which of the run's requests, from 0; None: in turn. A turn that `share` gives is modulo
    their number.
    """

    start_s: float
    payload: int | None = None


class Arrivals(Protocol):
    """A pattern of arrivals.

    own_rate: it brings its own rates, and `rate_rps` is not looked at. stationary: its rate and
    payloads are the same all through, so what differs at the start is warm-up.
    """

    own_rate: ClassVar[bool]
    stationary: ClassVar[bool]

    @property
    def name(self) -> str:
        """As the user writes it."""

    @property
    def length_s(self) -> float:
        """After this nothing more arrives; infinite for a pattern that lasts as long as the run."""

    def starts(self, rate_rps: float, duration_s: float, seed: int) -> Iterator[Arrival]:
        """Ascending, all before `duration_s`, which may be infinite; drawn as they are taken.

        InputError for a rate that is not from LEAST_RPS to MOST_RPS.
        """

    def mean_rps(self, rate_rps: float, duration_s: float) -> float:
        """How many are expected within `duration_s`, per second."""


@dataclass(frozen=True)
class Poisson:
    """Independent users: exponential gaps, the first one too."""

    own_rate: ClassVar[bool] = False
    stationary: ClassVar[bool] = True
    name: str = field(default="poisson", init=False)
    length_s: float = field(default=math.inf, init=False)

    def starts(self, rate_rps: float, duration_s: float, seed: int) -> Iterator[Arrival]:
        """At the rate `rate_rps`."""
        _require_rate(rate_rps)
        return _invert(lambda expected: expected / rate_rps, duration_s, seed)

    def mean_rps(self, rate_rps: float, duration_s: float) -> float:
        """`rate_rps`."""
        return rate_rps


@dataclass(frozen=True)
class Constant:
    """Evenly spaced, from 0 on. The seed plays no part."""

    own_rate: ClassVar[bool] = False
    stationary: ClassVar[bool] = True
    name: str = field(default="constant", init=False)
    length_s: float = field(default=math.inf, init=False)

    def starts(self, rate_rps: float, duration_s: float, seed: int) -> Iterator[Arrival]:
        """At the rate `rate_rps`."""
        _require_rate(rate_rps)
        evenly = (Arrival(i / rate_rps) for i in itertools.count())
        return itertools.takewhile(lambda arrival: arrival.start_s < duration_s, evenly)

    def mean_rps(self, rate_rps: float, duration_s: float) -> float:
        """`rate_rps`."""
        return rate_rps


@dataclass(frozen=True)
class Bursts:
    """Poisson for `on_s` seconds, then nothing for `off_s`, and so on; it begins with a burst.

    A burst is as much faster than `rate_rps` as makes that the mean of a whole cycle.
    """

    on_s: float = 0.2
    off_s: float = 0.8
    own_rate: ClassVar[bool] = False
    stationary: ClassVar[bool] = False
    length_s: float = field(default=math.inf, init=False)

    def __post_init__(self) -> None:
        if not (_LEAST_ON_S <= self.on_s < math.inf and 0 <= self.off_s < math.inf):
            raise InputError(f"{self.name}: ON_S must be 0.001 or more, and OFF_S 0 or more")

    @property
    def name(self) -> str:
        """`bursts:0.2,0.8`."""
        return f"bursts:{_text(self.on_s)},{_text(self.off_s)}"

    def starts(self, rate_rps: float, duration_s: float, seed: int) -> Iterator[Arrival]:
        """At `rate_rps` in the mean of a cycle."""
        _require_rate(rate_rps)
        cycle_s = self.on_s + self.off_s
        on_rps = rate_rps * cycle_s / self.on_s

        def place(expected: float) -> float:
            cycles, into_s = divmod(expected / on_rps, self.on_s)
            return cycles * cycle_s + into_s

        return _invert(place, duration_s, seed)

    def mean_rps(self, rate_rps: float, duration_s: float) -> float:
        """`rate_rps` if `duration_s` is a number of whole cycles; else what its part of one adds
        or lacks.
        """
        if math.isinf(duration_s):
            return rate_rps
        cycle_s = self.on_s + self.off_s
        cycles, into_s = divmod(duration_s, cycle_s)
        on_s = cycles * self.on_s + min(into_s, self.on_s)
        return rate_rps * cycle_s / self.on_s * on_s / duration_s


@dataclass(frozen=True)
class Steps:
    """Poisson at one rate after another: (requests per second, seconds) of each. Then nothing."""

    steps: tuple[tuple[float, float], ...]
    own_rate: ClassVar[bool] = True
    stationary: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for rate_rps, step_s in self.steps:
            if not (0 <= rate_rps <= MOST_RPS and 0 < step_s < math.inf):
                raise InputError(
                    f"{self.name}: a step has a rate from 0 to {MOST_RPS:.0f} requests per second, "
                    "and lasts more than 0 seconds"
                )
        if not any(rate_rps for rate_rps, _ in self.steps):
            raise InputError(f"{self.name}: no step has a rate above 0; nothing would be sent")

    @property
    def name(self) -> str:
        """`steps:100x10,200x10`."""
        return "steps:" + ",".join(f"{_text(rate)}x{_text(s)}" for rate, s in self.steps)

    @property
    def length_s(self) -> float:
        """Of all steps together."""
        return math.fsum(step_s for _, step_s in self.steps)

    def starts(self, rate_rps: float, duration_s: float, seed: int) -> Iterator[Arrival]:
        """At the rates of the steps."""
        steps = [step for step in self.steps if step[0]]
        counts = list(itertools.accumulate((rate * s for rate, s in steps), initial=0.0))
        begins = itertools.accumulate((s for _, s in self.steps), initial=0.0)
        # A step of rate 0 has no arrivals to be placed, and only moves those after it.
        begins_s = [begin for begin, step in zip(begins, self.steps, strict=False) if step[0]]

        def place(expected: float) -> float:
            i = bisect_right(counts, expected) - 1
            if i == len(steps):
                return math.inf
            rate, step_s = steps[i]
            return begins_s[i] + min((expected - counts[i]) / rate, step_s)

        return _invert(place, duration_s, seed)

    def mean_rps(self, rate_rps: float, duration_s: float) -> float:
        """Of the steps that lie within `duration_s`, which may be longer than they are."""
        expected, left_s = 0.0, duration_s
        for rate, step_s in self.steps:
            expected += rate * min(step_s, left_s)
            left_s -= min(step_s, left_s)
        return expected / duration_s


@dataclass(frozen=True)
class Ramp:
    """Poisson at a rate that changes evenly from one to another over the whole run."""

    from_rps: float
    to_rps: float
    own_rate: ClassVar[bool] = True
    stationary: ClassVar[bool] = False
    length_s: float = field(default=math.inf, init=False)

    def __post_init__(self) -> None:
        if not (0 <= self.from_rps <= MOST_RPS and 0 <= self.to_rps <= MOST_RPS):
            raise InputError(f"{self.name}: its rates must be from 0 to {MOST_RPS:.0f} requests/s")
        if not self.from_rps + self.to_rps:
            raise InputError(f"{self.name}: one of its rates must be above 0")

    @property
    def name(self) -> str:
        """`ramp:10-200`."""
        return f"ramp:{_text(self.from_rps)}-{_text(self.to_rps)}"

    def starts(self, rate_rps: float, duration_s: float, seed: int) -> Iterator[Arrival]:
        """At `from_rps` in the beginning and `to_rps` at `duration_s`. InputError if that is
        infinite.
        """
        total = self.mean_rps(rate_rps, duration_s) * duration_s
        slope = (self.to_rps - self.from_rps) / duration_s

        def place(expected: float) -> float:
            if expected >= total:
                return math.inf
            # Where from·t + slope·t²/2 is `expected`, in the form that does not cancel.
            root = math.sqrt(max(self.from_rps**2 + 2 * slope * expected, 0.0))
            return 2 * expected / (self.from_rps + root) if expected else 0.0

        return _invert(place, duration_s, seed)

    def mean_rps(self, rate_rps: float, duration_s: float) -> float:
        """Midway between the two."""
        if math.isinf(duration_s):
            raise InputError(f"{self.name}: a ramp needs an end; say how long the run is")
        return (self.from_rps + self.to_rps) / 2


@dataclass(frozen=True)
class Trace:
    """Arrivals that were recorded, at their times and with their payloads. See `read_trace`."""

    name: str
    arrivals: tuple[Arrival, ...] = field(repr=False)
    own_rate: ClassVar[bool] = True
    stationary: ClassVar[bool] = False

    @property
    def length_s(self) -> float:
        """To the first millisecond that is after the last of them, so that it is sent, too."""
        return (math.floor(self.arrivals[-1].start_s * 1e3) + 1) / 1e3

    def starts(self, rate_rps: float, duration_s: float, seed: int) -> Iterator[Arrival]:
        """Those before `duration_s`. InputError if there are none."""
        first_s = self.arrivals[0].start_s
        if first_s >= duration_s:
            raise InputError(
                f"{self.name}: its first arrival is at {_text(first_s)} s, and the run ends at "
                f"{_text(duration_s)} s; t_s counts from the start of the run"
            )
        return itertools.takewhile(lambda arrival: arrival.start_s < duration_s, self.arrivals)

    def mean_rps(self, rate_rps: float, duration_s: float) -> float:
        """Of those before `duration_s`, which may be longer than the trace."""
        return sum(arrival.start_s < duration_s for arrival in self.arrivals) / duration_s


POISSON = Poisson()


def parse_arrivals(text: str) -> Arrivals:
    """The pattern that a user names; reads the file of a trace. InputError if it is none."""
    if text.endswith(".jsonl"):
        return read_trace(Path(text))
    if text == "poisson":
        return POISSON
    if text == "constant":
        return Constant()
    if text == "bursts":
        return Bursts()
    if match := re.fullmatch(f"bursts:{_NUMBER},{_NUMBER}", text):
        return Bursts(float(match[1]), float(match[2]))
    if match := re.fullmatch(f"ramp:{_NUMBER}-{_NUMBER}", text):
        return Ramp(float(match[1]), float(match[2]))
    if text.startswith("steps:"):
        matches = [re.fullmatch(f"{_NUMBER}x{_NUMBER}", s) for s in text[6:].split(",")]
        steps = tuple((float(match[1]), float(match[2])) for match in matches if match)
        if len(steps) == len(matches):
            return Steps(steps)
    raise InputError(f"{text!r:.80} is no pattern of arrivals; give {_GRAMMAR}")


def read_trace(path: Path) -> Trace:
    """The arrivals in a file of JSON lines, `{"t_s": SECONDS, "payload": INDEX}`, where payload may
    be missing. In order of time, whatever their order in the file; of the same time, as there.

    InputError if it cannot be read, has none, or a line is something else.
    """
    arrivals = []
    try:
        if not path.is_file():
            raise InputError(f"no trace file {path}; {_LINE}")
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    arrivals.append(_read_arrival(line, f"{path} line {number}"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if not arrivals:
        raise InputError(f"{path} has no arrivals; {_LINE}")
    return Trace(str(path), tuple(sorted(arrivals, key=lambda arrival: arrival.start_s)))


def share(arrivals: Iterator[Arrival], i: int, n: int) -> Iterator[Arrival]:
    """Worker i's part of a stream that n workers send together: every n-th arrival from the i-th.

    Those that were to be sent in turn get their turn in the whole stream as their payload.
    """
    for turn, arrival in itertools.islice(enumerate(arrivals), i, None, n):
        yield arrival if arrival.payload is not None else arrival._replace(payload=turn)


def require_payloads(arrivals: Arrivals, count: int) -> None:
    """InputError if a trace asks for a request that is none of the run's `count`."""
    for start_s, payload in arrivals.arrivals if isinstance(arrivals, Trace) else ():
        if payload is not None and payload >= count:
            raise InputError(
                f"{arrivals.name}: the arrival at {_text(start_s)} s has payload {payload}, and "
                f"the {count} requests are numbered from 0 to {count - 1}; send more, or name "
                "others in the trace"
            )


_LINE = 'write one arrival a line: {"t_s": 0.25} or {"t_s": 0.25, "payload": 3}'


def _read_arrival(line: bytes, where: str) -> Arrival:
    try:
        found: Any = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # not UTF-8, no JSON, a number of too many digits
        raise InputError(f"{where} is not JSON; {_LINE}") from None
    if not isinstance(found, dict) or "t_s" not in found:
        raise InputError(f"{where} has no t_s; {_LINE}")
    if unknown := found.keys() - {"t_s", "payload"}:
        raise InputError(f"{where} has {min(unknown)!a:.40}, which means nothing here; {_LINE}")
    start_s, payload = found["t_s"], found.get("payload")
    if type(start_s) not in (int, float) or not 0 <= start_s < 1e300:
        raise InputError(f"{where}: t_s must be a number of seconds from 0 on; {_LINE}")
    if payload is not None and (type(payload) is not int or payload < 0):
        raise InputError(f"{where}: payload must be a whole number from 0 on; {_LINE}")
    return Arrival(float(start_s), payload)


def _invert(place: Callable[[float], float], duration_s: float, seed: int) -> Iterator[Arrival]:
    """A Poisson process of a changing rate.

    place: when so many arrivals are expected to have been, the inverse of the rate's integral;
    infinite if that never happens.
    """
    gaps = random.Random(seed)
    expected = gaps.expovariate(1.0)
    while (start_s := place(expected)) < duration_s:
        yield Arrival(start_s)
        expected += gaps.expovariate(1.0)


def _require_rate(rate_rps: float) -> None:
    if not LEAST_RPS <= rate_rps <= MOST_RPS:
        raise InputError(
            f"{_text(rate_rps)} requests per second: the rate must be above 0, and at most "
            f"{MOST_RPS:.0f}"
        )


def _text(number: float) -> str:
    """As short as it can be, and still the same number when it is read again."""
    return repr(float(number)).removesuffix(".0")
