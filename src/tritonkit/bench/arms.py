"""The arms of a comparison: the same model under several ways of serving it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from tritonkit.bench.result import ArmName
from tritonkit.client.client import Client
from tritonkit.client.retry import NO_RETRIES
from tritonkit.errors import InputError
from tritonkit.repository.config import DynamicBatching, ModelConfig
from tritonkit.repository.layout import write_variant
from tritonkit.server.baseline import OrtBaseline
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.server.external import ExternalServer
from tritonkit.server.interface import Server
from tritonkit.server.work import WorkFolder

# From the simplest to run to the most involved: the order in which a verdict prefers them.
ARMS: tuple[ArmName, ...] = ("ort_baseline", "ort_batcher", "triton_unbatched", "triton_batched")
USUAL_ARMS: tuple[ArmName, ...] = ("ort_baseline", "triton_unbatched", "triton_batched")
BATCHING: tuple[ArmName, ...] = ("ort_batcher", "triton_batched")
IN_PROCESS: tuple[ArmName, ...] = ("ort_baseline", "ort_batcher")
"""Arms of one shared session, whose `instances` are the runs that it makes at a time."""


def arm_config(arm: ArmName, packaged: ModelConfig, threads: int, instances: int) -> ModelConfig:
    """The packaged config as this arm runs it. Only threads, instances and scheduler differ.

    For an arm of one session `instances` are the runs that it makes at a time.
    """
    batching = packaged.dynamic_batching or DynamicBatching()
    return replace(
        packaged,
        intra_op_threads=threads,
        instances=instances,
        dynamic_batching=batching if arm in BATCHING else None,
    )


def require_comparable(config: ModelConfig) -> None:
    """InputError for a model that leaves batching nothing to do, or that not every arm serves."""
    if config.max_batch_size < 2:
        raise InputError(
            f"model '{config.name}' has max_batch_size {config.max_batch_size}, so there is no "
            "batching to compare; package it with --max-batch-size 2 or more"
        )
    for tensor in (*config.inputs, *config.outputs):
        if tensor.dtype.name == "BYTES":
            raise InputError(
                f"model '{config.name}': '{tensor.name}' is a string tensor, which the embedded "
                "Triton cannot serve; compare a model whose text is tokenised before it"
            )


def arm_server(
    arm: ArmName,
    repository: Path,
    config: ModelConfig,
    work: Path,
    log: Path,
    cpus: Sequence[int],
) -> AbstractContextManager[Server]:
    """The arm's server, to be entered. It serves a variant of the repository, made in `work`."""
    write_variant(repository, config.name, config, work)
    if arm in IN_PROCESS:
        return OrtBaseline(work, config.name, log=log, cpus=cpus, batching=arm in BATCHING)
    return EmbeddedTriton(work, log=log, cpus=cpus, drain=False)


@contextmanager
def running(
    arm: ArmName, repository: Path, config: ModelConfig, log: Path, cpus: Sequence[int]
) -> Iterator[tuple[Server, Client]]:
    """The arm's server, ready, and a client of it; both end with the block."""
    with WorkFolder() as work:
        variant = work / "repository"
        with (
            arm_server(arm, repository, config, variant, log, cpus) as server,
            called(server) as client,
        ):
            yield server, client


@contextmanager
def reached(http: str) -> Iterator[tuple[Server, Client]]:
    """A server that is up, at host:port, and a client of it, which ends with the block."""
    server = ExternalServer(http)
    with called(server) as client:
        yield server, client


def called(server: Server) -> Client:
    """A client as the load is: over HTTP; and a failure is to be seen, not mended."""
    return Client(f"http://{server.endpoints.http}", retries=NO_RETRIES, shared_memory=False)


def candidates(arm: ArmName, cpus: int) -> tuple[tuple[int, int], ...]:
    """(threads, instances) to try on so many CPUs.

    All threads on one run; one thread for each of many runs; half and half; a single thread,
    which leaves CPU to the rest of the server. Runs that share one session can also overlap at
    full width.
    """
    pairs = [(cpus, 1), (1, cpus), (1, 1)]
    if cpus >= 4:
        pairs.append((cpus // 2, 2))
    if arm in IN_PROCESS:
        pairs.append((cpus, 2))
    return tuple(dict.fromkeys(pairs))
