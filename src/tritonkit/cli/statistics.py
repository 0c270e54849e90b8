"""A client for the verbs that read a server's counters and send it no requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tritonkit.cli.address import address_of, quieten_grpc
from tritonkit.errors import request_error

if TYPE_CHECKING:
    from tritonkit.client.client import Client

_TIMEOUT_S = 10.0


@contextmanager
def connected(url: str, protocol: str | None) -> Iterator[Client]:
    """A client of the server at `url`, which is asked for the first time in the block."""
    quieten_grpc()

    from tritonkit.client.client import Client

    with Client(address_of(url, protocol), timeout_s=_TIMEOUT_S, shared_memory=False) as client:
        yield client


@contextmanager
def as_triton_speaks(url: str) -> Iterator[None]:
    """ProtocolError for a config or statistics that no Triton would answer."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise request_error(
            "protocol", f"{url}: the server's answer is malformed ({error!r}); is this a Triton?"
        ) from error
