"""The baseline server: the session's own answers, over Triton's own protocol."""

from __future__ import annotations

import json
import signal
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tritonkit import NO_RETRIES, Client
from tritonkit.client.address import parse_address
from tritonkit.client.transport import infer_request
from tritonkit.client.transports.http import HttpTransport
from tritonkit.errors import (
    NotFoundError,
    PortInUseError,
    RejectedError,
    RepositoryError,
    ServerError,
)
from tritonkit.payloads import random_payloads
from tritonkit.repository.layout import model_file
from tritonkit.server.baseline import OrtBaseline
from tritonkit.signature import read_signature


@pytest.fixture(scope="module")
def repository(package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("baseline") / "repository"
    for name in ("double", "lookup", "many", "string"):
        package(folder, name)
    return package(folder, "slow", threads=1, instances=2)


@pytest.fixture(scope="module")
def start(repository):
    @contextmanager
    def starting(model, **options):
        log = repository.parent / f"{model}.log"
        with OrtBaseline(repository, model, log=log, **options) as server:
            yield server

    return starting


@pytest.fixture(scope="module")
def double(start):
    with start("double") as server:
        yield server


@pytest.fixture
def client(double):
    with Client(f"http://{double.endpoints.http}") as client:
        yield client


def session_for(repository, model):
    return onnxruntime.InferenceSession(model_file(repository, model))


def tensors(payload, binary):
    """A payload as tritonclient wants it."""
    given = []
    for name, array in payload.items():
        given.append(triton_http.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        given[-1].set_data_from_numpy(array, binary_data=binary)
    return given


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("model", ["double", "many", "string"])
def test_tritonclient_gets_the_answers_of_the_session(start, repository, model, binary):
    """Over tritonclient each output is what the bare session gives, as bytes and as JSON."""
    file = model_file(repository, model)
    session = session_for(repository, model)
    names = [output.name for output in session.get_outputs()]
    with start(model) as server, triton_http.InferenceServerClient(server.endpoints.http) as client:
        for payload in random_payloads(read_signature(file), 5, seed=1):
            wanted = [triton_http.InferRequestedOutput(name, binary_data=binary) for name in names]
            result = client.infer(model, tensors(payload, binary), outputs=wanted)
            for name, expected in zip(names, session.run(names, as_text(payload)), strict=True):
                given = result.as_numpy(name)
                if expected.dtype == np.object_:
                    given = np.vectorize(text)(given)
                assert given.dtype.kind == expected.dtype.kind or expected.dtype == np.object_
                np.testing.assert_array_equal(given, expected)


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def as_text(payload):
    """BYTES as ONNX Runtime takes them."""
    return {n: np.vectorize(text)(a) if a.dtype == object else a for n, a in payload.items()}


@pytest.mark.parametrize("model", ["double", "many"])
def test_our_client_gets_the_answers_of_the_session(start, repository, model):
    """Over the kit's own client each output is what the bare session gives."""
    session = session_for(repository, model)
    names = [output.name for output in session.get_outputs()]
    signature = read_signature(model_file(repository, model))
    with start(model) as server, Client(f"http://{server.endpoints.http}") as client:
        for payload in random_payloads(signature, 5, seed=2):
            given = client.infer(model, payload)
            for name, expected in zip(names, session.run(names, payload), strict=True):
                assert given[name].dtype == expected.dtype
                np.testing.assert_array_equal(given[name], expected)


def test_all_outputs_when_none_are_named(double):
    """A request that names no outputs gets them all, with its id."""
    with triton_http.InferenceServerClient(double.endpoints.http) as client:
        payload = {"x": np.ones((2, 4), np.float32)}
        result = client.infer("double", tensors(payload, True), request_id="seven")
        assert (result.as_numpy("y") == 2).all()
        assert result.get_response()["id"] == "seven"


def test_health_and_metadata(double):
    """tritonclient finds the server live and ready, and the model with its signature."""
    with triton_http.InferenceServerClient(double.endpoints.http) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("double") and not client.is_model_ready("other")
        assert client.get_server_metadata() == {
            "name": "tritonkit-ort-baseline",
            "version": onnxruntime.__version__,
        }
        metadata = client.get_model_metadata("double")
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
        assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]


def test_config_says_what_the_session_runs(start):
    """Threads, provider and version in the config are those of the live session, and it promises
    no batching, although the model is packaged with it.
    """
    with start("slow") as server, triton_http.InferenceServerClient(server.endpoints.http) as http:
        config = http.get_model_config("slow")
    parameters = {k: v["string_value"] for k, v in config["parameters"].items()}
    assert "dynamic_batching" not in config and config["input"][0]["dims"] == [1]
    assert config["max_batch_size"] == 8 and config["instance_group"][0]["count"] == 2
    assert parameters["intra_op_thread_count"] == "1"
    assert parameters["onnxruntime_version"] == onnxruntime.__version__
    assert parameters["execution_providers"] == "CPUExecutionProvider"


def test_threads_of_the_session(package, tmp_path):
    """A session of three threads says so, and has two more of them than a session of one."""
    counts = {}
    for threads in (1, 3):
        repository = package(tmp_path / str(threads), "slow", threads=threads)
        with OrtBaseline(repository, "slow", log=tmp_path / "log") as server:
            with Client(f"http://{server.endpoints.http}") as client:
                config = client.config("slow")
            assert config["parameters"]["intra_op_thread_count"]["string_value"] == str(threads)
            counts[threads] = psutil.Process(*server.pids()).num_threads()
    assert counts[3] == counts[1] + 2


def test_statistics_count_requests_and_rows(start):
    """Every request is one execution of its own rows, and no warm-up run is counted."""
    with start("double") as server, triton_http.InferenceServerClient(server.endpoints.http) as c:
        before = c.get_inference_statistics("double")["model_stats"][0]
        for rows in (1, 3, 3):
            c.infer("double", tensors({"x": np.ones((rows, 4), np.float32)}, True))
        after = c.get_inference_statistics("double")["model_stats"][0]
    assert (before["inference_count"], before["execution_count"]) == (0, 0)
    assert (after["inference_count"], after["execution_count"]) == (7, 3)
    assert after["inference_stats"]["success"]["count"] == 3
    sizes = {b["batch_size"]: b["compute_infer"]["count"] for b in after["batch_stats"]}
    assert sizes == {1: 1, 3: 2}


def test_statistics_have_the_time_in_the_queue(start, wait_for):
    """A request that waits for a free run spends that time in the queue."""
    with start("slow") as server, ThreadPoolExecutor(3) as pool:

        def work(steps):
            with Client(f"http://{server.endpoints.http}") as client:
                client.infer("slow", [[steps]])

        process = psutil.Process(*server.pids())
        before = process.cpu_times().user
        long = [pool.submit(work, 2000) for _ in range(2)]
        wait_for(lambda: process.cpu_times().user > before + 0.1)
        work(1)
        for future in long:
            future.result()
        with Client(f"http://{server.endpoints.http}") as client:
            stats = client.statistics("slow")[0]
    times, batch = stats["inference_stats"], stats["batch_stats"][0]
    assert times["compute_infer"] == batch["compute_infer"] and batch["compute_infer"]["count"] == 3
    assert times["queue"]["ns"] > 20e6 and times["success"]["ns"] > times["compute_infer"]["ns"]


def test_concurrent_requests(client):
    """Many threads at once each get the answer to their own request."""

    def work(i):
        arrays = [np.full((1 + i % 8, 4), 100 * i + j, np.float32) for j in range(20)]
        return all(np.array_equal(client.infer("double", x)["y"], 2 * x) for x in arrays)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))


ONES = np.ones((1, 4), np.float32)
REFUSED = {
    "name": ({"z": ONES}, ["y"], r"inputs are \['z'\], the model takes \['x'\]"),
    "dtype": ({"x": ONES.astype(np.int64)}, ["y"], "input 'x' is int64, expected FP32"),
    "shape": ({"x": np.ones((1, 5), np.float32)}, ["y"], r"input 'x' has shape \[1, 5\]"),
    "rank": ({"x": np.ones((1, 4, 1), np.float32)}, ["y"], "input 'x' has shape"),
    "rows": ({"x": np.ones((9, 4), np.float32)}, ["y"], "9 rows; at most 8 are taken"),
    "no_rows": ({"x": np.ones((0, 4), np.float32)}, ["y"], "0 rows; at most 8 are taken"),
    "output": ({"x": ONES}, ["w"], r"no outputs \['w'\]; the model gives \['y'\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_request(double, client, case):
    """What the model does not take is answered with 400 and the reason; the next is served."""
    inputs, outputs, words = REFUSED[case]
    transport = HttpTransport(parse_address(f"http://{double.endpoints.http}"))
    request = transport.encode(infer_request("double", inputs, outputs))
    with pytest.raises(RejectedError, match=words), closing(transport):
        transport.send(request, timeout_s=30)
    assert (client.infer("double", ONES)["y"] == 2).all()


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"inputs": [{"name": "x"}]}', b"\xff\x00"])
def test_foreign_bytes(double, client, body):
    """A body that is no inference request is answered with 400 and JSON."""
    url = f"http://{double.endpoints.http}/v2/models/double/infer"
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(urllib.request.Request(url, body, method="POST"))
    with raised.value as answer:
        assert answer.code == 400 and "not a KServe v2" in json.load(answer)["error"]
    assert (client.infer("double", ONES)["y"] == 2).all()


def test_unknown_model(client):
    """Another model's name is answered with 404."""
    with pytest.raises(NotFoundError):
        client.infer("other", ONES)


def test_run_time_error(start):
    """ONNX Runtime's own failure is answered with 500 in its words, and the server stays up."""
    with start("lookup") as server, triton_http.InferenceServerClient(server.endpoints.http) as c:
        with pytest.raises(InferenceServerException) as raised:
            c.infer("lookup", tensors({"x": np.array([[99]])}, True))
        assert raised.value.status() == "500"
        assert "out of data bounds, idx=99" in raised.value.message()
        good = c.infer("lookup", tensors({"x": np.array([[1]])}, True))
        assert good.as_numpy("y").item() == 20
        stats = c.get_inference_statistics("lookup")["model_stats"][0]
        counted = stats["inference_stats"]
        assert (counted["success"]["count"], counted["fail"]["count"]) == (1, 1)
        assert counted["fail"]["ns"] > 0


def test_taken_port(repository, tmp_path):
    """A port that something listens on is refused before the server is started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = OrtBaseline(repository, "double", log=tmp_path / "log", http_port=port)
        with pytest.raises(PortInUseError, match=f"http port {port} .*--http-port"):
            server.__enter__()
    assert not (tmp_path / "log").exists()


def test_unknown_model_of_the_repository(repository, tmp_path):
    """A model that the repository does not have is refused, with those it has."""
    with pytest.raises(RepositoryError, match=r"no model 'other' in .* double, lookup"):
        OrtBaseline(repository, "other", log=tmp_path / "log").__enter__()


def test_a_model_that_cannot_load(package, tmp_path):
    """The reason why the server did not start is one line, ONNX Runtime's own."""
    repository = package(tmp_path / "repository", "double")
    (repository / "double" / "1" / "model.onnx").write_bytes(b"no ONNX")
    server = OrtBaseline(repository, "double", log=tmp_path / "log")
    with pytest.raises(ServerError) as raised:
        server.__enter__()
    message = str(raised.value)
    assert message.startswith("the baseline server did not start: ") and "\n" not in message
    assert "model.onnx" in message and len(message) < 600
    assert server.pids() == []


def test_nothing_is_imported_from_the_working_folder(package, tmp_path, monkeypatch):
    """Folders named like packages where the kit runs do no harm; relative paths are fine."""
    package(tmp_path / "repository", "double")
    for name in ("numpy", "onnxruntime"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a stranger')")
    monkeypatch.chdir(tmp_path)
    with (
        OrtBaseline(Path("repository"), "double", log=Path("log")) as server,
        Client(f"http://{server.endpoints.http}") as client,
    ):
        assert (client.infer("double", ONES)["y"] == 2).all()


def test_stop_lets_a_running_request_end(start, wait_for):
    """A request that runs when the server is stopped gets its answer; then the process ends."""
    answers = []

    def work():
        with Client(f"http://{server.endpoints.http}", retries=NO_RETRIES) as client:
            answers.append(client.infer("slow", [[4000]]))

    with start("slow") as server:
        (pid,) = server.pids()
        process = psutil.Process(pid)
        before = process.cpu_times().user
        thread = threading.Thread(target=work)
        thread.start()
        wait_for(lambda: process.cpu_times().user > before + 0.2)
        assert not answers
    assert not psutil.pid_exists(pid)
    thread.join()
    assert answers[0]["turns"].item() == 4000


def test_two_instances_run_side_by_side(start):
    """With two instances a short request overtakes a long one."""
    with start("slow") as server:
        ended = []

        def work(steps):
            with Client(f"http://{server.endpoints.http}") as client:
                client.infer("slow", [[steps]])
                ended.append(steps)

        process = psutil.Process(*server.pids())
        before = process.cpu_times().user
        long = threading.Thread(target=work, args=(4000,))
        long.start()
        while process.cpu_times().user < before + 0.1 and long.is_alive():
            pass
        work(1)
        long.join()
    assert ended == [1, 4000]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_on_a_signal(serving, repository, number):
    """`tritonkit serve --arm ort_baseline` ends in order on Ctrl-C and on SIGTERM."""
    with serving(repository, "--arm", "ort_baseline", "--model", "double") as (kit, where):
        assert set(where) == {"http", "log"}
        (server,) = kit.family()
        assert kit.end(number) == 0
        assert kit.complained() == "stopping; a second Ctrl-C ends it at once\n"
        assert not server.is_running()
        assert not list(kit.tmp.glob("tritonkit-*"))


def test_killed_kit_takes_its_server_along(serving, repository, wait_for):
    """When the kit is killed with no chance to tidy up, the server ends too."""
    with serving(repository, "--arm", "ort_baseline", "--model", "double") as (kit, _):
        (server,) = kit.family()
        kit.process.kill()
        kit.process.wait()
        wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)


def test_killed_server_ends_serve(serving, repository):
    """When the server is killed, serve ends with one line and status 1."""
    with serving(repository, "--arm", "ort_baseline", "--model", "double") as (kit, _):
        (server,) = kit.family()
        server.kill()
        assert kit.process.wait(30) == 1
        (line,) = kit.complained().splitlines()
        assert line.startswith("error: the server ended with status -9: ")


def test_serve_needs_a_model(start_kit, repository):
    """The baseline serves one model; without its name the command says which there are."""
    with start_kit("serve", "--repository", repository, "--arm", "ort_baseline") as kit:
        assert kit.process.wait(30) == 2
        (line,) = kit.complained().splitlines()
        assert "give --model, of ['double', 'lookup'" in line
