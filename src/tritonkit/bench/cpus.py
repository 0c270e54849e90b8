"""Which CPUs the servers get and which the load generator, and the generator's own set of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

ENOUGH = 4
"""With so many CPUs or more, server and generator do not share any. With fewer a server would be
left with one, on which no threads can be tried."""

GENERATOR_SHARE = 4
"""The generator gets one CPU in so many: it is one process, and more than one only helps gRPC's
own threads."""


@dataclass(frozen=True)
class CpuSets:
    """CPU numbers, ascending. Where there are too few, both sets are all of them."""

    server: tuple[int, ...]
    generator: tuple[int, ...]

    @property
    def are_disjoint(self) -> bool:
        """Whether neither takes CPU from the other."""
        return not set(self.server) & set(self.generator)


def divide(cpus: Sequence[int]) -> CpuSets:
    """Divide the CPUs that this process may use; the last ones go to the generator."""
    cpus = tuple(cpus)
    if len(cpus) < ENOUGH:
        return CpuSets(cpus, cpus)
    count = max(1, len(cpus) // GENERATOR_SHARE)
    return CpuSets(cpus[:-count], cpus[-count:])


@contextmanager
def staying_on(cpus: Sequence[int]) -> Iterator[None]:
    """Keep this thread, in which the generator runs, on these CPUs until the block ends.

    Servers that are started meanwhile are given a set of their own.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
