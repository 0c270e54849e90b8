"""What a server is to the rest of the kit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self


@dataclass(frozen=True)
class Endpoints:
    """Where a running server listens, as host:port. None where it does not."""

    http: str
    grpc: str | None = None
    metrics: str | None = None


class Server(Protocol):
    """A server process. Entering starts it and waits until it is ready to infer."""

    log: Path

    @property
    def endpoints(self) -> Endpoints:
        """Where it listens."""

    def pids(self) -> list[int]:
        """The live processes of this server, its children too."""

    def wait(self) -> int:
        """Block until the server ends by itself; returns its exit status."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
