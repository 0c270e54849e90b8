"""What a source answers, as the reference that a file made from it is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.check.parity import Reference
from tritonkit.export.source import Source
from tritonkit.export.torch_model import TorchSource
from tritonkit.signature import read_signature


def reference_of(source: Source) -> Reference:
    """The answers of a PyTorch module, or of an ONNX file, whose batch may be fixed.

    ModelError, when it is called, if the source fails on what it is given.
    """
    if isinstance(source, TorchSource):
        return source.run
    size = read_signature(source.path).fixed_batch
    if size is not None:
        return row_by_row(source.path, size)
    return OnnxModel(source.path).run


def row_by_row(path: Path, size: int) -> Reference:
    """What a file with a batch fixed at `size` answers to any number of rows: each row by itself,
    in a batch of nothing else.
    """
    model = OnnxModel(path)

    def answers(inputs: Arrays) -> dict[str, np.ndarray]:
        count = len(next(iter(inputs.values())))
        rows = [
            model.run({n: np.repeat(a[i : i + 1], size, axis=0) for n, a in inputs.items()})
            for i in range(count)
        ]
        return {n: np.concatenate([row[n][: len(row[n]) // size] for row in rows]) for n in rows[0]}

    return answers
