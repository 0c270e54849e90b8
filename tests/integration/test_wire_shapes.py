"""Tensors with nothing but a batch axis, and scalars: all of the kit agrees with Triton on them."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import sleep

import numpy as np
import onnxruntime
import psutil
import pytest
import tritonclient.http as triton_http

from tritonkit import Client
from tritonkit.bench.ceiling import measure_ceiling
from tritonkit.bench.cpus import staying_on
from tritonkit.bench.machine import usable_cpus
from tritonkit.bench.subject import check_answers, prepare
from tritonkit.errors import CheckFailedError, InputError
from tritonkit.payloads import PAYLOADS, read_payloads, write_payloads
from tritonkit.repository.layout import model_file
from tritonkit.repository.package import Settings, package_model
from tritonkit.server.baseline import OrtBaseline
from tritonkit.server.embedded import EmbeddedTriton

ROOT = Path(__file__).parents[2]
BARE = """(float[batch,4] x, int64[batch] n) => (float[batch] score, int64[batch] label)
{ axis = Constant <value_ints = [1]> () sum = ReduceSum <keepdims = 0> (x, axis)
  real = Cast <to = 1> (n) score = Add (sum, real)
  two = Constant <value_int = 2> () label = Mul (n, two) }"""
SCALAR = """(float[m,2] x, float k) => (float[m,2] y, float total)
{ y = Mul (x, k) total = ReduceSum <keepdims = 0> (y) }"""
FIXED = SCALAR.replace("m,2", "2")

X = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
REQUESTS = {
    "bare": {"x": X, "n": np.array([[3], [4]])},
    "one": {"x": X[:1], "n": np.array([[3]])},
    "scalar": {"x": X[:, :2], "k": np.array([2], np.float32)},
    "fixed": {"x": X[0, :2], "k": np.array([2], np.float32)},
}
ANSWERS = {
    "bare": {"score": [[13], [30]], "label": [[6], [8]]},
    "one": {"score": [[13]], "label": [[6]]},
    "scalar": {"y": [[2, 4], [10, 12]], "total": [28]},
    "fixed": {"y": [2, 4], "total": [6]},
}


def model_of(request):
    return "bare" if request == "one" else request


@pytest.fixture(scope="module")
def repository(installed, onnx_file, tmp_path_factory) -> Path:
    """Each model exported and packaged; `drawn` is `bare` without requests on record."""
    work = tmp_path_factory.mktemp("wire")
    for name, graph in (("bare", BARE), ("scalar", SCALAR), ("fixed", FIXED)):
        command = ["export", str(onnx_file(graph)), "-o", str(work / name), "--force"]
        subprocess.run([sys.executable, "-m", "tritonkit.cli", *command], check=True)
        rows = 8 if name == "bare" else 0
        package_model(work / name, name, work / "repository", Settings(rows))
    package_model(work / "bare" / "model.onnx", "drawn", work / "repository", Settings(8))
    return work / "repository"


@pytest.fixture(scope="module")
def servers(repository):
    """The address of `triton`, or of the `baseline` of a model, started when first asked for."""
    running = {}

    def start(server, model):
        key = server if server == "triton" else f"{server}-{model}"
        if key not in running:
            log = repository.parent / f"{key}.log"
            made = (
                EmbeddedTriton(repository, log=log, drain=False)
                if server == "triton"
                else OrtBaseline(repository, model, log=log)
            )
            running[key] = made.__enter__()
        return running[key].endpoints.http

    yield start
    for made in running.values():
        made.__exit__()


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("server", ["triton", "baseline"])
def test_answers(servers, server, request_):
    """Triton and the baseline take wire shapes and give them."""
    model = model_of(request_)
    with Client(f"http://{servers(server, model)}") as client:
        result = client.infer(model, REQUESTS[request_])
    for name, expected in ANSWERS[request_].items():
        assert result[name].shape == np.shape(expected)
        assert result[name].tolist() == expected


@pytest.mark.parametrize("model", ["bare", "scalar", "fixed"])
def test_metadata(servers, model):
    """The baseline describes inputs and outputs as Triton does."""
    said = []
    for server in ("triton", "baseline"):
        with triton_http.InferenceServerClient(servers(server, model)) as client:
            metadata = client.get_model_metadata(model)
            said.append([metadata["inputs"], metadata["outputs"]])
    assert said[0] == said[1]


@pytest.mark.parametrize("server", ["triton", "baseline"])
def test_shapes_of_the_model_are_refused(servers, server):
    """Neither server takes [n] for [n,1]."""
    address = servers(server, "bare")
    x = triton_http.InferInput("x", [2, 4], "FP32").set_data_from_numpy(X)
    n = triton_http.InferInput("n", [2], "INT64").set_data_from_numpy(np.array([3, 4]))
    with (
        triton_http.InferenceServerClient(address) as client,
        pytest.raises(triton_http.InferenceServerException, match=r"\[-1,\s?1\]"),
    ):
        client.infer("bare", [x, n])


@pytest.mark.parametrize("server", ["triton", "baseline"])
def test_recorded_requests(servers, repository, tritonkit, tmp_path, server):
    """`tritonkit infer` takes the payloads.npz of a repository, and answers as the session does."""
    url = f"http://{servers(server, 'bare')}"
    recorded = repository / "bare" / PAYLOADS
    done = tritonkit("infer", url, "bare", "--input", f"@{recorded}", "--save", tmp_path / "y.npz")
    assert done.returncode == 0, done.stderr
    rows = read_payloads(repository.parent / "bare" / PAYLOADS)
    batch = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    score, label = onnxruntime.InferenceSession(model_file(repository, "bare")).run(None, batch)
    answer = np.load(tmp_path / "y.npz")
    assert answer["label"].tolist() == label[:, None].tolist()
    np.testing.assert_allclose(answer["score"], score[:, None], rtol=1e-5)


@pytest.fixture(scope="module", params=["bare", "drawn"])
def subject(request, repository):
    """A comparison's requests and right answers, of recorded requests and of drawn ones."""
    return prepare(repository, request.param)


@pytest.mark.parametrize("server", ["triton", "baseline"])
def test_bench_agrees(servers, subject, server):
    """Each server's answers are those that the comparison expects."""
    model = subject.config.name
    assert {n: a.shape for n, a in subject.payloads[0].items()} == {"x": (1, 4), "n": (1, 1)}
    with Client(f"http://{servers(server, model)}") as client:
        check_answers(server, model, client, subject)


def test_bench_sees_another_shape(servers, subject):
    """An answer of the right values in another shape is not the same answer."""
    wrong = [{**answer, "score": answer["score"][:, 0]} for answer in subject.answers]
    model = subject.config.name
    with (
        Client(f"http://{servers('triton', model)}") as client,
        pytest.raises(CheckFailedError, match="output 'score'"),
    ):
        check_answers("triton", model, client, replace(subject, answers=wrong))


def test_ceiling(repository):
    """The ceiling runs such a model at every batch size."""
    ceiling = measure_ceiling(repository, "bare", [min(usable_cpus())])
    assert {point.batch for point in ceiling.points} == {1, 2, 4, 8}
    assert all(point.ips > 0 for point in ceiling.points)


@pytest.mark.skipif(len(usable_cpus()) < 2, reason="takes two CPUs")
def test_ceiling_has_the_servers_cpus(repository):
    """It is started from the generator's CPUs, and runs on those that it is given."""
    first, last = min(usable_cpus()), max(usable_cpus())
    with staying_on([first]), ThreadPoolExecutor(1) as pool:
        measured = pool.submit(measure_ceiling, repository, "bare", [last])
        seen = set()
        while not measured.done():
            for child in psutil.Process().children():
                with suppress(psutil.Error):
                    if "tritonkit.bench.ceiling" in child.cmdline():
                        seen.add(tuple(child.cpu_affinity()))
            sleep(0.01)
        measured.result()
    assert (last,) in seen
    assert seen <= {(first,), (last,)}


def old(repository: Path, target: Path) -> Path:
    """A repository whose payloads are in the model's shapes."""
    model = repository / "bare" / "1" / "model.onnx"
    package_model(model, "bare", target, Settings(8))
    rows = read_payloads(repository.parent / "bare" / PAYLOADS)
    assert rows[0]["n"].shape == (1,)
    write_payloads(target / "bare" / PAYLOADS, rows)
    return target


def test_bench_of_old_payloads(repository, tmp_path):
    """Payloads in the model's shapes are refused with the remedy before anything is run."""
    stale = old(repository, tmp_path)
    with pytest.raises(InputError, match="package the model again"):
        prepare(stale, "bare")


def test_infer_of_old_payloads(servers, repository, tmp_path, tritonkit):
    """`tritonkit infer` with payloads in the model's shapes fails in one line with both shapes."""
    recorded = old(repository, tmp_path) / "bare" / PAYLOADS
    url = f"http://{servers('triton', 'bare')}"
    done = tritonkit("infer", url, "bare", "--input", f"@{recorded}")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert "'n' has shape [64]" in line and "n:INT64[dim_0,1]" in line


def locust(address: str, payloads: Path) -> subprocess.CompletedProcess[str]:
    """The Locust file for the server, for a moment."""
    command = ["-f", "loadtests/ort_baseline.py", "--headless", "-u", "1", "-t", "1s"]
    options = ["--host", f"http://{address}", "--model", "bare", "--payloads", str(payloads)]
    return subprocess.run(
        [sys.executable, "-m", "locust", *command, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_locust(servers, repository):
    """A Locust file sends the requests of a repository, and the server takes them all."""
    done = locust(servers("baseline", "bare"), repository / "bare" / PAYLOADS)
    assert done.returncode == 0, done.stderr
    assert " 0 errors" in done.stderr


def test_locust_with_an_exports_payloads(servers, repository):
    """A Locust file refuses an export's payloads, which are in the model's shapes, in one line."""
    done = locust(servers("baseline", "bare"), repository.parent / "bare" / PAYLOADS)
    assert done.returncode == 2
    assert "send the payloads.npz of a model repository" in done.stderr
    assert "Traceback" not in done.stderr
