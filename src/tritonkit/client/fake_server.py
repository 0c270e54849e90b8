"""What a FakeTransport pretends to talk to: the state and the operations of a Triton."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from tritonkit.client.fake_model import FakeModel
from tritonkit.client.operations import Operation
from tritonkit.client.transport import InferRequest, InferResponse
from tritonkit.errors import InputError, RequestError, request_error

_EXTENSIONS = (
    *("classification", "model_repository", "model_configuration", "binary_tensor_data"),
    *("parameters", "statistics", "trace", "logging"),
)
_LOG_SETTINGS = {
    **{"log_file": "", "log_info": True, "log_warning": True, "log_error": True},
    **{"log_verbose_level": 0, "log_format": "default"},
}
_TRACE_SETTINGS = {
    **{"trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0"},
    **{"trace_file": "", "trace_mode": "triton"},
}


@dataclass
class _Count:
    """Triton's pair of how often and how long."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns


@dataclass
class _Served:
    """A model as it is loaded."""

    model: FakeModel
    ready: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)
    last_inference_ms: int = 0
    inferences: int = 0
    success: _Count = field(default_factory=_Count)
    fail: _Count = field(default_factory=_Count)
    batches: dict[int, _Count] = field(default_factory=dict)

    def count(self, rows: int, ns: int, *, failed: bool) -> None:
        if failed:
            self.fail.add(ns)
            return
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.inferences += rows
        self.success.add(ns)
        self.batches.setdefault(rows, _Count()).add(ns)

    def statistics(self, name: str) -> dict[str, Any]:
        none = {"count": 0, "ns": 0}
        counts = {"success": vars(self.success).copy(), "fail": vars(self.fail).copy()}
        for phase in ("queue", "compute_input", "compute_output", "cache_hit", "cache_miss"):
            counts[phase] = dict(none)
        batches = [
            {
                **{"batch_size": rows, "compute_input": dict(none)},
                **{"compute_infer": vars(spent).copy(), "compute_output": dict(none)},
            }
            for rows, spent in sorted(self.batches.items())
        ]
        return {
            **{"name": name, "version": self.model.version},
            **{"last_inference": self.last_inference_ms, "inference_count": self.inferences},
            "execution_count": self.success.count,
            "inference_stats": counts | {"compute_infer": vars(self.success).copy()},
            **{"response_stats": {}, "batch_stats": batches, "memory_usage": []},
        }


class FakeServer:
    """Models, and whether they are loaded. live, ready: what it says of itself."""

    def __init__(self, models: Mapping[str, FakeModel], address: str):
        self.live = self.ready = True
        self._address = address
        self._lock = threading.Lock()
        self._served = {name: _Served(model) for name, model in models.items()}
        self._failures: dict[Operation | None, list[str]] = {}
        self._log: dict[str, Any] = dict(_LOG_SETTINGS)
        self._traces: dict[str, dict[str, Any]] = {}

    def fail_next(self, kind: str, times: int = 1, *, operation: Operation | None = None) -> None:
        """Fail the next `times` inference requests, or calls of `operation`, with this kind of
        RequestError. InputError if there is no such kind.
        """
        try:
            request_error(kind, "")
        except KeyError as error:
            raise InputError(f"'{kind}' is no kind of RequestError; see errors.py") from error
        with self._lock:
            self._failures.setdefault(operation, []).extend([kind] * times)

    def run(self, request: InferRequest) -> InferResponse:
        """Answer an inference request at once."""
        self._fail(None)
        served = self._find(request.model, request.version)
        if served.model.decoupled:
            raise request_error(
                "unsupported",
                "ModelInfer RPC doesn't support models with decoupled transaction policy",
            )
        arrays = served.model.decode(request)
        with self._counted(served, request):
            (answer,) = served.model.run(request, arrays)
        return answer

    def run_stream(self, request: InferRequest) -> Generator[InferResponse]:
        """Answer as a stream."""
        self._fail(None)
        served = self._find(request.model, request.version)
        arrays = served.model.decode(request)
        with self._counted(served, request), closing(served.model.run(request, arrays)) as answers:
            for answer in answers:
                yield answer._replace(is_final=not served.model.decoupled)

    @contextmanager
    def _counted(self, served: _Served, request: InferRequest) -> Iterator[None]:
        rows, started_ns = served.model.rows(request), time.perf_counter_ns()
        failed = False
        try:
            yield
        except RequestError:
            failed = True
            raise
        finally:
            with self._lock:
                served.count(rows, time.perf_counter_ns() - started_ns, failed=failed)

    def _fail(self, operation: Operation | None) -> None:
        with self._lock:
            kinds = self._failures.get(operation)
            kind = kinds.pop(0) if kinds else ""
        if kind:
            raise request_error(kind, f"{self._address}: failed on purpose ({kind})")

    def _find(self, model: str, version: str) -> _Served:
        served = self._served.get(model)
        if served is None:
            lack = "is not found"
        elif not served.ready:
            lack = "has no available versions"
        elif version not in ("", served.model.version):
            lack = f"version {version} is not found"
        else:
            return served
        raise request_error("not_found", f"Request for unknown model: '{model}' {lack}")

    def operate(self, operation: Operation, arguments: Mapping[str, Any]) -> Any:
        """Carry out an operation at once."""
        self._fail(operation)
        name, version = arguments.get("model", ""), arguments.get("version", "")
        match operation:
            case Operation.LIVE:
                return self.live
            case Operation.READY:
                return self.ready
            case Operation.MODEL_READY:
                return self._has(name, version)
            case Operation.SERVER:
                return {"name": "triton", "version": "fake", "extensions": list(_EXTENSIONS)}
            case Operation.METADATA:
                return self._find(name, version).model.metadata(name)
            case Operation.CONFIG:
                served = self._find(name, version)
                return {**served.model.config(name), **served.config}
            case Operation.STATISTICS:
                return self._statistics(name, version)
            case Operation.INDEX:
                return self._index(arguments.get("ready", False))
            case Operation.LOAD:
                return self._load(name, arguments.get("config"))
            case Operation.UNLOAD:
                if name in self._served:
                    self._served[name].ready = False
                return None
            case Operation.TRACE:
                return self._trace(name, arguments.get("settings") or {})
            case Operation.LOG:
                settings = arguments.get("settings") or {}
                self._log.update({k: v for k, v in settings.items() if k in self._log})
                return dict(self._log)
            case Operation.REGIONS:
                return []
            case Operation.UNREGISTER:
                return None
            case Operation.REGISTER:
                raise request_error("unsupported", f"{self._address} shares no memory")

    def _has(self, model: str, version: str) -> bool:
        try:
            self._find(model, version)
        except RequestError:
            return False
        return True

    def _statistics(self, model: str, version: str) -> dict[str, Any]:
        if model and not self._has(model, version):
            raise request_error("invalid", f"requested model '{model}' is not available")
        with self._lock:
            return {
                "model_stats": [
                    served.statistics(name)
                    for name, served in sorted(self._served.items())
                    if served.ready and model in ("", name)
                ]
            }

    def _index(self, only_ready: bool) -> list[dict[str, str]]:
        return [
            {
                **{"name": name, "version": served.model.version},
                "state": "READY" if served.ready else "UNAVAILABLE",
                "reason": "" if served.ready else "unloaded",
            }
            for name, served in sorted(self._served.items())
            if served.ready or not only_ready
        ]

    def _load(self, model: str, config: str | None) -> None:
        try:
            override = json.loads(config) if config else {}
            self._served[model] = _Served(self._served[model].model, config=dict(override))
        except (KeyError, ValueError, TypeError) as error:
            raise request_error(
                "failed", f"failed to load '{model}', failed to poll from model repository"
            ) from error

    def _trace(self, model: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        if model and model not in self._served:
            raise request_error("invalid", f"Request for unknown model : {model}")
        own = self._traces.setdefault(model, {})
        for name, value in settings.items():
            if value is None:
                own.pop(name, None)
            elif name in _TRACE_SETTINGS:
                several = isinstance(_TRACE_SETTINGS[name], list)
                own[name] = [value] if several and isinstance(value, str) else deepcopy(value)
        return deepcopy({**_TRACE_SETTINGS, **self._traces.get("", {}), **own})
