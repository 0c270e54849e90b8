"""What of a model's config decides over its batches, and how it is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tritonkit.repository.scheduling import DynamicBatching


class Way(NamedTuple):
    """What decides how long runs take: threads of each instance, instances, and whether there is a
    batcher, which has a thread of its own and at times keeps it busy.
    """

    threads: int
    instances: int
    batching: bool


@dataclass(frozen=True)
class Settings:
    """What of a model's config decides over its batches.

    dynamic_batching: None runs each request alone. threads: of each instance.
    """

    max_batch_size: int
    dynamic_batching: DynamicBatching | None
    instances: int = 1
    threads: int = 1

    @property
    def way(self) -> Way:
        """How its runs are made."""
        return Way(self.threads, self.instances, self.dynamic_batching is not None)

    def __str__(self) -> str:
        """`batch 64, delay 1 ms, 1 thread × 2 instances`."""
        lane = lane_words(self.threads, self.instances)
        if self.dynamic_batching is None:
            return f"no batching, {lane}"
        delay_us = self.dynamic_batching.max_queue_delay_us
        delay = f", delay {delay_us / 1e3:g} ms" if delay_us else ""
        return f"batch {self.max_batch_size}{delay}, {lane}"


def lane_words(threads: int, instances: int) -> str:
    """`1 thread × 2 instances`."""
    many = ((threads, "thread"), (instances, "instance"))
    return " × ".join(f"{n} {what}" if n == 1 else f"{n} {what}s" for n, what in many)
