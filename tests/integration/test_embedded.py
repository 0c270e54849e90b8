"""The embedded Triton: what it serves, where it listens, and how it ends, in every way."""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
import tritonclient.grpc as triton_grpc

from tritonkit import NO_RETRIES, Client
from tritonkit.errors import InputError, PortInUseError, RepositoryError, ServerError
from tritonkit.repository.package import Settings, package_model
from tritonkit.server.embedded import EmbeddedTriton

X = np.arange(8, dtype=np.float32).reshape(2, 4)

pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture(scope="module")
def repository(package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton") / "repository"
    package(folder, "double", instances=2)
    return package(folder, "slow", scheduler=None)


@pytest.fixture(scope="module")
def server(installed, repository):
    log = repository.parent / "logs" / "triton.log"
    with EmbeddedTriton(repository, log=log, drain=False) as running:
        yield running


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary folders go in this test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def broken(package, tmp_path):
    """A repository whose one model cannot be loaded."""
    repository = package(tmp_path / "broken", "double")
    spoil(repository / "double")
    return repository


def spoil(model):
    """Let the config of a model say another width than the model has."""
    config = model / "config.pbtxt"
    text = config.read_text()
    config.write_text(text.replace("dims: 4", "dims: 5", 1))
    assert text != config.read_text()


def doubles(address):
    """Whether the model `double` at `address` gives the right values."""
    with Client(f"http://{address}") as client:
        return bool((client.infer("double", X)["y"] == 2 * X).all())


def alive(pids):
    """Which of the processes still run. A zombie has ended; init may be slow to collect it."""
    left = set()
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                left.add(pid)
        except psutil.NoSuchProcess:
            pass
    return left


def shared_memory(pid):
    """What the servers of the kit with this process id hold in shared memory."""
    return [p.name for p in Path("/dev/shm").glob(f"tritonkit-{pid}-*")]


def cpu_s(pids):
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


@pytest.fixture
def in_flight(wait_for):
    """Send `slow` a request that takes about a second; returns, while it runs, how it ends."""
    threads = []

    def send(server):
        answers = []

        def work():
            with Client(f"http://{server.endpoints.http}", retries=NO_RETRIES) as client:
                try:
                    answers.append(client.infer("slow", [[4000]])["turns"].item())
                except Exception as error:
                    answers.append(error)

        before = cpu_s(server.pids())
        threads.append(threading.Thread(target=work))
        threads[-1].start()
        wait_for(lambda: cpu_s(server.pids()) > before + 0.2)
        assert not answers
        return answers

    yield send
    for thread in threads:
        thread.join()


def test_http(server):
    """A packaged model answers over HTTP with the right values."""
    assert doubles(server.endpoints.http)


def test_grpc(server):
    """A packaged model answers over gRPC with the right values."""
    tensor = triton_grpc.InferInput("x", X.shape, "FP32")
    tensor.set_data_from_numpy(X)
    with triton_grpc.InferenceServerClient(server.endpoints.grpc) as client:
        assert (client.infer("double", [tensor]).as_numpy("y") == 2 * X).all()


def test_loopback_only(server):
    """All that the server and its children listen on are its three ports of 127.0.0.1."""
    listening = {  # a v4 address of a v6 socket is written ::ffff:1.2.3.4
        f"{c.laddr.ip.removeprefix('::ffff:')}:{c.laddr.port}"
        for pid in server.pids()
        for c in psutil.Process(pid).net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    }
    where = server.endpoints
    assert listening == {where.http, where.grpc, where.metrics}
    assert all(address.startswith("127.0.0.1:") for address in listening)


def test_a_stub_for_each_instance(server):
    """The processes are the server and one for each of the three model instances."""
    names = [psutil.Process(pid).name() for pid in server.pids()]
    assert names[0] == "tritonserver" and len(names) == 4


def test_effective_config_is_what_was_written(server):
    """Auto-complete is off: a config without a scheduler stays so, as one with it does."""
    with Client(f"http://{server.endpoints.http}") as client:
        slow, double = client.config("slow"), client.config("double")
    assert "--disable-auto-complete-config" in psutil.Process(server.pids()[0]).cmdline()
    assert "dynamic_batching" not in slow and slow["max_batch_size"] == 8
    assert double["dynamic_batching"].get("max_queue_delay_microseconds", 0) == 0
    assert [(g["kind"], g["count"]) for g in double["instance_group"]] == [("KIND_CPU", 2)]


def test_two_at_once(server, repository, tmp_path):
    """Two servers run side by side, on ports that all differ."""
    with EmbeddedTriton(repository, log=tmp_path / "log", drain=False) as second:
        ports = {server.endpoints, second.endpoints}
        numbers = {p for e in ports for p in (e.http, e.grpc, e.metrics)}
        assert len(numbers) == 6
        assert doubles(server.endpoints.http) and doubles(second.endpoints.http)
    assert doubles(server.endpoints.http)


@pytest.mark.parametrize("purpose", ["http", "grpc", "metrics"])
def test_taken_port(repository, tmp_path, temporary, purpose):
    """A port that something listens on is refused by name before Triton is started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = EmbeddedTriton(repository, log=tmp_path / "log", **{f"{purpose}_port": port})
        with pytest.raises(PortInUseError, match=f"{purpose} port {port} .*--{purpose}-port"):
            server.__enter__()
    assert not (tmp_path / "log").exists()
    assert not list(temporary.iterdir())


def test_cpu_set(repository, tmp_path):
    """The server and its stubs may use the CPUs that they were given, and no others."""
    cpu = max(os.sched_getaffinity(0))
    with EmbeddedTriton(repository, log=tmp_path / "log", cpus=[cpu], drain=False) as server:
        pids = server.pids()
        assert len(pids) == 4
        assert {tuple(psutil.Process(pid).cpu_affinity()) for pid in pids} == {(cpu,)}


def test_external_data(tmp_path):
    """A model with its weights in a file beside it is packaged and served."""
    weights = np.arange(16, dtype=np.float32).reshape(4, 4)
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y)'
        f"<float[4,4] w = {{{', '.join(map(str, weights.ravel()))}}}> {{ y = MatMul(x, w) }}"
    )
    raw = onnx.numpy_helper.from_array(weights, "w")
    model.graph.initializer[0].CopyFrom(raw)
    exported = tmp_path / "exported"
    exported.mkdir()
    onnx.save(
        model,
        exported / "model.onnx",
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    assert (exported / "model.onnx.data").is_file()
    repository = tmp_path / "repository"
    package_model(exported, "wide", repository, Settings(max_batch_size=4))
    with (
        EmbeddedTriton(repository, log=tmp_path / "log", drain=False) as server,
        Client(f"http://{server.endpoints.http}") as client,
    ):
        answer = client.infer("wide", X)["y"]
    np.testing.assert_allclose(answer, X @ weights)


def test_nothing_is_imported_from_the_working_folder(package, tmp_path, monkeypatch):
    """Folders named like packages where the kit runs do no harm; relative paths are fine."""
    package(tmp_path / "repository", "double")
    for name in ("numpy", "onnxruntime"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a stranger')")
    cache = os.path.relpath(os.environ.get("TRITONKIT_CACHE", embedded_cache()), tmp_path)
    monkeypatch.setenv("TRITONKIT_CACHE", cache)
    monkeypatch.chdir(tmp_path)
    with EmbeddedTriton(Path("repository"), log=Path("logs/log"), drain=False) as server:
        assert doubles(server.endpoints.http)
    assert (tmp_path / "logs" / "log").is_file()


def embedded_cache():
    from tritonkit.server.triton_wheel import cache_dir

    return cache_dir()


def test_options_are_added(broken, tmp_path):
    """Extra options reach Triton: with these, a model that fails does not end it."""
    options = ["--exit-on-error=false", "--strict-readiness=false"]
    with (
        EmbeddedTriton(broken, log=tmp_path / "log", drain=False, options=options) as server,
        Client(f"http://{server.endpoints.http}") as client,
    ):
        assert client.server()["name"] == "triton"


def test_no_models(tmp_path):
    """A folder without models is refused before Triton is started, with the remedy."""
    with pytest.raises(RepositoryError, match="has no models; add one with: tritonkit package"):
        EmbeddedTriton(tmp_path, log=tmp_path / "log").__enter__()


@pytest.mark.parametrize("name", ["a b", "a;b", "a'b", "$(touch pwned)"])
def test_name_for_a_shell(package, tmp_path, name):
    """A hand-made model whose name a shell would not take as it is, is refused, not waited for."""
    package(tmp_path / "repository", "double")
    (tmp_path / "repository" / "double").rename(tmp_path / "repository" / name)
    with pytest.raises(
        RepositoryError, match="a model name must be of the letters a to z, digits and"
    ):
        EmbeddedTriton(tmp_path / "repository", log=tmp_path / "log").__enter__()
    assert not (tmp_path / "log").exists()


def test_path_for_a_shell(package, tmp_path):
    """A repository may lie anywhere, also where a shell would stumble over the path."""
    repository = package(tmp_path / "it's $HOME & more", "double")
    with EmbeddedTriton(repository, log=tmp_path / "log", drain=False) as server:
        assert doubles(server.endpoints.http)


def test_temporary_folder_for_a_shell(repository, tmp_path, monkeypatch):
    """A temporary folder that a shell would stumble over is refused, not waited for."""
    (tmp_path / "my files").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "my files"))
    with pytest.raises(ServerError, match=r"my files: a shell would not take .* set TMPDIR"):
        EmbeddedTriton(repository, log=tmp_path / "log").__enter__()


@pytest.mark.parametrize(("options", "hits"), [((), 0), (("--response-cache-mb", 1), 2)])
def test_response_cache(serving, package, tmp_path, options, hits):
    """Equal requests are answered from the cache that `serve` was told to have."""
    repository = package(tmp_path / "repository", "double", response_cache=True)
    with (
        serving(repository, *options) as (_, where),
        Client(f"http://{where['http']}") as client,
    ):
        answers = [client.infer("double", X)["y"].tolist() for _ in range(3)]
        (statistics,) = client.statistics("double")
    assert answers == [(2 * X).tolist()] * 3
    assert statistics["inference_stats"]["cache_hit"]["count"] == hits


def test_no_repository(tmp_path):
    """A folder that is not there is the user's mistake, and named."""
    with pytest.raises(InputError, match=f"no model repository at {tmp_path}/none"):
        EmbeddedTriton(tmp_path / "none", log=tmp_path / "log").__enter__()


def test_a_model_that_cannot_load(broken, tmp_path, temporary):
    """The error is one line with Triton's own reason; the log stays, nothing else does."""
    server = EmbeddedTriton(broken, log=tmp_path / "logs" / "log")
    with pytest.raises(ServerError) as raised:
        server.__enter__()
    message = str(raised.value)
    assert message == (
        "Triton did not start: model 'double', tensor 'x': the model expects 2 dimensions (shape "
        "[-1,4]) but the model configuration specifies 2 dimensions (an initial batch dimension "
        "because max_batch_size > 0 followed by the explicit tensor shape, making complete shape "
        "[-1,5])"
    )
    assert server.pids() == []
    assert not list(temporary.iterdir())
    assert "the model expects 2 dimensions" in (tmp_path / "logs" / "log").read_text()
    with pytest.raises(ServerError, match="not started"):
        _ = server.endpoints


def test_many_models_that_cannot_load(package, tmp_path):
    """However many models fail and however long their names, the reason is one short line."""
    for i in range(4):
        name = f"{'long' * 30}{i}"
        spoil(package(tmp_path / "repository", "double", name=name) / name)
    with pytest.raises(ServerError) as raised:
        EmbeddedTriton(tmp_path / "repository", log=tmp_path / "log").__enter__()
    message = str(raised.value)
    assert "the model expects 2 dimensions" in message and "3 more models failed" in message
    assert "\n" not in message and len(message) <= 500


def test_a_wrong_option(repository, tmp_path):
    """When Triton refuses its command line, its own words are in the error."""
    server = EmbeddedTriton(repository, log=tmp_path / "log", options=["--no-such-option"])
    with pytest.raises(ServerError, match="no-such-option"):
        server.__enter__()


def test_endpoints_before_the_start(repository, tmp_path):
    """Asking where a server listens that was not started is an error of the kit's own."""
    with pytest.raises(ServerError, match="not started"):
        _ = EmbeddedTriton(repository, log=tmp_path / "log").endpoints


def test_log_of_a_good_run_is_kept(repository, tmp_path, temporary):
    """After a good run the log is there, and the temporary files are not."""
    with EmbeddedTriton(repository, log=tmp_path / "log", drain=False) as server:
        pids = server.pids()
        assert shared_memory(os.getpid())
        assert any(temporary.iterdir())
    assert "Started HTTPService" in (tmp_path / "log").read_text()
    assert not alive(pids)
    assert not list(temporary.iterdir())


def test_stop_lets_a_running_request_end(repository, tmp_path, in_flight):
    """A request that runs when the server is stopped gets its answer."""
    with EmbeddedTriton(repository, log=tmp_path / "log") as server:
        pids = server.pids()
        answers = in_flight(server)
    assert answers == [4000]
    assert not alive(pids)


def test_stop_without_drain(repository, tmp_path, in_flight, wait_for):
    """Without draining the stop takes no time, whatever runs, and the request fails."""
    with EmbeddedTriton(repository, log=tmp_path / "log", drain=False) as server:
        pids = server.pids()
        answers = in_flight(server)
        start = time.monotonic()
    assert time.monotonic() - start < 2  # to drain takes 3 s or more
    wait_for(lambda: bool(answers))
    assert isinstance(answers[0], Exception)
    assert not alive(pids)


def test_nothing_is_left_in_shared_memory(repository, tmp_path):
    """A server that was ended at once leaves no shared memory of its own."""
    before = shared_memory(os.getpid())
    with EmbeddedTriton(repository, log=tmp_path / "log", drain=False):
        assert len(shared_memory(os.getpid())) > len(before)
    assert shared_memory(os.getpid()) == before


def test_server_can_be_started_again(repository, tmp_path):
    """The same object serves twice, one time after the other."""
    server = EmbeddedTriton(repository, log=tmp_path / "log", drain=False)
    for _ in range(2):
        with server:
            assert doubles(server.endpoints.http)


def test_serve_says_where(serving, repository):
    """`tritonkit serve` names its models, its endpoints and a log of its own; all are there."""
    with serving(repository) as (kit, where):
        assert kit.said().startswith("ready: double, slow\n")
        assert set(where) == {"http", "grpc", "metrics", "log"}
        assert doubles(where["http"])
        assert Path(where["log"]).is_file() and str(kit.process.pid) in Path(where["log"]).name


def test_serve_one_model(serving, package, tmp_path):
    """--model serves only that model, as configured, though another has no weights."""
    repository = package(package(tmp_path / "repository", "double"), "slow")
    (repository / "slow" / "1" / "model.onnx").unlink()
    with serving(repository, "--model", "double") as (kit, where):
        assert kit.said().startswith("ready: double\n")
        with Client(f"http://{where['http']}") as client:
            assert "dynamic_batching" in client.config("double")


@pytest.mark.parametrize(
    ("number", "arm"),
    [(signal.SIGINT, "triton_unbatched"), (signal.SIGTERM, "triton_batched")],
)
def test_serve_ends_on_a_signal(serving, repository, number, arm):
    """Ctrl-C and SIGTERM end serve in order: exit code, no traceback, nothing left."""
    with serving(repository, "--arm", arm) as (kit, where):
        with Client(f"http://{where['http']}") as client:
            batched = "dynamic_batching" in client.config("double")
        assert batched == (arm == "triton_batched")
        family = [p.pid for p in kit.family()]
        assert len(family) == 4 and shared_memory(kit.process.pid)
        assert list(kit.tmp.glob("tritonkit-*"))
        assert kit.end(number) == 0
        assert kit.complained() == "stopping; a second Ctrl-C ends it at once\n"
        assert not alive(family)
        assert not shared_memory(kit.process.pid)
        assert not list(kit.tmp.glob("tritonkit-*"))


def test_killed_kit_takes_its_server_along(serving, repository, wait_for):
    """When the kit is killed with no chance to tidy up, the server and its stubs end too."""
    with serving(repository) as (kit, _):
        family = [p.pid for p in kit.family()]
        assert len(family) == 4
        kit.process.kill()
        kit.process.wait()
        wait_for(lambda: not alive(family))


def test_killed_server_ends_serve(serving, repository):
    """When Triton is killed, serve ends with one line and status 1, and no stub is left."""
    with serving(repository) as (kit, _):
        family = kit.family()
        (server,) = (p for p in family if p.name() == "tritonserver")
        server.kill()
        assert kit.process.wait(30) == 1
        (line,) = kit.complained().splitlines()
        assert re.match(r"error: the server ended with status -9: ", line)
        assert not alive([p.pid for p in family])
        assert not shared_memory(kit.process.pid)


def test_serve_with_a_model_that_cannot_load(start_kit, broken):
    """`tritonkit serve` of a bad model: one line with the reason, status 1, nothing left."""
    ports = ("--http-port", 0, "--grpc-port", 0, "--metrics-port", 0)
    with start_kit("serve", "--repository", broken, *ports) as kit:
        assert kit.process.wait(30) == 1
        (line,) = kit.complained().splitlines()
        assert line.startswith("error: Triton did not start: ")
        assert "the model expects 2 dimensions" in line
        assert kit.said() == ""
        assert not list(kit.tmp.glob("tritonkit-*"))
