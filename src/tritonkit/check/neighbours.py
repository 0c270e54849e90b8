"""Does a row's answer stay the same whoever shares its batch?

Triton puts requests of strangers in one batch. Two questions, because they have two answers:

* Do rows feel each other? Each row is compared with itself among copies of itself, at the same
  batch size. The arithmetic is the same, so nothing but another row can make a difference, and
  the limits are narrow.
* Does the size of the batch matter? Each row is compared with itself alone. Kernels may sum in
  another order at another size, and a model whose arithmetic cancels blows that rounding up:
  magika's layer norm takes E[x²] - E[x]², and a row's probabilities move by up to 0.02 between a
  batch of 1 and any larger one, while its neighbours move them by exactly 0. So the limits are
  wide, and catch only what is plainly another answer, such as a division by the batch size. How
  much it was is written down.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.check.parity import Parity, Reference, check_parity
from tritonkit.check.tolerance import Tolerance
from tritonkit.errors import CheckFailedError

_WIDE = Tolerance(relative=5e-2, of_largest=5e-2, floor=1e-6)
WIDE_TOLERANCES = {np.dtype(kind): _WIDE for kind in (np.float16, np.float32, np.float64)}
"""For a row alone against the row in a batch: rounding that the model itself has blown up."""


def check_neighbours(model: OnnxModel, examples: Arrays) -> tuple[Parity, Parity]:
    """Both checks at all batch sizes, on rows drawn from `examples`, which may have one row.

    CheckFailedError if rows feel each other or the size of the batch matters; ModelError if
    ONNX Runtime fails on the examples.
    """
    among_copies = check_parity(
        model,
        examples,
        _row_by_row(model, lambda row, batch: np.repeat(row, batch, axis=0)),
        against="each row among copies of itself",
        remedy="rows of a batch change each other's answers: serve it unbatched, or mend it",
    )
    alone = check_parity(
        model,
        examples,
        _row_by_row(model, lambda row, batch: row),
        against="each row alone",
        remedy="answers depend on the batch's size: serve it unbatched, or mend it",
        tolerances=WIDE_TOLERANCES,
    )
    return among_copies, alone


def _row_by_row(model: OnnxModel, surround: Callable[[np.ndarray, int], np.ndarray]) -> Reference:
    """A reference that runs each row in a batch of its own and puts the answers together.

    surround: (row, size of the whole batch) → the batch to run instead, with the row everywhere.
    """

    def reference(inputs: Arrays) -> dict[str, np.ndarray]:
        batch = len(next(iter(inputs.values())))
        answers: list[dict[str, np.ndarray]] = []
        for i in range(batch):
            surrounded = {name: surround(a[i : i + 1], batch) for name, a in inputs.items()}
            size = len(next(iter(surrounded.values())))
            outputs = model.run(surrounded)
            for name, output in outputs.items():
                _require_rows(name, output, size)
            place = slice(i, i + 1) if size == batch else slice(0, 1)
            answers.append({name: output[place] for name, output in outputs.items()})
        return {name: _together(name, [a[name] for a in answers]) for name in answers[0]}

    return reference


def _require_rows(name: str, output: np.ndarray, batch: int) -> None:
    if not output.ndim or len(output) != batch:
        raise CheckFailedError(
            f"output '{name}' has shape {list(output.shape)} for a batch of {batch}; a model to "
            "batch gives one row for each row it gets"
        )


def _together(name: str, rows: list[np.ndarray]) -> np.ndarray:
    shapes = sorted({row.shape for row in rows})
    if len(shapes) > 1:
        raise CheckFailedError(
            f"output '{name}' has shape {list(shapes[0])} for one row and {list(shapes[1])} for "
            "another of the same shape; rows to batch must give answers of one shape"
        )
    return np.concatenate(rows)
