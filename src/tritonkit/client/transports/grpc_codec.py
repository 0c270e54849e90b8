"""Inference requests and answers as gRPC messages: KServe v2's ModelInferRequest and its kin.

Tensors go as raw bytes behind the rest of the message, which costs one copy of them: a protobuf
message is the concatenation of its fields, so theirs are written here and not by protobuf.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from tritonkit.binary import to_bytes
from tritonkit.client.transport import (
    InferRequest,
    InferResponse,
    Parameter,
    Region,
    Tensor,
    Wanted,
)
from tritonkit.client.transports.grpc_errors import stream_failure
from tritonkit.errors import ModelError, RequestError, request_error
from tritonkit.signature import data_type

# Protobuf's own limit, which gRPC and Triton share.
MAX_MESSAGE_BYTES = 2**31 - 1

_REGION = "shared_memory_region"
_REGION_SIZE = "shared_memory_byte_size"
_REGION_OFFSET = "shared_memory_offset"
_CLASSES = "classification"
_FINAL = "triton_final_response"

_LENGTH_DELIMITED = 2  # protobuf's wire type of bytes
_RAW_TAG = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | _LENGTH_DELIMITED

# The field of InferTensorContents that holds a datatype. FP16 has none: it is always raw.
_TYPED = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **{"BOOL": "bool_contents", "INT64": "int64_contents", "UINT64": "uint64_contents"},
    **{"FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"},
}


class Message(NamedTuple):
    """data: a ModelInferRequest. regions: of the outputs that are to be put in shared memory."""

    data: bytes
    regions: Mapping[str, Region]


class Answer(NamedTuple):
    """data: a ModelInferResponse, None if there was none. regions: those of the request, as Triton
    does not say which outputs it put there.
    """

    data: bytes | None
    regions: Mapping[str, Region]


def encode_request(request: InferRequest, address: str) -> Message:
    """RejectedError if it is too large, or has a value that no message can hold."""
    try:
        raw: list[bytes | memoryview] = []
        described = []
        total = 0
        for name, datatype, shape, data, parameters in request.inputs:
            if isinstance(data, Region):
                continue
            size = data.nbytes if isinstance(data, memoryview) else len(data)
            raw += (_raw_field(size), data)
            total += size
            if not parameters:
                described.append((name, datatype, shape))
        if len(described) == len(request.inputs):
            head = _described_inputs(request.model, request.version, tuple(described))
        else:
            head = _inputs(request)
        rest, regions = _rest(request)
        if total + len(head) + len(rest) + 16 * len(raw) > MAX_MESSAGE_BYTES:
            raise request_error(
                "too_large",
                f"{address}: a request of {total} bytes; gRPC carries {MAX_MESSAGE_BYTES}; "
                "use shared memory, HTTP, or a smaller batch",
            )
        return Message(b"".join((head, rest, *raw)), regions)
    except (TypeError, ValueError) as error:  # a number over 64 bits, text that is no UTF-8
        raise request_error("invalid", f"{address}: cannot be sent: {error}") from error


def for_stream(message: Message) -> bytes:
    """The message, with the wish that the end of the answers be told."""
    return message.data + _TELL_THE_END


def decode_answer(answer: Answer, address: str) -> InferResponse:
    """ProtocolError if it is no ModelInferResponse."""
    return _response(parse(pb.ModelInferResponse, answer.data, address), answer.regions, address)


def decode_stream_answer(answer: Answer, address: str) -> InferResponse:
    """RequestError if it is, or carries, an error. The empty last answer has no outputs."""
    message = parse(pb.ModelStreamInferResponse, answer.data, address)
    if message.error_message:
        raise stream_failure(address, message.error_message)
    return _response(message.infer_response, answer.regions, address, is_final=False)


def parse(kind: Any, data: bytes | None, address: str) -> Any:
    """The message of class `kind` in `data`. ProtocolError if it is none.

    gRPC delivers None for an answer that says it is fine and has no message.
    """
    try:
        if data is not None:
            return kind.FromString(data)
    except DecodeError as error:
        raise _protocol_error(address, "the answer is no KServe v2 message") from error
    raise _protocol_error(address, "the answer has no message")


@lru_cache(256)
def _described_inputs(
    model: str, version: str, described: tuple[tuple[str, str, tuple[int, ...]], ...]
) -> bytes:
    """The part of the message that requests with inputs of the same shapes share."""
    message = pb.ModelInferRequest(model_name=model, model_version=version)
    for name, datatype, shape in described:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
    return bytes(message.SerializeToString())


def _inputs(request: InferRequest) -> bytes:
    """The same part for inputs that have parameters, or lie in shared memory."""
    message = pb.ModelInferRequest(model_name=request.model, model_version=request.version)
    for name, datatype, shape, data, parameters in request.inputs:
        entry = message.inputs.add(name=name, datatype=datatype, shape=shape)
        _put_parameters(entry.parameters, parameters)
        if isinstance(data, Region):
            _put_region(entry.parameters, data)
    return bytes(message.SerializeToString())


def _rest(request: InferRequest) -> tuple[bytes, dict[str, Region]]:
    """The message without its inputs, and the regions of its outputs."""
    parameters = request.parameters
    if not (request.outputs or request.id) and len(parameters) == 1 and "timeout" in parameters:
        return _timeout(parameters["timeout"]), {}
    message = pb.ModelInferRequest(id=request.id)
    _put_parameters(message.parameters, request.parameters)
    regions = _put_outputs(message, request.outputs)
    return bytes(message.SerializeToString()), regions


@lru_cache(256, typed=True)
def _timeout(value: Parameter) -> bytes:
    """What a request has that says nothing else than its timeout."""
    message = pb.ModelInferRequest()
    _put_parameters(message.parameters, {"timeout": value})
    return bytes(message.SerializeToString())


@lru_cache(1024)
def _raw_field(size: int) -> bytes:
    """What precedes one of the raw_input_contents: tag, and length in groups of 7 bits."""
    head = bytearray((_RAW_TAG,))
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


def _put_parameters(target: Any, values: Mapping[str, Parameter]) -> None:
    for name, value in values.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, str):
            target[name].string_param = value
        elif isinstance(value, float):
            target[name].double_param = value
        elif value >= 2**63:
            target[name].uint64_param = value
        else:
            target[name].int64_param = value


def _put_region(target: Any, region: Region) -> None:
    target[_REGION].string_param = region.name
    target[_REGION_SIZE].int64_param = region.byte_size
    if region.offset:
        target[_REGION_OFFSET].int64_param = region.offset


def _put_outputs(message: Any, outputs: Iterable[Wanted]) -> dict[str, Region]:
    regions = {}
    for name, classes, region in outputs:
        entry = message.outputs.add(name=name)
        if classes:
            entry.parameters[_CLASSES].int64_param = classes
        if region is not None:
            _put_region(entry.parameters, region)
            regions[name] = region
    return regions


def _response(
    message: Any, regions: Mapping[str, Region], address: str, is_final: bool = True
) -> InferResponse:
    """is_final: what an answer is that does not say."""
    # Slices: protobuf's containers are slow to iterate over.
    raw = message.raw_output_contents[:]
    entries = message.outputs[:]
    parameters = _parameters(message.parameters) if message.parameters else {}
    is_final = bool(parameters.pop(_FINAL, is_final)) if parameters else is_final
    outputs: list[Tensor] = []
    if len(raw) == len(entries) and not regions:  # nearly always
        for entry, data in zip(entries, raw, strict=True):
            outputs.append(Tensor(entry.name, entry.datatype, tuple(entry.shape[:]), data))
    else:
        outputs = _mixed_outputs(entries, raw, regions, address)
    return InferResponse(
        message.model_name,
        message.model_version,
        tuple(outputs),
        message.id,
        parameters,
        is_final,
    )


def _mixed_outputs(
    entries: list[Any], raw: list[bytes], regions: Mapping[str, Region], address: str
) -> list[Tensor]:
    """The outputs where some are in shared memory, or in the typed fields instead of raw.

    Triton has an empty raw one for each in shared memory; others need not.
    """
    read = [(entry, _parameters(entry.parameters)) for entry in entries]
    placed = [_region(entry, own, regions) for entry, own in read]
    on_wire = placed.count(None)
    if len(raw) not in (0, on_wire, len(placed)):
        raise _protocol_error(address, f"{len(raw)} tensors for {on_wire} outputs")
    if len(raw) == len(placed):
        chunks: list[bytes | None] = [*raw]
    else:
        rest = iter(raw)
        chunks = [next(rest, None) if region is None else b"" for region in placed]
    outputs = []
    for (entry, own), region, chunk in zip(read, placed, chunks, strict=True):
        data: bytes | memoryview | Region
        if region is not None:
            data = region
        else:
            data = chunk if chunk is not None else _typed(entry, address)
        outputs.append(Tensor(entry.name, entry.datatype, tuple(entry.shape), data, own))
    return outputs


def _region(
    entry: Any, parameters: dict[str, Parameter], regions: Mapping[str, Region]
) -> Region | None:
    """Where the output lies: as the answer says, else as the request wanted it; None if it is in
    the answer. As many bytes as it has, where its datatype tells.
    """
    name = parameters.pop(_REGION, None)
    size = parameters.pop(_REGION_SIZE, 0)
    offset = parameters.pop(_REGION_OFFSET, 0)
    region = regions.get(entry.name) if name is None else Region(str(name), int(size), int(offset))
    if region is None or entry.datatype not in _TYPED or entry.datatype == "BYTES":
        return region
    itemsize = data_type(entry.datatype).numpy.itemsize
    return region._replace(byte_size=math.prod(entry.shape) * itemsize)


def _typed(entry: Any, address: str) -> bytes | memoryview:
    """The raw bytes of an output that came in the typed fields."""
    try:
        dtype = data_type(entry.datatype)
        values = list(getattr(entry.contents, _TYPED[dtype.name]))
        if len(values) != math.prod(entry.shape):
            raise ValueError(f"{len(values)} elements of {math.prod(entry.shape)}")
        return to_bytes(np.array(values, dtype.numpy), dtype)
    except (KeyError, ValueError, OverflowError, ModelError) as error:
        raise _protocol_error(address, f"no data of output '{entry.name}': {error}") from error


def _parameters(values: Any) -> dict[str, Parameter]:
    read = {}
    for name, value in values.items():
        chosen = value.WhichOneof("parameter_choice")
        if chosen is not None:
            read[name] = getattr(value, chosen)
    return read


def _protocol_error(address: str, what: str) -> RequestError:
    return request_error("protocol", f"{address}: {what}; is it a Triton?")


def _tell_the_end() -> bytes:
    wish = pb.ModelInferRequest()
    wish.parameters["triton_enable_empty_final_response"].bool_param = True
    return bytes(wish.SerializeToString())


# Behind a message it adds to its parameters.
_TELL_THE_END = _tell_the_end()
