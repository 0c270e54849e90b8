"""What a config must not say about its model: the load-time refusals of the C++ backend.

The rules and the words are those of NVIDIA's onnxruntime_backend (ValidateInputs() and
ValidateOutputs() in src/onnxruntime.cc, CompareDimsSupported() in src/onnxruntime_utils.cc), so
that a mistake reads the same wherever the repository is served.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from tritonkit.errors import RepositoryError
from tritonkit.signature import DATA_TYPES

_BY_SESSION_TYPE = {d.onnxruntime: d for d in DATA_TYPES}
_TRITON_TYPES = {d.triton for d in DATA_TYPES}


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
    if config.get("model_transaction_policy", {}).get("decoupled"):
        _refuse_unsupported(config, "decoupled")
    for key in ("sequence_batching", "batch_input", "batch_output"):
        if config.get(key):
            _refuse_unsupported(config, key)
    for tensor in (*config.get("input", ()), *config.get("output", ())):
        if tensor["data_type"] == "TYPE_STRING":  # tensors.py says why
            _refuse_unsupported(config, f"text (TYPE_STRING tensor '{tensor['name']}')")


def check_model(
    config: Mapping[str, Any],
    inputs: Sequence[Node],
    outputs: Sequence[Node],
    initializers: Sequence[Node] = (),
) -> None:
    """RepositoryError unless `config` describes the model's inputs and outputs.

    `initializers` are the weights that a request may override: `optional` inputs.
    """
    model = config.get("name", "")
    required = sum(not tensor.get("optional") for tensor in config.get("input", ()))
    if required != len(inputs):
        raise RepositoryError(
            f"unable to load model '{model}', configuration expects {required} inputs, "
            f"model provides {len(inputs)}"
        )
    nodes = {node.name: node for node in (*inputs, *initializers)}
    for tensor in config.get("input", ()):
        _check_optional(config, tensor)
        node = _find(tensor, nodes, "input")
        _check_datatype(model, tensor, node, "input")
        if tensor.get("allow_ragged_batch"):
            _check_ragged(config, tensor, node)
        _check_dims(config, tensor, node, exact=False)
    nodes = {node.name: node for node in outputs}
    for tensor in config.get("output", ()):
        node = _find(tensor, nodes, "output")
        _check_datatype(model, tensor, node, "output")
        _check_dims(config, tensor, node, exact=True)


def model_dims(tensor: Mapping[str, Any]) -> list[int]:
    """The dims that the model itself sees: those of `reshape` where there is one."""
    dims = tensor["reshape"].get("shape", ()) if "reshape" in tensor else tensor["dims"]
    return [int(d) for d in dims]


def _refuse_unsupported(config: Mapping[str, Any], what: str) -> None:
    raise RepositoryError(
        f"unable to load model '{config.get('name', '')}', the embedded onnxruntime backend does "
        f"not do {what}; serve this repository with NVIDIA's container (docker)"
    )


def _check_optional(config: Mapping[str, Any], tensor: Mapping[str, Any]) -> None:
    if tensor.get("optional") and _batches(config):
        raise RepositoryError(
            f"unable to load model '{config.get('name', '')}', optional input '{tensor['name']}' "
            "is not supported for models that support batching"
        )


def _check_ragged(config: Mapping[str, Any], tensor: Mapping[str, Any], node: Node) -> None:
    if _shape(node) != [-1]:
        raise RepositoryError(
            f"unable to load model '{config.get('name', '')}', configuration expects model "
            f"provides input with shape [-1] for ragged input '{tensor['name']}', "
            f"model provides {_text(_shape(node))}"
        )
    _refuse_unsupported(config, f"allow_ragged_batch (input '{tensor['name']}')")


def _find(tensor: Mapping[str, Any], nodes: Mapping[str, Node], what: str) -> Node:
    if tensor["name"] not in nodes:
        raise RepositoryError(
            f"unexpected inference {what} '{tensor['name']}', "
            f"allowed {what}s are: {', '.join(sorted(nodes))}"
        )
    return nodes[tensor["name"]]


def _check_datatype(model: str, tensor: Mapping[str, Any], node: Node, what: str) -> None:
    if not node.type.startswith("tensor("):
        raise RepositoryError(
            f"Unsupported ONNX Type '{node.type}' for I/O '{node.name}', expected a tensor"
        )
    if tensor["data_type"] not in _TRITON_TYPES:
        raise RepositoryError(
            f"unsupported datatype {tensor['data_type']} for {what} '{tensor['name']}' "
            f"for model '{model}'"
        )
    provided = _BY_SESSION_TYPE.get(node.type)
    if provided is None or provided.triton != tensor["data_type"]:
        raise RepositoryError(
            f"unable to load model '{model}', configuration expects datatype "
            f"{tensor['data_type']} for {what} '{tensor['name']}', "
            f"model provides TYPE_{provided.name if provided else '<invalid>'}"
        )


def _check_dims(
    config: Mapping[str, Any], tensor: Mapping[str, Any], node: Node, *, exact: bool
) -> None:
    """`exact`: -1 must meet -1, as for outputs. An input's -1 in the model accepts any size."""
    shape, dims = _shape(node), model_dims(tensor)
    where = f"model '{config.get('name', '')}', tensor '{tensor['name']}': "
    if _batches(config):
        if shape[:1] != [-1]:
            raise RepositoryError(
                f"{where}for the model to support batching the shape should have at least 1 "
                "dimension and the first dimension must be -1; but shape expected by the model "
                f"is {_text(shape)}"
            )
        full = [-1, *dims]
        specified = (
            f"{len(full)} dimensions (an initial batch dimension because max_batch_size > 0 "
            f"followed by the explicit tensor shape, making complete shape {_text(full)})"
        )
    elif not shape:
        if any(dim != 1 for dim in dims):
            raise RepositoryError(
                f"unable to load model '{config.get('name', '')}', scalar tensor "
                f"'{tensor['name']}', should only provide 1 in the model configuration when the "
                f"model doesn't support batching. Model configuration provided: {_text(dims)}."
            )
        return
    else:
        full = dims
        specified = f"{len(full)} dimensions (shape {_text(full)})"
    accepted = len(shape) == len(full) and all(
        have == want or (have == -1 and not exact) for have, want in zip(shape, full, strict=True)
    )
    if not accepted:
        raise RepositoryError(
            f"{where}the model expects {len(shape)} dimensions (shape {_text(shape)}) "
            f"but the model configuration specifies {specified}"
        )


def _batches(config: Mapping[str, Any]) -> bool:
    return int(config.get("max_batch_size", 0)) > 0


def _shape(node: Node) -> list[int]:
    return [d if isinstance(d, int) else -1 for d in node.shape]


def _text(dims: Iterable[int]) -> str:
    return f"[{','.join(map(str, dims))}]"
