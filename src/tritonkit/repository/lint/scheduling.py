"""Rules about batching: the dynamic batcher, its queues, and the response cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tritonkit.repository.lint.entry import Entry
from tritonkit.repository.lint.problem import Finding

_REFUSED = "Triton does not load the model"

LONG_DELAY_MS = 100.0
"""A queue delay that is taken for a mistake where no latency budget is known: it is beyond what
interactive services grant a whole answer, and usually a number of milliseconds with too many 0s.
"""


def preferred_batch_size(entry: Entry) -> Iterator[Finding]:
    """A preferred batch size below 1 or above max_batch_size."""
    config = entry.message
    for where, sizes in _preferred(entry):
        for i, size in enumerate(sizes):
            if not 1 <= size <= config.max_batch_size:
                yield Finding(
                    entry.line(*where, i),
                    f"preferred batch size {size} is not in 1..{config.max_batch_size}",
                    _REFUSED,
                    "leave preferred_batch_size out, or raise max_batch_size",
                )


def preferred_for_onnx(entry: Entry) -> Iterator[Finding]:
    """Preferred batch sizes of an ONNX model."""
    for where, sizes in _preferred(entry):
        if entry.is_onnx and sizes:
            yield Finding(
                entry.line(*where),
                f"preferred batch sizes {list(sizes)} for an ONNX model",
                "they are for models that are much faster at some sizes; for others they make "
                "requests wait for a size while an instance is idle, if there is a queue delay",
                "leave preferred_batch_size out",
            )


def batching_without_batches(entry: Entry) -> Iterator[Finding]:
    """dynamic_batching with a max_batch_size of 0."""
    config = entry.message
    if config.HasField("dynamic_batching") and config.max_batch_size == 0:
        if entry.auto_completed and any(model.batchable for _, model in entry.loadable()):
            return  # auto-complete-batching
        yield Finding(
            entry.line("dynamic_batching"),
            "dynamic_batching without max_batch_size",
            "Triton loads the model and runs each request alone",
            "write max_batch_size, or take dynamic_batching out",
        )


def no_scheduler(entry: Entry) -> Iterator[Finding]:
    """max_batch_size > 1 without a batcher."""
    config = entry.message
    scheduled = config.HasField("dynamic_batching") or config.HasField("sequence_batching")
    if config.max_batch_size > 1 and not scheduled and not entry.is_ensemble:
        if entry.auto_completed and any(model.batchable for _, model in entry.loadable()):
            return  # auto-complete-batching
        yield Finding(
            entry.line("max_batch_size"),
            f"max_batch_size is {config.max_batch_size} and there is no dynamic_batching",
            "no two requests ever share a run; one request may bring several rows",
            "write dynamic_batching { }, if requests are to share runs",
        )


def queue_delay(entry: Entry) -> Iterator[Finding]:
    """A queue delay beyond the latency budget; without a budget, beyond 100 ms."""
    budget_ms = entry.limits.slo_p99_ms
    delay_us = entry.message.dynamic_batching.max_queue_delay_microseconds
    if delay_us / 1000 < (LONG_DELAY_MS + 0.001 if budget_ms is None else budget_ms):
        return
    why = "a request that waits for company that long is late before it runs"
    yield Finding(
        entry.line("dynamic_batching", "max_queue_delay_microseconds"),
        f"max_queue_delay_microseconds is {delay_us} ({delay_us / 1000:g} ms)",
        why if budget_ms is None else f"{why}: the budget is {budget_ms:g} ms",
        "write a delay well below the latency budget, or none",
    )


def unbounded_queue(entry: Entry) -> Iterator[Finding]:
    """A dynamic batcher's queue that may grow without end."""
    if not entry.message.HasField("dynamic_batching"):
        return
    block = entry.message.dynamic_batching
    default = block.default_queue_policy
    levels = dict(block.priority_queue_policy)
    without_own = not block.priority_levels or len(levels) < block.priority_levels
    open_ended = [key for key, policy in levels.items() if not _bounded(policy)]
    if without_own and not _bounded(default):
        at = entry.line("dynamic_batching", "default_queue_policy")
    elif block.priority_levels and open_ended:
        at = entry.line("dynamic_batching", "priority_queue_policy", open_ended[0])
    else:
        return
    yield Finding(
        at,
        "the queue has no bound",
        "when requests come faster than they are served, memory and every wait grow without end",
        "hold back what is too much before Triton, or write default_queue_policy { max_queue_size: "
        "N } (tritonkit package --max-queue-size N): Triton then refuses the rest at once, but its "
        "2.51 also answers later below the bound, and stalls at it (benchmarks/README.md, "
        "queue_policy.py)",
    )


def priorities(entry: Entry) -> Iterator[Finding]:
    """A default priority, or a queue policy's, that is not among priority_levels."""
    block = entry.message.dynamic_batching
    levels = block.priority_levels
    if not levels:
        return
    if not 1 <= block.default_priority_level <= levels:
        yield Finding(
            entry.line("dynamic_batching", "default_priority_level"),
            f"default_priority_level is {block.default_priority_level} of {levels}",
            _REFUSED,
            f"write a default_priority_level of 1 to {levels}",
        )
    for key in block.priority_queue_policy:
        if not 1 <= key <= levels:
            what = f"there is a queue policy for priority {key} of {levels}"
            at = entry.line("dynamic_batching", "priority_queue_policy", key)
            yield Finding(at, what, _REFUSED, f"write a key of 1 to {levels}")


def priority_policy_unused(entry: Entry) -> Iterator[Finding]:
    """Queue policies for priorities that the model does not have."""
    block = entry.message.dynamic_batching
    if block.priority_queue_policy and not block.priority_levels:
        yield Finding(
            entry.line("dynamic_batching", "priority_queue_policy"),
            "priority_queue_policy without priority_levels",
            "Triton has one queue then, under default_queue_policy",
            "write priority_levels, or default_queue_policy in its place",
        )


def preserve_ordering(entry: Entry) -> Iterator[Finding]:
    """preserve_ordering beside what changes the order: priorities, or a timeout that delays."""
    block = entry.message.dynamic_batching
    if not block.preserve_ordering:
        return
    at = entry.line("dynamic_batching", "preserve_ordering")
    policies = (block.default_queue_policy, *block.priority_queue_policy.values())
    against = []
    if block.priority_levels > 1:
        against.append(f"{block.priority_levels} priority levels")
    if any(p.default_timeout_microseconds and p.timeout_action == p.DELAY for p in policies):
        against.append("the timeout action DELAY")
    for what in against:
        yield Finding(at, f"preserve_ordering beside {what}", _REFUSED, "take one of them out")


def cache_conflict(entry: Entry) -> Iterator[Finding]:
    """A response cache where Triton has none: for sequences, and for decoupled models."""
    config = entry.message
    if config.response_cache.enable:
        for what, there in (
            ("sequence_batching", config.HasField("sequence_batching")),
            ("decoupled", config.model_transaction_policy.decoupled),
        ):
            if there:
                at = entry.line("response_cache")
                yield Finding(at, f"response_cache beside {what}", _REFUSED, "take one of them out")


def cache_needs_server(entry: Entry) -> Iterator[Finding]:
    """A response cache, which the server must have been given too."""
    if entry.message.response_cache.enable and not any(cache_conflict(entry)):
        yield Finding(
            entry.line("response_cache"),
            "response_cache is enabled",
            "a server started without --cache-config loads the model and caches nothing",
            "start it with --cache-config local,size=BYTES",
        )


def _bounded(policy: Any) -> bool:
    """A timeout that rejects bounds the queue as well: by what comes in that time."""
    rejects = policy.default_timeout_microseconds and policy.timeout_action == policy.REJECT
    return bool(policy.max_queue_size or rejects)


def _preferred(entry: Entry) -> Iterator[tuple[tuple[str, ...], list[int]]]:
    config = entry.message
    yield (
        ("dynamic_batching", "preferred_batch_size"),
        list(config.dynamic_batching.preferred_batch_size),
    )
    yield (
        ("sequence_batching", "oldest", "preferred_batch_size"),
        list(config.sequence_batching.oldest.preferred_batch_size),
    )
