"""Does the ONNX file, run by ONNX Runtime in batches, answer what it should?

What it should answer comes from a *reference*: the PyTorch module, or the ONNX file that the
model was made from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.check.tolerance import EXACT, TOLERANCES, Tolerance, compare
from tritonkit.errors import CheckFailedError, ModelError

DynamicAxes = Mapping[str, Mapping[int, str]]
"""Input name → axis → name of that dynamic dimension: `{"ids": {1: "sequence"}}`."""

Reference = Callable[[Arrays], dict[str, np.ndarray]]
"""A batch of inputs → the outputs that are right for it."""

BATCHES = (1, 2, 3, 7, 16)
"""Batch sizes that are tried: one, the smallest real batch, odd ones, a round one."""

_NOISE = 0.1
"""Standard deviation of the noise on float inputs, in standard deviations of the examples."""


@dataclass(frozen=True)
class OutputDiff:
    """One output at one batch size. worst: the element that is off the most, in words."""

    name: str
    max_abs_diff: float
    worst: str


@dataclass(frozen=True)
class BatchDiff:
    """All outputs at one batch size. sizes: the sizes of further dynamic dimensions."""

    batch: int
    sizes: Mapping[str, int]
    outputs: tuple[OutputDiff, ...]


@dataclass(frozen=True)
class Mismatch:
    """An output that is not what it should be. where: batch and sizes, what: the numbers."""

    output: str
    batch: int
    where: str
    what: str
    max_abs_diff: float


@dataclass(frozen=True)
class Parity:
    """against: what the reference was. batches: those that agreed; tolerances: by output name."""

    against: str
    batches: tuple[BatchDiff, ...]
    tolerances: Mapping[str, Tolerance]
    mismatch: Mismatch | None = None

    @property
    def max_abs_diff(self) -> float:
        """The largest difference in any output at any batch size."""
        return max((o.max_abs_diff for b in self.batches for o in b.outputs), default=0.0)


def check_parity(
    model: OnnxModel,
    examples: Arrays,
    reference: Reference,
    *,
    against: str,
    remedy: str,
    dynamic_axes: DynamicAxes | None = None,
    batches: Sequence[int] = BATCHES,
) -> Parity:
    """`find_parity`, but CheckFailedError with the numbers and the remedy if an output differs."""
    parity = find_parity(
        model, examples, reference, against=against, dynamic_axes=dynamic_axes, batches=batches
    )
    wrong = parity.mismatch
    if wrong is not None:
        raise CheckFailedError(
            f"output '{wrong.output}' {wrong.where} is not that of {against}: {wrong.what}; "
            f"{remedy}"
        )
    return parity


def find_parity(
    model: OnnxModel,
    examples: Arrays,
    reference: Reference,
    *,
    against: str,
    dynamic_axes: DynamicAxes | None = None,
    batches: Sequence[int] = BATCHES,
) -> Parity:
    """Compare `model` with `reference` at all `batches`, on inputs drawn from `examples`, until an
    output differs.

    against: what the reference is. Where `dynamic_axes` names further dimensions, a batch of 3 is
    also run with these at half the examples' size.
    """
    axes = dynamic_axes or {}
    full = {dim: examples[n].shape[a] for n, named in axes.items() for a, dim in named.items()}
    half = {dim: size // 2 for dim, size in full.items()}
    cases = [(batch, full) for batch in batches] + ([(3, half)] if half else [])
    done: list[BatchDiff] = []
    used: dict[str, Tolerance] = {}
    for batch, sizes in cases:
        inputs = _cut(draw_rows(examples, batch), axes, sizes)
        where = f"at a batch of {batch}" + "".join(f", {d} {s}" for d, s in sizes.items())
        expected = reference(inputs)
        used = {n: TOLERANCES.get(e.dtype, EXACT) for n, e in expected.items()}
        try:
            got = model.run(inputs)
        except ModelError as error:
            name = next(iter(expected))
            wrong = Mismatch(name, batch, where, str(error), math.inf)
            return Parity(against, tuple(done), used, wrong)
        diffs = []
        for name, wanted in expected.items():
            difference = compare(wanted, got[name], TOLERANCES)
            if difference.differs:
                wrong = Mismatch(name, batch, where, difference.words, difference.max_abs)
                return Parity(against, tuple(done), used, wrong)
            diffs.append(OutputDiff(name, difference.max_abs, f"{name}{difference.worst}"))
        done.append(BatchDiff(batch, sizes, tuple(diffs)))
    return Parity(against, tuple(done), used)


def draw_rows(examples: Arrays, batch: int) -> dict[str, np.ndarray]:
    """`batch` rows drawn from the examples, with replacement; the same ones each time.

    All inputs draw the same rows, so what belongs together stays together. Floats get a little
    noise and keep within the examples' range (unless that is one value, as of `torch.zeros`).
    Everything else stays as it is, so that token ids remain token ids.
    """
    random = np.random.default_rng([0, batch])
    rows = random.integers(len(next(iter(examples.values()))), size=batch)
    return {
        name: _with_noise(random, example[rows], example)
        if example.dtype.kind == "f"
        else example[rows]
        for name, example in examples.items()
    }


def _with_noise(random: np.random.Generator, rows: np.ndarray, examples: np.ndarray) -> np.ndarray:
    finite = examples[np.isfinite(examples)].astype(np.float64)
    if not finite.size:
        return rows
    low, high, spread = finite.min(), finite.max(), finite.std()
    if low == high:
        low, high, spread = -np.inf, np.inf, max(1.0, abs(low))
    noise = random.standard_normal(rows.shape) * _NOISE * spread
    noisy: np.ndarray = np.clip(rows + noise, low, high).astype(rows.dtype)
    return noisy


def _cut(inputs: Arrays, axes: DynamicAxes, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The leading part of each named axis, `sizes[name]` long."""
    cut = dict(inputs)
    for name, named in axes.items():
        for axis, dim in named.items():
            cut[name] = np.take(cut[name], range(sizes[dim]), axis=axis)
    return cut
