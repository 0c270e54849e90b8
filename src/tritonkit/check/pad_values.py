"""What a row can be padded with, and the padding itself: always at the end of its axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

import numpy as np

from tritonkit.check.onnx_model import Arrays

PadValue = float | int | bool | str

LAST = "last"
"""As the pad value of an input that does not hold strings: its last value, repeated."""

Axes = Mapping[str, tuple[int, ...]]
"""Input name → those of its axes that have the dimension."""


def cut(row: Arrays, axes: Axes, length: int) -> dict[str, np.ndarray]:
    """The leading part of a row, `length` long."""
    short = dict(row)
    for name, at in axes.items():
        sizes = (length if axis in at else None for axis in range(row[name].ndim))
        short[name] = row[name][tuple(slice(size) for size in sizes)]
    return short


def pad(row: Arrays, axes: Axes, length: int, values: Mapping[str, PadValue]) -> Arrays:
    """The row with its inputs in `axes` made `length` long, by their values in `values`."""
    padded = dict(row)
    for name, at in axes.items():
        array, value = row[name], values[name]
        width = [(0, length - size if i in at else 0) for i, size in enumerate(array.shape)]
        if value == LAST and array.dtype.kind not in "OSU":
            padded[name] = np.pad(array, width, mode="edge")
        else:
            padded[name] = np.pad(array, width, constant_values=value)
    return padded


def zero(array: np.ndarray) -> PadValue:
    """0 in the array's dtype; the empty string among strings."""
    kinds: dict[str, PadValue] = {"b": False, "f": 0.0, "O": "", "S": "", "U": ""}
    return kinds.get(array.dtype.kind, 0)


def candidates(arrays: Sequence[np.ndarray]) -> list[PadValue]:
    """Values to pad an input with, zero first; `arrays` is what it holds in the rows.

    The largest value among integers is most often a valid id. A large negative float is what
    masks have that are added to scores, and what no maximum notices.
    """
    kind, dtype = arrays[0].dtype.kind, arrays[0].dtype
    values: list[PadValue] = [zero(arrays[0])]
    if kind == "b":
        values += [True]
    elif kind == "f":
        values += [LAST, -3e4 if dtype == np.float16 else -1e9, 1.0]
    elif kind in "iu":
        values += [LAST, 1, max(int(a.max()) for a in arrays), *([-1] if kind == "i" else [])]
    return list(dict.fromkeys(values))


def probes(arrays: Sequence[np.ndarray]) -> list[PadValue]:
    """Values that show whether it matters what an input is padded with, a large one last."""
    kind = arrays[0].dtype.kind
    if kind == "b":
        return [False, True]
    if kind == "f":
        largest = max(float(np.nan_to_num(np.abs(a), posinf=0.0).max()) for a in arrays)
        large = min(1e3 * max(1.0, largest), float(np.finfo(arrays[0].dtype).max) / 4)
        return [0.0, -large, large]
    if kind in "iu":
        return [0, LAST, max(1, *(int(a.max()) for a in arrays))]
    return ["", "padding"]


def combine(choices: Mapping[str, Sequence[PadValue]]) -> Iterator[dict[str, PadValue]]:
    """All combinations of the choices: first ones everywhere, then one input with another, …"""
    first = {name: values[0] for name, values in choices.items()}
    for count in range(len(choices) + 1):
        for names in combinations(choices, count):
            for values in product(*(choices[name][1:] for name in names)):
                yield {**first, **dict(zip(names, values, strict=True))}


def may_be_mask(arrays: Sequence[np.ndarray]) -> bool:
    """Whether an input may be a mask, by what it holds in the rows: integers, or only 0 and 1."""
    return all(
        a.dtype.kind in "biu" or (a.dtype.kind == "f" and bool(((a == 0) | (a == 1)).all()))
        for a in arrays
    )
