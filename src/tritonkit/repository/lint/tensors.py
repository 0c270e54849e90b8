"""Rules about inputs and outputs: what Triton's core asks of them, and whether the model agrees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tritonkit.repository.backend_rules import (
    Refusal,
    input_refusals,
    output_refusals,
    unsupported,
)
from tritonkit.repository.lint.entry import Entry
from tritonkit.repository.lint.model_file import ModelTensors
from tritonkit.repository.lint.problem import Finding

_REFUSED = "Triton does not load the model"

_REMEDIES = {
    "input-count": "write all inputs of the model, and no others",
    "unknown-input": "write the model's own name",
    "unknown-output": "write the model's own name",
    "data-type": "write the model's own data type",
    "no-batch-axis": "write max_batch_size: 0 and the whole shape in dims, or export the model "
    "with a dynamic first dimension",
    "dims-repeat-batch": "take the first -1 out of dims: max_batch_size > 0 stands for it",
    "dims": "write the model's own dims, without the batch dimension if max_batch_size > 0",
    "scalar-dims": "write dims: 1",
    "optional-input": "take optional out, or write max_batch_size: 0",
    "ragged-input": "take allow_ragged_batch out",
}


def max_batch_size_negative(entry: Entry) -> Iterator[Finding]:
    """max_batch_size below 0."""
    if entry.message.max_batch_size < 0:
        what = f"max_batch_size is {entry.message.max_batch_size}"
        remedy = "write 0 for a model without a batch axis"
        yield Finding(entry.line("max_batch_size"), what, _REFUSED, remedy)


def tensor_incomplete(entry: Entry) -> Iterator[Finding]:
    """An input or output without a name, data_type or dims."""
    for side, i, tensor in _tensors(entry):
        for field in ("name", "data_type", "dims"):
            if not getattr(tensor, field):
                yield Finding(
                    entry.line(side, i), f"{side} {_called(tensor, i)} has no {field}", _REFUSED,
                    f"write its {field}",
                )  # fmt: skip


def dims_not_positive(entry: Entry) -> Iterator[Finding]:
    """A dimension that is neither 1 or more nor -1."""
    for side, i, tensor in _tensors(entry):
        for field, dims in (("dims", tensor.dims), ("reshape", tensor.reshape.shape)):
            if any(dim < 1 and dim != -1 for dim in dims):
                what = f"{side} {_called(tensor, i)} has {field} {list(dims)}"
                remedy = "write -1 for a dynamic dimension"
                yield Finding(entry.line(side, i, field), what, _REFUSED, remedy)


def reshape(entry: Entry) -> Iterator[Finding]:
    """A reshape of another size than dims, or to a scalar without batching."""
    for side, i, tensor in _tensors(entry):
        if not tensor.HasField("reshape") or not tensor.dims:
            continue
        dims, shape = list(tensor.dims), list(tensor.reshape.shape)
        at = entry.line(side, i, "reshape")
        if not shape and entry.message.max_batch_size == 0:
            what = f"{side} {_called(tensor, i)} has an empty reshape without batching"
            yield Finding(at, what, f"{_REFUSED}: it has no scalars", "write its shape")
        elif _sizes(dims) != _sizes(shape):
            what = f"{side} {_called(tensor, i)} has dims {dims} and a reshape to {shape}"
            remedy = "write shapes with as many elements before, between and behind each -1"
            yield Finding(at, what, _REFUSED, remedy)


def tensor_format(entry: Entry) -> Iterator[Finding]:
    """An image format without 3 dims, or what only TensorRT models have."""
    for side, i, tensor in _tensors(entry):
        if side == "input" and tensor.format and len(tensor.dims) != 3:
            what = f"input {_called(tensor, i)} has an image format and {len(tensor.dims)} dims"
            yield Finding(entry.line(side, i, "format"), what, _REFUSED, "take format out")
        for field in ("is_shape_tensor", "is_non_linear_format_io"):
            tensorrt = "tensorrt" in (entry.message.platform, entry.message.backend)
            if getattr(tensor, field) and not tensorrt and "plan" not in entry.message.platform:
                what = f"{side} {_called(tensor, i)} has {field}, which only TensorRT has"
                yield Finding(entry.line(side, i, field), what, _REFUSED, f"take {field} out")


def duplicate_input(entry: Entry) -> Iterator[Finding]:
    """An input that is written twice."""
    for i, name in _repeated(entry.message.input):
        yield Finding(
            entry.line("input", i),
            f"input '{name}' is written twice",
            "Triton loads the model and asks each request for more inputs than there are",
            "take one of them out",
        )


def duplicate_output(entry: Entry) -> Iterator[Finding]:
    """An output that is written twice."""
    for i, name in _repeated(entry.message.output):
        why = "Triton's metadata tells clients of one output too many"
        what = f"output '{name}' is written twice"
        yield Finding(entry.line("output", i), what, why, "take one of them out")


def auto_complete_batching(entry: Entry) -> Iterator[Finding]:
    """Inputs or outputs left out, so that auto-complete may switch batching on by itself."""
    config = entry.message
    if not entry.auto_completed:
        return
    scheduled = config.HasField("dynamic_batching") or config.HasField("sequence_batching")
    for _, model in entry.loadable():
        most = entry.max_batch_size(model)
        does = []
        if most != config.max_batch_size:
            does.append(f"sets max_batch_size to {most}")
        if model.batchable and most > 1 and not scheduled:
            does.append("switches dynamic batching on")
        if does:
            yield Finding(
                entry.line(),
                f"{_absent(entry)} are not written",
                f"Triton's auto-complete {' and '.join(does)}",
                "write all inputs and outputs: then auto-complete leaves the config as it is",
            )
        return


def auto_complete_refused(entry: Entry) -> Iterator[Finding]:
    """Inputs or outputs left out, and a max_batch_size that the model cannot have."""
    if entry.auto_completed and entry.message.max_batch_size > 0:
        for _, model in entry.loadable():
            if not model.batchable:
                yield Finding(
                    entry.line("max_batch_size"),
                    f"{_absent(entry)} are not written, max_batch_size is "
                    f"{entry.message.max_batch_size}, and the model has no batch axis",
                    f"{_REFUSED}: auto-complete fails",
                    _REMEDIES["no-batch-axis"],
                )
                return


def tensors_not_written(entry: Entry) -> Iterator[Finding]:
    """Inputs or outputs left to auto-complete."""
    if entry.auto_completed and not any(auto_complete_batching(entry)):
        yield Finding(
            entry.line(),
            f"{_absent(entry)} are not written",
            "a server with --disable-auto-complete-config, as tritonkit serve starts it, does not "
            "load the model",
            "write all inputs and outputs",
        )


def container_only(entry: Entry) -> Iterator[Finding]:
    """What NVIDIA's ONNX Runtime backend does and tritonkit's embedded Triton does not."""
    if entry.is_onnx:
        for where, what in unsupported(entry.as_json(entry.message.max_batch_size)):
            why = "tritonkit's embedded Triton refuses it"
            remedy = "serve this model with NVIDIA's container (docker)"
            yield Finding(entry.line(*where), f"this model has {what}", why, remedy)


def input_count(entry: Entry) -> Iterator[Finding]:
    """The config has more or fewer inputs than the model."""
    yield from _refusals(entry, "input-count")


def unknown_input(entry: Entry) -> Iterator[Finding]:
    """An input that the model does not have."""
    yield from _refusals(entry, "unknown-input")


def unknown_output(entry: Entry) -> Iterator[Finding]:
    """An output that the model does not have."""
    yield from _refusals(entry, "unknown-output")


def data_type(entry: Entry) -> Iterator[Finding]:
    """A data_type that is not the model's."""
    yield from _refusals(entry, "data-type")


def no_batch_axis(entry: Entry) -> Iterator[Finding]:
    """max_batch_size > 0, and a tensor of the model whose first dimension is not dynamic."""
    yield from _refusals(entry, "no-batch-axis")


def dims_repeat_batch(entry: Entry) -> Iterator[Finding]:
    """dims that begin with the batch dimension, for which max_batch_size > 0 stands already."""
    yield from _refusals(entry, "dims-repeat-batch")


def dims(entry: Entry) -> Iterator[Finding]:
    """dims that are not the model's."""
    yield from _refusals(entry, "dims")


def scalar_dims(entry: Entry) -> Iterator[Finding]:
    """dims other than 1 for a scalar of the model."""
    yield from _refusals(entry, "scalar-dims")


def optional_input(entry: Entry) -> Iterator[Finding]:
    """An optional input of a model that is batched."""
    yield from _refusals(entry, "optional-input")


def ragged_input(entry: Entry) -> Iterator[Finding]:
    """A ragged input that is not one flat dimension in the model."""
    yield from _refusals(entry, "ragged-input")


def _refusals(entry: Entry, rule: str) -> Iterator[Finding]:
    """What the ONNX Runtime backend refuses, each once though several versions may have it."""
    found: dict[Finding, None] = {}
    malformed = {(side, i) for side, i, tensor in _tensors(entry) if _malformed(tensor)}
    for _, model in entry.loadable():
        most = entry.max_batch_size(model)
        if most < 0 or (entry.auto_completed and most and not model.batchable):
            continue  # max-batch-size-negative, auto-complete-refused
        config = entry.as_json(most)
        completed = "" if most == entry.message.max_batch_size else (
            f" (auto-complete sets max_batch_size to {most})"
        )  # fmt: skip
        for refusal in _compared(config, model):
            # What the core refuses is not told again in the backend's words.
            if refusal.rule == rule and refusal.where[:2] not in malformed:
                finding = Finding(
                    entry.line(*refusal.where),
                    f"{refusal.message}{completed}",
                    _REFUSED,
                    _REMEDIES[rule],
                )
                found[finding] = None
    yield from found


def _compared(config: Mapping[str, Any], model: ModelTensors) -> Iterator[Refusal]:
    """What is left out is completed, and so it fits."""
    if config["input"] or config["batch_input"]:
        yield from input_refusals(config, model.inputs, model.initializers)
    yield from output_refusals(config, model.outputs)


def _tensors(entry: Entry) -> Iterator[tuple[str, int, Any]]:
    for side in ("input", "output"):
        for i, tensor in enumerate(getattr(entry.message, side)):
            yield side, i, tensor


def _malformed(tensor: Any) -> bool:
    """Whether the core refuses it: tensor-incomplete, dims-not-positive, reshape."""
    dims = (*tensor.dims, *tensor.reshape.shape)
    return (
        not (tensor.name and tensor.data_type and tensor.dims)
        or any(dim < 1 and dim != -1 for dim in dims)
        or (tensor.HasField("reshape") and _sizes(tensor.dims) != _sizes(tensor.reshape.shape))
    )


def _called(tensor: Any, i: int) -> str:
    return f"'{tensor.name}'" if tensor.name else str(i)


def _absent(entry: Entry) -> str:
    sides = [side for side in ("input", "output") if not getattr(entry.message, side)]
    return " and ".join(f"{side}s" for side in sides)


def _repeated(tensors: Sequence[Any]) -> Iterator[tuple[int, str]]:
    seen: set[str] = set()
    for i, tensor in enumerate(tensors):
        if tensor.name and tensor.name in seen:
            yield i, tensor.name
        seen.add(tensor.name)


def _sizes(dims: Sequence[int]) -> list[int]:
    """The elements before, between and behind the dynamic dimensions."""
    sizes: list[list[int]] = [[]]
    for dim in dims:
        if dim == -1:
            sizes.append([])
        else:
            sizes[-1].append(dim)
    return [math.prod(part) for part in sizes]
