"""KServe v2 over gRPC, for one asyncio event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import grpc.aio

from tritonkit.client.address import Address
from tritonkit.client.operations import Operation
from tritonkit.client.transport import NO_HEADERS, Compression, InferRequest, InferResponse, Tls
from tritonkit.client.transports.grpc_channel import (
    COMPRESSIONS,
    INFER,
    STREAM,
    channel_credentials,
    channel_options,
    deadline,
    stream_metadata,
    target,
    to_metadata,
)
from tritonkit.client.transports.grpc_codec import (
    Answer,
    Message,
    decode_answer,
    decode_stream_answer,
    encode_request,
    for_stream,
)
from tritonkit.client.transports.grpc_errors import CLIENT_CLOSED, failure, status_failure
from tritonkit.client.transports.grpc_operations import (
    decode_call,
    encode_call,
    method,
    says_not_ready,
)
from tritonkit.errors import InputError, RequestError, request_error


class AsyncGrpcTransport:
    """An AsyncTransport over gRPC. It belongs to the loop in which it is used first.

    InputError as GrpcTransport.
    """

    def __init__(
        self, address: Address, *, tls: Tls | None = None, compression: Compression | None = None
    ):
        self.address = str(address)
        self._where = address
        self._credentials = channel_credentials(address, tls)
        self._compression = COMPRESSIONS[compression]
        self._channel: Any = None
        self._infer: Any = None
        self._stream: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_use = 0
        self._closed = False

    def encode(self, request: InferRequest) -> Message:
        """As Transport.encode."""
        return encode_request(request, self.address)

    async def send(
        self, message: Message, *, timeout_s: float | None, headers: Mapping[str, str] = NO_HEADERS
    ) -> Answer:
        """As Transport.send."""
        data, regions = message
        return Answer(await self._unary(None, data, timeout_s, headers), regions)

    def decode(self, answer: Answer) -> InferResponse:
        """As Transport.decode."""
        return decode_answer(answer, self.address)

    async def stream(
        self, message: Message, *, timeout_s: float | None, headers: Mapping[str, str] = NO_HEADERS
    ) -> AsyncIterator[InferResponse]:
        """As Transport.stream."""
        metadata = stream_metadata(headers)
        deadline_s = deadline(self.address, timeout_s)
        call: Any = None
        self._begin()
        try:
            call = self._stream(for_stream(message), timeout=deadline_s, metadata=metadata)
            async for data in call:
                response = decode_stream_answer(Answer(data, message.regions), self.address)
                # As in GrpcTransport: the server has yet to end the call.
                if response.outputs or not response.is_final:
                    yield response
        except RequestError:
            raise
        except asyncio.CancelledError:
            await self._raise_if_not_ours(call)
            raise
        except Exception as error:
            raise failure(self.address, error) from error
        finally:
            if call is not None:
                call.cancel()
            await self._end()

    async def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Any:
        """As Transport.call."""
        data = encode_call(operation, arguments, self.address)
        try:
            answer = await self._unary(method(operation), data, timeout_s, headers)
        except RequestError as error:
            if says_not_ready(operation, error):
                return False
            raise
        return decode_call(operation, answer, self.address)

    async def close(self) -> None:
        """As Transport.close."""
        last = not self._closed and not self._in_use
        self._closed = True
        if last and self._channel is not None:
            await self._channel.close()

    async def _unary(
        self, name: str | None, data: bytes, timeout_s: float | None, headers: Mapping[str, str]
    ) -> bytes | None:
        """name: the method's; None is ModelInfer."""
        metadata = to_metadata(headers) if headers else None
        deadline_s = deadline(self.address, timeout_s)
        call: Any = None
        self._begin()
        try:
            multicallable = self._infer if name is None else self._channel.unary_unary(name)
            call = multicallable(data, timeout=deadline_s, metadata=metadata)
            answer: bytes | None = await call
            return answer
        except asyncio.CancelledError:
            await self._raise_if_not_ours(call)
            raise
        except Exception as error:
            raise failure(self.address, error) from error
        finally:
            await self._end()

    async def _raise_if_not_ours(self, call: Any) -> None:
        """grpc.aio raises CancelledError also where the server ended the call with that status;
        then nobody has cancelled this task.
        """
        task = asyncio.current_task()
        if call is not None and task is not None and not task.cancelling():
            raise status_failure(self.address, await call.code(), await call.details() or "")

    def _begin(self) -> None:
        if self._closed:
            raise request_error("closed", f"{self.address}: {CLIENT_CLOSED}")
        if self._channel is None:
            self._open()
        elif asyncio.get_running_loop() is not self._loop:
            raise InputError(
                f"{self.address}: this client belongs to another event loop; make one in each"
            )
        self._in_use += 1

    def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        compressed = self._compression is not COMPRESSIONS[None]
        common = (channel_options(self._where, compressed=compressed), self._compression)
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(target(self._where), *common)
        else:
            self._channel = grpc.aio.secure_channel(target(self._where), self._credentials, *common)
        self._infer = self._channel.unary_unary(INFER)
        self._stream = self._channel.unary_stream(STREAM)

    async def _end(self) -> None:
        self._in_use -= 1
        if self._closed and not self._in_use:
            await self._channel.close()
