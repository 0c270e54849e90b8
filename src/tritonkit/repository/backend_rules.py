"""What a config must not say about its model: the load-time refusals of the C++ backend.

The rules and the words are those of NVIDIA's onnxruntime_backend (ModelState(), ValidateInputs()
and ValidateOutputs() in src/onnxruntime.cc, CompareDimsSupported() in src/onnxruntime_utils.cc),
so that a mistake reads the same wherever the repository is served. The embedded backend raises the
first refusal when it loads a model; lint shows them all before a server starts.

A config here is the JSON form that Triton hands to backends and answers at /v2/models/M/config.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tritonkit.errors import RepositoryError
from tritonkit.signature import DATA_TYPES

Where = tuple[str | int, ...]
"""A place in a config: `("input", 1, "dims")`."""

_BY_SESSION_TYPE = {d.onnxruntime: d for d in DATA_TYPES}
_TRITON_TYPES = {d.triton for d in DATA_TYPES}
_INT32_MOST = 2**31 - 1

INTEGERS: dict[str, tuple[int, ...]] = {
    "execution_mode": (0, 1),
    "intra_op_thread_count": (),
    "inter_op_thread_count": (),
    "cudnn_conv_algo_search": (0, 1, 2),
    "arena_extend_strategy": (0, 1),
}
"""The parameters that are whole numbers, and which; none means any."""

BOOLEANS = ("enable_mem_arena", "enable_mem_pattern", "share_session_between_instances")
TEXTS = (
    "gpu_mem_limit",
    "do_copy_in_default_stream",
    "session.use_device_allocator_for_initializers",
    "memory.enable_memory_arena_shrinkage",
)


@dataclass(frozen=True)
class Refusal:
    """One reason not to load a model. `rule`: the id that lint gives it."""

    rule: str
    where: Where
    message: str


class Node(Protocol):
    """An input or output of a session, as `onnxruntime.NodeArg` gives it.

    `type` reads `tensor(float)`; a dimension of `shape` that is not fixed is a name or None.
    """

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> Sequence[int | str | None]: ...


def check_supported(config: Mapping[str, Any]) -> None:
    """RepositoryError for what only the C++ backend does, rather than doing something else."""
    for _, what in unsupported(config):
        raise RepositoryError(
            f"unable to load model '{config.get('name', '')}', the embedded onnxruntime backend "
            f"does not do {what}; serve this repository with NVIDIA's container (docker)"
        )


def unsupported(config: Mapping[str, Any]) -> Iterator[tuple[Where, str]]:
    """What of a config only the C++ backend does, and where it stands."""
    if config.get("model_transaction_policy", {}).get("decoupled"):
        yield ("model_transaction_policy",), "decoupled"
    for key in ("sequence_batching", "batch_input", "batch_output"):
        if config.get(key):
            yield (key,), key
    for side in ("input", "output"):
        for i, tensor in enumerate(config.get(side, ())):
            if tensor["data_type"] == "TYPE_STRING":  # the embedded backend's tensors.py says why
                yield (side, i), f"text (TYPE_STRING tensor '{tensor['name']}')"
            if tensor.get("allow_ragged_batch"):
                yield (side, i), f"allow_ragged_batch (input '{tensor['name']}')"


def check_model(
    config: Mapping[str, Any],
    inputs: Sequence[Node],
    outputs: Sequence[Node],
    initializers: Sequence[Node] = (),
) -> None:
    """RepositoryError, the first of them, unless `config` describes the model's tensors.

    `initializers` are the weights that a request may override: `optional` inputs.
    """
    refusals = (
        *control_refusals(config, inputs),
        *input_refusals(config, inputs, initializers),
        *output_refusals(config, outputs),
    )
    for refusal in refusals:
        raise RepositoryError(refusal.message)


def control_refusals(config: Mapping[str, Any], inputs: Sequence[Node]) -> Iterator[Refusal]:
    """Where a sequence's control tensors are not inputs of the model of one element."""
    nodes = {node.name: node for node in inputs}
    for where, _, control in _control_kinds(config):
        name = control["name"]
        if name not in nodes:
            message = (
                f"configuration specified sequence control '{name}', "
                "but model does not provide that input"
            )
        else:
            dims = dynamic_shape(nodes[name])[1 if _batches(config) else 0 :]
            if dims == [1]:
                continue
            message = (
                f"unable to load model '{config.get('name', '')}', sequence control '{name}' in "
                f"model has dims {_text(dims)} but dims [1] is expected"
            )
        yield Refusal("sequence-control", where, message)


def input_refusals(
    config: Mapping[str, Any], inputs: Sequence[Node], initializers: Sequence[Node] = ()
) -> Iterator[Refusal]:
    """Where the config's inputs are not the model's."""
    model = config.get("name", "")
    tensors = config.get("input", ())
    # Besides requests, these feed a model: batch inputs, a sequence's controls and its states.
    sequence = config.get("sequence_batching") or {}
    expected = sum(not tensor.get("optional") for tensor in tensors)
    expected += len(config.get("batch_input", ()))
    expected += len({kind for _, kind, _ in _control_kinds(config)})
    expected += len(sequence.get("state", ()))
    if expected != len(inputs):
        yield Refusal(
            "input-count",
            ("input",),
            f"unable to load model '{model}', configuration expects {expected} inputs, "
            f"model provides {len(inputs)}",
        )
    nodes = {node.name: node for node in (*inputs, *initializers)}
    for i, tensor in enumerate(tensors):
        if tensor.get("optional") and _batches(config):
            yield Refusal(
                "optional-input",
                ("input", i, "optional"),
                f"unable to load model '{model}', optional input '{tensor['name']}' "
                "is not supported for models that support batching",
            )
        yield from _tensor(config, "input", i, nodes)


def output_refusals(config: Mapping[str, Any], outputs: Sequence[Node]) -> Iterator[Refusal]:
    """Where the config's outputs are not the model's. It may leave some of them out."""
    nodes = {node.name: node for node in outputs}
    for i in range(len(config.get("output", ()))):
        yield from _tensor(config, "output", i, nodes)


def parameter_refusals(config: Mapping[str, Any]) -> Iterator[Refusal]:
    """The parameters whose value is not of their kind."""
    readers = dict.fromkeys(INTEGERS, integer) | dict.fromkeys(BOOLEANS, boolean)
    for key, read in readers.items():
        try:
            read(config, key)
        except RepositoryError as error:
            yield Refusal("parameter-value", ("parameters", key), str(error))


def boolean(config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """The parameter `key` as true/on/1 or false/off/0. RepositoryError if it is neither."""
    value = parameter(config, key)
    if value is None:
        return default
    if value.lower() in ("true", "on", "1"):
        return True
    if value.lower() in ("false", "off", "0"):
        return False
    raise RepositoryError(f"parameter '{key}': failed to convert '{value}' to boolean")


def integer(config: Mapping[str, Any], key: str) -> int:
    """The parameter `key` as a whole number; 0 if it is not there.

    RepositoryError if it is none or out of its range (stricter than the C++ backend in one thing:
    that reads '2 threads' and '2.5' as 2).
    """
    value = parameter(config, key)
    if value is None:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", value.strip()) or abs(int(value)) > _INT32_MOST:
        raise RepositoryError(f"parameter '{key}': failed to convert '{value}' to integral number")
    number = int(value)
    if key == "execution_mode" and number not in INTEGERS[key]:
        raise RepositoryError(
            "Invalid configuration value provided. "
            f"Expected values for execution_mode are 0 or 1 but got {number}"
        )
    if INTEGERS[key] and number not in INTEGERS[key]:
        raise RepositoryError(f"unsupported {key} value '{value}' is requested")
    return number


def parameter(config: Mapping[str, Any], key: str) -> str | None:
    """The text of the parameter `key`; None if it is not there."""
    entry = config.get("parameters", {}).get(key)
    return None if entry is None else entry.get("string_value", "")


def model_dims(tensor: Mapping[str, Any]) -> list[int]:
    """The dims that the model itself sees: those of `reshape` where there is one."""
    dims = tensor["reshape"].get("shape", ()) if "reshape" in tensor else tensor["dims"]
    return [int(d) for d in dims]


def dynamic_shape(node: Node) -> list[int]:
    """The shape of a model's tensor with -1 for what is not fixed."""
    return [d if isinstance(d, int) else -1 for d in node.shape]


def _control_kinds(config: Mapping[str, Any]) -> Iterator[tuple[Where, str, Mapping[str, Any]]]:
    sequence = config.get("sequence_batching") or {}
    for i, tensor in enumerate(sequence.get("control_input", ())):
        for j, control in enumerate(tensor.get("control", ())):
            where = ("sequence_batching", "control_input", i, "control", j)
            kind = control.get("kind", "CONTROL_SEQUENCE_START")
            yield where, kind, {"name": tensor.get("name", ""), **control}


def _tensor(
    config: Mapping[str, Any], side: str, i: int, nodes: Mapping[str, Node]
) -> Iterator[Refusal]:
    tensor = config[side][i]
    model, name = config.get("name", ""), tensor["name"]
    if name not in nodes:
        yield Refusal(
            f"unknown-{side}",
            (side, i, "name"),
            f"unexpected inference {side} '{name}', "
            f"allowed {side}s are: {', '.join(sorted(nodes))}",
        )
        return
    node = nodes[name]
    yield from _datatype(model, tensor, node, side, (side, i, "data_type"))
    if not node.type.startswith("tensor("):
        return
    if tensor.get("allow_ragged_batch"):
        if dynamic_shape(node) != [-1]:
            yield Refusal(
                "ragged-input",
                (side, i, "allow_ragged_batch"),
                f"unable to load model '{model}', configuration expects model provides input with "
                f"shape [-1] for ragged input '{name}', model provides "
                f"{_text(dynamic_shape(node))}",
            )
        return
    yield from _dims(config, tensor, node, (side, i), exact=side == "output")


def _datatype(
    model: str, tensor: Mapping[str, Any], node: Node, what: str, where: Where
) -> Iterator[Refusal]:
    if not node.type.startswith("tensor("):
        message = f"Unsupported ONNX Type '{node.type}' for I/O '{node.name}', expected a tensor"
    elif tensor["data_type"] not in _TRITON_TYPES:
        message = (
            f"unsupported datatype {tensor['data_type']} for {what} '{tensor['name']}' "
            f"for model '{model}'"
        )
    else:
        provided = _BY_SESSION_TYPE.get(node.type)
        if provided is not None and provided.triton == tensor["data_type"]:
            return
        message = (
            f"unable to load model '{model}', configuration expects datatype "
            f"{tensor['data_type']} for {what} '{tensor['name']}', "
            f"model provides TYPE_{provided.name if provided else '<invalid>'}"
        )
    yield Refusal("data-type", where, message)


def _dims(
    config: Mapping[str, Any], tensor: Mapping[str, Any], node: Node, where: Where, *, exact: bool
) -> Iterator[Refusal]:
    """`exact`: -1 must meet -1, as for outputs. An input's -1 in the model accepts any size."""
    shape, dims = dynamic_shape(node), model_dims(tensor)
    prefix = f"model '{config.get('name', '')}', tensor '{tensor['name']}': "
    at = (*where, "reshape" if "reshape" in tensor else "dims")
    if _batches(config):
        if shape[:1] != [-1]:
            yield Refusal(
                "no-batch-axis",
                where,
                f"{prefix}for the model to support batching the shape should have at least 1 "
                "dimension and the first dimension must be -1; but shape expected by the model "
                f"is {_text(shape)}",
            )
            return
        full = [-1, *dims]
        specified = (
            f"{len(full)} dimensions (an initial batch dimension because max_batch_size > 0 "
            f"followed by the explicit tensor shape, making complete shape {_text(full)})"
        )
    elif not shape:
        if any(dim != 1 for dim in dims):
            yield Refusal(
                "scalar-dims",
                at,
                f"unable to load model '{config.get('name', '')}', scalar tensor "
                f"'{tensor['name']}', should only provide 1 in the model configuration when the "
                f"model doesn't support batching. Model configuration provided: {_text(dims)}.",
            )
        return
    else:
        full = dims
        specified = f"{len(full)} dimensions (shape {_text(full)})"

    def fits(full: list[int]) -> bool:
        return len(shape) == len(full) and all(
            have == want or (have == -1 and not exact)
            for have, want in zip(shape, full, strict=True)
        )

    if not fits(full):
        repeats = _batches(config) and dims[:1] == [-1] and fits(dims)
        yield Refusal(
            "dims-repeat-batch" if repeats else "dims",
            at,
            f"{prefix}the model expects {len(shape)} dimensions (shape {_text(shape)}) "
            f"but the model configuration specifies {specified}",
        )


def _batches(config: Mapping[str, Any]) -> bool:
    return int(config.get("max_batch_size", 0)) > 0


def _text(dims: Iterable[int]) -> str:
    return f"[{','.join(map(str, dims))}]"
