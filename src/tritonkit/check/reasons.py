"""Findings in words: why a model has no batch, or not on axis 0, and what would mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from tritonkit.check.axes import Found
from tritonkit.check.placement import placements
from tritonkit.check.proof import Finding
from tritonkit.signature import ModelSignature, TensorSpec

_TIME = re.compile(r"time|frame|step|seq|len|audio|sample|token|^t$", re.IGNORECASE)
_BATCH = re.compile(r"batch|^(n|b|bs|bsz)$|_dim_0$|unk|^dim_?\d*$|^s\d+$", re.IGNORECASE)
UNBATCHED = "serve it unbatched: tritonkit package --max-batch-size 0"

NO_BATCH = f"add a batch axis in front, and export again; or {UNBATCHED}"


def fixed_batch(signature: ModelSignature) -> Finding | None:
    """The finding for a model whose inputs all begin with one and the same fixed size."""
    size = signature.fixed_batch
    if size is None:
        return None
    return Finding(
        "fixed_batch",
        signature.inputs[0].name,
        f"the batch is fixed at {size}: {signature.inputs[0]} (tritonkit export makes it dynamic)",
        "make it dynamic: tritonkit export MODEL.onnx -o DIR",
    )


def nothing_dynamic(signature: ModelSignature) -> Finding:
    """The finding for a model without an axis that rows could be put together along."""
    tensor = signature.inputs[0] if signature.inputs else signature.outputs[0]
    for spec in signature.inputs:
        twice = [dim for dim in spec.shape if isinstance(dim, str) and spec.shape.count(dim) > 1]
        if twice:
            return Finding(
                "no_batch_axis",
                spec.name,
                f"'{twice[0]}' is the size of two axes of {spec}, as of a graph's or a matrix's: "
                "rows cannot be put together along it",
                NO_BATCH,
            )
    inputs = ", ".join(map(str, signature.inputs)) or "it has no inputs"
    return Finding(
        "no_batch_axis",
        tensor.name,
        f"no input has a dynamic dimension: {inputs}",
        "export the model with a dynamic first dimension",
    )


def elsewhere(
    found: Found, first: Found | None, signature: ModelSignature, operators: set[str]
) -> list[Finding]:
    """The findings for a model with a batch that Triton cannot use: not on axis 0 of everything.
    Empty where it is. first: what came of axis 0, if that was tried before. operators: of the
    whole graph.
    """
    shared = [name for name, axis in found.inputs.items() if axis is None]
    if shared and _is_graph(signature, operators):
        return [_graph(shared[0])]
    findings = []
    for name, axis in found.inputs.items():
        if axis is None:
            findings.append(
                Finding(
                    "no_batch_axis",
                    name,
                    f"input '{name}' has no batch axis: all rows of a batch would share its value",
                    f"give it a first dimension with one value for each row, or make it a constant "
                    f"inside the model; or {UNBATCHED}",
                )
            )
    why = ""
    if first is not None and first.influence is not None and _is_causal(first.influence):
        why = " (axis 0 is time: what comes later depends on what came before)"
    for name, axis in {**found.inputs, **found.outputs}.items():
        if axis:
            findings.append(
                Finding(
                    "batch_axis",
                    name,
                    f"the batch of '{name}' is axis {axis}{why}; Triton puts requests together "
                    "along axis 0",
                    "transpose it inside the model so that axis 0 is the batch, and export again",
                )
            )
    return findings


def no_rows(
    found: Found, signature: ModelSignature, operators: set[str], constant: Sequence[str]
) -> Iterator[Finding]:
    """The findings for outputs that have not one row for each row that comes in.

    operators: of the whole graph. constant: outputs that are the same for all rows.
    """
    inputs = [name for name, axis in found.inputs.items() if axis is not None]
    graph = _is_graph(signature, operators)
    for name in (n for n, axis in found.outputs.items() if axis is None):
        one, _, three, *_ = shapes = found.shapes[name]
        text = ", ".join(str(list(shape)) for shape in shapes)
        if graph:
            yield _graph(name)
        elif len(set(shapes)) == 1 and name in constant:
            yield Finding(
                "no_batch_axis",
                name,
                f"output '{name}' is the same {list(one)} for every batch: it has no rows",
                "leave it out of the model's outputs",
            )
        elif found.influence is not None and _is_causal(found.influence):
            yield Finding(
                "time",
                name,
                f"axis 0 of '{inputs[0]}' is time: what comes later depends on what came before, "
                f"and '{name}' ({list(one)}) comes once for all of it",
                NO_BATCH,
            )
        elif len(set(shapes)) == 1:
            yield Finding(
                "set",
                name,
                f"output '{name}' has shape {list(one)} for 1, 2, 3 and 5 rows of '{inputs[0]}': "
                "axis 0 is a set that the model pools, not a batch",
                NO_BATCH,
            )
        elif any(p.each > 1 for p in placements(one, 1, three, 3)):
            yield Finding(
                "merged",
                name,
                f"output '{name}' merges the batch with another axis: its shapes are {text} for "
                "1, 2, 3 and 5 rows",
                "reshape it to [batch, …] at the end of the model, and export again",
                batch=2,
            )
        else:
            yield Finding(
                "no_batch_axis",
                name,
                f"output '{name}' has not one row for each row that comes in: its shapes are "
                f"{text} for 1, 2, 3 and 5 rows",
                f"give each row an answer of its own, padded to one size; or {UNBATCHED}",
                batch=2,
            )


def not_a_batch(
    found: Found, signature: ModelSignature, operators: set[str], op_type: str | None
) -> tuple[str, str] | None:
    """(kind, words) where rows change each other because axis 0 is something else than a batch;
    None where it seems to be a batch, and rows leak.

    operators: of the whole graph. op_type: of the node at which the row diverges.
    """
    spec = next(t for t in signature.inputs if found.inputs[t.name] is not None)
    axis = found.inputs[spec.name] or 0
    dim = str(spec.shape[axis])
    named_batch = bool(_BATCH.search(dim))
    if _is_graph(signature, operators):
        return "graph", f"axis 0 of '{spec.name}' holds the parts of one graph, not a batch"
    if op_type in ("LSTM", "GRU", "RNN", "Scan", "Loop"):
        return "time", f"axis {axis} of '{spec.name}' is time: {op_type} runs along it"
    if found.influence is not None and not named_batch and _is_causal(found.influence):
        return "time", (
            f"axis {axis} of '{spec.name}' is time: what comes later depends on what came before"
        )
    if named_batch:
        return None
    if _TIME.search(dim) or (found.influence is not None and _is_local(found.influence)):
        return "time", f"axis {axis} of '{spec.name}' ('{dim}') is a sequence, not a batch"
    return "set", f"axis {axis} of '{spec.name}' ('{dim}') is a set whose members see each other"


def _graph(tensor: str) -> Finding:
    return Finding(
        "graph",
        tensor,
        f"'{tensor}' belongs to one graph of nodes and edges, not to a batch",
        f"one graph a request: {UNBATCHED}",
    )


def _is_graph(signature: ModelSignature, operators: set[str]) -> bool:
    """Nodes and edges: integers that pick from another input whose first size is another's."""
    first = {t.shape[0] for t in signature.inputs if t.shape and isinstance(t.shape[0], str)}
    return (
        _has_index_pairs(signature.inputs)
        and bool(
            operators & {"Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"}
        )
        and bool(first)
    )


def _has_index_pairs(inputs: Sequence[TensorSpec]) -> bool:
    """An integer input of shape [2, edges] or [edges, 2], as graphs' edges are given, beside
    something of another number than edges.
    """
    numbers = {t.shape[0] for t in inputs if t.dtype.numpy.kind == "f" and t.shape}
    return any(
        t.dtype.numpy.kind in "iu"
        and len(t.shape) == 2
        and 2 in t.shape
        and bool(numbers - {dim for dim in t.shape})
        and not numbers & {dim for dim in t.shape}
        for t in inputs
    )


def _is_causal(influence: np.ndarray) -> bool:
    """Each row is moved by those on one side of it only, and some are."""
    others = influence & ~np.eye(len(influence), dtype=bool)
    lower, upper = np.tril(others).any(), np.triu(others).any()
    return bool(lower) != bool(upper) and len(influence) > 2 and int(others.sum()) > 1


def _is_local(influence: np.ndarray) -> bool:
    """Rows are moved by the nearest ones and by none far away."""
    others = influence & ~np.eye(len(influence), dtype=bool)
    return bool(others.any()) and not (others[0, -1] or others[-1, 0])


def declared(found: Found, signature: ModelSignature) -> Iterator[Finding]:
    """The findings for outputs that are declared otherwise than they come out."""
    for spec in signature.outputs:
        shapes = found.shapes.get(spec.name, ())
        for rows, shape in zip((1, 2, 3, 5), shapes, strict=False):
            fits = len(shape) == len(spec.shape) and all(
                isinstance(dim, str) or dim == size
                for dim, size in zip(spec.shape, shape, strict=True)
            )
            if not fits:
                yield Finding(
                    "signature",
                    spec.name,
                    f"output {spec} is declared so, but has shape {list(shape)} for a batch of "
                    f"{rows}",
                    "declare what it returns: export the model again",
                    batch=rows,
                )
                break


def is_named_batch(found: Found, signature: ModelSignature) -> bool:
    """Whether the axes that were tried have a name that says that they are the batch."""
    dims = {
        str(spec.shape[axis])
        for spec in signature.inputs
        if (axis := found.inputs[spec.name]) is not None
    }
    return any("batch" in dim.lower() for dim in dims)
