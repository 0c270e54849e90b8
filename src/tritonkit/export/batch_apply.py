"""Put the mends that were found into a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from tritonkit.export.batch_emitter import Emitter
from tritonkit.export.batch_mends import Mend, Read
from tritonkit.export.batch_node import label, rename_tensor, rewired, slot_label
from tritonkit.export.batch_oracle import Oracle
from tritonkit.export.batch_search import Mends

if TYPE_CHECKING:
    import onnx

BATCH = "batch"
"""The name of axis 0 of every input and output."""


def apply_mends(model: onnx.ModelProto, oracle: Oracle, plan: Mapping[int, Mends]) -> list[str]:
    """Change `model`, and say so with one line for each node (or output) that was changed.

    oracle: of this model. plan: by the index of a node, or behind them of an output.
    """
    graph = model.graph
    inputs = [value for value in graph.input if oracle.kind(value.name) == "rows"]
    to = Emitter(graph, inputs[0].name)
    made: dict[tuple[str, Mend], str] = {}
    changed = []
    for index, node in enumerate(graph.node):
        changes, texts = {}, []
        for slot, mend in plan.get(index, {}).items():
            read = _read(oracle, slot.name)
            if (slot.name, mend) not in made:
                made[slot.name, mend] = mend.emit(read, oracle.batch, to)
            changes[slot] = made[slot.name, mend]
            texts.append(f"{slot_label(node, slot)} {mend.text(read, oracle.batch)}")
        if changes:
            changed.append(f"{label(node)}: {', '.join(texts)}")
        to.nodes.append(rewired(node, changes))
    # These go last: they take the name of an output from the tensor that has it.
    for index, value in enumerate(graph.output, len(graph.node)):
        for slot, mend in plan.get(index, {}).items():
            read = replace(_read(oracle, slot.name), name=to.fresh(f"{value.name}_for_one_row"))
            rename_tensor([*to.nodes], graph.initializer, value.name, read.name)
            to.node("Identity", mend.emit(read, oracle.batch, to), output=value.name)
            changed.append(f"output '{value.name}' {mend.text(read, oracle.batch)}")
    del graph.node[:]
    graph.node.extend(to.nodes)
    graph.initializer.extend(to.weights)
    _declare(graph, inputs)
    return changed


def _read(oracle: Oracle, name: str) -> Read:
    before = oracle.parts(name)[0]
    return Read(name, before, before, oracle.kind(name) == "constant")


def _declare(graph: onnx.GraphProto, inputs: list[onnx.ValueInfoProto]) -> None:
    """Give axis 0 of the inputs and outputs a name that no other dimension has."""
    shapes = [value.type.tensor_type.shape for value in (*inputs, *graph.output)]
    others = {d.dim_param for shape in shapes for d in shape.dim[1:]}
    name = BATCH
    while name in others:
        name += "_size"
    for shape in shapes:
        if shape.dim:
            shape.dim[0].dim_param = name
