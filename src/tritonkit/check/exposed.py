"""A model whose inner tensors can be looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.signature import load_onnx

if TYPE_CHECKING:
    import onnx


class ExposedModel:
    """An ONNX file run without graph optimisations, so that every tensor of its main graph has
    the value and the name that the file gives it. Tensors inside If, Loop and Scan stay hidden.
    """

    def __init__(self, path: Path) -> None:
        """ModelError if the file cannot be read."""
        self._path, self._model = path, load_onnx(path)
        self.graph: onnx.GraphProto = self._model.graph

    @property
    def tensors(self) -> list[str]:
        """All tensors that nodes of the main graph make, in the graph's (topological) order."""
        return [name for node in self.graph.node for name in node.output if name]

    def opened(self, tensors: Sequence[str]) -> OnnxModel:
        """The model with just these tensors as its outputs. ModelError if it cannot be loaded."""
        import onnx

        own = list(onnx.GraphProto(output=self.graph.output).output)  # copies
        declared = {value.name: value for value in own}
        wanted = [declared.get(name, onnx.ValueInfoProto(name=name)) for name in tensors]
        self._set_outputs(wanted)
        try:
            return OnnxModel(self._path, optimise=False, changed=self._model)
        finally:
            self._set_outputs(own)

    def _set_outputs(self, outputs: Sequence[onnx.ValueInfoProto]) -> None:
        del self.graph.output[:]
        self.graph.output.extend(outputs)

    def values(self, inputs: Sequence[Arrays], chunk: int = 200) -> Iterator[list[Arrays]]:
        """Every tensor at each of `inputs`, a chunk of tensors at a time: [values at inputs[0],
        values at inputs[1], …]. ModelError if ONNX Runtime fails on one.
        """
        names = self.tensors
        for start in range(0, len(names), chunk):
            model = self.opened(names[start : start + chunk])
            yield [model.run(given) for given in inputs]
