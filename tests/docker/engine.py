"""A Docker engine of the tests' own, and what they do with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

_SERVER = "-H=unix://{0}/socket", "--data-root={0}/data", "--exec-root={0}/exec"
# Without rules of its own in the machine's firewall; published ports then go by Docker's proxy.
_APART = "--iptables=false", "--bridge=none"


COMMANDS = (("docker", "compose"), ("docker-compose",))


def works(command: Sequence[str]) -> bool:
    """Whether this machine has it."""
    done = subprocess.run([*command, "version"], capture_output=True, check=False)
    return done.returncode == 0


def compose_command() -> tuple[str, ...]:
    """The first that works."""
    return next(command for command in COMMANDS if works(command))


def wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Return as soon as `condition` holds; fail if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{timeout_s:.0f} s went by in vain")
        time.sleep(0.1)


class Engine:
    """dockerd in a folder of its own, until its block is left; nothing of it stays."""

    def __enter__(self) -> Engine:
        self.folder = Path(tempfile.mkdtemp(prefix="tritonkit-docker-"))  # a socket's path is short
        options = [word.format(self.folder) for word in (*_SERVER, "--pidfile={0}/pid")]
        self._log = self.folder / "log"
        with self._log.open("w") as log:
            self._daemon = subprocess.Popen(
                # It ends if the tests are killed.
                ["setpriv", "--pdeathsig=TERM", "dockerd", *options, *_APART],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        self.env = {**os.environ, "DOCKER_HOST": f"unix://{self.folder}/socket"}
        self.env.pop("DOCKER_CONTEXT", None)
        try:
            wait_for(self._answers)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _answers(self) -> bool:
        if self._daemon.poll() is not None:
            pytest.fail(f"dockerd ended: {self._log.read_text()[-2000:]}")
        done = subprocess.run(["docker", "version"], env=self.env, capture_output=True, check=False)
        return done.returncode == 0

    def __exit__(self, *exc: object) -> None:
        networks: list[str] = []
        if (self.folder / "socket").exists():
            ids = self.try_docker("ps", "--all", "--quiet").stdout.split()
            if ids:
                self.try_docker("rm", "--force", "--volumes", *ids)
            networks = self.try_docker("network", "ls", "--quiet").stdout.split()
            self.try_docker("network", "prune", "--force")
        family = psutil.Process(self._daemon.pid).children(recursive=True)
        self._daemon.send_signal(signal.SIGTERM)
        try:
            self._daemon.wait(30)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        for left in family:
            with suppress(psutil.NoSuchProcess):
                left.kill()
        psutil.wait_procs(family, timeout=5)
        for network in networks:  # whose bridge may outlive a daemon that was killed
            words = ["ip", "link", "delete", f"br-{network}"]
            subprocess.run(words, capture_output=True, check=False)
        for mount in sorted(_mounts(self.folder), reverse=True):
            subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
        shutil.rmtree(self.folder)

    def try_docker(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """`docker ARGUMENTS`, however it ends."""
        words = ["docker", *map(str, arguments)]
        return subprocess.run(
            words, env=self.env, capture_output=True, text=True, check=False, **options
        )

    def docker(self, *arguments: object, **options: Any) -> str:
        """What `docker ARGUMENTS` writes."""
        done = self.try_docker(*arguments, **options)
        assert done.returncode == 0, f"docker {arguments}: {done.stdout[-2000:]}{done.stderr}"
        return done.stdout.strip()

    def inspect(self, name: str) -> Any:
        """All that Docker knows of a container or an image."""
        return json.loads(self.docker("inspect", name))[0]

    @contextmanager
    def running(self, image: str, *command: str, options: tuple[object, ...]) -> Iterator[str]:
        """A container, by its id; it is gone after the block."""
        container = self.docker("run", "--detach", *options, image, *command)
        try:
            yield container
        finally:
            self.docker("rm", "--force", "--volumes", container)

    def health(self, container: str) -> str:
        """`starting`, `healthy` or `unhealthy`."""
        state = self.inspect(container)["State"]
        if not state["Running"]:
            pytest.fail(f"the container ended: {self.try_docker('logs', container)}")
        return str(state["Health"]["Status"])

    def wait_healthy(self, container: str) -> None:
        """Fail if it is not within a minute."""
        wait_for(lambda: self.health(container) == "healthy")


class Compose:
    """docker-compose.yml under a name of its own. command: compose's, in words. beside: other files
    of its kind, by their place in the project.
    """

    def __init__(
        self,
        engine: Engine,
        command: tuple[str, ...],
        settings: Mapping[str, object],
        *beside: str,
        name: str = "tritonkit-test",
    ):
        self.engine = engine
        root = Path(__file__).parents[2]
        files = [word for file in ("docker-compose.yml", *beside) for word in ("-f", root / file)]
        self._words = [*command, *map(str, files), "--project-name", name]
        self._env = {**engine.env, **{name: str(value) for name, value in settings.items()}}

    def __call__(self, *arguments: str, profiles: tuple[str, ...] = ()) -> str:
        """What it writes."""
        chosen = [word for profile in profiles for word in ("--profile", profile)]
        words = [*self._words, *chosen, *arguments]
        done = subprocess.run(words, env=self._env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def containers(self, service: str, *profiles: str) -> list[str]:
        """The ids of a service's containers."""
        return self("ps", "--quiet", service, profiles=profiles).split()


def _mounts(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    places = (line.split()[1] for line in lines)
    return [place for place in places if place.startswith(f"{folder}/")]
