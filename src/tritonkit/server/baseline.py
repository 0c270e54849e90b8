"""OrtBaseline: starts and ends the baseline server, as EmbeddedTriton does Triton."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from tritonkit.errors import ServerError
from tritonkit.repository.layout import read_config, write_variant
from tritonkit.server.interface import Endpoints
from tritonkit.server.ports import resolve_ports
from tritonkit.server.process import ServerProcess

READY_TIMEOUT_S = 60.0
STOP_GRACE_S = 5.0


class OrtBaseline:
    """One model of a repository in one shared ONNX Runtime session behind uvicorn.

    Threads and concurrent runs are the config's intra_op_thread_count and instance count. Its
    output goes to `log`, which is kept. `cpus` are the CPUs that it may use; empty means all.

    RepositoryError, PortInUseError, or ServerError with its own reason if it does not start.
    """

    def __init__(
        self,
        repository: Path,
        model: str,
        *,
        log: Path,
        host: str = "127.0.0.1",
        http_port: int = 0,
        cpus: Sequence[int] = (),
    ):
        self.log = log
        self._repository = repository
        self._model = model
        self._host = host
        self._wanted = {"http": http_port}
        self._cpus = cpus
        self._process: ServerProcess | None = None
        self._endpoints: Endpoints | None = None

    @property
    def endpoints(self) -> Endpoints:
        """Where it listens. ServerError if it was not started."""
        if self._endpoints is None:
            raise ServerError("the baseline server was not started")
        return self._endpoints

    def pids(self) -> list[int]:
        """The live processes: one."""
        return self._process.pids() if self._process else []

    def wait(self) -> int:
        """Block until the server ends by itself; returns its exit status."""
        return self._process.wait() if self._process else 0

    def failure(self) -> str:
        """Why it ended, from its log, in one line."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else f"no reason in {self.log}"

    def __enter__(self) -> Self:
        config = read_config(self._repository, self._model)
        port = resolve_ports(self._host, self._wanted)["http"]
        http = f"{self._host}:{port}"
        self._work = tempfile.TemporaryDirectory(prefix="tritonkit-")
        try:
            work = Path(self._work.name)
            (work / "cwd").mkdir()
            # What it says of itself is its config, so that must not promise a scheduler.
            config = replace(config, dynamic_batching=None)
            write_variant(self._repository, self._model, config, work / "repository")
            self._process = ServerProcess(
                [
                    *(sys.executable, "-m", "tritonkit.server.baseline_app"),
                    *("--repository", str(work / "repository"), "--model", self._model),
                    *("--host", self._host, "--port", str(port)),
                ],
                env=dict(os.environ),
                cwd=work / "cwd",
                log=self.log,
                cpus=self._cpus,
            )
            if not self._process.wait_ready(http, READY_TIMEOUT_S):
                raise ServerError(f"the baseline server did not start: {self.failure()}")
        except BaseException:
            self.__exit__()
            raise
        self._endpoints = Endpoints(http)
        return self

    def __exit__(self, *exc: object) -> None:
        self._endpoints = None
        try:
            if self._process is not None:
                self._process.stop(STOP_GRACE_S)
        finally:
            self._work.cleanup()
