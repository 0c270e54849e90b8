"""Ports on one host: pick free ones, and refuse a taken one before a server tries it."""

from __future__ import annotations

import socket

from tritonkit.errors import PortInUseError


def resolve_ports(host: str, wanted: dict[str, int]) -> dict[str, int]:
    """A port number for each purpose; 0 asks for any free one.

    All are held at once while choosing, so that no two purposes get the same. PortInUseError
    if a port that was asked for is taken.
    """
    held: list[socket.socket] = []
    chosen: dict[str, int] = {}
    try:
        for purpose, port in wanted.items():
            probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            held.append(probe)
            if port and port in chosen.values():
                raise PortInUseError(f"port {port} was given twice; {purpose} needs one of its own")
            # As servers do, so that a port in TIME_WAIT does not count as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except (OSError, TypeError) as error:  # TypeError: a host that cannot be one
                reason = getattr(error, "strerror", None) or error
                raise PortInUseError(
                    f"{purpose} port {port} on {host} cannot be used ({reason}); "
                    f"choose another with --{purpose}-port, or 0 for any free one"
                ) from error
            chosen[purpose] = probe.getsockname()[1]
    finally:
        for probe in held:
            probe.close()
    return chosen
