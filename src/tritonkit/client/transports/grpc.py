"""KServe v2 over gRPC. One channel, which any number of threads share."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import grpc

from tritonkit.client.address import Address
from tritonkit.client.operations import Operation
from tritonkit.client.transport import (
    NO_HEADERS,
    Cancellation,
    Compression,
    InferRequest,
    InferResponse,
    Tls,
)
from tritonkit.client.transports.grpc_channel import (
    COMPRESSIONS,
    INFER,
    STREAM,
    cancelled,
    channel_credentials,
    channel_options,
    deadline,
    stream_metadata,
    target,
    tell_gevent,
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
from tritonkit.client.transports.grpc_errors import CLIENT_CLOSED, failure
from tritonkit.client.transports.grpc_operations import (
    decode_call,
    encode_call,
    method,
    says_not_ready,
)
from tritonkit.errors import RequestError, request_error


class GrpcTransport:
    """A Transport over gRPC.

    InputError if a file of `tls` cannot be used, or if it is given with an address that is not
    grpcs://. Nothing is sent before the first request.
    """

    def __init__(
        self, address: Address, *, tls: Tls | None = None, compression: Compression | None = None
    ):
        self.address = str(address)
        credentials = channel_credentials(address, tls)
        tell_gevent()
        common = (channel_options(address, compressed=bool(compression)), COMPRESSIONS[compression])
        if credentials is None:
            self._channel = grpc.insecure_channel(target(address), *common)
        else:
            self._channel = grpc.secure_channel(target(address), credentials, *common)
        # Messages go and come as bytes: encoded once, sent often, read only by who wants them.
        self._infer = self._channel.unary_unary(INFER)
        # One request a stream, so it is sent like any other; the answers tell the end.
        self._stream = self._channel.unary_stream(STREAM)
        self._lock = threading.Lock()
        self._in_use = 0
        self._closed = False

    def encode(self, request: InferRequest) -> Message:
        """The request as a message. RejectedError if gRPC cannot carry it."""
        return encode_request(request, self.address)

    def send(
        self,
        message: Message,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
        cancellation: Cancellation | None = None,
    ) -> Answer:
        """Send an inference request and wait for the answer."""
        data, regions = message
        return Answer(self._unary(self._infer, data, timeout_s, headers, cancellation), regions)

    def decode(self, answer: Answer) -> InferResponse:
        """Read an answer. ProtocolError if it is none."""
        return decode_answer(answer, self.address)

    def stream(
        self,
        message: Message,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
        cancellation: Cancellation | None = None,
    ) -> Iterator[InferResponse]:
        """Send a request and yield each answer; closing the iterator cancels the request."""
        metadata = stream_metadata(headers)
        deadline_s = deadline(self.address, timeout_s)
        if cancellation is not None and cancellation.cancelled:
            raise cancelled(self.address)
        call: Any = None
        self._begin()
        try:
            call = self._stream(for_stream(message), timeout=deadline_s, metadata=metadata)
            if cancellation is not None:
                cancellation.on_cancel(call.cancel)
            for data in call:
                response = decode_stream_answer(Answer(data, message.regions), self.address)
                # After the last one the server has yet to end the call: to leave here would
                # cancel it.
                if response.outputs or not response.is_final:
                    yield response
        except RequestError:
            raise
        except Exception as error:
            raise failure(self.address, error) from error
        finally:
            if cancellation is not None:
                cancellation.on_cancel(None)
            if call is not None:
                call.cancel()
            self._end()

    def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Any:
        """Carry out an operation that is not inference."""
        data = encode_call(operation, arguments, self.address)
        try:
            multicallable = self._channel.unary_unary(method(operation))
            answer = self._unary(multicallable, data, timeout_s, headers, None)
        except RequestError as error:
            if says_not_ready(operation, error):
                return False
            raise
        return decode_call(operation, answer, self.address)

    def close(self) -> None:
        """Close the channel, as soon as no request uses it."""
        with self._lock:
            last = not self._closed and not self._in_use
            self._closed = True
        if last:
            self._channel.close()

    def _unary(
        self,
        multicallable: Any,
        data: bytes,
        timeout_s: float | None,
        headers: Mapping[str, str],
        cancellation: Cancellation | None,
    ) -> bytes | None:
        metadata = to_metadata(headers) if headers else None
        deadline_s = deadline(self.address, timeout_s)
        self._begin()
        try:
            answer: bytes | None
            if cancellation is None:
                answer = multicallable(data, timeout=deadline_s, metadata=metadata)
            else:
                answer = self._cancellable(multicallable, data, deadline_s, metadata, cancellation)
            return answer
        except RequestError:
            raise
        except Exception as error:
            raise failure(self.address, error) from error
        finally:
            self._end()

    def _cancellable(
        self, multicallable: Any, data: bytes, deadline_s: Any, metadata: Any, to: Cancellation
    ) -> bytes | None:
        if to.cancelled:
            raise cancelled(self.address)
        call = multicallable.future(data, timeout=deadline_s, metadata=metadata)
        to.on_cancel(call.cancel)
        try:
            answer: bytes | None = call.result()
            return answer
        finally:
            to.on_cancel(None)
            call.cancel()  # nothing if it is done; else this thread was interrupted

    def _begin(self) -> None:
        with self._lock:
            if self._closed:
                raise request_error("closed", f"{self.address}: {CLIENT_CLOSED}")
            self._in_use += 1

    def _end(self) -> None:
        with self._lock:
            self._in_use -= 1
            last = self._closed and not self._in_use
        if last:
            self._channel.close()
