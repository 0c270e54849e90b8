"""What goes into a model and what comes out: names, dtypes, shapes. The only dtype table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tritonkit.errors import ModelError

if TYPE_CHECKING:
    import onnx

Dim = int | str
"""A fixed size, or the name of a dynamic dimension (`"batch"`, `"sequence"`)."""


@dataclass(frozen=True)
class DataType:
    """One element type under all the names it goes by.

    name: KServe v2 and tritonclient (`FP32`); triton: config.pbtxt (`TYPE_FP32`);
    onnx: `onnx.TensorProto` (`FLOAT`); onnxruntime: its session's (`tensor(float)`).
    """

    name: str
    triton: str
    onnx: str
    onnxruntime: str
    numpy: np.dtype


def _row(name: str, triton: str, onnx_name: str, ort: str, dtype: type) -> DataType:
    return DataType(name, f"TYPE_{triton}", onnx_name, f"tensor({ort})", np.dtype(dtype))


DATA_TYPES: tuple[DataType, ...] = (
    _row("BOOL", "BOOL", "BOOL", "bool", np.bool_),
    _row("UINT8", "UINT8", "UINT8", "uint8", np.uint8),
    _row("UINT16", "UINT16", "UINT16", "uint16", np.uint16),
    _row("UINT32", "UINT32", "UINT32", "uint32", np.uint32),
    _row("UINT64", "UINT64", "UINT64", "uint64", np.uint64),
    _row("INT8", "INT8", "INT8", "int8", np.int8),
    _row("INT16", "INT16", "INT16", "int16", np.int16),
    _row("INT32", "INT32", "INT32", "int32", np.int32),
    _row("INT64", "INT64", "INT64", "int64", np.int64),
    _row("FP16", "FP16", "FLOAT16", "float16", np.float16),
    _row("FP32", "FP32", "FLOAT", "float", np.float32),
    _row("FP64", "FP64", "DOUBLE", "double", np.float64),
    _row("BYTES", "STRING", "STRING", "string", np.object_),
)
"""The element types that both ONNX Runtime and Triton carry."""

KSERVE_TYPES = {d.name: d for d in DATA_TYPES}
"""The same by KServe's names."""

_BY_TRITON = {d.triton: d for d in DATA_TYPES}
_BY_ONNX = {d.onnx: d for d in DATA_TYPES}
_BY_NUMPY = {d.numpy: d for d in DATA_TYPES}


def data_type(name: str) -> DataType:
    """The dtype called `name` (`FP32`, `TYPE_FP32` or `FLOAT`). ModelError if there is none."""
    for table in (KSERVE_TYPES, _BY_TRITON, _BY_ONNX):
        if name in table:
            return table[name]
    known = ", ".join(KSERVE_TYPES)
    raise ModelError(f"dtype '{name}' is not carried by both ONNX Runtime and Triton; use {known}")


def data_type_of(array: np.ndarray) -> DataType:
    """The dtype of a numpy array; any string or bytes array is BYTES."""
    if array.dtype.kind in "OSU":
        return KSERVE_TYPES["BYTES"]
    if array.dtype not in _BY_NUMPY:
        raise ModelError(f"numpy dtype {array.dtype} is not carried by Triton; convert the array")
    return _BY_NUMPY[array.dtype]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `shape` includes the batch dimension where there is one."""

    name: str
    dtype: DataType
    shape: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{self.name}:{self.dtype.name}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class ModelSignature:
    """All inputs and outputs of a model, in the model's own order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def fixed_batch(self) -> int | None:
        """The one fixed size that all inputs begin with, which may be a batch; None if they do not.

        What the outputs declare plays no part: what they are is found by running the model.
        """
        first = {t.shape[0] if t.shape else None for t in self.inputs}
        size = next(iter(first), None)
        return size if len(first) == 1 and isinstance(size, int) and size > 0 else None

    def without_batch_axis(self) -> tuple[TensorSpec, ...]:
        """The tensors that keep the model from being batched: no leading dynamic dimension."""
        return tuple(
            t for t in (*self.inputs, *self.outputs) if not t.shape or isinstance(t.shape[0], int)
        )

    def to_json(self) -> dict[str, list[dict[str, object]]]:
        """`{"inputs": [{"name", "dtype", "shape"}], "outputs": […]}`, ready for `json.dumps`."""
        return {
            side: [{"name": t.name, "dtype": t.dtype.name, "shape": list(t.shape)} for t in tensors]
            for side, tensors in (("inputs", self.inputs), ("outputs", self.outputs))
        }

    def require_batch_axis(self, model: str) -> None:
        """ModelError unless every tensor has a dynamic leading dimension."""
        for tensor in self.without_batch_axis():
            raise ModelError(
                f"{model}: tensor {tensor} has no batch axis (its first dimension must be "
                "dynamic); export the model with a dynamic first dimension"
            )


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file without its external data. ModelError if it is missing or is not ONNX."""
    import onnx
    from google.protobuf.message import DecodeError

    if path.is_dir():
        raise ModelError(f"{path} is a directory; give the .onnx file itself")
    if not path.is_file():
        raise ModelError(f"no such model file: {path}")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path} is not an ONNX file; give a .onnx file") from error
    if not model.graph.output:
        raise ModelError(f"{path} is not an ONNX model (it has no outputs); give a .onnx file")
    return model


def read_signature(path: Path) -> ModelSignature:
    """The signature of an ONNX file, as it declares it. Dimensions without a size get a name."""
    graph = load_onnx(path).graph
    if any(not v.type.tensor_type.HasField("shape") for v in graph.output):
        graph = _with_shapes(path)
    weights = {w.name for w in graph.initializer}
    return ModelSignature(
        inputs=tuple(_tensor_spec(path, v) for v in graph.input if v.name not in weights),
        outputs=tuple(_tensor_spec(path, v) for v in graph.output),
    )


def _with_shapes(path: Path) -> onnx.GraphProto:
    """The graph with the shapes that follow from its inputs, where it declares none."""
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(load_onnx(path)).graph
    except onnx.shape_inference.InferenceError:
        return load_onnx(path).graph


def external_files(path: Path) -> dict[str, Path]:
    """The files that an ONNX file keeps weights in: where it says they are, relative to itself,
    and where that is.

    ModelError if one is missing, or lies outside the model's folder.
    """
    files = {}
    for location in sorted(set(_external_locations(load_onnx(path).graph))):
        data = path.parent / location
        if not data.resolve().is_relative_to(path.parent.resolve()):
            raise ModelError(
                f"{path}: its external data '{location}' lies outside the model's folder; "
                "save the model with its data beside it"
            )
        if not data.is_file():
            raise ModelError(f"{path}: its external data file {data} is missing; put it there")
        files[location] = data
    return files


def _external_locations(graph: onnx.GraphProto) -> Iterator[str]:
    """The files that tensors of `graph` and of the graphs inside its nodes are kept in."""
    import onnx

    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for inner in (attribute.g, *attribute.graphs):
                yield from _external_locations(inner)
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield from (entry.value for entry in tensor.external_data if entry.key == "location")


_NAMELESS = ("", "?", "None")
"""What exporters call a dynamic dimension of which they know nothing."""


def _tensor_spec(path: Path, value: onnx.ValueInfoProto) -> TensorSpec:
    import onnx

    if value.type.WhichOneof("value") != "tensor_type":
        raise ModelError(f"{path}: '{value.name}' is not a tensor; Triton carries only tensors")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise ModelError(f"{path}: '{value.name}' has no declared shape; run onnx shape inference")
    shape: tuple[Dim, ...] = tuple(
        d.dim_value
        if d.HasField("dim_value") and d.dim_value >= 0  # Paddle writes -1 for a dynamic one
        else (d.dim_param if d.dim_param not in _NAMELESS else f"{value.name}_dim_{i}")
        for i, d in enumerate(tensor.shape.dim)
    )
    dtype = data_type(onnx.TensorProto.DataType.Name(tensor.elem_type))
    return TensorSpec(value.name, dtype, shape)


def read_metadata(metadata: Mapping[str, Any]) -> ModelSignature:
    """The signature in a server's KServe v2 model metadata. Dynamic dimensions get a name."""

    def specs(tensors: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                t["name"],
                data_type(t["datatype"]),
                tuple(f"dim_{i}" if int(d) < 0 else int(d) for i, d in enumerate(t["shape"])),
            )
            for t in tensors
        )

    return ModelSignature(specs(metadata["inputs"]), specs(metadata["outputs"]))
