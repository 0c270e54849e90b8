"""How a tensor of several batches is made of the tensors of each.

Inside a graph the batch need not be a whole axis: a reshape to `[batch·time, features]` leaves
each row a block of indices, one to `[time·batch, features]` every batch-th index, one to
`[time·batch·heads, …]` a block in each time step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tritonkit.check.tolerance import TOLERANCES, compare


@dataclass(frozen=True)
class Join:
    """The parts follow each other along `axis`, seen as `[outer, rest]`, within each of `outer`."""

    axis: int
    outer: int = 1

    def of(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """The tensor of all the parts. With an outer of 1 they may be of different length."""
        if self.outer == 1:
            return np.concatenate(parts, axis=self.axis)
        shape = parts[0].shape
        before, size, after = shape[: self.axis], shape[self.axis], shape[self.axis + 1 :]
        split = (*before, self.outer, size // self.outer, *after)
        joined = np.concatenate([part.reshape(split) for part in parts], axis=self.axis + 1)
        return joined.reshape(*before, size * len(parts), *after)

    def is_whole_axis(self, part: np.ndarray, batch: int) -> bool:
        """Whether the axis is the batch and nothing else; `part` is of `batch` rows."""
        return self.outer == 1 and part.shape[self.axis] == batch


AT_FRONT = Join(0)
"""As in a batch that a server makes: at axis 0."""


def find_join(parts: Sequence[np.ndarray], whole: np.ndarray, batch: int) -> Join | None:
    """The join of `parts`, of `batch` rows each, that is `whole` up to rounding; None without one.

    Where several are, the nearest: values such as -3e38 in a mask let much pass as rounding.
    """
    found = []
    for join in _joins(parts, whole, batch):
        joined = join.of(parts)
        if not compare(joined, whole, TOLERANCES).differs:
            found.append((_distance(joined, whole), join))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _joins(parts: Sequence[np.ndarray], whole: np.ndarray, batch: int) -> list[Join]:
    """The joins that give the shape of `whole`, the plainest first."""
    shape = parts[0].shape
    if any(part.ndim != whole.ndim or part.dtype != whole.dtype for part in parts):
        return []
    joins = []
    for axis in range(whole.ndim):
        around = {(*part.shape[:axis], *part.shape[axis + 1 :]) for part in parts}
        length = sum(part.shape[axis] for part in parts)
        if around != {(*whole.shape[:axis], *whole.shape[axis + 1 :])}:
            continue
        if whole.shape[axis] != length:
            continue
        joins.append(Join(axis))
        rows, rest = divmod(shape[axis], batch)
        if not rest and all(part.shape == shape for part in parts):
            joins += [Join(axis, n) for n in range(2, rows + 1) if rows % n == 0]
    return joins


def _distance(expected: np.ndarray, got: np.ndarray) -> float:
    """Mean relative difference, each element's at most 1."""
    if expected.dtype.kind != "f" or not expected.size:
        return 0.0
    wide, other = expected.astype(np.float64), got.astype(np.float64)
    with np.errstate(all="ignore"):
        apart = np.abs(wide - other) / (np.abs(wide) + np.abs(other))
    return float(np.nan_to_num(apart, nan=0.0, posinf=1.0).mean())
