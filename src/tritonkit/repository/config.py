"""ModelConfig: the part of a config.pbtxt that tritonkit decides on, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from tritonkit.errors import ModelError, RepositoryError
from tritonkit.signature import DataType, ModelSignature, TensorSpec

BACKEND = "onnxruntime"

_LEAST = {"max_batch_size": 0, "instances": 1, "intra_op_threads": 1, "inter_op_threads": 1}
_MOST = 2**31 - 1


@dataclass(frozen=True)
class ConfigTensor:
    """One input or output as config.pbtxt states it.

    dims: -1 where dynamic; without the batch dimension if the model's max_batch_size is > 0.
    """

    name: str
    dtype: DataType
    dims: tuple[int, ...]


@dataclass(frozen=True)
class DynamicBatching:
    """The dynamic_batching block.

    max_queue_delay_us: how long the oldest request may wait for company; 0 sends at once what
    is queued. preferred_batch_sizes: NVIDIA advises none for ONNX models, so none by default.
    """

    max_queue_delay_us: int = 0
    preferred_batch_sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelConfig:
    """A model's configuration. All inputs and outputs are written, always: with them Triton
    skips auto-complete, which could otherwise switch batching on by itself.

    max_batch_size: rows; 0 means that the model cannot be batched.
    dynamic_batching: None means no scheduler, so that no two requests ever share a run.
    intra_op_threads, inter_op_threads: of each of the `instances` sessions.
    warmup_batch_sizes: rows of the runs that Triton makes before it reports ready.
    base: the text of the config.pbtxt that this was read from. What the fields above do not
    name is kept as it stands there.
    """

    name: str
    inputs: tuple[ConfigTensor, ...]
    outputs: tuple[ConfigTensor, ...]
    max_batch_size: int
    instances: int = 1
    intra_op_threads: int = 1
    inter_op_threads: int = 1
    dynamic_batching: DynamicBatching | None = None
    warmup_batch_sizes: tuple[int, ...] = ()
    base: str = ""

    def __post_init__(self) -> None:
        def refuse(what: str) -> None:
            raise RepositoryError(f"model '{self.name}': {what}")

        if not self.name.isprintable():  # what UTF-8 cannot say is not printable either
            raise RepositoryError(f"model {self.name!a}: a model name must be printable")
        if not self.name or "/" in self.name or self.name.startswith("."):
            refuse("a model name must be a plain folder name")
        for field, least in _LEAST.items():
            if not least <= getattr(self, field) <= _MOST:
                refuse(f"{field} is {getattr(self, field)}; it must be {least} to {_MOST}")
        batching = self.dynamic_batching
        if batching is not None:
            if self.max_batch_size < 1:
                refuse("dynamic batching needs a max_batch_size of 1 or more")
            delay = batching.max_queue_delay_us
            if not 0 <= delay <= _MOST:
                refuse(f"max_queue_delay_us is {delay}; it must be 0 to {_MOST}")
            for size in batching.preferred_batch_sizes:
                if not 1 <= size <= self.max_batch_size:
                    refuse(f"preferred batch size {size} is not in 1..{self.max_batch_size}")
        for size in self.warmup_batch_sizes:
            if not 1 <= size <= max(1, self.max_batch_size):
                refuse(f"warm-up batch size {size} is not in 1..{max(1, self.max_batch_size)}")


def config_for(
    name: str,
    signature: ModelSignature,
    *,
    max_batch_size: int,
    instances: int,
    intra_op_threads: int,
    dynamic_batching: DynamicBatching | None,
) -> ModelConfig:
    """The config of a model with this signature, warmed up at batch 1, half way and at the most.

    ModelError if max_batch_size > 0 and a tensor has no leading dynamic dimension.
    """
    if max_batch_size > 0:
        signature.require_batch_axis(f"model '{name}'")
    batched = max_batch_size > 0
    return ModelConfig(
        name=name,
        inputs=tuple(_config_tensor(name, t, batched) for t in signature.inputs),
        outputs=tuple(_config_tensor(name, t, batched) for t in signature.outputs),
        max_batch_size=max_batch_size,
        instances=instances,
        intra_op_threads=intra_op_threads,
        dynamic_batching=dynamic_batching,
        warmup_batch_sizes=tuple(sorted({1, max(1, max_batch_size // 2), max(1, max_batch_size)})),
    )


def _config_tensor(model: str, tensor: TensorSpec, batched: bool) -> ConfigTensor:
    dims = tensor.shape[1:] if batched else tensor.shape
    if not batched and not dims:
        raise ModelError(
            f"model '{model}': tensor {tensor} is a scalar, which Triton cannot serve; "
            "give it a dimension of 1"
        )
    return ConfigTensor(
        tensor.name, tensor.dtype, tuple(d if isinstance(d, int) else -1 for d in dims)
    )
