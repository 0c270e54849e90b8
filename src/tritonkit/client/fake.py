"""A Triton that is not there, for tests of code that uses the client.

    fake = FakeTransport({
        "ranker": FakeModel(
            inputs=["x:FP32[-1,512]"], outputs=["score:FP32[-1,1]"], max_batch_size=64,
            run=lambda x: {"score": x.sum(1, keepdims=True)},
        )
    })
    client = Client(transport=fake)

It checks requests as Triton does and in Triton's words, runs the model's function in the caller's
thread, and keeps what it was sent. It shares no memory and reads no model files.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

from tritonkit.client.fake_model import FakeModel
from tritonkit.client.fake_server import FakeServer
from tritonkit.client.operations import Operation
from tritonkit.client.transport import (
    NO_HEADERS,
    Cancellation,
    InferRequest,
    InferResponse,
    Region,
)
from tritonkit.errors import request_error

__all__ = ["AsyncFakeTransport", "FakeModel", "FakeRequest", "FakeTransport"]


class FakeRequest(NamedTuple):
    """An inference request that a fake was sent, with copies of its tensors."""

    request: InferRequest
    headers: Mapping[str, str]
    timeout_s: float | None


class FakeTransport(FakeServer):
    """A Transport to models that are functions.

    delay_s: how long every answer takes. live, ready: what the server says of itself. requests,
    calls: what it was sent, in order, failed or not. closed: whether it was closed; it answers on.
    """

    def __init__(self, models: Mapping[str, FakeModel], *, address: str = "fake://triton"):
        super().__init__(models, address)
        self.delay_s = 0.0
        self.requests: list[FakeRequest] = []
        self.calls: list[tuple[Operation, Mapping[str, Any]]] = []
        self.closed = False

    @property
    def address(self) -> str:
        """Its made-up address."""
        return self._address

    def aio(self) -> AsyncFakeTransport:
        """The same server for an asynchronous client."""
        return AsyncFakeTransport(self)

    def encode(self, request: InferRequest) -> InferRequest:
        """The request with copies of its tensors: what becomes of them later does not change it."""
        copies = (
            t if isinstance(t.data, Region) else t._replace(data=bytes(t.data))
            for t in request.inputs
        )
        return request._replace(inputs=tuple(copies))

    def send(
        self,
        message: InferRequest,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
        cancellation: Cancellation | None = None,
    ) -> InferResponse:
        """Run the model, after `delay_s`."""
        self.requests.append(FakeRequest(message, dict(headers), timeout_s))
        deadline = _Deadline(self._address, timeout_s)
        deadline.wait(self.delay_s, cancellation)
        answer = self.run(message)
        deadline.check(cancellation)
        return answer

    def decode(self, answer: InferResponse) -> InferResponse:
        """The answer itself."""
        return answer

    def stream(
        self,
        message: InferRequest,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
        cancellation: Cancellation | None = None,
    ) -> Iterator[InferResponse]:
        """Run the model."""
        self.requests.append(FakeRequest(message, dict(headers), timeout_s))
        deadline = _Deadline(self._address, timeout_s)
        deadline.wait(self.delay_s, cancellation)
        with closing(self.run_stream(message)) as answers:
            for answer in answers:
                deadline.check(cancellation)
                yield answer

    def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Any:
        """Carry out any operation, after `delay_s`."""
        self.calls.append((operation, dict(arguments)))
        _Deadline(self._address, timeout_s).wait(self.delay_s)
        return self.operate(operation, arguments)

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


class AsyncFakeTransport:
    """The same for an asynchronous client. `fake` is the FakeTransport that it shares all with."""

    def __init__(
        self, models: Mapping[str, FakeModel] | FakeTransport, *, address: str = "fake://triton"
    ):
        if not isinstance(models, FakeTransport):
            models = FakeTransport(models, address=address)
        self.fake = models

    @property
    def address(self) -> str:
        """The fake's."""
        return self.fake.address

    def encode(self, request: InferRequest) -> InferRequest:
        """As FakeTransport.encode."""
        return self.fake.encode(request)

    async def send(
        self,
        message: InferRequest,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> InferResponse:
        """As FakeTransport.send."""
        deadline = await self._begin(message, headers, timeout_s)
        answer = self.fake.run(message)
        deadline.check()
        return answer

    def decode(self, answer: InferResponse) -> InferResponse:
        """The answer itself."""
        return answer

    async def stream(
        self,
        message: InferRequest,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> AsyncIterator[InferResponse]:
        """As FakeTransport.stream."""
        deadline = await self._begin(message, headers, timeout_s)
        with closing(self.fake.run_stream(message)) as answers:
            for answer in answers:
                deadline.check()
                yield answer
                await asyncio.sleep(0)  # let others run: the model's function does not

    async def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Any:
        """As FakeTransport.call."""
        self.fake.calls.append((operation, dict(arguments)))
        await _Deadline(self.address, timeout_s).wait_async(self.fake.delay_s)
        return self.fake.operate(operation, arguments)

    async def close(self) -> None:
        """As FakeTransport.close."""
        self.fake.close()

    async def _begin(
        self, message: InferRequest, headers: Mapping[str, str], timeout_s: float | None
    ) -> _Deadline:
        self.fake.requests.append(FakeRequest(message, dict(headers), timeout_s))
        deadline = _Deadline(self.address, timeout_s)
        await deadline.wait_async(self.fake.delay_s)
        return deadline


class _Deadline:
    """When one request has to be answered."""

    def __init__(self, address: str, timeout_s: float | None):
        self._address = address
        self._timeout_s = timeout_s
        self._started_ns = time.perf_counter_ns()

    def wait(self, delay_s: float, cancellation: Cancellation | None = None) -> None:
        """Let `delay_s` pass. DeadlineError or RequestCancelledError as soon as it is one."""
        if delay_s > 0:
            aborted = threading.Event()
            if cancellation:
                cancellation.on_cancel(aborted.set)
            aborted.wait(self._within(delay_s))
        self.check(cancellation, delay_s)

    async def wait_async(self, delay_s: float) -> None:
        """The same for a task."""
        await asyncio.sleep(self._within(delay_s))
        self.check(spent_s=delay_s)

    def check(self, cancellation: Cancellation | None = None, spent_s: float = 0.0) -> None:
        """The error if it was cancelled or has passed. spent_s: the least that has passed."""
        if cancellation and cancellation.cancelled:
            raise request_error("cancelled", f"{self._address}: cancelled by the caller")
        spent_s = max(spent_s, (time.perf_counter_ns() - self._started_ns) / 1e9)
        if self._timeout_s is not None and spent_s >= self._timeout_s:
            raise request_error("timeout", f"{self._address}: no answer in {self._timeout_s} s")

    def _within(self, delay_s: float) -> float:
        return delay_s if self._timeout_s is None else min(delay_s, self._timeout_s)
