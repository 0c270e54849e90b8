"""The model class, with a stand-in for what Triton's stub provides."""

from __future__ import annotations

import importlib
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

PACKAGE = "tritonkit.server.onnxruntime_backend"
X, Y = ({"name": name, "data_type": "TYPE_FP32", "dims": [3]} for name in "xy")


class Tensor:
    """A tensor that goes in and out by DLPack alone."""

    def __init__(self, name, array):
        self._name, self.array = name, array

    @classmethod
    def from_dlpack(cls, name, capsule):
        return cls(name, np.from_dlpack(Exporter(capsule)))

    def name(self):
        return self._name

    def to_dlpack(self):
        return self.array.__dlpack__()


class Exporter:
    def __init__(self, capsule):
        self.capsule = capsule

    def __dlpack__(self, **_):
        return self.capsule

    def __dlpack_device__(self):
        return (1, 0)


class Request:
    def __init__(self, array, outputs=("y",)):
        self.array, self.outputs = array, set(outputs)

    def inputs(self):
        return [Tensor("x", self.array)]

    def requested_output_names(self):
        return self.outputs


class Family:
    GAUGE = "gauge"

    def __init__(self, **_):
        raise TritonModelError("metrics are off")


class TritonModelError(Exception):
    pass


@pytest.fixture
def model(monkeypatch, version):
    """A loaded model that doubles `x` `[N, 3]`, up to 8 rows a batch."""
    log = SimpleNamespace(log_info=str, log_verbose=str, log_warn=str)
    stub = SimpleNamespace(
        Tensor=Tensor,
        TritonError=str,
        TritonModelException=TritonModelError,
        InferenceResponse=lambda tensors=(), error=None: error or [t.array for t in tensors],
        MetricFamily=Family,
        Logger=log,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stub)
    for name in ("tensors", "model"):
        monkeypatch.delitem(sys.modules, f"{PACKAGE}.{name}", raising=False)
    model = importlib.import_module(f"{PACKAGE}.model").TritonPythonModel()
    config = {"name": "m", "max_batch_size": 8, "input": [X], "output": [Y]}
    model.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(version.parent),
            "model_version": version.name,
            "model_name": "m",
            "model_instance_name": "m_0_0",
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
        }
    )
    yield model
    model.finalize()
    for name in ("tensors", "model"):
        monkeypatch.delitem(sys.modules, f"{PACKAGE}.{name}")


def rows(*values):
    return np.repeat(np.float32(values)[:, None], 3, axis=1)


def test_batch_is_split_by_the_rows_of_each_request(model):
    """Requests of different sizes get back their own rows, in order."""
    responses = model.execute([Request(rows(1)), Request(rows(2, 3)), Request(rows(4))])
    assert [y.tolist() for (y,) in responses] == [
        rows(2).tolist(),
        rows(4, 6).tolist(),
        rows(8).tolist(),
    ]


def test_outputs_are_views_of_one_run(model):
    """The rows that responses carry are not copied out of the run's output."""
    (first,), (second,) = model.execute([Request(rows(1)), Request(rows(2))])
    assert second.ctypes.data - first.ctypes.data == first.nbytes


def test_unaligned_request_alone(model):
    """A request alone, in memory that no float belongs at, is served."""
    memory = np.zeros(13, np.uint8)[1:].view(np.float32).reshape(1, 3)
    memory[:] = 5
    assert not memory.flags.aligned
    assert model.execute([Request(memory)])[0][0].tolist() == [[10] * 3]


def test_requests_of_different_shapes_in_one_batch(model):
    """Requests that cannot be joined all fail, and the error names the input."""
    responses = model.execute([Request(rows(1)), Request(np.zeros((1, 2), np.float32))])
    words = "the requests of one batch have different shapes of input 'x'"
    assert len(responses) == 2 and all(response.startswith(words) for response in responses)


def test_onnxruntime_error_is_each_requests_error(model):
    """What ONNX Runtime cannot run fails every request of the batch, in its words."""
    responses = model.execute([Request(np.zeros((1, 3), np.float64))] * 2)
    assert len(responses) == 2 and all("INVALID_ARGUMENT" in response for response in responses)


def test_without_metrics_the_model_loads(model):
    """A server without metrics is no reason to refuse a model."""
    assert model.execute([Request(rows(1))])[0][0].tolist() == [[2] * 3]
