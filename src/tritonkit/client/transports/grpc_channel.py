"""What both gRPC transports make of addresses, TLS files, headers and timeouts."""

from __future__ import annotations

import re
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc

from tritonkit.client.address import Address
from tritonkit.client.transport import Tls
from tritonkit.client.transports.grpc_operations import SERVICE
from tritonkit.errors import DeadlineError, InputError, RequestError, request_error

INFER = f"{SERVICE}ModelInfer"
STREAM = f"{SERVICE}ModelStreamInfer"

COMPRESSIONS = {
    None: grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}

# Triton ends the connection (GOAWAY, too_many_pings) of a client that pings it more than every
# 300 s while it is silent. Data sent to a dead peer is noticed sooner: gRPC takes the timeout for
# that too (TCP_USER_TIMEOUT), if there is a keepalive at all.
_KEEPALIVE_MS = 305_000
_KEEPALIVE_TIMEOUT_MS = 20_000

# gRPC takes its "minimum backoff" as the longest that one try to connect may last, TLS and all.
_CONNECT_TIMEOUT_MS = 5_000
# So that a server that is back is noticed soon.
_FIRST_BACKOFF_MS = 100
_LONGEST_BACKOFF_MS = 2_000

# Longer is for ever. gRPC would count them in 64 bits of nanoseconds, and end them at once.
_LONGEST_DEADLINE_S = 1e8

_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")
_HEADER_VALUE = re.compile(r"[ -~]*")

_gevent_is_told = False


def target(address: Address) -> str:
    """The address as gRPC wants it. (A host called `unix` would be a file without the scheme.)"""
    return f"dns:///{address.netloc}"


def channel_options(address: Address, *, compressed: bool) -> list[tuple[str, int]]:
    """A channel's options; see the constants above for why."""
    options = {
        "grpc.max_send_message_length": -1,
        "grpc.max_receive_message_length": -1,
        "grpc.initial_reconnect_backoff_ms": _FIRST_BACKOFF_MS,
        "grpc.min_reconnect_backoff_ms": _CONNECT_TIMEOUT_MS,
        "grpc.max_reconnect_backoff_ms": _LONGEST_BACKOFF_MS,
        "grpc.keepalive_time_ms": _KEEPALIVE_MS,
        "grpc.keepalive_timeout_ms": _KEEPALIVE_TIMEOUT_MS,
        # Else channels to one server share a connection, and its backoff after a failure.
        "grpc.use_local_subchannel_pool": 1,
        # The client has its own, and gRPC's cost CPU in every call.
        "grpc.enable_retries": 0,
    }
    if not compressed:
        # Leaves out what only compression and things unused here need: CPU in every call too.
        options["grpc.minimal_stack"] = 1
    if address.is_loopback:
        options["grpc.enable_http_proxy"] = 0
    return list(options.items())


def channel_credentials(address: Address, tls: Tls | None) -> Any:
    """What a channel needs for TLS; None if the address does not want any. InputError as above."""
    if not address.secure:
        if tls is not None:
            raise InputError(f"{address} is not encrypted, but tls is given; use grpcs://")
        return None
    tls = tls or Tls()
    if (tls.cert is None) != (tls.key is None):
        have, lack = ("cert", "key") if tls.key is None else ("key", "cert")
        raise InputError(f"tls.{have} is given without tls.{lack}; give both")
    ca, key, cert = (_read(name, getattr(tls, name)) for name in ("ca", "key", "cert"))
    _check_files(tls)
    return grpc.ssl_channel_credentials(ca or _system_authorities(), key, cert)


def to_metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Headers as gRPC's metadata. InputError for what it cannot carry (it would say so only in
    the log).
    """
    metadata = []
    for name, value in headers.items():
        key = name.lower()
        if not _HEADER_NAME.fullmatch(key) or key.startswith("grpc-") or key.endswith("-bin"):
            raise InputError(f"'{name}' cannot be the name of a header of a gRPC request")
        if not _HEADER_VALUE.fullmatch(value):
            raise InputError(f"header '{name}': gRPC carries only printable ASCII in its value")
        metadata.append((key, value))
    return tuple(metadata)


def stream_metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """As to_metadata, and with it the wish that a model's error ends the stream with its status.

    Without it Triton's streams give an error's text and not its kind.
    """
    return (*to_metadata(headers), ("triton_grpc_error", "true"))


def deadline(address: str, timeout_s: float | None) -> float | None:
    """`timeout_s` as gRPC understands it. DeadlineError if nothing is left of it."""
    if timeout_s is None or timeout_s > _LONGEST_DEADLINE_S:
        return None
    if timeout_s <= 0:
        raise DeadlineError("timeout", f"{address}: no time was left to send the request")
    return timeout_s


def cancelled(address: str) -> RequestError:
    """For a request that was given up before it was sent."""
    return request_error("cancelled", f"{address}: the request was cancelled")


def _read(name: str, path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise InputError(f"tls.{name}: {path} cannot be read: {error.strerror}") from error


def _check_files(tls: Tls) -> None:
    """What gRPC would tell only by a log and connections that fail."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except ssl.SSLError as error:
        raise InputError(f"tls.ca: {tls.ca} has no certificate in PEM form") from error
    try:
        if tls.cert is not None:
            # Without a password it would ask the terminal for one; gRPC takes no encrypted keys.
            context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
    except ssl.SSLError as error:
        raise InputError(
            f"tls.cert, tls.key: {tls.cert} and {tls.key} are not a certificate and its key, "
            f"unencrypted, in PEM form ({error.reason or 'not PEM'})"
        ) from error


def _system_authorities() -> bytes | None:
    """The authorities that this system trusts; gRPC by itself trusts a list of its own."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return Path(paths.cafile).read_bytes()
    # OpenSSL's names for the links to the certificates of such a folder.
    files = sorted(Path(paths.capath).glob("????????.[0-9]")) if paths.capath else []
    return b"\n".join(file.read_bytes() for file in files) or None


def tell_gevent() -> None:
    """Let gRPC give way to other greenlets while it waits, where gevent has patched sockets."""
    global _gevent_is_told
    monkey = sys.modules.get("gevent.monkey")
    if _gevent_is_told or monkey is None or not monkey.is_module_patched("socket"):
        return
    import grpc.experimental.gevent

    grpc.experimental.gevent.init_gevent()
    _gevent_is_told = True
