"""`tritonkit serve` is stopped on purpose, and what it serves can be asked for."""

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from onnx.parser import parse_model

from tritonkit import Client
from tritonkit.repository.package import Settings, package_model

KIT = Path(sys.executable).with_name("tritonkit")
GRAPH = "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"


@pytest.fixture
def serving(tmp_path):
    """`with serving() as (process, url)`: the model m on the baseline, which starts quickly."""
    import onnx

    model = parse_model(f'<ir_version: 8, opset_import: ["": 17]> {GRAPH}')
    onnx.save(model, tmp_path / "m.onnx")
    repository = tmp_path / "repository"
    package_model(tmp_path / "m.onnx", "m", repository, Settings(8))
    (tmp_path / "tmp").mkdir()
    command = [
        *(str(KIT), "serve", "--arm", "ort_baseline", "--model", "m", "--http-port", "0"),
        *("--repository", str(repository)),
    ]
    places = {"TRITONKIT_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "tmp")}

    @contextmanager
    def start():
        with subprocess.Popen(
            command,
            env={**os.environ, **places, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                said = ""
                while "Ctrl-C ends it" not in said:
                    line = process.stdout.readline()
                    assert line, process.stderr.read()
                    said += line
                yield process, re.search(r"http://\S+", said)[0]
            finally:
                process.kill()

    return start


def server_of(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return int(children.read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped(serving, tmp_path, number):
    """Ctrl-C and SIGTERM are how a server ends well: exit code 0, and nothing is left."""
    with serving() as (process, _):
        assert len(list((tmp_path / "tmp").glob("tritonkit-*"))) == 1
        process.send_signal(number)
        assert process.wait(30) == 0
        assert process.stderr.read() == "stopping; a second Ctrl-C ends it at once\n"
        assert not list((tmp_path / "tmp").glob("tritonkit-*"))


def test_stopped_twice(serving, tmp_path):
    """A second Ctrl-C does not wait for a server that hangs, and leaves nothing either."""
    with serving() as (process, _):
        server = server_of(process)
        os.kill(server, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith("stopping")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read().strip() == "interrupted"
        assert not list((tmp_path / "tmp").glob("tritonkit-*"))


def test_killed(serving, tmp_path):
    """What a killed kit leaves is gone when the next has started."""
    with serving() as (process, _):
        (left,) = (tmp_path / "tmp").glob("tritonkit-*")
        server = server_of(process)
        process.kill()
        process.wait()
        assert left.exists()
        # Its server is told to end by the kernel.
        while Path(f"/proc/{server}/fd/1").exists():
            pass
        with serving():
            assert not left.exists()


def test_index(serving, tritonkit):
    """The baseline tells its model, as Triton does, so that an unknown one is answered with it."""
    with serving() as (_, url):
        with Client(url) as client:
            assert [(m["name"], m["state"]) for m in client.models()] == [("m", "READY")]
        done = tritonkit("load", url, "nix", "--users", 1)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ") and line.endswith("; the server has m")
