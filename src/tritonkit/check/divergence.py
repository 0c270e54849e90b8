"""At which node do two runs part that should answer one row alike?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tritonkit.check.exposed import ExposedModel
from tritonkit.check.onnx_model import Arrays
from tritonkit.check.placement import placements
from tritonkit.check.tolerance import Difference, Tolerances, compare
from tritonkit.errors import ModelError

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Run:
    """A batch of `size` rows to run."""

    inputs: Arrays
    size: int


@dataclass(frozen=True)
class Divergence:
    """The first node, on the way to an output, whose result differs though what it is given does
    not.

    node: its name or, where it has none, its operator and first output; max_abs_diff: at its own
    output. exact: what it is given of the row is the same to the last bit. rounds: it is not, and
    it turns numbers into integers, truth values or text, so that rounding shows as a step.
    """

    node: str
    op_type: str
    max_abs_diff: float
    exact: bool
    rounds: bool


def first_divergence(
    path: Path,
    output: str,
    expected: Run,
    got: Run,
    larger: Run,
    places: Sequence[int],
    tolerances: Tolerances,
) -> Divergence | None:
    """Where, on the way to `output`, the rows at `places` of `got` part from those of `expected`
    (from its only row, where it has one).

    larger: a batch of another size than `got`'s; what grows from one to the other shows where the
    rows are in each tensor. Where `expected` and `got` have one size, a tensor without rows in it
    must be the same in both: a mean over the batch is not. Where they have not, it may differ, as
    shapes do. The graph is run as it is written, without optimisations. None if no node is to
    blame then, or if it cannot be run.
    """
    parted: dict[str, float] = {}
    moved: set[str] = set()
    kinds: dict[str, str] = {}
    sizes = expected.size, got.size, larger.size
    exposed = ExposedModel(path)
    try:
        for values in exposed.values([expected.inputs, got.inputs, larger.inputs]):
            for name in values[1]:
                kinds[name] = values[1][name].dtype.kind
                tensor = [value[name] for value in values]
                difference = _difference(tensor, sizes, places, tolerances)
                if difference is None:
                    continue
                if difference.differs:
                    parted[name] = difference.max_abs
                elif difference.max_abs > 0:
                    moved.add(name)
    except ModelError:
        return None
    node = _earliest(exposed.graph, output, parted)
    if node is None:
        return None
    made = next(name for name in node.output if name in parted)
    exact = not moved & set(_reads(node))
    rounds = not exact and kinds[made] != "f"
    return Divergence(_shown(node, made), node.op_type, parted[made], exact, rounds)


def _shown(node: onnx.NodeProto, tensor: str) -> str:
    """What a node is called: its name or, where it has none, its operator and output."""
    name = node.name or f"{node.op_type}:{tensor}"
    return "".join(c if c.isprintable() else "�" for c in name)


def rows_end(path: Path, output: str, batch: Run, larger: Run) -> tuple[str, str] | None:
    """The first node, on the way to `output`, that is given rows and gives none: (its name or, as
    in `Divergence`, what stands for it; its operator). None if none is found.
    """
    with_rows: set[str] = {
        name
        for name, array in batch.inputs.items()
        if _has_rows(array.shape, larger.inputs[name].shape, batch.size, larger.size)
    }
    exposed = ExposedModel(path)
    try:
        for one, other in exposed.values([batch.inputs, larger.inputs]):
            with_rows |= {
                name
                for name, array in one.items()
                if _has_rows(array.shape, other[name].shape, batch.size, larger.size)
            }
    except ModelError:
        return None
    maker = {name: node for node in exposed.graph.node for name in node.output if name}
    to_see, seen = [output], {output}
    while to_see:
        name = to_see.pop(0)
        node = maker.get(name)
        if node is None:
            continue
        if with_rows & set(_reads(node)):
            return _shown(node, name), node.op_type
        for given in _reads(node):
            if given not in seen:
                seen.add(given)
                to_see.append(given)
    return None


def _has_rows(one: tuple[int, ...], other: tuple[int, ...], size: int, larger: int) -> bool:
    return any(place.each == 1 for place in placements(one, size, other, larger))


def _difference(
    tensor: Sequence[np.ndarray],
    sizes: tuple[int, int, int],
    places: Sequence[int],
    tolerances: Tolerances,
) -> Difference | None:
    """How far the rows of one tensor are off, under the placement of rows that suits it best; None
    where the tensor has no rows in it and may differ.
    """
    wanted, found, grown = tensor
    wanted_size, found_size, grown_size = sizes
    same_size = wanted_size == found_size
    if same_size and wanted.shape != found.shape:
        return compare(wanted, found, tolerances)
    rows_lie = placements(found.shape, found_size, grown.shape, grown_size)
    if not rows_lie:
        return compare(wanted, found, tolerances) if same_size else None
    differences = []
    for lie in rows_lie:
        if wanted.ndim != found.ndim or wanted.shape[lie.axis] != lie.each * wanted_size:
            continue  # its size at the other batch is a matter of chance
        rows = [
            compare(lie.row(wanted, min(i, wanted_size - 1)), lie.row(found, i), tolerances)
            for i in places
        ]
        differences.append(max(rows, key=lambda row: (row.differs, row.max_abs)))
    return min(differences, key=lambda d: (d.differs, d.max_abs), default=None)


def _earliest(
    graph: onnx.GraphProto, output: str, parted: Mapping[str, float]
) -> onnx.NodeProto | None:
    """The node that parted first among those through which `output` did."""
    maker = {name: node for node in graph.node for name in node.output if name}
    to_see, seen = [output], {output}
    first: list[onnx.NodeProto] = []
    while to_see:
        node = maker.get(to_see.pop())
        if node is None:
            continue
        before = [name for name in _reads(node) if name in parted]
        if not before:
            first.append(node)
        for name in before:
            if name not in seen:
                seen.add(name)
                to_see.append(name)
    if output not in parted or not first:
        return None
    order = {id(node): index for index, node in enumerate(graph.node)}
    return min(first, key=lambda node: order[id(node)])


def _reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads: its inputs, and what the graphs inside it take from outside."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names += _reads(inner)
            names += [value.name for value in graph.output]
    return names
