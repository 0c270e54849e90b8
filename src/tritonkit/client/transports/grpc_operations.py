"""Every operation but inference as a gRPC call; the answers in the form of Triton's HTTP JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tritonclient.grpc import service_pb2 as pb

from tritonkit.client.operations import Operation
from tritonkit.client.transports.grpc_codec import parse
from tritonkit.errors import NotFoundError, RequestError, UnavailableError, request_error
from tritonkit.repository.message import as_dict

SERVICE = "/inference.GRPCInferenceService/"

Arguments = Mapping[str, Any]

# Asked whether they are ready, servers may also answer with an error: one that is being shut down
# (unavailable), and other servers than Triton for a model that they do not have.
_READINESS = (Operation.LIVE, Operation.READY, Operation.MODEL_READY)


def encode_call(operation: Operation, arguments: Arguments, address: str) -> bytes:
    """The request's message. RejectedError if a value does not fit into it."""
    try:
        return bytes(_CALLS[operation].request(arguments).SerializeToString())
    except (TypeError, ValueError) as error:
        raise request_error("invalid", f"{address}: cannot be sent: {error}") from error


def decode_call(operation: Operation, data: bytes | None, address: str) -> Any:
    """The answer, as `operations` documents it. ProtocolError if it is none."""
    call = _CALLS[operation]
    return call.answer(parse(call.response, data, address))


def method(operation: Operation) -> str:
    """The full name of the operation's method."""
    return SERVICE + _CALLS[operation].method


def says_not_ready(operation: Operation, error: RequestError) -> bool:
    """Whether the server answered, by this error, that it or the model is not ready."""
    if operation is Operation.MODEL_READY and isinstance(error, NotFoundError):
        return True
    said = isinstance(error, UnavailableError) and error.kind == "unavailable"
    return said and operation in _READINESS


class _Call(NamedTuple):
    method: str
    request: Callable[[Arguments], Any]
    response: Any
    answer: Callable[[Any], Any]


def _nothing(_: Any) -> None:
    return None


def _named(kind: Any) -> Callable[[Arguments], Any]:
    return lambda a: kind(name=a.get("model", ""), version=a.get("version", ""))


def _load(arguments: Arguments) -> Any:
    request = pb.RepositoryModelLoadRequest(model_name=arguments["model"])
    if arguments.get("config") is not None:
        request.parameters["config"].string_param = arguments["config"]
    for path, content in (arguments.get("files") or {}).items():
        request.parameters[f"file:{path}"].bytes_param = bytes(content)
    return request


def _unload(arguments: Arguments) -> Any:
    request = pb.RepositoryModelUnloadRequest(model_name=arguments["model"])
    dependents = bool(arguments.get("unload_dependents"))
    request.parameters["unload_dependents"].bool_param = dependents
    return request


def _trace(arguments: Arguments) -> Any:
    request = pb.TraceSettingRequest(model_name=arguments.get("model", ""))
    for name, value in (arguments.get("settings") or {}).items():
        values = value if isinstance(value, list | tuple) else [value]
        # None: an entry without a value, which resets it.
        request.settings[name].value.extend(str(v) for v in values if v is not None)
    return request


def _read_trace(message: Any) -> dict[str, str | list[str]]:
    settings = {name: list(message.settings[name].value) for name in sorted(message.settings)}
    return {
        name: values if name == "trace_level" or len(values) != 1 else values[0]
        for name, values in settings.items()
    }


def _log(arguments: Arguments) -> Any:
    request = pb.LogSettingsRequest()
    for name, value in (arguments.get("settings") or {}).items():
        if isinstance(value, bool):
            request.settings[name].bool_param = value
        elif isinstance(value, int):
            request.settings[name].uint32_param = value
        else:
            request.settings[name].string_param = value
    return request


def _read_log(message: Any) -> dict[str, Any]:
    read = {}
    for name in sorted(message.settings):
        chosen = message.settings[name].WhichOneof("parameter_choice")
        if chosen is not None:
            read[name] = getattr(message.settings[name], chosen)
    return read


def _register(arguments: Arguments) -> Any:
    fields = ("name", "key", "byte_size", "offset")
    return pb.SystemSharedMemoryRegisterRequest(**{f: arguments[f] for f in fields})


def _regions(message: Any) -> list[dict[str, Any]]:
    return [as_dict(message.regions[name]) for name in sorted(message.regions)]


_CALLS: dict[Operation, _Call] = {
    Operation.LIVE: _Call(
        "ServerLive", lambda _: pb.ServerLiveRequest(), pb.ServerLiveResponse, lambda m: m.live
    ),
    Operation.READY: _Call(
        "ServerReady", lambda _: pb.ServerReadyRequest(), pb.ServerReadyResponse, lambda m: m.ready
    ),
    Operation.MODEL_READY: _Call(
        "ModelReady", _named(pb.ModelReadyRequest), pb.ModelReadyResponse, lambda m: m.ready
    ),
    Operation.SERVER: _Call(
        "ServerMetadata", lambda _: pb.ServerMetadataRequest(), pb.ServerMetadataResponse, as_dict
    ),
    Operation.METADATA: _Call(
        "ModelMetadata", _named(pb.ModelMetadataRequest), pb.ModelMetadataResponse, as_dict
    ),
    Operation.CONFIG: _Call(
        "ModelConfig",
        _named(pb.ModelConfigRequest),
        pb.ModelConfigResponse,
        lambda m: as_dict(m.config),
    ),
    Operation.STATISTICS: _Call(
        "ModelStatistics", _named(pb.ModelStatisticsRequest), pb.ModelStatisticsResponse, as_dict
    ),
    Operation.INDEX: _Call(
        "RepositoryIndex",
        lambda a: pb.RepositoryIndexRequest(ready=bool(a.get("ready"))),
        pb.RepositoryIndexResponse,
        lambda m: as_dict(m)["models"],
    ),
    Operation.LOAD: _Call("RepositoryModelLoad", _load, pb.RepositoryModelLoadResponse, _nothing),
    Operation.UNLOAD: _Call(
        "RepositoryModelUnload", _unload, pb.RepositoryModelUnloadResponse, _nothing
    ),
    Operation.TRACE: _Call("TraceSetting", _trace, pb.TraceSettingResponse, _read_trace),
    Operation.LOG: _Call("LogSettings", _log, pb.LogSettingsResponse, _read_log),
    Operation.REGIONS: _Call(
        "SystemSharedMemoryStatus",
        lambda _: pb.SystemSharedMemoryStatusRequest(),
        pb.SystemSharedMemoryStatusResponse,
        _regions,
    ),
    Operation.REGISTER: _Call(
        "SystemSharedMemoryRegister", _register, pb.SystemSharedMemoryRegisterResponse, _nothing
    ),
    Operation.UNREGISTER: _Call(
        "SystemSharedMemoryUnregister",
        lambda a: pb.SystemSharedMemoryUnregisterRequest(name=a["name"]),
        pb.SystemSharedMemoryUnregisterResponse,
        _nothing,
    ),
}
