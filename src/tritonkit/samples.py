"""Sample: one request as it happened. The contract between load and stats."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

NOT_SENT = "not_sent"
"""The error kind of an arrival whose turn never came before the level was given up."""


class Sample(NamedTuple):
    """One request. Times are nanoseconds since the start of its level, on one clock.

    intended_ns: when it should have been sent; in a closed loop that is when it was.
    sent_ns, done_ns: when it was sent and when the whole answer (or the failure) was in.
    payload: which of the run's payloads. error: empty, or a RequestError's kind. put_off_ns: when
    it was due and all connections were busy; None if one was free. So what it was sent late by
    until then is the generator's doing, and what came after is the server's.
    """

    intended_ns: int
    sent_ns: int
    done_ns: int
    payload: int
    error: str
    put_off_ns: int | None = None


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write a gzipped CSV with a header line, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with gzip.open(work, "wt", encoding="utf-8", newline="", compresslevel=1) as file:
            writer = csv.writer(file)
            writer.writerow(Sample._fields)
            writer.writerows(samples)
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)


def read_samples(path: Path) -> list[Sample]:
    """Read what `write_samples` wrote."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return [
            Sample(int(i), int(s), int(d), int(p), error, int(put_off) if put_off else None)
            for i, s, d, p, error, put_off in rows
        ]
