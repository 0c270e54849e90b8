"""One node of a graph by itself: what it reads, and what it gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tritonkit.check.onnx_model import Arrays

if TYPE_CHECKING:
    import onnx

_EMBEDDED_BYTES = 65_536
"""Constants up to this size are part of a one-node model, since some kernels insist on constants;
larger ones are fed to it, so that no weights are copied."""


@dataclass(frozen=True)
class Slot:
    """A place where a node reads tensor `name`: one of its inputs, or (position None) anywhere in
    the graphs inside it (of If, Loop, Scan)."""

    name: str
    position: int | None


def slots(node: onnx.NodeProto) -> list[Slot]:
    """All places where a node reads a tensor of the graph that it is in."""
    own = [Slot(name, i) for i, name in enumerate(node.input) if name]
    inner = {name: None for body in bodies(node) for name in _free_names(body)}
    return own + [Slot(name, None) for name in inner]


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _free_names(graph: onnx.GraphProto) -> Iterator[str]:
    """The names that a graph inside a node reads from around it."""
    own = {value.name for value in graph.input} | {w.name for w in graph.initializer}
    own |= {w.values.name for w in graph.sparse_initializer}
    for node in graph.node:
        yield from (slot.name for slot in slots(node) if slot.name not in own)
        own.update(node.output)
    yield from (value.name for value in graph.output if value.name not in own)


def rewired(node: onnx.NodeProto, changes: Mapping[Slot, str]) -> onnx.NodeProto:
    """A copy of `node` that reads other tensors in some of its slots."""
    import onnx

    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for slot, name in changes.items():
        if slot.position is not None:
            copy.input[slot.position] = name
        else:
            for body in bodies(copy):
                rename_tensor([*body.node], body.output, slot.name, name)
    return copy


def rename_tensor(
    nodes: Sequence[onnx.NodeProto],
    named: Iterable[onnx.ValueInfoProto | onnx.TensorProto],
    old: str,
    new: str,
) -> None:
    """Call a tensor otherwise, wherever `nodes`, the graphs inside them, or `named` do."""
    for node in nodes:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
        for body in bodies(node):
            rename_tensor([*body.node], body.output, old, new)
    for value in named:
        if value.name == old:
            value.name = new


def label(node: onnx.NodeProto) -> str:
    """`Reshape 'node_12'`; a node without a name is called by its first output."""
    return f"{node.op_type} '{node.name or next(filter(None, node.output), '?')}'"


def slot_label(node: onnx.NodeProto, slot: Slot) -> str:
    """What the operator calls this input (`shape`, `initial_h`), or else the tensor's name."""
    import onnx

    if slot.position is not None and onnx.defs.has(node.op_type, node.domain):
        formal = onnx.defs.get_schema(node.op_type, domain=node.domain).inputs
        if slot.position < len(formal):
            input_ = formal[slot.position]
            if input_.option != onnx.defs.OpSchema.FormalParameterOption.Variadic:
                return str(input_.name)
    return f"'{slot.name}'"


class Weights:
    """The initializers of a graph as arrays, read from the file each time: none is kept."""

    def __init__(self, graph: onnx.GraphProto, folder: Path) -> None:
        """folder: where the external data lies."""
        self._tensors = {weight.name: weight for weight in graph.initializer}
        self._folder = folder

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> np.ndarray:
        import onnx

        tensor = self._tensors[name]
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            # Not by onnx itself: it takes no file that has several hard links, as ours has.
            kept = onnx.external_data_helper.ExternalDataInfo(tensor)
            with (self._folder / kept.location).open("rb") as file:
                file.seek(kept.offset or 0)
                raw = file.read(-1 if kept.length is None else kept.length)
            tensor = onnx.TensorProto(
                data_type=tensor.data_type, dims=tensor.dims, raw_data=raw, name=name
            )
        array: np.ndarray = onnx.numpy_helper.to_array(tensor)
        return array

    def dtype(self, name: str) -> np.dtype:
        """The dtype of one, without reading it."""
        import onnx

        dtype: np.dtype = onnx.helper.tensor_dtype_to_np_dtype(self._tensors[name].data_type)
        return dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one, without reading it."""
        return tuple(self._tensors[name].dims)


def run_node(
    model: onnx.ModelProto, node: onnx.NodeProto, fed: Arrays, constants: Arrays
) -> dict[str, np.ndarray]:
    """The outputs of `node`, run as a model of its own. Raises what ONNX Runtime raises.

    model: where it is from. fed, constants: all that it reads, by name.
    """
    import onnx
    import onnxruntime

    embedded = {n: a for n, a in constants.items() if a.nbytes <= _EMBEDDED_BYTES or _exotic(a)}
    inputs = {**{n: a for n, a in constants.items() if n not in embedded}, **fed}
    outputs = [name for name in node.output if name]
    graph = onnx.helper.make_graph(
        [node],
        "one_node",
        [onnx.helper.make_tensor_value_info(n, _elem_type(a), a.shape) for n, a in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [onnx.numpy_helper.from_array(a, n) for n, a in embedded.items()],
    )
    alone = onnx.helper.make_model(
        graph, ir_version=max(model.ir_version, 4), opset_imports=model.opset_import
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # starting threads would take longer than most nodes
    session = onnxruntime.InferenceSession(
        alone.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(outputs, session.run(None, dict(inputs)), strict=True))


def _elem_type(array: np.ndarray) -> int:
    import onnx

    if array.dtype.kind in "OSU":
        return int(onnx.TensorProto.STRING)
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


def _exotic(array: np.ndarray) -> bool:
    """Whether ONNX Runtime takes no such array as an input: bfloat16 and narrower."""
    return array.dtype.kind not in "OSUbiuf" or array.dtype.isbuiltin != 1
