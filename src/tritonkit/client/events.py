"""What a client tells about its requests and servers while it works, and how it tells it.

A hook is any callable that takes an event. It is called in the thread, greenlet or task that
made the request, between the answer and the caller, so it should be quick.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

_log = logging.getLogger("tritonkit.client")


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request was answered or failed for good.

    version: as asked for, empty for the server's choice. address: of the last server tried.
    tries: how often it was sent; 0, and 0 rows, if already the model's metadata were not to be had.
    latency_s: from the call to the answer, all tries and waits included. error:
    the RequestError's kind, empty if it was answered.
    """

    model: str
    version: str
    address: str
    rows: int
    tries: int
    latency_s: float
    error: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class RequestRetried:
    """A try failed and another will follow. tried: how many have failed. wait_s: before the next.

    address: of the server that failed. error: the RequestError's kind.
    """

    model: str
    address: str
    tried: int
    wait_s: float
    error: str


@dataclass(frozen=True, slots=True)
class ServerRested:
    """A server failed (error: the RequestError's kind) and gets no requests for `for_s`."""

    address: str
    for_s: float
    error: str


@dataclass(frozen=True, slots=True)
class ServerBack:
    """A server that was rested gets requests again."""

    address: str


Event = RequestEnded | RequestRetried | ServerRested | ServerBack


class Hook(Protocol):
    """Whatever wants to know. What it raises is logged once, and never reaches a request."""

    def __call__(self, event: Event, /) -> object: ...


def emit(hooks: Iterable[Hook], event: Event) -> None:
    """Tell every hook."""
    for hook in hooks:
        try:
            hook(event)
        except Exception:
            if _first_failure(hook):
                _log.exception("hook %r failed; its further failures are not logged", hook)


# By identity, since a hook need not be hashable.
_failed: dict[int, Any] = {}


def _first_failure(hook: Hook) -> bool:
    key = id(hook)
    if key in _failed:
        return False
    try:
        _failed[key] = weakref.ref(hook, lambda _: _failed.pop(key, None))
    except TypeError:
        _failed[key] = hook  # kept, so that no later hook gets its id
    return True
