"""What a server says of a model, as far as a client needs it: signature, batching, options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from tritonkit.errors import ModelError, RequestError, TensorError, request_error
from tritonkit.signature import ModelSignature, TensorSpec, data_type, read_metadata


@dataclass(frozen=True)
class ModelSpec:
    """A model that a server serves.

    version: as it was asked for, empty for the server's choice. versions: those it can be asked
    for. Shapes include the batch dimension where there is one; dynamic dimensions have a name.
    max_batch_size: rows that one request may have, 0 if the model does not batch. optional: the
    inputs that may be left out. decoupled: a request may have any number of answers.
    """

    name: str
    version: str
    platform: str
    versions: tuple[str, ...]
    signature: ModelSignature
    max_batch_size: int
    decoupled: bool = False
    optional: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """The model's name in messages: `ranker`, or `ranker/2` where a version was asked for."""
        return f"{self.name}/{self.version}" if self.version else self.name

    @property
    def batches(self) -> bool:
        """Whether the first dimension of every tensor is the batch."""
        return self.max_batch_size > 0

    @cached_property
    def inputs(self) -> dict[str, TensorSpec]:
        """The inputs by name, in the model's order."""
        return {t.name: t for t in self.signature.inputs}

    @cached_property
    def outputs(self) -> dict[str, TensorSpec]:
        """The outputs by name, in the model's order."""
        return {t.name: t for t in self.signature.outputs}

    @cached_property
    def only_input(self) -> TensorSpec | None:
        """The input of a model that has exactly one."""
        return self.signature.inputs[0] if len(self.signature.inputs) == 1 else None

    @cached_property
    def output_row_bytes(self) -> dict[str, int]:
        """The bytes of a row of each output, or of all of it if the model does not batch. Without
        the outputs whose size is not known before they are computed.
        """
        sizes = {}
        for name, tensor in self.outputs.items():
            dims = tensor.shape[self.batches :]
            fixed = [dim for dim in dims if isinstance(dim, int)]
            if len(fixed) == len(dims) and tensor.dtype.name != "BYTES":
                sizes[name] = math.prod(fixed) * tensor.dtype.numpy.itemsize
        return sizes

    @cached_property
    def largest_output_row_bytes(self) -> int:
        """The largest of these; 0 if there are none."""
        return max(self.output_row_bytes.values(), default=0)

    @cached_property
    def required(self) -> tuple[str, ...]:
        """The inputs that a request must have."""
        return tuple(name for name in self.inputs if name not in self.optional)

    def require_outputs(self, names: Iterable[str]) -> None:
        """TensorError unless the model has all these outputs."""
        for name in names:
            if name not in self.outputs:
                raise TensorError(f"{self.label}: {no_such('output', name, self.outputs)}")

    def __str__(self) -> str:
        """One line: `ranker: x:FP32[dim_0,512] -> score:FP32[dim_0,1], up to 64 rows a request`."""
        taken = (
            f"{t} (optional)" if n in self.optional else f"{t}" for n, t in self.inputs.items()
        )
        given = map(str, self.outputs.values())
        tensors = f"{', '.join(taken) or 'nothing'} -> {', '.join(given) or 'nothing'}"
        rows = f"up to {self.max_batch_size} rows a request" if self.batches else "does not batch"
        return f"{self.label}: {tensors}, {rows}{', decoupled' if self.decoupled else ''}"


def no_such(kind: str, name: object, tensors: Mapping[str, TensorSpec]) -> str:
    """The model has no tensor `name`, but perhaps a similar one; in words."""
    close = get_close_matches(str(name), tensors, 1)
    hint = f"did you mean '{close[0]}'? It has" if close else "it has"
    known = ", ".join(map(str, tensors.values())) or "none"
    return f"the model has no {kind} '{name}'; {hint} {known}"


def read_spec(metadata: Mapping[str, Any], config: Mapping[str, Any], version: str) -> ModelSpec:
    """The model in a server's answers to METADATA and CONFIG. version: as it was asked for.

    ProtocolError if they are malformed; ModelError if a tensor has a dtype that tritonkit does
    not carry, such as BF16.
    """
    try:
        name = _text(metadata["name"])
        for tensor in (*metadata["inputs"], *metadata["outputs"]):
            _check_tensor(name, tensor)
        spec = ModelSpec(
            name=name,
            version=version,
            platform=_text(metadata.get("platform", "")),
            versions=tuple(_text(v) for v in metadata.get("versions", ())),
            signature=read_metadata(metadata),
            max_batch_size=max(0, _whole(config.get("max_batch_size", 0))),
            decoupled=bool(config.get("model_transaction_policy", {}).get("decoupled", False)),
            optional=frozenset(
                _text(i["name"]) for i in config.get("input", ()) if i.get("optional", False)
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed(f"the server's answer is malformed ({error!r})") from error
    for tensors in (spec.signature.inputs, spec.signature.outputs):
        if len({t.name for t in tensors}) < len(tensors):
            raise _malformed(f"{name} has two tensors of one name")
    if spec.batches and (fixed := spec.signature.without_batch_axis()):
        raise _malformed(f"{name} batches, but its tensor {fixed[0]} has no batch dimension")
    return spec


def _check_tensor(model: str, tensor: Mapping[str, Any]) -> None:
    for dim in tensor["shape"]:
        _whole(dim)
    name, dtype = _text(tensor["name"]), _text(tensor["datatype"])
    try:
        data_type(dtype)
    except ModelError as error:
        raise ModelError(f"{model}: tensor '{name}': {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} instead of text")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} instead of a whole number")
    return value


def _malformed(what: str) -> RequestError:
    return request_error("protocol", f"model metadata: {what}; is this a Triton?")
