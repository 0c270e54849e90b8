"""The operations that are not inference, over HTTP: one table of what is asked, one of answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from tritonkit.client.operations import Operation
from tritonkit.client.transports.connection import HttpAnswer
from tritonkit.client.transports.http_codec import (
    HINT,
    HttpRequest,
    check_status,
    model_path,
    quote_name,
)
from tritonkit.errors import request_error

_Arguments = Mapping[str, Any]
_Ask = tuple[str, str, Any]
"""method, path, and what the body is to say in JSON (None: no body)."""

_HEALTH = (Operation.LIVE, Operation.READY, Operation.MODEL_READY)


def _model(arguments: _Arguments) -> str:
    return model_path(arguments["model"], arguments.get("version", ""))


def _statistics(arguments: _Arguments) -> _Ask:
    return (
        "GET",
        f"{_model(arguments)}/stats" if arguments.get("model") else "/v2/models/stats",
        None,
    )


def _load(arguments: _Arguments) -> _Ask:
    parameters: dict[str, str] = {}
    if arguments.get("config") is not None:
        parameters["config"] = arguments["config"]
    for path, content in (arguments.get("files") or {}).items():
        parameters[f"file:{path}"] = base64.b64encode(content).decode("ascii")
    body = {"parameters": parameters} if parameters else {}
    return "POST", f"/v2/repository/models/{quote_name(arguments['model'])}/load", body


def _unload(arguments: _Arguments) -> _Ask:
    body = {"parameters": {"unload_dependents": bool(arguments.get("unload_dependents", False))}}
    return "POST", f"/v2/repository/models/{quote_name(arguments['model'])}/unload", body


def _trace(arguments: _Arguments) -> _Ask:
    model = arguments.get("model", "")
    path = f"{model_path(model)}/trace/setting" if model else "/v2/trace/setting"
    settings = arguments.get("settings") or {}
    if not settings:
        return "GET", path, None
    return "POST", path, {name: _trace_value(value) for name, value in settings.items()}


def _trace_value(value: Any) -> Any:
    """Triton takes trace settings as texts only, numbers too."""
    if value is None:
        return None
    return [str(v) for v in value] if isinstance(value, list | tuple) else str(value)


def _log(arguments: _Arguments) -> _Ask:
    settings = arguments.get("settings") or {}
    return ("POST", "/v2/logging", dict(settings)) if settings else ("GET", "/v2/logging", None)


def _register(arguments: _Arguments) -> _Ask:
    name = arguments["name"]
    if not name or quote_name(name) != name:
        # Triton would know it by its quoted name, and inference by its plain one.
        raise request_error(
            "invalid", f"'{name}' cannot name a region over HTTP; use letters, digits, '-' and '_'"
        )
    body = {key: arguments[key] for key in ("key", "byte_size")}
    body["offset"] = arguments.get("offset", 0)
    return "POST", f"{_REGIONS}/region/{name}/register", body


def _unregister(arguments: _Arguments) -> _Ask:
    name = arguments.get("name", "")
    path = f"{_REGIONS}/region/{quote_name(name)}" if name else _REGIONS
    return "POST", f"{path}/unregister", {}


_REGIONS = "/v2/systemsharedmemory"

_ASKED: Mapping[Operation, Callable[[_Arguments], _Ask]] = {
    Operation.LIVE: lambda _: ("GET", "/v2/health/live", None),
    Operation.READY: lambda _: ("GET", "/v2/health/ready", None),
    Operation.MODEL_READY: lambda a: ("GET", f"{_model(a)}/ready", None),
    Operation.SERVER: lambda _: ("GET", "/v2", None),
    Operation.METADATA: lambda a: ("GET", _model(a), None),
    Operation.CONFIG: lambda a: ("GET", f"{_model(a)}/config", None),
    Operation.STATISTICS: _statistics,
    Operation.INDEX: lambda a: (
        *("POST", "/v2/repository/index"),
        {"ready": bool(a.get("ready", False))},
    ),
    Operation.LOAD: _load,
    Operation.UNLOAD: _unload,
    Operation.TRACE: _trace,
    Operation.LOG: _log,
    Operation.REGIONS: lambda _: ("GET", f"{_REGIONS}/status", None),
    Operation.REGISTER: _register,
    Operation.UNREGISTER: _unregister,
}


def _with(defaults: Mapping[str, Any], *needed: str) -> Callable[[Any], dict[str, Any]]:
    """Reads an object: `needed` must be texts in it, `defaults` are of the types they show."""

    def read(given: Any) -> dict[str, Any]:
        found: dict[str, Any] = {name: given[name] for name in needed} | dict(defaults) | given
        for name, value in (dict.fromkeys(needed, "") | dict(defaults)).items():
            if type(found[name]) is not type(value):
                raise ValueError(f"'{name}' is {found[name]!r}")
        return found

    return read


def _all(read: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def read_all(given: Any) -> list[Any]:
        if not isinstance(given, list):
            raise ValueError("no list")
        return [read(entry) for entry in given]

    return read_all


_object = _with({})
_tensors = _all(_with({"shape": []}, "name", "datatype"))


def _metadata(given: Any) -> dict[str, Any]:
    found = _with({"versions": [], "platform": ""}, "name")(given)
    return found | {side: _tensors(given[side]) for side in ("inputs", "outputs")}


_model_statistics = _with(
    {
        **{"version": "", "last_inference": 0, "inference_count": 0, "execution_count": 0},
        **{"inference_stats": {}, "response_stats": {}, "batch_stats": [], "memory_usage": []},
    },
    "name",
)

_ANSWERED: Mapping[Operation, Callable[[Any], Any]] = {
    Operation.SERVER: _with({"version": "", "extensions": []}, "name"),
    Operation.METADATA: _metadata,
    Operation.CONFIG: _object,
    Operation.STATISTICS: lambda given: {
        "model_stats": _all(_model_statistics)(given["model_stats"])
    },
    Operation.INDEX: _all(_with({"version": "", "state": "", "reason": ""}, "name")),
    Operation.TRACE: _object,
    Operation.LOG: _object,
    Operation.REGIONS: _all(_with({"offset": 0, "byte_size": 0}, "name", "key")),
}
"""Those without an entry answer nothing."""


def encode_operation(operation: Operation, arguments: _Arguments) -> HttpRequest:
    """The request for an operation. RejectedError for arguments that HTTP cannot carry."""
    method, path, asked = _ASKED[operation](arguments)
    if asked is None:
        return HttpRequest(method, path, {}, (), True)
    try:
        body = json.dumps(asked).encode()
    except (TypeError, ValueError) as error:
        raise request_error("invalid", f"{operation.value}: JSON cannot hold {error}") from error
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return HttpRequest(method, path, headers, (body,), operation is Operation.INDEX)


def decode_operation(where: str, operation: Operation, answer: HttpAnswer) -> Any:
    """What an operation answers; see `operations`. RequestError if the server refuses it."""
    if operation in _HEALTH:
        # Triton's own is 400, for a model that it has never heard of too.
        unready = (400, 404, 503) if operation is Operation.MODEL_READY else (400, 503)
        if answer.status in unready:
            return False
        check_status(where, answer)
        return True
    check_status(where, answer)
    read = _ANSWERED.get(operation)
    if read is None:
        return None
    try:
        return read(json.loads(answer.body))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise request_error("protocol", f"{where}: not a KServe v2 answer; {HINT}") from error
