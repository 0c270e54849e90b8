"""Rules about model_warmup: requests that must succeed before the model is ready."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.repository.lint.entry import Entry
from tritonkit.repository.lint.problem import Finding
from tritonkit.signature import DATA_TYPES

_REFUSED = "Triton runs this request when it loads the model, and does not load it if that fails"
_FOLDER = "warmup"
_SIZES = {d.triton: d.numpy.itemsize for d in DATA_TYPES if d.name != "BYTES"}


def warmup_batch_size(entry: Entry) -> Iterator[Finding]:
    """A warm-up of more rows than max_batch_size."""
    most = max([1, entry.message.max_batch_size, *_completed(entry)])
    for i, warmup in enumerate(entry.message.model_warmup):
        if warmup.batch_size > most:
            yield Finding(
                entry.line("model_warmup", i, "batch_size"),
                f"warm-up '{warmup.name}' has {warmup.batch_size} rows, and the most is {most}",
                _REFUSED,
                f"write a batch_size of 1 to {most}",
            )


def warmup_skipped(entry: Entry) -> Iterator[Finding]:
    """A warm-up without a batch_size."""
    for i, warmup in enumerate(entry.message.model_warmup):
        if warmup.batch_size == 0:
            what = f"warm-up '{warmup.name}' has no batch_size"
            at = entry.line("model_warmup", i)
            yield Finding(at, what, "Triton skips it", "write batch_size: 1")


def warmup_inputs(entry: Entry) -> Iterator[Finding]:
    """A warm-up that leaves an input out, or has one that the model does not have."""
    config = entry.message
    if not config.input:
        return  # left to auto-complete
    required = {tensor.name for tensor in config.input if not tensor.optional}
    known = {tensor.name for tensor in config.input} | set(_other_inputs(config))
    for i, warmup in _run(config):
        absent = sorted(required - set(warmup.inputs))
        if absent:
            yield Finding(
                entry.line("model_warmup", i),
                f"warm-up '{warmup.name}' has no input {_quoted(absent)}",
                _REFUSED,
                "write all inputs of the model",
            )
        for name in sorted(set(warmup.inputs) - known):
            yield Finding(
                entry.line("model_warmup", i, "inputs", name, "key"),
                f"warm-up '{warmup.name}' has an input '{name}' that the model does not have",
                _REFUSED,
                "take it out",
            )


def warmup_tensor(entry: Entry) -> Iterator[Finding]:
    """A warm-up input of another type or other dims than the model's."""
    config = entry.message
    tensors = {tensor.name: tensor for tensor in config.input}
    for i, name, data in _data(config):
        at = ("model_warmup", i, "inputs", name, "value")
        called = f"warm-up input '{name}'"
        if name in tensors and data.data_type != tensors[name].data_type:
            types = [_type_name(t.data_type) for t in (data, tensors[name])]
            what = f"{called} is {types[0]} and the input is {types[1]}"
            remedy = f"write data_type: {types[1]}"
            yield Finding(entry.line(*at, "data_type"), what, _REFUSED, remedy)
        if any(dim < 0 for dim in data.dims):
            what = f"{called} has dims {list(data.dims)}"
            remedy = "write a size for each dimension"
            yield Finding(entry.line(*at, "dims"), what, _REFUSED, remedy)
        elif name in tensors and not _fits(data.dims, tensors[name].dims):
            what = f"{called} has dims {list(data.dims)}, the input {list(tensors[name].dims)}"
            remedy = "write dims that fit, without the batch dimension if max_batch_size > 0"
            yield Finding(entry.line(*at, "dims"), what, _REFUSED, remedy)


def warmup_data(entry: Entry) -> Iterator[Finding]:
    """A warm-up input without data: none chosen, or no file with enough of it."""
    for i, name, data in _data(entry.message):
        at = entry.line("model_warmup", i, "inputs", name, "value")
        called = f"warm-up input '{name}'"
        kind = data.WhichOneof("input_data_type")
        if kind is None:
            yield Finding(at, f"{called} has no data", _REFUSED, "write zero_data: true")
        elif kind == "input_data_file":
            at = entry.line("model_warmup", i, "inputs", name, "value", "input_data_file")
            path = entry.folder / _FOLDER / data.input_data_file
            size = _SIZES.get(_type_name(data.data_type), 0) * math.prod(data.dims)
            if not path.is_file():
                what = f"{called}: there is no {path}"
                yield Finding(at, what, _REFUSED, f"put it there: {entry.folder / _FOLDER} is "
                              "where Triton looks")  # fmt: skip
            elif path.stat().st_size < size:
                what = f"{called}: {path} has {path.stat().st_size} bytes, and {size} are needed"
                yield Finding(at, what, _REFUSED, "put all of its data into the file")


def _run(config: Any) -> Iterator[tuple[int, Any]]:
    """The warm-ups that are not skipped."""
    for i, warmup in enumerate(config.model_warmup):
        if warmup.batch_size:
            yield i, warmup


def _data(config: Any) -> Iterator[tuple[int, str, Any]]:
    for i, warmup in _run(config):
        for name in sorted(warmup.inputs):
            yield i, name, warmup.inputs[name]


def _other_inputs(config: Any) -> Iterator[str]:
    """What a run of a sequence takes besides the request's inputs, and a warm-up may give."""
    batching = config.sequence_batching
    yield from (tensor.name for tensor in batching.control_input)
    yield from (state.input_name for state in batching.state)
    for tensor in config.batch_input:
        yield from tensor.target_name


def _completed(entry: Entry) -> Iterator[int]:
    if entry.auto_completed:
        yield from (entry.max_batch_size(model) for _, model in entry.loadable())


def _fits(have: Any, want: Any) -> bool:
    return len(have) == len(want) and all(
        size in (-1, given) for given, size in zip(have, want, strict=True)
    )


def _type_name(number: int) -> str:
    known = schema.DataType.values()
    return str(schema.DataType.Name(number)) if number in known else str(number)


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
