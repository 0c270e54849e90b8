"""ModelConfig: the part of a config.pbtxt that tritonkit decides on, as frozen values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from tritonkit.errors import RepositoryError
from tritonkit.repository.execution import Execution, execution_refusals
from tritonkit.repository.scheduling import (
    INT32_MOST,
    DynamicBatching,
    SequenceBatching,
    dynamic_refusals,
    sequence_refusals,
)
from tritonkit.repository.tensors import ConfigTensor, tensor_refusals
from tritonkit.repository.warmup import WarmUp, warmup_refusals
from tritonkit.signature import TensorSpec

__all__ = [
    "BACKEND",
    "ConfigTensor",
    "DynamicBatching",
    "ModelConfig",
    "SequenceBatching",
    "VersionPolicy",
    "require_model_name",
]

BACKEND = "onnxruntime"

VersionPolicy = int | tuple[int, ...] | Literal["all"]
"""Which versions are served: so many of the newest, exactly these, or all."""

_LEAST = {"max_batch_size": 0, "instances": 1, "intra_op_threads": 1, "inter_op_threads": 1}


@dataclass(frozen=True)
class ModelConfig:
    """A model's configuration. All inputs and outputs are written, always: with them Triton
    skips auto-complete, which could otherwise switch batching on by itself.

    inputs, outputs: without what a sequence scheduler fills in or keeps by itself.
    max_batch_size: rows; 0 means that the model cannot be batched.
    instances: on each of the devices of `execution`.
    intra_op_threads, inter_op_threads: of each of the `instances` sessions.
    dynamic_batching, sequence_batching: one of them or none; without a scheduler no two requests
    ever share a run.
    warmup: the runs that Triton makes before it reports ready.
    response_cache: answer from the server's cache, if it is started with one.
    version_policy: None is Triton's default, the newest version.
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
    sequence_batching: SequenceBatching | None = None
    execution: Execution = field(default_factory=Execution)
    warmup: tuple[WarmUp, ...] = ()
    response_cache: bool = False
    version_policy: VersionPolicy | None = None
    base: str = ""

    def __post_init__(self) -> None:
        require_model_name(self.name)
        for refusal in self._refusals():
            raise RepositoryError(f"model '{self.name}': {refusal}")

    @property
    def wire_inputs(self) -> tuple[TensorSpec, ...]:
        """What a request has."""
        return tuple(tensor.wire_spec(self.max_batch_size > 0) for tensor in self.inputs)

    @property
    def wire_outputs(self) -> tuple[TensorSpec, ...]:
        """What an answer has."""
        return tuple(tensor.wire_spec(self.max_batch_size > 0) for tensor in self.outputs)

    def unbatched(self) -> ModelConfig:
        """The same without a dynamic batcher: each request is a run of its own. Sequences keep
        theirs, without which they cannot be served.
        """
        return replace(self, dynamic_batching=None)

    def _refusals(self) -> Iterator[str]:
        for what, least in _LEAST.items():
            if not least <= getattr(self, what) <= INT32_MOST:
                yield f"{what} is {getattr(self, what)}; it must be {least} to {INT32_MOST}"
        yield from tensor_refusals(self.inputs, self.outputs, self.max_batch_size)
        yield from execution_refusals(self.execution)
        if self.dynamic_batching is not None:
            yield from dynamic_refusals(self.dynamic_batching, self.max_batch_size)
        if self.sequence_batching is not None:
            yield from sequence_refusals(self.sequence_batching, self.max_batch_size)
            yield from self._sequence_refusals(self.sequence_batching)
        yield from warmup_refusals(self.warmup, self.max_batch_size)
        policy = self.version_policy
        numbers = policy if isinstance(policy, tuple) else ()
        if isinstance(policy, int) and not 1 <= policy < 2**32:
            yield f"the version policy serves the newest {policy}; it must be 1 or more"
        if policy == () or any(not 1 <= number < 2**63 for number in numbers):
            yield f"the version policy serves {list(numbers)}; name one version or more"

    def _sequence_refusals(self, batching: SequenceBatching) -> Iterator[str]:
        if self.dynamic_batching is not None:
            yield "dynamic batching and sequence batching exclude each other; a model has one"
        if self.response_cache:
            yield "the response cache does not work with sequence batching; leave one out"
        named = {tensor.name for tensor in self.inputs}
        for name in (*(c.input for c in batching.controls), *(s.input for s in batching.states)):
            if name in named:
                yield f"'{name}' is filled in by the sequence batching, so it is no input"


def require_model_name(name: str) -> None:
    """RepositoryError unless `name` is that of one visible folder, and a shell takes it as it is,
    as it must for Triton's Python backend.
    """
    if not name.isprintable():  # what UTF-8 cannot say is not printable either
        raise RepositoryError(f"model {name!a}: a model name must be printable")
    if not name or "/" in name or name.startswith("."):
        raise RepositoryError(f"model '{name}': a model name must be a plain folder name")
    if not is_literal(name):
        raise RepositoryError(
            f"model '{name}': a model name must be of the letters a to z, digits and "
            ". _ - + = : , @ alone"
        )


def is_literal(text: str) -> bool:
    """Whether a shell takes `text` as one word, as it stands."""
    return re.fullmatch(r"[\w.+=:,@-]+", text, re.ASCII) is not None
