"""What models take of a pod, from their config.pbtxt and their files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonkit.errors import RepositoryError
from tritonkit.plan.settings import Settings
from tritonkit.repository import pbtxt
from tritonkit.repository.config import DynamicBatching, ModelConfig
from tritonkit.repository.ensemble import ensemble_models
from tritonkit.repository.execution import InstanceKind
from tritonkit.repository.layout import (
    CONFIG,
    is_ensemble,
    model_file,
    read_config,
    read_text,
    served_versions,
)

# A label's value, by which the autoscaler tells models apart.
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"


@dataclass(frozen=True)
class Need:
    """What one model takes. settings: as far as a plan decides on them. threads: of an instance,
    all pools together. versions: that are served beside each other. file_bytes: of all of them.
    gpus: that the pod must have for it.
    """

    model: str
    settings: Settings
    threads: int
    versions: int
    file_bytes: int
    gpus: int

    @property
    def cpus(self) -> int:
        """As many as it has threads at work at once."""
        return self.versions * self.settings.instances * self.threads


def read_needs(repository: Path, names: Sequence[str]) -> tuple[Need, ...]:
    """Of the models, and of all steps of those that are ensembles, once each.

    RepositoryError for a model that is not there, has no weights, or cannot be sized.
    """
    models: list[str] = []
    for name in names:
        models += [model for model in ensemble_models(repository, name) if model not in models]
    return tuple(_read(repository, model) for model in models if not is_ensemble(repository, model))


def _read(repository: Path, model: str) -> Need:
    config = read_config(repository, model)
    _require_threads(repository, model)
    if re.fullmatch(_LABEL, model) is None:
        raise RepositoryError(
            f"model '{model}': Kubernetes takes no such name in a label; it must be of up to 63 "
            "letters, digits and - _ . and begin and end with a letter or a digit: package it "
            "under another name"
        )
    model_file(repository, model)  # its weights are there
    folders = [repository / model / str(v) for v in served_versions(repository, config)]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    execution = config.execution
    threads = config.intra_op_threads
    if execution.parallel:  # branches of the graph run on the threads of another pool
        threads += config.inter_op_threads - 1
    return Need(
        model=model,
        settings=settings_of(config),
        threads=threads,
        versions=len(folders),
        file_bytes=sum(path.stat().st_size for path in files),
        gpus=1 + max(execution.gpus, default=0) if execution.kind is InstanceKind.GPU else 0,
    )


def settings_of(config: ModelConfig) -> Settings:
    """What of a config a plan decides on, without what it leaves as it is."""
    batching = config.dynamic_batching
    if batching is not None:
        batching = DynamicBatching(max_queue_delay_us=batching.max_queue_delay_us)
    return Settings(config.max_batch_size, batching, config.instances, config.intra_op_threads)


def _require_threads(repository: Path, model: str) -> None:
    """RepositoryError where ONNX Runtime would start a thread for each core of the node, whatever
    the pod may use of it.
    """
    path, text = read_text(repository, model)
    message = pbtxt.parse(text, str(path))
    key = "intra_op_thread_count"
    if key not in message.parameters or not int(message.parameters[key].string_value):
        raise RepositoryError(
            f"{repository / model / CONFIG}: {key} is not written, so there would be a thread for "
            f"each core of the node; package '{model}' with --threads, or tritonkit plan --apply"
        )
