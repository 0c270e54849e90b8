"""ExternalServer: one that somebody else started, and will end."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from tritonkit.server.interface import Endpoints


class ExternalServer:
    """A server that is up already; a `Server` of the interface that only knows where it listens.

    http: host:port. Its processes are not seen, and its log is for others to keep.
    """

    log = Path("/dev/null")

    def __init__(self, http: str):
        self.endpoints = Endpoints(http)

    def pids(self) -> list[int]:
        """None that are known."""
        return []

    def wait(self) -> int:
        """It is not ours to wait for."""
        return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass
