"""May requests of different length share a batch?

Triton batches only requests of one shape, so a client (or a model before this one) would have to
pad the shorter ones. Whether that is harmless is asked of the model: rows are cut to several
lengths, and the answer that a row gets alone is compared with the one it gets when padded **at
its end**. Padding at the front is not tried. Of an output that grows with the length the leading
part is compared, as the rest is easily cut off.

Which input is a mask needs no guess: it is the one whose pad value matters, while the others' do
not.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product

import numpy as np

from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.check.pad_values import LAST, Axes, PadValue, candidates, combine, cut, zero
from tritonkit.check.padding_trial import (
    Case,
    Effect,
    Premise,
    SpentError,
    Trial,
    full_length,
    masks,
    no_evidence,
)
from tritonkit.errors import ModelError

_MOST_COMBINATIONS = 64
_MOST_ROWS = 6

Choices = Mapping[str, Sequence[PadValue]]
"""Input name → values to try, the usual one first."""


@dataclass(frozen=True)
class PaddingEffect:
    """What padding does along one dynamic dimension.

    safe: with `pad_values` every answer stays as it was, within the tolerances of its dtypes.
    pad_values: input → value, of the least harmful combination that was tried.
    max_abs_diff: how far it moves `tensor`, the output that moves most; inf where an answer
    became NaN or changed its shape, or the model failed. tensor: empty where nothing could be
    compared, so that nothing is known. why: one sentence.
    """

    dim: str
    inputs: tuple[str, ...]
    safe: bool
    pad_values: Mapping[str, PadValue]
    max_abs_diff: float
    tensor: str
    why: str


def check_padding(
    model: OnnxModel,
    rows: Sequence[Arrays],
    dims: Mapping[str, Mapping[str, int | tuple[int, ...]]],
    *,
    budget_s: float = 20.0,
) -> list[PaddingEffect]:
    """Judge each of `dims` by itself; the others stay as long as they are in `rows`.

    rows: inputs of one row each, with their batch axis; all have the same dtypes and ranks. The
    longer and the more varied the better. dims: name of the dimension → input → its axis, or
    axes. A model that fails is no error here but a finding that is not safe, with the reason.
    """
    effects = []
    end_s = time.perf_counter() + budget_s
    todo = [(dim, axes) for dim, axes in dims.items() if axes]
    for done, (dim, at) in enumerate(todo):
        axes = {n: (axis,) if isinstance(axis, int) else tuple(axis) for n, axis in at.items()}
        share_s = max(0.0, end_s - time.perf_counter()) / (len(todo) - done)
        effects.append(_judge(model, rows, dim, axes, share_s))
    return effects


def _judge(
    model: OnnxModel, rows: Sequence[Arrays], dim: str, axes: Axes, budget_s: float
) -> PaddingEffect:
    """The finding for one dimension: of the first plan that is safe, else of the last that
    could compare anything."""
    end_s = time.perf_counter() + budget_s
    length = full_length(rows, axes)
    rows = _ordered([cut(row, axes, length) for row in rows], axes)
    problem = _too_plain(rows, axes, length)
    if problem:
        return _unknown(dim, axes, rows, problem)
    best: PaddingEffect | None = None
    for premise, choices in _plans(rows, axes):
        trial = Trial(model, rows, axes, premise, end_s)
        try:
            found = _search(trial, choices, rows, dim)
        except ModelError as error:
            found = _unknown(dim, axes, rows, str(error))
        except SpentError:
            found = _unknown(dim, axes, rows, f"{budget_s:.3g} s are too short to find out")
        if found.safe:
            return found
        if best is None or found.max_abs_diff:
            best = found
    assert best is not None  # there are at least two plans
    return best


def _ordered(rows: Sequence[Arrays], axes: Axes) -> list[Arrays]:
    """The first row, and the others by how many different values they have, the most first."""

    def variety(row: Arrays) -> int:
        return sum(len(set(row[name].ravel()[:10_000].tolist())) for name in axes)

    return [*rows[:1], *sorted(rows[1:], key=variety, reverse=True)][:_MOST_ROWS]


def _too_plain(rows: Sequence[Arrays], axes: Axes, length: int) -> str:
    """Why the rows cannot show anything. Empty: they can."""
    if length < 2:
        return f"the rows to try have length {length}, at least 2 is needed"
    for row, (name, at) in product(rows, axes.items()):
        for axis in at:
            if (row[name] != np.take(row[name], [0], axis=axis)).any():
                return ""
    return "the rows to try are the same all along, varied ones are needed"


def _plans(rows: Sequence[Arrays], axes: Axes) -> Iterator[tuple[Premise, Choices]]:
    """What to try, the usual first: zeros for rows as given; then a mask that is 1, or 0, where a
    row is real, or a single integer that is its length; then other values."""
    zeros = {name: [zero(rows[0][name])] for name in axes}
    yield Premise(), zeros
    for name in masks(rows, axes):
        yield Premise(mask=name, real=1), zeros
    for name in masks(rows, axes):
        yield Premise(mask=name, real=0), {**zeros, name: [_inverse(zero(rows[0][name]))]}
    for name, array in rows[0].items():
        if name not in axes and array.size == 1 and array.dtype.kind in "iu":
            yield Premise(length_in=name), zeros
    yield Premise(), {name: candidates([row[name] for row in rows]) for name in axes}


def _inverse(value: PadValue) -> PadValue:
    """1 for 0 and 0 for 1, True for False and False for True."""
    return not value if isinstance(value, bool) else int(not value)


def _search(trial: Trial, choices: Choices, rows: Sequence[Arrays], dim: str) -> PaddingEffect:
    """Try combinations of pad values until one is safe.

    A premise is believed only if it hides what another input is padded with: where an ordinary
    mask is 0, or a row is ones all along, nothing can move.
    """
    cases = trial.cases()
    if not cases:
        problem = f"the model runs at no other length than {trial.full}"
        return _unknown(dim, trial.axes, rows, problem)
    problem = no_evidence([case.answer for case in cases if case.own])
    if problem:
        return _unknown(dim, trial.axes, rows, problem)
    best: Effect | None = None
    try:
        for values in islice(combine(choices), _MOST_COMBINATIONS):
            effect = trial.effect(values, cases)
            if effect.safe:
                free = _free(trial, effect, cases)
                if trial.premise == Premise() or set(free) - {trial.premise.mask}:
                    return _safe(dim, trial.premise, effect, free, max(c.target for c in cases))
            if best is None or (-effect.passed, effect.harm) < (-best.passed, best.harm):
                best = effect
        assert best is not None  # there is at least one combination
        best = trial.effect(best.values, cases, whole=True)
    except SpentError:
        if best is None:
            raise
    return _unsafe(dim, best, dict.fromkeys(v for values in choices.values() for v in values))


def _free(trial: Trial, effect: Effect, cases: Sequence[Case]) -> list[str]:
    try:
        return trial.free(effect.values, cases)
    except SpentError:
        return []  # then it is not claimed


def _unknown(dim: str, axes: Axes, rows: Sequence[Arrays], problem: str) -> PaddingEffect:
    values = {name: zero(rows[0][name]) for name in axes} if rows else {}
    why = f"whether padding along '{dim}' changes answers is not known: {problem}"
    return PaddingEffect(dim, tuple(axes), False, values, 0.0, "", why)


def _unsafe(dim: str, effect: Effect, tried: Iterable[PadValue]) -> PaddingEffect:
    values = ", ".join(_said(value) for value in tried)
    moved = effect.problem or f"'{effect.tensor}' moves by {effect.max_abs_diff:.2g}"
    if not effect.problem and np.isinf(effect.max_abs_diff):
        moved = f"'{effect.tensor}' becomes infinite or NaN"
    why = (
        f"every pad value tried ({values}) changes answers, and even with {_each(effect.values)} "
        f"at the end {moved}: requests of different '{dim}' must not share a batch"
    )
    return PaddingEffect(
        dim, tuple(effect.values), False, effect.values, effect.max_abs_diff, effect.tensor, why
    )


def _safe(
    dim: str, premise: Premise, effect: Effect, free: Sequence[str], length: int
) -> PaddingEffect:
    bound = {name: value for name, value in effect.values.items() if name not in free}
    conditions = [
        f"'{name}' is {_said(_inverse(value))} for what is real and {_said(value)} for the padding"
        if name == premise.mask
        else f"'{name}' is padded with {_said(value)}"
        for name, value in bound.items()
    ]
    if premise.length_in:
        conditions.append(f"'{premise.length_in}' is the row's own length")
    if free:
        how = f"whatever {_names(free)} is padded with at the end"
        how += f", as long as {' and '.join(conditions)}" if conditions else ""
    else:
        how = f"padding {_each(bound)} at the end"
    how += ", nothing changes" if free else " changes nothing"
    beyond = f" by more than {effect.max_abs_diff:.1g}" if effect.max_abs_diff else ""
    why = f"{how}{beyond} up to length {length}"
    if effect.longer:
        why += f"; cut {_names(sorted(effect.longer))} back to the request's own length"
    return PaddingEffect(
        dim, tuple(effect.values), True, effect.values, effect.max_abs_diff, effect.tensor, why
    )


def _names(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def _each(values: Mapping[str, PadValue]) -> str:
    """'ids' with 0 and 'mask' with 0."""
    return " and ".join(f"'{name}' with {_said(value)}" for name, value in values.items())


def _said(value: PadValue) -> str:
    if isinstance(value, str):
        return "the last value" if value == LAST else f"'{value}'"
    return f"{value:g}" if isinstance(value, float) else str(value)
