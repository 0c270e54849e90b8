"""LocalServer: what the embedded Triton and the baseline have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from tritonkit.errors import ServerError
from tritonkit.server.interface import Endpoints
from tritonkit.server.ports import resolve_ports
from tritonkit.server.process import ServerProcess
from tritonkit.server.work import WorkFolder


class LocalServer(ABC):
    """A server that is a child process on this machine; a `Server` of the interface.

    ports: a number for each of `http`, `grpc`, `metrics` that it has; 0 is chosen free.
    grace_s: how long it may take to end by itself. Its output goes to `log`, which is kept;
    all else that it needs lies in a temporary folder that goes with it.
    """

    name: ClassVar[str]
    ready_timeout_s: ClassVar[float]

    def __init__(
        self,
        *,
        log: Path,
        host: str,
        ports: Mapping[str, int],
        cpus: Sequence[int],
        grace_s: float,
    ):
        self.log = log
        self._host = host
        self._wanted = dict(ports)
        self._cpus = cpus
        self._grace_s = grace_s
        self._process: ServerProcess | None = None
        self._endpoints: Endpoints | None = None

    @abstractmethod
    def _check(self) -> None:
        """Refuse what cannot be served, before a port is tried."""

    @abstractmethod
    def _command(self, work: Path, ports: Mapping[str, int]) -> tuple[list[str], dict[str, str]]:
        """The command line, without relative paths, and the environment.

        work: a temporary folder to put files in.
        """

    @abstractmethod
    def failure(self) -> str:
        """Why it ended, from its log, in one line."""

    def _opens(self, purpose: str) -> bool:
        """Whether it will listen on the port of this purpose."""
        return True

    @property
    def endpoints(self) -> Endpoints:
        """Where it listens. ServerError if it was not started."""
        if self._endpoints is None:
            raise ServerError(f"{self.name} was not started")
        return self._endpoints

    def pids(self) -> list[int]:
        """The live processes of this server, its children too."""
        return self._process.pids() if self._process else []

    def wait(self) -> int:
        """Block until the server ends by itself; returns its exit status."""
        return self._process.wait() if self._process else 0

    def __enter__(self) -> Self:
        self._check()
        self._work = WorkFolder()
        try:
            work = self._work.path
            ports = resolve_ports(self._host, self._wanted)
            where = {purpose: f"{self._host}:{port}" for purpose, port in ports.items()}
            argv, env = self._command(work, ports)
            (work / "cwd").mkdir()
            self._process = ServerProcess(
                argv,
                env=env,
                cwd=work / "cwd",
                log=self.log,
                cpus=self._cpus,
                inherits=() if self._work.lock is None else (self._work.lock,),
            )
            opens = {purpose: at for purpose, at in where.items() if self._opens(purpose)}
            if not self._process.wait_ready(opens, self.ready_timeout_s):
                raise ServerError(f"{self.name} did not start: {self.failure()}")
        except BaseException:
            self.__exit__()
            raise
        self._endpoints = Endpoints(**where)
        return self

    def __exit__(self, *exc: object) -> None:
        self._endpoints = None
        try:
            if self._process is not None:
                self._process.stop(self._grace_s)
        finally:
            self._work.remove()  # with the shared memory of a server that had to be killed
