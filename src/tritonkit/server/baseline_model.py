"""The model behind the baseline server: one ONNX Runtime session, the threads that run it, and
with dynamic batching the queue of requests that wait to share a run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tritonkit.errors import InputError
from tritonkit.payloads import random_payloads
from tritonkit.repository import pbtxt
from tritonkit.repository.config import DynamicBatching, ModelConfig
from tritonkit.repository.message import as_dict
from tritonkit.repository.scheduling import QueuePolicy, TimeoutAction
from tritonkit.repository.tensors import to_model
from tritonkit.server.batcher import Batcher, Feeds, Limits, Ran, joined, queue_bound
from tritonkit.server.counters import Counters
from tritonkit.server.kserve import InferRequest
from tritonkit.server.onnxruntime_backend.session import open_session
from tritonkit.signature import ModelSignature, read_signature

WARM_UP_RUNS = 10


class Baseline:
    """One session, the threads that run it, its counters; with dynamic batching in its config
    also the queue of requests that wait to share a run.
    """

    def __init__(self, file: Path, config: ModelConfig):
        batching = config.dynamic_batching
        if batching is not None:
            batching = _as_batched_here(batching, config)
            config = replace(config, dynamic_batching=batching)
        self.config = config
        self.counters = Counters()
        self._session = open_session(file, pbtxt.as_json(config))
        self._inputs = {t.name: t for t in config.inputs}
        self._takes = read_signature(file).inputs
        self._outputs = tuple(t.name for t in config.outputs)
        self._pool = ThreadPoolExecutor(config.instances, thread_name_prefix="ort")
        self._batcher = None if batching is None else self._make_batcher(batching)
        self._warm_up()

    def infer(self, request: InferRequest, timeout_us: int) -> Awaitable[Sequence[np.ndarray]]:
        """Run one request: its outputs in the order of `outputs_of`.

        With batching it is a future, to be cancelled if nobody waits for it any more, and
        timeout_us says how long the request may wait (0: as long as the config lets it).
        InputError for what the model does not take; what else is raised, Batcher.submit says.
        """
        self._check(request)
        names = self.outputs_of(request)
        feed = self._feed(request.inputs)
        if self._batcher is None:
            return self._run_alone(names, feed)
        return self._batcher.submit(feed, names, timeout_us)

    def outputs_of(self, request: InferRequest) -> tuple[str, ...]:
        """The outputs that a request wants."""
        return tuple(request.outputs) or self._outputs

    async def drain(self, within_s: float) -> None:
        """Take no more requests and answer those that wait; without batching there is no queue
        to close.
        """
        if self._batcher is not None:
            await self._batcher.drain(within_s)

    def _make_batcher(self, batching: DynamicBatching) -> Batcher:
        limits = Limits(
            max_rows=self.config.max_batch_size,
            max_delay_us=batching.max_queue_delay_us,
            max_queue=batching.queue.max_queue_size,
            default_timeout_us=batching.queue.default_timeout_us,
            concurrency=self.config.instances,
        )
        return Batcher(self._run, limits, self.counters)

    def _warm_up(self) -> None:
        batched = self.config.max_batch_size > 0
        requests = ModelSignature(self.config.wire_inputs, ())
        for payload in random_payloads(requests, WARM_UP_RUNS, seed=0, batched=batched):
            feed = self._feed(payload)
            self._session.run(None, feed)
        if self._batcher is not None:
            most = self.config.max_batch_size
            self._session.run(None, {name: np.repeat(a, most, 0) for name, a in feed.items()})

    async def _run_alone(self, names: tuple[str, ...], feed: Feeds) -> Sequence[np.ndarray]:
        rows = len(next(iter(feed.values()))) if self.config.max_batch_size else 1
        enqueued_ns = time.perf_counter_ns()
        ran = await self._run(names, [feed])
        self.counters.ran(
            rows,
            requests=1,
            queue_ns=ran.taken_ns - enqueued_ns,
            input_ns=ran.began_ns - ran.taken_ns,
            infer_ns=ran.ended_ns - ran.began_ns,
            output_ns=time.perf_counter_ns() - ran.ended_ns,
        )
        return ran.outputs

    def _run(self, names: tuple[str, ...], parts: Sequence[Feeds]) -> asyncio.Future[Ran]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._pool, self._run_in_thread, names, parts)

    def _run_in_thread(self, names: tuple[str, ...], parts: Sequence[Feeds]) -> Ran:
        taken = time.perf_counter_ns()
        feed = joined(parts)
        began = time.perf_counter_ns()
        arrays = self._session.run(names, feed)
        return Ran(arrays, taken, began, time.perf_counter_ns())

    def _feed(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return _as_ort_takes(to_model(inputs, self._takes))

    def _check(self, request: InferRequest) -> None:
        if request.inputs.keys() != self._inputs.keys():
            raise InputError(
                f"inputs are {sorted(request.inputs)}, the model takes {sorted(self._inputs)}"
            )
        unknown = request.outputs.keys() - set(self._outputs)
        if unknown:
            raise InputError(f"no outputs {sorted(unknown)}; the model gives {list(self._outputs)}")
        batched = self.config.max_batch_size > 0
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

    def config_json(self) -> dict[str, Any]:
        """The effective config, with the thread counts that the session itself reports."""
        config = as_dict(pbtxt.parse(pbtxt.encode(self.config), self.config.name))
        options = self._session.get_session_options()
        config["parameters"] |= {
            "intra_op_thread_count": {"string_value": str(options.intra_op_num_threads)},
            "inter_op_thread_count": {"string_value": str(options.inter_op_num_threads)},
            "onnxruntime_version": {"string_value": onnxruntime.__version__},
            "execution_providers": {"string_value": ",".join(self._session.get_providers())},
        }
        return config

    def statistics(self) -> dict[str, Any]:
        """Counters and times in the shape of Triton's statistics extension."""
        return self.counters.as_json(self.config.name)


def _as_batched_here(batching: DynamicBatching, config: ModelConfig) -> DynamicBatching:
    """What of a dynamic_batching block this server does: so the config that it answers is true.

    A timeout after which Triton would only delay is left out, or it would reject here.
    """
    asked = batching.queue
    rejects = asked.timeout_action is TimeoutAction.REJECT
    queue = QueuePolicy(
        max_queue_size=queue_bound(asked.max_queue_size, config.max_batch_size, config.instances),
        default_timeout_us=asked.default_timeout_us if rejects else 0,
        allow_timeout_override=True,
    )
    return DynamicBatching(max_queue_delay_us=batching.max_queue_delay_us, queue=queue)


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
