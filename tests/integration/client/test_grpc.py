"""Both gRPC transports carry inference requests to a real Triton."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import pytest

from tritonkit.client.address import parse_address
from tritonkit.client.operations import Operation
from tritonkit.client.transport import (
    Cancellation,
    InferRequest,
    InferResponse,
    Region,
    Tensor,
    Wanted,
)
from tritonkit.client.transports.grpc import GrpcTransport
from tritonkit.client.transports.grpc_aio import AsyncGrpcTransport
from tritonkit.errors import InputError, RequestError
from tritonkit.server.embedded import EmbeddedTriton

X = np.arange(8, dtype=np.float32).reshape(2, 4)

CONFIG = """
name: "waiting" backend: "python" max_batch_size: 0
input [{ name: "count" data_type: TYPE_INT32 dims: [1] }]
output [{ name: "k" data_type: TYPE_INT32 dims: [1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
# Waits until it is cancelled.
WAITING = """
import time
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        Path(__file__).with_name("started").touch()
        while not requests[0].is_cancelled():
            time.sleep(0.005)
        Path(__file__).with_name("cancelled").touch()
        value = pb_utils.Tensor.from_dlpack("k", np.array([0], np.int32))
        return [pb_utils.InferenceResponse([value]) for _ in requests]
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
    repository = folder / "repository"
    for model in ("double", "many", "slow"):
        package(repository, model)
    version = repository / "waiting" / "1"
    version.mkdir(parents=True)
    (repository / "waiting" / "config.pbtxt").write_text(CONFIG)
    (version / "model.py").write_text(WAITING)
    with EmbeddedTriton(repository, log=folder / "log", drain=False) as server:
        yield Served(f"grpc://{server.endpoints.grpc}", repository)


@contextmanager
def connected(address: str, **options: object) -> Iterator[GrpcTransport]:
    with closing(GrpcTransport(parse_address(address), **options)) as transport:  # type: ignore[arg-type]
        yield transport


@pytest.fixture
def transport(triton: Served) -> Iterator[GrpcTransport]:
    with connected(triton.grpc) as made:
        yield made


def request(model: str = "double", **more: object) -> InferRequest:
    return InferRequest(model, (Tensor("x", "FP32", X.shape, X.tobytes()),), **more)  # type: ignore[arg-type]


def turns(count: int) -> InferRequest:
    data = np.array([[count]]).tobytes()
    return InferRequest("slow", (Tensor("steps", "INT64", (1, 1), data),))


def wait() -> InferRequest:
    data = np.zeros(1, np.int32).tobytes()
    return InferRequest("waiting", (Tensor("count", "INT32", (1,), data),))


def infer(transport: GrpcTransport, what: InferRequest, timeout_s: float = 20) -> InferResponse:
    return transport.decode(transport.send(transport.encode(what), timeout_s=timeout_s))


def doubled(answer: InferResponse) -> bool:
    (y,) = answer.outputs
    assert isinstance(y.data, bytes)
    return np.array_equal(np.frombuffer(y.data, np.float32).reshape(y.shape), X + X)


# Inference


def test_an_answer_is_numpys(transport: GrpcTransport) -> None:
    """What Triton answers to the encoded array is what numpy computes."""
    assert doubled(infer(transport, request()))


def test_an_async_answer_is_numpys(triton: Served) -> None:
    """So it is over the asyncio transport."""

    async def run() -> bool:
        transport = AsyncGrpcTransport(parse_address(triton.grpc))
        answer = await transport.send(transport.encode(request()), timeout_s=20)
        await transport.close()
        return doubled(transport.decode(answer))

    assert asyncio.run(run())


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_a_compressed_request_is_understood(triton: Served, compression: str) -> None:
    """Triton reads gRPC's own compression."""
    with connected(triton.grpc, compression=compression) as transport:
        assert doubled(infer(transport, request()))


def test_a_message_is_sent_often(transport: GrpcTransport) -> None:
    """A message that was encoded once can be sent again."""
    message = transport.encode(request())
    answers = [transport.send(message, timeout_s=20) for _ in range(3)]
    assert all(doubled(transport.decode(answer)) for answer in answers)


def test_id_and_version_come_back(transport: GrpcTransport) -> None:
    """An answer says which request it answers, and by which version."""
    answer = infer(transport, request(id="seven", version="1", parameters={"timeout": 10**7}))
    assert (answer.model, answer.version, answer.id, answer.is_final) == (
        *("double", "1", "seven"),
        True,
    )


def test_chosen_outputs_and_classes(transport: GrpcTransport) -> None:
    """Only the outputs that are asked for come, as classes if asked for those."""
    answer = infer(transport, request(outputs=(Wanted("y", classes=1),)))
    (y,) = answer.outputs
    assert (y.datatype, y.shape) == ("BYTES", (2, 1))
    assert isinstance(y.data, bytes) and y.data[4:].startswith(b"6.000000:3")


MANY = tuple(
    Tensor(name, datatype, (1, 2), np.ones(2, dtype).tobytes())
    for name, datatype, dtype in (
        *(("f", "FP32", np.float32), ("i", "INT64", np.int64)),
        *(("b", "BOOL", np.bool_), ("d", "FP64", np.float64)),
    )
)


def test_all_datatypes(transport: GrpcTransport) -> None:
    """Each output has its own datatype and data."""
    outputs = {t.name: t for t in infer(transport, InferRequest("many", MANY)).outputs}
    found = {name: tensor.datatype for name, tensor in outputs.items()}
    assert found == {"F": "FP32", "I": "INT64", "B": "BOOL", "D": "FP64"}
    assert outputs["I"].data == (-np.ones(2, np.int64)).tobytes()


@pytest.fixture
def memory(
    transport: GrpcTransport, wait_for: Callable[..., None]
) -> Iterator[shared_memory.SharedMemory]:
    """128 bytes, which Triton knows as `region`."""
    made = shared_memory.SharedMemory(create=True, size=128)
    what = {"name": "region", "key": f"/{made.name}", "byte_size": 128, "offset": 0}

    def forgotten() -> bool:
        try:
            transport.call(Operation.UNREGISTER, {"name": "region"}, timeout_s=20)
        except RequestError as error:
            # Triton lets go of a region a moment after it has answered.
            assert "currently in use" in str(error)
            return False
        return True

    try:
        transport.call(Operation.REGISTER, what, timeout_s=20)
        yield made
        wait_for(forgotten)
    finally:
        made.close()
        made.unlink()


def test_tensors_in_shared_memory(
    transport: GrpcTransport, memory: shared_memory.SharedMemory
) -> None:
    """Inputs are read from a region, outputs written to one, and the answer says where."""
    memory.buf[:32] = X.tobytes()
    inputs = (Tensor("x", "FP32", X.shape, Region("region", 32)),)
    outputs = (Wanted("y", region=Region("region", 64, 64)),)
    answer = infer(transport, InferRequest("double", inputs, outputs=outputs))
    assert answer.outputs[0].data == Region("region", 32, 64)
    assert bytes(memory.buf[64:96]) == (X + X).tobytes()


def test_some_outputs_in_shared_memory(
    transport: GrpcTransport, memory: shared_memory.SharedMemory
) -> None:
    """An output in a region leaves those on the wire with their own data."""
    outputs = (Wanted("F", region=Region("region", 8)), Wanted("I"))
    answer = infer(transport, InferRequest("many", MANY, outputs=outputs))
    found = {t.name: t.data for t in answer.outputs}
    assert found == {"F": Region("region", 8), "I": (-np.ones(2, np.int64)).tobytes()}


def test_sixteen_threads(transport: GrpcTransport) -> None:
    """One transport serves 16 threads, each with its own answers."""

    def work(value: int) -> bool:
        data = np.full((1, 4), value, np.float32)
        what = InferRequest("double", (Tensor("x", "FP32", (1, 4), data.tobytes()),))
        answers = (infer(transport, what).outputs[0].data for _ in range(20))
        return all(a == (data + data).tobytes() for a in answers)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))


# Refusals


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        (request("nix"), "not_found", "nix"),
        (request(version="9"), "not_found", "version 9"),
        (InferRequest("double", ()), "invalid", "expected 1 inputs"),
        (request(outputs=(Wanted("z"),)), "invalid", "output 'z'"),
        (request(outputs=(Wanted("y", region=Region("no", 9)),)), "not_found", "memory region"),
        (request(parameters={"triton_x": 1}), "invalid", "triton_"),
    ],
)
def test_refusals(transport: GrpcTransport, what: InferRequest, kind: str, words: str) -> None:
    """What Triton refuses has its kind, and its reason in one line with the address."""
    with pytest.raises(RequestError, match=words) as caught:
        infer(transport, what)
    assert caught.value.kind == kind
    assert str(caught.value).startswith(transport.address) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "words"),
    [({"a b": "x"}, "a b"), ({"x": "a\nb"}, "x"), ({"x": "é"}, "x"), ({"x-bin": "y"}, "x-bin")],
)
def test_headers_that_grpc_cannot_carry(
    transport: GrpcTransport, headers: dict[str, str], words: str
) -> None:
    """A header that gRPC cannot carry is the user's mistake."""
    with pytest.raises(InputError, match=words):
        transport.send(transport.encode(request()), timeout_s=20, headers=headers)


def test_headers_are_lower_cased(transport: GrpcTransport) -> None:
    """A header may be spelled as HTTP's."""
    message = transport.encode(request())
    assert transport.send(message, timeout_s=20, headers={"Authorization": "Bearer x"}).data


# Deadlines and cancellation


def test_a_deadline_holds(transport: GrpcTransport) -> None:
    """A model that is too slow costs no more than the deadline."""
    started = time.monotonic()
    with pytest.raises(RequestError) as caught:
        infer(transport, turns(3000), timeout_s=0.2)
    assert caught.value.kind == "timeout"
    assert time.monotonic() - started < 1


def test_a_timeout_may_be_endless(transport: GrpcTransport) -> None:
    """An infinite timeout is no deadline."""
    assert doubled(infer(transport, request(), timeout_s=float("inf")))


def test_a_deadline_that_has_passed(transport: GrpcTransport) -> None:
    """With no time left nothing is sent."""
    with pytest.raises(RequestError) as caught:
        infer(transport, request(), timeout_s=0)
    assert caught.value.kind == "timeout"


@pytest.fixture
def waiting(triton: Served) -> Iterator[Callable[[str], bool]]:
    """Whether the waiting model has `started`, or was `cancelled`."""
    folder = triton.repository / "waiting" / "1"
    for name in ("started", "cancelled"):
        (folder / name).unlink(missing_ok=True)
    yield lambda name: (folder / name).exists()


def test_a_cancellation_reaches_the_server(
    transport: GrpcTransport, waiting: Callable[[str], bool], wait_for: Callable[..., None]
) -> None:
    """Cancelling from another thread ends the wait here, and the model is told."""
    cancellation = Cancellation()
    message = transport.encode(wait())
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(transport.send, message, timeout_s=30, cancellation=cancellation)
        wait_for(lambda: waiting("started"))
        cancellation.cancel()
        error = sent.exception(5)
    assert isinstance(error, RequestError) and error.kind == "cancelled"
    wait_for(lambda: waiting("cancelled"))


def test_a_cancellation_before_sending(transport: GrpcTransport) -> None:
    """What was cancelled before is not sent."""
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(RequestError) as caught:
        message = transport.encode(request())
        transport.send(message, timeout_s=20, cancellation=cancellation)
    assert caught.value.kind == "cancelled"


def test_a_cancellation_that_is_not_used(transport: GrpcTransport) -> None:
    """A request that could have been cancelled is answered as any other."""
    message = transport.encode(request())
    answer = transport.send(message, timeout_s=20, cancellation=Cancellation())
    assert doubled(transport.decode(answer))


def test_a_cancelled_task_cancels_the_request(
    triton: Served, waiting: Callable[[str], bool], wait_for: Callable[..., None]
) -> None:
    """asyncio's cancellation stays what it is, and the model is told."""

    async def run() -> None:
        transport = AsyncGrpcTransport(parse_address(triton.grpc))
        message = transport.encode(wait())
        task = asyncio.ensure_future(transport.send(message, timeout_s=30))
        while not waiting("started"):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await transport.close()

    asyncio.run(run())
    wait_for(lambda: waiting("cancelled"))
