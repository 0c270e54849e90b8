"""A stateful model's sequences: from the names of its tensors to its sequence_batching block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from tritonkit.binary import to_bytes
from tritonkit.errors import RepositoryError
from tritonkit.repository.scheduling import (
    CORRID_TYPES,
    FLAG_TYPES,
    Control,
    ControlKind,
    Direct,
    InitialState,
    Oldest,
    SequenceBatching,
    StateTensor,
)
from tritonkit.repository.tensors import ConfigTensor
from tritonkit.signature import data_type_of

INITIAL_STATE_FOLDER = "initial_state"
"""Where in a model's folder Triton looks for the files of initial states."""


@dataclass(frozen=True)
class Sequences:
    """What a person has to say of a stateful model; the rest is in the model's signature.

    controls: the input that each control goes to. states: by input, the output that becomes it.
    initial: by input, a .npy file with the state that a sequence begins with; the others begin
    with zeros. max_idle_us: 0 is Triton's default, a second.
    """

    strategy: Direct | Oldest = field(default_factory=Direct)
    max_idle_us: int = 0
    controls: Mapping[ControlKind, str] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    initial: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Stateful:
    """The block, the tensors that requests and answers still carry, and the files of the states,
    by their place in the model's folder."""

    batching: SequenceBatching
    inputs: tuple[ConfigTensor, ...]
    outputs: tuple[ConfigTensor, ...]
    files: Mapping[str, bytes]


def stateful(
    model: str,
    inputs: tuple[ConfigTensor, ...],
    outputs: tuple[ConfigTensor, ...],
    sequences: Sequences,
) -> Stateful:
    """Take the tensors of controls and states out of `inputs` and `outputs`.

    RepositoryError for a tensor that is not there, a control of another type or shape than Triton
    fills in, and a state whose two sides do not fit. Sources: ValidateBooleanSequenceControl() in
    NVIDIA's onnxruntime_backend; GenerateInitialStateData() in core, sequence_batch_scheduler.
    """
    given = {t.name: t for t in inputs}
    taken = {t.name: t for t in outputs}
    for name in sequences.initial:
        if name not in sequences.states:
            _refuse(model, f"'{name}' has an initial state but is no state; add --state {name}=…")
    controls = tuple(
        _control(model, kind, _find(model, given, name, "input"))
        for kind, name in sequences.controls.items()
    )
    files: dict[str, bytes] = {}
    states = []
    for index, (before, after) in enumerate(sequences.states.items()):
        first, then = _find(model, given, before, "input"), _find(model, taken, after, "output")
        dims = _paired(model, first, then)
        file = f"{INITIAL_STATE_FOLDER}/state_{index}"
        initial = _initial(model, first, dims, sequences.initial.get(before), file, files)
        states.append(StateTensor(before, after, first.dtype, dims, initial))
    kept_in = _without(inputs, [*sequences.controls.values(), *sequences.states])
    kept_out = _without(outputs, sequences.states.values())
    if not kept_in or not kept_out:
        _refuse(model, "a request needs an input and an answer an output that is no state")
    batching = SequenceBatching(sequences.strategy, sequences.max_idle_us, controls, tuple(states))
    return Stateful(batching, kept_in, kept_out, files)


def _control(model: str, kind: ControlKind, tensor: ConfigTensor) -> Control:
    allowed = CORRID_TYPES if kind is ControlKind.CORRID else FLAG_TYPES
    if tensor.dtype.name not in allowed:
        _refuse(
            model,
            f"control '{kind}': input '{tensor.name}' is {tensor.dtype.name}; "
            f"it must be {', '.join(allowed)}",
        )
    if tensor.dims != (1,):
        _refuse(
            model,
            f"control '{kind}': input '{tensor.name}' has dims {list(tensor.dims)}; "
            "Triton gives one number for each row, dims [1]",
        )
    return Control(kind, tensor.name, tensor.dtype)


def _paired(model: str, before: ConfigTensor, after: ConfigTensor) -> tuple[int, ...]:
    """The dims of a state; -1 where one of its two sides is dynamic."""
    fits = len(before.dims) == len(after.dims) and all(
        a == b or -1 in (a, b) for a, b in zip(before.dims, after.dims, strict=True)
    )
    if before.dtype != after.dtype or not fits:
        _refuse(
            model,
            f"state {before.name}={after.name}: the input is {before.dtype.name}"
            f"{list(before.dims)}, the output {after.dtype.name}{list(after.dims)}; "
            "a state goes from one to the other as it is",
        )
    if not before.dims:
        _refuse(
            model,
            f"state '{before.name}' has nothing but its batch axis, which Triton cannot keep; "
            "export the model with one more dimension, of 1",
        )
    return tuple(a if a == b else -1 for a, b in zip(before.dims, after.dims, strict=True))


def _initial(
    model: str,
    tensor: ConfigTensor,
    dims: tuple[int, ...],
    path: Path | None,
    place: str,
    files: dict[str, bytes],
) -> InitialState:
    """Zeros, or the array in `path`, whose bytes go to files[place]."""
    if path is None:
        if -1 in dims:
            _refuse(
                model,
                f"state '{tensor.name}' has dims {list(dims)}, so its first value has no size; "
                f"give it: --initial-state {tensor.name}=FILE.npy",
            )
        return InitialState("zeros", dims)
    if not path.is_file():
        raise RepositoryError(f"no such .npy file: {path}")
    try:
        array = np.load(path, allow_pickle=False)
        dtype = data_type_of(array).name
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise RepositoryError(f"{path} is no .npy file ({error}); save one with numpy") from error
    fits = array.ndim == len(dims) and all(
        want in (-1, have) for want, have in zip(dims, array.shape, strict=True)
    )
    if dtype != tensor.dtype.name or not fits:
        _refuse(
            model,
            f"{path} is {dtype}{list(array.shape)}; state '{tensor.name}' is {tensor.dtype.name}"
            f"{list(dims)}, without a batch",
        )
    files[place] = bytes(to_bytes(array, tensor.dtype))
    return InitialState(path.stem, array.shape, Path(place).name)


def _find(model: str, tensors: Mapping[str, ConfigTensor], name: str, what: str) -> ConfigTensor:
    if name not in tensors:
        _refuse(model, f"there is no {what} '{name}'; the model has {', '.join(tensors)}")
    return tensors[name]


def _without(tensors: tuple[ConfigTensor, ...], names: Iterable[str]) -> tuple[ConfigTensor, ...]:
    gone = set(names)
    return tuple(t for t in tensors if t.name not in gone)


def _refuse(model: str, what: str) -> NoReturn:
    raise RepositoryError(f"model '{model}': {what}")
