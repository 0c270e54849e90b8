"""Take a model to NVIDIA Triton with batching that a measurement has earned."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tritonkit.client.async_client import AsyncClient
    from tritonkit.client.client import Client
    from tritonkit.client.inference import SequencePart
    from tritonkit.client.retry import NO_RETRIES, Retries
    from tritonkit.client.transport import Tls

__all__ = ["NO_RETRIES", "AsyncClient", "Client", "Retries", "SequencePart", "Tls"]

# ONNX Runtime reports usage to its maker unless told not to, and a server of other people's
# models must not. It reads this when it is imported, also in the processes that the kit starts.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "AsyncClient": "async_client",
    "Client": "client",
    "NO_RETRIES": "retry",
    "Retries": "retry",
    "SequencePart": "inference",
    "Tls": "transport",
}


def __getattr__(name: str) -> object:
    """The names above, imported when they are first used: the command line starts without numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"tritonkit.client.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
