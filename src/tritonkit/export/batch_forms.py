"""One model in forms that show ever more of what its nodes read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tritonkit.errors import ModelError
from tritonkit.export.batch_emitter import Emitter
from tritonkit.export.batch_node import bodies, rename_tensor
from tritonkit.signature import external_files, load_onnx

if TYPE_CHECKING:
    import onnx

_OPSET = 13
"""From this one on, sizes are inputs of nodes, not attributes, and can be computed."""


def forms(path: Path) -> Iterator[onnx.ModelProto]:
    """The model at `path`, without external data; then, for who cannot mend that, as far as they
    differ: with the constants of inner graphs (of If, Loop, Scan) outside them, so that a node
    can be seen to read them; and in an opset in which sizes are no attributes.

    None has functions, or says what shapes inner tensors have, for that may include the batch.
    """
    model = _plain(path)
    yield model
    model = _plain(path)
    if _hoist(model):
        yield model
    raised = None if external_files(path) else _raised(model)
    if raised is not None:
        yield raised


def _plain(path: Path) -> onnx.ModelProto:
    import onnx.inliner

    model = load_onnx(path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    if model.graph.sparse_initializer:
        name = model.graph.sparse_initializer[0].values.name
        raise ModelError(f"{path}: '{name}' is a sparse weight; save it as a dense one")
    del model.graph.value_info[:]
    for graph in _inner(model.graph):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            for dim in value.type.tensor_type.shape.dim:
                dim.Clear()  # the rank stays: Loop wants to know it
    return model


def _inner(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """All graphs inside the nodes of `graph`, at any depth."""
    for node in graph.node:
        for body in bodies(node):
            yield body
            yield from _inner(body)


def _hoist(model: onnx.ModelProto) -> bool:
    """Move the constants of inner graphs to the outer one; whether there were any."""
    import onnx

    names = Emitter(model.graph, "")
    for graph in _inner(model.graph):
        declared = {value.name for value in (*graph.input, *graph.output)}
        weights = [weight for weight in graph.initializer if weight.name not in declared]
        kept = [weight for weight in graph.initializer if weight.name in declared]
        others = []
        for node in graph.node:
            tensor = next((a.t for a in node.attribute if a.name == "value"), None)
            if node.op_type == "Constant" and tensor is not None and node.output[0] not in declared:
                weight = onnx.TensorProto()
                weight.CopyFrom(tensor)
                weight.name = node.output[0]
                weights.append(weight)
            else:
                others.append(node)
        del graph.initializer[:], graph.node[:]
        graph.initializer.extend(kept)
        graph.node.extend(others)
        for weight in weights:
            name = names.fresh(weight.name)
            rename_tensor([*graph.node], graph.output, weight.name, name)
            weight.name = name
        names.weights += weights
    model.graph.initializer.extend(names.weights)
    return bool(names.weights)


def _raised(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model in a later opset, if its own has sizes in attributes and it can be converted."""
    import onnx.version_converter

    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), _OPSET)
    if opset >= _OPSET:
        return None
    try:
        return onnx.version_converter.convert_version(model, _OPSET)
    except Exception:  # whatever it does not know
        return None
