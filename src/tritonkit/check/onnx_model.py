"""An ONNX file open in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tritonkit.errors import ModelError, describe
from tritonkit.signature import external_files

Arrays = Mapping[str, np.ndarray]
"""Tensor name → array."""


class OnnxModel:
    """An ONNX file open in ONNX Runtime, on the CPU."""

    def __init__(self, path: Path, *, optimise: bool = True) -> None:
        """optimise: with the graph optimisations that a server would use too. ModelError if ONNX
        Runtime cannot load the file.
        """
        import onnxruntime

        external_files(path)  # says what is missing in plainer words than ONNX Runtime
        options = onnxruntime.SessionOptions()
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4  # fatal only: what goes wrong is raised
        try:
            self._session: Any = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(
                f"{path}: ONNX Runtime cannot load it ({describe(error)}); mend the file"
            ) from error
        self._outputs = [o.name for o in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Output name → array. ModelError if ONNX Runtime fails on these inputs.

        Strings may be bytes (as in payloads) or str; they come back as str.
        """
        given = {name: _as_text(a) if a.dtype.kind in "OSU" else a for name, a in inputs.items()}
        try:
            answers = self._session.run(None, given)
            return {n: np.asarray(a) for n, a in zip(self._outputs, answers, strict=True)}
        except Exception as error:
            shapes = ", ".join(f"{name}{list(a.shape)}" for name, a in inputs.items())
            raise ModelError(
                f"ONNX Runtime fails on {shapes} ({describe(error)}); mend the model, or give "
                "inputs that it takes"
            ) from error


def _as_text(array: np.ndarray) -> np.ndarray:
    texts = [
        t.decode(errors="surrogateescape") if isinstance(t, bytes) else str(t)
        for t in array.ravel().tolist()
    ]
    return np.array(texts, dtype=object).reshape(array.shape)
