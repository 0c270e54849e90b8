"""Every operation over gRPC against a real Triton, in the form of its HTTP answers."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import pytest

from tritonkit.client.address import parse_address
from tritonkit.client.operations import Operation
from tritonkit.client.transports.grpc import GrpcTransport
from tritonkit.client.transports.grpc_aio import AsyncGrpcTransport
from tritonkit.errors import RequestError
from tritonkit.server.embedded import EmbeddedTriton

DOUBLE = {"model": "double", "version": ""}


@dataclass(frozen=True)
class Served:
    transport: GrpcTransport
    http: str
    repository: Path

    def call(self, operation: Operation, **arguments: object) -> Any:
        return self.transport.call(operation, arguments, timeout_s=20)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.http}/v2{path}") as response:
            return json.load(response)


@pytest.fixture(scope="module")
def triton(
    installed: None, package: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("grpc")
    repository = package(folder / "repository", "double")
    package(repository, "double", name="spare")
    options = ("--model-control-mode=explicit", "--load-model=double")
    with EmbeddedTriton(repository, log=folder / "log", drain=False, options=options) as server:
        ends = server.endpoints
        with closing(GrpcTransport(parse_address(f"grpc://{ends.grpc}"))) as transport:
            yield Served(transport, ends.http, repository)


@pytest.mark.parametrize("operation", [Operation.LIVE, Operation.READY])
def test_a_server_that_is_up(triton: Served, operation: Operation) -> None:
    """A Triton that serves is live and ready."""
    assert triton.call(operation) is True


@pytest.mark.parametrize(
    ("model", "version", "ready"), [("double", "", True), ("double", "7", False), ("no", "", False)]
)
def test_model_ready(triton: Served, model: str, version: str, ready: bool) -> None:
    """A model is ready if it is there in that version; one that Triton lacks is not."""
    assert triton.call(Operation.MODEL_READY, model=model, version=version) is ready


@pytest.mark.parametrize(
    ("operation", "arguments", "path"),
    [
        (Operation.SERVER, {}, ""),
        (Operation.METADATA, DOUBLE, "/models/double"),
        (Operation.CONFIG, DOUBLE, "/models/double/config"),
        (Operation.STATISTICS, DOUBLE, "/models/double/stats"),
        (Operation.STATISTICS, {"model": "", "version": ""}, "/models/stats"),
        (Operation.TRACE, {"model": "", "settings": {}}, "/trace/setting"),
        (Operation.TRACE, {"model": "double", "settings": {}}, "/models/double/trace/setting"),
        (Operation.LOG, {"settings": {}}, "/logging"),
    ],
)
def test_the_answer_is_that_of_http(
    triton: Served, operation: Operation, arguments: dict[str, Any], path: str
) -> None:
    """An answer over gRPC equals Triton's HTTP JSON."""
    assert triton.call(operation, **arguments) == triton.get(path)


def test_an_async_answer_is_the_same(triton: Served) -> None:
    """The asyncio transport answers what the blocking one does."""

    async def run() -> Any:
        transport = AsyncGrpcTransport(parse_address(triton.transport.address))
        found = await transport.call(Operation.CONFIG, DOUBLE, timeout_s=20)
        missing = await transport.call(
            Operation.MODEL_READY, {"model": "no", "version": ""}, timeout_s=20
        )
        await transport.close()
        return found, missing

    assert asyncio.run(run()) == (triton.call(Operation.CONFIG, **DOUBLE), False)


def test_unknown_model(triton: Served) -> None:
    """Metadata of a model that Triton lacks is not found."""
    with pytest.raises(RequestError, match="'no' is not found") as caught:
        triton.call(Operation.METADATA, model="no", version="")
    assert caught.value.kind == "not_found"


def test_load_and_unload(triton: Served, wait_for: Callable[..., None]) -> None:
    """A model is served after LOAD and gone after UNLOAD; the index tells."""
    assert triton.call(Operation.LOAD, model="spare", config=None, files={}) is None
    ready = triton.call(Operation.INDEX, ready=True)
    assert {"name": "spare", "version": "1", "state": "READY", "reason": ""} in ready
    assert triton.call(Operation.UNLOAD, model="spare", unload_dependents=False) is None

    def gone() -> bool:
        entries = triton.call(Operation.INDEX, ready=False)
        return {e["name"]: e["state"] for e in entries}["spare"] == "UNAVAILABLE"

    wait_for(gone)
    assert [e["name"] for e in triton.call(Operation.INDEX, ready=True)] == ["double"]


def test_load_with_a_config(triton: Served) -> None:
    """LOAD takes another config than the repository's."""
    config = triton.call(Operation.CONFIG, **DOUBLE)
    wanted = {**config, "name": "spare", "max_batch_size": 4, "instance_group": []}
    wanted.pop("model_warmup"), wanted.pop("dynamic_batching")
    triton.call(Operation.LOAD, model="spare", config=json.dumps(wanted), files={})
    assert triton.call(Operation.CONFIG, model="spare", version="")["max_batch_size"] == 4


def test_load_with_files(triton: Served) -> None:
    """LOAD takes a model's files from the request instead of the repository."""
    folder = triton.repository / "double"
    config = triton.call(Operation.CONFIG, **DOUBLE)
    wanted = {**config, "name": "sent", "instance_group": []}
    files = {"1/model.onnx": (folder / "1" / "model.onnx").read_bytes()}
    triton.call(Operation.LOAD, model="sent", config=json.dumps(wanted), files=files)
    assert triton.call(Operation.MODEL_READY, model="sent", version="1") is True


def test_load_of_nothing(triton: Served) -> None:
    """Triton's failure to load has its reason."""
    with pytest.raises(RequestError, match="failed to load 'no'") as caught:
        triton.call(Operation.LOAD, model="no", config=None, files={})
    assert caught.value.kind == "failed"


def test_trace_settings(triton: Served) -> None:
    """A trace setting is set by any of its forms, and reset by None."""
    changed = triton.call(Operation.TRACE, model="", settings={"trace_rate": 7})
    assert (changed["trace_rate"], changed["trace_level"]) == ("7", ["OFF"])
    assert triton.call(Operation.TRACE, model="", settings={"trace_rate": None}) == triton.get(
        "/trace/setting"
    )
    assert triton.get("/trace/setting")["trace_rate"] == "1000"


def test_log_settings(triton: Served) -> None:
    """Log settings are set by their own types."""
    found = triton.call(Operation.LOG, settings={"log_verbose_level": 1, "log_info": False})
    assert (found["log_verbose_level"], found["log_info"]) == (1, False)
    back = {"log_verbose_level": 0, "log_info": True, "log_format": "default"}
    assert triton.call(Operation.LOG, settings=back) == triton.get("/logging")


def test_regions(triton: Served) -> None:
    """Triton lists a region from its registration until it is unregistered."""
    memory = shared_memory.SharedMemory(create=True, size=64)
    what = {"name": "r", "key": f"/{memory.name}", "offset": 0, "byte_size": 64}
    try:
        assert triton.call(Operation.REGISTER, **what) is None
        assert triton.call(Operation.REGIONS) == [what]
        with pytest.raises(RequestError, match="already") as caught:
            triton.call(Operation.REGISTER, **what)
        assert caught.value.kind == "invalid"
        assert triton.call(Operation.UNREGISTER, name="r") is None
        assert triton.call(Operation.REGIONS) == []
    finally:
        memory.close()
        memory.unlink()


def test_a_value_that_does_not_fit(triton: Served) -> None:
    """A number that no message can hold is invalid."""
    with pytest.raises(RequestError) as caught:
        triton.call(Operation.REGISTER, name="r", key="/k", offset=-1, byte_size=1)
    assert caught.value.kind == "invalid"
