"""The kit's Triton image, on a real Docker engine."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from importlib.metadata import version

import numpy as np
import pytest
from tests.docker.conftest import VERSION
from tests.docker.engine import wait_for

from tritonkit import NO_RETRIES, Client
from tritonkit.errors import TritonkitError
from tritonkit.server.triton_wheel import TRITON_VERSION, WHEEL_SHA256

pytestmark = pytest.mark.docker

X = np.arange(8, dtype=np.float32).reshape(2, 4)
BYTES = 500e6
HARDENED = (
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--shm-size=256m",
)


@pytest.fixture(scope="module")
def repository(package, tmp_path_factory):
    """Two models, as the kit packages them for any Triton."""
    folder = tmp_path_factory.mktemp("docker") / "repository"
    package(folder, "double")
    return package(folder, "slow", scheduler=None)


@pytest.fixture(scope="module")
def network(engine):
    return engine.docker("network", "create", "tritonkit-test-image")


@pytest.fixture
def serving(engine, triton, repository, network, free_port):
    """Start the image as its users do; gives the container and its HTTP address when healthy."""

    @contextmanager
    def serve(*command):
        port = free_port()
        where = ("--network", network, "--publish", f"127.0.0.1:{port}:8000")
        options = (*HARDENED, *where, "--volume", f"{repository}:/models:ro")
        with engine.running(triton, *command, options=options) as container:
            engine.wait_healthy(container)
            yield container, f"http://127.0.0.1:{port}"

    return serve


def test_size(engine, triton):
    """It is some hundred MB, with its base."""
    assert engine.inspect(triton)["Size"] < BYTES


def test_user(engine, triton):
    """It does not run as root."""
    assert engine.docker("run", "--rm", "--network=none", triton, "id", "-u") == "1000"


def test_labels(engine, triton):
    """It says which version it is."""
    labels = engine.inspect(triton)["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION


def test_sbom(engine, triton):
    """Its bill of materials has the Triton wheel with its hash, ONNX Runtime, Python and Debian."""
    bom = json.loads(
        engine.docker("run", "--rm", "--network=none", triton, "cat", "/opt/sbom.cdx.json")
    )
    assert bom["bomFormat"] == "CycloneDX"
    assert bom["metadata"]["component"]["version"] == VERSION
    found = {component["name"]: component for component in bom["components"]}
    assert found["onnxruntime"]["version"] == version("onnxruntime")
    assert found["numpy"]["purl"] == f"pkg:pypi/numpy@{version('numpy')}"
    wheel = found["nvidia-pytriton"]
    assert wheel["hashes"] == [{"alg": "SHA-256", "content": WHEEL_SHA256}]
    inside = {component["name"]: component for component in wheel["components"]}
    assert inside["tritonserver"]["version"] == TRITON_VERSION
    assert any(name.startswith("libssl-") for name in inside)
    assert found["libc6"]["purl"].startswith("pkg:deb/debian/libc6@")
    assert found["python"]["version"].startswith("3.11.")


@pytest.mark.parametrize("name", ["torch", "pip", "tritonclient", "cyclonedx", "pytriton"])
def test_nothing_else(engine, triton, name):
    """What the backend does not need is not in its Python."""
    look = f"import importlib.util as u, sys; sys.exit(u.find_spec({name!r}) is not None)"
    engine.docker("run", "--rm", "--network=none", triton, "python3", "-c", look)


def test_backend_is_there(engine, triton):
    """What the backend needs is: the twin of the test above."""
    look = "import numpy, onnxruntime, tritonkit.server.onnxruntime_backend.session"
    engine.docker("run", "--rm", "--network=none", triton, "python3", "-c", look)


def test_serves(serving):
    """Without a command it serves /models unchanged, its root read-only, without capabilities."""
    with serving() as (_, url), Client(url) as client:
        np.testing.assert_array_equal(client.infer("double", X)["y"], X + X)


def test_command_of_nvidia(serving):
    """It takes the command line of NVIDIA's image."""
    command = ("tritonserver", "--model-repository=/models", "--model-config-name=unbatched")
    with serving(*command) as (_, url), Client(url) as client:
        np.testing.assert_array_equal(client.infer("double", X)["y"], X + X)


def test_unhealthy(engine, triton):
    """A container in which no server answers is not healthy."""
    at_once = ("--health-start-period=1ms", "--health-interval=1s", "--health-retries=1")
    options = (*at_once, "--network=none")
    with engine.running(triton, "sleep", "60", options=options) as container:
        wait_for(lambda: engine.health(container) == "unhealthy")


def ask(url, count):
    """Send `slow` so many requests of a few seconds; returns the threads and their answers."""
    answers = []

    def work():
        with Client(url, retries=NO_RETRIES) as client:
            try:
                answers.append(client.infer("slow", [[8000]])["turns"].item())
            except TritonkitError as error:
                answers.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, answers


def is_at_work(engine, container):
    """Whether one request runs and another waits: there is one instance."""
    read = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8002/metrics').read())"
    said = engine.docker("exec", container, "python3", "-c", read)
    return 'nv_inference_pending_request_count{model="slow",version="1"} 1' in said


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_drain(engine, serving, how):
    """On SIGTERM it answers what it has taken, and ends with 0; SIGKILL is seen to lose it."""
    with serving() as (container, url):
        threads, answers = ask(url, 2)
        wait_for(lambda: is_at_work(engine, container))
        assert not answers
        engine.docker(*((how, "--time=40") if how == "stop" else (how,)), container)
        for thread in threads:
            thread.join()
        status = engine.inspect(container)["State"]["ExitCode"]
    if how == "stop":
        assert (answers, status) == ([8000, 8000], 0)
    else:
        assert all(isinstance(answer, TritonkitError) for answer in answers) and status == 137


def test_base_without_libpython(engine, base, build):
    """A base image on which Triton's backend could not start fails the build, and says why."""
    recipe = f"FROM {base}\nRUN rm /usr/lib/x86_64-linux-gnu/libpython3.11.so*\n"
    lacking = engine.docker("build", "--quiet", "--network=host", "-", input=recipe)
    with pytest.raises(AssertionError, match=r"error: the base image has no libpython3\.11\.so\.1"):
        build("build-triton", lacking)
