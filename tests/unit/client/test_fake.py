"""The fake transports: what a client can see of a Triton, without one."""

import asyncio
import json
import threading
import time

import numpy as np
import pytest

from tritonkit.binary import from_bytes, to_bytes
from tritonkit.client.fake import AsyncFakeTransport, FakeModel, FakeTransport
from tritonkit.client.fake_model import parse_spec
from tritonkit.client.operations import Operation
from tritonkit.client.transport import Cancellation, InferRequest, Region, Tensor, Wanted
from tritonkit.errors import (
    DeadlineError,
    InputError,
    NotFoundError,
    RejectedError,
    RequestCancelledError,
    ServerFaultError,
    UnavailableError,
)
from tritonkit.signature import data_type, data_type_of


def tensor(name, array):
    array = np.asarray(array)
    dtype = data_type_of(array)
    return Tensor(name, dtype.name, array.shape, to_bytes(array, dtype))


def floats(*rows):
    return np.array(rows, np.float32)


def total(x):
    if x[0, 0] < 0:
        raise ValueError("boom")
    return {"y": x.sum(1, keepdims=True)}


def count_down(n):
    for i in range(int(n[0]), 0, -1):
        if i == 13:
            raise ValueError("unlucky")
        yield {"left": np.array([i - 1], np.int32)}


@pytest.fixture
def fake():
    return FakeTransport(
        {
            "m": FakeModel(["x:FP32[-1,2]"], ["y:FP32[-1,1]"], 4, total),
            "down": FakeModel(["n:INT32[1]"], ["left:INT32[1]"], 0, count_down),
        }
    )


def request(*rows, model="m", **options):
    return InferRequest(model, (tensor("x", floats(*(rows or ([1, 2],)))),), **options)


def infer(fake, message, **options):
    answer = fake.decode(fake.send(fake.encode(message), **{"timeout_s": None} | options))
    return {t.name: from_bytes(t.data, data_type(t.datatype), t.shape) for t in answer.outputs}


def call(fake, operation, **arguments):
    return fake.call(operation, arguments, timeout_s=None)


# Inference


def test_answer(fake):
    """The function gets the inputs as arrays, and what it returns is the answer."""
    assert infer(fake, request([1, 2], [3, 4]))["y"].tolist() == [[3], [7]]


def test_answer_says_what_it_answers(fake):
    """An answer has the model, its version and the request's id."""
    answer = fake.send(fake.encode(request(id="r7")), timeout_s=None)
    assert (answer.model, answer.version, answer.id, answer.is_final) == ("m", "1", "r7", True)


def test_bytes():
    """BYTES inputs are arrays of bytes objects; str and bytes can be returned."""
    model = FakeModel(["t:BYTES[-1,1]"], ["u:BYTES[-1,1]"], 2, lambda t: {"u": [["é"], [t[1, 0]]]})
    texts = np.array([["a"], [b"\xff"]], object)
    message = InferRequest("m", (tensor("t", texts),))
    assert infer(FakeTransport({"m": model}), message)["u"].tolist() == [["é".encode()], [b"\xff"]]


def test_inputs_are_the_functions_own(fake):
    """A function may write to its inputs; a message sent again is the same."""

    def double(x):
        x *= 2
        return {"y": x}

    fake = FakeTransport({"m": FakeModel(["x:FP32[-1,2]"], ["y:FP32[-1,2]"], 4, double)})
    message = fake.encode(request([1, 2]))
    for _ in range(2):
        assert infer(fake, message)["y"].tolist() == [[2, 4]]


def test_encoding_copies(fake):
    """What is done to an array after encoding does not change the message."""
    array = floats([1, 2])
    message = fake.encode(InferRequest("m", (tensor("x", array),)))
    array[:] = 100
    assert infer(fake, message)["y"].tolist() == [[3]]


def test_no_function():
    """Without a function the outputs are zeros, or empty strings."""
    model = FakeModel(["x:FP32[-1,2]"], ["y:FP32[-1,3]", "t:BYTES[-1,1]"], 4)
    answer = infer(FakeTransport({"m": model}), request([1, 2], [3, 4]))
    assert answer["y"].tolist() == [[0] * 3] * 2
    assert answer["t"].tolist() == [[b""]] * 2


def test_chosen_outputs():
    """Only the outputs that are asked for are answered, in that order."""
    model = FakeModel(["x:FP32[-1,2]"], ["a:FP32[-1,1]", "b:FP32[-1,1]", "c:FP32[-1,1]"], 4)
    message = request(outputs=(Wanted("c"), Wanted("a")))
    assert list(infer(FakeTransport({"m": model}), message)) == ["c", "a"]


@pytest.mark.parametrize(
    ("max_batch_size", "classes", "answer"),
    [
        (4, 2, [[b"0.500000:1", b"0.300000:2"], [b"3.000000:0", b"2.000000:1"]]),
        (4, 9, [[b"0.500000:1", b"0.300000:2", b"0.200000:0"], [b"3.000000:0", b"2.000000:1"]]),
        (0, 2, [b"3.000000:3", b"2.000000:4"]),
    ],
)
def test_classification(max_batch_size, classes, answer):
    """Top classes are `value:index`, of each row where there are rows."""
    scores = floats([0.2, 0.5, 0.3], [3, 2, -1])
    model = FakeModel(
        ["x:FP32[-1,2]"], ["y:FP32[-1,3]"], max_batch_size, lambda x: {"y": scores[: len(x)]}
    )
    message = request([1, 2], [3, 4], outputs=(Wanted("y", classes=classes),))
    got = infer(FakeTransport({"m": model}), message)["y"].tolist()
    if classes == 9:
        got[1] = got[1][:2]
    assert got == answer


# What Triton rejects


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([tensor("x", floats(*[[1, 2]] * 5))], "inference request batch-size must be <= 4 for 'm'"),
        ([tensor("x", np.zeros((0, 2), np.float32))], "batch-size must be >= 1 for 'm'"),
        (
            [tensor("x", np.ones((1, 2), np.int64))],
            "inference input 'x' data-type is 'INT64', but model 'm' expects 'FP32'",
        ),
        (
            [tensor("x", floats([1, 2, 3]))],
            r"unexpected shape for input 'x' for model 'm'. Expected \[-1,2\], got \[1,3\]",
        ),
        ([tensor("x", np.ones(2, np.float32))], r"Expected \[-1,2\], got \[2\]"),
        ([Tensor("x", "FP32", (1, 2), b"1234")], "input byte size mismatch for input 'x'"),
        ([], r"expected 1 inputs but got 0 inputs for model 'm'. Missing .*\['x'\]"),
        ([tensor("x", floats([1, 2]))] * 2, "input 'x' already exists in request"),
        ([tensor("z", floats([1, 2]))], "unexpected inference input 'z' for model 'm'"),
    ],
)
def test_rejected_inputs(fake, inputs, words):
    """Inputs that Triton rejects are rejected in its words, and the function is not run."""
    with pytest.raises(RejectedError, match=words) as caught:
        infer(fake, InferRequest("m", tuple(inputs)))
    assert caught.value.kind == "invalid"
    assert statistics(fake)["inference_stats"]["fail"]["count"] == 0


def test_rows_have_to_match():
    """Inputs with different numbers of rows are rejected."""
    model = FakeModel(["a:FP32[-1,1]", "b:FP32[-1,1]"], ["y:FP32[-1,1]"], 4)
    message = InferRequest("m", (tensor("a", floats([1])), tensor("b", floats([1], [2]))))
    with pytest.raises(RejectedError, match="input 'b' batch size does not match"):
        infer(FakeTransport({"m": model}), message)


def test_unknown_output(fake):
    """An output that the model does not have is rejected."""
    with pytest.raises(RejectedError, match="unexpected inference output 'z' for model 'm'"):
        infer(fake, request(outputs=(Wanted("z"),)))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (request(model="nope"), "Request for unknown model: 'nope' is not found"),
        (request(version="9"), "Request for unknown model: 'm' version 9 is not found"),
    ],
)
def test_unknown_model(fake, message, words):
    """A model or version that it does not have is not found."""
    with pytest.raises(NotFoundError, match=words):
        infer(fake, message)


def test_regions(fake):
    """It has no shared memory: regions are unknown, and cannot be registered."""
    region = Region("r", 8)
    with pytest.raises(NotFoundError, match="Unable to find shared memory region: 'r'"):
        infer(fake, InferRequest("m", (Tensor("x", "FP32", (1, 2), region),)))
    with pytest.raises(NotFoundError, match="shared memory region"):
        infer(fake, request(outputs=(Wanted("y", region=region),)))
    with pytest.raises(RejectedError) as caught:
        call(fake, Operation.REGISTER, name="r", key="/r", byte_size=8, offset=0)
    assert caught.value.kind == "unsupported"
    assert call(fake, Operation.REGIONS) == []
    assert call(fake, Operation.UNREGISTER, name="r") is None


# What a model does wrong


def test_function_raises(fake):
    """What a function raises fails the request, with its text and its traceback."""
    with pytest.raises(ServerFaultError, match="'m', message: ValueError: boom") as caught:
        infer(fake, request([-1, 0]))
    assert isinstance(caught.value.__cause__, ValueError)


def test_function_raises_a_request_error():
    """A RequestError that a function raises is what the client gets."""

    def full(x):
        raise UnavailableError("unavailable", "Exceeds maximum queue size")

    model = FakeModel(["x:FP32[-1,2]"], ["y:FP32[-1,1]"], 4, full)
    with pytest.raises(UnavailableError, match="queue size"):
        infer(FakeTransport({"m": model}), request())


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ({}, "it returned nothing, but has outputs y"),
        ({"y": floats([1]), "z": 1}, "it returned y, z, but has outputs y"),
        (None, "it returned NoneType, not a dict"),
        ({"y": floats([1, 2])}, r"float32\[1, 2\] as y:FP32\[dim_0,1\] for 1 rows"),
        ({"y": floats([1], [2])}, r"float32\[2, 1\] as y:FP32\[dim_0,1\] for 1 rows"),
        ({"y": np.array([["a"]])}, r"<U1\[1, 1\] as y:FP32"),
        ({"y": floats([1]) * 1j}, r"complex64\[1, 1\] as y:FP32"),
    ],
)
def test_wrong_outputs(returned, words):
    """A function that does not return the declared outputs fails the request."""
    model = FakeModel(["x:FP32[-1,2]"], ["y:FP32[-1,1]"], 4, lambda x: returned)
    with pytest.raises(ServerFaultError, match=words):
        infer(FakeTransport({"m": model}), request())


@pytest.mark.parametrize("returned", [[[1.5]], np.array([[1.5]]), np.array([[1.5]], np.float16)])
def test_output_dtypes(returned):
    """Outputs are cast to the declared dtype where that is harmless."""
    model = FakeModel(["x:FP32[-1,2]"], ["y:FP32[-1,1]"], 4, lambda x: {"y": returned})
    y = infer(FakeTransport({"m": model}), request())["y"]
    assert (y.dtype, y.tolist()) == (np.float32, [[1.5]])


# Streams


def count_from(n):
    return InferRequest("down", (tensor("n", np.array([n], np.int32)),))


def left(answer):
    return [np.frombuffer(t.data, np.int32).item() for t in answer.outputs]


def test_stream(fake):
    """Each mapping that a generator yields is an answer."""
    answers = list(fake.stream(count_from(2), timeout_s=None))
    assert [(left(a), a.is_final) for a in answers] == [([1], False), ([0], False)]


def test_stream_of_one(fake):
    """A model that is not decoupled answers a stream once, finally."""
    (answer,) = fake.stream(request(), timeout_s=None)
    assert answer.is_final


def test_decoupled_without_stream(fake):
    """A decoupled model answers no plain request."""
    with pytest.raises(RejectedError, match="decoupled transaction policy") as caught:
        infer(fake, count_from(1))
    assert caught.value.kind == "unsupported"


def test_stream_breaks(fake):
    """A generator that raises ends the stream with the error, after what it yielded."""
    answers = fake.stream(count_from(14), timeout_s=None)
    assert left(next(answers)) == [13]
    with pytest.raises(ServerFaultError, match="unlucky"):
        next(answers)


def test_closing_a_stream():
    """Closing the iterator ends the model's generator."""
    ended = []

    def endless(x):
        try:
            while True:
                yield {"y": x}
        finally:
            ended.append(True)

    fake = FakeTransport({"m": FakeModel(["x:FP32[-1,2]"], ["y:FP32[-1,2]"], 4, endless)})
    answers = fake.stream(request(), timeout_s=None)
    next(answers)
    answers.close()
    assert ended == [True]


def test_cancelled_stream(fake):
    """A stream that is cancelled ends with its next answer."""
    cancellation = Cancellation()
    answers = fake.stream(count_from(9), timeout_s=None, cancellation=cancellation)
    next(answers)
    cancellation.cancel()
    with pytest.raises(RequestCancelledError):
        next(answers)


# Failures on purpose


def test_fail_next(fake):
    """The next requests fail with the kind asked for, those after them do not."""
    fake.fail_next("unavailable", times=2)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            infer(fake, request())
    assert infer(fake, request())["y"].tolist() == [[3]]


def test_fail_next_in_order(fake):
    """Failures that are asked for one after the other come in that order."""
    fake.fail_next("closed")
    fake.fail_next("failed")
    with pytest.raises(UnavailableError):
        infer(fake, request())
    with pytest.raises(ServerFaultError):
        infer(fake, request())


def test_fail_next_operation(fake):
    """Only the named operation fails, and no inference."""
    fake.fail_next("timeout", operation=Operation.METADATA)
    infer(fake, request())
    with pytest.raises(DeadlineError):
        call(fake, Operation.METADATA, model="m")
    call(fake, Operation.METADATA, model="m")


def test_fail_next_kind(fake):
    """A kind that no RequestError has is refused."""
    with pytest.raises(InputError, match="'broken' is no kind"):
        fake.fail_next("broken")


def test_delay(fake):
    """An answer takes as long as it is told to."""
    fake.delay_s = 0.05
    start_ns = time.perf_counter_ns()
    infer(fake, request())
    assert time.perf_counter_ns() - start_ns >= 49_000_000


@pytest.mark.parametrize("send", ["send", "stream", "call"])
def test_deadline(fake, send):
    """A delay beyond the deadline ends with it."""
    fake.delay_s = 60
    start_ns = time.perf_counter_ns()
    with pytest.raises(DeadlineError):
        if send == "send":
            infer(fake, request(), timeout_s=0.01)
        elif send == "stream":
            next(fake.stream(request(), timeout_s=0.01))
        else:
            fake.call(Operation.LIVE, {}, timeout_s=0.01)
    assert time.perf_counter_ns() - start_ns < 10e9


def test_slow_function():
    """A function that takes longer than the deadline is too late."""

    def slow(x):
        time.sleep(0.02)
        return {"y": x[:, :1]}

    model = FakeModel(["x:FP32[-1,2]"], ["y:FP32[-1,1]"], 4, slow)
    with pytest.raises(DeadlineError):
        infer(FakeTransport({"m": model}), request(), timeout_s=0.01)


def test_cancel(fake):
    """Cancelling from another thread ends a request that is waiting."""
    fake.delay_s = 60
    cancellation = Cancellation()
    timer = threading.Timer(0.02, cancellation.cancel)
    timer.start()
    with pytest.raises(RequestCancelledError):
        infer(fake, request(), cancellation=cancellation)
    timer.join()


def test_requests_are_kept(fake):
    """All requests are kept with their headers and deadlines, failed ones too."""
    fake.fail_next("refused")
    with pytest.raises(UnavailableError):
        infer(fake, request(id="a"), headers={"k": "v"}, timeout_s=5)
    infer(fake, request(id="b"))
    assert [(r.request.id, r.headers, r.timeout_s) for r in fake.requests] == [
        ("a", {"k": "v"}, 5),
        ("b", {}, None),
    ]


# Operations


def statistics(fake, model="m"):
    return call(fake, Operation.STATISTICS, model=model)["model_stats"][0]


def test_metadata(fake):
    """Metadata has the tensors with the batch dimension."""
    assert call(fake, Operation.METADATA, model="m", version="") == {
        "name": "m",
        "versions": ["1"],
        "platform": "fake",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    }


def test_config(fake):
    """The config has the tensors without the batch dimension, and says what is decoupled."""
    config = call(fake, Operation.CONFIG, model="m")
    assert config["max_batch_size"] == 4
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [2]}]
    assert config["model_transaction_policy"] == {"decoupled": False}
    down = call(fake, Operation.CONFIG, model="down")
    assert (down["input"][0]["dims"], down["model_transaction_policy"]["decoupled"]) == ([1], True)


def test_server(fake):
    """It calls itself triton, and does not claim shared memory."""
    server = call(fake, Operation.SERVER)
    assert server["name"] == "triton"
    assert not any("shared_memory" in e for e in server["extensions"])


def test_live_and_ready(fake):
    """Whether it is live and ready is as it was set."""
    assert call(fake, Operation.LIVE) is call(fake, Operation.READY) is True
    fake.live = fake.ready = False
    assert call(fake, Operation.LIVE) is call(fake, Operation.READY) is False


def test_unload_and_load(fake):
    """An unloaded model is in the index, but is neither ready nor found until it is loaded."""
    call(fake, Operation.UNLOAD, model="m", unload_dependents=False)
    assert call(fake, Operation.MODEL_READY, model="m", version="") is False
    assert call(fake, Operation.INDEX, ready=False)[1] == {
        "name": "m",
        "version": "1",
        "state": "UNAVAILABLE",
        "reason": "unloaded",
    }
    assert [m["name"] for m in call(fake, Operation.INDEX, ready=True)] == ["down"]
    with pytest.raises(NotFoundError, match="'m' has no available versions"):
        infer(fake, request())
    call(fake, Operation.LOAD, model="m", config=None, files={})
    assert call(fake, Operation.MODEL_READY, model="m", version="1") is True
    infer(fake, request())


def test_load_with_config(fake):
    """A config given with LOAD is shown in the model's until it is loaded again."""
    call(fake, Operation.LOAD, model="m", config=json.dumps({"backend": "mine"}), files={})
    assert call(fake, Operation.CONFIG, model="m")["backend"] == "mine"
    call(fake, Operation.LOAD, model="m", config=None, files={})
    assert call(fake, Operation.CONFIG, model="m")["backend"] == "fake"


@pytest.mark.parametrize(("model", "config"), [("nope", None), ("m", "{"), ("m", "3")])
def test_load_fails(fake, model, config):
    """A model that it does not have, or a config that is none, cannot be loaded."""
    with pytest.raises(ServerFaultError, match=f"failed to load '{model}'"):
        call(fake, Operation.LOAD, model=model, config=config, files={})


def test_statistics(fake):
    """Statistics count what was really run: rows, requests, failures and batch sizes."""
    infer(fake, request([1, 2]))
    infer(fake, request([1, 2], [3, 4]))
    with pytest.raises(ServerFaultError):
        infer(fake, request([-1, 2]))
    counted = statistics(fake)
    assert (counted["inference_count"], counted["execution_count"]) == (3, 2)
    assert counted["inference_stats"]["success"]["count"] == 2
    assert counted["inference_stats"]["success"]["ns"] > 0
    assert counted["inference_stats"]["fail"]["count"] == 1
    assert [(b["batch_size"], b["compute_infer"]["count"]) for b in counted["batch_stats"]] == [
        (1, 1),
        (2, 1),
    ]


def test_statistics_of_all(fake):
    """Without a model, statistics are of all; of an unknown one they are refused."""
    assert len(call(fake, Operation.STATISTICS, model="", version="")["model_stats"]) == 2
    with pytest.raises(RejectedError, match="requested model 'nope' is not available"):
        call(fake, Operation.STATISTICS, model="nope")


def test_log(fake):
    """Log settings are kept; unknown ones are ignored, as Triton does."""
    answer = call(fake, Operation.LOG, settings={"log_verbose_level": 1, "nope": 1})
    assert answer["log_verbose_level"] == 1
    assert "nope" not in answer
    assert call(fake, Operation.LOG, settings={}) == answer


def test_trace(fake):
    """A model's trace settings are the server's until it has its own, which None resets."""
    call(fake, Operation.TRACE, model="", settings={"trace_rate": "5"})
    own = call(
        fake, Operation.TRACE, model="m", settings={"trace_count": "7", "trace_level": "TIMESTAMPS"}
    )
    assert (own["trace_rate"], own["trace_count"], own["trace_level"]) == ("5", "7", ["TIMESTAMPS"])
    assert call(fake, Operation.TRACE, model="", settings={})["trace_count"] == "-1"
    assert call(fake, Operation.TRACE, model="m", settings={"trace_count": None}) == {
        **own,
        "trace_count": "-1",
    }


def test_answers_are_copies(fake):
    """Changing an answer does not change the server."""
    call(fake, Operation.TRACE, model="", settings={})["trace_level"].append("X")
    call(fake, Operation.LOG, settings={})["log_info"] = False
    assert call(fake, Operation.TRACE, model="", settings={})["trace_level"] == ["OFF"]
    assert call(fake, Operation.LOG, settings={})["log_info"] is True


def test_calls_are_kept(fake):
    """All operations are kept with their arguments."""
    call(fake, Operation.MODEL_READY, model="m", version="")
    assert fake.calls == [(Operation.MODEL_READY, {"model": "m", "version": ""})]


def test_close(fake):
    """It says whether it was closed."""
    assert not fake.closed
    fake.close()
    assert fake.closed


# Specs


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("x:FP32[-1,512]", "x:FP32[dim_0,512]"),
        (" input:0 : TYPE_STRING [ batch , 3 ] ", "input:0:BYTES[batch,3]"),
        ("s:INT64[]", "s:INT64[]"),
    ],
)
def test_spec(text, read):
    """A spec is read whatever its spaces; -1 gets a name."""
    assert str(parse_spec(text)) == read


@pytest.mark.parametrize(
    "text", ["x", "x:FP32", ":FP32[1]", "x:FP32[1", "x:FP32[-2]", "x:FP32[1,]"]
)
def test_no_spec(text):
    """What is no spec is refused with an example of one."""
    with pytest.raises(InputError, match=r"give name:DTYPE\[dims\], such as"):
        parse_spec(text)


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        (["x:FP99[1]"], ["y:FP32[1]"], "dtype 'FP99'"),
        ([], ["y:FP32[1]"], "at least one of each"),
        (["x:FP32[-1]"], ["y:FP32[-1]", "y:INT8[-1]"], "no name twice"),
        (["x:FP32[2]"], ["y:FP32[-1]"], "max_batch_size needs a batch dimension"),
        ("x:FP32[-1]", ["y:FP32[-1]"], r"give \['x:FP32"),
    ],
)
def test_no_model(inputs, outputs, words):
    """Tensors that make no model are refused when it is made."""
    with pytest.raises(InputError, match=words):
        FakeModel(inputs, outputs, 4)


# asyncio


def test_async(fake):
    """An asynchronous view shares all with the fake it is of."""

    async def use():
        aio = fake.aio()
        answer = aio.decode(await aio.send(aio.encode(request()), timeout_s=1, headers={"k": "v"}))
        streamed = [a async for a in aio.stream(count_from(1), timeout_s=1)]
        counted = await aio.call(Operation.STATISTICS, {"model": "m"}, timeout_s=1)
        await aio.close()
        return answer, streamed, counted

    answer, streamed, counted = asyncio.run(use())
    assert left(streamed[0]) == [0]
    assert answer.model == "m"
    assert counted["model_stats"] == [statistics(fake)]
    assert fake.requests[0].headers == {"k": "v"}
    assert fake.closed


def test_async_alone():
    """An asynchronous fake can be made of models too; what it shares is its `fake`."""
    aio = AsyncFakeTransport({"m": FakeModel(["x:FP32[-1,2]"], ["y:FP32[-1,1]"], 4)})
    aio.fake.fail_next("unavailable")
    with pytest.raises(UnavailableError):
        asyncio.run(aio.send(aio.encode(request()), timeout_s=None))
    assert aio.address == "fake://triton"


def test_async_deadline(fake):
    """A delay beyond the deadline ends with it."""
    fake.delay_s = 60
    with pytest.raises(DeadlineError):
        asyncio.run(fake.aio().send(request(), timeout_s=0.01))


def test_async_cancel(fake):
    """Cancelling the task ends a request that is waiting."""
    fake.delay_s = 60

    async def use():
        task = asyncio.create_task(fake.aio().send(request(), timeout_s=None))
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(use())


def test_async_requests_wait_together(fake):
    """Requests of one loop wait at the same time."""
    fake.delay_s = 0.1

    async def use():
        aio = fake.aio()
        await asyncio.gather(*(aio.send(request(), timeout_s=None) for _ in range(20)))

    start_ns = time.perf_counter_ns()
    asyncio.run(use())
    assert time.perf_counter_ns() - start_ns < 1.5e9
