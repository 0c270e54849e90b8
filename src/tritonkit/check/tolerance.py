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
    takes the place of a fixed absolute tolerance, which means nothing for an unknown unit. Of
    max|r| no more counts than `cap` times the smallest tenth: a masked score of -1e9 says nothing
    about the others.
    """

    relative: float
    of_largest: float
    floor: float
    cap: float | None = None


Tolerances = Mapping[np.dtype, Tolerance]
"""By dtype; a dtype without one is compared exactly."""

TOLERANCES: Tolerances = {
    np.dtype(np.float16): Tolerance(relative=1e-2, of_largest=5e-3, floor=1e-4),
    np.dtype(np.float32): Tolerance(relative=1e-3, of_largest=1e-4, floor=1e-6),
    np.dtype(np.float64): Tolerance(relative=1e-6, of_largest=1e-7, floor=1e-12),
}
"""Between two programs that compute the same: rounding in another order."""

NARROW_TOLERANCES: Tolerances = {
    np.dtype(np.float16): Tolerance(relative=1e-2, of_largest=1e-3, floor=0.0, cap=1e4),
    np.dtype(np.float32): Tolerance(relative=1e-4, of_largest=1e-5, floor=0.0, cap=1e4),
    np.dtype(np.float64): Tolerance(relative=1e-10, of_largest=1e-11, floor=0.0, cap=1e4),
}
"""Between two runs of one file at one shape, which do the same arithmetic on what does not differ.
Not zero: a model that routes rows (a mixture of experts) sums in an order that depends on them.
Leaks are small only until a neighbour is loud."""

WIDE_TOLERANCES: Tolerances = {
    np.dtype(kind): Tolerance(relative=5e-2, of_largest=5e-2, floor=1e-6)
    for kind in (np.float16, np.float32, np.float64)
}
"""Between a row alone and in a batch: rounding that the model itself may blow up. Beyond it is
plainly another answer."""

EXACT = Tolerance(0.0, 0.0, 0.0)
"""For integers, booleans and strings."""


@dataclass(frozen=True)
class Difference:
    """Two arrays compared. differs: beyond the tolerance, or of another shape or dtype.

    max_abs: the largest difference of an element (1 for a string or a truth value; infinity where
    only one is a number, or the shapes differ). worst: the worst element. words: all of it.
    """

    differs: bool
    max_abs: float
    worst: str
    words: str = ""


def compare(expected: np.ndarray, got: np.ndarray, tolerances: Tolerances) -> Difference:
    """How far `got` is from `expected`; NaN equals NaN, an infinity itself."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        kinds = [f"{a.dtype}{list(a.shape)}" for a in (got, expected)]
        worst = f"got {kinds[0]}, expected {kinds[1]}"
        return Difference(True, np.inf, worst, worst)
    if not got.size:
        return Difference(False, 0.0, "it is empty")
    apart, limits = differences(expected, got, tolerances.get(expected.dtype, EXACT))
    excess = np.where(apart > limits, apart, -1.0)
    differs = bool((excess >= 0).any())
    place = np.unravel_index(np.argmax(excess if differs else apart), got.shape)
    shown = [f"{a[place]:.4g}" if a.dtype.kind == "f" else f"{a[place]}" for a in (got, expected)]
    worst = f"{[int(i) for i in place]}: got {shown[0]}, expected {shown[1]}"
    words = (
        f"{int((excess >= 0).sum())} of {got.size} elements differ, worst {worst}, "
        f"difference {apart[place]:.3g}, allowed {limits[place]:.3g}"
    )
    return Difference(differs, float(apart.max()), worst, words)


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
    with np.errstate(invalid="ignore", over="ignore"):
        same = (wide == other) | (np.isnan(wide) & np.isnan(other))
        apart = np.where(same, 0.0, np.abs(wide - other))
    apart = np.where(np.isnan(apart), np.inf, apart)
    size = np.where(np.isfinite(wide), np.abs(wide), 0.0)
    limit = (
        tolerance.relative * size
        + tolerance.of_largest * _largest(size, tolerance.cap)
        + tolerance.floor
    )
    return apart, limit


def _largest(size: np.ndarray, cap: float | None) -> float:
    nonzero = size[size > 0]
    if not nonzero.size:
        return 0.0
    largest = float(nonzero.max())
    return largest if cap is None else min(largest, cap * float(np.quantile(nonzero, 0.1)))
