"""Both gRPC transports carry the answers of a decoupled model of a real Triton."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tritonkit.client.address import parse_address
from tritonkit.client.transport import Cancellation, InferRequest, InferResponse, Tensor
from tritonkit.client.transports.grpc import GrpcTransport
from tritonkit.client.transports.grpc_aio import AsyncGrpcTransport
from tritonkit.errors import RequestError
from tritonkit.server.embedded import EmbeddedTriton

X = np.arange(8, dtype=np.float32).reshape(2, 4)

CONFIG = """
name: "counting" backend: "python" max_batch_size: 0
input [{ name: "count" data_type: TYPE_INT32 dims: [1] }]
output [{ name: "k" data_type: TYPE_INT32 dims: [1] }]
model_transaction_policy { decoupled: true }
instance_group [{ kind: KIND_CPU count: 1 }]
"""
# Counts, one answer each; for ever if count is 0. A negative count ends in an error, when both
# answers were read: gRPC drops the answers that an error overtakes.
COUNTING = """
import time
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            tensor = pb_utils.get_input_tensor_by_name(request, "count")
            self.count(request, int(np.from_dlpack(tensor)[0]), request.get_response_sender())

    def count(self, request, n, sender):
        k = 0
        while n == 0 or k < abs(n):
            if request.is_cancelled():
                Path(__file__).with_name("cancelled").touch()
                break
            if n or not k:
                value = pb_utils.Tensor.from_dlpack("k", np.array([k], np.int32))
                sender.send(pb_utils.InferenceResponse([value]))
            else:
                time.sleep(0.005)
            k += 1
        answer = {"flags": pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL}
        if n < 0:
            read = Path(__file__).with_name("read")
            while not read.exists() and not request.is_cancelled():
                time.sleep(0.005)
            code = pb_utils.TritonError.UNAVAILABLE
            error = pb_utils.TritonError("it broke\\nin two lines", code)
            sender.send(pb_utils.InferenceResponse(error=error), **answer)
        else:
            sender.send(**answer)
"""


@dataclass(frozen=True)
class Served:
    grpc: str
    repository: Path


@pytest.fixture(scope="module")
def triton(
    installed: None, package: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("grpc")
    repository = package(folder / "repository", "double")
    version = repository / "counting" / "1"
    version.mkdir(parents=True)
    (repository / "counting" / "config.pbtxt").write_text(CONFIG)
    (version / "model.py").write_text(COUNTING)
    with EmbeddedTriton(repository, log=folder / "log", drain=False) as server:
        yield Served(f"grpc://{server.endpoints.grpc}", repository)


@pytest.fixture
def transport(triton: Served) -> Iterator[GrpcTransport]:
    with closing(GrpcTransport(parse_address(triton.grpc))) as made:
        yield made


def request(model: str = "double") -> InferRequest:
    return InferRequest(model, (Tensor("x", "FP32", X.shape, X.tobytes()),))


def count_to(count: int) -> InferRequest:
    data = np.array([count], np.int32).tobytes()
    return InferRequest("counting", (Tensor("count", "INT32", (1,), data),), id="c")


def values(responses: Iterator[InferResponse]) -> list[int]:
    return [int(np.frombuffer(r.outputs[0].data, np.int32)[0]) for r in responses]  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 3])
def test_a_stream_brings_every_answer(transport: GrpcTransport, count: int) -> None:
    """A decoupled model's answers come in order, without the empty last one."""
    stream = transport.stream(transport.encode(count_to(count)), timeout_s=20)
    assert values(stream) == list(range(count))


def test_a_stream_of_one(transport: GrpcTransport) -> None:
    """A model that is not decoupled has one answer, which is final."""
    (answer,) = transport.stream(transport.encode(request()), timeout_s=20)
    assert answer.outputs[0].data == (X + X).tobytes() and answer.is_final


def test_an_async_stream_brings_every_answer(triton: Served) -> None:
    """So it is over the asyncio transport."""

    async def run() -> list[InferResponse]:
        transport = AsyncGrpcTransport(parse_address(triton.grpc))
        stream = transport.stream(transport.encode(count_to(3)), timeout_s=20)
        found = [answer async for answer in stream]
        await transport.close()
        return found

    found = asyncio.run(run())
    assert values(iter(found)) == [0, 1, 2]
    assert {answer.id for answer in found} == {"c"}


def test_an_error_in_a_stream_has_its_kind(triton: Served, transport: GrpcTransport) -> None:
    """A model's error comes after its answers, with the status that it was given."""
    stream = transport.stream(transport.encode(count_to(-2)), timeout_s=20)
    assert [values(iter([next(stream)])) for _ in range(2)] == [[0], [1]]
    (triton.repository / "counting" / "1" / "read").touch()
    with pytest.raises(RequestError, match="it broke in two lines") as caught:
        next(stream)
    assert caught.value.kind == "unavailable"


@pytest.mark.parametrize(
    ("what", "kind"),
    [(request("nix"), "not_found"), (request("counting"), "invalid")],
)
def test_a_refused_stream(transport: GrpcTransport, what: InferRequest, kind: str) -> None:
    """A refusal in a stream, which has only words, has the kind of a refused request."""
    with pytest.raises(RequestError) as caught:
        list(transport.stream(transport.encode(what), timeout_s=20))
    assert caught.value.kind == kind


@pytest.fixture
def told_to_stop(triton: Served) -> Callable[[], bool]:
    mark = triton.repository / "counting" / "1" / "cancelled"
    mark.unlink(missing_ok=True)
    return mark.exists


def test_closing_a_stream_cancels_it(
    transport: GrpcTransport, told_to_stop: Callable[[], bool], wait_for: Callable[..., None]
) -> None:
    """Who reads no further ends the request on the server."""
    stream = transport.stream(transport.encode(count_to(0)), timeout_s=60)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    wait_for(told_to_stop)


def test_closing_an_async_stream_cancels_it(
    triton: Served, told_to_stop: Callable[[], bool], wait_for: Callable[..., None]
) -> None:
    """So it is over the asyncio transport."""

    async def run() -> None:
        transport = AsyncGrpcTransport(parse_address(triton.grpc))
        stream = transport.stream(transport.encode(count_to(0)), timeout_s=60)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        await transport.close()

    asyncio.run(run())
    wait_for(told_to_stop)


def test_a_stream_can_be_cancelled(
    transport: GrpcTransport, told_to_stop: Callable[[], bool], wait_for: Callable[..., None]
) -> None:
    """A Cancellation ends a stream while it waits for an answer."""
    cancellation = Cancellation()
    message = transport.encode(count_to(0))
    stream = transport.stream(message, timeout_s=60, cancellation=cancellation)
    next(stream)
    cancellation.cancel()
    with pytest.raises(RequestError) as caught:
        next(stream)
    assert caught.value.kind == "cancelled"
    wait_for(told_to_stop)


def test_a_streams_deadline_is_for_all_of_it(transport: GrpcTransport) -> None:
    """A stream that does not end in time is a timeout."""
    with pytest.raises(RequestError) as caught:
        list(transport.stream(transport.encode(count_to(0)), timeout_s=0.3))
    assert caught.value.kind == "timeout"


def test_a_decoupled_model_needs_a_stream(transport: GrpcTransport) -> None:
    """Triton does not answer a decoupled model's request outside a stream."""
    with pytest.raises(RequestError, match="decoupled") as caught:
        transport.send(transport.encode(count_to(1)), timeout_s=20)
    assert caught.value.kind == "unsupported"
