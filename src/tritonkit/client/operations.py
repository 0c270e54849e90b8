"""What a client asks of a server besides inference: one list, the same over HTTP and gRPC.

Answers have the form of Triton's HTTP JSON, whichever protocol carried them: whole numbers are
ints, names are in snake_case. `live` and `ready` answer True or False.

| operation | arguments | answer |
|---|---|---|
| LIVE, READY | | bool |
| MODEL_READY | model, version | bool |
| SERVER | | `{"name", "version", "extensions": [str]}` |
| METADATA | model, version | `{"name", "versions", "platform", "inputs": [{"name", "datatype", "shape"}], "outputs"}` |
| CONFIG | model, version | the ModelConfig |
| STATISTICS | model (empty: all), version | `{"model_stats": […]}` |
| INDEX | ready: bool (only those) | `[{"name", "version", "state", "reason"}]` |
| LOAD | model, config: JSON text or None, files: {path: bytes} | None |
| UNLOAD | model, unload_dependents: bool | None |
| TRACE | model (empty: the server's), settings: {name: value, [values], or None to reset}; empty only reads | `{name: str or [str]}` |
| LOG | settings: {name: value}; empty only reads | `{name: value}` |
| REGIONS | | `[{"name", "key", "offset", "byte_size"}]` |
| REGISTER | name, key, byte_size, offset | None |
| UNREGISTER | name | None |

Absent keys of an answer that are empty strings, empty lists or zeros in the one protocol are
present in both.
"""  # noqa: E501

from __future__ import annotations

from enum import Enum


class Operation(Enum):
    """One of the operations above."""

    LIVE = "live"
    READY = "ready"
    MODEL_READY = "model_ready"
    SERVER = "server"
    METADATA = "metadata"
    CONFIG = "config"
    STATISTICS = "statistics"
    INDEX = "index"
    LOAD = "load"
    UNLOAD = "unload"
    TRACE = "trace"
    LOG = "log"
    REGIONS = "regions"
    REGISTER = "register"
    UNREGISTER = "unregister"
