"""The embedded Triton, small models packaged for it, and the kit's own command as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import onnx
import psutil
import pytest
from onnx.parser import parse_model

from tritonkit.repository.package import Settings, package_model
from tritonkit.server.triton_wheel import fetch_triton

ROOT = Path(__file__).parents[2]
KIT = (sys.executable, "-m", "tritonkit.cli")

MODELS = {
    "double": "(float[N,4] x) => (float[N,4] y) { y = Add(x, x) }",
    "lookup": "(int64[N,1] x) => (float[N,1] y) <float[3] t = {10.0, 20.0, 30.0}>"
    "{ y = Gather(t, x) }",
    "many": "(float[N,2] f, int64[N,2] i, bool[N,2] b, double[N,2] d) =>"
    "(float[N,2] F, int64[N,2] I, bool[N,2] B, double[N,2] D)"
    "{ F = Neg(f) I = Neg(i) B = Not(b) D = Neg(d) }",
    "string": "(string[N,2] s) => (string[N,2] S) { S = Identity(s) }",
    # `steps` turns of a loop that multiplies matrices, and the number of turns as the answer.
    "slow": "(int64[N,1] steps) => (float[N,1] turns)"
    "{ most = ReduceMax <keepdims = 0> (steps) yes = Constant <value_int = 1> ()"
    "  go = Cast <to = 9> (yes)"
    "  size = Constant <value_ints = [300, 300]> () start = ConstantOfShape (size)"
    "  one = Constant <value_float = 0.0> ()"
    "  matrix, count = Loop (most, go, start, one) <body = turn"
    "   (int64 k, bool on, float[300,300] m, float c) =>"
    "   (bool more, float[300,300] n, float d)"
    "   { more = Identity (on) n = MatMul (m, m) up = Constant <value_float = 1.0> ()"
    "     d = Add (c, up) }>"
    "  same = Cast <to = 1> (steps) none = Sub (same, same) turns = Add (none, count) }",
}


@pytest.fixture(scope="session")
def installed() -> None:
    """The embedded Triton, fetched if this machine does not have it yet."""
    fetch_triton()


def wait_for(condition: Callable[[], bool]) -> None:
    """Return as soon as `condition` holds; fail if it does not within a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("a minute went by in vain")
        time.sleep(0.02)


@pytest.fixture(scope="session", name="wait_for")
def _wait_for() -> Callable[[Callable[[], bool]], None]:
    return wait_for


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The ONNX file of one of MODELS by name, or of any text in ONNX's own syntax."""

    def make(name: str) -> Path:
        graph = MODELS.get(name, name)
        model = parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {graph}')
        onnx.checker.check_model(model)
        path = tmp_path_factory.mktemp("onnx") / "model.onnx"
        onnx.save(model, path)
        return path

    return make


@pytest.fixture(scope="session")
def package(onnx_file: Callable[[str], Path]) -> Callable[..., Path]:
    """Put one of MODELS into a repository: `package(repository, "double", threads=2)`."""

    def put(
        repository: Path, model: str, *, name: str = "", max_batch_size: int = 8, **settings: object
    ) -> Path:
        chosen = Settings(max_batch_size, **settings)  # type: ignore[arg-type]
        package_model(onnx_file(model), name or model, repository, chosen)
        return repository

    return put


@pytest.fixture
def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def not_triton() -> Iterator[str]:
    """The URL of a server that answers in JSON, but not what Triton would."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            config = {"name": "double", "max_batch_size": "many"}
            stats = {"model_stats": [{"name": "double", "version": "1"}]}
            body = json.dumps(config if self.path.endswith("/config") else stats).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@dataclass(frozen=True)
class Running:
    """A `tritonkit` command at work, the leader of its own session, with its own TMPDIR."""

    process: subprocess.Popen[str]
    output: Path
    errors: Path
    tmp: Path

    def said(self) -> str:
        return self.output.read_text()

    def complained(self) -> str:
        return self.errors.read_text()

    def family(self) -> list[psutil.Process]:
        """Everything that the command has started and that still runs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: signal.Signals) -> int:
        """Send it a signal, to it alone; returns its exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture(scope="session")
def start_kit(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., AbstractContextManager[Running]]:
    """Start `tritonkit ARGUMENTS` and kill what is left of it in the end."""

    @contextmanager
    def starting(*arguments: object, cwd: Path = ROOT) -> Iterator[Running]:
        work = tmp_path_factory.mktemp("kit")
        tmp, output, errors = work / "tmp", work / "output", work / "errors"
        tmp.mkdir()
        with output.open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(
                [*KIT, *map(str, arguments)],
                cwd=cwd,
                env={**os.environ, "TMPDIR": str(tmp), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                text=True,
                start_new_session=True,
            )
        running = Running(process, output, errors, tmp)
        family: list[psutil.Process] = []
        try:
            yield running
        finally:
            if process.poll() is None:
                family = running.family()
                process.kill()
                process.wait()
            for left in family:
                with suppress(psutil.NoSuchProcess):
                    left.kill()
            psutil.wait_procs(family, timeout=1)
            for memory in Path("/dev/shm").glob(f"tritonkit-{process.pid}-*"):
                memory.unlink(missing_ok=True)

    return starting


@pytest.fixture
def serving(
    installed: None, start_kit: Callable[..., AbstractContextManager[Running]]
) -> Callable[..., AbstractContextManager[tuple[Running, Mapping[str, str]]]]:
    """`tritonkit serve` of a repository on free ports: the command, and its endpoints by name."""

    @contextmanager
    def serve(
        repository: Path, *arguments: object, cwd: Path = ROOT
    ) -> Iterator[tuple[Running, Mapping[str, str]]]:
        ports = ("--http-port", 0, "--grpc-port", 0, "--metrics-port", 0)
        with start_kit("serve", "--repository", repository, *ports, *arguments, cwd=cwd) as running:

            def ready() -> bool:
                if running.process.poll() is not None:
                    pytest.fail(f"serve ended: {running.complained()}")
                return "Ctrl-C ends it" in running.said()

            wait_for(ready)
            found = re.findall(r"^  (\w+) +(?:http://)?(.+?)(?:/metrics)?$", running.said(), re.M)
            yield running, dict(found)

    return serve
