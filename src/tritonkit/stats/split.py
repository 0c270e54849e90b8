"""Where the time of a request goes: the client's clock and the server's counters side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tritonkit.samples import NOT_SENT, Sample
from tritonkit.stats.scrape import ServerCounters

WITHIN = 0.1
"""The parts must add up within so much of the whole."""


@dataclass(frozen=True)
class TimeSplit:
    """Milliseconds of the mean answered request; the warm-up is in it, as the counters have it.

    client_ms: from its intended start until it was sent, or was put off because all connections
    were busy. connection_ms: from then until one was free and it was sent: a wait for the server,
    which the server does not see. wire_ms: what the client waited beyond the server's own total:
    the network, the front end, reading the answer. queue_ms, input_ms, compute_ms, output_ms: the
    server's parts. A run counts for each of the requests that shared it, so that compute_ms is
    what a request waited for and not what it cost. total_ms: what the client saw, from the
    intended start.
    adds_up: whether the parts make up total_ms within WITHIN, and none is negative by more.
    remark: why they do not, or why they may be of other requests as well; "" if all is well.
    """

    client_ms: float
    wire_ms: float
    queue_ms: float
    input_ms: float
    compute_ms: float
    output_ms: float
    total_ms: float
    adds_up: bool
    remark: str
    connection_ms: float = 0.0


def split(samples: Sequence[Sample], counted: ServerCounters) -> TimeSplit | None:
    """The split of one level. counted: by the server, from before its first request to after its
    last.

    None if nothing was answered, or if the server counts no times.
    """
    good = [s for s in samples if not s.error]
    if not good or counted.requests <= 0 or counted.success_ns <= 0:
        return None
    total_ms = fmean(s.done_ns - s.intended_ns for s in good) / 1e6
    unsent_ms = fmean(s.sent_ns - s.intended_ns for s in good) / 1e6
    put_off = (s.sent_ns - s.put_off_ns for s in good if s.put_off_ns is not None)
    connection_ms = sum(put_off) / len(good) / 1e6
    server_ms, queue_ms, input_ms, compute_ms, output_ms = (
        ns / counted.requests / 1e6
        for ns in (
            counted.success_ns,
            counted.queue_ns,
            counted.input_ns,
            counted.compute_ns,
            counted.output_ns,
        )
    )
    service_ms = total_ms - unsent_ms
    parts_ms = queue_ms + input_ms + compute_ms + output_ms
    cached = counted.cache_hits / counted.requests
    wrong = _wrong(total_ms, service_ms, server_ms, parts_ms, cached)
    return TimeSplit(
        client_ms=unsent_ms - connection_ms,
        connection_ms=connection_ms,
        wire_ms=service_ms - server_ms,
        queue_ms=queue_ms,
        input_ms=input_ms,
        compute_ms=compute_ms,
        output_ms=output_ms,
        total_ms=total_ms,
        adds_up=not wrong,
        remark=_others(samples, len(good), counted) or wrong,
    )


def _others(samples: Sequence[Sample], answers: int, counted: ServerCounters) -> str:
    """Whether the server's means are of other requests than the client's."""
    sent = sum(s.error != NOT_SENT for s in samples)
    ended = counted.requests + counted.failures
    if ended > (1 + WITHIN) * sent:
        return (
            f"the server counts {ended:,} requests, of which this client sent {sent:,}: others "
            "use it too, and its times are of theirs as well"
        )
    if counted.requests > (1 + WITHIN) * answers:
        return (
            f"the server answered {counted.requests:,} requests, of which this client took "
            f"{answers:,} in time: the server's times are of the others as well"
        )
    if counted.requests < (1 - WITHIN) * answers:
        return (
            f"the server counts {counted.requests:,} of this client's {answers:,} answers: the "
            "others came from elsewhere, and the server's times are not of them"
        )
    return ""


def _wrong(
    total_ms: float, service_ms: float, server_ms: float, parts_ms: float, cached: float
) -> str:
    """Where the parts do not make up the whole. service_ms: from the real send. cached: the share
    of answers from the cache.
    """
    missing_ms = server_ms - parts_ms
    if service_ms - server_ms < -WITHIN * total_ms:
        return (
            f"the server counts {_ms(server_ms)} a request and the client waited only "
            f"{_ms(service_ms)}: they are not of the same requests, or a clock is wrong"
        )
    if abs(missing_ms) <= WITHIN * total_ms:
        return ""
    if missing_ms < 0:
        return (
            f"the server's parts make up {_ms(parts_ms)}, more than the {_ms(server_ms)} a "
            "request that it counts itself"
        )
    from_cache = f"; {cached:.0%} of the answers came from its cache" if cached > 0 else ""
    return (
        f"the server's parts make up {_ms(parts_ms)} of the {_ms(server_ms)} a request that it "
        f"counts itself; {_ms(missing_ms)} are in none of them{from_cache}"
    )


def _ms(ms: float) -> str:
    """Three digits, and all of a large number."""
    return f"{ms:,.0f} ms" if abs(ms) >= 100 else f"{ms:.3g} ms"
