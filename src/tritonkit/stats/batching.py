"""Why batching does or does not happen on a server: one cause, one remedy, and the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tritonkit.stats.causes import (
    BOUND,
    CACHED,
    FAILING,
    RESTARTED,
    Finding,
    about,
    cause_of,
    ensemble,
)
from tritonkit.stats.traffic import (
    Batching,
    Look,
    Traffic,
    read_batching,
    read_traffic,
    versions,
    went_backwards,
)

_FEW = 30
_MOST_OF_THE_TIME = 0.8


@dataclass(frozen=True)
class Diagnosis:
    """version: the one that it is about, "" for an ensemble. traffic: None where there is none to
    go by. notes: what is worth knowing besides."""

    model: str
    version: str
    finding: Finding
    batching: Batching
    traffic: Traffic | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return {
            **{"model": self.model, "version": self.version},
            **self.finding._asdict(),
            "notes": list(self.notes),
            "numbers": None if self.traffic is None else self.traffic.to_json(),
            "config": asdict(self.batching),
        }


def diagnose(model: str, config: Mapping[str, Any], looks: Sequence[Look]) -> Diagnosis:
    """What decided over the model's batches between the first look and the last.

    looks: two or more, of one server; an ensemble needs none. More than two also show a restart
    in between, and how much of the time had traffic.
    """
    batching = read_batching(config)
    if batching.steps:
        return Diagnosis(model, "", ensemble(batching), batching)
    if went_backwards(looks):
        return Diagnosis(model, "", RESTARTED, batching)
    version, *others = versions(looks) or [""]
    traffic = read_traffic(looks, version, batching.instances)
    notes = tuple(_notes(batching, traffic, others))
    return Diagnosis(model, version, cause_of(batching, traffic), batching, traffic, notes)


def _notes(b: Batching, t: Traffic, others: Sequence[str]) -> Iterator[str]:
    ended = t.requests + t.failures
    if others and ended:
        which = (
            f"versions {', '.join(others)} are" if len(others) > 1 else f"version {others[0]} is"
        )
        yield f"{which} called too; each version has batches of its own"
    if not ended:
        if b.scheduler == "none" or b.max_batch_size <= 1:
            yield f"no request ended within {about(t.watched_s)} s"
        return
    if ended < _FEW:
        yield f"only {ended} requests ended: watch longer with --watch-s to be sure"
    if t.traffic_s < _MOST_OF_THE_TIME * t.watched_s:
        seen = f"{about(t.traffic_s)} of {about(t.watched_s)} s"
        yield f"there was traffic for {seen}; rates are of those"
    if 0 < t.failures < FAILING * ended:
        yield f"{t.failures:,} of {ended:,} requests failed"
    if 0 < t.cache_hits < CACHED * t.requests:
        yield f"{t.cache_hits:,} of {t.requests:,} requests were answered from the response cache"
    if b.max_queue_size and t.waiting < BOUND * b.max_queue_size:
        yield (
            f"the queue takes {b.max_queue_size} requests; refused ones these statistics do not "
            "count"
        )
