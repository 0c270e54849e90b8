"""Where the rows of a batch lie in a tensor: views of them, and the way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonkit.check.placement import Placement, placements


@st.composite
def placed(draw):
    """(tensor, placement, number of rows)"""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axis = draw(st.integers(0, len(shape) - 1))
    each, batch = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    shape[axis] = each * batch
    tensor = np.arange(np.prod(shape)).reshape(shape)
    return tensor, Placement(axis, each, draw(st.booleans())), batch


@given(placed())
def test_join_undoes_row(case):
    """The rows of any tensor, joined, are the tensor again."""
    tensor, placement, batch = case
    rows = [placement.row(tensor, i) for i in range(batch)]
    np.testing.assert_array_equal(placement.join(rows), tensor)


@given(placed())
def test_rows_are_views(case):
    """A row of a tensor is a view: nothing is copied."""
    tensor, placement, batch = case
    assert all(np.shares_memory(placement.row(tensor, i), tensor) for i in range(batch))


@given(placed(), st.integers(1, 5))
def test_placement_is_found(case, other_batch):
    """The shapes at two batches give back the placement that made them, and both of its kinds."""
    tensor, placement, batch = case
    other = list(tensor.shape)
    other[placement.axis] = placement.each * other_batch
    found = placements(tensor.shape, batch, tuple(other), other_batch)
    if batch == other_batch:
        assert found == []
    elif placement.each == 1:
        assert found == [Placement(placement.axis)]
    else:
        ways = [Placement(placement.axis, placement.each, way) for way in (False, True)]
        assert found == ways


def test_blocks():
    """A tensor merged as [batch·time] has each row in one block."""
    merged = np.array(["a0", "a1", "b0", "b1", "c0", "c1"])
    assert Placement(0, 2).row(merged, 1).tolist() == ["b0", "b1"]


def test_interleaved():
    """A tensor merged as [time·batch] has each row at every batch-th place."""
    merged = np.array(["a0", "b0", "c0", "a1", "b1", "c1"])
    assert Placement(0, 2, interleaved=True).row(merged, 1).tolist() == ["b0", "b1"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((4, 2), (4, 2)),  # no batch in it
        ((2, 2), (3, 3)),  # every row with every row
        ((2, 4), (3,)),  # another rank
        ((3, 4), (4, 4)),  # a row, and one more: 2 → 3 rows
        ((2, 4), (5, 4)),  # not in proportion
        ((0, 4), (3, 4)),  # nothing, and then something
    ],
)
def test_no_placement(one, other):
    """A tensor that does not grow along one axis with the batch (2 → 3 rows) has no rows."""
    assert placements(one, 2, other, 3) == []
