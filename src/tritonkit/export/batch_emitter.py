"""New nodes for a graph, among them those that read its batch size at run time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tritonkit.export.batch_node import bodies

if TYPE_CHECKING:
    import onnx


class Emitter:
    """Makes nodes and initializers under names that nothing in the graph has.

    nodes, weights: those made, the nodes in an order in which they can run.
    """

    def __init__(self, graph: onnx.GraphProto, batch_of: str) -> None:
        """batch_of: an input whose axis 0 is the batch."""
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._taken = set(_names(graph))
        self._batch_of = batch_of
        self._batch: dict[np.dtype, str] = {}

    def fresh(self, name: str) -> str:
        """`name`, or the first of `name_2`, `name_3`, … that is free."""
        found, count = name, 1
        while found in self._taken:
            count += 1
            found = f"{name}_{count}"
        self._taken.add(found)
        return found

    def constant(self, array: np.ndarray) -> str:
        """The name of a new initializer."""
        import onnx

        name = self.fresh("batch_constant")
        self.weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node; returns the name of its one output."""
        import onnx

        output = output or self.fresh(f"batch_{op_type.lower()}")
        name = self.fresh(f"{output}_node")
        self.nodes.append(onnx.helper.make_node(op_type, inputs, [output], name, **attributes))
        return output

    def size(self, tensor: str, axis: int) -> str:
        """The size of an axis at run time: int64[1]."""
        shape = self.node("Shape", tensor)
        return self.node("Gather", shape, self.constant(np.array([axis])), axis=0)

    def batch(self, dtype: np.dtype) -> str:
        """The rows in the batch at run time, [1] of an integer dtype."""
        if dtype not in self._batch:
            if dtype == np.int64:
                self._batch[dtype] = self.size(self._batch_of, 0)
            else:
                self._batch[dtype] = self.cast(self.batch(np.dtype(np.int64)), dtype)
        return self._batch[dtype]

    def cast(self, tensor: str, dtype: np.dtype) -> str:
        """An int64 tensor as another dtype."""
        import onnx

        if dtype == np.int64:
            return tensor
        return self.node("Cast", tensor, to=onnx.helper.np_dtype_to_tensor_dtype(dtype))

    def range(self, size: str) -> str:
        """0, 1, … up to a size, which is an int64[1]; needs opset 11."""
        scalar = self.node("Reshape", size, self.constant(np.zeros(0, np.int64)))
        start, step = self.constant(np.array(0)), self.constant(np.array(1))
        return self.node("Range", start, scalar, step)


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """All names of nodes and tensors in a graph and in the graphs inside its nodes."""
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (weight.name for weight in graph.initializer)
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
        for body in bodies(node):
            yield from _names(body)
