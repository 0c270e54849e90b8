"""A model whose inner tensors can be looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.errors import ModelError
from tritonkit.signature import load_onnx

if TYPE_CHECKING:
    import onnx

_FIRST_CHUNK = 32
_CHUNK_BYTES = 256 * 2**20
"""So much is held of the values of inner tensors at a time, as nearly as can be foretold."""


class ExposedModel:
    """An ONNX file run without graph optimisations, so that every tensor of its main graph has
    the value and the name that the file gives it. Tensors inside If, Loop and Scan stay hidden.
    """

    def __init__(self, path: Path) -> None:
        """ModelError if the file cannot be read."""
        self._path, self._model = path, load_onnx(path)
        self.graph: onnx.GraphProto = self._model.graph
        self._runs = False

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
        """Every tensor at each of `inputs`, some tensors at a time: [values at inputs[0], values at
        inputs[1], …]. At most `chunk` at a time, and fewer where they are large. Tensors that
        numpy cannot hold are left out. ModelError if ONNX Runtime fails on `inputs`.
        """
        names, start, count = self.tensors, 0, min(chunk, _FIRST_CHUNK)
        while start < len(names):
            values = self._values(names[start : start + count], inputs)
            yield values
            start += count
            size = sum(array.nbytes for one in values for array in one.values())
            count = max(1, min(chunk, count * _CHUNK_BYTES // max(size, 1)))

    def _values(self, names: Sequence[str], inputs: Sequence[Arrays]) -> list[Arrays]:
        try:
            model = self.opened(names)
            return [model.run(given) for given in inputs]
        except ModelError:
            if len(names) > 1:
                half = len(names) // 2
                parts = [self._values(part, inputs) for part in (names[:half], names[half:])]
                return [{**one, **other} for one, other in zip(*parts, strict=True)]
            self._require_runs(inputs)
            return [{} for _ in inputs]

    def _require_runs(self, inputs: Sequence[Arrays]) -> None:
        """ModelError unless the model runs with its own outputs: then a tensor is at fault."""
        if not self._runs:
            model = OnnxModel(self._path, optimise=False)
            for given in inputs:
                model.run(given)
            self._runs = True
