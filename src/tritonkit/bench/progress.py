"""What a comparison has measured so far, on disk after every step, so that it can go on later."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tritonkit.bench.result import ArmLevel, ArmName, Ceiling, CeilingPoint, TuningRun
from tritonkit.errors import InputError
from tritonkit.stats.scrape import ServerCounters
from tritonkit.stats.split import TimeSplit

PROGRESS = "progress.jsonl"


class Step(NamedTuple):
    """One level of one arm.

    took_s: of wall time, with what came before and after it. first_in_line: whether the generator
    ran ahead of the machine's other processes.
    """

    arm: ArmName
    level: ArmLevel
    counters: ServerCounters
    took_s: float
    first_in_line: bool


class SoakOf(NamedTuple):
    """Which soak. Levels of another arm, rate or length do not belong to it."""

    arm: ArmName
    rate_rps: float
    minutes: float


class SoakLevel(NamedTuple):
    """One level of a soak.

    at_s: seconds of the soak until its middle. resumed: how often the comparison was gone on with
    by then; levels with the same had the same server.
    """

    of: SoakOf
    at_s: float
    achieved_rps: float
    p99_ms: float | None
    rss_bytes: int
    shm_bytes: int
    errors: int
    resumed: int


class SoakEnd(NamedTuple):
    """A soak that is over, after so many seconds of it. because: the server was lost; "" if it
    went on for its whole time.
    """

    of: SoakOf
    after_s: float
    because: str = ""


class Progress:
    """The steps of one comparison, in memory and in `progress.jsonl`, a line each.

    question: everything that must be the same for the measurements to belong together, by name.
    A line is written at once and whole; one that a crash cut off is left out when it is read.
    """

    def __init__(self, file: Path, question: Mapping[str, Any]):
        """Go on with the file if it is there. InputError if it is of another question."""
        self.ceiling: Ceiling | None = None
        self.tuning: dict[ArmName, tuple[TuningRun, ...]] = {}
        self.steps: list[Step] = []
        self.soak_levels: list[SoakLevel] = []
        self.soak_ends: list[SoakEnd] = []
        self.resumed = 0
        self._file = file
        asked = json.loads(json.dumps(dict(question)))
        if file.is_file():
            self._read(asked)
            self.resumed += 1
            self._write("resumed", self.resumed)
        else:
            self._write("question", asked)

    def keep_ceiling(self, ceiling: Ceiling) -> None:
        """The in-process ceiling was measured."""
        self.ceiling = ceiling
        self._write("ceiling", asdict(ceiling))

    def keep_tuning(self, arm: ArmName, runs: tuple[TuningRun, ...]) -> None:
        """An arm was tuned."""
        self.tuning[arm] = runs
        self._write("tuning", {"arm": arm, "runs": [asdict(run) for run in runs]})

    def keep_step(self, step: Step) -> None:
        """A level was measured."""
        self.steps.append(step)
        self._write("step", {**step._asdict(), **_plain(step)})

    def keep_soak_level(self, level: SoakLevel) -> None:
        """A level of a soak was measured."""
        self.soak_levels.append(level)
        self._write("soak_level", level._asdict())

    def keep_soak_end(self, end: SoakEnd) -> None:
        """A soak is over."""
        self.soak_ends.append(end)
        self._write("soak_end", end._asdict())

    def levels(self, arm: ArmName) -> list[ArmLevel]:
        """An arm's levels, in the order in which they were measured."""
        return [step.level for step in self.steps if step.arm == arm]

    def counters(self, arm: ArmName) -> ServerCounters:
        """What the arm's servers counted over all of these levels."""
        total = ServerCounters()
        for step in self.steps:
            if step.arm == arm:
                total += step.counters
        return total

    @property
    def next_round(self) -> int:
        """Of a round that begins now. One that was interrupted is not gone on with: a round is
        taken to have had one speed of the machine, which may be another today.
        """
        return 1 + max((step.level.round for step in self.steps), default=0)

    @property
    def first_in_line(self) -> bool:
        """Whether the generator was in every level."""
        return all(step.first_in_line for step in self.steps)

    @property
    def spent_s(self) -> float:
        """Wall seconds that the levels took."""
        return sum(step.took_s for step in self.steps)

    def _write(self, what: str, value: Any) -> None:
        line = json.dumps({"what": what, "value": value}, allow_nan=False)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self, asked: Mapping[str, Any]) -> None:
        text = self._file.read_text(encoding="utf-8", errors="replace")
        whole, _, cut = text.rpartition("\n")
        if cut:
            self._file.write_text(whole + "\n" if whole else "", encoding="utf-8")
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            if not lines or lines[0]["what"] != "question":
                raise ValueError("it does not begin with a question")
            self._require_same(asked, lines[0]["value"])
            for line in lines[1:]:
                self._take(line["what"], line["value"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self._file} cannot be gone on with ({error}); choose another "
                f"--out, or remove {self._file.parent}"
            ) from error

    def _require_same(self, asked: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        for name in {**asked, **found}:  # the model first: all else differs with it
            ours, theirs = asked.get(name), found.get(name)
            if ours == theirs:
                continue
            long = any(isinstance(value, dict) for value in (ours, theirs))
            had = f"another {name}" if long else f"{name} {theirs}, this one has {ours}"
            raise InputError(
                f"the interrupted run had {had}; choose another --out, or "
                f"remove {self._file.parent} to begin again"
            )

    def _take(self, what: str, value: Any) -> None:
        if what == "ceiling":
            points = tuple(CeilingPoint(**point) for point in value.pop("points"))
            self.ceiling = Ceiling(**value, points=points)
        elif what == "tuning":
            self.tuning[value["arm"]] = tuple(TuningRun(**run) for run in value["runs"])
        elif what == "resumed":
            self.resumed = value
        elif what == "step":
            self.steps.append(_step(value))
        elif what == "soak_level":
            self.soak_levels.append(SoakLevel(**{**value, "of": SoakOf(*value["of"])}))
        elif what == "soak_end":
            self.soak_ends.append(SoakEnd(**{**value, "of": SoakOf(*value["of"])}))


def _plain(step: Step) -> dict[str, Any]:
    return {"level": step.level.as_json(), "counters": asdict(step.counters)}


def _step(value: Mapping[str, Any]) -> Step:
    level, counters = dict(value["level"]), dict(value["counters"])
    if level["time_split"] is not None:
        level["time_split"] = TimeSplit(**level["time_split"])
    for by_rows in ("batches", "run_ns"):
        counters[by_rows] = {int(rows): n for rows, n in counters[by_rows].items()}
    return Step(
        value["arm"],
        ArmLevel(**level),
        ServerCounters(**counters),
        float(value["took_s"]),
        value["first_in_line"],
    )
