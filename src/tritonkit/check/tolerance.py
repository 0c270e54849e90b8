"""How far two answers may be apart and still be the same answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """How far an element may be from the reference `r`: relative·|r| + of_largest·max|r| + floor.

    The second term is there because the rounding error of a sum grows with the size of what is
    summed, not of what is left: a small element of a tensor of large ones is less exact. It
    takes the place of a fixed absolute tolerance, which means nothing for an unknown unit.
    """

    relative: float
    of_largest: float
    floor: float


Tolerances = Mapping[np.dtype, Tolerance]
"""By dtype; a dtype without one is compared exactly."""

TOLERANCES: Tolerances = {
    np.dtype(np.float16): Tolerance(relative=1e-2, of_largest=5e-3, floor=1e-4),
    np.dtype(np.float32): Tolerance(relative=1e-3, of_largest=1e-4, floor=1e-6),
    np.dtype(np.float64): Tolerance(relative=1e-6, of_largest=1e-7, floor=1e-12),
}
EXACT = Tolerance(0.0, 0.0, 0.0)
"""For integers, booleans and strings."""


def differences(
    expected: np.ndarray, got: np.ndarray, tolerance: Tolerance
) -> tuple[np.ndarray, np.ndarray]:
    """By element, how far `got` is off and may be off; NaN equals NaN, inf equals inf."""
    if expected.dtype.kind != "f":
        unequal = (got != expected).astype(np.float64)
        if expected.dtype.kind in "iu":  # say how far apart, but let no rounding make them equal
            far = np.abs(got.astype(np.float64) - expected.astype(np.float64))
            unequal = np.maximum(unequal, far)
        return unequal, np.zeros(expected.shape)
    wide, other = expected.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        same = (wide == other) | (np.isnan(wide) & np.isnan(other))
        apart = np.where(same, 0.0, np.abs(wide - other))
    apart = np.where(np.isnan(apart), np.inf, apart)
    size = np.where(np.isfinite(wide), np.abs(wide), 0.0)
    limit = tolerance.relative * size + tolerance.of_largest * size.max() + tolerance.floor
    return apart, limit
