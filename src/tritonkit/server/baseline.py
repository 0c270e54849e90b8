"""OrtBaseline: starts and ends the baseline server, as EmbeddedTriton does Triton."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tritonkit.repository.layout import model_file, read_config, write_variant
from tritonkit.server.local import LocalServer

STOP_GRACE_S = 5.0


class OrtBaseline(LocalServer):
    """One model of a repository in one shared ONNX Runtime session behind uvicorn.

    Threads and concurrent runs are the config's intra_op_thread_count and instance count. Its
    output goes to `log`, which is kept. `cpus` are the CPUs that it may use; empty means all.

    RepositoryError, PortInUseError, or ServerError with its own reason if it does not start.
    """

    name = "the baseline server"
    ready_timeout_s = 60.0

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
        super().__init__(
            log=log, host=host, ports={"http": http_port}, cpus=cpus, grace_s=STOP_GRACE_S
        )
        self._repository = repository
        self._model = model

    def failure(self) -> str:
        """Why it ended, from its log, in one line."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else f"no reason in {self.log}"

    def _check(self) -> None:
        read_config(self._repository, self._model)
        model_file(self._repository, self._model)

    def _command(self, work: Path, ports: Mapping[str, int]) -> tuple[list[str], dict[str, str]]:
        # What it says of itself is its config, so that must not promise a scheduler.
        config = replace(read_config(self._repository, self._model), dynamic_batching=None)
        write_variant(self._repository, self._model, config, work / "repository")
        argv = [
            *(sys.executable, "-m", "tritonkit.server.baseline_app"),
            *("--repository", str(work / "repository"), "--model", self._model),
            *("--host", self._host, "--port", str(ports["http"])),
        ]
        return argv, dict(os.environ)
