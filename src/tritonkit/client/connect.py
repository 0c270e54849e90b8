"""From what a user gives, an address or several, to the transports that speak to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import TypeVar

from tritonkit.client.address import Address, parse_address
from tritonkit.client.retry import Retries
from tritonkit.client.transport import AsyncTransport, Compression, Tls, Transport
from tritonkit.errors import InputError

T = TypeVar("T")

Token = str | Callable[[], str]
"""A bearer token, or what gives the present one."""


def check_options(
    *,
    retries: object,
    compression: object,
    shared_memory: object,
    nan: object,
    hooks: object,
    transport: object,
    asynchronous: bool,
) -> None:
    """InputError for an option that would do something else than it says, or nothing."""
    if not isinstance(retries, Retries):
        raise InputError(f"retries is {retries!r}; give Retries(…), or NO_RETRIES")
    for name, value, known in (
        ("compression", compression, (None, "gzip", "deflate")),
        ("shared_memory", shared_memory, (True, False, "auto")),
        ("nan", nan, ("send", "refuse")),
    ):
        if value not in known:
            raise InputError(f"{name} is {value!r}; it must be one of {known}")
    if not isinstance(hooks, Sequence) or not all(map(callable, hooks)):
        raise InputError("hooks must be a list of functions that take one event")
    send = getattr(transport, "send", None)
    if transport is not None and not (callable(send) and iscoroutinefunction(send) == asynchronous):
        kind = "an AsyncTransport" if asynchronous else "a Transport"
        remedy = "; of a FakeTransport that is fake.aio()" if asynchronous else ""
        raise InputError(f"{type(transport).__name__} is not {kind}{remedy}")


def each_address(address: str | Sequence[str], make: Callable[[Address], T]) -> tuple[T, ...]:
    """`make` of each address. InputError if there is none, or if they mix protocols."""
    texts = tuple(address) if isinstance(address, list | tuple) else (address,)
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"an address is text, such as grpc://localhost:8001, not {text!r}")
    addresses = tuple(dict.fromkeys(parse_address(text) for text in texts))
    if not addresses:
        raise InputError("no address; give one, such as grpc://localhost:8001")
    if len({a.protocol for a in addresses}) > 1:
        raise InputError("the addresses mix gRPC and HTTP; give all of one protocol")
    return tuple(make(a) for a in addresses)


def blocking_transport(
    address: Address, tls: Tls | None, compression: Compression | None
) -> Transport:
    """The Transport for an address; imports only what its protocol needs."""
    if address.protocol == "http":
        from tritonkit.client.transports.http import HttpTransport

        return HttpTransport(address, tls=tls, compression=compression)
    from tritonkit.client.transports.grpc import GrpcTransport

    return GrpcTransport(address, tls=tls, compression=compression)


def async_transport(
    address: Address, tls: Tls | None, compression: Compression | None
) -> AsyncTransport:
    """The AsyncTransport for an address."""
    if address.protocol == "http":
        from tritonkit.client.transports.http_aio import AsyncHttpTransport

        return AsyncHttpTransport(address, tls=tls, compression=compression)
    from tritonkit.client.transports.grpc_aio import AsyncGrpcTransport

    return AsyncGrpcTransport(address, tls=tls, compression=compression)


def every_request(
    headers: Mapping[str, str] | None, token: Token | None
) -> Mapping[str, str] | Callable[[], Mapping[str, str]]:
    """The headers of every request, or what gives them if the token is asked for each time."""
    own = dict(headers or {})
    if token is None:
        return own
    if isinstance(token, str):
        return {**own, "authorization": f"Bearer {token}"}
    ask = token

    def with_token() -> Mapping[str, str]:
        return {**own, "authorization": f"Bearer {ask()}"}

    return with_token
