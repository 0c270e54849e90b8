"""KServe v2's gRPC messages, and gRPC's failures, without a server."""

from __future__ import annotations

import subprocess
import sys

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from tritonkit.client.operations import Operation
from tritonkit.client.transport import InferRequest, Region, Tensor, Wanted
from tritonkit.client.transports import grpc_codec
from tritonkit.client.transports.grpc_codec import (
    Answer,
    decode_answer,
    decode_stream_answer,
    encode_request,
    for_stream,
)
from tritonkit.client.transports.grpc_errors import failure, status_failure
from tritonkit.client.transports.grpc_operations import _CALLS, decode_call, encode_call
from tritonkit.errors import ProtocolError, RejectedError, RequestError

WHERE = "grpc://host:8001"
X = Tensor("x", "FP32", (1, 2), np.ones(2, np.float32).tobytes())


def encoded(*inputs: Tensor, **more: object) -> pb.ModelInferRequest:
    request = InferRequest("m", inputs, **more)  # type: ignore[arg-type]
    return pb.ModelInferRequest.FromString(encode_request(request, WHERE).data)


def decoded(message: pb.ModelInferResponse, **regions: Region):  # type: ignore[no-untyped-def]
    return decode_answer(Answer(message.SerializeToString(), regions), WHERE)


def response(*names: str) -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(model_name="m", model_version="1")
    for name in names:
        message.outputs.add(name=name, datatype="FP32", shape=(1,))
    return message


# Requests


def test_names_id_and_version() -> None:
    """Model, version and id are the request's."""
    message = encoded(X, version="3", id="i")
    assert (message.model_name, message.model_version, message.id) == ("m", "3", "i")


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_raw_inputs(chunks: list[bytes]) -> None:
    """Protobuf reads back the raw inputs, of any length and in their order."""
    tensors = [Tensor(f"t{k}", "UINT8", (len(c),), c) for k, c in enumerate(chunks)]
    message = encoded(*tensors)
    assert list(message.raw_input_contents) == chunks
    assert [tuple(entry.shape) for entry in message.inputs] == [t.shape for t in tensors]


def test_a_large_raw_input() -> None:
    """A length of several bytes is written as protobuf writes it."""
    data = bytes(3_000_000)
    assert encoded(Tensor("t", "UINT8", (len(data),), data)).raw_input_contents[0] == data


def test_a_view_is_taken_as_it_is() -> None:
    """A memoryview of whatever items goes as its bytes."""
    array = np.arange(4, dtype=np.int64)
    message = encoded(Tensor("t", "INT64", (4,), memoryview(array)))
    assert message.raw_input_contents[0] == array.tobytes()


@pytest.mark.parametrize(
    ("value", "field"),
    [
        *((True, "bool_param"), (1, "int64_param"), (2**63, "uint64_param")),
        *((0.5, "double_param"), ("s", "string_param")),
    ],
)
def test_parameters(value: bool | int | float | str, field: str) -> None:
    """Each type of parameter has its own field, on requests and on inputs."""
    message = encoded(X._replace(parameters={"p": value}), parameters={"p": value})
    for found in (message.parameters["p"], message.inputs[0].parameters["p"]):
        assert found.WhichOneof("parameter_choice") == field
        assert getattr(found, field) == value


def test_an_input_in_shared_memory() -> None:
    """An input in a region has no raw bytes, so those of the others keep their order."""
    message = encoded(X._replace(name="r", data=Region("reg", 8, 16)), X)
    assert list(message.raw_input_contents) == [X.data]
    values = message.inputs[0].parameters
    assert values["shared_memory_region"].string_param == "reg"
    assert values["shared_memory_byte_size"].int64_param == 8
    assert values["shared_memory_offset"].int64_param == 16


def test_wanted_outputs() -> None:
    """Outputs are asked for by name, as classes, or into a region."""
    wanted = (Wanted("a"), Wanted("b", classes=3), Wanted("c", region=Region("reg", 8)))
    message = encoded(X, outputs=wanted)
    assert [output.name for output in message.outputs] == ["a", "b", "c"]
    assert message.outputs[1].parameters["classification"].int64_param == 3
    assert set(message.outputs[2].parameters) == {
        *("shared_memory_region", "shared_memory_byte_size")
    }


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """What protobuf cannot hold is refused with the remedy."""
    monkeypatch.setattr(grpc_codec, "MAX_MESSAGE_BYTES", 1000)
    with pytest.raises(RejectedError, match="1000; use shared memory") as caught:
        encoded(Tensor("t", "UINT8", (990,), bytes(990)))
    assert caught.value.kind == "too_large"


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800"])
def test_values_that_no_message_holds(value: int | str) -> None:
    """A number over 64 bits and text that is no UTF-8 are invalid."""
    with pytest.raises(RejectedError) as caught:
        encoded(X, parameters={"p": value})
    assert caught.value.kind == "invalid"


def test_a_streams_request() -> None:
    """In a stream the request asks for the end to be told, and is the same otherwise."""
    request = encode_request(InferRequest("m", (X,), parameters={"p": 1}), WHERE)
    message = pb.ModelInferRequest.FromString(for_stream(request))
    assert message.parameters["triton_enable_empty_final_response"].bool_param
    assert (message.parameters["p"].int64_param, message.raw_input_contents[0]) == (1, X.data)


# Answers


def test_raw_outputs() -> None:
    """Outputs have the raw bytes at their place."""
    message = response("a", "b")
    message.raw_output_contents.extend([b"aaaa", b"bbbb"])
    assert [(t.name, t.data) for t in decoded(message).outputs] == [("a", b"aaaa"), ("b", b"bbbb")]


@pytest.mark.parametrize("raw", [[b"", b"bbbb"], [b"bbbb"]])
def test_outputs_in_shared_memory(raw: list[bytes]) -> None:
    """With or without an empty raw one for each in a region, the others have their own."""
    message = response("a", "b")
    message.raw_output_contents.extend(raw)
    found = decoded(message, a=Region("reg", 100, 16))
    assert [t.data for t in found.outputs] == [Region("reg", 4, 16), b"bbbb"]


def test_a_region_that_the_answer_names() -> None:
    """A region in the answer's own parameters counts, and is none of the output's parameters."""
    message = response("a")
    message.outputs[0].parameters["shared_memory_region"].string_param = "reg"
    message.outputs[0].parameters["shared_memory_byte_size"].int64_param = 4
    message.outputs[0].parameters["other"].int64_param = 1
    (output,) = decoded(message).outputs
    assert (output.data, output.parameters) == (Region("reg", 4), {"other": 1})


TYPED = [
    ("BOOL", "bool_contents", [True, False], np.bool_),
    ("INT8", "int_contents", [-1, 2], np.int8),
    ("INT64", "int64_contents", [-1, 2**40], np.int64),
    ("UINT16", "uint_contents", [1, 65535], np.uint16),
    ("UINT64", "uint64_contents", [1, 2**63], np.uint64),
    ("FP32", "fp32_contents", [0.5, 2], np.float32),
    ("FP64", "fp64_contents", [0.1, 2], np.float64),
]


@pytest.mark.parametrize(("datatype", "field", "values", "dtype"), TYPED)
def test_typed_outputs(datatype: str, field: str, values: list, dtype: type) -> None:
    """Outputs in the typed fields become raw bytes."""
    message = pb.ModelInferResponse()
    getattr(message.outputs.add(name="a", datatype=datatype, shape=(2,)).contents, field)[:] = (
        values
    )
    assert bytes(decoded(message).outputs[0].data) == np.array(values, dtype).tobytes()


def test_typed_bytes() -> None:
    """Typed BYTES get their lengths."""
    message = pb.ModelInferResponse()
    entry = message.outputs.add(name="a", datatype="BYTES", shape=(2,))
    entry.contents.bytes_contents[:] = [b"ab", b""]
    assert decoded(message).outputs[0].data == b"\2\0\0\0ab\0\0\0\0"


def test_answers_that_do_not_add_up() -> None:
    """Too few, too many or no data at all, and what is no message, are no KServe v2."""
    few, many, none, half = response("a", "b"), response("a"), response("a"), response("a")
    few.raw_output_contents.append(b"aaaa")
    many.raw_output_contents.extend([b"aaaa", b"bbbb"])
    half.outputs[0].datatype = "NO16"
    answers = [Answer(m.SerializeToString(), {}) for m in (few, many, none, half)]
    for answer in (*answers, Answer(b"\xff\xff", {}), Answer(None, {})):
        with pytest.raises(ProtocolError):
            decode_answer(answer, WHERE)


@pytest.mark.parametrize("final", [True, False, None])
def test_the_last_answer_of_a_stream(final: bool | None) -> None:
    """An answer of a stream is the last one if it says so; that is no parameter of it."""
    message = pb.ModelStreamInferResponse()
    message.infer_response.parameters["p"].int64_param = 1
    if final is not None:
        message.infer_response.parameters["triton_final_response"].bool_param = final
    found = decode_stream_answer(Answer(message.SerializeToString(), {}), WHERE)
    assert (found.is_final, found.parameters) == (bool(final), {"p": 1})


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Request for unknown model: 'nix' is not found", "not_found"),
        ("[request id: 1] input byte size mismatch for input 'x'", "invalid"),
        ("[request id: 1] Exceeds maximum queue size", "unavailable"),
        ("Traceback:\n  it broke", "failed"),
    ],
)
def test_an_error_in_a_stream(text: str, kind: str) -> None:
    """The words of a stream's error tell its kind; they come in one line."""
    data = pb.ModelStreamInferResponse(error_message=text).SerializeToString()
    with pytest.raises(RequestError) as caught:
        decode_stream_answer(Answer(data, {}), WHERE)
    assert (caught.value.kind, "\n" in str(caught.value)) == (kind, False)


# Operations


def test_every_operation_is_in_the_table() -> None:
    """No operation lacks its gRPC call, and each call is one of the service's."""
    methods = {m.name for m in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
    assert set(_CALLS) == set(Operation)
    assert {call.method for call in _CALLS.values()} <= methods


def test_files_are_named_as_such() -> None:
    """LOAD's files go under the prefix that Triton knows them by."""
    what = {"model": "m", "config": "{}", "files": {"1/model.onnx": b"x"}}
    message = pb.RepositoryModelLoadRequest.FromString(encode_call(Operation.LOAD, what, WHERE))
    assert set(message.parameters) == {"config", "file:1/model.onnx"}


def test_an_operations_answer_that_is_none() -> None:
    """What is no message is no answer to an operation either."""
    with pytest.raises(ProtocolError):
        decode_call(Operation.SERVER, b"\xff\xff", WHERE)


# Failures


@pytest.mark.parametrize("code", list(StatusCode))
def test_every_status_has_a_kind(code: StatusCode) -> None:
    """No status of gRPC is left without a kind and a reason."""
    error = status_failure(WHERE, code, "")
    assert str(error).startswith(f"{WHERE}: ") and len(str(error)) > len(WHERE) + 5


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("UNAVAILABLE", "Exceeds maximum queue size", "unavailable"),
        ("UNAVAILABLE", "Stream removed (Socket closed)", "closed"),
        ("UNAVAILABLE", "Stream removed (GOAWAY received; Error code: 0; Debug Text: )", "closed"),
        ("UNAVAILABLE", "keepalive watchdog timeout", "closed"),
        ("UNAVAILABLE", "failed to connect to all addresses", "refused"),
        ("UNAVAILABLE", "DNS resolution failed for nix: no such host", "refused"),
        ("INTERNAL", "Stream removed (Failed parsing HTTP/2 (Frame size 1 is …))", "protocol"),
        ("INTERNAL", "python: Socket closed", "failed"),
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (9 vs. 4)", "too_large"),
        ("RESOURCE_EXHAUSTED", "Concurrent RPC limit exceeded!", "unavailable"),
        ("CANCELLED", "Channel closed!", "closed"),
        ("CANCELLED", "Locally cancelled by application!", "cancelled"),
        ("UNAUTHENTICATED", "no token", "unauthenticated"),
        ("PERMISSION_DENIED", "not yours", "forbidden"),
        ("ALREADY_EXISTS", "region 'r' already in manager", "invalid"),
    ],
)
def test_words_tell_the_kind(code: str, details: str, kind: str) -> None:
    """Where the status leaves open who failed, the words tell."""
    assert status_failure(WHERE, StatusCode[code], details).kind == kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("Cannot invoke RPC on closed channel!"), "closed"),
        (grpc.FutureCancelledError(), "cancelled"),
        (RuntimeError("what\nis this"), "closed"),
    ],
)
def test_whatever_grpc_raises(error: Exception, kind: str) -> None:
    """Nothing that grpc may raise is left foreign."""
    found = failure(WHERE, error)
    assert (found.kind, "\n" in str(found)) == (kind, False)


def test_the_contract_does_not_import_grpc() -> None:
    """Who only needs the values and protocols does not pay for grpc."""
    code = "import sys, tritonkit.client.transport; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
