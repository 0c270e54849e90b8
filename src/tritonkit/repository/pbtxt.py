"""config.pbtxt ⇄ ModelConfig, through the protobuf schema that tritonclient ships."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.errors import ModelError, RepositoryError
from tritonkit.repository.config import BACKEND, ModelConfig, VersionPolicy
from tritonkit.repository.pbtxt_execution import read_execution, write_execution
from tritonkit.repository.pbtxt_scheduling import (
    read_dynamic_batching,
    read_sequence_batching,
    write_dynamic_batching,
    write_sequence_batching,
)
from tritonkit.repository.tensors import ConfigTensor
from tritonkit.repository.warmup import WarmUp, WarmUpInput
from tritonkit.signature import data_type

_THREADS = {
    "intra_op_thread_count": "intra_op_threads",
    "inter_op_thread_count": "inter_op_threads",
}


def encode(config: ModelConfig) -> str:
    """The text of config.pbtxt."""
    message = parse(config.base, f"model '{config.name}'")
    message.name = config.name
    message.backend = message.backend or BACKEND
    message.max_batch_size = config.max_batch_size
    set_tensors(message.input, config.inputs)
    set_tensors(message.output, config.outputs)
    group = message.instance_group[0] if message.instance_group else message.instance_group.add()
    group.count = config.instances
    for key, field in _THREADS.items():
        message.parameters[key].string_value = str(getattr(config, field))
    with _of_model(f"model '{config.name}'"):
        for field, (read, write) in _PARTS.items():
            # What a person wrote in other words for the same thing stays as it stands.
            if read(message) != getattr(config, field):
                write(message, getattr(config, field))
    return str(text_format.MessageToString(message))


def decode(text: str, where: str, folder: str = "") -> ModelConfig:
    """The ModelConfig of a config.pbtxt. `where` names it in errors; `folder` is the model's
    name where the text, as Triton allows, gives none.

    RepositoryError for text that is not of the schema, and for what the kit cannot serve:
    another backend, several instance groups, inputs or outputs left to auto-complete, and what
    Triton itself would not load.
    """
    message = parse(text, where)
    backend = message.backend or message.platform
    if is_ensemble(message):
        steps = ", ".join(step.model_name for step in message.ensemble_scheduling.step)
        raise RepositoryError(f"{where}: an ensemble has no model of its own; give a step: {steps}")
    if backend not in (BACKEND, "onnxruntime_onnx"):
        raise RepositoryError(f"{where}: backend is '{backend}'; tritonkit serves '{BACKEND}'")
    if len(message.instance_group) > 1:
        raise RepositoryError(f"{where}: has several instance groups; tritonkit handles one")
    if not message.input or not message.output:
        raise RepositoryError(
            f"{where}: inputs and outputs must all be written, or Triton's auto-complete may "
            "switch batching on by itself; write them, or package the model with tritonkit package"
        )
    with _of_model(where):
        parts = {field: read(message) for field, (read, _) in _PARTS.items()}
    return ModelConfig(
        name=message.name or folder,
        inputs=read_tensors(message.input, where),
        outputs=read_tensors(message.output, where),
        max_batch_size=message.max_batch_size,
        # Without an instance_group Triton gives this backend name 2 CPU instances.
        instances=(message.instance_group[0].count or 1) if message.instance_group else 2,
        intra_op_threads=_threads(message, "intra_op_thread_count", where),
        inter_op_threads=_threads(message, "inter_op_thread_count", where),
        base=text,
        **parts,
    )


def as_json(config: ModelConfig) -> dict[str, Any]:
    """The config in the JSON form in which Triton hands it to a backend and reads it back."""
    message = parse(encode(config), f"model '{config.name}'")
    return dict(json_format.MessageToDict(message, preserving_proto_field_name=True))


def parse(text: str, where: str) -> Any:
    """The text as a message of the schema. RepositoryError, which names `where`, if it is none."""
    try:
        return text_format.Parse(text, schema.ModelConfig())
    except text_format.ParseError as error:
        raise RepositoryError(f"{where}: not a valid config.pbtxt: {error}") from error


def is_ensemble(message: Any) -> bool:
    """Whether a config is that of an ensemble, which has no model file."""
    return bool(message.platform == "ensemble" or message.HasField("ensemble_scheduling"))


def set_tensors(messages: Any, tensors: tuple[ConfigTensor, ...]) -> None:
    """Bring name, type, dims and labels in line; a message's other fields stay."""
    before = len(messages)
    kept = {m.name: m for m in messages}
    for tensor in tensors:
        message = messages.add()
        if tensor.name in kept:
            message.CopyFrom(kept[tensor.name])
        message.name = tensor.name
        message.data_type = schema.DataType.Value(tensor.dtype.triton)
        message.dims[:] = tensor.wire_dims
        if not tensor.dims:
            message.reshape.shape[:] = ()
            message.reshape.SetInParent()
        elif not message.reshape.shape:
            message.ClearField("reshape")
        if hasattr(message, "label_filename"):  # outputs have it
            message.label_filename = tensor.labels
    del messages[:before]


def read_tensors(messages: Any, where: str) -> tuple[ConfigTensor, ...]:
    """RepositoryError for a type that ONNX Runtime does not carry."""
    with _of_model(where):
        return tuple(
            ConfigTensor(
                name=m.name,
                dtype=data_type(schema.DataType.Name(m.data_type)),
                dims=() if m.HasField("reshape") and not m.reshape.shape else tuple(m.dims),
                labels=getattr(m, "label_filename", ""),
            )
            for m in messages
        )


def _threads(message: Any, key: str, where: str) -> int:
    text = message.parameters[key].string_value if key in message.parameters else "0"
    if not (text.isascii() and text.isdigit()):
        raise RepositoryError(f"{where}: {key} is '{text}'; it must be a whole number")
    # 0 is ONNX Runtime's own choice: a thread for each core.
    return int(text) or (os.cpu_count() or 1 if key.startswith("intra") else 1)


def _read_warmup(message: Any) -> tuple[WarmUp, ...]:
    return tuple(
        WarmUp(
            name=run.name,
            batch_size=run.batch_size,
            inputs={name: _read_warmup_input(data) for name, data in run.inputs.items()},
            count=run.count,
        )
        for run in message.model_warmup
    )


def _read_warmup_input(message: Any) -> WarmUpInput:
    return WarmUpInput(
        dtype=data_type(schema.DataType.Name(message.data_type)),
        dims=tuple(message.dims),
        random=message.WhichOneof("input_data_type") == "random_data",
        file=message.input_data_file,
    )


def _write_warmup(message: Any, warmup: tuple[WarmUp, ...]) -> None:
    del message.model_warmup[:]
    for run in warmup:
        entry = message.model_warmup.add(name=run.name, batch_size=run.batch_size, count=run.count)
        for name, tensor in run.inputs.items():
            data = entry.inputs[name]
            data.data_type = schema.DataType.Value(tensor.dtype.triton)
            data.dims[:] = tensor.dims
            if tensor.file:
                data.input_data_file = tensor.file
            elif tensor.random:
                data.random_data = True
            else:
                data.zero_data = True


def _read_version_policy(message: Any) -> VersionPolicy | None:
    policy = message.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return "all"
        case "latest":
            return int(policy.latest.num_versions)
        case "specific":
            return tuple(policy.specific.versions)
        case _:
            return None


def _write_version_policy(message: Any, policy: VersionPolicy | None) -> None:
    message.ClearField("version_policy")
    if policy == "all":
        message.version_policy.all.SetInParent()
    elif isinstance(policy, int):
        message.version_policy.latest.num_versions = policy
    elif policy is not None:
        message.version_policy.specific.versions[:] = policy


def _read_response_cache(message: Any) -> bool:
    return bool(message.response_cache.enable)


def _write_response_cache(message: Any, enable: bool) -> None:
    message.ClearField("response_cache")
    if enable:
        message.response_cache.enable = True


# What a config may say or leave to its default: how it is read, and how it is written.
_PARTS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], None]]] = {
    "execution": (read_execution, write_execution),
    "dynamic_batching": (read_dynamic_batching, write_dynamic_batching),
    "sequence_batching": (read_sequence_batching, write_sequence_batching),
    "warmup": (_read_warmup, _write_warmup),
    "response_cache": (_read_response_cache, _write_response_cache),
    "version_policy": (_read_version_policy, _write_version_policy),
}


@contextmanager
def _of_model(where: str) -> Iterator[None]:
    """Say in every refusal which config it is about."""
    try:
        yield
    except (ModelError, RepositoryError) as error:
        raise RepositoryError(f"{where}: {error}") from error
