"""Servers whose every answer is known, for tests of what loads and measures servers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from contextlib import suppress

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class KnownServer:
    """Answers each inference after `service_s`, however many there are at a time; all else at once.

    Seconds count from the first inference. stall: (from, to), in which no answer is begun.
    dies_at: when it drops every connection and listens no more. fail_every: each so manieth
    request is answered with 500.
    """

    def __init__(self, service_s, *, stall=(0.0, 0.0), dies_at=None, fail_every=None):
        self.requests = 0
        self.answers = 0
        self.paths = []
        self.most_at_a_time = 0
        self._now = 0
        self._service_s = service_s
        self._stall = stall
        self._dies_at = dies_at
        self._fail_every = fail_every
        self._started = None
        self._writers = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self):
        self._thread.start()
        opened = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512), self._loop
        )
        self._server = opened.result(5)
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname())
        return self

    def __exit__(self, *exc):
        async def end():
            self._die()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _die(self):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if head.startswith("get"):  # whether it lives
            writer.write(ANSWER)
            return await writer.drain()
        _, _, rest = head.partition("content-length: ")
        await reader.readexactly(int(rest.split("\r\n")[0]))
        if self._started is None:
            self._started = self._loop.time()
            if self._dies_at is not None:
                self._loop.call_later(self._dies_at, self._die)
        self.requests += 1
        turn = self.requests
        self.paths.append(head.split()[1])
        self._now += 1
        self.most_at_a_time = max(self.most_at_a_time, self._now)
        begin, end = self._stall
        at = self._loop.time() - self._started
        await asyncio.sleep(self._service_s + (end - at if begin <= at < end else 0))
        bad = self._fail_every is not None and turn % self._fail_every == 0
        writer.write(ANSWER.replace(b"200 OK", b"500 Sorry") if bad else ANSWER)
        self._now -= 1
        self.answers += 1
        await writer.drain()


class DrippingServer(KnownServer):
    """Sends its answer byte by byte, too slowly to end and too fast to time out."""

    def __init__(self):
        super().__init__(0)

    async def _answer(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")
        while True:
            writer.write(b"H")
            await writer.drain()
            await asyncio.sleep(0.1)


class DrawnServer(KnownServer):
    """Serves a model `m` as Triton does, and does to each request what was drawn for it.

    fates: (service_s, error) of the requests in the order in which they come; error is empty, or
    the kind of what they get instead of an answer, "closed" for a connection that is dropped.
    one_at_a_time: a request is begun when the one before it is done.

    took: (model, seconds, error) of each request that is over, from when the server had it to
    when it wrote the answer.
    """

    def __init__(self, fates, *, one_at_a_time=False, **how):
        super().__init__(0, **how)
        self.took = []
        self._fates = iter(fates)
        self._one_at_a_time = one_at_a_time
        self._free_at = 0.0

    def __enter__(self):
        super().__enter__()
        self._loop.call_soon_threadsafe(go_ahead)
        return self

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        if head.startswith("GET"):
            writer.write(_http(self._said_of(path.removeprefix("/v2/models/m"))))
            return await writer.drain()
        length = re.search(r"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        await reader.readexactly(int(length[1]))
        began = self._loop.time()
        if self._started is None:
            self._started = began
            if self._dies_at is not None:
                self._loop.call_later(self._dies_at, self._die)
        self.requests += 1
        service_s, error = next(self._fates)
        await asyncio.sleep(self._done_at(began, service_s) - self._loop.time())
        self.took.append((path.split("/")[3], self._loop.time() - began, error))
        self.answers += not error
        if error == "closed":
            raise ConnectionError
        writer.write(_http({"error": error}, STATUSES[error]) if error else _http(INFERRED))
        await writer.drain()

    def _done_at(self, now, service_s):
        begin = max(now, self._free_at) if self._one_at_a_time else now
        stalls, goes_on = self._stall
        if stalls <= begin - self._started < goes_on:
            begin = self._started + goes_on
        self._free_at = begin + service_s
        return self._free_at

    def _said_of(self, model):
        good = {"count": self.answers, "ns": 0}
        runs = [{"batch_size": 1, "compute_infer": good}] if self.answers else []
        counted = {
            **{"name": "m", "version": "1", "inference_stats": {"success": good}},
            **{"inference_count": self.answers, "execution_count": self.answers},
            "batch_stats": runs,
        }
        known = {"": METADATA, "/config": CONFIG, "/stats": {"model_stats": [counted]}}
        return known.get(model, {})


def go_ahead():
    """Let this thread, and those that it starts, run as soon as they have something to do, where
    that is permitted: what a server waits for a CPU it cannot note.
    """
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def _http(document, status="200 OK"):
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def _tensor(name, **more):
    return {"name": name, "datatype": "FP32", **more}


METADATA = {
    **{"name": "m", "versions": ["1"], "platform": "known"},
    "inputs": [_tensor("x", shape=[-1, 4])],
    "outputs": [_tensor("y", shape=[-1, 4])],
}
CONFIG = {"name": "m", "max_batch_size": 8}
INFERRED = {"model_name": "m", "outputs": [_tensor("y", shape=[1, 4], data=[0.0] * 4)]}
STATUSES = {"failed": "500 Sorry", "unavailable": "503 Busy", "invalid": "400 No"}
CODES = {
    "failed": grpc.StatusCode.INTERNAL,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "invalid": grpc.StatusCode.INVALID_ARGUMENT,
}


class DrawnGrpcServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """The same over gRPC, for requests alone; no connection is dropped."""

    def __init__(self, fates):
        self.requests = 0
        self.took = []
        self._fates = iter(fates)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self):
        self._loop.call_soon(go_ahead)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *exc):
        asyncio.run_coroutine_threadsafe(self._server.stop(0), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self):
        self._server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def ServerLive(self, request, context):
        return service_pb2.ServerLiveResponse(live=True)

    async def ModelInfer(self, request, context):
        began = self._loop.time()
        self.requests += 1
        service_s, error = next(self._fates)
        await asyncio.sleep(service_s)
        self.took.append((request.model_name, self._loop.time() - began, error))
        if error:
            await context.abort(CODES[error], error)
        return service_pb2.ModelInferResponse(model_name=request.model_name)
