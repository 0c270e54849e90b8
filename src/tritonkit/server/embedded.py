"""The embedded Triton: the real tritonserver as a child process, without Docker."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tritonkit.errors import RepositoryError, ServerError
from tritonkit.repository.config import is_literal, require_model_name
from tritonkit.repository.layout import model_names
from tritonkit.server.local import LocalServer
from tritonkit.server.triton_wheel import TritonFiles, assemble_backends, installed_triton

# Triton lets running requests end for so long; idle connections also hold it until then.
DRAIN_S = 5
STOP_GRACE_S = 10.0
REASON_LENGTH = 400


class EmbeddedTriton(LocalServer):
    """Serves a model repository. Use it as a context manager: inside, it is ready to infer.

    Ports of 0 are chosen free. It listens on the loopback address unless told otherwise.
    Auto-complete is off, so that what is written in config.pbtxt is what runs. Its output goes
    to `log`, which is kept. `cpus` are the CPUs that it may use; empty means all. Leaving lets
    running requests end; with drain=False it ends the server at once, which saves 3 seconds.
    `response_cache_mb` is the size of the cache of answers for the models that want it; 0 is none.
    `options` are added to Triton's command line, after the kit's own.

    RepositoryError, PortInUseError, SetupError, or ServerError with Triton's own reason if it
    does not become ready.
    """

    name = "Triton"
    ready_timeout_s = 120.0

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
        response_cache_mb: int = 0,
        options: Sequence[str] = (),
    ):
        super().__init__(
            log=log,
            host=host,
            ports={"http": http_port, "grpc": grpc_port, "metrics": metrics_port},
            cpus=cpus,
            grace_s=STOP_GRACE_S if drain else 0.0,
        )
        self._repository = repository
        self._response_cache_mb = response_cache_mb
        self._extra = tuple(options)

    def failure(self) -> str:
        """Why Triton ended, from its log, in one line."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return _reason(text) or f"no reason in its log; see {self.log}"

    def _opens(self, purpose: str) -> bool:
        refused = rf"--allow-{purpose}[= ](false|0)\b"
        return re.search(refused, " ".join(self._extra), re.IGNORECASE) is None

    def _check(self) -> None:
        installed_triton()
        names = model_names(self._repository)
        if not names:
            raise RepositoryError(
                f"{self._repository} has no models; add one with: tritonkit package"
            )
        # The Python backend starts its stubs by a shell and quotes nothing: a name with a space
        # would never get ready, and one with a command would run it.
        for name in names:
            require_model_name(name)

    def _command(self, work: Path, ports: Mapping[str, int]) -> tuple[list[str], dict[str, str]]:
        files = installed_triton()
        backends = assemble_backends(files, work / "backends")
        if not is_literal(str(work).replace("/", "")):
            raise ServerError(
                f"{self.name} cannot work in {work.parent}: a shell would not take that name as it "
                "is; set TMPDIR to another folder"
            )
        # Its own path may be anything, this one is literal.
        repository = work / "repository"
        repository.symlink_to(self._repository.resolve(), target_is_directory=True)
        argv = [
            str(files.binary.resolve()),
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            "--disable-auto-complete-config",
            f"--backend-config=python,shm-region-prefix-name={work.name}-",
            f"--exit-timeout-secs={DRAIN_S}",
            *self._cache_options(files),
            *(f"--{purpose}-address={self._host}" for purpose in ports),
            *(f"--{purpose}-port={port}" for purpose, port in ports.items()),
            *self._extra,
        ]
        return argv, _environment(files.libraries.resolve())

    def _cache_options(self, files: TritonFiles) -> list[str]:
        # Its default is a folder of NVIDIA's container.
        folder = files.binary.resolve().parents[1] / "caches"
        options = [f"--cache-directory={folder}"]
        if self._response_cache_mb:
            options.append(f"--cache-config=local,size={self._response_cache_mb * 2**20}")
        return options


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
