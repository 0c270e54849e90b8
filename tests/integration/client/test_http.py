"""The HTTP transports, for threads and for asyncio, with real servers."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import shared_memory

import numpy as np
import psutil
import pytest
import uvicorn

from tritonkit.binary import from_bytes
from tritonkit.client.address import parse_address
from tritonkit.client.operations import Operation
from tritonkit.client.transport import Cancellation, InferRequest, Region, Tensor, Tls, Wanted
from tritonkit.client.transports.http import HttpTransport
from tritonkit.client.transports.http_aio import AsyncHttpTransport
from tritonkit.errors import InputError, RequestError
from tritonkit.server.baseline import OrtBaseline
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.signature import data_type, data_type_of

TIMEOUT_S = 20.0
BIG = 1 << 20


def tensor(name, array):
    return Tensor(name, data_type_of(array).name, array.shape, array.tobytes())


def arrays(response):
    """An answer's outputs by name."""
    return {o.name: from_bytes(o.data, data_type(o.datatype), o.shape) for o in response.outputs}


X = np.arange(8, dtype=np.float32).reshape(2, 4)
DOUBLE = InferRequest("double", (tensor("x", X),))


def slow(steps, rows=1):
    """A request that keeps the server busy for `steps` turns of about a millisecond."""
    return InferRequest("slow", (tensor("steps", np.full((rows, 1), steps, np.int64)),))


@pytest.fixture(scope="module")
def repository(package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("http") / "repository"
    for name in ("double", "many", "lookup"):
        package(folder, name)
    package(folder, f"(float[N,{BIG}] x) => (float[N,{BIG}] y) {{ y = Add(x, x) }}", name="big")
    return package(folder, "slow", threads=1, instances=2)


@pytest.fixture(scope="module")
def triton(installed, repository):
    """A Triton in which `lookup` is not loaded."""
    load = [f"--load-model={name}" for name in ("double", "many", "big", "slow")]
    options = ("--model-control-mode=explicit", *load)
    log = repository.parent / "triton.log"
    with EmbeddedTriton(repository, log=log, drain=False, options=options) as server:
        yield server


@pytest.fixture(scope="module")
def baseline(repository):
    with OrtBaseline(repository, "double", log=repository.parent / "baseline.log") as server:
        yield server


@pytest.fixture
def transport(triton):
    made = HttpTransport(parse_address(f"http://{triton.endpoints.http}"))
    yield made
    made.close()


class Blocking:
    """The transport for threads, as the tests that are for both use it."""

    def __init__(self, address, **options):
        self.transport = HttpTransport(parse_address(address), **options)

    def infer(self, request, timeout_s=TIMEOUT_S, **options):
        message = self.transport.encode(request)
        answer = self.transport.send(message, timeout_s=timeout_s, **options)
        return self.transport.decode(answer)

    def call(self, operation, timeout_s=TIMEOUT_S, **arguments):
        return self.transport.call(operation, arguments, timeout_s=timeout_s)

    def get_text(self, path):
        return self.transport.get_text(path, TIMEOUT_S)

    def stream(self, request):
        return list(self.transport.stream(self.transport.encode(request), timeout_s=1))

    def close(self):
        self.transport.close()


class Async:
    """The transport for asyncio, in a loop of its own."""

    def __init__(self, address, **options):
        self.runner = asyncio.Runner()
        self.transport = AsyncHttpTransport(parse_address(address), **options)

    def infer(self, request, timeout_s=TIMEOUT_S, **options):
        message = self.transport.encode(request)
        sending = self.transport.send(message, timeout_s=timeout_s, **options)
        return self.transport.decode(self.runner.run(sending))

    def call(self, operation, timeout_s=TIMEOUT_S, **arguments):
        return self.runner.run(self.transport.call(operation, arguments, timeout_s=timeout_s))

    def get_text(self, path):
        return self.runner.run(self.transport.get_text(path, TIMEOUT_S))

    def stream(self, request):
        async def every():
            message = self.transport.encode(request)
            return [answer async for answer in self.transport.stream(message, timeout_s=1)]

        return self.runner.run(every())

    def close(self):
        self.runner.run(self.transport.close())
        self.runner.close()


@pytest.fixture(params=[Blocking, Async])
def connect(request):
    """Make a client of either kind: `connect("host:port")`, closed in the end."""
    made = []

    def start(address, **options):
        scheme = "" if "://" in address else "http://"
        made.append(request.param(scheme + address, **options))
        return made[-1]

    yield start
    for client in made:
        client.close()


@pytest.fixture
def client(connect, triton):
    return connect(triton.endpoints.http)


@pytest.mark.parametrize("server", ["triton", "baseline"])
def test_an_answer_is_the_models_own(connect, request, server):
    """Both servers answer with the doubled input, the model's name and the request's id."""
    client = connect(request.getfixturevalue(server).endpoints.http)
    for _ in range(3):
        answer = client.infer(InferRequest("double", DOUBLE.inputs, "", (Wanted("y"),), "é 7"))
        np.testing.assert_array_equal(arrays(answer)["y"], 2 * X)
        assert (answer.model, answer.version, answer.id) == ("double", "1", "é 7")


def test_several_tensors(client):
    """Several inputs and outputs of several types keep their names, types and values."""
    given = {
        "f": np.ones((2, 2), np.float32),
        "i": np.full((2, 2), 1 << 40, np.int64),
        "b": np.array([[True, False]] * 2),
        "d": np.full((2, 2), 0.1),
    }
    request = InferRequest("many", tuple(tensor(n, a) for n, a in given.items()))
    answer = arrays(client.infer(request))
    assert set(answer) == set("FIBD")
    for name, array in given.items():
        expected = ~array if name == "b" else -array
        np.testing.assert_array_equal(answer[name.upper()], expected)


def test_only_the_wanted_outputs(client):
    """Outputs that are named come, in that order, and no others."""
    zeros = [np.zeros((1, 2), t) for t in (np.float32, np.int64, np.bool_, np.float64)]
    inputs = tuple(tensor(n, a) for n, a in zip("fibd", zeros, strict=True))
    answer = client.infer(InferRequest("many", inputs, outputs=(Wanted("D"), Wanted("F"))))
    assert {o.name for o in answer.outputs} == {"D", "F"}


def test_four_megabytes(client):
    """A tensor of 4 MB goes and comes whole."""
    x = np.random.default_rng(1).random((1, BIG), np.float32)
    answer = client.infer(InferRequest("big", (tensor("x", x),)))
    np.testing.assert_array_equal(arrays(answer)["y"], 2 * x)


def test_a_version(client):
    """A version that is there answers; one that is not is `not_found`."""
    assert client.infer(InferRequest("double", DOUBLE.inputs, "1")).version == "1"
    with pytest.raises(RequestError, match="version 9") as raised:
        client.infer(InferRequest("double", DOUBLE.inputs, "9"))
    assert raised.value.kind == "not_found"


def test_parameters(client):
    """Parameters of all types are taken, with those of the batcher's queue among them."""
    parameters = {"timeout": 5_000_000, "priority": 0, "mine": "a", "b": True, "f": 0.5}
    answer = client.infer(InferRequest("double", DOUBLE.inputs, parameters=parameters))
    np.testing.assert_array_equal(arrays(answer)["y"], 2 * X)


def test_classification(client):
    """The top classes of an output come as texts, best first."""
    answer = client.infer(InferRequest("double", DOUBLE.inputs, outputs=(Wanted("y", 2),)))
    assert answer.outputs[0].datatype == "BYTES" and answer.outputs[0].shape == (2, 2)
    texts = arrays(answer)["y"].ravel().tolist()
    assert texts == [b"6.000000:3", b"4.000000:2", b"14.000000:3", b"12.000000:2"]


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compression(connect, triton, compression):
    """Compressed both ways, requests and answers are what they are without."""
    client = connect(triton.endpoints.http, compression=compression)
    np.testing.assert_array_equal(arrays(client.infer(DOUBLE))["y"], 2 * X)
    x = np.zeros((1, BIG), np.float32)
    answer = client.infer(InferRequest("big", (tensor("x", x),)))
    np.testing.assert_array_equal(arrays(answer)["y"], x)
    with pytest.raises(RequestError, match="unexpected inference input"):
        client.infer(InferRequest("double", (tensor("q", X),)))


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (InferRequest("nope", DOUBLE.inputs), "not_found"),
        (InferRequest("lookup", DOUBLE.inputs), "not_found"),
        (InferRequest("a b/ü", DOUBLE.inputs), "not_found"),
        (InferRequest("double", (tensor("q", X),)), "invalid"),
        (InferRequest("double", ()), "invalid"),
        (InferRequest("double", (tensor("x", X.astype(np.float64)),)), "invalid"),
        (InferRequest("double", (tensor("x", np.ones((9, 4), np.float32)),)), "invalid"),
        (InferRequest("double", (tensor("x", X)._replace(data=b"1234"),)), "invalid"),
        (InferRequest("double", DOUBLE.inputs, outputs=(Wanted("z"),)), "invalid"),
        (InferRequest("double", (tensor("x", X)._replace(data=Region("no", 32)),)), "not_found"),
    ],
)
def test_what_triton_refuses(client, request_, kind):
    """Each refusal has its kind, and Triton's reason in one line; the next request works."""
    with pytest.raises(RequestError) as raised:
        client.infer(request_)
    assert raised.value.kind == kind and "\n" not in str(raised.value)
    np.testing.assert_array_equal(arrays(client.infer(DOUBLE))["y"], 2 * X)


def test_health(client):
    """Live and ready are bools; a model that is not loaded, or not known, is not ready."""
    assert client.call(Operation.LIVE) is True
    assert client.call(Operation.READY) is True
    ready = {m: client.call(Operation.MODEL_READY, model=m, version="") for m in ("double", "no")}
    assert ready == {"double": True, "no": False}
    assert client.call(Operation.MODEL_READY, model="double", version="9") is False


def test_what_a_server_says_of_itself_and_its_models(client):
    """Metadata, config and statistics have the form that `operations` promises."""
    server = client.call(Operation.SERVER)
    assert server["name"] == "triton" and "statistics" in server["extensions"]
    metadata = client.call(Operation.METADATA, model="double", version="")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert metadata["versions"] == ["1"] and metadata["platform"] == "onnxruntime_onnx"
    config = client.call(Operation.CONFIG, model="double", version="1")
    assert config["max_batch_size"] == 8 and config["input"][0]["dims"] == [4]
    client.infer(DOUBLE)
    (statistics,) = client.call(Operation.STATISTICS, model="double", version="")["model_stats"]
    assert statistics["inference_count"] >= 2 and statistics["memory_usage"] == []
    every = client.call(Operation.STATISTICS, model="", version="")["model_stats"]
    assert {"double", "many"} <= {s["name"] for s in every}


def test_load_and_unload(client, wait_for):
    """A model can be loaded, with another config, and unloaded; the index tells its state."""

    def state():
        return {m["name"]: m["state"] for m in client.call(Operation.INDEX, ready=False)}["lookup"]

    config = client.call(Operation.CONFIG, model="double", version="")
    changed = {
        "backend": "onnxruntime",
        "max_batch_size": 3,
        "input": [{"name": "x", "data_type": "TYPE_INT64", "dims": [1]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [1]}],
        "instance_group": config["instance_group"],
    }
    client.call(Operation.LOAD, model="lookup", config=json.dumps(changed), files={})
    assert client.call(Operation.CONFIG, model="lookup", version="")["max_batch_size"] == 3
    assert state() == "READY"
    client.call(Operation.UNLOAD, model="lookup", unload_dependents=False)
    wait_for(lambda: state() == "UNAVAILABLE")
    ready = {m["name"] for m in client.call(Operation.INDEX, ready=True)}
    assert "double" in ready and "lookup" not in ready


def test_load_from_files(client, onnx_file, wait_for):
    """A model can be loaded from files that the request carries."""
    config = client.call(Operation.CONFIG, model="double", version="")
    wanted = {k: config[k] for k in ("backend", "max_batch_size", "input", "output")}
    triple = onnx_file(
        "(float[N,4] x) => (float[N,4] y) { a = Add(x, x) y = Add(a, x) }"
    ).read_bytes()
    files = {"1/model.onnx": triple}
    client.call(Operation.LOAD, model="triple", config=json.dumps(wanted), files=files)
    answer = client.infer(InferRequest("triple", DOUBLE.inputs))
    np.testing.assert_array_equal(arrays(answer)["y"], 3 * X)
    client.call(Operation.UNLOAD, model="triple", unload_dependents=False)
    wait_for(lambda: not client.call(Operation.MODEL_READY, model="triple", version=""))


def test_a_model_that_cannot_be_loaded(client):
    """A load that fails is `failed`, with Triton's reason."""
    with pytest.raises(RequestError, match="failed to load 'nope'") as raised:
        client.call(Operation.LOAD, model="nope", config=None, files={})
    assert raised.value.kind == "failed"


def test_trace_settings(client):
    """Trace settings are read, set for a model, and reset."""
    assert client.call(Operation.TRACE, model="", settings={})["trace_level"] == ["OFF"]
    told = client.call(Operation.TRACE, model="double", settings={"trace_rate": 7})
    assert told["trace_rate"] == "7"
    told = client.call(Operation.TRACE, model="double", settings={"trace_rate": None})
    assert told["trace_rate"] == "1000"


def test_log_settings(client):
    """Log settings are read and set; those that Triton does not let be set are `unsupported`."""
    assert client.call(Operation.LOG, settings={})["log_info"] is True
    assert client.call(Operation.LOG, settings={"log_verbose_level": 1})["log_verbose_level"] == 1
    client.call(Operation.LOG, settings={"log_verbose_level": 0})
    with pytest.raises(RequestError) as raised:
        client.call(Operation.LOG, settings={"log_file": "x"})
    assert raised.value.kind == "unsupported"


def test_shared_memory(client):
    """Tensors in a shared memory region are read and written there; the region can be forgotten."""
    memory = shared_memory.SharedMemory(create=True, size=64)
    try:
        memory.buf[:32] = X.tobytes()
        region = {"name": "r", "key": f"/{memory.name}", "byte_size": 64, "offset": 0}
        client.call(Operation.REGISTER, **region)
        assert client.call(Operation.REGIONS) == [region]
        request = InferRequest(
            "double",
            (Tensor("x", "FP32", (2, 4), Region("r", 32)),),
            outputs=(Wanted("y", region=Region("r", 32, 32)),),
        )
        (output,) = client.infer(request).outputs
        assert output.data == Region("r", 32, 32) and output.shape == (2, 4)
        assert bytes(memory.buf[32:]) == (2 * X).tobytes()
        with pytest.raises(RequestError) as raised:
            client.call(Operation.REGISTER, **region)
        assert raised.value.kind == "invalid"
        client.call(Operation.UNREGISTER, name="r")
        assert client.call(Operation.REGIONS) == []
    finally:
        memory.close()
        memory.unlink()


def test_metrics(connect, triton):
    """Text such as Triton's metrics can be had."""
    assert "nv_inference_count" in connect(triton.endpoints.metrics).get_text("/metrics")


def test_streaming_is_for_grpc(client):
    """A stream over HTTP is `unsupported`, and the message says where there is one."""
    with pytest.raises(RequestError, match="grpc://") as raised:
        client.stream(DOUBLE)
    assert raised.value.kind == "unsupported"


def test_the_grpc_port(connect, triton):
    """Spoken to by HTTP, Triton's gRPC port is `protocol`, and the message says gRPC."""
    with pytest.raises(RequestError, match="grpc://") as raised:
        connect(triton.endpoints.grpc).call(Operation.SERVER)
    assert raised.value.kind == "protocol"


def test_the_deadline(client):
    """A model that takes longer than the deadline is given up then; the transport goes on."""
    start = time.perf_counter()
    with pytest.raises(RequestError) as raised:
        client.infer(slow(1_000), timeout_s=0.2)
    assert raised.value.kind == "timeout"
    assert 0.2 <= time.perf_counter() - start < 1
    assert client.call(Operation.LIVE)


def test_no_deadline(client):
    """Without a deadline an answer is waited for."""
    np.testing.assert_array_equal(arrays(client.infer(DOUBLE, timeout_s=None))["y"], 2 * X)


def test_headers(client):
    """A user's headers are sent; one that would break the request is refused before."""
    client.infer(DOUBLE, headers={"Authorization": "Bearer x", "Host": "other"})
    with pytest.raises(InputError, match="X-Bad"):
        client.infer(DOUBLE, headers={"X-Bad": "a\r\nContent-Length: 0"})


def test_a_closed_client(client):
    """After close, which may be repeated, a request is refused as `closed`."""
    client.infer(DOUBLE)
    for _ in range(2):
        client.runner.run(client.transport.close()) if isinstance(client, Async) else client.close()
    with pytest.raises(RequestError, match="the client is closed") as raised:
        client.infer(DOUBLE)
    assert raised.value.kind == "closed"


def test_cancelled_from_another_thread(transport):
    """What another thread cancels raises `cancelled` at once; the transport goes on."""
    cancellation = Cancellation()
    timer = threading.Timer(0.1, cancellation.cancel)
    timer.start()
    start = time.perf_counter()
    with pytest.raises(RequestError) as raised:
        transport.send(
            transport.encode(slow(1_000)), timeout_s=TIMEOUT_S, cancellation=cancellation
        )
    assert raised.value.kind == "cancelled" and time.perf_counter() - start < 1
    timer.join()
    assert transport.call(Operation.LIVE, {}, timeout_s=TIMEOUT_S)


def test_cancelled_before(transport):
    """What was cancelled before it was sent is `cancelled`."""
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(RequestError) as raised:
        transport.send(transport.encode(DOUBLE), timeout_s=5, cancellation=cancellation)
    assert raised.value.kind == "cancelled"


def test_cancelled_after(transport):
    """A cancellation that comes after the answer does nothing to the next request."""
    cancellation = Cancellation()
    message = transport.encode(DOUBLE)
    transport.send(message, timeout_s=5, cancellation=cancellation)
    cancellation.cancel()
    (idle,) = transport._idle
    transport.send(message, timeout_s=5)
    assert list(transport._idle) == [idle]


def test_a_cancelled_task(triton):
    """Cancelling the task ends the request on its connection, and is the task's own error."""

    async def main():
        transport = AsyncHttpTransport(parse_address(f"http://{triton.endpoints.http}"))
        task = asyncio.create_task(transport.send(transport.encode(slow(1_000)), timeout_s=None))
        while not open_connections(triton):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not open_connections(triton)
        assert await transport.call(Operation.LIVE, {}, timeout_s=TIMEOUT_S)
        await transport.close()

    asyncio.run(main())


def open_connections(server):
    """This process's connections to a server's HTTP port."""
    port = int(server.endpoints.http.rpartition(":")[2])
    return [
        c
        for c in psutil.Process().net_connections("tcp")
        if c.raddr and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED
    ]


def test_sixteen_threads(transport, triton):
    """Threads share a transport: every answer is its own request's, and close leaves nothing."""
    threads = threading.active_count()

    def work(seed):
        for k in range(30):
            x = np.full((1, 4), seed * 100 + k, np.float32)
            request = InferRequest("double", (tensor("x", x),), id=f"{seed}-{k}")
            answer = transport.decode(transport.send(transport.encode(request), timeout_s=30))
            assert answer.id == request.id
            np.testing.assert_array_equal(arrays(answer)["y"], 2 * x)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert 1 <= len(open_connections(triton)) <= 16
    transport.close()
    assert not open_connections(triton)
    assert threading.active_count() == threads


def test_one_thread_uses_one_connection(transport, triton):
    """Requests that follow each other go over one connection."""
    before = len(open_connections(triton))
    for _ in range(5):
        transport.send(transport.encode(DOUBLE), timeout_s=TIMEOUT_S)
    assert len(open_connections(triton)) == before + 1


def test_a_connection_in_use_at_close_is_closed_when_it_is_free(transport, triton):
    """A request under way when the transport is closed has its answer, and leaves nothing open."""
    with ThreadPoolExecutor(1) as pool:
        message = transport.encode(slow(300))
        answer = pool.submit(transport.send, message, timeout_s=TIMEOUT_S)
        while not open_connections(triton):
            assert not answer.done()
        transport.close()
        assert transport.decode(answer.result()).model == "slow"
    assert not open_connections(triton)


def test_a_forked_process_makes_its_own_connections(transport):
    """After a fork the child does not use the parent's connections, whose answers are not its."""
    transport.send(transport.encode(DOUBLE), timeout_s=TIMEOUT_S)
    (inherited,) = transport._idle
    child = os.fork()
    if not child:
        transport.send(transport.encode(DOUBLE), timeout_s=TIMEOUT_S)
        os._exit(0 if list(transport._idle) != [inherited] and not inherited.is_open else 1)
    assert os.waitpid(child, 0)[1] == 0
    transport.send(transport.encode(DOUBLE), timeout_s=TIMEOUT_S)
    assert list(transport._idle) == [inherited]


def in_a_new_process(*arguments):
    """Run Python; returns what it printed and what it complained of."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip(), done.stderr


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import sys, gevent, time
import numpy as np
from tritonkit.client.address import parse_address
from tritonkit.client.transports.http import HttpTransport
from tritonkit.client.transport import InferRequest, Tensor
transport = HttpTransport(parse_address(sys.argv[1]))
def slow(steps):
    data = np.array([[steps]], np.int64).tobytes()
    return transport.encode(InferRequest("slow", (Tensor("steps", "INT64", (1, 1), data),)))
def work(seed):
    for k in range(5):
        x = np.full((1, 4), seed * 10 + k, np.float32)
        request = InferRequest("double", (Tensor("x", "FP32", (1, 4), x.tobytes()),))
        answer = transport.decode(transport.send(transport.encode(request), timeout_s=30))
        assert np.frombuffer(answer.outputs[0].data, np.float32).tolist() == (2 * x).tolist()[0]
    return 1
held = gevent.spawn(transport.send, slow(1000), timeout_s=30)
jobs = [gevent.spawn(work, seed) for seed in range(64)]
gevent.joinall(jobs, raise_error=True)
waited = not held.dead
held.kill()
transport.close()
print(sum(job.value for job in jobs), waited)
"""


def test_sixty_four_greenlets(triton):
    """In a process that gevent has patched greenlets share a transport, and none blocks another."""
    told = in_a_new_process("-c", GREENLETS, f"http://{triton.endpoints.http}")
    assert told == ("64 True", "")


NEVER_CLOSED = """
import sys
from tritonkit.client.address import parse_address
from tritonkit.client.transports.http import HttpTransport
from tritonkit.client.operations import Operation
transport = HttpTransport(parse_address(sys.argv[1]))
print(transport.call(Operation.LIVE, {}, timeout_s=9))
"""
ASYNC_NEVER_CLOSED = """
import asyncio, sys
from tritonkit.client.address import parse_address
from tritonkit.client.transports.http_aio import AsyncHttpTransport
from tritonkit.client.operations import Operation
transport = AsyncHttpTransport(parse_address(sys.argv[1]))
for _ in range(2):
    print(asyncio.run(transport.call(Operation.LIVE, {}, timeout_s=9)))
"""


def test_never_closed(triton):
    """A transport that is never closed leaves no open sockets at exit to be warned of."""
    told = in_a_new_process("-X", "dev", "-c", NEVER_CLOSED, f"http://{triton.endpoints.http}")
    assert told == ("True", "")


def test_never_closed_and_used_in_two_loops(triton):
    """One for asyncio works in a second loop too, and is as silent with Python's own settings."""
    told = in_a_new_process("-c", ASYNC_NEVER_CLOSED, f"http://{triton.endpoints.http}")
    assert told == ("True\nTrue", "")


def test_forgotten(triton):
    """A transport that is garbage closes its connections."""
    forgotten = HttpTransport(parse_address(f"http://{triton.endpoints.http}"))
    forgotten.call(Operation.LIVE, {}, timeout_s=TIMEOUT_S)
    assert open_connections(triton)
    del forgotten
    gc.collect()
    assert not open_connections(triton)


def test_a_server_that_is_killed_and_comes_back(repository, free_port, wait_for):
    """Requests that run on a server that is killed are `closed`, later ones are `refused`, until
    it is back: then the same transport works.
    """

    def start(name):
        return EmbeddedTriton(
            repository,
            log=repository.parent / f"{name}.log",
            http_port=free_port,
            drain=False,
            options=("--model-control-mode=explicit", "--load-model=slow"),
        )

    transport = HttpTransport(parse_address(f"http://127.0.0.1:{free_port}"))
    message = transport.encode(slow(3_000, rows=8))  # which no batch has room for two of
    with ThreadPoolExecutor(3) as pool, start("first") as server:
        metrics = HttpTransport(parse_address(f"http://{server.endpoints.metrics}"))
        assert transport.call(Operation.LIVE, {}, timeout_s=TIMEOUT_S)
        answers = [pool.submit(transport.send, message, timeout_s=TIMEOUT_S) for _ in range(3)]
        third_waits = 'nv_inference_pending_request_count{model="slow",version="1"} 1'
        wait_for(lambda: third_waits in metrics.get_text("/metrics", TIMEOUT_S))
        metrics.close()
        for pid in server.pids():
            os.kill(pid, signal.SIGKILL)
        for answer in answers:
            with pytest.raises(RequestError) as raised:
                answer.result()
            assert raised.value.kind == "closed"
        server.wait()
        with pytest.raises(RequestError) as raised:
            transport.send(message, timeout_s=TIMEOUT_S)
        assert raised.value.kind == "refused"
    with start("second"):
        assert transport.decode(transport.send(transport.encode(slow(1)), timeout_s=30)).outputs
    transport.close()


@contextmanager
def tls_server(certificates, **options):
    """A server of another make over TLS: knows its own name. Yields its address."""

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        while (await receive()).get("more_body"):
            pass
        body = b'{"name": "' + b"s" * 200_000 + b'"}'
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    files = {
        "ssl_keyfile": certificates / "localhost.key",
        "ssl_certfile": certificates / "localhost.pem",
    }
    config = uvicorn.Config(
        app, port=0, lifespan="off", loop="asyncio", log_level="critical", **files, **options
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"https://localhost:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def https(certificates):
    with tls_server(certificates) as address:
        yield address


@pytest.fixture(scope="module")
def mutual(certificates):
    with tls_server(
        certificates, ssl_ca_certs=certificates / "ca.pem", ssl_cert_reqs=ssl.CERT_REQUIRED
    ) as address:
        yield address


def test_tls(connect, https, certificates):
    """Over TLS with the authority of the server's certificate requests work, one after another."""
    client = connect(https, tls=Tls(ca=certificates / "ca.pem"))
    for _ in range(3):
        assert len(client.call(Operation.SERVER)["name"]) == 200_000


def test_one_tls_connection_is_used_again(https, certificates):
    """What TLS itself has to say on an idle connection does not make it look used up."""
    transport = HttpTransport(parse_address(https), tls=Tls(ca=certificates / "ca.pem"))
    transport.call(Operation.SERVER, {}, timeout_s=TIMEOUT_S)
    (first,) = transport._idle
    transport.call(Operation.SERVER, {}, timeout_s=TIMEOUT_S)
    assert list(transport._idle) == [first]
    transport.close()


def test_a_large_request_over_tls(connect, https, certificates):
    """A request of many megabytes goes over TLS, and what answers it is no inference."""
    client = connect(https, tls=Tls(ca=certificates / "ca.pem"))
    large = Tensor("x", "UINT8", (1 << 23,), bytes(1 << 23))
    with pytest.raises(RequestError) as raised:
        client.infer(InferRequest("m", (large,)))
    assert raised.value.kind == "protocol"


def test_an_authority_that_is_not_trusted(connect, https):
    """A certificate of an unknown authority is `refused`: nothing is sent."""
    with pytest.raises(RequestError, match="not trusted") as raised:
        connect(https).call(Operation.SERVER)
    assert raised.value.kind == "refused"


def test_a_certificate_of_another_host(connect, https, certificates):
    """A certificate that names another host is `refused`."""
    client = connect(https.replace("localhost", "127.0.0.1"), tls=Tls(ca=certificates / "ca.pem"))
    with pytest.raises(RequestError, match="not trusted"):
        client.call(Operation.SERVER)


def test_mutual_tls(connect, mutual, certificates):
    """A server that asks for a client's certificate takes the right one."""
    tls = Tls(certificates / "ca.pem", certificates / "client.pem", certificates / "client.key")
    assert connect(mutual, tls=tls).call(Operation.SERVER)["name"]


def test_mutual_tls_without_a_certificate(connect, certificates):
    """Without one, a server that asks for a client's certificate is `unauthenticated`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificates / "localhost.pem", certificates / "localhost.key")

    def refuse(listener):
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with (
                context.wrap_socket(peer, server_side=True, do_handshake_on_connect=False) as talk,
                suppress(ConnectionError),
            ):
                with pytest.raises(ssl.SSLError):
                    talk.do_handshake()
                # Closing with the request unread would be a reset, which overtakes the alert.
                while socket.socket.recv(talk, 65536):
                    pass

    with ThreadPoolExecutor(1) as pool, socket.create_server(("127.0.0.1", 0)) as listener:
        pool.submit(refuse, listener)
        client = connect(
            f"https://localhost:{listener.getsockname()[1]}", tls=Tls(certificates / "ca.pem")
        )
        try:
            with pytest.raises(RequestError, match="certificate") as raised:
                client.call(Operation.SERVER)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    assert raised.value.kind == "unauthenticated"


def test_tls_to_a_plain_port(connect, triton, certificates):
    """TLS with a server that does not speak it fails before anything is sent."""
    with pytest.raises(RequestError) as raised:
        connect(f"https://{triton.endpoints.http}").call(Operation.SERVER)
    assert raised.value.kind in ("refused", "protocol")


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (("missing.pem", None, None), "missing.pem"),
        (("junk.pem", None, None), "junk.pem"),
        ((".", None, None), "cannot be read"),
        (("ca.pem", "client.pem", None), "needs its key"),
        (("ca.pem", None, "client.key"), "its certificate"),
        (("ca.pem", "missing.pem", "client.key"), "missing.pem"),
        (("ca.pem", "client.pem", "missing.key"), "missing.key"),
        (("ca.pem", "client.pem", "junk.pem"), "junk.pem"),
        (("ca.pem", "client.pem", "other.key"), "other.key"),
    ],
)
@pytest.mark.parametrize("kind", [HttpTransport, AsyncHttpTransport])
def test_tls_files_that_cannot_be_used(certificates, kind, files, named):
    """A file that is missing, is no PEM, or does not fit is the user's mistake, and named."""
    tls = Tls(*(None if name is None else certificates / name for name in files))
    with pytest.raises(InputError, match=named):
        kind(parse_address("https://localhost"), tls=tls)


@pytest.mark.parametrize("kind", [HttpTransport, AsyncHttpTransport])
def test_tls_without_https(kind):
    """Certificates for an address without TLS are a mistake, with the remedy."""
    with pytest.raises(InputError, match="https://"):
        kind(parse_address("http://localhost"), tls=Tls())


def test_no_sockets_without_a_request():
    """A transport connects when it has something to send, not before."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = HttpTransport(parse_address("http://{}:{}".format(*listener.getsockname())))
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
        transport.close()
