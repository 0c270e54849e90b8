"""KServe v2 over HTTP: the transport for threads and greenlets."""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tritonkit.client.address import Address
from tritonkit.client.operations import Operation
from tritonkit.client.transport import (
    NO_HEADERS,
    Cancellation,
    Compression,
    InferRequest,
    InferResponse,
    Region,
    Tls,
)
from tritonkit.client.transports.connection import (
    HttpAnswer,
    HttpConnection,
    NotHttpError,
    check_headers,
    header_lines,
    request_head,
    tls_context,
)
from tritonkit.client.transports.http_codec import (
    HttpRequest,
    check_status,
    decode_infer,
    decompress,
    encode_infer,
    failure,
)
from tritonkit.client.transports.http_operations import decode_operation, encode_operation
from tritonkit.errors import UnavailableError, request_error

_MOST_IDLE = 64
# A server that closes a connection because it was idle does so while the request is on its way;
# one that closes it later has died of something, perhaps of this very request.
_CLOSED_WHEN_IDLE_S = 0.25


class HttpMessage(NamedTuple):
    """An encoded request. parts: all of it for a request without headers of the user's."""

    path: str
    head: bytes
    body: tuple[bytes | memoryview, ...]
    parts: tuple[bytes | memoryview, ...]
    repeatable: bool
    regions: Mapping[str, Region]


class HttpTransport:
    """A transport to one server over connections that are kept alive.

    As many connections are open as requests are under way; idle ones are used again, the last
    used first. InferResponse's tensors are views of the answer. InputError for `tls` files that
    cannot be used.
    """

    def __init__(
        self, address: Address, *, tls: Tls | None = None, compression: Compression | None = None
    ):
        self._address = address
        self._where = str(address)
        self._tls = tls_context(address, tls)
        self._compression = compression
        self._end_of_head = header_lines({}, address.netloc)
        self._idle: deque[HttpConnection] = deque()
        self._closed = False
        self._process = os.getpid()
        # A transport that is never closed leaves no open sockets to be complained of.
        weakref.finalize(self, _close_all, self._idle)

    @property
    def address(self) -> str:
        """Whom it talks to."""
        return self._where

    def encode(self, request: InferRequest) -> HttpMessage:
        """As Transport.encode."""
        return self._message(encode_infer(request, self._compression))

    def send(
        self,
        message: HttpMessage,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
        cancellation: Cancellation | None = None,
    ) -> HttpAnswer:
        """As Transport.send."""
        answer = self._exchange(message, timeout_s, headers, cancellation)
        if answer.status != 200:
            check_status(self._where + message.path, answer)
        return answer._replace(regions=message.regions) if message.regions else answer

    def decode(self, answer: HttpAnswer) -> InferResponse:
        """As Transport.decode."""
        return decode_infer(self._where, answer)

    def stream(
        self,
        message: HttpMessage,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
        cancellation: Cancellation | None = None,
    ) -> Iterator[InferResponse]:
        """RejectedError: Triton streams over gRPC only."""
        raise request_error("unsupported", f"{self._where}: streaming needs gRPC; use grpc://")

    def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Any:
        """As Transport.call."""
        message = self._message(encode_operation(operation, arguments))
        answer = self._exchange(message, timeout_s, headers, None)
        return decode_operation(self._where + message.path, operation, answer)

    def get_text(self, path: str, timeout_s: float | None) -> str:
        """The text at `path`, such as /metrics."""
        message = self._message(HttpRequest("GET", path, {}, (), True))
        answer = self._exchange(message, timeout_s, NO_HEADERS, None)
        check_status(self._where + message.path, answer)
        return answer.body.decode("utf-8", errors="replace")

    def close(self) -> None:
        """As Transport.close. Requests after it are refused."""
        self._closed = True
        _close_all(self._idle)

    def _message(self, request: HttpRequest) -> HttpMessage:
        path = self._address.path + request.path
        head = request_head(request.method, path, request.headers)
        whole = head + self._end_of_head
        parts = (whole, *request.body)
        if len(request.body) == 1 and len(request.body[0]) <= 64 * 1024:
            parts = (whole + request.body[0],)
        return HttpMessage(
            request.path, head, request.body, parts, request.repeatable, request.regions
        )

    def _exchange(
        self,
        message: HttpMessage,
        timeout_s: float | None,
        headers: Mapping[str, str],
        cancellation: Cancellation | None,
    ) -> HttpAnswer:
        deadline = None if timeout_s is None else time.perf_counter() + timeout_s
        parts: Sequence[bytes | memoryview] = message.parts
        if headers:
            check_headers(headers)
            end = header_lines(headers, self._address.netloc)
            parts = (message.head + end, *message.body)
        connection = self._take()
        lost: UnavailableError | None = None
        if connection is not None:
            began = time.perf_counter()
            try:
                return self._use(connection, parts, deadline, cancellation)
            except UnavailableError as error:
                late = time.perf_counter() - began > _CLOSED_WHEN_IDLE_S
                if late or connection.heard or not message.repeatable:
                    raise
                lost = error
        connection = HttpConnection(self._address, tls=self._tls)
        try:
            return self._use(connection, parts, deadline, cancellation)
        except UnavailableError as error:
            # The server is gone, and nobody knows whether it had run the request before.
            if lost is not None and error.kind == "refused":
                raise lost from error
            raise

    def _use(
        self,
        connection: HttpConnection,
        parts: Sequence[bytes | memoryview],
        deadline: float | None,
        cancellation: Cancellation | None,
    ) -> HttpAnswer:
        """Exchange a request for an answer, then keep the connection or close it."""
        answer = failed = None
        connected = connection.is_open
        if cancellation is not None:
            cancellation.on_cancel(connection.abort)
        try:
            if not connected:
                connection.connect(deadline)
                connected = True
            answer = connection.exchange(parts, deadline)
        except (OSError, NotHttpError, UnicodeError) as error:
            failed = error
        finally:  # on Ctrl-C and in a greenlet that is killed too
            if cancellation is not None:
                # After this nobody can end the connection's next request.
                cancellation.on_cancel(None)
            if answer is None or (cancellation is not None and cancellation.cancelled):
                connection.close()
        if cancellation is not None and cancellation.cancelled:
            raise request_error("cancelled", f"{self._where}: cancelled") from failed
        if answer is None:
            assert failed is not None
            raise failure(self._where, failed, sent=connected) from failed
        self._keep(connection)
        return decompress(self._where, answer)

    def _take(self) -> HttpConnection | None:
        if self._closed:
            raise request_error("closed", f"{self._where}: the client is closed")
        if self._process != os.getpid():
            # After a fork the connections are the parent's; sharing them would mix up answers.
            self._process = os.getpid()
            _close_all(self._idle)
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            if connection.is_idle():
                return connection
            connection.close()
        return None

    def _keep(self, connection: HttpConnection) -> None:
        if connection.reusable and len(self._idle) < _MOST_IDLE:
            self._idle.append(connection)
            if self._closed:
                _close_all(self._idle)
        else:
            connection.close()


def _close_all(connections: deque[HttpConnection]) -> None:
    while connections:
        try:
            connections.pop().close()
        except IndexError:  # another thread was quicker
            return
