"""Does the ONNX file, run by ONNX Runtime in batches, answer what it should?

What it should answer comes from a *reference*: the PyTorch module run on the same batch, or (see
neighbours.py) the same file run on each row by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.check.tolerance import EXACT, TOLERANCES, Tolerance, Tolerances, differences
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
class Parity:
    """A passed check. against: what the reference was; tolerances: by output name."""

    against: str
    batches: tuple[BatchDiff, ...]
    tolerances: Mapping[str, Tolerance]

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
    tolerances: Tolerances = TOLERANCES,
) -> Parity:
    """Compare `model` with `reference` at all BATCHES, on inputs drawn from `examples`.

    against: what the reference is; remedy: what to do if the model differs from it.
    Where `dynamic_axes` names further dimensions, a batch of 3 is also run with these at half
    the examples' size. CheckFailedError with the numbers at the first output that differs.
    """
    axes = dynamic_axes or {}
    full = {dim: examples[n].shape[a] for n, named in axes.items() for a, dim in named.items()}
    half = {dim: size // 2 for dim, size in full.items()}
    cases = [(batch, full) for batch in BATCHES] + ([(3, half)] if half else [])
    done, used = [], {}
    for batch, sizes in cases:
        inputs = _cut(draw_rows(examples, batch), axes, sizes)
        where = f"at a batch of {batch}" + "".join(f", {d} {s}" for d, s in sizes.items())
        expected = reference(inputs)
        try:
            got = model.run(inputs)
        except ModelError as error:
            raise CheckFailedError(f"{where}: {error}") from error
        used = {n: tolerances.get(e.dtype, EXACT) for n, e in expected.items()}
        diffs = []
        for name, wanted in expected.items():
            _require_rows(name, got[name], batch)
            diff, problem = _compare(name, wanted, got[name], used[name])
            if problem:
                raise CheckFailedError(
                    f"output '{name}' {where} is not that of {against}: {problem}; {remedy}"
                )
            diffs.append(diff)
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


def _require_rows(name: str, got: np.ndarray, batch: int) -> None:
    if not got.ndim or len(got) != batch:
        rows = f"{len(got)} rows" if got.ndim else "no rows at all"
        raise CheckFailedError(
            f"output '{name}' has {rows} for a batch of {batch}: shape {list(got.shape)}; a model "
            "to batch gives one row for each row it gets"
        )


def _compare(
    name: str, expected: np.ndarray, got: np.ndarray, tolerance: Tolerance
) -> tuple[OutputDiff, str]:
    """How far an output is off, and what is wrong with that (nothing: an empty text)."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        kinds = [f"{a.dtype}{list(a.shape)}" for a in (got, expected)]
        return OutputDiff(name, np.inf, name), f"got {kinds[0]}, expected {kinds[1]}"
    if not got.size:
        return OutputDiff(name, 0.0, f"{name} is empty"), ""
    apart, limits = differences(expected, got, tolerance)
    excess = np.where(apart > limits, apart, -1.0)
    count = int((excess >= 0).sum())
    place = np.unravel_index(np.argmax(excess if count else apart), got.shape)
    worst = f"{name}{[int(i) for i in place]}: got {got[place]}, expected {expected[place]}"
    diff = OutputDiff(name, float(apart.max()), worst)
    if not count:
        return diff, ""
    return diff, (
        f"{count} of {got.size} elements differ, worst {worst}, "
        f"difference {apart[place]:.3g}, allowed {limits[place]:.3g}"
    )
