"""Findings in words: what went wrong in runs of batches, and what would mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from tritonkit.check.divergence import Divergence
from tritonkit.check.domain import MOST_TRIED
from tritonkit.check.neighbours import Felt
from tritonkit.check.proof import Finding
from tritonkit.check.reasons import UNBATCHED
from tritonkit.check.rows import Kind, Rows
from tritonkit.signature import ModelSignature

CHANCE = "the rows were drawn by chance; real ones, given with --input, are better evidence"

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
