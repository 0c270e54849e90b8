"""KServe v2 over HTTP, the client's side: requests to bytes, answers to values, failures to kinds.

What both transports over HTTP share. An inference request is a JSON header, then the raw bytes of
each tensor in the header's order; Inference-Header-Content-Length says where the JSON ends.
Source: https://github.com/kserve/open-inference-protocol and Triton's binary data extension.
"""

from __future__ import annotations

import json
import math
import socket
import ssl
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from tritonkit.binary import to_bytes
from tritonkit.client.transport import (
    Compression,
    InferRequest,
    InferResponse,
    Parameter,
    Region,
    Tensor,
)
from tritonkit.client.transports.connection import HttpAnswer, NotHttpError
from tritonkit.errors import ModelError, RequestError, request_error
from tritonkit.signature import DATA_TYPES, data_type

HEADER_LENGTH = "Inference-Header-Content-Length"
HINT = "is this Triton's HTTP port? gRPC is at grpc://host:8001"

_REASON_LENGTH = 300
# Below this, one buffer is cheaper than several; above it, copying is what costs.
_JOIN_BYTES = 64 * 1024
# More buffers than this are joined: the system takes 1024 at a time.
_MOST_PARTS = 256

_ITEM_BYTES = {d.name: d.numpy.itemsize for d in DATA_TYPES if d.name != "BYTES"} | {"BF16": 2}

_KINDS = {
    **{401: "unauthenticated", 403: "forbidden", 404: "not_found", 408: "timeout"},
    **{413: "too_large", 415: "unsupported", 429: "unavailable", 499: "cancelled"},
    **{501: "unsupported", 502: "closed", 503: "unavailable", 504: "timeout"},
}
"""What a status says. Other 4xx are invalid, other 5xx failed, all else protocol."""

# What reading foreign JSON makes of it if it is not what it should be.
_MALFORMED = (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError)

_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class HttpRequest(NamedTuple):
    """A request. path: quoted, without the address's own. body: in parts, not copied if large, so
    the tensors must stay as they are while it is used. repeatable: whether running it twice does
    no harm. regions: where outputs are to be put, by name; Triton's answer does not repeat it.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: tuple[bytes | memoryview, ...]
    repeatable: bool
    regions: Mapping[str, Region] = {}


def encode_infer(request: InferRequest, compression: Compression | None = None) -> HttpRequest:
    """An inference request, all tensors binary. RejectedError if JSON cannot hold a parameter."""
    header: dict[str, Any] = {}
    parts: list[bytes | memoryview] = []
    parameters = dict(request.parameters)
    if request.id:
        header["id"] = request.id
    header["inputs"] = [_describe_input(tensor, parts) for tensor in request.inputs]
    if request.outputs:
        header["outputs"] = [
            {"name": wanted.name, "parameters": _describe_wanted(wanted.classes, wanted.region)}
            for wanted in request.outputs
        ]
    else:
        parameters["binary_data_output"] = True
    if parameters:
        header["parameters"] = parameters
    try:
        text = _to_json(header).encode()
    except (TypeError, ValueError) as error:
        raise request_error("invalid", f"a request that JSON cannot hold: {error}") from error
    headers = {"Content-Type": "application/json"}
    if parts:
        headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    size = len(text) + sum(map(len, parts))
    body: tuple[bytes | memoryview, ...] = (text, *parts)
    if compression is not None:
        body = (_compress(body, compression),)
        headers |= {"Content-Encoding": compression, "Accept-Encoding": compression}
        size = len(body[0])
    elif size <= _JOIN_BYTES or len(body) > _MOST_PARTS:
        body = (b"".join(body),)
    headers["Content-Length"] = str(size)
    path = f"{model_path(request.model, request.version)}/infer"
    return HttpRequest(
        "POST",
        path,
        headers,
        body,
        repeatable="sequence_id" not in request.parameters,
        regions={w.name: w.region for w in request.outputs if w.region is not None},
    )


def _describe_input(tensor: Tensor, parts: list[bytes | memoryview]) -> dict[str, Any]:
    data = tensor.data
    parameters: dict[str, Any] = {**tensor.parameters}
    if isinstance(data, Region):
        _describe_region(data, parameters)
    else:
        if isinstance(data, memoryview) and (data.format != "B" or data.ndim != 1):
            data = data.cast("B")
        parameters["binary_data_size"] = len(data)
        parts.append(data)
    return {
        "name": tensor.name,
        "shape": tensor.shape,
        "datatype": tensor.datatype,
        "parameters": parameters,
    }


def _describe_wanted(classes: int, region: Region | None) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if classes:
        parameters["classification"] = classes
    if region is None:
        parameters["binary_data"] = True
    else:
        _describe_region(region, parameters)
    return parameters


def _describe_region(region: Region, parameters: dict[str, Any]) -> None:
    parameters["shared_memory_region"] = region.name
    parameters["shared_memory_byte_size"] = region.byte_size
    if region.offset:
        parameters["shared_memory_offset"] = region.offset


def decode_infer(where: str, answer: HttpAnswer) -> InferResponse:
    """Read the answer to an inference request; ProtocolError if it is none.

    where: the server's address, for the message.
    """
    try:
        return _decode(answer)
    except ModelError as error:
        raise request_error("protocol", f"{where}: {error}") from error
    except _MALFORMED as error:
        why = f"no '{error.args[0]}'" if isinstance(error, KeyError) else _one_line(str(error))
        raise request_error(
            "protocol", f"{where}: not a KServe v2 answer: {why}; {HINT}"
        ) from error


def _decode(answer: HttpAnswer) -> InferResponse:
    body = memoryview(answer.body).toreadonly()
    split = int(answer.headers.get("inference-header-content-length", len(body)))
    if not 0 < split <= len(body):
        raise ValueError(f"a header of {split} bytes in an answer of {len(body)}")
    header = json.loads(bytes(body[:split]) if split < len(body) else answer.body)
    outputs, rest = [], body[split:]
    for output in header["outputs"]:
        tensor, taken = _output(output, rest, answer.regions)
        outputs.append(tensor)
        rest = rest[taken:]
    if rest:
        raise ValueError(f"{len(rest)} bytes more than its outputs need")
    if not outputs:
        raise ValueError("no outputs")
    return InferResponse(
        model=str(header.get("model_name", "")),
        version=str(header.get("model_version", "")),
        outputs=tuple(outputs),
        id=str(header.get("id", "")),
        parameters=dict(header.get("parameters", {})),
    )


def _output(
    output: Mapping[str, Any], binary: memoryview, regions: Mapping[str, Region]
) -> tuple[Tensor, int]:
    """One output, and how many of the bytes that follow the header are its own."""
    name, datatype, shape = output["name"], output["datatype"], tuple(output["shape"])
    if not (type(name) is str and type(datatype) is str):
        raise ValueError("an output whose name or datatype is no text")
    if not all(type(dim) is int and dim >= 0 for dim in shape):
        raise ValueError(f"output '{name}' has shape {shape}")
    parameters: dict[str, Parameter] = dict(output.get("parameters", {}))
    parameters.pop("binary_data", None)
    size = parameters.pop("binary_data_size", None)
    data: bytes | memoryview | Region
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(binary):
            raise ValueError(f"output '{name}' has {size} bytes, but {len(binary)} are left")
        data = binary[:size]
        _check_size(name, datatype, shape, size)
        return Tensor(name, datatype, shape, data, parameters), size
    if "shared_memory_region" in parameters:
        data = Region(
            str(parameters.pop("shared_memory_region")),
            int(parameters.pop("shared_memory_byte_size")),
            int(parameters.pop("shared_memory_offset", 0)),
        )
    elif "data" not in output and name in regions:
        data = regions[name]
    else:
        data = _from_json(name, datatype, shape, output["data"])
    return Tensor(name, datatype, shape, data, parameters), 0


def _check_size(name: str, datatype: str, shape: tuple[int, ...], size: int) -> None:
    item_bytes = _ITEM_BYTES.get(datatype)
    if item_bytes is not None and math.prod(shape) * item_bytes != size:
        raise ValueError(f"output '{name}' is {datatype}{list(shape)} in {size} bytes")


def _from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> bytes | memoryview:
    dtype = data_type(datatype)
    array = np.array(data, dtype=dtype.numpy)
    if array.size != math.prod(shape):
        raise ValueError(f"output '{name}' of shape {list(shape)} has {array.size} elements")
    return to_bytes(array, dtype)


def model_path(model: str, version: str = "") -> str:
    """Where a model is. Triton does not undo the quoting of names; other servers do."""
    path = f"/v2/models/{quote_name(model)}"
    return f"{path}/versions/{quote_name(version)}" if version else path


def quote_name(name: str) -> str:
    """A name as a part of a path; only what a path cannot hold is quoted."""
    try:
        return quote(name, safe="!$&'()*+,;=:@")
    except (TypeError, UnicodeEncodeError) as error:
        raise request_error("invalid", f"{name!r} is no name: {error}") from error


def check_status(where: str, answer: HttpAnswer) -> None:
    """The RequestError that an answer stands for, unless it is a good one. where: for messages."""
    status, headers, body, _ = answer
    page = headers.get("content-type", "").startswith("text/html")
    if status == 200 and not page:
        return
    kind = _KINDS.get(status) or {4: "invalid", 5: "failed"}.get(status // 100, "protocol")
    reason = reason_in(body) or f"HTTP status {status}"
    if page or kind == "protocol":
        reason = f"HTTP status {status}: {reason[:150]}; {HINT}"
    raise request_error(kind, f"{where}: {reason}")


def reason_in(body: bytes | bytearray) -> str:
    """The server's reason in one line: KServe's, or else the beginning of whatever it sent."""
    try:
        text = json.loads(body)["error"]
    except _MALFORMED:
        text = None
    if not isinstance(text, str):
        text = bytes(body[:_REASON_LENGTH]).decode("utf-8", errors="replace")
    return _one_line(text)


def _one_line(text: str) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())[:_REASON_LENGTH]


def decompress(where: str, answer: HttpAnswer) -> HttpAnswer:
    """The answer as it was before its Content-Encoding. ProtocolError if it cannot be had."""
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return answer
    if encoding not in ("gzip", "deflate"):
        raise request_error("protocol", f"{where}: an answer in unknown encoding '{encoding}'")
    inflate = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)  # of either kind, by its header
    try:
        body = inflate.decompress(answer.body)
    except zlib.error as error:
        raise request_error("protocol", f"{where}: an answer that is no {encoding}") from error
    if not inflate.eof:
        raise request_error("protocol", f"{where}: an answer that ends within its {encoding}")
    return answer._replace(body=body)


def _compress(parts: tuple[bytes | memoryview, ...], compression: Compression) -> bytes:
    # Level 1: over a network that is worth compressing for, the others' time is not.
    gzip = 16 if compression == "gzip" else 0
    deflate = zlib.compressobj(level=1, wbits=gzip + zlib.MAX_WBITS)
    return b"".join((*map(deflate.compress, parts), deflate.flush()))


def failure(where: str, error: BaseException, *, sent: bool) -> RequestError:
    """What an error of sockets, TLS or HTTP means. sent: whether there was a connection.

    Without one the request cannot have run.
    """
    if isinstance(error, RequestError):
        return error
    if isinstance(error, TimeoutError):
        return request_error("timeout", f"{where}: no answer in time")
    if isinstance(error, NotHttpError):
        return request_error("protocol", f"{where}: {error}")
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"its certificate is not trusted ({error.verify_message}); give its authority's"
        return request_error("refused", f"{where}: {reason} PEM file as ca")
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return _tls_failure(where, error)
    if isinstance(error, socket.gaierror):
        return request_error("refused", f"{where}: no such host ({error.strerror})")
    if isinstance(error, UnicodeError):  # of the host's name
        return request_error("refused", f"{where}: no such host")
    if isinstance(error, ConnectionRefusedError):
        return request_error("refused", f"{where}: nothing listens there")
    if isinstance(error, ssl.SSLEOFError) and not sent:
        return request_error("refused", f"{where}: no TLS (it hung up); without it, use http://")
    reason = _one_line(str(getattr(error, "strerror", None) or error)) or type(error).__name__
    if sent:
        return request_error("closed", f"{where}: connection lost ({reason})")
    return request_error("refused", f"{where}: no connection ({reason})")


def _tls_failure(where: str, error: ssl.SSLError) -> RequestError:
    reason = (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
    if "alert" in reason and any(word in reason for word in ("certificate", "unknown ca")):
        told = f"the server does not accept this client's certificate ({reason}); give cert and key"
        return request_error("unauthenticated", f"{where}: {told}")
    return request_error("protocol", f"{where}: no TLS ({reason}); without it, use http://")
