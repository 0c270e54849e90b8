"""KServe v2 over HTTP with binary tensors, the server's side: bytes ⇄ numpy.

The protocol: a JSON header, then the raw bytes of each binary tensor in the header's order;
the HTTP header Inference-Header-Content-Length says where the JSON ends.
Source: https://github.com/kserve/open-inference-protocol and Triton's binary data extension.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tritonkit.binary import from_bytes, to_bytes
from tritonkit.errors import InputError
from tritonkit.signature import data_type, data_type_of

HEADER_LENGTH = "Inference-Header-Content-Length"

# What the parsers below make of foreign bytes.
_MALFORMED = (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True)
class InferRequest:
    """A decoded request. outputs: name → whether it wants binary; empty means all outputs."""

    id: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, bool]
    binary_by_default: bool


def decode_request(body: bytes, header_length: str | None) -> InferRequest:
    """The request in an HTTP body. InputError says what is wrong with it."""
    try:
        split = len(body) if header_length is None else int(header_length)
        header = json.loads(body[:split])
        binary = memoryview(body)[split:]
        inputs: dict[str, np.ndarray] = {}
        for tensor in header["inputs"]:
            size = tensor.get("parameters", {}).get("binary_data_size")
            if size is None:
                array = _from_json(tensor)
            else:
                dtype = data_type(tensor["datatype"])
                array = from_bytes(binary[:size], dtype, tensor["shape"])
                binary = binary[size:]
            inputs[tensor["name"]] = array
        if len(binary):
            raise InputError(f"{len(binary)} bytes more than the inputs declare")
        outputs = {
            o["name"]: bool(o.get("parameters", {}).get("binary_data", False))
            for o in header.get("outputs", [])
        }
        return InferRequest(
            str(header.get("id", "")),
            inputs,
            outputs,
            bool(header.get("parameters", {}).get("binary_data_output", False)),
        )
    except _MALFORMED as error:
        raise InputError(f"not a KServe v2 inference request: {error!r}") from error


def encode_response(
    model: str, request: InferRequest, outputs: Mapping[str, np.ndarray]
) -> tuple[bytes, int | None]:
    """The HTTP body that answers `request`, and the length of its JSON header if bytes follow."""
    tensors: list[dict[str, Any]] = []
    chunks: list[bytes | memoryview] = []
    for name, array in outputs.items():
        dtype = data_type_of(array)
        tensor: dict[str, Any] = {"name": name, "datatype": dtype.name, "shape": array.shape}
        if request.outputs.get(name, request.binary_by_default):
            chunk = to_bytes(array, dtype)
            tensor["parameters"] = {"binary_data_size": len(chunk)}
            chunks.append(chunk)
        else:
            tensor["data"] = _to_json(array)
        tensors.append(tensor)
    answer = {"model_name": model, "model_version": "1", "outputs": tensors}
    if request.id:
        answer["id"] = request.id
    header = json.dumps(answer, separators=(",", ":")).encode()
    return b"".join((header, *chunks)), len(header) if chunks else None


def _from_json(tensor: Mapping[str, Any]) -> np.ndarray:
    dtype = data_type(tensor["datatype"])
    array = np.array(tensor["data"], dtype=dtype.numpy).reshape(tensor["shape"])
    if dtype.name == "BYTES":
        flat = [v.encode() for v in array.ravel().tolist()]
        array = np.array(flat, dtype=np.object_).reshape(array.shape)
    return array


def _to_json(array: np.ndarray) -> list[Any]:
    if array.dtype.kind in "OS":
        return [v.decode() if isinstance(v, bytes) else v for v in array.ravel().tolist()]
    return list(array.ravel().tolist())
