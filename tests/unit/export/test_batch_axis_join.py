"""Which join of the parts a tensor is."""

import numpy as np
import pytest

from tritonkit.export.batch_join import Join, find_join

PARTS = [np.random.default_rng(i).standard_normal((2, 6, 3)).astype(np.float32) for i in range(3)]


@pytest.mark.parametrize("join", [Join(0), Join(1), Join(2), Join(1, 2), Join(1, 3), Join(1, 6)])
def test_found(join):
    """The join that a tensor was made by is found again, up to rounding."""
    assert find_join(PARTS, join.of(PARTS) * np.float32(1 + 1e-6), 1) == join


def test_rows_in_another_order():
    """The same rows in another order are no join."""
    assert find_join(PARTS, Join(0).of(PARTS[::-1]), 1) is None


def test_another_shape():
    """Neither is what has another rank, or did not grow with the rows."""
    assert find_join(PARTS, PARTS[0], 1) is None
    assert find_join(PARTS, Join(0).of(PARTS)[0], 1) is None


def test_parts_of_several_rows():
    """Parts of two rows are not split inside a row."""
    assert find_join(PARTS, Join(1, 3).of(PARTS), 2) == Join(1, 3)
    assert find_join(PARTS, Join(1, 6).of(PARTS), 2) is None


def test_parts_of_different_length():
    """Parts that differ in length along the axis follow each other."""
    parts = [np.arange(n) for n in (2, 1, 4)]
    assert find_join(parts, np.concatenate(parts), 1) == Join(0)


def test_values_that_drown_the_others():
    """Where a huge value lets all joins pass as rounding, it is still the right one."""
    parts = [part.copy() for part in PARTS]
    for part in parts:
        part[0] = -3e38
    assert find_join(parts, Join(1, 3).of(parts), 1) == Join(1, 3)
