"""Which axis of each tensor is the batch, if any? Found by running the model, not by its names.

A batch axis is one that can be taken apart: several rows put together along it give, along an
axis of every output, what each row gives among copies of itself.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from tritonkit.check.domain import find_sizes, usable, usable_rows
from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.check.placement import placements
from tritonkit.check.rows import Axes, Kind, Rows
from tritonkit.check.tolerance import WIDE_TOLERANCES, compare
from tritonkit.errors import ModelError
from tritonkit.signature import ModelSignature

_TRIED = (2, 3, 5)
"""Batches that are compared with single rows."""

_MOST_GUESSES = 64
_PATIENCE_S = 20.0
"""After so long no further sizes are tried for a model that runs at none."""
_BAKED = (2, 3, 4, 8)
"""Batches that exporters' examples often have, and sometimes bake in."""


class Behaviour(Enum):
    """What putting rows together along the supposed axes does."""

    APART = "every output has a row for each row, and it is the row's own answer"
    COUPLED = "every output has a row for each row, but rows change each other's"
    NO_ROWS = "some output has not one row for each row"
    FAILS = "the model does not run"


@dataclass(frozen=True)
class Found:
    """The best guess at the batch axes, and what came of it.

    inputs, outputs: tensor → axis. rows: makes rows for these axes; None if the model runs on
    none. shapes: output → its shape at batches of 1, 2, 3 and 5. failure: ONNX Runtime's words.
    influence: [i, j]: does row j change the answer of row i, in a batch of 5? only: the one size
    of the batch that it runs at, where that is not 1.
    """

    behaviour: Behaviour
    inputs: Axes
    outputs: Axes
    rows: Rows | None
    shapes: Mapping[str, tuple[tuple[int, ...], ...]]
    failure: str = ""
    influence: np.ndarray | None = None
    only: int | None = None


def find_batch_axes(
    model: OnnxModel,
    signature: ModelSignature,
    fixed: Mapping[str, int],
    examples: Sequence[Arrays],
) -> tuple[Found, Found | None]:
    """The axes that can be taken apart, with axis 0 of everything preferred; and what came of
    axis 0 where that is not it.

    fixed: sizes of dynamic dimensions, by name. examples: single rows along axis 0.
    """
    first: Found | None = None
    deadline = time.perf_counter() + _PATIENCE_S
    for axes in guesses(signature):
        leading = all(axis in (0, None) for axis in axes.values())
        found = try_axes(model, signature, axes, fixed, examples if leading else (), deadline)
        if found.behaviour is Behaviour.APART:
            return found, first
        if first is None or (
            first.behaviour is Behaviour.FAILS and found.behaviour is not Behaviour.FAILS
        ):
            first = found
    assert first is not None
    if first.rows is None:
        first = _baked(model, signature, first, fixed, deadline)
    return first, None


def _baked(
    model: OnnxModel,
    signature: ModelSignature,
    found: Found,
    fixed: Mapping[str, int],
    deadline: float,
) -> Found:
    """`found`, with the rows that it runs on if it does so in batches of another size than 1."""
    for batch in _BAKED:
        with suppress(ModelError):
            rows = find_sizes(model, signature, found.inputs, fixed, batch=batch, deadline=deadline)
            return replace(found, rows=rows, only=batch)
    return found


def guesses(signature: ModelSignature) -> Iterator[dict[str, int | None]]:
    """Where the inputs may have the batch: axis 0 of all; all axes of one name; any dynamic ones.

    Only inputs with a dynamic axis have one. Dimensions of one name have one size, so a guess that
    takes one of them takes all.
    """
    seen = []
    kinds = (_leading, _by_name, _same_axis, _any)
    for guess in itertools.chain.from_iterable(kind(signature) for kind in kinds):
        if guess not in seen and _is_whole(signature, guess):
            seen.append(guess)
            yield guess
        if len(seen) == _MOST_GUESSES:
            return


def _leading(signature: ModelSignature) -> Iterator[dict[str, int | None]]:
    yield {t.name: 0 if 0 in _dynamic(t.shape) else None for t in signature.inputs}


def _by_name(signature: ModelSignature) -> Iterator[dict[str, int | None]]:
    names = dict.fromkeys(d for t in signature.inputs for d in t.shape if isinstance(d, str))
    for name in names:
        yield {t.name: t.shape.index(name) if name in t.shape else None for t in signature.inputs}


def _same_axis(signature: ModelSignature) -> Iterator[dict[str, int | None]]:
    for axis in (1, 2, 3):
        yield {t.name: axis if axis in _dynamic(t.shape) else None for t in signature.inputs}


def _any(signature: ModelSignature) -> Iterator[dict[str, int | None]]:
    """All combinations of dynamic axes: fewest inputs without one first, then the front axes."""
    options = [[*_dynamic(t.shape), None] for t in signature.inputs]
    combinations = itertools.islice(itertools.product(*options), 4096)
    order = sorted(
        combinations, key=lambda axes: (axes.count(None), sum(a for a in axes if a is not None))
    )
    for axes in order:
        yield {t.name: axis for t, axis in zip(signature.inputs, axes, strict=True)}


def _is_whole(signature: ModelSignature, guess: Axes) -> bool:
    """Whether a guess takes some axis, and no name that it takes is on another axis too."""
    taken = {t.shape[axis] for t in signature.inputs if (axis := guess[t.name]) is not None}
    return bool(taken) and not any(
        dim in taken and axis != guess[t.name]
        for t in signature.inputs
        for axis, dim in enumerate(t.shape)
    )


def _dynamic(shape: Sequence[int | str]) -> list[int]:
    return [axis for axis, dim in enumerate(shape) if isinstance(dim, str)]


def try_axes(
    model: OnnxModel,
    signature: ModelSignature,
    axes: Axes,
    fixed: Mapping[str, int],
    examples: Sequence[Arrays],
    deadline: float = math.inf,
) -> Found:
    """What happens where the batch is supposed to be on `axes`."""
    fails = Found(Behaviour.FAILS, axes, {t.name: None for t in signature.outputs}, None, {})
    try:
        if examples:
            rows = Rows(signature, axes, fixed, examples=examples)
            model.run(rows.batch([rows.row()]))
        else:
            rows = find_sizes(model, signature, axes, fixed, deadline=deadline)
    except ModelError as error:
        return replace(fails, failure=str(error))
    drawn = usable_rows(model, rows, [(Kind.USUAL, seed) for seed in range(12)])
    if not drawn:
        return replace(fails, failure="it answers nothing but NaN")
    if not any(_unlike(drawn[0], row) for row in drawn[1:]):
        drawn = [drawn[0], *usable(model, [rows.repeated(drawn[0])])] * 6
    picked = [drawn[i % len(drawn)] for i in range(max(_TRIED))]
    alone = [model.run(row) for row in picked]
    try:
        together = {n: model.run(rows.batch(picked[:n])) for n in _TRIED}
    except ModelError as error:
        return replace(fails, failure=str(error), rows=rows)
    names = [t.name for t in signature.outputs]
    shapes = {
        name: (alone[0][name].shape, *(together[n][name].shape for n in _TRIED)) for name in names
    }
    outputs = {name: _row_axis(shapes[name]) for name in names}
    if any(axis is None for axis in outputs.values()):
        influence = _influence(model, rows, drawn, outputs)
        return Found(Behaviour.NO_ROWS, axes, outputs, rows, shapes, influence=influence)
    try:
        if _apart(model, rows, picked, together, outputs):
            return Found(Behaviour.APART, axes, outputs, rows, shapes)
    except ModelError as error:
        return replace(fails, failure=str(error), rows=rows)
    influence = _influence(model, rows, drawn, outputs)
    return Found(Behaviour.COUPLED, axes, outputs, rows, shapes, influence=influence)


def _apart(
    model: OnnxModel,
    rows: Rows,
    picked: Sequence[Arrays],
    together: Mapping[int, Arrays],
    outputs: Axes,
) -> bool:
    """Whether each row is answered as it is among copies of itself, as far as plain to see."""
    for n in _TRIED[:-1]:
        for i in range(n):
            copies = model.run(rows.batch([picked[i]] * n))
            for name, axis in outputs.items():
                expected, got = (a[name].take([i], axis=axis) for a in (copies, together[n]))
                if compare(expected, got, WIDE_TOLERANCES).differs:
                    return False
    return True


def _row_axis(shapes: Sequence[tuple[int, ...]]) -> int | None:
    """The axis whose size is the number of rows at every batch; None if there is no such axis."""
    one, *others = shapes
    places = [
        {p.axis for p in placements(one, 1, other, n) if p.each == 1}
        for n, other in zip(_TRIED, others, strict=True)
    ]
    common = set.intersection(*places)
    return min(common) if common else None


def _unlike(one: Arrays, other: Arrays) -> bool:
    return any(one[name].tobytes() != other[name].tobytes() for name in one)


def _influence(
    model: OnnxModel, rows: Rows, drawn: Sequence[Arrays], outputs: Axes
) -> np.ndarray | None:
    """[i, j]: whether another row j changes what row i is answered, in a batch of 5."""
    count = max(_TRIED)
    found = np.zeros((count, count), dtype=bool)
    other = next((row for row in drawn if _unlike(drawn[0], row)), drawn[-1])
    try:
        usual = model.run(rows.batch([drawn[0]] * count))
    except ModelError:
        return None
    for j in range(count):
        changed = [drawn[0]] * count
        changed[j] = other
        try:
            answers = model.run(rows.batch(changed))
        except ModelError:
            return None
        for i in range(count):
            found[i, j] |= any(
                answers[name].shape != usual[name].shape
                or not np.array_equal(
                    answers[name].take(i, axis=axis),
                    usual[name].take(i, axis=axis),
                    equal_nan=usual[name].dtype.kind == "f",
                )
                for name, axis in outputs.items()
                if axis is not None
            )
    return found
