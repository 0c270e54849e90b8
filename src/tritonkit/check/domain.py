"""What may a model be asked? The sizes and the integers that it runs on, found by running it."""

from __future__ import annotations

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

_SIZES = (16, 32, 64, 8, 128, 224, 256, 512, 1024, 4, 3, 2, 1, 100, 160, 384, 640)
"""Tried for a dynamic dimension, in this order: long enough to touch every kernel, then what
images, audio frames and strides ask for."""

_MOST = 2**17
"""Above it an integer is not tried: no vocabulary is larger than this by much, and one that is a
size would ask for gigabytes."""

_MAKES_SIZES = {
    **{"Range": (0, 1, 2), "ConstantOfShape": (0,), "Expand": (1,), "Tile": (1,), "OneHot": (1,)},
    **{"Reshape": (1,), "Pad": (1,), "Resize": (2, 3), "Upsample": (1,), "Slice": (1, 2)},
    **{"Loop": (0,), "TopK": (1,), "Unsqueeze": (1,), "EyeLike": (0,), "NonMaxSuppression": (2,)},
}
"""Operators → the inputs whose values decide the sizes of tensors (ONNX operator schemas)."""


def find_sizes(
    model: OnnxModel, signature: ModelSignature, axes: Axes, fixed: Mapping[str, int]
) -> Rows:
    """Rows of a size at which `model` runs, where the batch is on `axes`.

    fixed: sizes of dynamic dimensions that are given, by name. ModelError with ONNX Runtime's own
    words if it runs at none.
    """
    names = dimension_names(signature, axes)
    failure: ModelError | None = None
    for sizes in _candidates([name for name in names if name not in fixed]):
        rows = Rows(signature, axes, {**sizes, **fixed})
        try:
            model.run(rows.batch([rows.row()]))
        except ModelError as error:
            failure = failure or error
        else:
            return rows
    assert failure is not None
    raise failure


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
    """All of one size first; then, for a few dimensions, each size with each other."""
    for size in _SIZES if names else _SIZES[:1]:
        yield dict.fromkeys(names, size)
    if 1 < len(names) <= 3:
        for first in _SIZES:
            for second in _SIZES[:10]:
                if first != second:
                    yield {name: second if i else first for i, name in enumerate(names)}
                    yield {
                        name: first if i == len(names) - 1 else second
                        for i, name in enumerate(names)
                    }


def find_ranges(model: OnnxModel, graph: onnx.GraphProto, rows: Rows) -> Rows:
    """`rows` with the range of values of each integer input that `model` takes.

    The highest is found by doubling (an embedding's table ends somewhere), up to 2¹⁷, or to the
    dtype's own limit where the input only takes part in arithmetic. The lowest is the dtype's, -1
    or 0. An input whose value decides the size of a tensor keeps to small numbers.
    """
    sizes = deciding_sizes(graph)
    ranges: dict[str, tuple[int, int]] = {}
    for spec in rows.signature.inputs:
        if spec.dtype.numpy.kind not in "iu":
            continue
        if rows.examples:
            given = [row[spec.name] for row in rows.examples]
            low = min(int(a.min(initial=0)) for a in given)
            high = max(int(a.max(initial=0)) for a in given)
        else:
            low, high = 0, 1
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
    while bad is None and good < min(limits.max, _MOST):
        value = min(max(2 * good, 2), limits.max, _MOST)
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
    usable: list[Arrays] = []
    for kind, seed in wanted:
        row = rows.row(kind, seed)
        try:
            answers = model.run(row)
        except ModelError:
            continue
        if all(a.dtype.kind != "f" or not a.size or np.isfinite(a).any() for a in answers.values()):
            usable.append(row)
    return usable
