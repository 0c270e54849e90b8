"""The one error tree. Every failure that tritonkit foresees is one of these.

    TritonkitError                 never raised itself
    ├── InputError                 exit 2: what was given cannot be used
    │   ├── ModelError             a model file or source: missing, not ONNX, no batch axis
    │   ├── TensorError            an input that the model cannot take: name, dtype, shape, rows
    │   ├── RepositoryError        a model repository: unknown model, bad config.pbtxt
    │   └── PortInUseError         a port that something else listens on
    ├── CheckFailedError           exit 1: a check was made and did not pass
    ├── SetupError                 exit 1: the embedded Triton cannot be had or run here
    ├── ServerError                exit 1: a server did not start, died, or answered nonsense
    └── RequestError               exit 1: one request failed; has a `kind`
        ├── UnavailableError       refused, closed, unavailable: another try may succeed
        ├── DeadlineError          timeout: no answer within the deadline
        ├── RejectedError          invalid, too_large, unsupported: the server will not take it
        ├── NotFoundError          not_found: the server has no such model, version or region
        ├── AccessError            unauthenticated, forbidden
        ├── ServerFaultError       failed: the server or the model failed while it ran
        ├── RequestCancelledError  cancelled: by the caller
        └── ProtocolError          protocol: what answers does not speak KServe v2

A message is one line: the thing, what was expected, the remedy. Under load a failed request is
not an error but data: a `Sample` with the RequestError's kind.
"""

from __future__ import annotations

from typing import ClassVar


class TritonkitError(Exception):
    """Base of all. `exit_code` is what the command line returns for it."""

    exit_code = 1


class InputError(TritonkitError):
    """What the user gave cannot be used."""

    exit_code = 2


class ModelError(InputError):
    """A model file or model source that cannot be used."""


class TensorError(InputError):
    """An input that the model cannot take; the message says what it expects."""


class RepositoryError(InputError):
    """A model repository, or an entry of it, that cannot be used."""


class PortInUseError(InputError):
    """A port that was asked for is taken."""


class CheckFailedError(TritonkitError):
    """A check was made and did not pass."""


class SetupError(TritonkitError):
    """The embedded Triton cannot be fetched, or cannot run on this machine."""


class ServerError(TritonkitError):
    """A server did not start, died, or answered something that no server should."""


class RequestError(TritonkitError):
    """One request failed. `request_error()` makes the subclass that a kind belongs to."""

    kinds: ClassVar[tuple[str, ...]] = ()

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.kind, str(self))  # so that it comes back from another process


class UnavailableError(RequestError):
    """The server cannot be reached, ended the connection, or does not take requests now.

    refused: nothing was sent. unavailable: the server said so, and ran nothing (queue full, model
    not ready, shutting down). closed: the connection was lost, and the request may have run.
    """

    kinds = ("refused", "closed", "unavailable")


class DeadlineError(RequestError):
    """No answer within the deadline. The request may have run, or may still run."""

    kinds = ("timeout",)


class RejectedError(RequestError):
    """The server will not take this request, today or tomorrow."""

    kinds = ("invalid", "too_large", "unsupported")


class NotFoundError(RequestError):
    """The server has no such model, version, or shared memory region."""

    kinds = ("not_found",)


class AccessError(RequestError):
    """The server, or what stands in front of it, wants other credentials."""

    kinds = ("unauthenticated", "forbidden")


class ServerFaultError(RequestError):
    """The server took the request, and it or the model failed."""

    kinds = ("failed",)


class RequestCancelledError(RequestError):
    """The caller gave the request up."""

    kinds = ("cancelled",)


class ProtocolError(RequestError):
    """What answered does not speak KServe v2; perhaps it is no Triton, or another of its ports."""

    kinds = ("protocol",)


_BY_KIND: dict[str, type[RequestError]] = {
    kind: error
    for error in (
        *(UnavailableError, DeadlineError, RejectedError, NotFoundError, AccessError),
        *(ServerFaultError, RequestCancelledError, ProtocolError),
    )
    for kind in error.kinds
}


def request_error(kind: str, message: str) -> RequestError:
    """The RequestError for `kind`, of the subclass that has it among its `kinds`."""
    return _BY_KIND[kind](kind, message)


def describe(error: BaseException) -> str:
    """An exception on one line: its type and the first line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
