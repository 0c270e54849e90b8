"""What can decide over a model's batches: each cause, how it shows, and its remedy in words.

They are tried in order, what is certain first. Where the statistics only agree with a cause, its
words say so: "consistent with".
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tritonkit.stats.traffic import Batching, Traffic, row_gain

HAPPENS = 1.5
"""Requests that share a run, in the mean, from which on batching is said to happen."""
HARDLY = 1.1
"""Below this it does not happen; in between it hardly does."""

PAYS = 1.1
"""What a row in a batch must gain: less is lost again in putting batches together."""

_FULL = 0.9  # of max_batch_size: no second request fits
FAILING = 0.1
CACHED = 0.5
BOUND = 0.7  # of max_queue_size, in the mean: the bound must be reached often
_IN_VAIN = 0.6  # of the delay
_IDLE = 0.5  # instances that run at once: with fewer, they wait for requests more than they work
_OVERLAP = 1.5  # and with more, one instance would have requests wait for it
# An unhindered batcher takes all that waits, so that in the mean no more than one batch waits.
_HINDERED = 1.5
_LONGEST_DELAY_S = 0.005
_ALONE = 1.3  # requests in flight


class Finding(NamedTuple):
    """cause: a name for programs. headline: what is the matter. why: the numbers that show it.
    remedy: what to do about it."""

    cause: str
    headline: str
    why: str
    remedy: str


def ensemble(b: Batching) -> Finding:
    """Of a model that is made of others."""
    return Finding(
        "ensemble",
        "an ensemble runs nothing itself",
        f"its steps batch, each by its own settings: {', '.join(b.steps)}",
        "ask `tritonkit doctor` about each of them",
    )


RESTARTED = Finding(
    "restarted",
    "the counters began anew while they were watched",
    "a counter went backwards: the server restarted, the model was loaded anew, or the address "
    "leads to more than one server",
    "look again, at one server's own address, when it has settled",
)


def cause_of(batching: Batching, traffic: Traffic) -> Finding:
    """The first cause that shows."""
    return next(found for rule in _RULES if (found := rule(batching, traffic)) is not None)


# What the config or the requests rule out


def _no_batch(b: Batching, t: Traffic) -> Finding | None:
    if b.max_batch_size > 1:
        return None
    return Finding(
        "max_batch_size",
        f"batching cannot happen: max_batch_size is {b.max_batch_size}",
        "a run has one row" if b.max_batch_size else "Triton gives the model one request at a time",
        "if `tritonkit check` proves the model safe to batch, give it a larger max_batch_size",
    )


def _full_requests(b: Batching, t: Traffic) -> Finding | None:
    if not t.runs or t.rows_per_request < _FULL * b.max_batch_size:
        return None
    return Finding(
        "full_requests",
        "the clients batch: requests are as large as a run may be",
        f"{about(t.rows_per_request)} rows a request, and max_batch_size is {b.max_batch_size}: no "
        "second one fits",
        "nothing to do; only a larger max_batch_size would let requests share runs as well",
    )


def _no_scheduler(b: Batching, t: Traffic) -> Finding | None:
    if b.scheduler != "none" or _shared(t) >= HAPPENS:  # what is no Triton may batch all the same
        return None
    runs = f": {t.runs:,} runs for {t.requests:,} requests" if t.runs else ""
    little = f"; at {about(t.in_flight)} in flight it would change little"
    return Finding(
        "no_scheduler",
        "batching cannot happen: the config has no dynamic_batching",
        f"each request is a run of its own{runs}",
        "add `dynamic_batching { }` to its config.pbtxt, and measure what it brings with "
        f"`tritonkit compare`{little if t.runs and t.in_flight < _needed(1) else ''}",
    )


# What keeps requests from runs


def _no_traffic(b: Batching, t: Traffic) -> Finding | None:
    if t.requests or t.failures:
        return None
    return Finding(
        "no_traffic",
        "no traffic",
        f"no request ended within {about(t.watched_s)} s",
        "send the load that it is to serve, or watch longer with --watch-s",
    )


def _failing(b: Batching, t: Traffic) -> Finding | None:
    if t.failures < FAILING * (t.requests + t.failures):
        return None
    share = f"{t.failures:,} of {t.requests + t.failures:,} requests failed"
    if b.timeout_us and t.failed_ms is not None and t.failed_ms * 1e3 >= b.timeout_us:
        return Finding(
            "timeouts",
            "requests wait too long and are refused",
            f"{share}, after {about(t.failed_ms)} ms in the mean: consistent with a timeout in the "
            f"queue of {about(b.timeout_us / 1e3)} ms",
            "more comes than can be run in time: send less, add capacity, or allow more time",
        )
    return Finding(
        "failures",
        "requests fail",
        share,
        "find out why first, in the clients or the server's log; failed requests say nothing of "
        "batching",
    )


def _queue_bound(b: Batching, t: Traffic) -> Finding | None:
    if not b.max_queue_size or t.waiting < BOUND * b.max_queue_size:
        return None
    tight = b.max_queue_size < b.max_batch_size
    return Finding(
        "queue_full",
        "the queue is full",
        f"{about(t.waiting)} requests wait in the mean, and max_queue_size is {b.max_queue_size}: "
        "consistent with requests that are refused, which these statistics do not count"
        + (f"; nor can {b.max_batch_size} rows come together" if tight else ""),
        f"raise max_queue_size to a few times {b.max_batch_size}, the max_batch_size"
        if tight
        else "more comes than can be run: send less, or add capacity",
    )


def _cache(b: Batching, t: Traffic) -> Finding | None:
    if not t.cache_hits or t.cache_hits < CACHED * t.requests:
        return None
    return Finding(
        "cache",
        "the response cache answers most requests",
        f"{t.cache_hits:,} of {t.requests:,} were answered from it; the rest took {t.runs:,} runs",
        "nothing to do, if real requests repeat so; a test should send each one once",
    )


def _unreported(b: Batching, t: Traffic) -> Finding | None:
    if t.runs:
        return None
    return Finding(
        "unreported",
        "the backend does not report its runs",
        f"{t.requests:,} requests were answered, and no run was counted",
        "watch longer with --watch-s; if it stays so, statistics cannot tell whether it batches",
    )


# What keeps requests that wait from sharing a run


def _too_many_rows(b: Batching, t: Traffic) -> Finding | None:
    if t.rows_per_request <= b.max_batch_size / 2 or _shared(t) >= HAPPENS:
        return None
    return Finding(
        "rows_do_not_fit",
        f"{_how(t)}: two requests do not fit into a run",
        f"{about(t.rows_per_request)} rows a request, and max_batch_size is {b.max_batch_size}",
        "raise max_batch_size if `tritonkit check` proves more rows safe, or send fewer a request",
    )


def _preferred(b: Batching, t: Traffic) -> Finding | None:
    most = max(b.preferred, default=0)
    if not _hindered(b, t) or not 0.7 * most <= (t.mean_batch or 0) <= 2 * most:
        return None
    return Finding(
        "preferred_batch_size",
        f"{_how(t)}: consistent with preferred_batch_size, which holds them at {most}",
        f"{_wait(b, t)}; preferred_batch_size is {list(b.preferred)}",
        "remove preferred_batch_size from the config",
    )


def _sequences(b: Batching, t: Traffic) -> Finding | None:
    if not _hindered(b, t) or b.scheduler != "sequence":
        return None
    return Finding(
        "sequences",
        f"{_how(t)}: consistent with requests of one sequence, which wait for each other",
        _wait(b, t),
        "only more sequences at a time make larger batches",
    )


def _shapes(b: Batching, t: Traffic) -> Finding | None:
    if not _hindered(b, t) or not b.must_agree:
        return None
    return Finding(
        "shapes",
        f"{_how(t)}: consistent with requests whose shapes differ",
        f"{_wait(b, t)}; but requests share a run only if they have the same sizes of "
        f"{', '.join(b.must_agree)}, batch aside",
        "send few sizes: pad, if `tritonkit check` finds that padding changes no answer",
    )


def _hindrance(b: Batching, t: Traffic) -> Finding | None:
    if not _hindered(b, t):
        return None
    return Finding(
        "unexplained",
        f"{_how(t)}: requests wait, and nothing in the config says for what",
        _wait(b, t),
        "look for what else holds runs up: other models on the same device, a rate limiter, the "
        "server's log",
    )


# What batching brings where it happens


def _happens(b: Batching, t: Traffic) -> Finding | None:
    if _shared(t) < HAPPENS:
        return None
    shared = f"{about(_shared(t))} requests a run"
    gain = row_gain(t)
    if gain is None:
        return Finding(
            "happens",
            "batching happens",
            f"{shared}; whether it pays cannot be told, as all runs were about as large",
            "`tritonkit check` measures what a batch brings, `tritonkit compare` the whole",
        )
    rows = (
        f"{shared}; a row costs {about(gain.alone_ms)} ms in a run of {gain.alone} and "
        f"{about(gain.shared_ms)} ms in runs of {2 * gain.alone} or more"
    )
    if gain.ratio < PAYS:
        return Finding(
            "does_not_pay",
            "batching happens, but costs as much per row",
            rows,
            "measure it against no batching with `tritonkit compare`; more instances may do more",
        )
    saturated = (t.mean_batch or 0) >= _FULL * b.max_batch_size and t.waiting > _shared(t)
    return Finding(
        "healthy",
        f"batching happens and pays: {gain.ratio:.1f}× per row",
        rows,
        f"runs are full at {b.max_batch_size} rows and requests wait: a larger max_batch_size may "
        "bring more"
        if saturated
        else "nothing to do",
    )


# Why nothing waits, so that nothing is shared


def _client_batches(b: Batching, t: Traffic) -> Finding | None:
    if t.rows_per_request < 2:
        return None
    return Finding(
        "client_batches",
        f"the clients batch: a request brings {about(t.rows_per_request)} rows",
        f"{about(_shared(t))} requests a run, {about(t.in_flight)} in flight",
        "nothing to do; for requests to share runs as well, about "
        f"{_needed(b.instances)} must be in flight at once",
    )


def _delay_in_vain(b: Batching, t: Traffic) -> Finding | None:
    if not b.delay_us or (t.queue_ms or 0) * 1e3 < _IN_VAIN * b.delay_us:
        return None
    return Finding(
        "delay_in_vain",
        f"{_how(t)}: the delay is waited for in vain",
        f"a request waits {about(t.queue_ms or 0)} ms, of a max_queue_delay of "
        f"{about(b.delay_us / 1e3)} ms, for others that do not come: {about(_shared(t))} requests "
        "a run",
        "set max_queue_delay_microseconds to 0; at this load it costs its time and brings nothing",
    )


def _instances(b: Batching, t: Traffic) -> Finding | None:
    if b.instances == 1 or t.running < _OVERLAP:
        return None
    return Finding(
        "instances",
        f"{_how(t)}: {b.instances} instances drain the queue",
        f"{about(t.in_flight)} requests are in flight and only {about(t.waiting)} of them wait: "
        f"{about(t.running)} instances run at once",
        "try one instance with the threads of all: the others would wait for it and share a run; "
        "keep what measures better",
    )


def _no_delay(b: Batching, t: Traffic) -> Finding | None:
    quick = t.rate_rps * _LONGEST_DELAY_S >= 2 and t.running < _IDLE
    if b.scheduler != "dynamic" or b.delay_us or not quick or _take_turns(b, t):
        return None
    delay_s = min(3 / t.rate_rps, _LONGEST_DELAY_S)
    return Finding(
        "no_delay",
        f"{_how(t)}: a run ends before the next request comes",
        f"a request every {about(1e3 / t.rate_rps)} ms, a run takes {about(t.mean_run_ms or 0)} "
        "ms, and with a max_queue_delay of 0 none waits for others",
        f"nothing to do: the instances are busy {_percent(t.busy)}. A delay of "
        f"{about(delay_s * 1e3)} ms might bring {about(1 + t.rate_rps * delay_s)} requests a run "
        "and adds as much to every answer; callers that wait for their answers rarely gain by it",
    )


def _too_few(b: Batching, t: Traffic) -> Finding | None:
    if t.in_flight >= _needed(b.instances):
        return None
    why = (
        f"{about(t.in_flight)} requests are in flight at once ({about(t.rate_rps)} a second, "
        f"{about(t.server_ms or 0)} ms each); batches of 2 need about {_needed(b.instances)} with "
        f"{b.instances} instance{'s' if b.instances > 1 else ''}"
    )
    remedy = (
        f"nothing to do: the instances are busy {_percent(t.busy)}, and what comes at once is "
        "batched when more comes"
        if t.busy < _IDLE
        else f"send more at once; the instances are busy {_percent(t.busy)} already"
    )
    if _take_turns(b, t) and t.in_flight < _ALONE:
        why += "; consistent with one caller that waits for each answer"
        remedy = "send from several callers at once, or do not wait for each answer"
    return Finding("low_concurrency", f"{_how(t)}: too little concurrency", why, remedy)


def _unexplained(b: Batching, t: Traffic) -> Finding | None:
    return Finding(
        "unexplained",
        f"{_how(t)}, and the statistics do not say why",
        f"{about(t.in_flight)} requests are in flight, {about(t.waiting)} of them wait, and "
        f"{about(_shared(t))} share a run",
        "their time goes elsewhere than to the queue and the runs: look at the server's trace",
    )


def _shared(t: Traffic) -> float:
    return t.requests_per_run or 1.0


def _how(t: Traffic) -> str:
    if _shared(t) >= HAPPENS:
        return "batches stay small"
    return "batching does not happen" if _shared(t) < HARDLY else "batching hardly happens"


def _wait(b: Batching, t: Traffic) -> str:
    return (
        f"{about(t.waiting)} requests wait in the mean, yet a run fills "
        f"{about(t.mean_batch or 0)} of {b.max_batch_size} rows"
    )


def _hindered(b: Batching, t: Traffic) -> bool:
    """Whether more waits than a batcher leaves that takes all there is, though there is room."""
    room = (t.mean_batch or 0) + t.rows_per_request <= b.max_batch_size
    return room and t.waiting >= _HINDERED * (t.usual_company or 1.0)


def _needed(instances: int) -> int:
    """Requests in flight for batches of 2: as many run in each instance as wait for the next."""
    return 2 * (instances + 1)


def _take_turns(b: Batching, t: Traffic) -> bool:
    """Whether far fewer requests met than independent callers', at whose rate now and then two or
    more come during a run. Only one instance tells: of several another is free."""
    if b.instances > 1 or not t.runs:
        return False
    during = t.rate_rps * (t.mean_run_ms or 0) / 1e3
    expected = t.runs * (1 - math.exp(-during) * (1 + during))
    return expected >= 10 and (_shared(t) - 1) * t.runs < 0.1 * expected


def about(value: float) -> str:
    """A number with two or three digits that say something, for running text."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.{2 if value < 1 else 3}g}"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


_RULES = (
    *(_no_batch, _full_requests, _no_scheduler),
    *(_no_traffic, _failing, _queue_bound, _cache, _unreported),
    *(_too_many_rows, _preferred, _sequences, _shapes, _hindrance),
    _happens,
    *(_client_batches, _delay_in_vain, _instances, _no_delay, _too_few, _unexplained),
)
