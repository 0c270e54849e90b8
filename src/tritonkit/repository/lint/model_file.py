"""An ONNX file as ONNX Runtime, and so the server, sees it; or what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonkit.errors import ModelError, describe
from tritonkit.repository.backend_rules import dynamic_shape
from tritonkit.signature import external_files, load_onnx

_GIT_LFS = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class ModelTensor:
    """An input or output; as `onnxruntime.NodeArg`, but without the session behind it."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class ModelTensors:
    """What goes into a model and comes out. initializers: weights that a request may override."""

    inputs: tuple[ModelTensor, ...]
    outputs: tuple[ModelTensor, ...]
    initializers: tuple[ModelTensor, ...]

    @property
    def batchable(self) -> bool:
        """Whether Triton's auto-complete takes the model for one that can be batched."""
        shapes = [dynamic_shape(tensor) for tensor in (*self.inputs, *self.outputs)]
        return all(shape[:1] == [-1] for shape in shapes)


@dataclass(frozen=True)
class Fault:
    """Why a model file cannot be served. `rule`: the id of the rule that tells it."""

    rule: str
    message: str
    remedy: str


def inspect_model(file: Path, *, custom_operations: bool) -> ModelTensors | Fault | None:
    """The tensors of the model that a server would open for `file`, without optimizing it.

    ONNX Runtime itself is asked, for it infers shapes that a file leaves open and compares those.
    None for a model with operations from libraries of its own: they are the server's.
    """
    if file.is_dir():  # external data: a folder of that name holds model.onnx and its data
        file = file / "model.onnx"
    fault = _not_there(file) or _not_onnx(file)
    if fault or custom_operations:
        return fault
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what it warns of is not said of the config
    try:
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ORT's errors share no base class below Exception
        return Fault(
            "model-not-loadable",
            f"ONNX Runtime {ort.__version__} cannot load {file}: {describe(error)}",
            "export the model again",
        )
    return ModelTensors(
        _tensors(session.get_inputs()),
        _tensors(session.get_outputs()),
        _tensors(session.get_overridable_initializers()),
    )


def _tensors(nodes: Sequence[Any]) -> tuple[ModelTensor, ...]:
    return tuple(ModelTensor(node.name, node.type, tuple(node.shape)) for node in nodes)


def _not_there(file: Path) -> Fault | None:
    if file.is_file():
        return None
    if file.is_symlink():
        what = f"{file} is a symbolic link to {file.readlink()}, which is not there"
        return Fault("model-file-missing", what, "mend the link, or put the file itself there")
    remedy = f"put the model at {file}, or name its file in default_model_filename"
    return Fault("model-file-missing", f"there is no {file}", remedy)


def _not_onnx(file: Path) -> Fault | None:
    with file.open("rb") as opened:
        if opened.read(len(_GIT_LFS)) == _GIT_LFS:
            what = f"{file} is a Git LFS pointer, not the model"
            return Fault("model-not-onnx", what, "fetch it: git lfs pull")
    if not file.stat().st_size:
        return Fault("model-not-onnx", f"{file} is empty", "put the model there")
    try:
        load_onnx(file)
    except ModelError as error:
        what, _, remedy = str(error).rpartition("; ")
        return Fault("model-not-onnx", what, remedy)
    try:
        external_files(file)
    except ModelError as error:
        what, _, remedy = str(error).rpartition("; ")
        return Fault("external-data", what, remedy)
    return None
