"""What each tensor inside a model with a fixed batch is, for several batches of different rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tritonkit.check.exposed import ExposedModel
from tritonkit.check.onnx_model import Arrays, as_text
from tritonkit.check.tolerance import TOLERANCES, compare
from tritonkit.errors import ModelError
from tritonkit.export.batch_node import Weights, label, slots

if TYPE_CHECKING:
    import onnx

Kind = Literal["constant", "shape", "rows"]
"""What a tensor depends on: nothing; only the shapes of the inputs; the rows in them.

From the graph, not from the values: what is equal for all examples may still depend on the rows.
"""


class Oracle:
    """The tensors of a model for each of several batches, run as it is.

    graph: the graph that they belong to. batch: the rows of each of these batches.
    """

    def __init__(self, path: Path, examples: Sequence[Arrays]) -> None:
        """ModelError if the model cannot be run, or gives another answer each time."""
        exposed = ExposedModel(path)
        self.graph: onnx.GraphProto = exposed.graph
        self._weights = Weights(self.graph, path.parent)
        self._kinds = _kinds(self.graph)
        self._parts = {
            name: [as_text(example[name]) for example in examples] for name in _inputs(self.graph)
        }
        self.batch = len(next(iter(examples[0].values())))
        self.count = len(examples)
        for values in exposed.values([*examples, examples[0]]):
            for name in [name for name in exposed.tensors if name in values[0]]:
                self._keep(name, [value[name] for value in values])

    def kind(self, name: str) -> Kind:
        """What the tensor depends on."""
        return self._kinds[name]

    def parts(self, name: str) -> list[np.ndarray]:
        """The tensor for each of the batches."""
        if name in self._weights:
            return [self._weights[name]]
        return self._parts[name]

    def constant(self, name: str) -> np.ndarray:
        """A tensor that does not depend on the inputs."""
        return self.parts(name)[0]

    def may_be_sizes(self, name: str) -> bool:
        """Whether it is a few integers that do not depend on the rows."""
        if self._kinds[name] == "rows":
            return False
        if name in self._weights:
            return _is_short(self._weights.dtype(name), self._weights.shape(name))
        return _is_short(self._parts[name][0].dtype, self._parts[name][0].shape)

    def _keep(self, name: str, values: list[np.ndarray]) -> None:
        """Remember a tensor. values: by example, and once more that for the first."""
        *parts, again = values
        constant = self._kinds[name] == "constant"
        for value in [again, *parts] if constant else [again]:
            if compare(parts[0], value, TOLERANCES).differs:
                maker = next(node for node in self.graph.node if name in node.output)
                raise ModelError(
                    f"{label(maker)} gives another answer to the same inputs in each run; "
                    "a model to batch must not draw random numbers"
                )
        self._parts[name] = parts[:1] if constant else parts


def _inputs(graph: onnx.GraphProto) -> list[str]:
    weights = {weight.name for weight in graph.initializer}
    return [value.name for value in graph.input if value.name not in weights]


def _kinds(graph: onnx.GraphProto) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {weight.name: "constant" for weight in graph.initializer}
    kinds |= {name: "rows" for name in _inputs(graph)}
    for node in graph.node:
        read = {kinds[slot.name] for slot in slots(node)}
        kind: Kind = "constant"
        if "shape" in read or "rows" in read:
            kind = "rows" if "rows" in read and not _reads_a_shape(node) else "shape"
        kinds |= {name: kind for name in node.output if name}
    return kinds


def _reads_a_shape(node: onnx.NodeProto) -> bool:
    return node.op_type in ("Shape", "Size") and node.domain in ("", "ai.onnx")


def _is_short(dtype: np.dtype, shape: Sequence[int]) -> bool:
    """Whether it may be a scalar or vector of sizes; longer ones are data."""
    return dtype in (np.int64, np.int32) and len(shape) < 2 and all(n <= 64 for n in shape)
