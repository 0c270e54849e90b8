"""Whole clients against bad input, and against servers that fail in every way there is."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import random
import signal
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.ids import by_repr

from tritonkit import NO_RETRIES, AsyncClient, Client
from tritonkit.client.transports import grpc_codec
from tritonkit.errors import (
    DeadlineError,
    InputError,
    NotFoundError,
    RejectedError,
    RequestError,
    TensorError,
    UnavailableError,
    request_error,
)
from tritonkit.server.embedded import EmbeddedTriton

CLIENTS = (Client, AsyncClient)
PROTOCOLS = ("grpc", "http")
X = np.ones((1, 4), np.float32)
DEADLINE_S = 0.5
SLACK_S = 1.0


class Driven:
    """A client of either kind, its verbs called the same way."""

    def __init__(self, kind, address, **options):
        self.runner = asyncio.Runner() if kind is AsyncClient else None
        self.client = kind(address, **options)

    def __getattr__(self, verb):
        def call(*arguments, **options):
            answer = getattr(self.client, verb)(*arguments, **options)
            if self.runner is not None and inspect.iscoroutine(answer):
                return self.runner.run(answer)
            return answer

        return call

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        if self.runner is not None:
            self.runner.close()


@pytest.fixture(params=CLIENTS)
def drive(request):
    """`drive(address, …)`: a client of either kind."""
    return lambda address, **options: Driven(request.param, address, **options)


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture(scope="module")
def repository(package, tmp_path_factory):
    folder = package(tmp_path_factory.mktemp("faults") / "repository", "double")
    package(folder, f"(float[N,{1 << 20}] x) => (float[N,{1 << 20}] y) {{ y = Add(x, x) }}",
            name="big", max_batch_size=64)  # fmt: skip
    package(folder, "many")
    return package(folder, "slow", threads=1, instances=2)


@pytest.fixture(scope="module")
def triton(installed, repository):
    log = repository.parent / "log"
    with EmbeddedTriton(repository, log=log, drain=False) as server:
        yield server


def address_of(server, protocol):
    return f"{protocol}://{getattr(server.endpoints, protocol)}"


@pytest.fixture
def client(drive, triton, protocol):
    with drive(address_of(triton, protocol)) as made:
        yield made


def doubles(client, **options):
    return bool((client.infer("double", X, **options)["y"] == 2 * X).all())


@contextmanager
def fails(kind, within_s=DEADLINE_S + SLACK_S, match=""):
    """The block raises the error of the tree that this kind belongs to, soon."""
    began = time.monotonic()
    with pytest.raises(RequestError, match=match) as caught:
        yield
    took_s = time.monotonic() - began
    assert caught.value.kind == kind, caught.value
    assert type(caught.value) is type(request_error(kind, ""))
    assert took_s < within_s
    assert "\n" not in str(caught.value)


# Bad input


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"z": X}, "no input 'z'"),
        ({"x": X, "z": X}, "no input 'z'"),
        (None, "no inputs"),
        (X.astype(np.int64) * 2**40, "int64"),
        (X.astype(complex), "complex"),
        (np.ones((1, 5), np.float32), "dimension 1 must be 4"),
        (np.ones((1, 1, 4), np.float32), "2 dimensions"),
        (1.0, "2 dimensions"),
        ([[1, 2, 3, 4], [5]], "input 'x'"),
        ("four", "input 'x'"),
        (object(), "input 'x'"),
    ],
    ids=by_repr,
)
def test_inputs_that_do_not_fit(client, inputs, words):
    """They are refused before anything is sent, in words that say what the model takes."""
    with pytest.raises(TensorError, match=words) as caught:
        client.infer("double", inputs)
    assert "x:FP32" in str(caught.value)


def test_no_rows(client):
    """A request has at least one row."""
    with pytest.raises(TensorError, match="no rows"):
        client.infer("double", X[:0])


def test_rows_that_differ(client):
    """The inputs of one request have equally many rows."""
    given = {n: np.zeros((1, 2), d) for n, d in zip("fibd", "fq?d", strict=True)}
    given["i"] = np.zeros((2, 2), np.int64)
    with pytest.raises(TensorError, match="the same number of rows"):
        client.infer("many", given)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan(drive, triton, protocol, value):
    """NaN and infinity are sent, or refused, as the client was told."""
    x = np.array([[1, 2, value, 4]], np.float32)
    with drive(address_of(triton, protocol)) as client:
        np.testing.assert_array_equal(client.infer("double", x)["y"], 2 * x)
    with (
        drive(address_of(triton, protocol), nan="refuse") as client,
        pytest.raises(TensorError, match=r"at \[0, 2\]"),
    ):
        client.infer("double", x)


def test_an_unknown_output(client):
    """An output that the model has not is refused before anything is sent."""
    with pytest.raises(TensorError, match="no output 'z'"):
        client.infer("double", X, outputs=["z"])


@pytest.mark.parametrize(
    "which", [{"model": "nix"}, {"version": "7"}, {"model": "nix", "version": "1"}]
)
def test_an_unknown_model_or_version(client, which):
    """It is not found, and the message names it."""
    which = {"model": "double", **which}
    model = which.pop("model")
    with pytest.raises(NotFoundError, match=r"nix|7"):
        client.infer(model, X, **which)


def test_a_version_that_is_no_number(client):
    """Triton's refusal of it is a RequestError."""
    with pytest.raises(RequestError):
        client.infer("double", X, version="one")


def test_bad_input_leaves_the_client_usable(client):
    """After a refusal the next request is answered."""
    with suppress(InputError):
        client.infer("double", "four")
    with suppress(RequestError):
        client.infer("nix", X)
    assert doubles(client)


# Too large


def test_a_message_beyond_grpcs_limit(drive, triton, monkeypatch):
    """It is refused before it is sent, and the message says what to do."""
    monkeypatch.setattr(grpc_codec, "MAX_MESSAGE_BYTES", 1 << 20)
    with drive(address_of(triton, "grpc"), shared_memory=False) as client:
        with pytest.raises(RejectedError, match="use shared memory") as caught:
            client.infer("big", np.ones((1, 1 << 20), np.float32))
        assert caught.value.kind == "too_large"
        assert doubles(client)


def test_a_message_beyond_grpcs_limit_goes_by_shared_memory(drive, triton, monkeypatch):
    """What gRPC could not carry goes through shared memory."""
    monkeypatch.setattr(grpc_codec, "MAX_MESSAGE_BYTES", 1 << 20)
    with drive(address_of(triton, "grpc"), shared_memory="auto") as client:
        x = np.ones((1, 1 << 20), np.float32)
        assert (client.infer("big", x)["y"] == 2).all()


def test_32_megabytes(drive, triton, protocol):
    """32 MB in one request is no trouble."""
    with drive(address_of(triton, protocol), shared_memory=False) as client:
        x = np.ones((8, 1 << 20), np.float32)
        assert (client.infer("big", x)["y"] == 2).all()


# A real server that fails


class Mortal:
    """A server that may be killed, and started again on its ports."""

    def __init__(self, repository):
        self._repository = repository
        self._ports = {}
        self.start()

    def start(self):
        log = self._repository.parent / "log"
        self.server = EmbeddedTriton(self._repository, log=log, drain=False, **self._ports)
        self.server.__enter__()
        for name in ("http", "grpc", "metrics"):
            _, _, port = getattr(self.server.endpoints, name).rpartition(":")
            self._ports[f"{name}_port"] = int(port)

    def signal(self, number):
        os.kill(self.server.pids()[0], number)

    def stop(self, wait_for):
        """Stop it, and return when all its threads have."""
        self.signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.server.pids()[0]}/task")

        def states():
            return {(t / "stat").read_text().rpartition(")")[2].split()[0] for t in tasks.iterdir()}

        wait_for(lambda: states() == {"T"})

    def end(self):
        self.server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def _mortal(installed, package, tmp_path_factory):
    repository = package(tmp_path_factory.mktemp("mortal") / "repository", "double")
    package(repository, f"(float[N,{1 << 18}] x) => (float[N,{1 << 18}] y) {{ y = Add(x, x) }}",
            name="big")  # fmt: skip
    made = Mortal(package(repository, "slow", threads=1))
    yield made
    made.end()


@pytest.fixture
def mortal(_mortal):
    """A server of these tests' own, which runs before each, whatever the last one did to it."""
    if not _mortal.server.pids():
        _mortal.end()
        _mortal.start()
    yield _mortal
    with suppress(ProcessLookupError, IndexError):
        _mortal.signal(signal.SIGCONT)


def executing(server):
    """Whether a request is at work on `slow`: its stub uses the CPU."""
    stubs = psutil.Process(server.pids()[0]).children(recursive=True)
    return sum(p.cpu_times().user for p in stubs)


def test_killed_and_back(drive, protocol, mortal, wait_for):
    """A request under way when its server is killed is closed, the next refused; a server that
    is back on the same port is found by the same client.
    """
    options = {"retries": NO_RETRIES, "shared_memory": False}
    with drive(address_of(mortal.server, protocol), timeout_s=60, **options) as client:
        client.infer("slow", [[1]])
        at_rest = executing(mortal.server)
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(client.infer, "slow", [[1_000_000]])
            wait_for(lambda: executing(mortal.server) > at_rest + 0.4)
            killed = time.monotonic()
            mortal.signal(signal.SIGKILL)
            error = sent.exception(20)
        assert isinstance(error, UnavailableError) and error.kind == "closed", error
        assert time.monotonic() - killed < 5
        mortal.end()
        with fails("refused"):
            client.infer("double", X, timeout_s=DEADLINE_S)
        mortal.start()
        client.wait_until_ready("double", timeout_s=20)
        assert doubles(client)


def test_stopped_and_continued(drive, protocol, mortal, wait_for):
    """A server that was stopped is silent: the deadline holds. Continued, it works again."""
    with drive(address_of(mortal.server, protocol)) as client:
        assert doubles(client)
        mortal.stop(wait_for)
        with fails("timeout"):
            client.infer("double", X, timeout_s=DEADLINE_S)
        assert not client.is_live(timeout_s=0.2)
        mortal.signal(signal.SIGCONT)
        assert doubles(client)


def test_closing_beside_a_stopped_server(drive, protocol, mortal, wait_for):
    """Shared memory that a stopped server cannot be told to forget does not hold up the end."""
    with drive(address_of(mortal.server, protocol), shared_memory=True) as client:
        for rows in (1, 2, 4, 8):
            client.infer("big", np.ones((rows, 1 << 18), np.float32))
        mortal.stop(wait_for)
        began = time.monotonic()
    assert time.monotonic() - began < 3


def test_a_silent_server_beside_one_that_works(listening, drive, protocol, triton):
    """It is live, and ready, if one of several servers is."""
    with listening(stay_silent) as silent:
        addresses = [f"{protocol}://{silent}", address_of(triton, protocol)]
        with drive(addresses, timeout_s=4) as client:
            assert client.is_live() and client.is_ready("double")


def test_slow(client):
    """A model that is slower than the deadline is a timeout, and the client goes on."""
    with fails("timeout", within_s=0.3 + SLACK_S):
        client.infer("slow", [[3000]], timeout_s=0.3)
    assert doubles(client)


# Servers that are none


def stay_silent(peer):
    while peer.recv(65536):
        pass


def hang_up(peer):
    pass


def half_close(peer):
    peer.shutdown(socket.SHUT_WR)
    stay_silent(peer)


def say(data):
    def talk(peer):
        peer.recv(65536)
        peer.sendall(data)
        stay_silent(peer)

    return talk


def drip(data):
    """One byte at a time, for ever."""

    def talk(peer):
        peer.settimeout(0.005)
        while True:
            for i in range(len(data)):
                peer.sendall(data[i : i + 1])
                with suppress(TimeoutError):
                    if not peer.recv(65536):
                        return

    return talk


def page(status, *headers):
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/html", "Content-Length: 6", *headers]
    return say("\r\n".join([*lines, "", "<html>"]).encode())


NOISE = random.Random(5).randbytes(4000)

# The talk, what it is over gRPC, over HTTP, and over both with TLS.
PORTS = {
    "silent": (stay_silent, "timeout", "timeout", "timeout"),
    "hangs up": (hang_up, "refused", "closed", "refused"),
    "half closed": (half_close, "refused", "closed", "refused"),
    "noise": (say(NOISE), "protocol", "protocol", "protocol"),
    "drips HTTP": (drip(b"HTTP/1.1 100 Continue\r\n\r\n"), "protocol", "timeout", "protocol"),
    "drips HTTP/2": (drip(b"\0\0\0\4\0\0\0\0\0"), "timeout", "protocol", "protocol"),
    "a page": (page("200 OK"), "protocol", "protocol", "protocol"),
    "404": (page("404 Not Found"), "protocol", "not_found", "protocol"),
    "302": (page("302 Found", "Location: /"), "protocol", "protocol", "protocol"),
}


@pytest.mark.parametrize("scheme", ["grpc", "http", "grpcs", "https"])
@pytest.mark.parametrize("port", PORTS)
def test_a_port_that_is_no_tritons(listening, drive, scheme, port):
    """Whatever answers there, the error says what it is, within the deadline."""
    talk, grpc, http, tls = PORTS[port]
    kind = {"grpc": grpc, "http": http}.get(scheme, tls)
    with (
        listening(talk) as where,
        drive(f"{scheme}://{where}", timeout_s=DEADLINE_S) as client,
        fails(kind, match=where),
    ):
        client.infer("double", X)


def test_refused(drive, protocol, free_port):
    """Where nothing listens it is refused long before the deadline."""
    with drive(f"{protocol}://127.0.0.1:{free_port}", timeout_s=30) as client, fails("refused", 5):
        client.infer("double", X)


def test_no_such_host(drive, protocol):
    """A name that does not resolve is refused."""
    with drive(f"{protocol}://nowhere.invalid:80", timeout_s=5) as client, fails("refused", 6):
        client.infer("double", X)


def test_the_others_port(drive, protocol, triton):
    """Triton's gRPC port says that it is gRPC; its HTTP port hangs up on gRPC, and the message
    has the remedy."""
    other = {"grpc": triton.endpoints.http, "http": triton.endpoints.grpc}[protocol]
    kind, remedy = {"grpc": ("refused", "http://"), "http": ("protocol", "grpc://")}[protocol]
    with drive(f"{protocol}://{other}", timeout_s=5) as client, fails(kind, 6, match=remedy):
        client.infer("double", X)


@pytest.mark.parametrize("port", PROTOCOLS)
def test_tls_with_a_plain_port(drive, protocol, triton, port):
    """Triton's plain ports do not answer TLS: refused, or told to be something else."""
    where = getattr(triton.endpoints, port)
    with drive(f"{protocol}s://{where}", timeout_s=5) as client:
        with pytest.raises(RequestError) as caught:
            client.infer("double", X)
        assert caught.value.kind in ("refused", "protocol")


@pytest.fixture(scope="module")
def tls_wrap(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    names = ("-keyout", "key.pem", "-out", "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", *names],
        **{"cwd": folder, "check": True, "capture_output": True},
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return lambda peer: context.wrap_socket(peer, server_side=True)


def test_plain_with_a_tls_port(listening, drive, protocol, tls_wrap):
    """A port that wants TLS, spoken to in plain text."""
    with (
        listening(stay_silent, tls_wrap) as where,
        drive(f"{protocol}://{where}", timeout_s=5) as client,
    ):
        with pytest.raises(RequestError) as caught:
            client.infer("double", X)
        assert caught.value.kind in ("refused", "protocol", "closed")


def test_a_certificate_that_is_not_trusted(listening, drive, protocol, tls_wrap):
    """Nothing is sent to a server whose certificate nobody has vouched for."""
    with (
        listening(stay_silent, tls_wrap) as where,
        drive(f"{protocol}s://{where}", timeout_s=5) as client,
    ):
        with pytest.raises(RequestError, match="certificate") as caught:
            client.infer("double", X)
        assert caught.value.kind in ("refused", "protocol")


# What is left behind


def sockets():
    return len(psutil.Process().net_connections())


def threads():
    """Without that of grpc.aio, which all its channels share and which comes and goes."""
    return sum("_poll_wrapper" not in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("port", ["silent", "hangs up", "noise"])
def test_nothing_is_left(listening, drive, protocol, port, wait_for):
    """After failures and close there are as many sockets and threads as before."""

    def fail():
        with drive(f"{protocol}://{where}", timeout_s=0.1) as client:
            for _ in range(2):
                with suppress(RequestError):
                    client.infer("double", X)

    with listening(PORTS[port][0]) as where:
        fail()  # gRPC and asyncio start threads of theirs that stay
    before = sockets(), threads()
    with listening(PORTS[port][0]) as where:
        for _ in range(5):
            fail()
    wait_for(lambda: sockets() <= before[0] and threads() <= before[1])


def test_nothing_is_left_of_a_clients_work(drive, protocol, triton, wait_for):
    """So it is after a client that has done all kinds of work, once its errors are garbage."""

    def work():
        with drive(address_of(triton, protocol)) as client:
            assert doubles(client)
            with suppress(DeadlineError):
                client.infer("slow", [[300]], timeout_s=0.05)
            if client.runner is None:
                list(client.map("double", [X] * 8))
                client.submit("double", X)

    work()
    gc.collect()  # a grpc.aio call that failed keeps its connection for as long as its error is
    before = sockets(), threads()
    work()
    gc.collect()
    wait_for(lambda: sockets() <= before[0] and threads() <= before[1])
