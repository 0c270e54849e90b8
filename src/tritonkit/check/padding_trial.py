"""Rows of several lengths, alone and padded: what a combination of pad values does to them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice, product, zip_longest

import numpy as np

from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.check.pad_values import LAST, Axes, PadValue, cut, may_be_mask, pad, probes
from tritonkit.check.tolerance import EXACT, TOLERANCES, differences
from tritonkit.errors import ModelError

_MOST_RUNS = 150
_MOST_CASES = 24
_LEAST_CASES = 6
_PROBED_CASES = 4


class SpentError(Exception):
    """There are no runs left, or no time."""


@dataclass(frozen=True)
class Premise:
    """How rows tell the model what of them is real: input `mask` is `real` all along, or input
    `length_in`, which does not have the dimension, is the length. Empty: they are as given.
    """

    mask: str = ""
    real: int = 1
    length_in: str = ""


@dataclass(frozen=True)
class Case:
    """A row at its own length, its answer, and the length to pad it to. own: told by the
    premise of the trial, and not by a further one."""

    row: Arrays
    answer: Arrays
    target: int
    own: bool


@dataclass(frozen=True)
class Effect:
    """What a combination of pad values did.

    passed: in how many cases the answer stayed, until the first in which it did not.
    harm: the worst difference over what is allowed; above 1 it is another answer. max_abs_diff
    is that difference, in output `tensor`. problem: why there is none to speak of.
    longer: the outputs that grow with the length, of which the leading part was compared.
    """

    values: Mapping[str, PadValue]
    passed: int = 0
    harm: float = 0.0
    max_abs_diff: float = 0.0
    tensor: str = ""
    problem: str = ""
    longer: frozenset[str] = frozenset()

    @property
    def safe(self) -> bool:
        """Whether all answers stayed."""
        return self.harm <= 1


class Trial:
    """One dimension of a model under one premise, with the runs and the time to try it.

    Everything that runs the model raises SpentError when these are used up.
    """

    def __init__(
        self, model: OnnxModel, rows: Sequence[Arrays], axes: Axes, premise: Premise, end_s: float
    ) -> None:
        """rows: as long as each other. end_s: when to stop, on the clock of perf_counter."""
        self.axes, self.premise = axes, premise
        self.full = full_length(rows, axes)
        self._model, self._rows, self._end_s = model, rows, end_s
        self._probes = {name: probes([row[name] for row in rows]) for name in axes}
        self._runs = 0

    def cases(self) -> list[Case]:
        """What to try, fewer where a run takes long. None: there are no two lengths that the
        model runs at. ModelError if it fails on the rows themselves.

        Without a premise each input that may be a mask is also tried with ones, as any row must
        be harmless to pad. What is varied takes turns, so that a few cases have some of all.
        """
        start_s = time.perf_counter()
        lengths = self._lengths()
        beyond = self._beyond()
        now_s = time.perf_counter()
        run_s = (now_s - start_s) / self._runs
        most = min(_MOST_CASES, max(_LEAST_CASES, int((self._end_s - now_s) / 4 / run_s)))
        pairs = [(length, target) for target in [*beyond, self.full] for length in lengths]
        pairs = [(length, target) for length, target in pairs if length < target]
        premises = [self.premise]
        if self.premise == Premise():
            premises += [Premise(mask=name) for name in masks(self._rows, self.axes)]
        groups = [
            self._asked(row, premise, islice(cycle(pairs), turn, turn + len(pairs)))
            for turn, (row, premise) in enumerate(product(self._rows, premises))
        ]
        asked = chain.from_iterable(zip_longest(*groups))
        return list(islice((case for case in asked if case is not None), most))

    def _asked(
        self, row: Arrays, premise: Premise, pairs: Iterable[tuple[int, int]]
    ) -> Iterator[Case]:
        """The cases of a row and a premise. None where it fails with a mask of ones."""
        answers: dict[int, Arrays] = {}
        for length, target in pairs:
            told = _told(row, self.axes, length, premise)
            if length not in answers:
                try:
                    answers[length] = self._run(told)
                except ModelError:
                    continue
            yield Case(told, answers[length], target, premise == self.premise)

    def effect(
        self, values: Mapping[str, PadValue], cases: Sequence[Case], *, whole: bool = False
    ) -> Effect:
        """Pad the rows with these values. whole: go on where an answer changed."""
        found = Effect(values)
        for case in cases:
            seen = self._compared(case, values)
            worst = seen if seen.harm > found.harm or not found.tensor else found
            passed, longer = found.passed + seen.safe, found.longer | seen.longer
            found = replace(worst, passed=passed, longer=longer)
            if not seen.safe and not whole:
                break
        return found

    def free(self, values: Mapping[str, PadValue], cases: Sequence[Case]) -> list[str]:
        """The inputs of which the pad value does not matter where the others have theirs."""
        few = [case for case in cases if case.own][:_PROBED_CASES]
        free = [
            name
            for name, probe in self._probes.items()
            if all(self.effect({**values, name: value}, few).safe for value in probe)
        ]
        together = {**values, **{name: self._probes[name][-1] for name in free}}
        return free if self.effect(together, few).safe else []

    def _lengths(self) -> list[int]:
        """Lengths that the model runs at, the full one last. For a model that takes only some
        lengths, such as multiples of 32, or none below a least one, more are tried."""
        full = self.full
        # What is wrong with the rows themselves is raised here.
        self._run(_told(self._rows[0], self.axes, full, self.premise))
        steps = (32, 16, 8, 4)
        rounded = [full * part // 4 // step * step for part in (2, 3, 1) for step in steps]
        found: list[int] = []
        for length in dict.fromkeys(
            (full // 3, full * 2 // 3, full // 2, *rounded, full * 3 // 4, full - 1)
        ):
            if len(found) < 2 and 0 < length < full and self._takes(length):
                found.append(length)
        if 1 not in found and full > 1 and self._takes(1):
            found.append(1)
        return [*found, full]

    def _beyond(self) -> list[int]:
        """A length beyond the rows' own that the model runs at, if there is one."""
        row = _told(self._rows[0], self.axes, self.full, self.premise)
        same = dict.fromkeys(self.axes, LAST)
        for length in (self.full + 1, 2 * self.full):
            if self._runs_on(pad(row, self.axes, length, same)):
                return [length]
        return []

    def _takes(self, length: int) -> bool:
        return self._runs_on(_told(self._rows[0], self.axes, length, self.premise))

    def _compared(self, case: Case, values: Mapping[str, PadValue]) -> Effect:
        """The effect in one case."""
        try:
            padded = self._run(pad(case.row, self.axes, case.target, values))
        except ModelError as error:
            return Effect(values, harm=np.inf, max_abs_diff=np.inf, problem=str(error))
        return compared(values, case.answer, padded)

    def _runs_on(self, row: Arrays) -> bool:
        try:
            self._run(row)
        except ModelError:
            return False
        return True

    def _run(self, row: Arrays) -> Arrays:
        if self._runs >= _MOST_RUNS or (self._runs and time.perf_counter() > self._end_s):
            raise SpentError
        self._runs += 1
        return self._model.run(row)


def _told(row: Arrays, axes: Axes, length: int, premise: Premise) -> Arrays:
    """The row cut to `length`, telling the model by the premise what of it is real."""
    told = cut(row, axes, length)
    if premise.mask:
        told[premise.mask] = np.full_like(told[premise.mask], premise.real)
    if premise.length_in:
        told[premise.length_in] = np.full_like(told[premise.length_in], length)
    return told


def compared(values: Mapping[str, PadValue], alone: Arrays, padded: Arrays) -> Effect:
    """How far the leading part of the padded row's answers is from the answers alone.

    Where an answer alone is NaN there is nothing to compare with.
    """
    found = Effect(values)
    longer = set()
    for name, expected in alone.items():
        got = padded[name]
        if got.ndim != expected.ndim or any(np.less(got.shape, expected.shape)):
            shapes = f"{list(got.shape)} padded and {list(expected.shape)} alone"
            problem = f"output '{name}' has shape {shapes}, which cannot be compared"
            return Effect(values, 0, np.inf, np.inf, name, problem)
        if got.shape != expected.shape:
            longer.add(name)
            got = got[tuple(slice(size) for size in expected.shape)]
        if not expected.size:
            continue
        tolerance = TOLERANCES.get(expected.dtype, EXACT)
        apart, allowed = differences(expected, got, tolerance)
        if expected.dtype.kind == "f":
            apart = np.where(np.isnan(expected), 0.0, apart)
        harm = float((apart / np.maximum(allowed, 1e-200)).max())
        if harm > found.harm or not found.tensor:
            found = Effect(values, harm=harm, max_abs_diff=float(apart.max()), tensor=name)
    return replace(found, longer=frozenset(longer))


def full_length(rows: Sequence[Arrays], axes: Axes) -> int:
    """The length of the shortest row. 0 if there are no rows."""
    sizes = (row[name].shape[axis] for row in rows for name, at in axes.items() for axis in at)
    return min(sizes, default=0)


def masks(rows: Sequence[Arrays], axes: Axes) -> list[str]:
    """The inputs with the dimension that may be masks."""
    return [name for name in axes if may_be_mask([row[name] for row in rows])]


def no_evidence(answers: Sequence[Arrays]) -> str:
    """Why these answers would hide a change. Empty: they would not.

    An output that is never a finite number shows nothing, nor do answers that are always the same.
    """
    varies = False
    for name in answers[0]:
        values = np.concatenate([answer[name].ravel() for answer in answers])
        if values.size and values.dtype.kind == "f":
            values = values[np.isfinite(values)]
            if not values.size:
                return f"output '{name}' is never a finite number on the rows tried"
        varies = varies or bool((values != values[:1]).any())
    return "" if varies else "the answers are the same for all rows tried"
