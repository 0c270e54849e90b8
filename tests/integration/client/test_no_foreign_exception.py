"""Nothing but a TritonkitError leaves a client, whatever is at the other end."""

from __future__ import annotations

import asyncio
import http.client
import inspect
import json
import random
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import pytest
from tests.ids import by_repr

from tritonkit import AsyncClient, Client, SequencePart
from tritonkit.client.events import RequestEnded
from tritonkit.errors import RequestError, TritonkitError, UnavailableError
from tritonkit.server.embedded import EmbeddedTriton

X = np.ones((1, 4), np.float32)
DEADLINE_S = 0.3
SLACK_S = 1.0

# A call of each public verb with a model. Nothing is really loaded or unloaded.
CASES = {
    "infer": lambda c, m: c.infer(m, X),
    "submit": lambda c, m: c.submit(m, X).result(),
    "map": lambda c, m: c.map(m, [X, X, X], max_in_flight=2),
    "stream": lambda c, m: c.stream(m, X),
    "spec": lambda c, m: c.spec(m),
    "config": lambda c, m: c.config(m),
    "statistics": lambda c, m: c.statistics(m),
    "server": lambda c, m: c.server(),
    "models": lambda c, m: c.models(),
    "is_live": lambda c, m: c.is_live(),
    "is_ready": lambda c, m: c.is_ready(m),
    "wait_until_ready": lambda c, m: c.wait_until_ready(m, timeout_s=DEADLINE_S),
    "load": lambda c, m: c.load(m.replace("double", "nix")),
    "unload": lambda c, m: c.unload(m.replace("double", "nix")),
    "trace_settings": lambda c, m: c.trace_settings(m),
    "log_settings": lambda c, m: c.log_settings(),
    "close": lambda c, m: c.close(),
}
# These say no instead of raising, and closing has nothing to complain of.
MAY_RETURN = {"is_live", "is_ready", "close"}
CLIENTS = (Client, AsyncClient)
PROTOCOLS = ("grpc", "http")


def verbs(kind):
    """A client's public methods."""
    return {n for n, m in vars(kind).items() if inspect.isfunction(m) and not n.startswith("_")}


@pytest.mark.parametrize("kind", CLIENTS)
def test_every_verb_has_a_case(kind):
    """A verb that is new needs one above."""
    assert verbs(kind) <= set(CASES)


async def finish(answer):
    """What a call of either client comes to."""
    if inspect.iscoroutine(answer):
        return await answer
    if hasattr(answer, "__aiter__"):
        return [each async for each in answer]
    return list(answer) if inspect.isgenerator(answer) else answer


def outcomes(kind, address, model="m", prepare=None, **options):
    """What each verb came to, at the same time and each with a client of its own."""
    found = {}
    options = {"timeout_s": DEADLINE_S, **options}

    async def one(verb):
        began = time.monotonic()
        client = kind(address, **options)
        try:
            if prepare is not None:
                await finish(prepare(client))
                began = time.monotonic()
            try:
                found[verb] = await finish(CASES[verb](client, model))
            except Exception as error:
                found[verb] = error
            took_s = time.monotonic() - began
            assert took_s < options["timeout_s"] + SLACK_S, f"{verb} took {took_s:.1f} s"
        finally:
            await finish(client.close())

    async def every():
        await asyncio.gather(*map(one, sorted(verbs(kind))))

    if kind is AsyncClient:
        asyncio.run(every())
    else:
        with ThreadPoolExecutor(len(CASES)) as pool:
            list(pool.map(lambda verb: asyncio.run(one(verb)), sorted(verbs(kind))))
    return found


def assert_none_is_foreign(found, may_return=MAY_RETURN):
    foreign = {
        verb: outcome
        for verb, outcome in found.items()
        if (isinstance(outcome, Exception) and not isinstance(outcome, TritonkitError))
        or (not isinstance(outcome, Exception) and verb not in may_return)
    }
    assert foreign == {}


# Servers that are none


def listen_on(peer):
    while peer.recv(65536):
        pass


def close_at_once(peer):
    pass


def reset(peer):
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def page(peer):
    peer.recv(65536)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>")
    listen_on(peer)


def garbled_http(peer):
    """An answer in HTTP with something wrong in its head, another each time."""
    dice = random.Random(peer.fileno())
    peer.recv(65536)
    head = bytearray(
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: identity\r\n\r\n"
    )
    for _ in range(3):
        head[dice.randrange(len(head))] = dice.randrange(256)
    peer.sendall(head + dice.randbytes(10))


def grpc_frames(peer):
    """HTTP/2's beginning, then frames of random kinds, flags and contents.

    All but GOAWAY (7): grpcio 1.85.1 ends the process at one whose error code it does not know.
    """
    dice = random.Random(peer.fileno())
    peer.sendall(b"\0\0\0\4\0\0\0\0\0")
    peer.recv(65536)
    for _ in range(50):
        size = dice.randrange(30)
        kind, flags, stream = (
            dice.choice((0, 1, 2, 3, 4, 5, 6, 8, 9)),
            dice.randrange(256),
            dice.choice((0, 1, 3)),
        )
        peer.sendall(
            size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
            + dice.randbytes(size)
        )  # fmt: skip
    listen_on(peer)


def random_bytes(peer):
    dice = random.Random(peer.fileno())
    peer.recv(65536)
    peer.sendall(dice.randbytes(dice.randrange(1, 5000)))


TALKS = (
    *(close_at_once, reset, listen_on, page, garbled_http, grpc_frames, random_bytes),
)  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.__name__)
def test_a_port_that_is_no_servers(listening, talk, kind, protocol):
    """What is sent is no answer: an error of the tree, within the deadline."""
    with listening(talk) as where:
        found = outcomes(kind, f"{protocol}://{where}")
    # A head that was damaged may still say 200, which is all that these want to know.
    more = {"load", "unload", "wait_until_ready"} if talk is garbled_http else set()
    assert_none_is_foreign(found, MAY_RETURN | more)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_a_port_where_nothing_listens(kind, protocol, free_port):
    """Refused: an error of the tree, and False of what asks whether the server is there."""
    found = outcomes(kind, f"{protocol}://127.0.0.1:{free_port}")
    assert_none_is_foreign(found)
    assert not found["is_live"] and not found["is_ready"]


# A real server


@pytest.fixture(scope="module")
def triton(installed, package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    options = ("--model-control-mode=explicit", "--load-model=*")
    repository = package(folder / "repository", "double")
    with EmbeddedTriton(
        repository, log=folder / "log", drain=False, options=options
    ) as server:  # fmt: skip
        yield server


def address_of(server, protocol):
    return f"{protocol}://{getattr(server.endpoints, protocol)}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("model", ["nix", "", "../double", "ü /%2e", "x" * 5000])
def test_a_model_that_there_is_not(triton, kind, protocol, model):
    """Triton's refusal of any name is an error of the tree; it unloads what there is not."""
    found = outcomes(kind, address_of(triton, protocol), model, timeout_s=5)
    # Without a name statistics and settings are the server's, and so is readiness.
    may = MAY_RETURN | {"server", "models", "log_settings", "unload"}
    if model == "":
        may |= {"trace_settings", "statistics", "wait_until_ready"}
    assert_none_is_foreign(found, may)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("used", [False, True])
def test_a_closed_client(triton, kind, protocol, used):
    """Every verb of a closed client says so at once, whether it was used before or not."""

    async def prepare(client):
        if used:
            await finish(client.infer("double", X))
        await finish(client.close())

    found = outcomes(
        kind, address_of(triton, protocol), "double", prepare, shared_memory=True, timeout_s=5
    )
    known = {"spec"} if used else set()  # it is remembered
    assert_none_is_foreign(found, MAY_RETURN | known)
    errors = {v: e for v, e in found.items() if v not in MAY_RETURN | known}
    assert all(isinstance(e, UnavailableError) and e.kind == "closed" for e in errors.values())


# A real server whose answers are damaged under way


LEAVES = (None, True, -1, 0, 2**70, 1e300, "", "x", "FP32", [], {}, [[]], {"name": 5})


def damaged_json(dice, value):
    """The value with one of its parts replaced, or with one more."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        key = dice.choice(sorted(value))
        return {**value, key: damaged_json(dice, value[key])}
    if isinstance(value, list) and value and dice.random() < 0.9:
        i = dice.randrange(len(value))
        return [*value[:i], damaged_json(dice, value[i]), *value[i + 1 :]]
    return dice.choice(LEAVES)


def damaged_bytes(dice, data):
    """The bytes with one or two changed, left out, or doubled."""
    data = bytearray(data)
    for _ in range(dice.choice((1, 1, 2))):
        if data:
            i = dice.randrange(len(data))
            data[i : i + 1] = dice.choice((b"", dice.randbytes(1), data[i : i + 1] * 2))
    return bytes(data)


@contextmanager
def damaging_http(server, dice):
    """A proxy before Triton's HTTP port that damages JSON, its length, or the bytes."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            length = int(self.headers.get("Content-Length", 0))
            host, port = server.endpoints.http.split(":")
            upstream = http.client.HTTPConnection(host, int(port), timeout=5)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            upstream.request(self.command, self.path, self.rfile.read(length), headers)
            answer = upstream.getresponse()
            name = "Inference-Header-Content-Length"
            body, split = answer.read(), answer.headers.get(name)
            upstream.close()
            with lock:
                if body and dice.random() < 0.7:
                    size = int(split or len(body))
                    text = json.dumps(damaged_json(dice, json.loads(body[:size]))).encode()
                    split = split and str(len(text) + dice.choice((0, 0, 0, 1, -1, 9999)))
                    body = text + body[size:]
                else:
                    body = damaged_bytes(dice, body)
            self.send_response(answer.status)
            if split:
                self.send_header(name, split)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as proxy:
        serving = threading.Thread(target=proxy.serve_forever, args=(0.02,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_port}"
        finally:
            proxy.shutdown()
            serving.join()


@contextmanager
def damaging_grpc(server, dice):
    """A proxy before Triton's gRPC port that damages the bytes of its messages."""
    lock = threading.Lock()
    upstream = grpc.insecure_channel(server.endpoints.grpc)

    class Handler(grpc.GenericRpcHandler):
        def service(self, call):
            method = call.method

            def unary(data, context):
                try:
                    answer = upstream.unary_unary(method)(data, timeout=5)
                except grpc.RpcError as error:
                    context.abort(error.code(), error.details())
                with lock:
                    return damaged_bytes(dice, answer)

            def stream(requests, context):
                for answer in upstream.stream_stream(method)(requests, timeout=5):
                    with lock:
                        yield damaged_bytes(dice, answer)

            if method.endswith("ModelStreamInfer"):
                return grpc.stream_stream_rpc_method_handler(stream)
            return grpc.unary_unary_rpc_method_handler(unary)

    proxy = grpc.server(ThreadPoolExecutor(16), handlers=(Handler(),))
    port = proxy.add_insecure_port("127.0.0.1:0")
    proxy.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        proxy.stop(None).wait()
        upstream.close()


@pytest.mark.parametrize("damaging", [damaging_grpc, damaging_http])
@pytest.mark.parametrize("kind", CLIENTS)
def test_damaged_answers(triton, kind, damaging):
    """Answers with a few bytes or values wrong are read, or are an error of the tree."""
    with damaging(triton, random.Random(7)) as address:
        for _ in range(10):
            found = outcomes(kind, address, "double", timeout_s=5)
            foreign = {
                verb: outcome
                for verb, outcome in found.items()
                if isinstance(outcome, Exception) and not isinstance(outcome, TritonkitError)
            }
            assert foreign == {}


# What the user gives


ODD = {
    "a timeout beyond what clocks count": {"timeout_s": 1e15},
    "an endless timeout": {"timeout_s": float("inf")},
    "no timeout": {"timeout_s": 0.0},
    "a timeout that is no number": {"timeout_s": float("nan")},
    "an id that is no text": {"id": "\ud800"},
    "a parameter of 70 bits": {"parameters": {"a": 2**70}},
    "a parameter that is not finite": {"parameters": {"a": float("inf")}},
    "a parameter of no type": {"parameters": {"a": object()}},
    "a reserved parameter": {"parameters": {"sequence_id": "x", "triton_x": 1}},
    "a header of two lines": {"headers": {"a": "b\r\nc: d"}},
    "a header without a name": {"headers": {"": "b"}},
    "a header that is no text": {"headers": {"a": "\ud800"}},
    "a negative priority": {"priority": -1},
    "a large priority": {"priority": 2**65},
    "negative classes": {"classes": -1},
    "more classes than there are": {"classes": 99},
    "a large number of classes": {"classes": 2**65},
    "a version that is no number": {"version": "x/../1"},
    "a version that is no text": {"version": "\ud800"},
    "an output twice": {"outputs": ["y", "y"]},
    "a sequence of a large number": {"sequence": SequencePart(2**65)},
    "a sequence of a negative number": {"sequence": SequencePart(-1)},
    "a sequence of an odd name": {"sequence": SequencePart("\ud800")},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_options(triton, kind, protocol, odd):
    """An option that cannot be sent, or that Triton refuses, is an error of the tree."""

    async def run():
        client = kind(address_of(triton, protocol), timeout_s=10)
        try:
            with suppress(TritonkitError):
                await finish(client.infer("double", X, **odd))
        finally:
            await finish(client.close())

    asyncio.run(run())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    "change",
    [
        {"load": {"config": {"max_batch_size": object()}}},
        {"load": {"config": {"max_batch_size": float("nan")}}},
        {"load": {"config": {}, "files": {"1/model.onnx": b"no model"}}},
        {"load": {"config": {"name": "\ud800"}}},
        {"trace_settings": {"change": {"trace_rate": object()}}},
        {"trace_settings": {"change": {"\ud800": "1"}}},
        {"trace_settings": {"change": {"nix": "1"}}},
        {"log_settings": {"change": {"log_verbose_level": 2**70}}},
        {"log_settings": {"change": {"log_info": object()}}},
        {"log_settings": {"change": {"log_verbose_level": -1}}},
    ],
    ids=by_repr,
)
def test_odd_settings(triton, kind, protocol, change):
    """A config or a setting that cannot be sent, or is refused, is an error of the tree."""
    ((verb, arguments),) = change.items()
    model = () if verb == "log_settings" else ("nix",)

    async def run():
        client = kind(address_of(triton, protocol), timeout_s=10)
        try:
            with pytest.raises(TritonkitError):
                await finish(getattr(client, verb)(*model, **arguments))
        finally:
            await finish(client.close())

    asyncio.run(run())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_a_hook_that_raises(triton, kind, protocol, caplog):
    """It breaks neither answers nor errors nor other hooks, and is logged once."""
    told = []

    def broken(event):
        raise RuntimeError("a hook")

    async def run():
        client = kind(address_of(triton, protocol), hooks=[broken, told.append])
        try:
            for _ in range(3):
                assert (await finish(client.infer("double", X)))["y"].tolist() == [[2.0] * 4]
            with pytest.raises(RequestError):
                await finish(client.infer("double", X, parameters={"a": object()}))
        finally:
            await finish(client.close())

    asyncio.run(run())
    errors = Counter(e.error for e in told if isinstance(e, RequestEnded))
    assert errors == {"": 3, "invalid": 1}
    assert len(caplog.records) == 1
