"""What a plan.json says of the settings that a model is deployed with."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonkit.errors import InputError
from tritonkit.plan.settings import Settings
from tritonkit.repository.config import DynamicBatching

SCHEMA = 1
PLAN = "plan.json"

# Where the replicas are to be kept, as a share of the capacity: high enough to need few, low enough
# that a minute until the next replica is ready does not break the budget.
_SHARES = (0.6, 0.8)


@dataclass(frozen=True)
class Planned:
    """What was measured of one model on one machine.

    capacity_interval_rps: 95 %; None if no level counts. queue_ms: the mean that requests waited
    at 60 to 80 % of the capacity; None if no such level kept the budget. machine: in words.
    remark: why the plan is not for Triton; "" if it is.
    """

    path: Path
    model: str
    slo_p99_ms: float
    capacity_interval_rps: tuple[float, float | None] | None
    queue_ms: float | None
    machine: str
    remark: str


def read_plan(path: Path) -> Mapping[str, Any]:
    """The document of a plan.json, or of a folder with one. InputError if it is none."""
    file = path / PLAN if path.is_dir() else path
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a {PLAN}; make one with tritonkit plan") from error
    if not isinstance(document, dict) or not {"model", "tried", "winner"} <= document.keys():
        raise InputError(f"{file}: not a {PLAN}; make one with tritonkit plan")
    if document.get("schema") != SCHEMA:
        raise InputError(
            f"{file}: its schema is {document.get('schema')!r}, expected {SCHEMA}; plan again"
        )
    return document


def planned(path: Path, document: Mapping[str, Any], settings: Settings) -> Planned:
    """What it measured under these settings. InputError if it did not try them."""
    model = document["model"]
    try:
        tried = {_settings(x["settings"]): x for x in document["tried"]}
        if settings not in tried:
            raise InputError(
                f"{path}: it measured '{model}' under other settings than its config.pbtxt has "
                f"({settings}); its winner is {_settings(document['winner'])}: bring that in with "
                "tritonkit plan --apply, or leave --plan out"
            )
        measured = tried[settings]["measured"]
        interval = measured["capacity_interval_rps"]
        machine = document["machine"]
        kept = document["conclusion"] in ("triton_batched", "triton_unbatched")
        return Planned(
            path=path,
            model=model,
            slo_p99_ms=_finite(document["slo_p99_ms"]),
            capacity_interval_rps=(_finite(interval[0]), interval[1]) if interval else None,
            queue_ms=_queue_ms(tried[settings]["levels"], measured["capacity_rps"]),
            machine=f"{machine['cpu_model']}, {machine['cpus']} CPUs",
            remark="" if kept else str(document["because"]),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: not a whole {PLAN}: {error!r}; plan again") from error


def _finite(number: Any) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{number} is no finite number")
    return float(number)


def _settings(document: Mapping[str, Any]) -> Settings:
    batching = None
    if document["dynamic_batching"]:
        batching = DynamicBatching(max_queue_delay_us=document["max_queue_delay_us"])
    return Settings(
        document["max_batch_size"], batching, document["instances"], document["threads"]
    )


def _queue_ms(levels: list[Mapping[str, Any]], capacity_rps: float | None) -> float | None:
    """The median of several levels, as a stall of the machine has a level wait for ten times."""
    if capacity_rps is None:
        return None
    low, high = (share * capacity_rps for share in _SHARES)
    waited = [
        _finite(level["time_split"]["queue_ms"])
        for level in levels
        if level["holds_slo"] and not level["generator_bound"] and level["time_split"]
        if level["mode"] == "open" and low <= level["offered"] <= high
    ]
    return statistics.median(waited) if waited else None
