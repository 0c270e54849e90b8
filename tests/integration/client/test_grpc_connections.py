"""The gRPC transports' connections: foreign ports, a server that dies, closing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from tritonkit.client.address import parse_address
from tritonkit.client.operations import Operation
from tritonkit.client.transport import InferRequest, Tensor
from tritonkit.client.transports.grpc import GrpcTransport
from tritonkit.client.transports.grpc_aio import AsyncGrpcTransport
from tritonkit.errors import RequestError
from tritonkit.server.embedded import EmbeddedTriton

X = np.ones((1, 4), np.float32)

# Never answers.
ENDLESS = """
name: "endless" backend: "python" max_batch_size: 0
input [{ name: "x" data_type: TYPE_FP32 dims: [-1, 4] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [-1, 4] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
ENDLESS_MODEL = """
import time
from pathlib import Path

class TritonPythonModel:
    def execute(self, requests):
        Path(__file__).with_name("started").touch()
        time.sleep(600)
"""
SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # how an HTTP/2 server begins


def request(model: str = "double") -> InferRequest:
    return InferRequest(model, (Tensor("x", "FP32", X.shape, X.tobytes()),))


def failure(address: str, timeout_s: float = 5) -> RequestError:
    """What a request to `address` fails with; within the deadline."""
    started = time.monotonic()
    transport = GrpcTransport(parse_address(address))
    with closing(transport), pytest.raises(RequestError) as caught:
        transport.call(Operation.SERVER, {}, timeout_s=timeout_s)
    assert time.monotonic() - started < timeout_s + 0.5
    assert "\n" not in str(caught.value) and str(caught.value).startswith(address)
    return caught.value


def async_failure(address: str, timeout_s: float = 5) -> RequestError:
    async def run() -> RequestError:
        transport = AsyncGrpcTransport(parse_address(address))
        with pytest.raises(RequestError) as caught:
            await transport.call(Operation.SERVER, {}, timeout_s=timeout_s)
        await transport.close()
        return caught.value

    return asyncio.run(run())


def http(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def noise(connection: socket.socket) -> None:
    connection.sendall(bytes(range(7, 200)) * 10)


def silence(connection: socket.socket) -> None:
    connection.settimeout(None)
    while connection.recv(65536):
        pass


def half_silence(connection: socket.socket) -> None:
    connection.sendall(SETTINGS)
    silence(connection)


def end(connection: socket.socket) -> None:
    pass


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def end_under_way(connection: socket.socket) -> None:
    connection.sendall(SETTINGS)
    received = b""
    while b"ServerMetadata" not in received and b"/inference" not in received:
        received += connection.recv(65536)


def frame(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + b"\0\0\0\1" + payload


def reply(*frames: bytes) -> Callable[[socket.socket], None]:
    """An HTTP/2 server that answers the first request with these frames."""

    def serve(connection: socket.socket) -> None:
        end_under_way(connection)
        connection.sendall(b"".join(frames))
        silence(connection)

    return serve


def field(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


OK = b"\x88" + field(b"content-type", b"application/grpc")
STATUS_OK = frame(1, 5, field(b"grpc-status", b"0"))


@pytest.fixture
def port() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """The address of a port that treats every connection with a function, then closes it."""
    listeners: list[socket.socket] = []

    def treat(serve: Callable[[socket.socket], None], connection: socket.socket) -> None:
        connection.settimeout(10)
        with connection, suppress(OSError):
            serve(connection)

    def listen(listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=treat, args=(serve, connection), daemon=True).start()

    def start(serve: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=listen, args=(listener, serve), daemon=True).start()
        return f"grpc://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


PORTS = [
    (http, "protocol", "http://"),
    (noise, "protocol", "not gRPC"),
    (silence, "timeout", "in time"),
    (half_silence, "timeout", "in time"),
    (end, "refused", "closed as soon as connected"),
    (reset, "refused", "closed as soon as connected"),
    (end_under_way, "closed", "connection lost"),
    (reply(frame(1, 5, b"\x8d")), "protocol", "HTTP status 404"),
    (reply(frame(1, 5, b"\x08\x03503")), "unavailable", "503"),
    (reply(frame(1, 5, b"\x08\x03401")), "unauthenticated", "401"),
    (reply(frame(1, 5, b"\x88")), "protocol", "not a gRPC answer"),
    (reply(frame(3, 0, b"\0\0\0\7")), "unavailable", "no more requests"),
    (reply(frame(3, 0, b"\0\0\0\x08")), "closed", "connection lost"),
    (reply(frame(1, 4, OK), STATUS_OK), "protocol", "no message"),
    (
        reply(frame(1, 4, OK), frame(0, 0, b"\0\0\0\0\3\xff\xff\xff"), STATUS_OK),
        *("protocol", "no KServe v2 message"),
    ),
]


@pytest.mark.parametrize(("serve", "kind", "words"), PORTS)
def test_ports_that_are_no_tritons(
    port: Callable[..., str], serve: Callable[[socket.socket], None], kind: str, words: str
) -> None:
    """What answers nonsense, nothing, or not to the end has its kind within the deadline."""
    error = failure(port(serve), timeout_s=0.5 if kind == "timeout" else 5)
    assert (error.kind, words in str(error)) == (kind, True), str(error)


@pytest.mark.parametrize(("serve", "kind", "words"), PORTS)
def test_the_same_over_asyncio(
    port: Callable[..., str], serve: Callable[[socket.socket], None], kind: str, words: str
) -> None:
    """The asyncio transport reads them in the same way."""
    error = async_failure(port(serve), timeout_s=0.5 if kind == "timeout" else 5)
    assert (error.kind, words in str(error)) == (kind, True), str(error)


def test_nothing_listens(free_port: int) -> None:
    """A port without a listener refuses, with the system's reason."""
    error = failure(f"grpc://127.0.0.1:{free_port}")
    assert error.kind == "refused" and "Connection refused" in str(error)


def test_no_such_host() -> None:
    """A name that does not resolve is refused."""
    assert failure("grpc://no-such-host.invalid:8001", timeout_s=15).kind == "refused"


def test_tls_with_a_plain_port(port: Callable[..., str]) -> None:
    """grpcs:// to a port without TLS says so."""
    error = failure(port(http).replace("grpc://", "grpcs://"))
    assert error.kind == "protocol" and "grpc://" in str(error)


def test_a_servers_own_words(port: Callable[..., str]) -> None:
    """A status from the server keeps its text, whatever gRPC's own words it holds."""

    def abort(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.INTERNAL, "model: Connection reset by peer\nFailed parsing")
        return b""

    handler = grpc.unary_unary_rpc_method_handler(abort)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_registered_method_handlers(
        "inference.GRPCInferenceService", {"ServerMetadata": handler}
    )
    number = server.add_insecure_port("127.0.0.1:0")
    server.start()
    error = failure(f"grpc://127.0.0.1:{number}")
    server.stop(None).wait()
    assert error.kind == "failed"
    assert str(error).endswith(": model: Connection reset by peer Failed parsing")


# Of a real Triton


@pytest.fixture(scope="module")
def repository(
    installed: None, package: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("grpc") / "repository"
    package(folder, "slow")
    return package(folder, "double")


@pytest.fixture(scope="module")
def triton(repository: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(repository, log=repository.parent / "log", drain=False) as server:
        yield server


def answers(transport: GrpcTransport) -> bool:
    answer = transport.decode(transport.send(transport.encode(request()), timeout_s=20))
    return answer.outputs[0].data == (X + X).tobytes()


def test_tritons_http_port(triton: EmbeddedTriton) -> None:
    """Triton's HTTP port closes a gRPC connection without a word: the hint names http://."""
    error = failure(f"grpc://{triton.endpoints.http}")
    assert error.kind == "refused" and "use http://" in str(error)


def test_a_closed_transport(triton: EmbeddedTriton) -> None:
    """A closed transport may be closed again, and says so when it is used."""
    transport = GrpcTransport(parse_address(f"grpc://{triton.endpoints.grpc}"))
    transport.close()
    transport.close()
    with pytest.raises(RequestError, match="the client is closed") as caught:
        answers(transport)
    assert caught.value.kind == "closed"


def test_a_closed_async_transport(triton: EmbeddedTriton) -> None:
    """So it is over the asyncio transport, used before or not."""

    async def run(use: bool) -> RequestError:
        transport = AsyncGrpcTransport(parse_address(f"grpc://{triton.endpoints.grpc}"))
        message = transport.encode(request())
        if use:
            await transport.send(message, timeout_s=20)
        await transport.close()
        await transport.close()
        with pytest.raises(RequestError, match="the client is closed") as caught:
            await transport.send(message, timeout_s=20)
        return caught.value

    assert [asyncio.run(run(use)).kind for use in (False, True)] == ["closed", "closed"]


def slow(steps: int) -> InferRequest:
    data = np.array([[steps]]).tobytes()
    return InferRequest("slow", (Tensor("steps", "INT64", (1, 1), data),))


def test_a_request_under_way_outlives_the_closing(triton: EmbeddedTriton) -> None:
    """Closing waits for nobody and cuts nobody off."""
    address = parse_address(f"grpc://{triton.endpoints.grpc}")
    transport = GrpcTransport(address)
    message = transport.encode(slow(300))
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(transport.send, message, timeout_s=30)
        while not transport._in_use and not sent.done():
            time.sleep(0.001)
        transport.close()
        assert not sent.done()
        assert transport.decode(sent.result()).outputs[0].name == "turns"


def test_nothing_is_left_after_close(triton: EmbeddedTriton, wait_for: Callable[..., None]) -> None:
    """Neither threads nor connections outlive a transport."""
    number = int(triton.endpoints.grpc.rpartition(":")[2])
    before = set(threading.enumerate())

    def connections() -> int:
        found = psutil.Process().net_connections("tcp")
        return sum(1 for c in found if c.raddr and c.raddr.port == number)

    transport = GrpcTransport(parse_address(f"grpc://{triton.endpoints.grpc}"))
    assert answers(transport) and list(transport.stream(transport.encode(request()), timeout_s=9))
    assert connections() == 1
    transport.close()
    wait_for(lambda: not connections() and set(threading.enumerate()) <= before)


def test_a_server_that_is_killed(
    installed: None,
    package: Callable[..., Path],
    tmp_path: Path,
    free_port: int,
    wait_for: Callable[..., None],
) -> None:
    """A killed server's requests end as `closed`; it is found again on the same port."""
    repository = package(tmp_path / "repository", "double")
    version = repository / "endless" / "1"
    version.mkdir(parents=True)
    (repository / "endless" / "config.pbtxt").write_text(ENDLESS)
    (version / "model.py").write_text(ENDLESS_MODEL)

    def start() -> EmbeddedTriton:
        return EmbeddedTriton(repository, log=tmp_path / "log", grpc_port=free_port, drain=False)

    with closing(GrpcTransport(parse_address(f"grpc://127.0.0.1:{free_port}"))) as transport:
        message = transport.encode(request("endless"))
        with start() as server, ThreadPoolExecutor(1) as pool:
            sent = pool.submit(transport.send, message, timeout_s=60)
            wait_for((version / "started").exists)
            os.kill(server.pids()[0], signal.SIGKILL)
            error = sent.exception(10)
        assert isinstance(error, RequestError) and error.kind == "closed", error
        with pytest.raises(RequestError) as caught:
            answers(transport)
        assert caught.value.kind == "refused"
        with start():
            back, up = time.monotonic() + 3, False
            while not up and time.monotonic() < back:
                with suppress(RequestError):
                    up = answers(transport)
            assert up


def test_gevent_keeps_running(triton: EmbeddedTriton) -> None:
    """In a process patched by gevent other greenlets run while one waits for an answer."""
    code = f"""
        from gevent import monkey; monkey.patch_all()
        import gevent
        from tritonkit.client.address import parse_address
        from tritonkit.client.transports.grpc import GrpcTransport
        from tritonkit.client.transport import Cancellation, InferRequest, Tensor
        data = (300).to_bytes(8, "little")
        what = InferRequest("slow", (Tensor("steps", "INT64", (1, 1), data),))
        transport = GrpcTransport(parse_address("grpc://{triton.endpoints.grpc}"))
        message, ticks = transport.encode(what), []
        def tick():
            while True:
                ticks.append(1)
                gevent.sleep(0.001)
        gevent.spawn(tick)
        jobs = [gevent.spawn(transport.send, message, timeout_s=20) for _ in range(2)]
        gevent.joinall(jobs, raise_error=True)
        transport.send(message, timeout_s=20, cancellation=Cancellation())
        assert len(ticks) > 20, len(ticks)
        transport.close()
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        **{"capture_output": True, "text": True, "timeout": 60, "check": False},
    )
    assert done.stdout == "done\n", done.stderr
