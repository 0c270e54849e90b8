"""deploy/docker/rollout.yml: a Triton that takes new versions, from those with its key."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from tests.docker.conftest import ROOT
from tests.docker.engine import Compose, compose_command

from tritonkit import Client
from tritonkit.errors import AccessError

pytestmark = pytest.mark.docker

X = np.ones((1, 4), np.float32)


@pytest.fixture(scope="module")
def live(engine, triton, package, free_port, tmp_path_factory):
    """A folder with a repository and a key, and the gRPC address of what serves it."""
    folder = tmp_path_factory.mktemp("rollout")
    package(folder / "repository", "double")
    (folder / "key").write_text("admin=for-those-who-know\n")
    port = free_port()
    settings = {
        **{"TRITON_IMAGE": triton, "MODEL_REPOSITORY": folder / "repository"},
        **{"CONTROL_KEY_FILE": folder / "key", "GRPC_PORT": port},
        **{"HTTP_PORT": free_port(), "METRICS_PORT": free_port()},
    }
    for path in (folder, *folder.rglob("*")):  # for the container's user
        path.chmod(0o755 if path.is_dir() else 0o644)
    beside = "deploy/docker/rollout.yml"
    compose = Compose(engine, compose_command(), settings, beside, name="tritonkit-rollout")
    try:
        compose("up", "--detach", "--no-build", "triton")
        engine.wait_healthy(compose.containers("triton")[0])
        yield folder, f"grpc://127.0.0.1:{port}"
    finally:
        compose("down", "--volumes")


def test_key(live):
    """Without the key nothing is loaded."""
    _, url = live
    with Client(url) as client, pytest.raises(AccessError):
        client.load("double")


def test_out_and_back(live, package):
    """A version comes and goes, as the container sees the repository."""
    folder, url = live
    package(folder / "new", "double")
    words = [sys.executable, "-m", "tritonkit.cli", "rollout", url, "double"]
    where = ["--repository", str(folder / "repository"), "--key-file", str(folder / "key")]
    found = []
    for way in (["--from", str(folder / "new")], ["--back"]):
        done = subprocess.run([*words, *where, *way], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with Client(url) as client:
            found.append(client.spec("double").versions)
            np.testing.assert_array_equal(client.infer("double", X)["y"], X + X)
    assert found == [("1", "2"), ("1",)]
