"""Numbers as text. Whatever is missing, null or not finite becomes a dash, never a traceback."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

DASH = "—"
TO = "\N{EN DASH}"
NBSP = "\N{NO-BREAK SPACE}"

_MOST = 1e18
"""Nothing that was measured is larger; what claims to be would break every column and chart."""

_VAST = ((1e15, "quadrillion"), (1e12, "trillion"), (1e9, "billion"))


def number(value: Any) -> float | None:
    """`value` as a float, or None for anything that is not a number or beyond all measure."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -_MOST < value < _MOST else None


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` where it is a JSON object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Any]:
    """`value` where it is a JSON array, else an empty one."""
    return list(value) if isinstance(value, (list, tuple)) else []


def fixed(value: Any, decimals: int) -> str:
    """A number with thousands separators and always `decimals` decimals, so that columns align."""
    n = number(value)
    if n is None:
        return DASH
    if abs(n) < 1e10:
        return f"{n:z,.{decimals}f}"
    size, word = next(vast for vast in _VAST if abs(n) >= vast[0])
    return f"{compact(n / size)} {word}"


def compact(value: Any) -> str:
    """A number with three or four significant digits, for running text. Whole numbers below a
    million stay as they are: a user gave them, or they were counted.
    """
    n = number(value)
    if n is None:
        return DASH
    if n == int(n) and abs(n) < 1e6:
        return fixed(n, 0)
    magnitude = math.floor(math.log10(abs(n)))
    if magnitude >= 2:
        return fixed(round(n, min(3 - magnitude, 0)), 0)
    return fixed(n, {1: 1, 0: 2}.get(magnitude, min(1 - magnitude, 9)))


def count(value: Any) -> str:
    """A whole number with thousands separators."""
    return fixed(value, 0)


def ratio(value: Any, sign: str = "×") -> str:
    """A factor, such as `4.60×`."""
    n = number(value)
    if n is None:
        return DASH
    decimals = 0 if n >= 100 else 1 if n >= 10 else 2 if n >= 0.1 else 3
    return f"{fixed(n, decimals)}{sign}"


def ratio_span(low: Any, high: Any) -> str:
    """The interval of a factor, such as `4.12–5.20×`; `4.12× or more` where it is open, and
    `5.20× or less` where it begins at 0; empty where neither end is known.
    """
    least, most = number(low), number(high)
    if most is None:
        return f"{ratio(least)} or more" if least else ""
    return f"{ratio(least, '')}{TO}{ratio(most)}" if least else f"{ratio(most)} or less"


def pair(interval: Any) -> tuple[float, float | None] | None:
    """The two ends of an interval, the upper one None where it is open; None without a lower."""
    ends = listed(interval)
    low = number(ends[0]) if len(ends) == 2 else None
    return None if low is None else (low, number(ends[1]))


def span(interval: Any, write: Callable[[float], str]) -> str:
    """An interval's ends: `39.8–43.5`, `39.8 or more` where it is open; empty without one."""
    ends = pair(interval)
    if ends is None:
        return ""
    low, high = ends
    return f"{write(low)} or more" if high is None else f"{write(low)}{TO}{write(high)}"


def percent(share: Any) -> str:
    """A share between 0 and 1 as a percentage; small shares keep one decimal, and what is more
    than nothing is never shown as 0.
    """
    n = number(share)
    if n is None:
        return DASH
    if 0 < n < 0.0005:
        return f"<0.1{NBSP}%"
    return f"{n * 100:.1f}{NBSP}%" if 0 < n < 0.0995 else f"{n * 100:.0f}{NBSP}%"


def counted(n: Any, singular: str, plural: str = "") -> str:
    """`1 thread`, `2 threads`, or a dash where the number is not known."""
    text = count(n)
    if text == DASH:
        return DASH
    return f"{text} {singular if text == '1' else plural or singular + 's'}"


def counted_rows(n: Any) -> str:
    """A mean batch size: `14.2 rows`."""
    return DASH if number(n) is None else f"{fixed(n, 1)} rows"


def gibibytes(n_bytes: Any) -> str:
    """Bytes of memory in GiB."""
    n = number(n_bytes)
    return DASH if n is None else f"{n / 2**30:.1f} GiB"


def mebibytes(n_bytes: Any) -> str:
    """Bytes of memory in MiB."""
    n = number(n_bytes)
    return DASH if n is None else f"{compact(n / 2**20)} MiB"


def cpu_list(cpus: Any) -> str:
    """CPU numbers as ranges: [0, 1, 2, 5] is `0-2, 5`, with a true en dash."""
    runs: list[list[int]] = []
    for cpu in sorted({int(c) for c in listed(cpus) if number(c) is not None}):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ", ".join(str(a) if a == b else f"{a}{TO}{b}" for a, b in runs) or DASH


def moment(value: Any) -> str:
    """An ISO 8601 time in UTC to the minute; text that is no time is shown as it is."""
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        return str(value)
    if when.tzinfo is None:
        return f"{when:%Y-%m-%d %H:%M}"
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def text(value: Any) -> str:
    """Any scalar as text, a dash for null and for the empty string."""
    return DASH if value is None or value == "" else str(value)
