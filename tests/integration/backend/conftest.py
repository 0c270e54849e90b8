"""A real Triton with the onnxruntime backend of the kit, and repositories to serve with it."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
import tritonclient.http as triton_http
from google.protobuf import json_format, text_format
from onnx.parser import parse_model
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype

from tritonkit.server.embedded import EmbeddedTriton


@dataclass(frozen=True)
class Served:
    """A running Triton. `url` has no scheme, as tritonclient wants it; so has `metrics_url`."""

    url: str
    metrics_url: str
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://{self.metrics_url}/metrics") as response:
            return response.read().decode()

    def send(
        self,
        client: triton_http.InferenceServerClient,
        model: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None,
    ) -> triton_http.InferAsyncRequest:
        """Send a request without waiting for what comes of it."""
        return client.async_infer(model, give(inputs), outputs=ask(outputs))

    def client(self, concurrency: int = 1) -> triton_http.InferenceServerClient:
        return triton_http.InferenceServerClient(self.url, concurrency=concurrency)

    def infer(
        self, model: str, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """The outputs of one request, by name. `outputs`: what to ask for, all if None."""
        with self.client() as client:
            result = client.infer(model, give(inputs), outputs=ask(outputs))
            names = [output["name"] for output in result.get_response()["outputs"]]
            return {name: result.as_numpy(name) for name in names}


def give(arrays: Mapping[str, Any]) -> list[triton_http.InferInput]:
    """Arrays by name as a request's inputs, sent as binary."""
    inputs = []
    for name, array in arrays.items():
        datatype = np_to_triton_dtype(array.dtype)
        inputs.append(triton_http.InferInput(name, array.shape, datatype))
        inputs[-1].set_data_from_numpy(array)
    return inputs


def ask(names: Sequence[str] | None) -> list[triton_http.InferRequestedOutput] | None:
    """The outputs to ask for; None is all of them."""
    return None if names is None else [triton_http.InferRequestedOutput(name) for name in names]


@contextmanager
def _serve(repository: Path, *flags: str) -> Iterator[Served]:
    """Serve `repository`; models that cannot be loaded are left out, and the log says why."""
    options = ("--exit-on-error=false", "--strict-readiness=false", *flags)
    log = repository.parent / f"{repository.name}.log"
    with EmbeddedTriton(repository, log=log, drain=False, options=options) as triton:
        where = triton.endpoints
        assert where.metrics is not None
        yield Served(where.http, where.metrics, log)


@dataclass(frozen=True)
class Repository:
    path: Path

    def add(self, name: str, model: onnx.ModelProto | None, **config: Any) -> Path:
        """Write a model and its config (the keys of Triton's JSON form); its version's folder."""
        folder = self.path / name / "1"
        folder.mkdir(parents=True)
        if model is not None:
            onnx.save(model, folder / "model.onnx")
        message = json_format.ParseDict(
            {
                "name": name,
                "backend": "onnxruntime",
                "instance_group": [{"kind": "KIND_CPU", "count": 1}],
                "parameters": {"intra_op_thread_count": {"string_value": "1"}},
                **config,
            },
            model_config_pb2.ModelConfig(),
        )
        (folder.parent / "config.pbtxt").write_text(text_format.MessageToString(message))
        return folder


@pytest.fixture(scope="session")
def serve(installed: None) -> Callable[..., AbstractContextManager[Served]]:
    return _serve


@pytest.fixture
def empty_repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("triton") / "repository")


@pytest.fixture(scope="session")
def graph() -> Callable[..., onnx.ModelProto]:
    """A model from ONNX's own text syntax: `(float[N,4] x) => (float[N,4] y) { y = Relu(x) }`."""

    def parse(text: str) -> onnx.ModelProto:
        return parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {text}')

    return parse
