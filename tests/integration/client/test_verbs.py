"""Every verb of both clients, over both protocols, against a real Triton."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.integration.traffic import rest

from tritonkit import AsyncClient, Client, SequencePart
from tritonkit.client.address import parse_address
from tritonkit.client.operations import Operation
from tritonkit.client.transports.grpc import GrpcTransport
from tritonkit.errors import (
    InputError,
    NotFoundError,
    RejectedError,
    RequestCancelledError,
    RequestError,
    TensorError,
)
from tritonkit.server.embedded import EmbeddedTriton

CLIENTS = (Client, AsyncClient)
PROTOCOLS = ("grpc", "http")
X = np.arange(8, dtype=np.float32).reshape(2, 4)
WIDE = 1 << 16

# `count` answers each to its request, then the end; 0 is for ever. Its folder has a mark while it
# runs.
COUNTING_CONFIG = """
name: "counting" backend: "python" max_batch_size: 0
input [{ name: "count" data_type: TYPE_INT32 dims: [1] }]
output [{ name: "k" data_type: TYPE_INT32 dims: [1] }]
model_transaction_policy { decoupled: true }
instance_group [{ kind: KIND_CPU count: 1 }]
"""
COUNTING = """
import time
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            n = int(np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "count"))[0])
            sender = request.get_response_sender()
            k = 0
            while (n == 0 or k < n) and not request.is_cancelled():
                value = pb_utils.Tensor.from_dlpack("k", np.array([k], np.int32))
                sender.send(pb_utils.InferenceResponse([value]))
                k += 1
                if not n:
                    time.sleep(0.01)
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            if not n:
                Path(__file__).with_name("cancelled").touch()
"""
# Answers when it is cancelled, or after `seconds`; several at once.
WAIT_CONFIG = """
name: "wait" backend: "python" max_batch_size: 0
input [{ name: "seconds" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "done" data_type: TYPE_INT32 dims: [1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
WAIT = """
import threading, time
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            seconds = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "seconds"))[0]
            sender = request.get_response_sender()
            threading.Thread(target=self.wait, args=(request, sender, seconds)).start()

    def wait(self, request, sender, seconds):
        if seconds:
            Path(__file__).with_name("started").touch()
        until = time.monotonic() + seconds
        while time.monotonic() < until and not request.is_cancelled():
            time.sleep(0.005)
        if request.is_cancelled():
            Path(__file__).with_name("cancelled").touch()
        value = pb_utils.Tensor.from_dlpack("done", np.array([1], np.int32))
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        sender.send(pb_utils.InferenceResponse([value]), flags)
"""


class Driven:
    """A client of either kind, its verbs called the same way."""

    def __init__(self, kind, address, **options):
        self.runner = asyncio.Runner() if kind is AsyncClient else None
        self.client = kind(address, **options)

    def __getattr__(self, verb):
        def call(*arguments, **options):
            answer = getattr(self.client, verb)(*arguments, **options)
            if self.runner is None:
                return answer
            return self.each(answer) if hasattr(answer, "__aiter__") else self.runner.run(answer)

        return call

    def each(self, answers):
        """What an asynchronous iterator yields; leaving the loop leaves it."""
        end = object()

        async def step():
            return await anext(answers, end)

        try:
            while (answer := self.runner.run(step())) is not end:
                yield answer
        finally:
            self.runner.run(answers.aclose())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        if self.runner is not None:
            self.runner.close()


def put(repository, name, config, code):
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(config)
    (version / "model.py").write_text(code)


@pytest.fixture(scope="module")
def repository(package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verbs") / "repository"
    package(folder, "double")
    package(folder, "double", name="spare")
    package(folder, f"(float[N,{WIDE}] x) => (float[N,{WIDE}] y) {{ y = Add(x, x) }}", name="wide")
    put(folder, "counting", COUNTING_CONFIG, COUNTING)
    put(folder, "wait", WAIT_CONFIG, WAIT)
    return folder


LOADED = ("double", "wide", "counting", "wait")


@pytest.fixture(scope="module")
def triton(installed, repository):
    load = [f"--load-model={name}" for name in LOADED]
    options = ("--model-control-mode=explicit", *load)
    with EmbeddedTriton(
        repository, log=repository.parent / "log", drain=False, options=options
    ) as server:
        yield server


@pytest.fixture(params=CLIENTS)
def drive(request):
    return lambda address, **options: Driven(request.param, address, **options)


@pytest.fixture(params=PROTOCOLS)
def address(request, triton):
    return f"{request.param}://{getattr(triton.endpoints, request.param)}"


@pytest.fixture
def client(drive, address):
    with drive(address) as made:
        yield made


@pytest.fixture
def threaded(address):
    """A client for threads alone."""
    with Client(address) as made:
        yield made


# Inference


def test_infer(client):
    """The answer is numpy's, and says who gave it."""
    result = client.infer("double", X)
    np.testing.assert_array_equal(result["y"], X + X)
    np.testing.assert_array_equal(result.only, X + X)
    assert (result.model, result.version) == ("double", "1")


def test_infer_by_name(client):
    """Inputs may be given by keyword or in a mapping, outputs by name."""
    for result in (client.infer("double", x=X), client.infer("double", {"x": X}, outputs="y")):
        np.testing.assert_array_equal(result["y"], X + X)


def test_a_single_row(client):
    """Without the batch axis it is one row, and the answer has no batch axis."""
    assert client.infer("double", [1, 2, 3, 4])["y"].tolist() == [2, 4, 6, 8]


@pytest.mark.parametrize("rows", [8, 9, 35])
def test_more_rows_than_a_request_may_have(client, rows):
    """They are sent in parts of max_batch_size, and joined in order."""
    x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    np.testing.assert_array_equal(client.infer("double", x)["y"], x + x)


def test_classes(client):
    """The top classes come best first, one row each."""
    result = client.infer("double", X, classes=2)["y"]
    assert [[(c.index, c.score) for c in row] for row in result] == [
        [(3, 6.0), (2, 4.0)],
        [(3, 14.0), (2, 12.0)],
    ]


def test_classes_of_more_rows_than_a_request_may_have(client):
    """Classes of parts are joined as tensors are."""
    x = np.arange(40, dtype=np.float32).reshape(10, 4)
    result = client.infer("double", x, classes=1)["y"]
    assert [row[0].score for row in result] == (2 * x[:, 3]).tolist()


def test_an_id(client):
    """A request's id comes back."""
    assert client.infer("double", X, id="number 7").id == "number 7"


def test_options_that_triton_takes(client):
    """Version, priority, parameters, and a place in a sequence are accepted."""
    options = {"version": "1", "priority": 1, "parameters": {"a": 1, "b": "x", "c": True}}
    for sequence in (SequencePart(5, start=True), SequencePart("s", start=True, end=True)):
        result = client.infer("double", X, sequence=sequence, **options)
        np.testing.assert_array_equal(result["y"], X + X)


def test_a_part_of_a_sequence_is_one_request(client):
    """More rows than one request may have cannot be a part of a sequence."""
    with pytest.raises(TensorError, match="9 rows"):
        client.infer("double", np.ones((9, 4), np.float32), sequence=SequencePart(1))


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compression(drive, address, compression):
    """Answers are the same with requests and answers compressed."""
    with drive(address, compression=compression, shared_memory=False) as client:
        x = np.random.default_rng(1).random((20, WIDE), np.float32)
        np.testing.assert_array_equal(client.infer("wide", x)["y"], x + x)


# In the background


def test_submit(threaded):
    """What is submitted is answered in the background."""
    pending = [threaded.submit("double", X * i) for i in range(20)]
    for i, each in enumerate(pending):
        np.testing.assert_array_equal(each.result(20)["y"], 2 * i * X)
        assert each.done()


@pytest.fixture
def marks(repository):
    """Where the waiting model leaves its marks; there are none yet."""
    folder = repository / "wait" / "1"
    for name in ("started", "cancelled"):
        (folder / name).unlink(missing_ok=True)
    return folder


def test_cancel(threaded, address, marks, wait_for):
    """What is given up ends at once; over gRPC the model is told."""
    threaded.infer("wait", [0.0])
    pending = threaded.submit("wait", [30.0])
    wait_for((marks / "started").exists)
    pending.cancel()
    with pytest.raises(RequestCancelledError):
        pending.result(5)
    if address.startswith("grpc"):
        wait_for((marks / "cancelled").exists)


def test_cancel_a_task(address, marks, wait_for):
    """Cancelling the task that awaits `infer` gives the request up."""

    async def main():
        async with AsyncClient(address) as client:
            task = asyncio.create_task(client.infer("wait", [30.0]))
            await asyncio.to_thread(wait_for, (marks / "started").exists)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()
            assert (await client.infer("double", X))["y"].shape == (2, 4)

    asyncio.run(main())
    if address.startswith("grpc"):
        wait_for((marks / "cancelled").exists)


# Many


def test_map(client):
    """The results come in the items' order, and progress counts them."""
    told = []
    items = (np.full((1, 4), i, np.float32) for i in range(100))
    results = client.map("double", items, max_in_flight=8, progress=told.append)
    assert [int(r["y"][0, 0]) for r in results] == list(range(0, 200, 2))
    assert told == list(range(1, 101))


def test_map_reads_items_as_they_are_needed(client):
    """At most max_in_flight items are taken before the first result is."""
    taken = []

    def items():
        for i in range(10_000):
            taken.append(i)
            yield X

    results = client.map("double", items(), max_in_flight=4)
    next(results)
    assert len(taken) <= 5
    results.close()


def test_map_of_nothing(client):
    """No items, no results."""
    assert list(client.map("double", [])) == []


def test_map_raises_the_first_failure(client):
    """After the results before it; the rest is given up."""
    results = client.map("double", [X, X, "bad", X], max_in_flight=2)
    assert next(results)["y"].shape == next(results)["y"].shape == (2, 4)
    with pytest.raises(TensorError):
        next(results)


def test_leaving_a_map_cancels_the_rest(client, marks, wait_for, address):
    """Leaving the loop ends soon, though requests that run long are under way."""
    for _ in client.map("wait", [[0.0], [30.0], [30.0]], max_in_flight=2):
        wait_for((marks / "started").exists)
        break
    if address.startswith("grpc"):
        wait_for((marks / "cancelled").exists)


def test_a_map_needs_room(client):
    """With max_in_flight 0 nothing could ever be sent."""
    with pytest.raises(InputError):
        list(client.map("double", [X], max_in_flight=0))


# Streams


@pytest.fixture
def grpc_client(drive, triton):
    with drive(f"grpc://{triton.endpoints.grpc}") as made:
        yield made


def test_stream(grpc_client):
    """A decoupled model's answers come one by one."""
    assert [r["k"].item() for r in grpc_client.stream("counting", [5])] == list(range(5))


def test_stream_of_a_model_that_answers_once(grpc_client):
    """Any other model's stream has one answer."""
    (result,) = grpc_client.stream("double", X)
    np.testing.assert_array_equal(result["y"], X + X)


def test_leaving_a_stream_cancels_it(grpc_client, repository, wait_for):
    """The model is told that nobody listens."""
    mark = repository / "counting" / "1" / "cancelled"
    mark.unlink(missing_ok=True)
    for _, result in zip(range(3), stream := grpc_client.stream("counting", [0]), strict=False):
        assert result["k"].item() >= 0
    stream.close()
    wait_for(mark.exists)


def test_streams_need_grpc(drive, triton):
    """Over HTTP it is unsupported, and the message says what to do."""
    with (
        drive(f"http://{triton.endpoints.http}") as client,
        pytest.raises(RejectedError, match="grpc://"),
    ):
        list(client.stream("counting", [1]))


def test_infer_of_a_decoupled_model(client):
    """It needs a stream."""
    with pytest.raises(RequestError, match="decoupled"):
        client.infer("counting", [1])


# What the server has


def test_spec(client):
    """A model's metadata and config, in short."""
    spec = client.spec("double")
    assert str(spec).startswith("double: x:FP32[") and spec.max_batch_size == 8
    assert client.spec("counting").decoupled


def test_config(client):
    """The config that the model runs with."""
    config = client.config("double", version="1")
    assert (config["name"], config["max_batch_size"]) == ("double", 8)


def test_statistics(client, wait_for):
    """The counters of one model grow with its inferences; without a name all models have some."""

    def count():
        (record,) = client.statistics("double")
        return record["inference_stats"]["success"]["count"]

    before = count()
    client.infer("double", X)
    wait_for(lambda: count() == before + 1)  # an answer is out before it is counted
    assert {r["name"] for r in client.statistics()} >= set(LOADED)


def test_server(client):
    """Triton says who it is."""
    server = client.server()
    assert server["name"] == "triton" and "binary_tensor_data" in server["extensions"]


def test_models(client):
    """All of the repository, or what is ready."""
    states = {m["name"]: m["state"] for m in client.models()}
    assert {n for n, s in states.items() if s == "READY"} >= set(LOADED)
    assert "spare" in states
    assert {m["name"] for m in client.models(ready=True)} >= set(LOADED)


def test_readiness(client):
    """Live, ready, and which models are."""
    client.wait_until_ready()
    client.wait_until_ready("double", timeout_s=5)
    assert client.is_live() and client.is_ready() and client.is_ready("double", version="1")
    assert not client.is_ready("nix") and not client.is_ready("double", version="9")


# Control


def files_of(repository, model, onnx):
    """A packaged model's files, with another model in them."""
    files = {
        str(path.relative_to(repository / model)): path.read_bytes()
        for path in (repository / model / "1").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return {**files, "1/model.onnx": onnx.read_bytes()}


@pytest.fixture
def spare(triton):
    """The name of a model that is not loaded before and after the test."""
    yield "spare"
    rest()
    with Client(f"grpc://{triton.endpoints.grpc}") as client:
        client.unload("spare")


def test_load_and_unload(client, spare, wait_for):
    """A model is loaded, answers, and is unloaded."""
    with pytest.raises(NotFoundError):
        client.infer(spare, X)
    client.load(spare)
    np.testing.assert_array_equal(client.infer(spare, X)["y"], X + X)
    rest()
    client.unload(spare, dependents=True)
    wait_for(lambda: not client.is_ready(spare))
    with pytest.raises(RequestError):
        client.infer(spare, X)


def test_load_with_a_config(client, spare):
    """The client knows at once what has changed."""
    client.load(spare)
    assert client.spec(spare).max_batch_size == 8
    config = {**client.config(spare), "max_batch_size": 2}
    del config["model_warmup"], config["dynamic_batching"]  # both of more rows than that
    client.load(spare, config=config)
    assert client.spec(spare).max_batch_size == 2
    np.testing.assert_array_equal(client.infer(spare, [*X, *X])["y"], [*(X + X), *(X + X)])


def test_load_from_files(client, spare, repository, onnx_file):
    """A model is loaded from files that the client sends."""
    squared = onnx_file("(float[N,4] x) => (float[N,4] y) { y = Mul(x, x) }")
    config = {**client.config("double"), "name": spare}
    client.load(spare, config=config, files=files_of(repository, "double", squared))
    np.testing.assert_array_equal(client.infer(spare, X)["y"], X * X)


def test_a_model_that_another_client_has_loaded_anew(client, spare, onnx_file, triton, repository):
    """Inputs that the model takes now are sent, though another took others before."""
    client.load(spare)
    client.infer(spare, X)
    with Client(f"grpc://{triton.endpoints.grpc}") as other:
        config = other.config(spare)
        del config["model_warmup"]  # with other shapes
        config["input"][0]["dims"] = config["output"][0]["dims"] = [6]
        wider = onnx_file("(float[N,6] x) => (float[N,6] y) { y = Add(x, x) }")
        other.load(spare, config=config, files=files_of(repository, "spare", wider))
    assert client.infer(spare, [1, 2, 3, 4, 5, 6])["y"].tolist() == [2, 4, 6, 8, 10, 12]
    with pytest.raises(TensorError):
        client.infer(spare, X)


def test_trace_settings(client):
    """A change is made, and None gives the default back."""
    before = client.trace_settings()["trace_rate"]
    assert client.trace_settings(change={"trace_rate": 77})["trace_rate"] == "77"
    assert client.trace_settings(change={"trace_rate": None})["trace_rate"] == before
    assert "trace_level" in client.trace_settings("double")


def test_log_settings(client):
    """A change is made and told."""
    assert client.log_settings(change={"log_verbose_level": 1})["log_verbose_level"] == 1
    assert client.log_settings(change={"log_verbose_level": 0})["log_verbose_level"] == 0


# What arrives


@pytest.fixture
def recorded(triton):
    """The headers of all requests that came to proxies before Triton, by protocol; their ports."""
    found = {"grpc": [], "http": []}
    upstream = grpc.insecure_channel(triton.endpoints.grpc)
    host, _, port = triton.endpoints.http.rpartition(":")

    class Http(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            import http.client

            found["http"].append({k.lower(): v for k, v in self.headers.items()})
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            inner = http.client.HTTPConnection(host, int(port))
            inner.request(self.command, self.path, body, dict(self.headers))
            answer = inner.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name in ("Inference-Header-Content-Length",):
                if answer.headers.get(name):
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            inner.close()

        do_POST = do_GET

        def log_message(self, *_):
            pass

    class Grpc(grpc.GenericRpcHandler):
        def service(self, call):
            found["grpc"].append(dict(call.invocation_metadata))
            return grpc.unary_unary_rpc_method_handler(
                lambda data, _: upstream.unary_unary(call.method)(data)
            )

    proxy = grpc.server(ThreadPoolExecutor(4), handlers=(Grpc(),))
    ports = {"grpc": proxy.add_insecure_port("127.0.0.1:0")}
    proxy.start()
    with ThreadingHTTPServer(("127.0.0.1", 0), Http) as server:
        ports["http"] = server.server_port
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        yield found, ports
        server.shutdown()
        serving.join()
    proxy.stop(None).wait()
    upstream.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_and_tokens_arrive(drive, recorded, protocol):
    """The client's headers and a fresh token with every request, a call's own with its own."""
    found, ports = recorded
    tokens = iter(range(100))
    with drive(
        f"{protocol}://127.0.0.1:{ports[protocol]}",
        headers={"X-Tenant": "a"},
        token=lambda: f"t{next(tokens)}",
    ) as client:
        client.infer("double", X, headers={"x-own": "b"})
    requests = found[protocol]
    assert {r["x-tenant"] for r in requests} == {"a"}
    assert [r["authorization"] for r in requests] == [f"Bearer t{i}" for i in range(len(requests))]
    assert [r.get("x-own") for r in requests] == [*[None] * (len(requests) - 1), "b"]


# Shared memory


def regions():
    """Those of this process's clients; the servers that it has started have others."""
    own = re.compile(rf"tritonkit-{os.getpid()}-\d+-[0-9a-f]{{12}}")
    return sorted(p.name for p in Path("/dev/shm").iterdir() if own.fullmatch(p.name))


def known(server):
    """The regions that the server knows."""
    with closing(GrpcTransport(parse_address(f"grpc://{server.endpoints.grpc}"))) as transport:
        return {r["name"] for r in transport.call(Operation.REGIONS, {}, timeout_s=5)}


@pytest.mark.parametrize("mode", [True, "auto", False])
def test_shared_memory_gives_the_same_answers(drive, address, triton, mode):
    """As the wire; and after close nothing is left of it, here or at the server."""
    rng = np.random.default_rng(3)
    before = known(triton), regions()
    with drive(address, shared_memory=mode) as client:
        for rows in (1, 3, 8, 20):
            x = rng.random((rows, WIDE), np.float32)
            np.testing.assert_array_equal(client.infer("wide", x)["y"], x + x)
        assert bool(set(regions()) - set(before[1])) == bool(mode)
    assert (known(triton), regions()) == before


def test_shared_memory_after_a_restart(drive, installed, repository, tmp_path):
    """A server that has forgotten the regions gets the request by wire, and then learns them."""
    ports = {}
    x = np.ones((8, WIDE), np.float32)
    options = ("--model-control-mode=explicit", "--load-model=wide")
    for_one = {"log": tmp_path / "log", "drain": False, "options": options}
    with EmbeddedTriton(repository, **for_one) as server:
        for name in ("http", "grpc", "metrics"):
            ports[f"{name}_port"] = int(getattr(server.endpoints, name).rpartition(":")[2])
        clients = [drive(f"{p}://{getattr(server.endpoints, p)}", shared_memory=True)
                   for p in PROTOCOLS]  # fmt: skip
        for client in clients:
            assert (client.infer("wide", x)["y"] == 2).all()
    with EmbeddedTriton(repository, **for_one, **ports) as server:
        for client in clients:
            for _ in range(3):
                assert (client.infer("wide", x)["y"] == 2).all()
        assert known(server)
        for client in clients:
            client.__exit__()
        assert not known(server)
    assert not regions()


def test_a_large_answer_of_a_deadline_that_passed(threaded):
    """A request that was given up does not spoil the memory of the next."""
    x = np.ones((8, WIDE), np.float32)
    for i in range(20):
        with suppress(RequestError):
            threaded.infer("wide", x * 9, timeout_s=0.0005 * (i + 1))
        assert (threaded.infer("wide", x)["y"] == 2).all()
