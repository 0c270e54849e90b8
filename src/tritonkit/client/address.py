"""Where a server is and which protocol it speaks there: `grpc://host:8001`, `http://host:8000`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from tritonkit.errors import InputError

_DEFAULT_PORTS = {"grpc": 8001, "http": 8000, "grpcs": 443, "https": 443}
_LOOPBACK = ("localhost", "127.", "::1")


@dataclass(frozen=True)
class Address:
    """protocol: how to speak. secure: over TLS. path: put before every HTTP path (a proxy's)."""

    protocol: Literal["grpc", "http"]
    host: str
    port: int
    secure: bool = False
    path: str = ""

    @property
    def netloc(self) -> str:
        """host:port, with brackets around an IPv6 host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the server is certainly on this machine, or behind a port forwarded from it."""
        return self.host.startswith(_LOOPBACK)

    def __str__(self) -> str:
        return f"{self.protocol}{'s' if self.secure else ''}://{self.netloc}{self.path}"


def parse_address(text: str) -> Address:
    """Read `grpc://`, `grpcs://`, `http://`, `https://`, or a bare host:port, which is gRPC.

    Without a port: Triton's own, 8001 for gRPC and 8000 for HTTP, and 443 over TLS. InputError if
    it is none of these.
    """
    scheme, found, rest = text.strip().partition("://")
    scheme, rest = (scheme.lower(), rest) if found else ("grpc", scheme)
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if scheme not in _DEFAULT_PORTS or not host or port == 0 or parts.query or parts.fragment:
        raise InputError(
            f"'{text}' is not a server's address; give grpc://host:8001, http://host:8000 "
            "(with s for TLS), or host:port"
        )
    if parts.username is not None:
        raise InputError("an address does not carry credentials; give a token or headers instead")
    protocol: Literal["grpc", "http"] = "grpc" if scheme.startswith("grpc") else "http"
    path = parts.path.rstrip("/")
    if path and protocol == "grpc":
        raise InputError(f"'{text}': a gRPC address has no path; remove '{path}'")
    return Address(protocol, host, port or _DEFAULT_PORTS[scheme], scheme.endswith("s"), path)
