"""The certificate of an arm: what the server says that it ran, and the refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import psutil

from tritonkit.bench.result import ArmName, Certificate
from tritonkit.client.address import parse_address
from tritonkit.client.client import Client
from tritonkit.client.transports.http import HttpTransport
from tritonkit.errors import CheckFailedError
from tritonkit.repository.config import ModelConfig
from tritonkit.server.interface import Server
from tritonkit.stats.scrape import ServerCounters, read_session_info

_METRICS_TIMEOUT_S = 30.0


def certify(
    arm: ArmName, server: Server, asked: ModelConfig, counters: ServerCounters
) -> Certificate:
    """Read back from the live server what it runs, and compare it with what was asked.

    counters: what the server counted over the arm's measured levels. CheckFailedError if the
    server runs other threads, instances or scheduler than asked, or if an unbatched arm put
    two requests into one run.
    """
    effective, version, found = require_as_asked(arm, server, asked)
    statements = [*found, _batching_statement(arm, effective, counters)]
    cpu_set = sorted({c for pid in server.pids() for c in _affinity(pid)})
    return Certificate(
        effective_config=effective,
        ort_version=version,
        threads=asked.intra_op_threads,
        instances=asked.instances,
        cpu_set=tuple(cpu_set),
        mean_batch=counters.mean_batch,
        batch_histogram={str(rows): n for rows, n in counters.batches.items()},
        requests=counters.requests,
        executions=counters.executions,
        statements=tuple(statements),
    )


class AsAsked(NamedTuple):
    """What a live server says of itself, and it is what was asked. version: of ONNX Runtime."""

    effective_config: Mapping[str, Any]
    version: str | None
    statements: tuple[str, ...]


def runs_on(server: Server, model: str) -> tuple[Mapping[str, Any], int, int]:
    """The config that a live server has of a model, its threads and its instances.

    CheckFailedError if it does not say how many threads: then nobody knows what is measured.
    """
    with Client(f"http://{server.endpoints.http}") as client:
        effective = client.config(model)
    said = effective.get("parameters", {}).get("intra_op_thread_count", {}).get("string_value", "")
    if not said.isdecimal():
        raise CheckFailedError(
            f"{server.endpoints.http}: the config of '{model}' has no intra_op_thread_count, so "
            "nobody knows on how many threads it runs; serve what tritonkit packaged"
        )
    instances = sum(int(g.get("count", 1)) for g in effective["instance_group"])
    return effective, int(said), instances


def require_as_asked(arm: ArmName, server: Server, asked: ModelConfig) -> AsAsked:
    """Ask the server what it runs. CheckFailedError if that is not what was asked."""
    effective, threads, instances = runs_on(server, asked.name)
    versions = {effective["parameters"].get("onnxruntime_version", {}).get("string_value")}
    statements = []
    if server.endpoints.metrics is not None:
        sessions = _sessions(server.endpoints.metrics, asked.name)
        versions = {s["onnxruntime"] for s in sessions}
        _require(arm, "sessions", len(sessions), instances)
        for session in sessions:
            _require(arm, "threads of a session", int(session["intra_op_threads"]), threads)
        statements.append(f"{len(sessions)} session(s) report {threads} thread(s) each")
    _require(arm, "threads", threads, asked.intra_op_threads)
    _require(arm, "instances", instances, asked.instances)
    _require(
        arm, "dynamic batching", "dynamic_batching" in effective, asked.dynamic_batching is not None
    )
    version = next(iter(versions)) if len(versions) == 1 else None
    return AsAsked(effective, version, tuple(statements))


def _batching_statement(
    arm: ArmName, effective: Mapping[str, Any], counters: ServerCounters
) -> str:
    if "dynamic_batching" in effective:
        delay = effective["dynamic_batching"].get("max_queue_delay_microseconds", 0)
        return (
            f"dynamic batching is on: max_batch_size {effective['max_batch_size']}, "
            f"max_queue_delay {delay} µs; {counters.requests} requests in "
            f"{counters.executions} executions"
        )
    if counters.executions < counters.requests:
        raise CheckFailedError(
            f"{arm}: {counters.requests} requests ran in {counters.executions} executions, so "
            "some shared a batch and the arm is not unbatched; the comparison is not published"
        )
    return (
        f"no multi-request batch ran: {counters.executions} executions for "
        f"{counters.requests} requests"
    )


def _sessions(metrics_address: str, model: str) -> list[Mapping[str, str]]:
    """What the embedded backend's sessions say of themselves."""
    metrics = HttpTransport(parse_address(f"http://{metrics_address}"))
    try:
        return list(read_session_info(metrics.get_text("/metrics", _METRICS_TIMEOUT_S), model))
    finally:
        metrics.close()


def _affinity(pid: int) -> list[int]:
    try:
        return list(psutil.Process(pid).cpu_affinity())
    except (psutil.NoSuchProcess, AttributeError):  # it ended; or a system without affinity
        return []


def _require(arm: str, what: str, found: object, asked: object) -> None:
    if found != asked:
        raise CheckFailedError(
            f"{arm}: the server runs {what} = {found}, asked was {asked}; "
            "the comparison is not published"
        )
