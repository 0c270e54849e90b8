"""Rows to ask a model with: usual ones, and the neighbours from hell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from tritonkit.check.onnx_model import Arrays
from tritonkit.signature import ModelSignature, TensorSpec

Axes = Mapping[str, int | None]
"""Tensor name → which of its axes is the batch; None where it has none."""


class Kind(StrEnum):
    """What is special about a row; the value says it in words."""

    USUAL = "another usual row"
    SPREAD = "integers from the whole range that the model takes"
    LOUD = "a row 10,000 times as loud"
    QUIET = "a row 10,000 times as quiet"
    ZEROS = "a row of zeros"
    ONES = "a row of ones"
    HIGHEST = "the largest integers that the model takes"
    LOWEST = "the smallest integers that the model takes"
    PADDED = "a row whose second half is padding"
    ENDED = "a row whose second half is the largest integer that the model takes"
    REPEATED = "the same row again, but for its last element"
    NAN = "a row of NaN"


_ONLY_INTEGERS = (Kind.SPREAD, Kind.HIGHEST, Kind.LOWEST, Kind.ENDED)
_FACTOR = {Kind.LOUD: 1e4, Kind.QUIET: 1e-4}
_WORDS = (b"yes", b"no", b"maybe", b"triton", b"Stra\xc3\x9fe", b"a b c")


@dataclass(frozen=True)
class Rows:
    """Makes rows for one model: each is all inputs, one long along the batch axis.

    sizes: of the dynamic dimensions other than the batch, by name. ranges: of integer inputs, the
    lowest and the highest value. examples: real rows, which usual ones are then drawn from.
    An input without a batch axis has the same value in every row.
    """

    signature: ModelSignature
    axes: Axes
    sizes: Mapping[str, int]
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    examples: Sequence[Arrays] = ()

    def kinds(self) -> list[Kind]:
        """The kinds that differ from each other for this model's dtypes."""
        dtypes = {t.dtype.numpy.kind for t in self.signature.inputs}
        left_out = {
            *(() if dtypes & set("iu") else _ONLY_INTEGERS),
            *(() if "f" in dtypes else (Kind.QUIET, Kind.NAN)),
            *(() if dtypes & set("fO") else (Kind.LOUD,)),
        }
        return [kind for kind in Kind if kind not in left_out]

    def row(self, kind: Kind = Kind.USUAL, seed: int = 0) -> dict[str, np.ndarray]:
        """The row of this kind and seed, the same at every call."""
        usual = self._usual(seed)
        made = {}
        for index, spec in enumerate(self.signature.inputs):
            if self.axes[spec.name] is None:
                made[spec.name] = self._usual(0)[spec.name]
            else:
                random = np.random.default_rng([seed, index])
                array = self._changed(spec, usual[spec.name], kind, random)
                made[spec.name] = array.astype(usual[spec.name].dtype, copy=False)
        return made

    def repeated(self, row: Arrays) -> dict[str, np.ndarray]:
        """`row` with the last element of each input changed, as little as its dtype allows."""
        other = {name: array.copy() for name, array in row.items()}
        for name, array in other.items():
            if self.axes[name] is not None and array.size:
                array.flat[-1] = _another(array.flat[-1], self.ranges.get(name, (0, 1)))
        return other

    def batch(self, rows: Sequence[Arrays]) -> dict[str, np.ndarray]:
        """The rows as one batch."""
        return {
            name: rows[0][name]
            if axis is None
            else np.concatenate([row[name] for row in rows], axis=axis)
            for name, axis in self.axes.items()
        }

    def at(self, sizes: Mapping[str, int]) -> Rows:
        """The same, with these sizes."""
        return replace(self, sizes=sizes, examples=())

    def shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """The shape of an input in one row."""
        batch = self.axes[spec.name]
        return tuple(
            1 if axis == batch else dim if isinstance(dim, int) else self.sizes[dim]
            for axis, dim in enumerate(spec.shape)
        )

    def _usual(self, seed: int) -> dict[str, np.ndarray]:
        if self.examples:
            row = self.examples[seed % len(self.examples)]
            return {spec.name: row[spec.name] for spec in self.signature.inputs}
        drawn = {}
        for index, spec in enumerate(self.signature.inputs):
            random = np.random.default_rng([seed, index])
            shape, kind = self.shape(spec), spec.dtype.numpy.kind
            array: np.ndarray
            if kind == "f":
                array = random.standard_normal(shape)
            elif kind == "O":
                array = np.array(_WORDS, dtype=object)[random.integers(len(_WORDS), size=shape)]
            else:
                low, high = self._usual_range(spec)
                array = random.integers(low, high, size=shape, endpoint=True)
            drawn[spec.name] = np.asarray(array, dtype=spec.dtype.numpy)
        return drawn

    def _usual_range(self, spec: TensorSpec) -> tuple[int, int]:
        """What an integer input usually is: anything that a table of its own takes; where there is
        no such limit 0 or 1, which are valid as masks, lengths, flags and token ids.
        """
        low, high = self.ranges.get(spec.name, (0, 1))
        if self.is_unlimited(spec):
            high = 1
        return max(low, 0), high

    def is_unlimited(self, spec: TensorSpec) -> bool:
        """Whether an integer input takes all that its dtype has."""
        if spec.dtype.numpy.kind not in "iu":
            return False
        return self.ranges.get(spec.name, (0, 1))[1] == np.iinfo(spec.dtype.numpy).max

    def _padded(self, spec: TensorSpec, usual: np.ndarray, value: object) -> np.ndarray:
        """`usual` with `value` in the second half of the first axis that is not the batch."""
        batch = self.axes[spec.name] or 0
        axis = next((a for a in range(usual.ndim) if a != batch), None)
        if axis is None or (value == 0 and usual.dtype.kind == "O"):
            return usual
        half = usual.copy()
        half[(slice(None),) * axis + (slice((usual.shape[axis] + 1) // 2, None),)] = value
        return half

    def _changed(
        self, spec: TensorSpec, usual: np.ndarray, kind: Kind, random: np.random.Generator
    ) -> np.ndarray:
        if kind is Kind.PADDED:
            return self._padded(spec, usual, b"" if usual.dtype.kind == "O" else 0)
        if kind is Kind.ENDED:
            limited = spec.dtype.numpy.kind in "iu" and not self.is_unlimited(spec)
            return self._padded(
                spec, usual, self.ranges.get(spec.name, (0, 1))[1] if limited else 0
            )
        if usual.dtype.kind == "f":
            return _changed_floats(usual, kind)
        if usual.dtype.kind == "O":
            return _changed_strings(usual, kind)
        low, high = self.ranges.get(spec.name, (0, 1))
        if kind in (Kind.LOUD, Kind.HIGHEST):
            return np.full_like(usual, high)
        if kind is Kind.LOWEST:
            return np.full_like(usual, low)
        if kind is Kind.ZEROS:
            return np.zeros_like(usual)
        if kind is Kind.ONES:  # masks of ones, but no sentence of one word
            has_table = spec.name in self.ranges and not self.is_unlimited(spec)
            return usual if has_table else np.ones_like(usual)
        if kind is Kind.SPREAD:
            if usual.dtype.kind == "b":
                return random.integers(2, size=usual.shape).astype(bool)
            return random.integers(low, high, size=usual.shape, dtype=usual.dtype, endpoint=True)
        return usual


def _changed_floats(usual: np.ndarray, kind: Kind) -> np.ndarray:
    if kind in _FACTOR:
        most = float(np.finfo(usual.dtype).max)
        return np.clip(usual.astype(np.float64) * _FACTOR[kind], -most, most)
    if kind is Kind.ZEROS:
        return np.zeros_like(usual)
    if kind is Kind.ONES:
        return np.ones_like(usual)
    return np.full_like(usual, np.nan) if kind is Kind.NAN else usual


def _changed_strings(usual: np.ndarray, kind: Kind) -> np.ndarray:
    text = {Kind.LOUD: b"loud " * 100, Kind.ZEROS: b"", Kind.ONES: b"1"}.get(kind)
    return usual if text is None else np.full_like(usual, text)


def _another(value: object, value_range: tuple[int, int]) -> object:
    """A value beside `value`."""
    if isinstance(value, bytes | str):
        return b"another"
    if isinstance(value, np.bool_):
        return not value
    if isinstance(value, np.integer):
        low, high = value_range
        return low if value == high else min(max(int(value) + 1, low), high)
    assert isinstance(value, np.floating)
    return value + 1 if np.isfinite(value) else 0.0
