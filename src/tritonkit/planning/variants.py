"""One model under several settings, side by side on one Triton."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tritonkit.bench.subject import Subject
from tritonkit.client.client import Client
from tritonkit.client.retry import NO_RETRIES
from tritonkit.plan.settings import Settings
from tritonkit.profile.sweep import Target
from tritonkit.repository.config import ModelConfig
from tritonkit.repository.layout import write_variant
from tritonkit.repository.warmup import resized
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.server.work import WorkFolder


def with_settings(config: ModelConfig, settings: Settings) -> ModelConfig:
    """The config under these settings; all else stays as it is, but for preferred sizes."""
    rows, batching = settings.max_batch_size, settings.dynamic_batching
    if batching is not None and config.dynamic_batching is not None:
        delay_us = batching.max_queue_delay_us
        batching = replace(
            config.dynamic_batching, max_queue_delay_us=delay_us, preferred_batch_sizes=()
        )
    return replace(
        config,
        max_batch_size=rows,
        dynamic_batching=batching,
        intra_op_threads=settings.threads,
        instances=settings.instances,
        warmup=resized(config.warmup, rows),
    )


@contextmanager
def variants(
    repository: Path, subject: Subject, wanted: Sequence[Settings], log: Path
) -> Iterator[Mapping[Settings, Target]]:
    """The model once for each of the settings, ready on one server, which ends with the block.

    Those that are not under load take no CPU, so that they are measured as if each were alone.
    """
    model = subject.config.name
    names = {settings: f"{model}-{number}" for number, settings in enumerate(wanted)}
    with WorkFolder() as work:
        folder = work / "repository"
        for settings, name in names.items():
            config = replace(with_settings(subject.config, settings), name=name)
            write_variant(repository, model, config, folder)
        server = EmbeddedTriton(folder, log=log, cpus=subject.cpus.server, drain=False)
        with server:
            address = f"http://{server.endpoints.http}"
            with Client(address, retries=NO_RETRIES, shared_memory=False) as client:
                yield {
                    settings: Target(
                        address, client, name, [r._replace(model=name) for r in subject.requests]
                    )
                    for settings, name in names.items()
                }
