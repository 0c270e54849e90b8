"""KServe v2 bodies against tritonclient's own, and the baseline that speaks it."""

import asyncio
import json

import numpy as np
import onnx
import onnx.parser
import pytest
import tritonclient.http as triton_http
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from tritonkit.errors import InputError
from tritonkit.repository.layout import model_file, read_config
from tritonkit.repository.package import Settings, package_model
from tritonkit.server.baseline_app import Baseline, build_app
from tritonkit.server.kserve import HEADER_LENGTH, decode_request, encode_response
from tritonkit.signature import DATA_TYPES, data_type_of

NAMES = [d.name for d in DATA_TYPES]


def some(dtype: str) -> np.ndarray:
    """A 2×3 array of the dtype, with its extreme values."""
    kind = next(d.numpy for d in DATA_TYPES if d.name == dtype)
    if dtype == "BYTES":
        return np.array([[b"", b"a", "é".encode()], [b"x" * 300, b"\0", b"end\0"]], dtype=object)
    if kind.kind == "f":
        limits = np.finfo(kind)
        values = [0, -1.5, limits.max, limits.min, limits.tiny, 0.1]
    elif kind.kind == "b":
        values = [True, False, True, True, False, False]
    else:
        limits = np.iinfo(kind)
        values = [0, 1, limits.max, limits.min, 7, limits.max - 1]
    return np.array(values, dtype=kind).reshape(2, 3)


def body_of(inputs, *, binary=True, outputs=None, request_id="") -> tuple[bytes, str | None]:
    """The body and header length that tritonclient itself makes."""
    tensors = []
    for name, array in inputs.items():
        tensors.append(triton_http.InferInput(name, list(array.shape), data_type_of(array).name))
        tensors[-1].set_data_from_numpy(array, binary_data=binary)
    body, length = triton_http.InferenceServerClient.generate_request_body(
        tensors, outputs=outputs, request_id=request_id
    )
    return bytes(body), None if length is None else str(length)


def same(got: np.ndarray, expected: np.ndarray) -> bool:
    """Equal in dtype, shape and every value; text that came as JSON is str, compared as UTF-8."""
    if got.dtype == object:
        texts = [v.encode() if isinstance(v, str) else v for v in got.ravel().tolist()]
        return got.shape == expected.shape and texts == expected.ravel().tolist()
    return (
        got.dtype == expected.dtype
        and got.shape == expected.shape
        and got.tolist() == expected.tolist()
    )


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", NAMES)
def test_decode(dtype, binary):
    """What tritonclient sends in any dtype, binary or JSON, is decoded to the same array."""
    request = decode_request(*body_of({"x": some(dtype)}, binary=binary))
    assert same(request.inputs["x"], some(dtype))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", NAMES)
def test_encode(dtype, binary):
    """What is encoded in any dtype, binary or JSON, tritonclient parses to the same array."""
    outputs = [triton_http.InferRequestedOutput("y", binary_data=binary)]
    request = decode_request(*body_of({"x": some(dtype)}, outputs=outputs))
    body, length = encode_response("m", request, {"y": some(dtype)})
    assert (length is not None) == binary
    result = triton_http.InferenceServerClient.parse_response_body(body, header_length=length)
    assert same(result.as_numpy("y"), some(dtype))
    assert result.get_response()["model_name"] == "m"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", ["FP32", "BYTES"])
def test_no_elements(dtype, binary):
    """An array without elements goes both ways."""
    empty = some(dtype)[:0]
    outputs = [triton_http.InferRequestedOutput("y", binary_data=binary)]
    request = decode_request(*body_of({"x": empty}, binary=binary, outputs=outputs))
    assert same(request.inputs["x"], empty)
    body, length = encode_response("m", request, {"y": empty})
    result = triton_http.InferenceServerClient.parse_response_body(body, header_length=length)
    assert same(result.as_numpy("y"), empty)


def test_several_tensors():
    """Several binary tensors come in the order of the header, each with its own bytes."""
    inputs = {name: some(name) for name in ("FP16", "BYTES", "INT64", "BOOL")}
    request = decode_request(*body_of(inputs))
    assert all(same(request.inputs[name], array) for name, array in inputs.items())
    wanted = [triton_http.InferRequestedOutput(n, binary_data=n != "INT64") for n in inputs]
    request = decode_request(*body_of(inputs, outputs=wanted))
    body, length = encode_response("m", request, inputs)
    result = triton_http.InferenceServerClient.parse_response_body(body, header_length=length)
    assert all(same(result.as_numpy(name), array) for name, array in inputs.items())
    assert "data" in result.get_output("INT64")


def test_binary_and_json_inputs():
    """Binary and JSON inputs may come in one request."""
    x = triton_http.InferInput("x", [2, 3], "INT32")
    x.set_data_from_numpy(some("INT32"), binary_data=False)
    y = triton_http.InferInput("y", [2, 3], "FP64")
    y.set_data_from_numpy(some("FP64"), binary_data=True)
    body, length = triton_http.InferenceServerClient.generate_request_body([x, y])
    request = decode_request(bytes(body), str(length))
    assert same(request.inputs["x"], some("INT32"))
    assert same(request.inputs["y"], some("FP64"))


def test_id():
    """A request's id comes back in the answer; without one there is none."""
    for request_id in ("seven", ""):
        request = decode_request(*body_of({"x": some("FP32")}, request_id=request_id))
        assert request.id == request_id
        body, length = encode_response("m", request, {})
        assert length is None
        assert json.loads(body).get("id", "") == request_id
        assert ("id" in json.loads(body)) == bool(request_id)


def test_wanted_outputs():
    """The outputs that were asked for are known, each with the form it was asked in."""
    outputs = [
        triton_http.InferRequestedOutput("a", binary_data=True),
        triton_http.InferRequestedOutput("b", binary_data=False),
    ]
    assert decode_request(*body_of({"x": some("FP32")}, outputs=outputs)).outputs == {
        "a": True,
        "b": False,
    }


def test_default_output_form():
    """Outputs that were not named come binary if the request says so, else as JSON."""
    plain = json.dumps({"inputs": []}).encode()
    binary = json.dumps({"inputs": [], "parameters": {"binary_data_output": True}}).encode()
    assert encode_response("m", decode_request(plain, None), {"y": some("FP32")})[1] is None
    assert encode_response("m", decode_request(binary, None), {"y": some("FP32")})[1] is not None


def test_text_outputs():
    """Text outputs, which ONNX Runtime gives as str, are sent as UTF-8 bytes."""
    texts = np.array(["é", ""], dtype=object)
    request = decode_request(*body_of({"x": some("FP32")}))
    body, length = encode_response("m", request, {"y": texts})
    result = triton_http.InferenceServerClient.parse_response_body(body, header_length=length)
    assert result.as_numpy("y").tolist() == ["é".encode(), b""]


def test_output_that_is_not_contiguous():
    """A transposed output is sent in the order that its shape says."""
    request = decode_request(*body_of({"x": some("FP32")}))
    body, length = encode_response("m", request, {"y": some("INT16").T})
    result = triton_http.InferenceServerClient.parse_response_body(body, header_length=length)
    assert same(result.as_numpy("y"), some("INT16").T)


def refused(body: bytes, length: str | None = None) -> str:
    """What decode_request says to it, in one line."""
    with pytest.raises(InputError) as caught:
        decode_request(body, length)
    assert "\n" not in str(caught.value)
    return str(caught.value)


GOOD = {"name": "x", "shape": [2], "datatype": "INT32", "data": [1, 2]}


@pytest.mark.parametrize(
    "tensor",
    [
        {k: v for k, v in GOOD.items() if k != "name"},
        {k: v for k, v in GOOD.items() if k != "shape"},
        {k: v for k, v in GOOD.items() if k != "datatype"},
        {k: v for k, v in GOOD.items() if k != "data"},
        GOOD | {"datatype": "BF16"},
        GOOD | {"datatype": ["INT32"]},
        GOOD | {"shape": [3]},
        GOOD | {"shape": "2"},
        GOOD | {"data": [1, [2]]},
        GOOD | {"data": ["a", "b"]},
        GOOD | {"data": [1, 2**40]},
        GOOD | {"datatype": "BYTES"},
        GOOD | {"parameters": {"binary_data_size": 4}},
        GOOD | {"parameters": {"binary_data_size": "4"}},
        GOOD | {"parameters": {"binary_data_size": -1}},
        GOOD | {"parameters": []},
        "x",
        None,
    ],
)
def test_bad_tensor(tensor):
    """A tensor that lacks something or does not fit itself is refused."""
    assert refused(json.dumps({"inputs": [tensor]}).encode())


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"3", b"null", b'{"inputs": 3}', b'{"inputs": "x"}', b"\xff", b"[" * 10**5],
    ids=repr,
)
def test_bad_body(body):
    """A body that is no request is refused."""
    assert refused(body).startswith("not a KServe v2 inference request: ")


@pytest.mark.parametrize("length", ["x", "", "1e3", "3", "-3"])
def test_bad_header_length(length):
    """A header length that is no number, or not the header's, is refused."""
    body, _ = body_of({"x": some("FP32")})
    assert refused(body, length)


def test_bytes_left_over():
    """Bytes that no input declares are refused with their count."""
    body, length = body_of({"x": some("FP32")})
    assert refused(body + b"abc", length) == "3 bytes more than the inputs declare"


def test_bytes_missing():
    """A body that ends too early is refused, in any dtype."""
    for dtype in NAMES:
        body, length = body_of({"x": some(dtype)})
        assert refused(body[:-1], length)


@given(st.binary(max_size=80), st.none() | st.integers(-5, 90).map(str))
@example(b"\xed\xa0\x80", None)
def test_any_bytes(body, length):
    """No bytes whatever raise anything but an InputError."""
    with pytest.raises(InputError):
        decode_request(body, length)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    scalars, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3)
)
nearly = st.fixed_dictionaries(
    {
        "name": st.just("x") | anything,
        "shape": st.lists(st.integers(-2, 4), max_size=3) | anything,
        "datatype": st.sampled_from(NAMES) | anything,
    },
    optional={
        "data": st.lists(scalars, max_size=4) | anything,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-9, 99)}) | anything,
    },
)


@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(nearly, max_size=2) | anything},
        optional={"outputs": anything, "parameters": anything, "id": anything},
    ),
    st.binary(max_size=16),
)
def test_nearly_a_request(header, binary):
    """What is nearly a request is decoded to arrays or refused with an InputError in one line."""
    text = json.dumps(header).encode()
    try:
        request = decode_request(text + binary, str(len(text)))
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(array, np.ndarray) for array in request.inputs.values())


def baseline_of(folder, graph: str, max_batch_size: int) -> Baseline:
    """The baseline's session of a real ONNX model, from its text form."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {graph}')
    onnx.save(model, folder / "m.onnx")
    package_model(folder / "m.onnx", "m", folder / "repo", Settings(max_batch_size))
    return Baseline(model_file(folder / "repo", "m"), read_config(folder / "repo", "m"))


def ask(baseline: Baseline, body: bytes, length: str | None) -> tuple[int, bytes, str | None]:
    """POST the body to the baseline's application: status, body and header length."""
    app = build_app(baseline)
    headers = [] if length is None else [(HEADER_LENGTH.lower().encode(), length.encode())]
    path = "/v2/models/m/infer"
    scope = {
        **{"type": "http", "method": "POST", "path": path, "raw_path": path.encode()},
        **{"headers": headers, "query_string": b"", "root_path": ""},
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(app(Request(scope).scope, receive, send))
    start, *rest = sent
    answer = dict(start["headers"])
    given = answer.get(HEADER_LENGTH.lower().encode())
    content = b"".join(m.get("body", b"") for m in rest)
    return start["status"], content, None if given is None else given.decode()


ECHO = "(string[batch,2] x) => (string[batch,2] y) { y = Identity(x) }"


@pytest.mark.parametrize("binary", [True, False])
def test_text_through_the_session(tmp_path, binary):
    """Text goes through a string model as it is: ONNX Runtime gets str, the client bytes."""
    texts = np.array([[b"a", "é".encode()], [b"", b"b'c'"]], dtype=object)
    outputs = [triton_http.InferRequestedOutput("y", binary_data=binary)]
    body, length = body_of({"x": texts}, binary=binary, outputs=outputs)
    status, answer, given = ask(baseline_of(tmp_path, ECHO, 4), body, length)
    assert status == 200, answer
    result = triton_http.InferenceServerClient.parse_response_body(
        answer, header_length=None if given is None else int(given)
    )
    assert same(result.as_numpy("y"), texts)


def test_text_that_is_not_utf8(tmp_path):
    """Bytes that no ONNX string can hold are refused by the input's name."""
    body, length = body_of({"x": np.array([[b"\xff", b""]], dtype=object)})
    status, answer, _ = ask(baseline_of(tmp_path, ECHO, 4), body, length)
    assert status == 400
    assert json.loads(answer) == {"error": "input 'x' has bytes that are not UTF-8 text"}


ADD = "(float[n,2] a, float[n,2] b) => (float[n,2] y) { y = Add(a, b) }"
ONES = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"a": ONES}, "inputs are ['a'], the model takes ['a', 'b']"),
        ({"a": ONES, "b": ONES.astype(np.float64)}, "input 'b' is float64, expected FP32"),
        ({"a": ONES, "b": ONES[:, :1]}, "input 'b' has shape [3, 1], expected [-1, 2]"),
        ({"a": ONES, "b": ONES[0]}, "input 'b' has shape [2], expected [-1, 2]"),
        ({"a": ONES, "b": ONES[:2]}, "have the same rows, these have {'a': 3, 'b': 2}"),
        ({"a": ONES[:0], "b": ONES[:0]}, "0 rows; at most 4 are taken"),
        ({"a": np.repeat(ONES, 2, 0), "b": np.repeat(ONES, 2, 0)}, "6 rows; at most 4 are taken"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path, inputs, words):
    """What the model does not take is answered with status 400 and what is wrong."""
    status, answer, _ = ask(baseline_of(tmp_path, ADD, 4), *body_of(inputs))
    assert status == 400
    assert words in json.loads(answer)["error"]


def test_scalar_for_a_batch(tmp_path):
    """A scalar, which has no rows, is refused where rows are wanted."""
    graph = "(float[n] x) => (float[n] y) { y = Relu(x) }"
    baseline = baseline_of(tmp_path, graph, 4)
    status, answer, _ = ask(baseline, *body_of({"x": np.array(1, np.float32)}))
    error = "input 'x' has shape [], expected [-1, 1]"
    assert (status, json.loads(answer)["error"]) == (400, error)


def test_unknown_output(tmp_path):
    """An output that the model has not is refused with those that it has."""
    outputs = [triton_http.InferRequestedOutput("z")]
    body, length = body_of({"a": ONES, "b": ONES}, outputs=outputs)
    status, answer, _ = ask(baseline_of(tmp_path, ADD, 4), body, length)
    assert (status, json.loads(answer)["error"]) == (400, "no outputs ['z']; the model gives ['y']")


def test_counters(tmp_path):
    """Every request is one run, counted under its own rows; a refused one is not counted."""
    baseline = baseline_of(tmp_path, ADD, 4)
    for rows in (1, 3, 3):
        assert ask(baseline, *body_of({"a": ONES[:rows], "b": ONES[:rows]}))[0] == 200
    assert ask(baseline, b"", None)[0] == 400
    (statistics,) = baseline.statistics()["model_stats"]
    assert (statistics["inference_count"], statistics["execution_count"]) == (7, 3)
    assert [(b["batch_size"], b["compute_infer"]["count"]) for b in statistics["batch_stats"]] == [
        (1, 1),
        (3, 2),
    ]
