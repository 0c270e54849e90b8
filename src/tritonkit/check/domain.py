"""What may a model be asked? The sizes and the integers that it runs on, found by running it."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.check.rows import Axes, Kind, Rows
from tritonkit.errors import ModelError
from tritonkit.signature import ModelSignature

if TYPE_CHECKING:
    import onnx

_SIZES = (16, 32, 64, 8, 128, 224, 256, 512, 1024, 4, 3, 2, 100, 160, 384, 640)
"""Tried for a dynamic dimension, in this order: long enough to touch every kernel, then what
images, audio frames and strides ask for."""

MOST_TRIED = 2**17
"""Above it an integer is not tried: no vocabulary is larger than this by much, and one that is a
size would ask for gigabytes."""

_MOST_BYTES = 2**28
"""Of a row: what is larger is hardly what a model was made for."""

_MAKES_SIZES = {
    **{"Range": (0, 1, 2), "ConstantOfShape": (0,), "Expand": (1,), "Tile": (1,), "OneHot": (1,)},
    **{"Reshape": (1,), "Pad": (1,), "Resize": (2, 3), "Upsample": (1,), "Slice": (1, 2)},
    **{"Loop": (0,), "TopK": (1,), "Unsqueeze": (1,), "EyeLike": (0,), "NonMaxSuppression": (2,)},
}
"""Operators → the inputs whose values decide the sizes of tensors (ONNX operator schemas)."""


def find_sizes(
    model: OnnxModel,
    signature: ModelSignature,
    axes: Axes,
    fixed: Mapping[str, int],
    *,
    batch: int = 1,
    deadline: float = math.inf,
) -> Rows:
    """Rows of a size at which `model` runs, where the batch is on `axes`.

    fixed: sizes of dynamic dimensions that are given, by name. batch: rows of the batches that are
    tried. deadline: of time.perf_counter(), after which nothing more is tried. ModelError with
    ONNX Runtime's own words about the first size if it runs at none.
    """
    free = [name for name in dimension_names(signature, axes) if name not in fixed]
    integers = {t.name: (0, 0) for t in signature.inputs if t.dtype.numpy.kind in "iu"}
    failure: ModelError | None = None
    for sizes in _candidates(free):
        rows = Rows(signature, axes, {**sizes, **fixed})
        if failure is not None and (_bytes(rows) > _MOST_BYTES or time.perf_counter() > deadline):
            continue
        # A table of one word takes no index but 0.
        for tried in (rows, replace(rows, ranges=integers)) if integers else (rows,):
            try:
                model.run(tried.batch([tried.row()] * batch))
            except ModelError as error:
                failure = failure or error
            else:
                return tried
    assert failure is not None
    raise failure


def _bytes(rows: Rows) -> int:
    return sum(
        math.prod(rows.shape(spec)) * spec.dtype.numpy.itemsize for spec in rows.signature.inputs
    )


def dimension_names(signature: ModelSignature, axes: Axes) -> list[str]:
    """The names of the inputs' dynamic dimensions, but for the batch."""
    names = dict.fromkeys(
        dim
        for spec in signature.inputs
        for axis, dim in enumerate(spec.shape)
        if isinstance(dim, str) and axis != axes[spec.name]
    )
    return list(names)


def _candidates(names: Sequence[str]) -> Iterator[dict[str, int]]:
    """All of one size first; then, for a few dimensions, one of each size with the others of
    another; and 1 in the end, as it is stretched to fit almost anything.
    """
    if not names:
        yield {}
        return
    for size in _SIZES:
        yield dict.fromkeys(names, size)
    if 1 < len(names) <= 3:
        for first, second in itertools.permutations(_SIZES, 2):
            for name in names:
                yield {**dict.fromkeys(names, second), name: first}
    yield dict.fromkeys(names, 1)


def find_ranges(model: OnnxModel, graph: onnx.GraphProto, rows: Rows) -> Rows:
    """`rows` with the range of values of each integer input that `model` takes.

    The highest is found by doubling (an embedding's table ends somewhere), up to 2¹⁷, or to the
    dtype's own limit where the input only takes part in arithmetic. The lowest is the dtype's, -1
    or 0. An input whose value decides the size of a tensor keeps to small numbers.
    """
    sizes = deciding_sizes(graph)
    ranges = dict(rows.ranges)
    for spec in rows.signature.inputs:
        if spec.dtype.numpy.kind not in "iu":
            continue
        if rows.examples:
            given = [row[spec.name] for row in rows.examples]
            low = min((int(a.min()) for a in given if a.size), default=0)
            high = max((int(a.max()) for a in given if a.size), default=0)
        else:
            low, high = rows.ranges.get(spec.name, (0, 1))
        wanted = replace(rows, ranges={**ranges, spec.name: (low, high)})
        if rows.axes[spec.name] is not None and spec.name not in sizes:
            low, high = _probe(model, wanted, spec.name, low, high)
        elif spec.name in sizes:
            high = max(high, _largest_size(model, wanted, spec.name, low))
        ranges[spec.name] = (low, high)
    return replace(rows, ranges=ranges)


def _probe(model: OnnxModel, rows: Rows, name: str, low: int, high: int) -> tuple[int, int]:
    limits = np.iinfo(rows.row()[name].dtype)
    usual_s = _seconds(model, rows.row())
    assert usual_s is not None

    def runs(value: int) -> bool:
        row = rows.row()
        taken = _seconds(model, {**row, name: np.full_like(row[name], value)})
        return taken is not None and taken < max(4 * usual_s, usual_s + 0.05)

    good, bad = high, None
    while bad is None and good < min(limits.max, MOST_TRIED):
        value = min(max(2 * good, 1), limits.max, MOST_TRIED)
        good, bad = (value, None) if runs(value) else (good, value)
    while bad is not None and bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if runs(middle) else (good, middle)
    if bad is None and runs(limits.max):
        good = int(limits.max)
    for value in (int(limits.min), -1) if limits.min < 0 else ():
        if runs(value) and (value == -1 or good == limits.max):
            low = min(low, value)
            break
    return low, good


def _largest_size(model: OnnxModel, rows: Rows, name: str, low: int) -> int:
    """A size is at most as large as a dimension of the inputs, and at least the lowest given."""
    longest = max((dim for spec in rows.signature.inputs for dim in rows.shape(spec)), default=1)
    for value in (longest, longest // 2, 2):
        row = rows.row()
        if value > low and _seconds(model, {**row, name: np.full_like(row[name], value)}):
            return value
    return low


def _seconds(model: OnnxModel, row: Arrays) -> float | None:
    """How long a run takes; None if it fails."""
    start = time.perf_counter()
    try:
        model.run(row)
    except ModelError:
        return None
    return time.perf_counter() - start


def deciding_sizes(graph: onnx.GraphProto) -> set[str]:
    """The graph's inputs whose values may decide the size of a tensor, read from its nodes."""
    from_input: dict[str, set[str]] = {v.name: {v.name} for v in graph.input}
    found: set[str] = set()
    for node in graph.node:
        if node.op_type in ("Shape", "Size"):
            continue  # a shape does not depend on the values
        reached: set[str] = set()
        for index, name in enumerate(node.input):
            origin = from_input.get(name, set())
            if index in _MAKES_SIZES.get(node.op_type, ()):
                found |= origin
            reached |= origin
        for name in node.output:
            from_input[name] = reached
    return found


def usable_rows(model: OnnxModel, rows: Rows, wanted: Sequence[tuple[Kind, int]]) -> list[Arrays]:
    """Those of the rows asked for that `model` takes and answers with numbers (not only NaN)."""
    return usable(model, [rows.row(kind, seed) for kind, seed in wanted])


def usable(model: OnnxModel, rows: Sequence[Arrays]) -> list[Arrays]:
    """Those of `rows` that `model` takes and answers with numbers (not only NaN)."""
    found = []
    for row in rows:
        try:
            answers = model.run(row)
        except ModelError:
            continue
        if all(a.dtype.kind != "f" or not a.size or np.isfinite(a).any() for a in answers.values()):
            found.append(row)
    return found
