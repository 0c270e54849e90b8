"""The HTTP codec: requests as Triton reads them, answers as it and others write them."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import zlib

import numpy as np
import pytest

from tritonkit.client.operations import Operation
from tritonkit.client.transport import InferRequest, Region, Tensor, Wanted
from tritonkit.client.transports.connection import HttpAnswer, NotHttpError, check_headers
from tritonkit.client.transports.http_codec import (
    check_status,
    decode_infer,
    decompress,
    encode_infer,
    failure,
)
from tritonkit.client.transports.http_operations import decode_operation, encode_operation
from tritonkit.errors import InputError, ProtocolError, RejectedError, RequestError
from tritonkit.server.kserve import decode_request

X = Tensor("x", "FP32", (1, 2), np.array([1, 2], np.float32).tobytes())
WHERE = "http://there:8000"


def header_and_rest(request):
    """The JSON of an encoded request, and the bytes after it."""
    body = b"".join(request.body)
    split = int(request.headers.get("Inference-Header-Content-Length", len(body)))
    return json.loads(body[:split]), body[split:]


def answer(body, *, status=200, **headers):
    """An answer; headers with _ for -. A dict as body is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpAnswer(status, {k.replace("_", "-"): v for k, v in headers.items()}, raw)


def binary_answer(outputs, data=b"", **more):
    """An answer to an inference with `data` after its header."""
    header = json.dumps({"model_name": "m", "model_version": "1", "outputs": outputs, **more})
    split = str(len(header))
    return answer(header.encode() + data, inference_header_content_length=split)


def test_the_servers_side_reads_what_is_encoded():
    """The kit's own server finds the same tensors, id and outputs in an encoded request."""
    request = encode_infer(InferRequest("m", (X,), outputs=(Wanted("y"),), id="7"))
    assert request.path == "/v2/models/m/infer" and request.method == "POST"
    split = request.headers["Inference-Header-Content-Length"]
    found = decode_request(b"".join(request.body), split)
    np.testing.assert_array_equal(found.inputs["x"], [[1, 2]])
    assert found.id == "7" and found.outputs == {"y": True}


def test_all_outputs_are_binary_when_none_is_named():
    """A request that names no outputs asks for all of them in binary."""
    header, _ = header_and_rest(encode_infer(InferRequest("m", (X,))))
    assert header["parameters"] == {"binary_data_output": True} and "outputs" not in header


def test_parameters_of_requests_and_tensors():
    """Parameters go where KServe has them, those of a tensor beside the size of its data."""
    tensor = X._replace(parameters={"a": True})
    request = InferRequest("m", (tensor,), outputs=(Wanted("y"),), parameters={"priority": 3})
    header, _ = header_and_rest(encode_infer(request))
    assert header["parameters"] == {"priority": 3}
    assert header["inputs"][0]["parameters"] == {"a": True, "binary_data_size": 8}


def test_regions():
    """Tensors in shared memory send only where they lie, and no header length is needed."""
    request = InferRequest(
        "m",
        (X._replace(data=Region("in", 8)),),
        outputs=(Wanted("y", region=Region("out", 16, 32)),),
    )
    encoded = encode_infer(request)
    header, rest = header_and_rest(encoded)
    assert "Inference-Header-Content-Length" not in encoded.headers and not rest
    assert header["inputs"][0]["parameters"] == {
        "shared_memory_region": "in",
        "shared_memory_byte_size": 8,
    }
    assert header["outputs"][0]["parameters"] == {
        "shared_memory_region": "out",
        "shared_memory_byte_size": 16,
        "shared_memory_offset": 32,
    }


@pytest.mark.parametrize(
    ("model", "version", "path"),
    [
        ("m", "", "/v2/models/m/infer"),
        ("m", "3", "/v2/models/m/versions/3/infer"),
        ("a b/ü?#%", "1", "/v2/models/a%20b%2F%C3%BC%3F%23%25/versions/1/infer"),
    ],
)
def test_paths(model, version, path):
    """The path names the version if there is one, and quotes what a path cannot hold."""
    assert encode_infer(InferRequest(model, (X,), version=version)).path == path


def test_large_tensors_are_not_copied():
    """A large tensor is a part of the body as it is; small ones are joined with the header."""
    data = memoryview(np.zeros(1 << 20, np.uint8))
    large = encode_infer(InferRequest("m", (Tensor("x", "UINT8", (1 << 20,), data),)))
    assert large.body[1] is data
    assert len(encode_infer(InferRequest("m", (X,))).body) == 1
    assert int(large.headers["Content-Length"]) == sum(map(len, large.body))


def test_views_of_other_types_are_sent_as_bytes():
    """A view of floats counts its bytes, not its elements."""
    view = memoryview(np.ones((1, 2), np.float32))
    header, rest = header_and_rest(encode_infer(InferRequest("m", (X._replace(data=view),))))
    assert header["inputs"][0]["parameters"]["binary_data_size"] == len(rest) == 8


@pytest.mark.parametrize("parameters", [{"a": float("nan")}, {"a": object()}])
def test_parameters_that_json_cannot_hold(parameters):
    """A parameter that JSON cannot hold is the caller's mistake, with the kind for it."""
    with pytest.raises(RejectedError) as raised:
        encode_infer(InferRequest("m", (X,), parameters=parameters))
    assert raised.value.kind == "invalid"


@pytest.mark.parametrize(
    ("name", "undo"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)]
)
def test_compression(name, undo):
    """A compressed request says so; its header length is that of the JSON before."""
    plain = encode_infer(InferRequest("m", (X,)))
    packed = encode_infer(InferRequest("m", (X,)), name)
    assert undo(packed.body[0]) == plain.body[0]
    assert packed.headers["Content-Encoding"] == packed.headers["Accept-Encoding"] == name
    assert int(packed.headers["Content-Length"]) == len(packed.body[0])
    length = "Inference-Header-Content-Length"
    assert packed.headers[length] == plain.headers[length]


def test_only_requests_of_sequences_must_not_run_twice():
    """A request may be sent again unless it belongs to a sequence."""
    assert encode_infer(InferRequest("m", (X,))).repeatable
    assert not encode_infer(InferRequest("m", (X,), parameters={"sequence_id": 1})).repeatable


Y = {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}


def test_binary_outputs():
    """Binary outputs are read-only views of the answer, in the header's order."""
    outputs = [Y, {**Y, "name": "z", "parameters": {"binary_data_size": 8, "k": 5}}]
    data = np.array([1, 2, 3, 4], np.float32).tobytes()
    found = decode_infer(WHERE, binary_answer(outputs, data, id="i", parameters={"p": 1}))
    assert (found.model, found.version, found.id, found.parameters) == ("m", "1", "i", {"p": 1})
    assert [bytes(t.data) for t in found.outputs] == [data[:8], data[8:]]
    assert found.outputs[0].data.readonly and found.outputs[1].parameters == {"k": 5}


@pytest.mark.parametrize(
    ("datatype", "data", "shape", "raw"),
    [
        ("FP32", [[1, 2]], [1, 2], np.array([1, 2], np.float32).tobytes()),
        ("FP16", [0.5], [1], np.array([0.5], np.float16).tobytes()),
        ("BOOL", [True, False], [2], b"\1\0"),
        ("INT64", [1 << 60], [1], (1 << 60).to_bytes(8, "little")),
        ("BYTES", ["é", ""], [2, 1], b"\2\0\0\0" + "é".encode() + b"\0\0\0\0"),
        ("FP32", [], [0, 2], b""),
    ],
)
def test_json_outputs(datatype, data, shape, raw):
    """An output that came as JSON is the same raw bytes as a binary one."""
    output = {"name": "y", "datatype": datatype, "shape": shape, "data": data}
    (tensor,) = decode_infer(WHERE, answer({"outputs": [output]})).outputs
    assert bytes(tensor.data) == raw and tensor.shape == tuple(shape)


def test_an_output_in_shared_memory():
    """An output that the server put into shared memory says where it is."""
    parameters = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    found = decode_infer(WHERE, answer({"outputs": [{**Y, "parameters": parameters}]}))
    assert found.outputs[0].data == Region("r", 8) and found.outputs[0].parameters == {}


@pytest.mark.parametrize(
    "given",
    [
        answer(b""),
        answer(b"hello"),
        answer(b"\xff\xfe"),
        answer(b"[" * 100_000),
        answer([]),
        answer({}),
        answer({"outputs": 7}),
        answer({"outputs": []}),
        answer({"outputs": [7]}),
        answer({"outputs": [{**Y, "name": 7}]}),
        answer({"outputs": [Y]}),
        answer({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}]}),
        answer({"outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1]}]}),
        answer({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": ["a"]}]}),
        answer({"outputs": [{"name": "y", "datatype": "INT8", "shape": [1], "data": [300]}]}),
        answer({"outputs": [{"name": "y", "datatype": "BYTES", "shape": [1], "data": [3]}]}),
        answer({"outputs": [{"name": "y", "datatype": "FP9", "shape": [1], "data": [3]}]}),
        binary_answer([Y], b"1234567"),
        binary_answer([Y], b"123456789"),
        binary_answer([{**Y, "shape": [1, 3]}], b"12345678"),
        binary_answer([{**Y, "shape": [-1, 2]}], b"12345678"),
        binary_answer([{**Y, "shape": ["1", 2]}], b"12345678"),
        binary_answer([{**Y, "parameters": {"binary_data_size": -8}}], b"12345678"),
        binary_answer([{**Y, "parameters": {"binary_data_size": "8"}}], b"12345678"),
        binary_answer([{**Y, "parameters": {"shared_memory_region": "r"}}]),
        answer(b"{}", inference_header_content_length="many"),
        answer(b"{}", inference_header_content_length="3"),
        answer(b"{}", inference_header_content_length="-1"),
    ],
)
def test_no_inference_answer(given):
    """What is no consistent answer to an inference is `protocol`, in one short line."""
    with pytest.raises(ProtocolError, match=WHERE) as raised:
        decode_infer(WHERE, given)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((400, "invalid"), (401, "unauthenticated"), (403, "forbidden"), (404, "not_found")),
        *((405, "invalid"), (408, "timeout"), (409, "invalid"), (411, "invalid")),
        *((413, "too_large"), (415, "unsupported"), (418, "invalid"), (422, "invalid")),
        *((429, "unavailable"), (500, "failed"), (501, "unsupported"), (502, "closed")),
        *((503, "unavailable"), (504, "timeout"), (507, "failed")),
        *((204, "protocol"), (302, "protocol"), (700, "protocol")),
    ],
)
def test_status(status, kind):
    """Each status has its kind, and the message the server's own words."""
    with pytest.raises(RequestError, match="there is none") as raised:
        check_status(WHERE, answer({"error": "there is none"}, status=status))
    assert raised.value.kind == kind


@pytest.mark.parametrize("body", [b"", b"<b>\ngone\x1b[1m</b>" * 40, b'{"error": "a\\nb"}', b"[1]"])
def test_a_reason_is_one_short_line(body):
    """A page, nothing, or many lines as the reason still make a message of one short line."""
    with pytest.raises(RequestError) as raised:
        check_status(WHERE, answer(body, status=404))
    assert str(raised.value).isprintable() and len(str(raised.value)) < 400


def test_a_page_is_no_answer():
    """A web page with status 200 is `protocol`, and the message says what to look for."""
    with pytest.raises(ProtocolError, match="HTTP port"):
        check_status(WHERE, answer(b"<html>", content_type="text/html; charset=utf-8"))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_decompress(encoding):
    """A compressed answer is read as it was before."""
    packed = gzip.compress(b"abc", mtime=0) if encoding == "gzip" else zlib.compress(b"abc")
    given = answer(packed, content_encoding=encoding)
    assert decompress(WHERE, given).body == b"abc"


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(b"junk", "gzip"), (gzip.compress(b"a" * 99, mtime=0)[:-9], "gzip"), (b"", "br")],
)
def test_no_compressed_answer(body, encoding):
    """An answer that is not what its encoding says is `protocol`."""
    with pytest.raises(ProtocolError):
        decompress(WHERE, answer(body, content_encoding=encoding))


ALERT = ssl.SSLError(1, "x")
ALERT.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"


@pytest.mark.parametrize(
    ("error", "sent", "kind"),
    [
        (TimeoutError(), True, "timeout"),
        (NotHttpError("no"), True, "protocol"),
        (socket.gaierror(-2, "unknown"), False, "refused"),
        (UnicodeError("label too long"), False, "refused"),
        (ConnectionRefusedError(), False, "refused"),
        (OSError(113, "No route to host"), False, "refused"),
        (ConnectionResetError(), False, "refused"),
        (ConnectionResetError(), True, "closed"),
        (BrokenPipeError(), True, "closed"),
        (ssl.SSLEOFError(), True, "closed"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), False, "protocol"),
        (ALERT, True, "unauthenticated"),
    ],
)
def test_failures(error, sent, kind):
    """Each error of sockets, TLS or HTTP has its kind; without a connection nothing was sent."""
    assert failure(WHERE, error, sent=sent).kind == kind


@pytest.mark.parametrize(
    "headers",
    [
        *({"a": "b\r\nc: d"}, {"a": "b\n"}, {"a\n": "b"}, {"": "b"}, {"a b": "c"}, {"a": "\0"}),
        *({"a": "\u20ac"}, {"a": 7}, {"Content-Length": "1"}, {"transfer-encoding": "chunked"}),
    ],
)
def test_headers_that_cannot_be_sent(headers):
    """A header that would break the request, or is the client's own, is the user's mistake."""
    with pytest.raises(InputError):
        check_headers(headers)


def test_headers_that_can_be_sent():
    """Tokens, texts with blanks and letters of Latin-1 are fine."""
    check_headers({"Authorization": "Bearer a.b-c=", "x-name": "Jos\xe9 B", "Host": "h"})


def asked(operation, **arguments):
    """Method, path and JSON of an operation's request."""
    request = encode_operation(operation, arguments)
    return request.method, request.path, json.loads(b"".join(request.body) or b"null")


def test_load_carries_config_and_files():
    """LOAD sends the config as it is and files in base64, as Triton's extension has them."""
    method, path, body = asked(Operation.LOAD, model="m", config="{}", files={"1/a": b"\0\1"})
    assert (method, path) == ("POST", "/v2/repository/models/m/load")
    assert body == {"parameters": {"config": "{}", "file:1/a": "AAE="}}


def test_trace_settings_are_texts():
    """TRACE sends numbers as texts, which is all that Triton takes, and None as a reset."""
    settings = {"trace_rate": 5, "trace_level": ["OFF"], "trace_count": None}
    assert asked(Operation.TRACE, model="m", settings=settings) == (
        "POST",
        "/v2/models/m/trace/setting",
        {"trace_rate": "5", "trace_level": ["OFF"], "trace_count": None},
    )
    assert asked(Operation.TRACE, model="", settings={}) == ("GET", "/v2/trace/setting", None)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ü", "a%b"])
def test_region_names_that_triton_would_not_find_again(name):
    """A region's name that a path has to quote is refused: Triton would keep the quoted one."""
    with pytest.raises(RejectedError):
        asked(Operation.REGISTER, name=name, key="/k", byte_size=1, offset=0)


def test_absent_keys_are_filled():
    """Keys that a server leaves out are there, empty or zero."""
    index = decode_operation(WHERE, Operation.INDEX, answer([{"name": "m"}]))
    assert index == [{"name": "m", "version": "", "state": "", "reason": ""}]
    server = decode_operation(WHERE, Operation.SERVER, answer({"name": "s"}))
    assert server == {"name": "s", "version": "", "extensions": []}


@pytest.mark.parametrize(("status", "ready"), [(200, True), (400, False), (503, False)])
def test_readiness(status, ready):
    """Whether a server or a model is ready is a bool, however the server says so."""
    for operation in (Operation.LIVE, Operation.READY, Operation.MODEL_READY):
        assert decode_operation(WHERE, operation, answer(b"", status=status)) is ready


def test_an_unknown_model_is_not_ready_and_an_unknown_server_is_no_triton():
    """404 means not ready for a model; for a server it means that this is none."""
    missing = answer(b"", status=404)
    assert decode_operation(WHERE, Operation.MODEL_READY, missing) is False
    with pytest.raises(RequestError):
        decode_operation(WHERE, Operation.LIVE, missing)


@pytest.mark.parametrize("operation", [o for o in Operation if "ready" not in o.value])
@pytest.mark.parametrize("body", [b"hello", b"7", b"[7]", b'{"name": 7, "model_stats": 7}'])
def test_no_operations_answer(operation, body):
    """What is no answer to an operation is `protocol`, if it answers anything."""
    silent = (Operation.LIVE, Operation.LOAD, Operation.UNLOAD)
    if operation in (*silent, Operation.REGISTER, Operation.UNREGISTER):
        assert decode_operation(WHERE, operation, answer(body)) in (None, True)
    elif operation in (Operation.CONFIG, Operation.TRACE, Operation.LOG) and body[:1] == b"{":
        assert decode_operation(WHERE, operation, answer(body)) == json.loads(body)
    else:
        with pytest.raises(ProtocolError):
            decode_operation(WHERE, operation, answer(body))
