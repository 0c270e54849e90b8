"""The services of docker-compose.yml, started and ended by docker compose."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tritonkit.errors import InputError, ServerError, SetupError
from tritonkit.server.process import says_ready

SERVICES = {
    "ort_baseline": "baseline",
    "triton_unbatched": "triton-unbatched",
    "triton_batched": "triton",
}
"""The service of each arm."""

READY_S = 300.0

_HTTP = 8000
"""Of each service, inside its container."""


@contextmanager
def composed(
    file: Path, services: Sequence[str], repository: Path, model: str
) -> Iterator[Mapping[str, str]]:
    """host:port of each service, ready; those that were not up before go with the block.

    InputError without the file; SetupError without docker compose or a Docker engine; ServerError
    for a service that does not get ready.
    """
    if not file.is_file():
        raise InputError(f"no {file}; run it in the folder that has it, or give --compose-file")
    settings = {"MODEL_REPOSITORY": str(repository.resolve()), "MODEL": model}
    project = _Project([*_program(), "--file", str(file)], {**os.environ, **settings})
    up = project.run("ps", "--services", "--filter", "status=running").split()
    started = [name for name in services if name not in up]
    try:
        if started:
            project.run("up", "--detach", *started)
        where = {name: project.run("port", name, str(_HTTP)).strip() for name in services}
        for name, address in where.items():
            _wait(project, name, address)
        yield where
    finally:
        if started:
            project.run("rm", "--stop", "--force", *started)


class _Project:
    """docker compose on one file. env: what the file takes from its variables."""

    def __init__(self, program: Sequence[str], env: Mapping[str, str]):
        self._program = program
        self._env = env

    def run(self, *words: str) -> str:
        """What it prints. ServerError with its last words if it fails."""
        done = subprocess.run(
            [*self._program, *words],
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it says nothing"]
            raise ServerError(f"docker compose {words[0]} failed: {said[-1]}")
        return done.stdout


def _program() -> list[str]:
    """docker compose, or docker-compose, whichever there is."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) is None:
            continue
        done = subprocess.run([*words, "version"], capture_output=True, check=False)
        if done.returncode == 0:
            return words
    raise SetupError(
        "there is no docker compose; install Docker with its compose plugin, or leave out "
        "--runtime compose"
    )


def _wait(project: _Project, name: str, address: str) -> None:
    deadline = time.monotonic() + READY_S
    while not says_ready(address):
        if name not in project.run("ps", "--services", "--filter", "status=running").split():
            raise ServerError(f"the service {name} ended; see: docker compose logs {name}")
        if time.monotonic() > deadline:
            raise ServerError(
                f"the service {name} was not ready after {READY_S:.0f} s; "
                f"see: docker compose logs {name}"
            )
        time.sleep(0.5)
