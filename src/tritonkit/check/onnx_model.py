"""An ONNX file open in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tritonkit.errors import ModelError, describe
from tritonkit.signature import external_files

if TYPE_CHECKING:
    import onnx

Arrays = Mapping[str, np.ndarray]
"""Tensor name → array."""

_EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxModel:
    """An ONNX file open in ONNX Runtime, on the CPU."""

    def __init__(
        self, path: Path, *, optimise: bool = True, changed: onnx.ModelProto | None = None
    ) -> None:
        """optimise: with the graph optimisations that a server would use too. changed: what to
        open in place of what the file says, with the file's external data. ModelError if ONNX
        Runtime cannot load it.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4  # fatal only: what goes wrong is raised
        model: Path | bytes = path
        if changed is None:
            external_files(path)  # says what is missing in plainer words than ONNX Runtime
        else:
            model = changed.SerializeToString()
            options.add_session_config_entry(_EXTERNAL_DATA_FOLDER, str(path.parent))
        try:
            self._session: Any = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
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
        given = {name: as_text(a) for name, a in inputs.items()}
        try:
            answers = self._session.run(None, given)
            return {n: np.asarray(a) for n, a in zip(self._outputs, answers, strict=True)}
        except Exception as error:
            shapes = ", ".join(f"{name}{list(a.shape)}" for name, a in inputs.items())
            raise ModelError(
                f"ONNX Runtime fails on {shapes} ({describe(error)}); mend the model, or give "
                "inputs that it takes"
            ) from error


def as_text(array: np.ndarray) -> np.ndarray:
    """Strings as ONNX Runtime takes them: str; bytes that are not UTF-8 become U+FFFD. Other
    arrays as they are.
    """
    if array.dtype.kind not in "OSU":
        return array
    texts = [
        t.decode(errors="replace") if isinstance(t, bytes) else str(t)
        for t in array.ravel().tolist()
    ]
    return np.array(texts, dtype=object).reshape(array.shape)
