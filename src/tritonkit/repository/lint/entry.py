"""What a rule sees of one model: its config, its version folders, its ONNX files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.repository.layout import CONFIG, MODEL
from tritonkit.repository.lint.config_text import ConfigText, read_config_text
from tritonkit.repository.lint.model_file import Fault, ModelTensors, inspect_model

ONNX_PLATFORM = "onnxruntime_onnx"
ENSEMBLE = "ensemble"
AUTO_MAX_BATCH_SIZE = 4
"""What auto-complete makes of a max_batch_size of 0 (`default-max-batch-size`)."""

_NO_VERSIONS = ("warmup", "initial_state", "configs", "rollout")  # folders of other uses
_INT64_MOST = 2**63 - 1

_Group = schema.ModelInstanceGroup


@dataclass(frozen=True)
class Limits:
    """What the server will have. cpus: that it may use. slo_p99_ms: the latency budget, if any.
    gpu: whether it has one.
    """

    cpus: int
    slo_p99_ms: float | None
    gpu: bool


@dataclass(frozen=True)
class Versions:
    """A model's version folders, as Triton sorts them.

    chosen: the numbers that the version policy serves. missing: those that it names in vain.
    ignored: folders that look like versions and are none. odd: folders that Triton serves for a
    number that is not their name. endless: names that no 64-bit number can hold.
    """

    chosen: tuple[int, ...]
    missing: tuple[int, ...]
    ignored: tuple[str, ...]
    odd: tuple[str, ...]
    endless: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One model's folder in a repository."""

    folder: Path
    limits: Limits
    text: ConfigText

    @property
    def name(self) -> str:
        """The folder's name, which must be the model's."""
        return self.folder.name

    @property
    def config(self) -> Path:
        """Where config.pbtxt is, or should be."""
        return self.folder / CONFIG

    @property
    def message(self) -> Any:
        """The config, of the schema."""
        return self.text.message

    def line(self, *where: str | int) -> int:
        """The line of a field, or of what would hold it."""
        return self.text.positions.line(*where)

    @cached_property
    def versions(self) -> Versions:
        """The version folders; OSError if they cannot be listed."""
        return _versions(self.folder, self.message)

    @property
    def is_ensemble(self) -> bool:
        return bool(
            self.message.platform == ENSEMBLE or self.message.HasField("ensemble_scheduling")
        )

    @cached_property
    def is_onnx(self) -> bool:
        """Whether Triton gives the model to the ONNX Runtime backend, by its own guesses too."""
        config = self.message
        if self.is_ensemble:
            return False
        if config.backend:
            return bool(config.backend == "onnxruntime")
        if config.platform or config.default_model_filename:
            onnx = config.platform == ONNX_PLATFORM
            return bool(onnx or config.default_model_filename == MODEL)
        return any((self.folder / str(v) / MODEL).exists() for v in self.versions.chosen)

    @cached_property
    def models(self) -> dict[int, ModelTensors | Fault | None]:
        """What is in the model file of each version that is served; empty if it is not ONNX."""
        if not self.is_onnx:
            return {}
        name = self.message.default_model_filename or MODEL
        custom = bool(self.message.model_operations.op_library_filename)
        return {
            version: inspect_model(self.folder / str(version) / name, custom_operations=custom)
            for version in self.versions.chosen
        }

    def loadable(self) -> Iterator[tuple[int, ModelTensors]]:
        """The versions whose model file is fit to be compared with the config."""
        for version, model in self.models.items():
            if isinstance(model, ModelTensors):
                yield version, model

    @property
    def auto_completed(self) -> bool:
        """Whether the C++ backend's auto-complete steps in: it does for inputs or outputs."""
        config = self.message
        return self.is_onnx and not (
            (len(config.input) or len(config.batch_input)) and len(config.output)
        )

    def max_batch_size(self, model: ModelTensors) -> int:
        """The rows that a batch of `model` may have in the end, auto-complete included."""
        written = int(self.message.max_batch_size)
        if self.auto_completed and model.batchable and written == 0:
            return AUTO_MAX_BATCH_SIZE
        return written

    def as_json(self, max_batch_size: int) -> dict[str, Any]:
        """The config in the form that backends get, under this max_batch_size."""
        config = json_format.MessageToDict(
            self.message,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        return {**config, "name": self.name, "max_batch_size": max_batch_size}

    def sibling(self, model: str) -> Entry | None:
        """Another model of the same repository; None if it has no config that can be read."""
        if model not in self._siblings:
            folder = self.folder.parent / model
            plain = model and "/" not in model and model not in (".", "..") and folder.is_dir()
            other = read_entry(folder, self.limits) if plain else None
            self._siblings[model] = None if other is None or other.text.failure else other
        return self._siblings[model]

    @cached_property
    def _siblings(self) -> dict[str, Entry | None]:
        return {}

    def parameter(self, key: str) -> str:
        """The text of a parameter; empty if it is not there."""
        parameters = self.message.parameters
        return str(parameters[key].string_value) if key in parameters else ""

    def cpu_instances(self) -> Iterator[tuple[int, int]]:
        """The instance groups that run on the CPU: each one's index and how many it starts.

        -1 for the group that Triton makes up where none is written.
        """
        groups = list(enumerate(self.message.instance_group)) or [(-1, _Group())]
        for i, group in groups:
            on_gpu = group.kind == _Group.KIND_GPU
            on_gpu |= group.kind == _Group.KIND_AUTO and self.limits.gpu
            if not on_gpu:
                # Triton's own number for this backend is 2, though 1 for KIND_MODEL.
                own = 1 if group.kind == _Group.KIND_MODEL else 2
                yield i, group.count if group.count > 0 else own


def read_entry(folder: Path, limits: Limits) -> Entry:
    """Read the model folder's config. Nothing is raised: a bad config is a failure in `text`."""
    return Entry(folder, limits, read_config_text(folder / CONFIG))


def has_versions(folder: Path) -> bool:
    """Whether a folder looks like a model's, with or without a config."""
    return any(path.is_dir() and path.name.isdecimal() for path in folder.iterdir())


def _versions(folder: Path, config: Any) -> Versions:
    """As VersionsToLoad() in Triton's src/model_repository_manager/model_lifecycle.cc."""
    there: dict[int, str] = {}  # a plain name before any other of the same number
    ignored, endless = [], []
    for path in sorted(folder.iterdir()):
        name = path.name
        if not path.is_dir() or name in _NO_VERSIONS:
            continue
        number = re.match(r"\s*[+-]?[0-9]+", name)
        if len(name) > 1 and name.startswith("0"):
            ignored += [name] if name.isdecimal() else []
        elif number is None:
            ignored += [name] if re.fullmatch(r"[vV]\.?\d+", name) else []
        elif abs(int(number.group())) > _INT64_MOST:
            endless.append(name)
        else:
            value = int(number.group())
            there[value] = name if name == str(value) else there.get(value, name)
    policy = config.version_policy
    choice = policy.WhichOneof("policy_choice")
    missing: tuple[int, ...] = ()
    newest_first = sorted(there, reverse=True)
    if choice == "specific":
        wanted = dict.fromkeys(policy.specific.versions)
        chosen = [v for v in wanted if v in there]
        missing = tuple(v for v in wanted if v not in there)
    elif choice == "latest":
        chosen = newest_first[: policy.latest.num_versions]
    else:  # a policy that is written and says nothing means all
        chosen = newest_first if config.HasField("version_policy") else newest_first[:1]
    odd = tuple(there[v] for v in chosen if there[v] != str(abs(v)))
    chosen = [v for v in chosen if there[v] == str(abs(v))]
    return Versions(tuple(chosen), missing, tuple(ignored), odd, tuple(endless))
