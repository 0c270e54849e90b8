"""Package an exported model: its config and one version, ready to serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tritonkit.errors import ModelError
from tritonkit.payloads import PAYLOADS
from tritonkit.repository.config import DynamicBatching, config_for
from tritonkit.repository.layout import MODEL, write_model
from tritonkit.signature import external_files, read_signature
from tritonkit.verification import VERIFICATION


@dataclass(frozen=True)
class Settings:
    """How Triton is to run the model.

    max_batch_size: rows; 0 for a model that cannot be batched. max_queue_delay_us: how long a
    request may wait for company, or None for no dynamic batching at all.
    """

    max_batch_size: int
    max_queue_delay_us: int | None = 0
    preferred_batch_sizes: tuple[int, ...] = ()
    instances: int = 1
    threads: int = 1


def package_model(
    exported: Path, name: str, repository: Path, settings: Settings, version: int | None = None
) -> Path:
    """Write a repository entry; returns the version's folder.

    exported: the folder that `tritonkit export` wrote, or a bare .onnx file. Its external data
    goes with it. version: None takes the next free number; one that exists is replaced.
    ModelError, RepositoryError; nothing is written then.
    """
    if exported.is_dir():
        model = exported / MODEL
        if not model.is_file():
            raise ModelError(f"{exported} has no {MODEL}; make one with: tritonkit export")
    else:
        model = exported
    batching = (
        DynamicBatching(settings.max_queue_delay_us, settings.preferred_batch_sizes)
        if settings.max_batch_size > 0 and settings.max_queue_delay_us is not None
        else None
    )
    config = config_for(
        name,
        read_signature(model),
        max_batch_size=settings.max_batch_size,
        instances=settings.instances,
        intra_op_threads=settings.threads,
        dynamic_batching=batching,
    )
    beside = {name: exported / name for name in (VERIFICATION, PAYLOADS)}
    found = {name: path for name, path in beside.items() if path.is_file()}
    payloads = found.pop(PAYLOADS, None)
    files = {**external_files(model), **found, MODEL: model}
    return write_model(repository, config, files, version=version, payloads=payloads)
