"""KServe v2 over HTTP: the transport for asyncio, over aiohttp."""

from __future__ import annotations

import asyncio
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import aiohttp
from yarl import URL

from tritonkit.client.address import Address
from tritonkit.client.operations import Operation
from tritonkit.client.transport import (
    NO_HEADERS,
    Compression,
    InferRequest,
    InferResponse,
    Tls,
)
from tritonkit.client.transports.connection import (
    HttpAnswer,
    NotHttpError,
    check_headers,
    tls_context,
)
from tritonkit.client.transports.http_codec import (
    HINT,
    HttpRequest,
    check_status,
    decode_infer,
    decompress,
    encode_infer,
    failure,
)
from tritonkit.client.transports.http_operations import decode_operation, encode_operation
from tritonkit.errors import request_error

# aiohttp warns of larger ones, which it would send without letting others run.
_ONE_PIECE_BYTES = 64 * 1024
_READ_BYTES = 256 * 1024
# See http.py: how soon a server that closed an idle connection is known to have done so.
_CLOSED_WHEN_IDLE_S = 0.25


class AsyncHttpTransport:
    """A transport to one server for one event loop, that in which it is first used.

    As many connections are open as requests are under way. InferResponse's tensors are views of
    the answer. InputError for `tls` files that cannot be used.
    """

    def __init__(
        self, address: Address, *, tls: Tls | None = None, compression: Compression | None = None
    ):
        self._address = address
        self._where = str(address)
        self._tls = tls_context(address, tls)
        self._compression = compression
        scheme = "https" if address.secure else "http"
        self._base = f"{scheme}://{address.netloc}{address.path}"
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def address(self) -> str:
        """Whom it talks to."""
        return self._where

    def encode(self, request: InferRequest) -> HttpRequest:
        """As Transport.encode."""
        return encode_infer(request, self._compression)

    async def send(
        self,
        message: HttpRequest,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> HttpAnswer:
        """As Transport.send."""
        answer = await self._exchange(message, timeout_s, headers)
        check_status(self._where + message.path, answer)
        return answer._replace(regions=message.regions)

    def decode(self, answer: HttpAnswer) -> InferResponse:
        """As Transport.decode."""
        return decode_infer(self._where, answer)

    async def stream(
        self,
        message: HttpRequest,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> AsyncIterator[InferResponse]:
        """RejectedError: Triton streams over gRPC only."""
        raise request_error("unsupported", f"{self._where}: streaming needs gRPC; use grpc://")
        yield  # which makes this a generator

    async def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Any:
        """As Transport.call."""
        message = encode_operation(operation, arguments)
        answer = await self._exchange(message, timeout_s, headers)
        return decode_operation(self._where + message.path, operation, answer)

    async def get_text(self, path: str, timeout_s: float | None) -> str:
        """The text at `path`, such as /metrics."""
        message = HttpRequest("GET", path, {}, (), True)
        answer = await self._exchange(message, timeout_s, NO_HEADERS)
        check_status(self._where + path, answer)
        return answer.body.decode("utf-8", errors="replace")

    async def close(self) -> None:
        """Close all connections at once. Requests after it are refused."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _exchange(
        self, message: HttpRequest, timeout_s: float | None, headers: Mapping[str, str]
    ) -> HttpAnswer:
        check_headers(headers)
        began = time.perf_counter()
        use = _Use()
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    return await self._exchange_once(message, headers, use)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    late = time.perf_counter() - began > _CLOSED_WHEN_IDLE_S
                    if late or not use.reused or not message.repeatable:
                        raise
                return await self._exchange_once(message, headers, _Use())
        except (aiohttp.ClientError, OSError, ValueError) as error:
            cause, sent = _cause(error)
            raise failure(self._where, cause, sent=sent) from error

    async def _exchange_once(
        self, message: HttpRequest, headers: Mapping[str, str], use: _Use
    ) -> HttpAnswer:
        async with self._open_session().request(
            message.method,
            URL(self._base + message.path, encoded=True),
            headers={**message.headers, **headers},
            data=_body(message.body),
            allow_redirects=False,
            trace_request_ctx=use,
        ) as answer:
            body = await answer.read()
            found = {name.lower(): value for name, value in answer.headers.items()}
            raw = HttpAnswer(answer.status, found, body)
        return decompress(self._where, raw)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise request_error("closed", f"{self._where}: the client is closed")
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            if self._session is not None:  # of a loop that is over, as after asyncio.run()
                _forget(self._session)
            self._loop = loop
            self._session = self._new_session()
            weakref.finalize(self, _forget, self._session)
        return self._session

    def _new_session(self) -> aiohttp.ClientSession:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_READ_BYTES,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            trace_configs=[tracing],
        )


class _Use:
    """Whether a request went over a connection that had been used before."""

    reused = False


async def _note_reuse(_: object, trace: Any, __: object) -> None:
    trace.trace_request_ctx.reused = True


def _body(
    parts: tuple[bytes | memoryview, ...],
) -> bytes | AsyncIterator[bytes | memoryview] | None:
    """What aiohttp sends: piece by piece without a copy, if it is much."""
    if not parts:
        return None
    if len(parts) == 1 and len(parts[0]) <= _ONE_PIECE_BYTES:
        return bytes(parts[0])

    async def pieces() -> AsyncIterator[bytes | memoryview]:
        for part in parts:
            yield part

    return pieces()


def _cause(error: BaseException) -> tuple[BaseException, bool]:
    """What lies behind an error of aiohttp, and whether there was a connection."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error, False
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        # Its DNS error wraps that of the system.
        return (cause.__cause__ or cause if isinstance(cause, OSError) else cause), False
    if isinstance(error, aiohttp.ClientOSError) and isinstance(error.__cause__, ssl.SSLError):
        return error.__cause__, True
    if isinstance(error, aiohttp.ClientResponseError):
        return NotHttpError(_what_is(error.message)), True
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return NotHttpError(_what_is(str(error))), True
    return error, True


def _what_is(complaint: str) -> str:
    if r"b'\x00\x00" in complaint:  # it quotes what came: the frame that opens HTTP/2
        return "it speaks gRPC; use grpc://"
    return f"not HTTP ({complaint.strip().splitlines()[0]}); {HINT}"


def _forget(session: aiohttp.ClientSession) -> None:
    """Close a session without its loop, and without its complaints."""
    connector = session.connector
    session.detach()
    if connector is not None:
        closing = iter(connector.close().__await__())
        with suppress(StopIteration, RuntimeError):  # the loop may be closed
            next(closing)  # as far as it goes without the loop, which is far enough
