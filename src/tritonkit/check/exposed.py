"""A model whose inner tensors can be looked at."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.signature import external_files, load_onnx

if TYPE_CHECKING:
    import onnx


class ExposedModel:
    """An ONNX file run without graph optimisations, so that every tensor of its main graph has
    the value and the name that the file gives it. Tensors inside If, Loop and Scan stay hidden.

    A context manager: it keeps a copy of the graph, and links to its external data, in a
    temporary folder.
    """

    def __init__(self, path: Path) -> None:
        """ModelError if the file cannot be read."""
        self.graph: onnx.GraphProto = load_onnx(path).graph
        self._path = path
        self._folder = tempfile.TemporaryDirectory(prefix="tritonkit-exposed-")
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    @property
    def tensors(self) -> list[str]:
        """All tensors that nodes of the main graph make, in the graph's (topological) order."""
        return [name for node in self.graph.node for name in node.output if name]

    def opened(self, tensors: Sequence[str]) -> OnnxModel:
        """The model with just these tensors as its outputs. ModelError if it cannot be loaded."""
        import onnx

        model = load_onnx(self._path)
        kept = {value.name: value for value in model.graph.output}
        del model.graph.output[:]
        model.graph.output.extend(kept.get(n, onnx.ValueInfoProto(name=n)) for n in tensors)
        self._count += 1
        folder = Path(self._folder.name) / str(self._count)
        folder.mkdir()
        path = folder / "model.onnx"
        onnx.save(model, path)
        for location, data in external_files(self._path).items():
            link_or_copy(data, folder / location)
        return OnnxModel(path, optimise=False)

    def values(self, inputs: Sequence[Arrays], chunk: int = 200) -> Iterator[list[Arrays]]:
        """Every tensor at each of `inputs`, a chunk of tensors at a time: [values at inputs[0],
        values at inputs[1], …]. ModelError if ONNX Runtime fails on one.
        """
        names = self.tensors
        for start in range(0, len(names), chunk):
            model = self.opened(names[start : start + chunk])
            yield [model.run(given) for given in inputs]


def link_or_copy(source: Path, target: Path) -> None:
    """Have `source` also at `target`: without a copy of its bytes where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
