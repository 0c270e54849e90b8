"""Findings in words: why a model must not be batched, and what would mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from tritonkit.check.axes import Found
from tritonkit.check.divergence import Divergence
from tritonkit.check.domain import MOST_TRIED
from tritonkit.check.neighbours import Felt
from tritonkit.check.placement import placements
from tritonkit.check.proof import Finding
from tritonkit.check.rows import Kind, Rows
from tritonkit.signature import ModelSignature, TensorSpec

_TIME = re.compile(r"time|frame|step|seq|len|audio|sample|token|^t$", re.IGNORECASE)
_BATCH = re.compile(r"batch|^(n|b|bs|bsz)$|_dim_0$|unk|^dim_?\d*$|^s\d+$", re.IGNORECASE)
UNBATCHED = "serve it unbatched: tritonkit package --max-batch-size 0"

CHANCE = "the rows were drawn by chance; real ones, given with --input, are better evidence"

NO_BATCH = f"add a batch axis in front, and export again; or {UNBATCHED}"

SUM_NOTHING = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Neg", "Abs", "Min", "Max", "Where", "Clip"),
        *("Cast", "Identity", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not"),
        *("And", "Or", "Xor", "Floor", "Ceil", "Round", "Sign", "Relu", "Sqrt", "Reciprocal"),
        *("Concat", "Slice", "Gather", "GatherElements", "GatherND", "Expand", "Tile", "Pad"),
        *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "Range", "OneHot", "Shape"),
        *("ScatterElements", "ScatterND", "Compress", "Trilu", "ConstantOfShape", "ArgMax"),
    )
)
"""Operators that give the same to the last bit, at any size of the batch, for the same row: they
add up no more than two numbers."""

_REMEDIES = {
    **dict.fromkeys(
        (
            "DynamicQuantizeLinear",
            "DynamicQuantizeMatMul",
            "DynamicQuantizeLSTM",
            "MatMulIntegerToFloat",
        ),
        "one scale is shared by the whole batch: quantise statically, with scales from calibration",
    ),
    "BatchNormalization": "it normalises over the batch: call model.eval() before the export",
    "Dropout": "it is in training mode: call model.eval() before the export",
    **dict.fromkeys(
        (
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
            "Bernoulli",
            "Multinomial",
        ),
        "take the randomness out of the model, or give it in as an input",
    ),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "CumSum", "TopK", "ArgMax", "ArgMin", "LpNormalization"),
        "its axis is the batch: give it one of the row's own axes",
    ),
    **dict.fromkeys(("Reshape", "Flatten", "Transpose"), "it mixes the batch with another axis"),
}
"""What mends an operator at which rows part."""


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


def fails(tensor: str, words: str, only: int | None = None) -> Finding:
    """The finding for a model that runs on single rows but not on several; or on batches of `only`
    rows.

    words: ONNX Runtime's own, from a run of the graph as it is written.
    """
    runs = f"batches of {only} only" if only else "single rows but not on batches"
    node, op_type = _failed_node(words)
    return Finding(
        "fails",
        tensor,
        f"it runs on {runs}: {words}",
        "the batch is fixed inside the graph: export the model with a dynamic first dimension",
        node=node,
        op_type=op_type,
        batch=1 if only else 2,
    )


def _failed_node(words: str) -> tuple[str | None, str | None]:
    """The node's name and operator in ONNX Runtime's error message."""
    found = re.search(r"running (\w+) node\. Name:\s*'([^']*)'", words)
    return (found.group(2) or None, found.group(1)) if found else (None, None)


def felt(felt: Felt, divergence: Divergence | None) -> Finding:
    """The finding for a row that was answered differently."""
    trial, op_type = felt.trial, divergence.op_type if divergence else None
    begins = f"; it begins at node '{divergence.node}' ({op_type})" if divergence else ""
    by = f"by {felt.max_abs_diff:.2g}" if np.isfinite(felt.max_abs_diff) else "beyond all numbers"
    kind = felt.what
    remedy = _REMEDIES.get(op_type or "", "keep each row's arithmetic to itself at this node")
    remedy = f"{remedy}; or {UNBATCHED}"
    if felt.what == "random":
        why = f"two runs of one batch differ in '{felt.tensor}' {by}{begins}"
    elif felt.what == "shape":
        beside = f" beside {_kinds(trial.kinds)}" if trial.kinds else ""
        why = f"output '{felt.tensor}'{beside}: {felt.worst}{begins}"
        kind = "neighbour" if trial.kinds else "shape"
    elif felt.what == "batch_size" and _is_rounding(felt, divergence):
        kind = "rounding"
        why = (
            f"'{felt.tensor}' of a row changes {by} with the size of the batch ({felt.worst}): "
            f"another rounding becomes another value{begins}"
        )
        remedy = "nothing, if so close a decision may fall either way; else return the scores too"
    elif felt.what == "batch_size":
        why = (
            f"'{felt.tensor}' of a row changes {by} from a batch of 1 to one of {trial.size}, "
            f"whatever is in it: {felt.worst}{begins}"
        )
    else:
        why = (
            f"'{felt.tensor}' of a row changes {by} beside {_kinds(trial.kinds)}, in a batch of "
            f"{trial.size}: {felt.worst}{begins}"
        )
    return Finding(
        kind,
        felt.tensor,
        why,
        remedy,
        node=divergence.node if divergence else None,
        op_type=op_type,
        max_abs_diff=felt.max_abs_diff,
        batch=trial.size,
    )


def _is_rounding(felt: Felt, divergence: Divergence | None) -> bool:
    """Whether numbers that differ by rounding became integers, truth values or text that differ.

    Without a node to blame, the graph as written gives both the same: then it is the rounding of
    ONNX Runtime's optimised kernels, which no number of the graph shows.
    """
    if divergence is not None:
        return divergence.rounds
    return not felt.is_number


def failed_batch(felt: Felt, words: str) -> Finding:
    """The finding for a batch that does not run though each of its rows does.

    words: ONNX Runtime's own, from a run of the graph as it is written.
    """
    node, op_type = _failed_node(words)
    beside = f" of {_kinds(felt.trial.kinds)}" if felt.trial.kinds else ""
    return Finding(
        "fails",
        felt.tensor,
        f"a batch of {felt.trial.size}{beside} does not run, though each row does: {words}",
        f"prove a smaller batch: tritonkit check --max-batch-size N; or {UNBATCHED}",
        node=node,
        op_type=op_type,
        batch=felt.trial.size,
    )


def blown_up(output: str, difference: float) -> Finding:
    """The finding for an output that moves with the batch's size by more than rounding does."""
    return Finding(
        "batch_size",
        output,
        f"'{output}' of a row differs by up to {difference:.2g} between a batch of 1 and a larger "
        "one; its neighbours change nothing: the model blows rounding up",
        "nothing, if so small a change does not matter to you",
        max_abs_diff=difference,
    )


def limits(signature: ModelSignature, rows: Rows) -> Iterator[str]:
    """The notes on inputs of which some values make the model fail, and so a whole batch."""
    for spec in signature.inputs:
        high = rows.ranges.get(spec.name, (0, 0))[1]
        if spec.dtype.numpy.kind in "iu" and 1 < high < MOST_TRIED:
            yield (
                f"'{spec.name}' above {high} makes the model fail, and with it every request in "
                "the batch: clamp it inside the model, or refuse it before"
            )


def unmoved(output: str) -> str:
    """The note on an output that was the same for every row."""
    return (
        f"output '{output}' was the same for every row that was tried: nothing is known of it; "
        "give real rows with --input"
    )


def _kinds(kinds: Sequence[Kind]) -> str:
    return str(kinds[0]) if len(kinds) == 1 else f"rows of {len(kinds)} kinds"
