"""What `package` writes, in the real Triton: it loads, reads back, and answers as it should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton_http

from tritonkit import Client
from tritonkit.errors import TritonkitError
from tritonkit.payloads import write_payloads
from tritonkit.repository.config import DynamicBatching
from tritonkit.repository.ensemble import package_ensemble
from tritonkit.repository.execution import Execution, GraphLevel
from tritonkit.repository.layout import read_config
from tritonkit.repository.package import Settings, package_model
from tritonkit.repository.scheduling import Priorities, QueuePolicy, TimeoutAction
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.server.triton_wheel import installed_triton

X = np.arange(8, dtype=np.float32).reshape(2, 4)

DOUBLE = "(float[N,4] x) => (float[N,4] y) { y = Add(x, x) }"
TRIPLE = "(float[N,4] x) => (float[N,4] y) { two = Add(x, x) y = Add(two, x) }"
SUM = """(float[N,4] y) => (float[N] total)
{ axis = Constant <value_ints = [1]> () total = ReduceSum <keepdims = 0> (y, axis) }"""
# Its table has no entry for 0, so that a run with zeros fails.
STRICT = """(int64[N,1] x) => (float[N,1] y) <float[3] t = {10.0, 20.0, 30.0}, int64[1] n = {3}>
{ i = Sub (n, x) y = Gather (t, i) }"""
SCALED = "(float[M,2] x, float k) => (float[M,2] y) { y = Mul (x, k) }"

QUEUE = QueuePolicy(7, 9_000_000, TimeoutAction.DELAY, allow_timeout_override=True)
PRIORITIES = Priorities(3, 2, {1: QueuePolicy(5), 3: QueuePolicy(0, 8_000_000)})

pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture(scope="module")
def repository(onnx_file, tmp_path_factory) -> Path:
    """Models packaged in every way that the embedded Triton can serve."""
    work = tmp_path_factory.mktemp("options")
    (work / "labels.txt").write_text("cat\ndog\nbird\nfish\n")
    write_payloads(work / "rows.npz", [{"x": np.array([[n]])} for n in (1, 2, 3)])
    folder = work / "repository"

    def put(graph: str, name: str, rows: int = 8, **settings: object) -> None:
        package_model(onnx_file(graph), name, folder, Settings(rows, **settings))

    put(DOUBLE, "many", version_policy="all")
    put(TRIPLE, "many", version_policy="all")
    put(
        DOUBLE,
        "queued",
        scheduler=DynamicBatching(100, queue=QUEUE, priorities=PRIORITIES),
        labels={"": work / "labels.txt"},
        execution=Execution(
            parallel=True,
            graph_level=GraphLevel.BASIC,
            mem_arena=True,
            mem_pattern=False,
            arena_shrinkage="cpu:0",
        ),
        inter_op_threads=2,
    )
    put(DOUBLE, "cached", response_cache=True)
    put(SUM, "sum")
    put(SCALED, "scaled", rows=0)
    put(STRICT, "real", warmup_payloads=work / "rows.npz")
    put(STRICT, "zeros")
    package_ensemble(folder, "pipeline", ["queued", "sum"])
    return folder


@pytest.fixture(scope="module")
def server(installed, repository):
    log = repository.parent / "triton.log"
    loaded = ("many", "queued", "cached", "sum", "scaled", "real", "pipeline")
    options = ("--model-control-mode=explicit", *(f"--load-model={name}" for name in loaded))
    with EmbeddedTriton(repository, log=log, drain=False, options=options) as running:
        yield running


@pytest.fixture
def client(server):
    with Client(f"http://{server.endpoints.http}") as connected:
        yield connected


def test_config_is_read_back(client, repository):
    """The server runs the queue policies, priorities and delay that were asked for."""
    block = client.config("queued")["dynamic_batching"]
    assert block["max_queue_delay_microseconds"] == 100
    assert (block["priority_levels"], block["default_priority_level"]) == (3, 2)
    assert block["default_queue_policy"] == {
        "timeout_action": "DELAY",
        "default_timeout_microseconds": 9_000_000,
        "allow_timeout_override": True,
        "max_queue_size": 7,
    }
    policies = block["priority_queue_policy"]
    assert policies["1"]["max_queue_size"] == 5
    assert policies["3"]["default_timeout_microseconds"] == 8_000_000
    written = read_config(repository, "queued").dynamic_batching
    assert written == replace(DynamicBatching(100), queue=QUEUE, priorities=PRIORITIES)


def test_session_options(client):
    """Execution mode, arena and graph level reach the server, and the model answers with them."""
    config = client.config("queued")
    assert config["optimization"]["graph"]["level"] == -1
    assert config["parameters"]["execution_mode"]["string_value"] == "1"
    assert (client.infer("queued", X)["y"] == 2 * X).all()


def test_labels(server):
    """A classification of a labelled output answers with the labels."""
    client = triton_http.InferenceServerClient(server.endpoints.http)
    given = triton_http.InferInput("x", [2, 4], "FP32")
    given.set_data_from_numpy(X)
    wanted = triton_http.InferRequestedOutput("y", class_count=2)
    found = client.infer("queued", [given], outputs=[wanted]).as_numpy("y")
    assert [[text.split(b":")[2] for text in row] for row in found] == [[b"fish", b"bird"]] * 2


@pytest.mark.parametrize(("version", "factor"), [("1", 2), ("2", 3)])
def test_all_versions(client, version, factor):
    """With the version policy `all`, each version answers in its own way."""
    assert (client.infer("many", X, version=version)["y"] == factor * X).all()


def test_real_warmup(client):
    """A model that zeros would fail is warmed up with real requests."""
    assert client.infer("real", [[2]])["y"].tolist() == [[20.0]]


def test_warmup_with_zeros(installed, repository, tmp_path):
    """Its twin, warmed up with zeros, does not load: the warm-up is really run.

    On a server of its own: now and then Triton 2.51 dies of a warm-up that fails.
    """
    log, options = tmp_path / "log", ("--model-control-mode=explicit",)
    with (
        EmbeddedTriton(repository, log=log, drain=False, options=options) as server,
        Client(f"http://{server.endpoints.http}") as client,
        pytest.raises(TritonkitError),
    ):
        client.load("zeros")
    assert "out of data bounds" in log.read_text(errors="replace")


def test_ensemble(client):
    """An ensemble answers what its models give one after the other."""
    middle = client.infer("queued", X)["y"]
    last = client.infer("sum", middle)["total"]
    found = client.infer("pipeline", X)["total"]
    assert found.tolist() == last.tolist() == [[12.0], [44.0]]


def test_scalar_input(client):
    """A model without batches takes a scalar as [1]."""
    answer = client.infer("scaled", {"x": X[:, :2], "k": np.array([3], np.float32)})
    assert (answer["y"] == 3 * X[:, :2]).all()


def cache_hits(client: Client) -> int:
    """How often `cached` was answered from the cache, after the same request twice."""
    for _ in range(2):
        assert (client.infer("cached", X)["y"] == 2 * X).all()
    (statistics,) = client.statistics("cached")
    return int(statistics["inference_stats"]["cache_hit"]["count"])


def test_cache_of_a_server_without(client):
    """A server without a cache takes a cached model, in silence, and runs every request."""
    assert cache_hits(client) == 0


def test_cache(repository):
    """A server with a cache answers the second of two equal requests from it."""
    options = (
        *("--model-control-mode=explicit", "--load-model=cached"),
        f"--cache-directory={installed_triton().binary.resolve().parents[1] / 'caches'}",
        "--cache-config=local,size=1048576",
    )
    log = repository.parent / "cached.log"
    with (
        EmbeddedTriton(repository, log=log, drain=False, options=options) as running,
        Client(f"http://{running.endpoints.http}") as client,
    ):
        assert cache_hits(client) == 1


def test_serve_an_ensemble(serving, repository):
    """`serve --model` of an ensemble serves its steps with it."""
    with (
        serving(repository, "--model", "pipeline") as (_, endpoints),
        Client(f"http://{endpoints['http']}") as client,
    ):
        assert client.infer("pipeline", X)["total"].tolist() == [[12.0], [44.0]]
        assert client.is_ready("sum")
        assert not client.is_ready("many")
