"""One HTTP/1.1 connection that is kept alive, on a socket of the standard library.

So threads may use it, and greenlets where gevent has patched the process. Answers are parsed by
llhttp, as geventhttpclient wraps it.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from geventhttpclient.response import HTTPParseError, HTTPResponseParser

from tritonkit.client.address import Address
from tritonkit.client.transport import Region, Tls
from tritonkit.errors import InputError

_HEAD_LIMIT_BYTES = 64 * 1024
_BLOCK_BYTES = 64 * 1024
# An announced length up to which memory for the whole body is set aside at once.
_WHOLE_BODY_BYTES = 1 << 31
_JOIN_BYTES = 16 * 1024

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS = {
    *("accept-encoding", "connection", "content-encoding", "content-length", "expect"),
    *("inference-header-content-length", "transfer-encoding", "upgrade"),
}


class NotHttpError(Exception):
    """What came is no HTTP. The message says what it is, as far as one can tell."""


class HttpAnswer(NamedTuple):
    """An answer. headers: names in lower case. regions: those that outputs were asked to go to."""

    status: int
    headers: Mapping[str, str]
    body: bytes | bytearray
    regions: Mapping[str, Region] = {}


class _Parser(HTTPResponseParser):  # type: ignore[misc]
    """llhttp, and what it has found: it calls the methods that begin with `_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.expect()

    def expect(self) -> None:
        """Forget the last answer."""
        self.headers: dict[str, str] = {}
        self.chunks: list[bytearray] = []
        self.head_complete = self.complete = False
        self._name, self._in_value = "", True

    def _on_status(self, reason: str) -> None:
        pass

    def _on_message_begin(self) -> None:
        if self.complete:
            raise HTTPParseError("an answer that nobody asked for")

    def _on_header_field(self, text: str) -> None:
        # Names and values come in pieces where the bytes did.
        self._name = text if self._in_value else self._name + text
        self._in_value = False

    def _on_header_value(self, text: str) -> None:
        name = self._name.lower()
        self.headers[name] = self.headers[name] + text if self._in_value else text
        self._in_value = True

    def _on_headers_complete(self) -> bool:
        self.head_complete = self.get_code() >= 200
        return False

    def _on_body(self, chunk: bytearray) -> None:
        self.chunks.append(chunk)

    def _on_message_complete(self) -> None:
        if self.head_complete:
            self.complete = True
        else:  # an interim answer; the real one follows
            self.expect()

    def missing_bytes(self) -> int:
        """How much of the body has yet to come; 0 if its length is not known, or not credible."""
        if not self.head_complete or self.complete or "transfer-encoding" in self.headers:
            return 0
        length = int(self.headers.get("content-length", 0))
        return length - sum(map(len, self.chunks)) if length <= _WHOLE_BODY_BYTES else 0


class HttpConnection:
    """A connection to `address`. Not to be used by two threads or greenlets at once.

    tls: a context if TLS is to be spoken. Deadlines are `time.perf_counter()`; None is never.
    What fails raises OSError (TimeoutError at the deadline) or NotHttpError, and leaves the
    connection to be closed. Looking up the host's name has no deadline.

    After an exchange: `reusable`, whether another may follow; `heard`, whether any byte came.
    """

    def __init__(self, address: Address, *, tls: ssl.SSLContext | None = None):
        self._address = address
        self._tls = tls
        self._socket: socket.socket | None = None
        self._parser = _Parser()
        self._aborted = False
        self.reusable = False
        self.heard = False

    @property
    def is_open(self) -> bool:
        """Whether it was connected and is not closed."""
        return self._socket is not None

    def connect(self, deadline: float | None) -> None:
        """Connect, and agree on TLS; to each address of the host until one answers."""
        host, port = self._address.host, self._address.port
        failure: OSError | None = None
        for family, kind, protocol, _, where in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            self._socket = socket.socket(family, kind, protocol)
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._allow_until(deadline)
                self._socket.connect(where)
                if self._tls is not None:
                    self._agree_on_tls(self._tls, deadline)
                return
            except (TimeoutError, ssl.SSLError):
                self.close()
                raise
            except OSError as error:
                self.close()
                failure = error
        raise failure or OSError(f"{host} has no address")

    def _agree_on_tls(self, context: ssl.SSLContext, deadline: float | None) -> None:
        assert self._socket is not None
        host = self._address.host
        wrapped = context.wrap_socket(
            self._socket, server_hostname=host, do_handshake_on_connect=False
        )
        self._socket = wrapped
        self._allow_until(deadline)
        wrapped.do_handshake()

    def is_idle(self) -> bool:
        """Whether the server has neither closed nor said anything since the last answer."""
        if self._socket is None:
            return False
        try:
            self._socket.settimeout(0)
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def exchange(self, parts: Sequence[bytes | memoryview], deadline: float | None) -> HttpAnswer:
        """Send a request, head and body in any number of parts, and receive its answer."""
        self.reusable = self.heard = False
        self._parser.expect()
        try:
            self._send(parts, deadline)
        except TimeoutError:
            raise
        except OSError as error:
            # A server that refuses a request while it is being sent has said why.
            try:
                return self._receive(deadline)
            except (OSError, NotHttpError) as later:
                raise (later if isinstance(later, ssl.SSLError) else error) from None
            finally:
                self.reusable = False
        return self._receive(deadline)

    def abort(self) -> None:
        """End what another thread is doing with this connection: it gets an OSError."""
        self._aborted = True
        connected = self._socket
        if connected is not None:
            with suppress(OSError):
                # Not SSLSocket's shutdown: it would have the other thread go on in plain text.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.reusable = False

    def _allow_until(self, deadline: float | None) -> None:
        """Let the next call on the socket take what is left until the deadline."""
        assert self._socket is not None
        if self._aborted:
            raise ConnectionAbortedError("aborted")
        if deadline is None:
            self._socket.settimeout(None)
            return
        left_s = deadline - time.perf_counter()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)

    def _send(self, parts: Sequence[bytes | memoryview], deadline: float | None) -> None:
        assert self._socket is not None
        sent = 0
        if self._tls is not None:  # sendmsg is not for TLS; a record for each part would be waste
            if sum(map(len, parts)) <= _JOIN_BYTES:
                parts = (b"".join(parts),)
        else:
            self._allow_until(deadline)
            sent = self._socket.sendmsg(parts)
        for part in parts:
            if sent >= len(part):
                sent -= len(part)
                continue
            rest, sent = memoryview(part)[sent:], 0
            while rest:
                self._allow_until(deadline)
                rest = rest[self._socket.send(rest) :]

    def _receive(self, deadline: float | None) -> HttpAnswer:
        assert self._socket is not None
        parser, head_bytes = self._parser, 0
        while not parser.complete:
            self._allow_until(deadline)
            data = self._socket.recv(_BLOCK_BYTES)
            self.heard = self.heard or bool(data)
            try:
                parser.feed(data)  # no bytes: the end, which may complete an answer too
            except HTTPParseError as error:
                if data and not parser.complete:
                    raise NotHttpError(_what_is(data, error)) from error
            if not data and not parser.complete:
                raise ConnectionResetError("the server closed it")
            if not parser.head_complete:
                head_bytes += len(data)
                if head_bytes > _HEAD_LIMIT_BYTES:
                    raise NotHttpError(f"headers of more than {_HEAD_LIMIT_BYTES} bytes")
            missing = parser.missing_bytes()
            if missing > _BLOCK_BYTES:
                return self._receive_large(missing, deadline)
        self.reusable = parser.should_keep_alive() and not parser.parser_failed() and bool(data)
        chunks = parser.chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return HttpAnswer(parser.get_code(), parser.headers, body)

    def _receive_large(self, missing: int, deadline: float | None) -> HttpAnswer:
        """The rest of a long body goes straight into place, past the parser and its copies."""
        assert self._socket is not None
        parser, self._parser = self._parser, _Parser()
        begun = b"".join(parser.chunks)
        body = bytearray(len(begun) + missing)
        body[: len(begun)] = begun
        rest = memoryview(body)[len(begun) :]
        while rest:
            self._allow_until(deadline)
            received = self._socket.recv_into(rest)
            if not received:
                raise ConnectionResetError("the server closed it")
            rest = rest[received:]
        self.reusable = parser.should_keep_alive()
        return HttpAnswer(parser.get_code(), parser.headers, body)


def request_head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """A request's head without its end. `path` is quoted, `headers` are of the client's making."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n").encode("ascii")


def header_lines(headers: Mapping[str, str], host: str) -> bytes:
    """The end of a head: a user's headers, and Host if it is not among them."""
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    if "host" not in map(str.lower, headers):
        lines.append(f"Host: {host}\r\n")
    return ("".join(lines) + "\r\n").encode("latin-1")


def check_headers(headers: Mapping[str, str]) -> None:
    """InputError for headers that HTTP cannot carry, or that the client sets itself."""
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InputError(f"{name!r} is not the name of an HTTP header")
        if name.lower() in _OWN_HEADERS:
            raise InputError(f"the header '{name}' is set by the client itself; leave it out")
        if not isinstance(value, str) or not value.isprintable() or not _is_latin1(value):
            raise InputError(f"the header '{name}' has a value that is not plain text of one line")


def _is_latin1(text: str) -> bool:
    return all(ord(letter) < 256 for letter in text)


def tls_context(address: Address, tls: Tls | None) -> ssl.SSLContext | None:
    """What TLS needs, or None for a plain address. InputError for files that cannot be used."""
    if not address.secure:
        if tls is not None:
            raise InputError(f"{address} does not use TLS; use https:// with certificates")
        return None
    tls = tls or Tls()
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if tls.ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_verify_locations(tls.ca)
        except ssl.SSLError as error:
            raise InputError(f"{tls.ca} has no certificates; give a PEM file") from error
        except OSError as error:
            raise InputError(f"{tls.ca} cannot be read ({error.strerror})") from error
    if (tls.cert is None) != (tls.key is None):
        raise InputError("a client's certificate needs its key, and a key its certificate")
    if tls.cert is not None and tls.key is not None:
        for file in (tls.cert, tls.key):
            try:
                file.open("rb").close()
            except OSError as error:
                raise InputError(f"{file} cannot be read ({error.strerror})") from error
        try:
            # The password keeps OpenSSL from asking for one at the terminal.
            context.load_cert_chain(tls.cert, tls.key, password="")
        except (ssl.SSLError, OSError) as error:
            raise InputError(
                f"{tls.cert} and {tls.key} are not a certificate and its key in PEM without a "
                "password"
            ) from error
    return context


def _what_is(data: bytes, error: HTTPParseError) -> str:
    if data[3:4] == b"\x04" and data[:2] == b"\0\0":  # the SETTINGS that open HTTP/2
        return "it speaks gRPC; use grpc://"
    if data[:2] in (b"\x15\x03", b"\x16\x03"):
        return "it speaks TLS; use https://"
    return f"not HTTP ({error.args[0] if error.args else error}); is this Triton's HTTP port?"
