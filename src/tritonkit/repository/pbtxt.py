"""config.pbtxt ⇄ ModelConfig, through the protobuf schema that tritonclient ships."""

from __future__ import annotations

import os
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.errors import ModelError, RepositoryError
from tritonkit.repository.config import BACKEND, ConfigTensor, DynamicBatching, ModelConfig
from tritonkit.signature import data_type

# Where a warm-up request meets a dynamic dimension: long enough to touch every kernel.
WARMUP_DYNAMIC_DIM = 16

_THREADS = {
    "intra_op_thread_count": "intra_op_threads",
    "inter_op_thread_count": "inter_op_threads",
}


def encode(config: ModelConfig) -> str:
    """The text of config.pbtxt."""
    message = _parse(config.base, f"model '{config.name}'")
    message.name = config.name
    message.backend = message.backend or BACKEND
    message.max_batch_size = config.max_batch_size
    _set_tensors(message.input, config.inputs)
    _set_tensors(message.output, config.outputs)
    group = message.instance_group[0] if message.instance_group else message.instance_group.add()
    group.count = config.instances
    group.kind = group.kind or schema.ModelInstanceGroup.KIND_CPU
    for key, field in _THREADS.items():
        message.parameters[key].string_value = str(getattr(config, field))
    if config.dynamic_batching is None:
        message.ClearField("dynamic_batching")
    else:
        block = message.dynamic_batching
        block.SetInParent()
        block.max_queue_delay_microseconds = config.dynamic_batching.max_queue_delay_us
        block.preferred_batch_size[:] = config.dynamic_batching.preferred_batch_sizes
    if tuple(w.batch_size for w in message.model_warmup) != config.warmup_batch_sizes:
        del message.model_warmup[:]
        for size in config.warmup_batch_sizes:
            _add_warmup(message, config, size)
    return str(text_format.MessageToString(message))


def decode(text: str, where: str, folder: str = "") -> ModelConfig:
    """The ModelConfig of a config.pbtxt. `where` names it in errors; `folder` is the model's
    name where the text, as Triton allows, gives none.

    RepositoryError for text that is not of the schema, and for what the kit cannot serve:
    another backend, several instance groups, inputs or outputs left to auto-complete.
    """
    message = _parse(text, where)
    backend = message.backend or message.platform
    if backend not in (BACKEND, "onnxruntime_onnx"):
        raise RepositoryError(f"{where}: backend is '{backend}'; tritonkit serves '{BACKEND}'")
    if len(message.instance_group) > 1:
        raise RepositoryError(f"{where}: has several instance groups; tritonkit handles one")
    if not message.input or not message.output:
        raise RepositoryError(
            f"{where}: inputs and outputs must all be written, or Triton's auto-complete may "
            "switch batching on by itself; write them, or package the model with tritonkit package"
        )
    block = message.dynamic_batching
    return ModelConfig(
        name=message.name or folder,
        inputs=_tensors(message.input, where),
        outputs=_tensors(message.output, where),
        max_batch_size=message.max_batch_size,
        # Without an instance_group Triton gives this backend name 2 CPU instances.
        instances=(message.instance_group[0].count or 1) if message.instance_group else 2,
        intra_op_threads=_threads(message, "intra_op_thread_count", where),
        inter_op_threads=_threads(message, "inter_op_thread_count", where),
        dynamic_batching=DynamicBatching(
            block.max_queue_delay_microseconds, tuple(block.preferred_batch_size)
        )
        if message.HasField("dynamic_batching")
        else None,
        warmup_batch_sizes=tuple(w.batch_size for w in message.model_warmup),
        base=text,
    )


def as_json(config: ModelConfig) -> dict[str, Any]:
    """The config in the JSON form in which Triton hands it to a backend and reads it back."""
    message = _parse(encode(config), f"model '{config.name}'")
    return dict(json_format.MessageToDict(message, preserving_proto_field_name=True))


def _parse(text: str, where: str) -> Any:
    try:
        return text_format.Parse(text, schema.ModelConfig())
    except text_format.ParseError as error:
        raise RepositoryError(f"{where}: not a valid config.pbtxt: {error}") from error


def _set_tensors(messages: Any, tensors: tuple[ConfigTensor, ...]) -> None:
    """Bring name, type and dims in line; a message's other fields (labels, reshape) stay."""
    before = len(messages)
    kept = {m.name: m for m in messages}
    for tensor in tensors:
        message = messages.add()
        if tensor.name in kept:
            message.CopyFrom(kept[tensor.name])
        message.name = tensor.name
        message.data_type = schema.DataType.Value(tensor.dtype.triton)
        message.dims[:] = tensor.dims
    del messages[:before]


def _tensors(messages: Any, where: str) -> tuple[ConfigTensor, ...]:
    try:
        return tuple(
            ConfigTensor(m.name, data_type(schema.DataType.Name(m.data_type)), tuple(m.dims))
            for m in messages
        )
    except ModelError as error:
        raise RepositoryError(f"{where}: {error}") from error


def _threads(message: Any, key: str, where: str) -> int:
    text = message.parameters[key].string_value if key in message.parameters else "0"
    if not (text.isascii() and text.isdigit()):
        raise RepositoryError(f"{where}: {key} is '{text}'; it must be a whole number")
    # 0 is ONNX Runtime's own choice: a thread for each core.
    return int(text) or (os.cpu_count() or 1 if key.startswith("intra") else 1)


def _add_warmup(message: Any, config: ModelConfig, batch_size: int) -> None:
    entry = message.model_warmup.add(name=f"batch_{batch_size}", batch_size=batch_size, count=1)
    for tensor in config.inputs:
        data = entry.inputs[tensor.name]
        data.data_type = schema.DataType.Value(tensor.dtype.triton)
        data.dims[:] = [d if d >= 0 else WARMUP_DYNAMIC_DIM for d in tensor.dims]
        # Random bytes are no valid token ids, indices or strings; zeros are.
        if tensor.dtype.name.startswith("FP"):
            data.random_data = True
        else:
            data.zero_data = True
