"""What gRPC reports of a failed call, as one of the kit's RequestErrors.

gRPC's status code says who failed only in part: UNAVAILABLE is a port where nothing listens, a
connection that broke, and a server that has too much to do. The rest is in its words. The words
below are those of grpcio 1.85, as it used them against real sockets that misbehave.
"""

from __future__ import annotations

import re

import grpc
from grpc import StatusCode

from tritonkit.errors import RequestError, request_error

_REASON_LENGTH = 400

CLIENT_CLOSED = "the client is closed"

_KINDS = {
    StatusCode.DEADLINE_EXCEEDED: "timeout",
    StatusCode.CANCELLED: "cancelled",
    StatusCode.INVALID_ARGUMENT: "invalid",
    StatusCode.OUT_OF_RANGE: "invalid",
    StatusCode.FAILED_PRECONDITION: "invalid",
    StatusCode.ALREADY_EXISTS: "invalid",
    StatusCode.NOT_FOUND: "not_found",
    StatusCode.UNIMPLEMENTED: "unsupported",
    # A server's limit on calls or memory. Messages that are too large are told by their words;
    # a full queue of Triton is UNAVAILABLE.
    StatusCode.RESOURCE_EXHAUSTED: "unavailable",
    StatusCode.UNAUTHENTICATED: "unauthenticated",
    StatusCode.PERMISSION_DENIED: "forbidden",
    StatusCode.UNAVAILABLE: "unavailable",
}
"""Any other is "failed"."""

# Before the reason why no connection came about.
_NOT_CONNECTED = re.compile(
    r"(?:failed to connect to all addresses|connections to all backends failing)"
    r"(?:; last error: \w+: (?:\S+?:\S*\d+: )?)?"
)
_NO_SUCH_HOST = re.compile(r"errors resolving |DNS resolution failed|empty address list")

# Of a port that is not gRPC's; first match wins. Each: words, what is said before the reason.
_FOREIGN = (
    # An HTTP server that answers, or whatever sends bytes.
    (re.compile(r"Failed parsing HTTP/2"), "not gRPC; if it is Triton's HTTP port, use http://"),
    # TLS with a plain port.
    (re.compile(r"WRONG_VERSION_NUMBER"), "no TLS is spoken there; use grpc://"),
    (re.compile(r"missing selected ALPN"), "TLS, but not gRPC; if it is HTTPS, use https://"),
    (re.compile(r"CERTIFICATE_VERIFY_FAILED"),
     "its certificate is not trusted; give the authority's as tls.ca"),
    (re.compile(r"Hostname Verification|Peer name .* is not in peer"),
     "its certificate is for another name; use one that it names"),
    (re.compile(r"No status received|Data frame with END_STREAM"), "not a gRPC answer"),
)  # fmt: skip
_HTTP_STATUS = re.compile(r"Received http2 .*status\D* (\d{3})")
# 401, 403, and those that a proxy answers when its server is away: what gRPC makes of them holds.
_PROXY_CODES = (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED, StatusCode.UNAVAILABLE)

# Triton's HTTP port, and a port that wants TLS, close a gRPC connection without a word; so does a
# forwarded port (of a container, ssh, kubectl) whose server is not up yet. That last one is worth
# another try, so all of these are.
_CLOSED_AT_ONCE = re.compile(r"Socket closed|recvmsg|Endpoint closing|Connection reset|Broken pipe")
_HINT_PLAIN = "; not up yet, or Triton's HTTP port (use http://), or TLS is wanted (use grpcs://)"
_HINT_TLS = "; not up yet, or it wants a client's certificate (tls.cert), or it is no gRPC port"

# The connection was there and is lost. Only at the beginning: a model's own error may say such.
_LOST = re.compile(
    r"Stream removed|Socket closed|recvmsg|sendmsg|Connection (?:reset|timed out|dropped)|"
    r"Broken pipe|GOAWAY|Received RST_STREAM|[Kk]eepalive|ping timeout|Transport closed|"
    r"Endpoint (?:read failed|closing)|Cancelling all calls|end of TCP stream"
)
_NOT_STARTED = re.compile(r"RST_STREAM.* error code 7\b")  # HTTP/2's REFUSED_STREAM
_TOO_LARGE = re.compile(r"message larger than max")
_CLOSED_CHANNEL = re.compile(r"(?i)channel (?:is )?closed|closed channel")

# Of an API that --grpc-restricted-protocol keeps for those with a key. Over HTTP it is a 403.
_RESTRICTED = re.compile(r"This protocol is restricted")

# A stream's error has words only. Triton's own, of the checks before a model runs.
_STREAM_KINDS = (
    ("not_found", re.compile(r"Request for unknown model|Unable to find shared memory region")),
    ("unavailable", re.compile(r"(?i)exceeds maximum queue size|request timeout expired|stopping")),
    ("unsupported", re.compile(r"doesn't support|not supported")),
    ("cancelled", re.compile(r"(?i)request cancelled")),
    (
        "invalid",
        re.compile(
            r"unexpected inference |unexpected shape|expected \d+ inputs|byte size mismatch|"
            r"data-?type is|unable to find data for|failed to get model version|"
            r"batch-size must be|reserved|Invalid offset|missing required"
        ),
    ),
)


def one_line(text: str) -> str:
    """`text` without line breaks, and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _REASON_LENGTH else f"{line[: _REASON_LENGTH - 1]}…"


def failure(address: str, error: BaseException) -> RequestError:
    """What to raise for anything that grpc raised (but CancelledError) in a call to `address`."""
    if isinstance(error, grpc.RpcError) and hasattr(error, "code"):
        return status_failure(address, error.code(), error.details() or "")
    if isinstance(error, grpc.FutureCancelledError):
        return request_error("cancelled", f"{address}: the request was cancelled")
    text = str(error)
    if _CLOSED_CHANNEL.search(text):
        return request_error("closed", f"{address}: {CLIENT_CLOSED}")
    return request_error("closed", f"{address}: {type(error).__name__}: {one_line(text)}")


def status_failure(address: str, code: StatusCode, details: str) -> RequestError:
    """What to raise for a call that ended with this status."""
    secure = address.startswith("grpcs:")
    kind, reason = _classify(code, " ".join(details.split()), secure)
    return request_error(kind, f"{address}: {one_line(reason)}")


def stream_failure(address: str, text: str) -> RequestError:
    """What to raise for the error that a stream brought instead of an answer."""
    kinds = (kind for kind, words in _STREAM_KINDS if words.search(text))
    return request_error(next(kinds, "failed"), f"{address}: {one_line(text)}")


def _classify(code: StatusCode, details: str, secure: bool) -> tuple[str, str]:
    """(kind, reason)"""
    if code is StatusCode.DEADLINE_EXCEEDED:
        return "timeout", "no answer in time"
    prefix = _NOT_CONNECTED.match(details) if code is StatusCode.UNAVAILABLE else None
    reason = details[prefix.end() :] or "it cannot be reached" if prefix else details
    if prefix or _from_client(details):
        for words, meaning in _FOREIGN:
            if words.search(details):
                return "protocol", f"{meaning} ({reason})"
    if prefix:
        if _CLOSED_AT_ONCE.search(reason):
            reason = f"closed as soon as connected ({reason})"
            reason += _HINT_TLS if secure else _HINT_PLAIN
        return "refused", reason
    if code is StatusCode.UNAVAILABLE and _NO_SUCH_HOST.match(details):
        return "refused", f"its name does not resolve ({details.rpartition(': ')[2].strip('] ')})"
    if code is StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE.search(details):
        return "too_large", f"{details}; use shared memory, or a smaller batch"
    if _NOT_STARTED.search(details) and _from_client(details):
        return "unavailable", f"the server took no more requests ({details})"
    if _LOST.match(details):
        return "closed", f"connection lost ({details})"
    if code is StatusCode.CANCELLED and _CLOSED_CHANNEL.search(details):
        return "closed", CLIENT_CLOSED
    status = _HTTP_STATUS.match(details)
    if _RESTRICTED.match(details):
        return "forbidden", details
    if status and code not in _PROXY_CODES:
        return "protocol", f"HTTP status {status[1]}, not gRPC"
    if code is StatusCode.CANCELLED:
        return "cancelled", "the request was cancelled"
    return _KINDS.get(code, "failed"), details or f"status {code.name}, without a reason"


def _from_client(details: str) -> bool:
    """Whether these are gRPC's own words about the connection, and not a server's."""
    return details.startswith(("Stream removed", "No status received"))
