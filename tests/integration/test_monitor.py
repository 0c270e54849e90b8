"""`tritonkit monitor` on a real Triton."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from tests.integration.traffic import calling, rest

from tritonkit import Client
from tritonkit.cli.monitor import Watch, worst
from tritonkit.server.embedded import EmbeddedTriton

DOUBLE = "(float[N,4] x) => (float[N,4] y) { y = Add(x, x) }"
ROW = np.ones((1, 4), np.float32)
KIT = (sys.executable, "-m", "tritonkit.cli", "monitor")


@pytest.fixture(scope="module")
def triton(installed, package, tmp_path_factory) -> Iterator[EmbeddedTriton]:
    folder = tmp_path_factory.mktemp("monitor")
    for name in ("double", "other"):
        package(folder / "repository", DOUBLE, name=name)
    options = ("--model-control-mode=explicit", "--load-model=double")
    with EmbeddedTriton(
        folder / "repository", log=folder / "log", drain=False, options=options
    ) as server:
        yield server


@pytest.fixture
def url(triton) -> str:
    return f"grpc://{triton.endpoints.grpc}"


@pytest.fixture
def load(url) -> Iterator[None]:
    """Two callers, as long as the test runs."""
    with calling(url, "double", ROW):
        yield


@pytest.mark.usefixtures("load")
def test_once(tritonkit, url):
    """A healthy server is exit code 0, with what its models do."""
    done = tritonkit("monitor", url, "--once", "--json", "--window-s", 1)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    (model,) = said["models"]
    assert (said["state"], model["model"], model["version"]) == ("healthy", "double", "1")
    assert model["numbers"]["requests"] > 10


def test_a_model_that_is_not_there(tritonkit, url):
    """What is asked for and not loaded is failing: exit code 1."""
    done = tritonkit("monitor", url, "double", "other", "--once", "--window-s", 0.5)
    assert done.returncode == 1
    assert "other" in done.stdout and "not ready" in done.stdout


def test_a_server_that_is_not_there(tritonkit):
    """Is a finding as well."""
    done = tritonkit("monitor", "http://127.0.0.1:9", "--once", "--json", "--window-s", 0.5)
    assert done.returncode == 1
    assert "does not answer" in json.loads(done.stdout)["models"][0]["reason"]


def test_what_is_no_triton(tritonkit, not_triton):
    """Who answers something else is told so in one line."""
    done = tritonkit("monitor", not_triton, "--once", "--window-s", 0.5)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "is this a Triton?" in line


@pytest.mark.usefixtures("load")
def test_budget(url):
    """A mean above the budget is failing."""
    with Client(url) as client:
        watch = Watch(client, ["double"], slo_p99_ms=0.001)
        for _ in range(3):
            watch.look()
            time.sleep(0.2)
        assert worst(watch.rows()) == "failing"


def test_changes_are_told_once(url, wait_for):
    """When a model goes, and when it is back."""
    with Client(url) as client:
        watch = Watch(client, ["double", "other"])

        def told() -> list[str]:
            watch.look()
            return list(watch.changes(watch.rows()))

        (line,) = told()
        assert "WARNING other: failing: not ready" in line
        assert told() == []
        client.load("other")
        lines: list[str] = []
        wait_for(lambda: lines.extend(told()) or worst(watch.rows()) == "healthy")
        rest()
        client.unload("other")
        wait_for(lambda: lines.extend(told()) or any("failing" in line for line in lines))


def _screen(arguments: tuple[Any, ...], seconds: float) -> tuple[int, str]:
    """What the command writes on a terminal until Ctrl-C."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        [*KIT, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    said = b""
    timer = threading.Timer(seconds, process.send_signal, (signal.SIGINT,))
    timer.start()
    with suppress(OSError):
        while chunk := os.read(ours, 65536):
            said += chunk
    os.close(ours)
    return process.wait(timeout=20), said.decode(errors="replace")


@pytest.mark.usefixtures("load")
def test_terminal(url):
    """A table that changes in place, until Ctrl-C."""
    code, said = _screen((url, "--window-s", "1"), 4)
    assert code == 130
    assert said.count("double 1") >= 3 and "healthy" in said
    assert "\x1b[1A" in said or "\x1b[2K" in said
