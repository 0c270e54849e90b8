"""The embedded Triton: the real tritonserver as a child process, without Docker."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tritonkit.errors import ServerError
from tritonkit.repository.layout import model_names
from tritonkit.server.interface import Endpoints
from tritonkit.server.ports import resolve_ports
from tritonkit.server.process import ServerProcess
from tritonkit.server.triton_wheel import assemble_backends, installed_triton

READY_TIMEOUT_S = 120.0
# Triton lets running requests end for so long; idle connections also hold it until then.
DRAIN_S = 5
STOP_GRACE_S = 10.0
REASON_LENGTH = 400


class EmbeddedTriton:
    """Serves a model repository. Use it as a context manager: inside, it is ready to infer.

    Ports of 0 are chosen free. It listens on the loopback address unless told otherwise.
    Auto-complete is off, so that what is written in config.pbtxt is what runs. Its output goes
    to `log`, which is kept. `cpus` are the CPUs that it may use; empty means all. Leaving lets
    running requests end; with drain=False it ends the server at once, which saves 3 seconds.
    `options` are added to Triton's command line, after the kit's own.

    RepositoryError, PortInUseError, SetupError, or ServerError with Triton's own reason if it
    does not become ready.
    """

    def __init__(
        self,
        repository: Path,
        *,
        log: Path,
        host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        cpus: Sequence[int] = (),
        drain: bool = True,
        options: Sequence[str] = (),
    ):
        self.log = log
        self._repository = repository
        self._host = host
        self._wanted = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self._cpus = cpus
        self._grace_s = STOP_GRACE_S if drain else 0.0
        self._extra = tuple(options)
        self._process: ServerProcess | None = None
        self._shm_prefix = f"tritonkit-{os.getpid()}-{id(self):x}-"
        self._endpoints: Endpoints | None = None

    @property
    def endpoints(self) -> Endpoints:
        """Where it listens. ServerError if it was not started."""
        if self._endpoints is None:
            raise ServerError("Triton was not started")
        return self._endpoints

    def pids(self) -> list[int]:
        """The live processes: the server, and a Python stub for each model instance."""
        return self._process.pids() if self._process else []

    def wait(self) -> int:
        """Block until the server ends by itself; returns its exit status."""
        return self._process.wait() if self._process else 0

    def failure(self) -> str:
        """Why Triton ended, from its log, in one line."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return _reason(text) or f"no reason in its log; see {self.log}"

    def __enter__(self) -> Self:
        files = installed_triton()
        if not model_names(self._repository):
            raise ServerError(f"{self._repository} has no models; add one with: tritonkit package")
        self._work = tempfile.TemporaryDirectory(prefix="tritonkit-")
        try:
            work = Path(self._work.name)
            backends = assemble_backends(files, work / "backends")
            (work / "cwd").mkdir()
            ports = resolve_ports(self._host, self._wanted)
            self._process = ServerProcess(
                [str(files.binary.resolve()), *self._options(backends, ports), *self._extra],
                env=_environment(files.libraries.resolve()),
                cwd=work / "cwd",
                log=self.log,
                cpus=self._cpus,
            )
            http = f"{self._host}:{ports['http']}"
            if not self._process.wait_ready(http, READY_TIMEOUT_S):
                raise ServerError(f"Triton did not start: {self.failure()}")
        except BaseException:
            self.__exit__()
            raise
        self._endpoints = Endpoints(
            http, f"{self._host}:{ports['grpc']}", f"{self._host}:{ports['metrics']}"
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._endpoints = None
        try:
            if self._process is not None:
                self._process.stop(self._grace_s)
        finally:
            # A server that had to be killed leaves its shared memory behind.
            for left in Path("/dev/shm").glob(f"{self._shm_prefix}*"):
                left.unlink(missing_ok=True)
            self._work.cleanup()

    def _options(self, backends: Path, ports: dict[str, int]) -> list[str]:
        return [
            f"--model-repository={self._repository.resolve()}",
            f"--backend-directory={backends}",
            "--disable-auto-complete-config",
            f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
            f"--exit-timeout-secs={DRAIN_S}",
            *(f"--{p}-address={self._host}" for p in ports),
            *(f"--{p}-port={number}" for p, number in ports.items()),
        ]


def _environment(libraries: Path) -> dict[str, str]:
    env = dict(os.environ)
    env["LD_LIBRARY_PATH"] = str(libraries)
    # The Python stub takes its packages from the first python on PATH; it ignores PYTHONPATH.
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    # The server's threads do the work; a BLAS pool inside the stub would only compete.
    env.setdefault("OMP_NUM_THREADS", "1")
    return env


def _reason(log: str) -> str:
    """Triton's own words for why it did not start, in one line: the first model's failure and
    how many more there are, else its last error.
    """
    models = re.findall(r"failed to load '([^']+)' version \d+: (.*)", log)
    if models:
        more = len({name for name, _ in models}) - 1
        return _short(models[0][1]) + (f" (and {more} more models failed)" if more else "")
    # Its log's errors, its main's, and getopt's of a wrong option.
    errors = re.findall(r"^(?:error: |E\d{4} .*?\] |\S*tritonserver: )(.*)$", log, re.MULTILINE)
    return _short(errors[-1]) if errors else ""


def _short(line: str) -> str:
    """Without the stub's trace, which Triton writes on the same line, and not too long."""
    line = line.partition(r"\n\nAt:\n")[0].replace(r"\n", " ").strip('" ')
    line = re.sub(r"^Internal: (?:\w+Error: )?", "", line)
    return line if len(line) <= REASON_LENGTH else f"{line[: REASON_LENGTH - 1]}…"
