"""The load generator against a real Triton: both protocols, streams, tensors in shared memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tritonkit import Client
from tritonkit.client.address import parse_address
from tritonkit.client.connect import blocking_transport
from tritonkit.client.operations import Operation
from tritonkit.client.transport import Region, infer_request
from tritonkit.errors import InputError
from tritonkit.load.arrivals import POISSON
from tritonkit.load.sharing import SharedRequests
from tritonkit.samples import Sample
from tritonkit.server.baseline import OrtBaseline
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.stats.scrape import read_counters

SCRIPT = """
import json, sys
from tritonkit.load.runner import Level, run_level
import numpy as np
from tritonkit.client.transport import infer_request
from tritonkit.errors import TritonkitError
address, model, level, how = json.loads(sys.argv[1])
x = {"counting": {"count": np.array([5], np.int32)}}.get(model)
requests = [
    infer_request(model, x or {"x": np.full((rows, 4), rows, np.float32)}) for rows in (1, 2, 3)
]
try:
    run = run_level(address, requests, Level(*level), **how)
except TritonkitError as error:
    sys.exit(f"{type(error).__name__}: {error}")
json.dump(run.samples, sys.stdout)
"""

CONFIG = """
name: "counting" backend: "python" max_batch_size: 0
input [{ name: "count" data_type: TYPE_INT32 dims: [1] }]
output [{ name: "k" data_type: TYPE_INT32 dims: [1] }]
model_transaction_policy { decoupled: true }
instance_group [{ kind: KIND_CPU count: 1 }]
"""
# So many answers, the last of them 20 ms after the one before it.
COUNTING = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            tensor = pb_utils.get_input_tensor_by_name(request, "count")
            sender, count = request.get_response_sender(), int(np.from_dlpack(tensor)[0])
            for k in range(count):
                if k == count - 1:
                    time.sleep(0.02)
                value = pb_utils.Tensor.from_dlpack("k", np.array([k], np.int32))
                sender.send(pb_utils.InferenceResponse([value]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


@pytest.fixture(scope="module")
def triton(installed, package, tmp_path_factory):
    """A Triton with a model that batches and a decoupled one."""
    folder = tmp_path_factory.mktemp("load")
    repository = package(folder / "repository", "double")
    (repository / "counting" / "1").mkdir(parents=True)
    (repository / "counting" / "config.pbtxt").write_text(CONFIG)
    (repository / "counting" / "1" / "model.py").write_text(COUNTING)
    with EmbeddedTriton(repository, log=folder / "log", drain=False) as server:
        yield {"http": f"http://{server.endpoints.http}", "grpc": f"grpc://{server.endpoints.grpc}"}


def start(address, model, *level, **how):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps([address, model, level, how])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments, **how):
    """The samples of a level."""
    process = start(*arguments, **how)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors, errors
    return [Sample(*sample) for sample in json.loads(output)]


def served(address, model):
    with Client(address) as client:
        return read_counters(client.statistics(model)[-1]).requests


def ask(address, operation, **arguments):
    transport = blocking_transport(parse_address(address), tls=None, compression=None)
    try:
        return transport.call(operation, arguments, timeout_s=5)
    finally:
        transport.close()


@pytest.mark.parametrize("how", [{}, {"shared_memory": True}, {"processes": 2}])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_arrival_is_served_once(triton, protocol, how):
    """Over both protocols and however tensors go: each arrival is a good sample, and Triton's."""
    before = served(triton["http"], "double")
    samples = run(triton[protocol], "double", "open", 100, 0.8, 5, **how)
    expected = [int(a.start_s * 1e9) for a in POISSON.starts(100, 0.8, 5)]
    assert sorted(s.intended_ns for s in samples) == expected
    assert {s.error for s in samples} == {""}
    assert served(triton["http"], "double") - before == len(samples)


def test_stream_is_done_with_its_last_answer(triton):
    """A decoupled model's request lasts until the last of its answers."""
    before = served(triton["http"], "counting")
    samples = run(triton["grpc"], "counting", "closed", 2, 0.5, streaming=True)
    assert {s.error for s in samples} == {""}
    assert served(triton["http"], "counting") - before == len(samples) > 2
    assert all(s.done_ns - s.sent_ns >= 20e6 for s in samples)


def test_decoupled_model_without_streaming(triton):
    """Without streams a decoupled model refuses each request, and that is data."""
    samples = run(triton["grpc"], "counting", "closed", 1, 0.1)
    assert samples and "" not in {s.error for s in samples}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_regions_are_there_during_the_level_only(triton, protocol, wait_for):
    """The server knows two regions while the level runs, and none after it, nor does /dev/shm."""
    process = start(triton[protocol], "double", "closed", 3, 2.0, shared_memory=True)
    wait_for(lambda: len(ask(triton["http"], Operation.REGIONS)) == 2)
    names = [region["name"] for region in ask(triton["http"], Operation.REGIONS)]
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert {sample[4] for sample in json.loads(output)} == {""}
    assert ask(triton["http"], Operation.REGIONS) == []
    assert not any(Path("/dev/shm", name).exists() for name in names)


def test_users_have_places_of_their_own(triton):
    """Each user's answers come to its own place in shared memory, and the inputs to one place."""
    requests = [
        infer_request("double", {"x": np.full((rows, 4), rows, np.float32)}) for rows in (1, 2)
    ]
    transport = blocking_transport(parse_address(triton["http"]), tls=None, compression=None)
    shared = SharedRequests(triton["http"], requests, users=2)
    try:
        users = [shared.of_a_user(), shared.of_a_user()]
        places = set()
        for request in users:
            for payload in 0, 1:
                placed = request(payload)
                answer = transport.decode(transport.send(transport.encode(placed), timeout_s=5))
                where = answer.outputs[0].data
                assert isinstance(where, Region) and isinstance(placed.inputs[0].data, Region)
                (region,) = (r for r in shared._regions if r.name == where.name)
                bytes_there = region.buffer[where.offset : where.offset + where.byte_size]
                y = np.frombuffer(bytes_there, np.float32)
                assert y.tolist() == [2.0 * (payload + 1)] * 4 * (payload + 1)
                places.add(where.offset)
        assert len(places) == 2
        assert len({users[i](1).inputs[0].data for i in (0, 1)}) == 1
    finally:
        shared.close()
        transport.close()


def test_server_without_shared_memory(package, tmp_path):
    """A server that takes no shared memory is named in one line, and no region is left."""
    repository = package(tmp_path / "repository", "double")
    with OrtBaseline(repository, "double", log=tmp_path / "log") as server:
        address = f"http://{server.endpoints.http}"
        process = start(address, "double", "closed", 1, 1.0, shared_memory=True)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = errors.splitlines()
    assert line.startswith(f"InputError: {address} does not take shared memory of this host (")
    assert line.endswith("; send the tensors over the network")
    assert not list(Path("/dev/shm").glob(f"tritonkit-{process.pid}-*"))


def test_server_without_shared_memory_in_processes(package, tmp_path):
    """The same where the workers found it out."""
    repository = package(tmp_path / "repository", "double")
    with OrtBaseline(repository, "double", log=tmp_path / "log") as server:
        address = f"http://{server.endpoints.http}"
        process = start(address, "double", "closed", 2, 1.0, shared_memory=True, processes=2)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"InputError: {address} does not take shared memory" in errors
    assert "Traceback" not in errors


def test_no_room_for_the_tensors(triton):
    """Regions that /dev/shm has no room for are refused, and what was made is removed."""
    request = infer_request("double", {"x": np.ones((8, 4), np.float32)})
    with pytest.raises(InputError, match="no shared memory region of"):
        SharedRequests(triton["http"], [request], users=1 << 50)
    assert ask(triton["http"], Operation.REGIONS) == []
