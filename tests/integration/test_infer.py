"""`tritonkit infer` against a real Triton, over gRPC and over HTTP."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from tritonkit.server.embedded import EmbeddedTriton

X = np.arange(8, dtype=np.float32).reshape(2, 4)

CONFIG = """
name: "counting" backend: "python" max_batch_size: 0
input [{ name: "count" data_type: TYPE_INT32 dims: [1] }]
output [{ name: "k" data_type: TYPE_INT32 dims: [1] }]
model_transaction_policy { decoupled: true }
instance_group [{ kind: KIND_CPU count: 1 }]
"""
# Counts, one answer each; then waits to be cancelled if count is negative.
COUNTING = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            tensor = pb_utils.get_input_tensor_by_name(request, "count")
            n = int(np.from_dlpack(tensor)[0])
            sender = request.get_response_sender()
            for k in range(abs(n)):
                value = pb_utils.Tensor.from_dlpack("k", np.array([k], np.int32))
                sender.send(pb_utils.InferenceResponse([value]))
            while n < 0 and not request.is_cancelled():
                time.sleep(0.005)
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""

SLEEPING_CONFIG = """
name: "sleeping" backend: "python" max_batch_size: 0
input [{ name: "wait_s" data_type: TYPE_INT32 dims: [1] }]
output [{ name: "k" data_type: TYPE_INT32 dims: [1] }]
instance_group [{ kind: KIND_CPU count: 4 }]
"""
SLEEPING = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        tensor = pb_utils.get_input_tensor_by_name(requests[0], "wait_s")
        end_s = time.monotonic() + int(np.from_dlpack(tensor)[0])
        while time.monotonic() < end_s and not requests[0].is_cancelled():
            time.sleep(0.005)
        value = pb_utils.Tensor.from_dlpack("k", np.array([0], np.int32))
        return [pb_utils.InferenceResponse([value]) for _ in requests]
"""


@pytest.fixture(scope="module")
def triton(
    installed: None, package: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """A server's URLs by protocol."""
    folder = tmp_path_factory.mktemp("infer")
    repository = folder / "repository"
    for model in ("double", "many"):
        package(repository, model)
    for name, config, code in (
        ("counting", CONFIG, COUNTING),
        ("sleeping", SLEEPING_CONFIG, SLEEPING),
    ):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config)
        (repository / name / "1" / "model.py").write_text(code)
    with EmbeddedTriton(repository, log=folder / "log", drain=False) as server:
        yield {
            "grpc": f"grpc://{server.endpoints.grpc}",
            "http": f"http://{server.endpoints.http}",
            "bare": f"{server.endpoints.grpc}",
        }


@pytest.fixture
def infer(triton, tritonkit, tmp_path):
    """`infer("http", "double", …)` runs the command in an empty folder to its end."""

    def run(protocol: str, *arguments: object):
        return tritonkit("infer", triton[protocol], *arguments, cwd=tmp_path)

    return run


@pytest.fixture
def failed(infer):
    """The line that the command fails with, and its exit code."""

    def run(protocol: str, *arguments: object) -> tuple[str, int]:
        done = infer(protocol, *arguments)
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        return line, done.returncode

    return run


@pytest.mark.parametrize("protocol", ["grpc", "http", "bare"])
def test_answer(infer, protocol):
    """The answer is printed with its datatype and shape."""
    done = infer(protocol, "double", "--input", "x=[[1, 2, 3, 4]]")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "y FP32[1,4]\n  [[2. 4. 6. 8.]]\n"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_file_in_and_out(infer, tmp_path, protocol):
    """An array out of a file comes back into one."""
    np.save(tmp_path / "x.npy", X)
    done = infer(protocol, "double", "--input", "@x.npy", "--save", "out/y.npy")
    assert (done.returncode, done.stderr) == (0, "")
    assert np.array_equal(np.load(tmp_path / "out" / "y.npy"), X + X)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_more_rows_than_a_request_takes(infer, tmp_path, protocol):
    """Rows beyond max_batch_size are sent too, and joined."""
    rows = np.arange(80, dtype=np.float32).reshape(20, 4)
    np.save(tmp_path / "x.npy", rows)
    infer(protocol, "double", "--input", "@x.npy", "--save", "y.npy")
    assert np.array_equal(np.load(tmp_path / "y.npy"), rows + rows)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_several_inputs_as_json(infer, tmp_path, protocol):
    """Inputs and outputs of several dtypes, the inputs out of one .npz, the outputs as JSON."""
    inputs = {
        "f": np.array([[1, np.nan]], np.float32),
        "i": np.array([[2**60 + 1, 0]]),
        "b": np.array([[True, False]]),
        "d": np.array([[0.1, -np.inf]]),
    }
    np.savez(tmp_path / "in.npz", **inputs)
    done = infer(protocol, "many", "--input", "@in.npz", "--json", "--id", "7")
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["version"], answer["id"]) == ("many", "1", "7")
    assert {n: (o["datatype"], o["data"]) for n, o in answer["outputs"].items()} == {
        "F": ("FP32", [[-1.0, None]]),
        "I": ("INT64", [[-(2**60) - 1, 0]]),
        "B": ("BOOL", [[False, True]]),
        "D": ("FP64", [[-0.1, None]]),
    }


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_classes(infer, protocol):
    """The server picks the top classes."""
    done = infer(protocol, "double", "--input", "[1, 4, 3, 2]", "--classes", 2, "--json")
    data = json.loads(done.stdout)["outputs"]["y"]["data"]
    assert [(c["score"], c["index"]) for c in data] == [(8, 1), (6, 2)]


def test_stream(infer):
    """A decoupled model's answers are printed one a line."""
    done = infer("grpc", "counting", "--input", "3", "--json")
    lines = map(json.loads, done.stdout.splitlines())
    assert [line["outputs"]["k"]["data"] for line in lines] == [[0], [1], [2]]


def test_stream_over_http(failed):
    """Over HTTP a decoupled model is refused, with the protocol that works."""
    line, code = failed("http", "counting", "--input", "3")
    assert code == 1
    assert "grpc://" in line


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_unknown_model(failed, protocol):
    """An unknown model is a failed request that names it."""
    line, code = failed(protocol, "nope", "--input", "1")
    assert code == 1
    assert "'nope'" in line


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_unknown_input(failed, protocol):
    """An unknown input is bad input, and what the model expects is said."""
    assert failed(protocol, "double", "--input", "z=1") == (
        "error: double: the model has no input 'z'; it has x:FP32[dim_0,4]",
        2,
    )


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_deadline(failed, protocol):
    """A model that takes too long fails the request in time."""
    start = time.monotonic()
    line, code = failed(protocol, "sleeping", "--input", "8", "--timeout-s", 1)
    assert code == 1
    assert time.monotonic() - start < 4
    assert "in time" in line or "within" in line


@pytest.mark.parametrize(("protocol", "port"), [("http", "grpc"), ("grpc", "http")])
def test_wrong_port(tritonkit, triton, protocol, port):
    """The port of the other protocol is a failed request, and that protocol is named."""
    url = f"{protocol}://{triton[port].split('://')[1]}"
    done = tritonkit("infer", url, "double", "--input", "[1, 2, 3, 4]")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert f"{port}://" in line


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_ctrl_c(triton, start_kit: Callable[..., AbstractContextManager], protocol: str):
    """Ctrl-C ends a request that runs at once."""
    with start_kit("infer", triton[protocol], "sleeping", "--input", "8") as running:
        time.sleep(1.5)
        assert running.process.poll() is None
        start = time.monotonic()
        assert running.end(signal.SIGINT) == 130
        assert time.monotonic() - start < 2
        assert running.complained() == "\ninterrupted\n"


def test_ctrl_c_in_a_stream(
    triton, start_kit: Callable[..., AbstractContextManager], wait_for: Callable
):
    """Ctrl-C ends a stream at once, after what has been printed."""
    with start_kit("infer", triton["grpc"], "counting", "--input", "-2", "--json") as running:
        wait_for(lambda: running.said().count("\n") == 2)
        assert running.end(signal.SIGINT) == 130
        assert running.complained() == "\ninterrupted\n"
