"""Where a server is, from URL and --protocol."""

from __future__ import annotations

import os

import click

from tritonkit.errors import InputError

protocol_option = click.option(
    "--protocol",
    type=click.Choice(["grpc", "http"]),
    help="Of a URL that is HOST:PORT only; the default is gRPC.",
)


def quieten_grpc() -> None:
    """Before gRPC is imported: what it would log is in the error."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def address_of(url: str, protocol: str | None) -> str:
    """The URL with the protocol that was asked for. InputError if it names another itself."""
    scheme, found, _ = url.partition("://")
    if protocol is None or scheme.strip().lower() in (protocol, f"{protocol}s"):
        return url
    if found:
        raise InputError(f"'{url}' is not of the protocol {protocol}; give one of the two")
    return f"{protocol}://{url.strip()}"
