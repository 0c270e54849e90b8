"""The ways in which a node that holds a fixed batch can be mended, by changing what it reads.

Each says what the node would read for a larger batch (`value`, to try it) and makes the nodes that
compute that at run time (`emit`). `batch` is the fixed batch; `times`, how many times larger it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tritonkit.export.batch_emitter import Emitter

_MAX_REPEATED_BYTES = 256 * 2**20
"""A larger constant is a weight, not a thing of each row; to try to repeat it would take long."""


@dataclass(frozen=True)
class Read:
    """What a node reads in one slot.

    name, before: the tensor, for one fixed batch. now: as it is for a larger batch, so far.
    constant: whether it depends on nothing, so that `before` is all that it ever is.
    """

    name: str
    before: np.ndarray
    now: np.ndarray
    constant: bool


@dataclass(frozen=True)
class Scale:
    """An element of a vector of sizes (of a scalar: index None) grows with the batch."""

    index: int | None

    def value(self, read: Read, batch: int, times: int) -> np.ndarray:
        """The sizes, with the element for the larger batch."""
        place = () if self.index is None else self.index
        sizes = read.now.copy()
        sizes[place] = read.now[place] * times
        return sizes

    def emit(self, read: Read, batch: int, to: Emitter) -> str:
        """The name of the sizes for any batch."""
        sizes, dtype = np.atleast_1d(read.before), read.before.dtype
        place = self.index or 0
        size = to.batch(dtype)
        if not read.constant:
            # The other elements may change with further dynamic dimensions, so they are kept.
            each = np.where(np.arange(len(sizes)) == place, batch, 1).astype(dtype)
            ones = [np.ones(n, dtype) for n in (place, len(sizes) - place - 1)]
            grown = self._between(ones[0], size, ones[1], to)
            name = to.node("Div", read.name, to.constant(each)) if batch > 1 else read.name
            name = to.node("Mul", name, grown)
        else:
            per_row = sizes[place] // batch
            if per_row > 1:
                size = to.node("Mul", size, to.constant(np.array([per_row], dtype)))
            name = self._between(sizes[:place], size, sizes[place + 1 :], to)
        if self.index is None:
            name = to.node("Reshape", name, to.constant(np.zeros(0, np.int64)))
        return name

    def text(self, read: Read, batch: int) -> str:
        """The change, in words."""
        sizes = [str(size) for size in np.atleast_1d(read.before)]
        place = self.index or 0
        per_row = int(sizes[place]) // batch
        after = [*sizes]
        after[place] = "batch" if per_row == 1 else f"{per_row}·batch"
        if self.index is None:
            return f"{sizes[0]} → {after[0]}"
        return f"[{', '.join(sizes)}] → [{', '.join(after)}]"

    @staticmethod
    def _between(before: np.ndarray, size: str, after: np.ndarray, to: Emitter) -> str:
        parts = [to.constant(before)] if len(before) else []
        parts += [size, *([to.constant(after)] if len(after) else [])]
        return to.node("Concat", *parts, axis=0) if len(parts) > 1 else size


@dataclass(frozen=True)
class Repeat:
    """A tensor with the same for each row is repeated along an axis, once for each row."""

    axis: int

    def value(self, read: Read, batch: int, times: int) -> np.ndarray:
        """The tensor for the larger batch."""
        return np.concatenate([read.now] * times, axis=self.axis)

    def emit(self, read: Read, batch: int, to: Emitter) -> str:
        """The name of the tensor for any batch."""
        name = read.name
        if batch > 1:
            length = read.before.shape[self.axis] // batch
            name = to.constant(np.take(read.before, range(length), self.axis))
        ones = [np.ones(n, np.int64) for n in (self.axis, read.before.ndim - self.axis - 1)]
        parts = [to.constant(n) for n in ones if len(n)]
        parts.insert(1 if self.axis else 0, to.batch(np.dtype(np.int64)))
        repeats = to.node("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]
        return to.node("Tile", name, repeats)

    def text(self, read: Read, batch: int) -> str:
        """The change, in words."""
        after = [str(size) for size in read.before.shape]
        each = read.before.shape[self.axis] // batch
        after[self.axis] = "batch" if each == 1 else f"{each}·batch"
        return f"of shape {list(read.before.shape)} → [{', '.join(after)}]"


@dataclass(frozen=True)
class NumberRows:
    """Indices that point into the rows of another tensor get the number of the row added.

    To one column of the last axis (of GatherND, ScatterND), or, times the size of an axis of
    `data` for one row, to all (of Gather into rows that are merged).
    grown: whether they have the rows of a larger batch themselves; else one row of them is for all.
    """

    axis: int
    grown: bool
    column: int | None = None
    data: str = ""
    data_axis: int = 0
    data_size: int = 1

    def value(self, read: Read, batch: int, times: int) -> np.ndarray:
        """The indices for the larger batch."""
        first = read.now if self.grown else np.take(read.now, [0], self.axis)
        each = read.now.shape[self.axis] // times if self.grown else 1
        numbers = np.arange(batch * times).repeat(each).reshape(self._shape(read.now))
        if self.column is None:
            added = numbers * self.data_size
        else:
            added = numbers * (np.arange(read.now.shape[-1]) == self.column)
        return (first + added).astype(read.now.dtype)

    def emit(self, read: Read, batch: int, to: Emitter) -> str:
        """The name of the indices for any batch."""
        size, name = to.batch(np.dtype(np.int64)), read.name
        if self.grown:
            length = to.size(name, self.axis)
            numbers = to.node("Div", to.range(length), to.node("Div", length, size))
        else:
            numbers = to.range(size)
            if batch > 1:
                name = to.node("Gather", name, to.constant(np.array([0])), axis=self.axis)
        shape = to.constant(np.array(self._shape(read.before)))
        numbers = to.node("Reshape", numbers, shape)
        if self.column is None:
            factor = to.node("Div", to.size(self.data, self.data_axis), size)
        else:
            factor = to.constant((np.arange(read.before.shape[-1]) == self.column).astype(np.int64))
        added = to.cast(to.node("Mul", numbers, factor), read.before.dtype)
        return to.node("Add", name, added)

    def text(self, read: Read, batch: int) -> str:
        """The change, in words."""
        before = "+" if batch == 1 else "with"
        return f"{before} the number of the row" + (
            "" if self.column is None else f" in column {self.column}"
        )

    def _shape(self, array: np.ndarray) -> list[int]:
        return [-1 if axis == self.axis else 1 for axis in range(array.ndim)]


Mend = Scale | Repeat | NumberRows


def scales(read: Read, batch: int) -> Iterator[Scale]:
    """Every element of a vector of integers (or a scalar) that may have the batch in it, and has
    not grown by itself."""
    if read.before.shape != read.now.shape:
        return
    for index in range(read.before.size):
        size, now = read.before.reshape(-1)[index], read.now.reshape(-1)[index]
        if size > 0 and size == now and size % batch == 0:
            yield Scale(index if read.before.ndim else None)


def repeats(read: Read, batch: int) -> Iterator[Repeat]:
    """Every axis that may be the batch; those first that are as long as it."""
    shape = read.before.shape
    if read.now.shape != shape or read.before.nbytes > _MAX_REPEATED_BYTES or not read.before.size:
        return
    if batch > 1 and not read.constant:
        return
    for axis in sorted(range(len(shape)), key=lambda axis: (shape[axis] != batch, axis)):
        length, rest = divmod(shape[axis], batch)
        if rest:
            continue
        one = np.take(read.before, range(length), axis)
        if batch == 1 or np.array_equal(np.concatenate([one] * batch, axis), read.before):
            yield Repeat(axis)
