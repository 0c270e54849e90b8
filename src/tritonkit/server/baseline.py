"""OrtBaseline: starts and ends the baseline server, as EmbeddedTriton does Triton."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tritonkit.errors import InputError
from tritonkit.repository.config import DynamicBatching
from tritonkit.repository.layout import model_file, read_config, write_variant
from tritonkit.server.local import LocalServer

STOP_GRACE_S = 5.0
# Of the grace: for the queue. What is left is for the last run, and for the process to end.
DRAIN_S = 3.5


class OrtBaseline(LocalServer):
    """One model of a repository in one shared ONNX Runtime session behind uvicorn.

    Threads and concurrent runs are the config's intra_op_thread_count and instance count. With
    `batching` it gathers requests into batches, as the config's dynamic_batching says, or if it
    has none as Triton's defaults are; see batcher.py for what of it there is.
    Its output goes to `log`, which is kept. `cpus` are the CPUs that it may use; empty means all.

    InputError for a model that cannot be served with `batching`. RepositoryError, PortInUseError,
    or ServerError with its own reason if it does not start.
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
        batching: bool = False,
    ):
        super().__init__(
            log=log, host=host, ports={"http": http_port}, cpus=cpus, grace_s=STOP_GRACE_S
        )
        self._repository = repository
        self._model = model
        self._batching = batching

    def failure(self) -> str:
        """Why it ended, from its log, in one line."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else f"no reason in {self.log}"

    def _check(self) -> None:
        config = read_config(self._repository, self._model)
        model_file(self._repository, self._model)
        if not self._batching:
            return
        if config.sequence_batching is not None:
            raise InputError(
                f"model '{self._model}' is stateful: its requests belong to sequences, which this "
                "server does not keep; serve it on Triton"
            )
        if config.max_batch_size == 0:
            raise InputError(
                f"model '{self._model}' has max_batch_size 0, so there is nothing to batch; "
                "package it with --max-batch-size 2 or more"
            )

    def _command(self, work: Path, ports: Mapping[str, int]) -> tuple[list[str], dict[str, str]]:
        # What it does follows from its config, so that must promise no scheduler that it has not.
        config = read_config(self._repository, self._model)
        batching = (config.dynamic_batching or DynamicBatching()) if self._batching else None
        config = replace(config, dynamic_batching=batching)
        write_variant(self._repository, self._model, config, work / "repository")
        argv = [
            *(sys.executable, "-m", "tritonkit.server.baseline_app"),
            *("--repository", str(work / "repository"), "--model", self._model),
            *("--host", self._host, "--port", str(ports["http"])),
            *("--drain-s", str(DRAIN_S)),
        ]
        return argv, dict(os.environ)
