"""The baseline: one shared ONNX Runtime session behind an ASGI server, speaking Triton's HTTP.

Run as a process of its own by `OrtBaseline`. It answers the same KServe v2 requests as Triton,
so that every arm of a comparison gets the same bytes from the same client. At most `instances`
requests run in the session at a time, each with the session's `intra_op_threads`.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tritonkit.errors import InputError, TritonkitError
from tritonkit.payloads import random_payloads
from tritonkit.repository import pbtxt
from tritonkit.repository.config import ModelConfig
from tritonkit.repository.layout import model_file, read_config
from tritonkit.repository.tensors import to_model, to_wire
from tritonkit.server.kserve import HEADER_LENGTH, InferRequest, decode_request, encode_response
from tritonkit.server.onnxruntime_backend.session import open_session
from tritonkit.signature import ModelSignature, TensorSpec, read_signature

WARM_UP_RUNS = 10


class Baseline:
    """One session, its request queue (a thread pool of `config.instances`), its counters."""

    def __init__(self, file: Path, config: ModelConfig):
        self.config = config
        self._session = open_session(file, pbtxt.as_json(config))
        self._inputs = {t.name: t for t in config.inputs}
        self._takes = read_signature(file).inputs
        self._outputs = [t.name for t in config.outputs]
        self._pool = ThreadPoolExecutor(config.instances, thread_name_prefix="ort")
        self._rows_run: Counter[int] = Counter()
        requests = ModelSignature(config.wire_inputs, ())
        for payload in random_payloads(
            requests, WARM_UP_RUNS, seed=0, batched=config.max_batch_size > 0
        ):
            self._session.run(None, self._feed(payload))

    async def infer(self, request: InferRequest) -> dict[str, np.ndarray]:
        """Run one request alone. InputError for what the model does not take."""
        rows = self._check(request)
        names = list(request.outputs) or self._outputs
        loop = asyncio.get_running_loop()
        feed = self._feed(request.inputs)
        arrays = await loop.run_in_executor(self._pool, self._session.run, names, feed)
        self._rows_run[rows] += 1
        return to_wire(dict(zip(names, arrays, strict=True)), self.config.outputs)

    def _feed(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return _as_ort_takes(to_model(inputs, self._takes))

    def _check(self, request: InferRequest) -> int:
        if request.inputs.keys() != self._inputs.keys():
            raise InputError(
                f"inputs are {sorted(request.inputs)}, the model takes {sorted(self._inputs)}"
            )
        unknown = request.outputs.keys() - set(self._outputs)
        if unknown:
            raise InputError(f"no outputs {sorted(unknown)}; the model gives {self._outputs}")
        batched = self.config.max_batch_size > 0
        rows = 1
        for name, array in request.inputs.items():
            expected = self._inputs[name]
            if array.dtype != expected.dtype.numpy:
                raise InputError(f"input '{name}' is {array.dtype}, expected {expected.dtype.name}")
            wanted = (-1, *expected.wire_dims) if batched else expected.wire_dims
            if len(array.shape) != len(wanted) or any(
                w not in (-1, d) for d, w in zip(array.shape, wanted, strict=True)
            ):
                raise InputError(
                    f"input '{name}' has shape {list(array.shape)}, expected {list(wanted)}"
                )
        if batched:
            given = {name: array.shape[0] for name, array in request.inputs.items()}
            if len(set(given.values())) > 1:
                raise InputError(f"inputs of one request have the same rows, these have {given}")
            rows = next(iter(given.values()))
            if not 1 <= rows <= self.config.max_batch_size:
                raise InputError(f"{rows} rows; at most {self.config.max_batch_size} are taken")
        return rows

    def config_json(self) -> dict[str, Any]:
        """The effective config, with the thread counts that the session itself reports."""
        config = pbtxt.as_json(self.config)
        options = self._session.get_session_options()
        config["parameters"] |= {
            "intra_op_thread_count": {"string_value": str(options.intra_op_num_threads)},
            "inter_op_thread_count": {"string_value": str(options.inter_op_num_threads)},
            "onnxruntime_version": {"string_value": onnxruntime.__version__},
            "execution_providers": {"string_value": ",".join(self._session.get_providers())},
        }
        return config

    def statistics(self) -> dict[str, Any]:
        """Counters in the shape of Triton's statistics extension (counts only, no times)."""
        runs = sum(self._rows_run.values())
        statistics = {
            "name": self.config.name,
            "version": "1",
            "inference_count": sum(rows * n for rows, n in self._rows_run.items()),
            "execution_count": runs,
            "inference_stats": {"success": {"count": runs}},
            "batch_stats": [
                {"batch_size": rows, "compute_infer": {"count": n}}
                for rows, n in sorted(self._rows_run.items())
            ],
        }
        return {"model_stats": [statistics]}


def _as_ort_takes(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs with BYTES as text: ONNX Runtime would read b"a" as the four letters b'a'.

    InputError for bytes that are not UTF-8, which no string tensor of ONNX can hold.
    """
    return {n: _text(n, a) if a.dtype == np.object_ else a for n, a in inputs.items()}


def _text(name: str, array: np.ndarray) -> np.ndarray:
    try:
        texts = [value.decode() for value in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise InputError(f"input '{name}' has bytes that are not UTF-8 text") from error
    return np.array(texts, dtype=np.object_).reshape(array.shape)


def build_app(baseline: Baseline) -> Starlette:
    """The ASGI application."""
    model = baseline.config.name

    async def ok(_: Request) -> Response:
        return Response()

    async def metadata(_: Request) -> Response:
        return JSONResponse({"name": "tritonkit-ort-baseline", "version": onnxruntime.__version__})

    async def model_metadata(_: Request) -> Response:
        return JSONResponse(_model_metadata(baseline.config))

    async def config(_: Request) -> Response:
        return JSONResponse(baseline.config_json())

    async def statistics(_: Request) -> Response:
        return JSONResponse(baseline.statistics())

    async def infer(http: Request) -> Response:
        body = await http.body()
        try:
            request = decode_request(body, http.headers.get(HEADER_LENGTH))
            outputs = await baseline.infer(request)
            answer, split = encode_response(model, request, outputs)
        except TritonkitError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        except Exception as error:  # ONNX Runtime raises its own, derived from Exception only
            return JSONResponse({"error": f"onnx runtime error: {error}"}, status_code=500)
        if split is None:
            return Response(answer, media_type="application/json")
        return Response(
            answer, headers={HEADER_LENGTH: str(split)}, media_type="application/octet-stream"
        )

    here = f"/v2/models/{model}"
    return Starlette(
        routes=[
            Route(f"{here}/infer", infer, methods=["POST"]),
            Route("/v2/health/live", ok),
            Route("/v2/health/ready", ok),
            Route("/v2", metadata),
            Route(here, model_metadata),
            Route(f"{here}/ready", ok),
            Route(f"{here}/config", config),
            Route(f"{here}/stats", statistics),
        ]
    )


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


def main() -> None:
    """Serve one model until SIGTERM; then finish what is running."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    repository, model = arguments.repository, arguments.model
    try:
        baseline = Baseline(model_file(repository, model), read_config(repository, model))
    except TritonkitError as error:
        raise SystemExit(f"error: {error}") from error
    uvicorn.run(
        build_app(baseline),
        host=arguments.host,
        port=arguments.port,
        log_level="warning",
        access_log=False,
        backlog=1024,
    )


if __name__ == "__main__":
    main()
