"""Where the rows of a batch lie in a tensor inside a graph.

At a graph's inputs a row is one index of one axis. Inside, the batch axis may be elsewhere
(`[time, batch, features]`), or merged with another: a reshape to `[batch·time, features]` leaves
each row a block of `time` indices, one to `[time·batch, features]` leaves it every batch-th index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Placement:
    """A batch's rows lie along `axis`, which is `each` times as long as the batch has rows.

    interleaved: the rows take turns (index `i·batch + row`); otherwise a row is one block
    (`row·each + i`). With `each` 1 the two are the same, and interleaved is False.
    """

    axis: int
    each: int = 1
    interleaved: bool = False

    def row(self, tensor: np.ndarray, index: int) -> np.ndarray:
        """The part that belongs to row `index`: `each` long along the axis."""
        batch = tensor.shape[self.axis] // self.each
        if self.interleaved:
            places = slice(index, None, batch)
        else:
            places = slice(index * self.each, (index + 1) * self.each)
        return tensor[(slice(None),) * self.axis + (places,)]

    def join(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """The tensor of a batch of these rows; the opposite of `row`."""
        if not self.interleaved:
            return np.concatenate(rows, axis=self.axis)
        stacked = np.stack(rows, axis=self.axis + 1)
        shape = list(rows[0].shape)
        shape[self.axis] *= len(rows)
        return stacked.reshape(shape)


def placements(
    one: tuple[int, ...], one_batch: int, other: tuple[int, ...], other_batch: int
) -> list[Placement]:
    """All placements that a tensor can have whose shape is `one` in a batch of `one_batch` rows
    and `other` in a batch of `other_batch`: a single axis grows, in proportion.

    Empty where the shapes do not depend on the batch, and where they depend on it otherwise.
    """
    if len(one) != len(other) or one_batch == other_batch:
        return []
    grown = [axis for axis, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    if len(grown) != 1:
        return []
    axis = grown[0]
    each, rest = divmod(one[axis], one_batch)
    if rest or not each or other[axis] != each * other_batch:
        return []
    blocks = Placement(axis, each)
    return [blocks] if each == 1 else [blocks, Placement(axis, each, interleaved=True)]
