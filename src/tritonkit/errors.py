"""The one error tree. Every failure that tritonkit foresees is one of these.

    TritonkitError                 never raised itself
    ├── InputError                 exit 2: what was given cannot be used
    │   ├── ModelError             a model file or source: missing, not ONNX, no batch axis
    │   ├── RepositoryError        a model repository: unknown model, bad config.pbtxt
    │   └── PortInUseError         a port that something else listens on
    ├── CheckFailedError           exit 1: a check was made and did not pass
    ├── SetupError                 exit 1: the embedded Triton cannot be had or run here
    ├── ServerError                exit 1: a server did not start, died, or answered nonsense
    └── RequestError               exit 1: one request failed; has a `kind`

A message is one line: the thing, what was expected, the remedy. Under load a failed request is
not an error but data: a `Sample` with the RequestError's kind.
"""

from __future__ import annotations


class TritonkitError(Exception):
    """Base of all. `exit_code` is what the command line returns for it."""

    exit_code = 1


class InputError(TritonkitError):
    """What the user gave cannot be used."""

    exit_code = 2


class ModelError(InputError):
    """A model file or model source that cannot be used."""


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
    """One request failed.

    kind: `http_<status>`, `timeout`, `refused`, `closed` or `protocol`.
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind
