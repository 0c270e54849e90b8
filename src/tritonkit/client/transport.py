"""What carries requests: the values that go over the wire, and the two protocols that send them.

A transport speaks one protocol to one server. It knows nothing of metadata, retries or several
servers: that is the client's. Every method raises RequestError, never anything foreign; one
that cannot answer within `timeout_s` raises DeadlineError. `timeout_s=None` waits for ever.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from tritonkit.binary import to_bytes
from tritonkit.client.operations import Operation
from tritonkit.signature import data_type_of

Compression = Literal["gzip", "deflate"]

Parameter = bool | int | float | str
"""A value of a request's or a tensor's `parameters`, as KServe v2 has them."""

NO_HEADERS: Mapping[str, str] = {}


class Region(NamedTuple):
    """Where a tensor lies in a system shared memory region that the server knows by `name`."""

    name: str
    byte_size: int
    offset: int = 0


class Tensor(NamedTuple):
    """A tensor as it goes over the wire.

    datatype: KServe's name, such as FP32. data: its elements, row-major and little-endian (BYTES:
    each with its length before it), or where in shared memory they lie. parameters: rarely any.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview | Region
    parameters: Mapping[str, Parameter] = {}


class Wanted(NamedTuple):
    """An output that is asked for. classes: how many top classes instead of the tensor, 0 for the
    tensor. region: where in shared memory it is to be put.
    """

    name: str
    classes: int = 0
    region: Region | None = None


class InferRequest(NamedTuple):
    """An inference request. version: empty for the server's choice.

    outputs: empty for all of them. parameters: `timeout` is in microseconds; `priority`,
    `sequence_id`, `sequence_start`, `sequence_end` as KServe and Triton define them.
    """

    model: str
    inputs: tuple[Tensor, ...]
    version: str = ""
    outputs: tuple[Wanted, ...] = ()
    id: str = ""
    parameters: Mapping[str, Parameter] = {}


def infer_request(
    model: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] = ()
) -> InferRequest:
    """A request made of arrays as they are, unchecked, for all or some of the outputs."""
    tensors = []
    for name, array in inputs.items():
        dtype = data_type_of(array)
        tensors.append(Tensor(name, dtype.name, array.shape, to_bytes(array, dtype)))
    return InferRequest(model, tuple(tensors), outputs=tuple(Wanted(name) for name in outputs))


class InferResponse(NamedTuple):
    """An answer. outputs: as the server sent them; those in shared memory have a Region.

    is_final: in a stream, that no more will follow.
    """

    model: str
    version: str
    outputs: tuple[Tensor, ...]
    id: str = ""
    parameters: Mapping[str, Parameter] = {}
    is_final: bool = True


@dataclass(frozen=True)
class Tls:
    """What TLS needs. Without `ca` the system's authorities are trusted.

    ca: PEM file of the authorities that may have signed the server's certificate. cert, key: PEM
    files with which this client identifies itself (mutual TLS); both or neither.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


class Cancellation:
    """Lets another thread give up what a transport is doing. Used for one request, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._abort: Callable[[], object] | None = None
        self.cancelled = False

    def on_cancel(self, abort: Callable[[], object] | None) -> None:
        """What ends the request now under way; at once if it was cancelled before."""
        with self._lock:
            self._abort = abort
            cancelled = self.cancelled
        if cancelled and abort is not None:
            abort()

    def cancel(self) -> None:
        """Give it up. The request then raises RequestCancelledError."""
        with self._lock:
            self.cancelled = True
            abort = self._abort
        if abort is not None:
            abort()


class Transport(Protocol):
    """Requests to one server, from any number of threads or greenlets at once.

    `encode` makes a message that `send` and `stream` can carry any number of times; `send` returns
    an answer that `decode` reads. What messages and answers are is the transport's own business.
    """

    @property
    def address(self) -> str:
        """Whom it talks to, for people: `grpc://localhost:8001`."""

    def encode(self, request: InferRequest) -> Any:
        """The request as a message. RejectedError (too_large) if the protocol cannot carry it."""

    def send(
        self,
        message: Any,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
        cancellation: Cancellation | None = None,
    ) -> Any:
        """Send an inference request and wait for the answer."""

    def decode(self, answer: Any) -> InferResponse:
        """Read an answer. ProtocolError if it is none."""

    def stream(
        self,
        message: Any,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
        cancellation: Cancellation | None = None,
    ) -> Iterator[InferResponse]:
        """Send a request and yield each answer of a decoupled model as it comes.

        timeout_s: for the whole stream. Closing the iterator cancels the request on the server.
        RejectedError (unsupported) from a transport that cannot stream.
        """

    def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Any:
        """Carry out an operation that is not inference; see `operations`."""

    def close(self) -> None:
        """Close all connections; those in use as soon as they are free."""


class AsyncTransport(Protocol):
    """The same for one asyncio event loop. Cancelling the task cancels the request."""

    @property
    def address(self) -> str:
        """Whom it talks to."""

    def encode(self, request: InferRequest) -> Any:
        """As Transport.encode."""

    async def send(
        self, message: Any, *, timeout_s: float | None, headers: Mapping[str, str] = NO_HEADERS
    ) -> Any:
        """As Transport.send."""

    def decode(self, answer: Any) -> InferResponse:
        """As Transport.decode."""

    def stream(
        self, message: Any, *, timeout_s: float | None, headers: Mapping[str, str] = NO_HEADERS
    ) -> AsyncIterator[InferResponse]:
        """As Transport.stream."""

    async def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Any:
        """As Transport.call."""

    async def close(self) -> None:
        """As Transport.close."""
