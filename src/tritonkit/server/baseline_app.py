"""One shared ONNX Runtime session behind an ASGI server, speaking Triton's HTTP.

Run as a process of its own by `OrtBaseline`. It answers the same KServe v2 requests as Triton,
so that every arm of a comparison gets the same bytes from the same client. At most `instances`
runs are made in the session at a time, each with the session's `intra_op_threads`: of a request,
or, if the config has dynamic batching, of a batch that batcher.py gathers.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import socket
import sys
import time
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tritonkit.errors import (
    DeadlineError,
    InputError,
    RequestError,
    TritonkitError,
    UnavailableError,
)
from tritonkit.repository.config import ModelConfig
from tritonkit.repository.layout import model_file, read_config
from tritonkit.repository.tensors import to_wire
from tritonkit.server.baseline_model import Baseline
from tritonkit.server.kserve import HEADER_LENGTH, decode_request, encode_response
from tritonkit.signature import TensorSpec

# How long a thread may keep the others from Python. A run that ended, or is to begin, waits for so
# long while the event loop is busy; Python's own 5 ms is more than many a model takes.
SWITCH_INTERVAL_S = 0.0001

_HEADER_LENGTH = HEADER_LENGTH.lower().encode()
# In the scope of a request that runs: to be called if its caller leaves.
_GIVE_UP = "tritonkit.give_up"


def build_app(baseline: Baseline) -> ASGIApp:
    """The ASGI application. Inference does without Starlette, which takes longer than it."""
    model = baseline.config.name
    here = f"/v2/models/{model}"
    path = f"{here}/infer"
    infer = partial(_infer, baseline)

    async def ok(_: Request) -> Response:
        return Response()

    async def metadata(_: Request) -> Response:
        return JSONResponse({"name": "tritonkit-ort-baseline", "version": onnxruntime.__version__})

    async def index(_: Request) -> Response:
        found = {"name": model, "version": "1", "state": "READY", "reason": ""}
        return JSONResponse([found])

    async def model_metadata(_: Request) -> Response:
        return JSONResponse(_model_metadata(baseline.config))

    async def config(_: Request) -> Response:
        return JSONResponse(baseline.config_json())

    async def statistics(_: Request) -> Response:
        return JSONResponse(baseline.statistics())

    others = Starlette(
        routes=[
            Route(path, ok, methods=["POST"]),  # so that other methods are refused
            Route("/v2/health/live", ok),
            Route("/v2/health/ready", ok),
            Route("/v2", metadata),
            Route("/v2/repository/index", index, methods=["POST"]),
            Route(here, model_metadata),
            Route(f"{here}/ready", ok),
            Route(f"{here}/config", config),
            Route(f"{here}/stats", statistics),
        ]
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == path and scope["method"] == "POST":
            await infer(scope, receive, send)
        else:
            await others(scope, receive, send)

    return app


async def _infer(baseline: Baseline, scope: Scope, receive: Receive, send: Send) -> None:
    """POST /v2/models/M/infer. Whoever leaves before the answer gets none."""
    body = await _body(receive)
    if body is None:
        return
    arrived_ns = time.perf_counter_ns()
    given = next((value for name, value in scope["headers"] if name == _HEADER_LENGTH), None)
    length = None if given is None else given.decode("latin-1")
    split: int | None = None
    try:
        request = decode_request(body, length)
        arrays = await _unless_gone(baseline.infer(request, timeout_us(body, length)), scope)
        if arrays is None:
            baseline.counters.failed(time.perf_counter_ns() - arrived_ns)
            return
        outputs = dict(zip(baseline.outputs_of(request), arrays, strict=True))
        config = baseline.config
        content, split = encode_response(config.name, request, to_wire(outputs, config.outputs))
        status = 200
    except (UnavailableError, DeadlineError) as error:  # of both Triton says 503
        status, content = 503, _error(str(error))
    except RequestError as error:
        status, content = 500, _error(str(error))
    except TritonkitError as error:
        status, content = 400, _error(str(error))
    except Exception as error:  # ONNX Runtime raises its own, derived from Exception only
        status, content = 500, _error(f"onnx runtime error: {error}")
    took_ns = time.perf_counter_ns() - arrived_ns
    if status == 200:
        baseline.counters.succeeded(took_ns)
    elif status != 400:  # as in Triton, what was never taken is not counted
        baseline.counters.failed(took_ns)
    headers = [(b"content-length", b"%d" % len(content))]
    if split is None:
        headers.append((b"content-type", b"application/json"))
    else:
        headers.append((b"content-type", b"application/octet-stream"))
        headers.append((_HEADER_LENGTH, b"%d" % split))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _body(receive: Receive) -> bytes | None:
    """The body of a request; None if the caller left before its end."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return message.get("body", b"")  # type: ignore[no-any-return]
    chunks = []
    while message["type"] == "http.request":
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()
    return None


async def _unless_gone(
    answer: Awaitable[Sequence[np.ndarray]], scope: Scope
) -> Sequence[np.ndarray] | None:
    """The answer; None if the caller left meanwhile, which cancels it if it is a future."""
    if not isinstance(answer, asyncio.Future):
        return await answer
    scope[_GIVE_UP] = answer.cancel
    try:
        arrays: Sequence[np.ndarray] = await answer
        return arrays
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # not the request: the server ends
            raise
        return None
    finally:
        del scope[_GIVE_UP]


class _Connection(HttpToolsProtocol):
    """Tells a request when its caller leaves. ASGI's way is a task that waits for that beside each
    request, which takes as long as all else that is done for it.
    """

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        scope: dict[str, Any] = {} if self.cycle is None else dict(self.cycle.scope)
        if _GIVE_UP in scope:
            scope[_GIVE_UP]()


def timeout_us(body: bytes, header_length: str | None) -> int:
    """The request parameter `timeout`, in µs; 0 if there is none. InputError if it is no such.

    body: of a request that could be decoded.
    """
    header = body if header_length is None else body[: int(header_length)]
    if b'"timeout"' not in header:
        return 0
    timeout = json.loads(header).get("parameters", {}).get("timeout", 0)
    if type(timeout) is not int or not 0 <= timeout < 2**63:
        raise InputError(f"timeout is {timeout!r}; it must be a whole number of µs, of 64 bits")
    return timeout


def _error(reason: str) -> bytes:
    return json.dumps({"error": reason}).encode()


def _model_metadata(config: ModelConfig) -> Mapping[str, Any]:
    def describe(tensors: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [
            {
                "name": tensor.name,
                "datatype": tensor.dtype.name,
                "shape": [dim if isinstance(dim, int) else -1 for dim in tensor.shape],
            }
            for tensor in tensors
        ]

    return {
        "name": config.name,
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": describe(config.wire_inputs),
        "outputs": describe(config.wire_outputs),
    }


class DrainingServer(uvicorn.Server):
    """Serves until SIGTERM, and ends in order: what waits is answered before, within drain_s."""

    def __init__(self, baseline: Baseline, *, host: str, port: int, drain_s: float):
        config = uvicorn.Config(
            build_app(baseline),
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            backlog=1024,
            http=_Connection,
            # What is of no use here, and takes its share of every request.
            lifespan="off",
            ws="none",
            interface="asgi3",
            proxy_headers=False,
            date_header=False,
            server_header=False,
        )
        super().__init__(config)
        self._baseline = baseline
        self._drain_s = drain_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = asyncio.ensure_future(self._baseline.drain(self._drain_s))
        await super().shutdown(sockets)
        draining.cancel()


def main() -> None:
    """Serve one model until SIGTERM; then finish what is running, and what waits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--drain-s", type=float, required=True)
    arguments = parser.parse_args()
    repository, model = arguments.repository, arguments.model
    try:
        baseline = Baseline(model_file(repository, model), read_config(repository, model))
    except TritonkitError as error:
        raise SystemExit(f"error: {error}") from error
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()  # what is loaded stays, so no collection need look at it again
    DrainingServer(
        baseline, host=arguments.host, port=arguments.port, drain_s=arguments.drain_s
    ).run()


if __name__ == "__main__":
    main()
