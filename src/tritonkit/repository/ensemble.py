"""Ensembles: models one after the other in the server, what one gives going to the next.

Sources of what is refused: ValidateEnsembleConfig() in triton-inference-server/core,
src/ensemble_utils.cc, and ValidateEnsembleSchedulingConfig() in src/model_config_utils.cc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.errors import RepositoryError
from tritonkit.repository import pbtxt
from tritonkit.repository.config import ModelConfig, require_model_name
from tritonkit.repository.layout import (
    is_ensemble,
    model_names,
    read_config,
    read_text,
    write_entry,
)
from tritonkit.repository.tensors import ConfigTensor

PLATFORM = "ensemble"

# The folder of an ensemble has a version, as a model's, with nothing in it.
VERSION = 1


@dataclass(frozen=True)
class Step:
    """One model of an ensemble. inputs, outputs: its own tensors → tensors of the ensemble."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Ensemble:
    """An ensemble's configuration. max_batch_size: at most that of every step; 0 if one of them
    cannot be batched, and then the dims have the batch in them.
    """

    name: str
    inputs: tuple[ConfigTensor, ...]
    outputs: tuple[ConfigTensor, ...]
    max_batch_size: int
    steps: tuple[Step, ...]


def encode_ensemble(ensemble: Ensemble) -> str:
    """The text of its config.pbtxt."""
    message = schema.ModelConfig(name=ensemble.name, platform=PLATFORM)
    message.max_batch_size = ensemble.max_batch_size
    pbtxt.set_tensors(message.input, ensemble.inputs)
    pbtxt.set_tensors(message.output, ensemble.outputs)
    for step in ensemble.steps:
        message.ensemble_scheduling.step.add(
            model_name=step.model,
            model_version=-1,
            input_map=dict(step.inputs),
            output_map=dict(step.outputs),
        )
    return str(text_format.MessageToString(message))


def decode_ensemble(text: str, where: str, folder: str = "") -> Ensemble:
    """The ensemble of a config.pbtxt. RepositoryError, which names `where`, if it is none."""
    message = pbtxt.parse(text, where)
    if not pbtxt.is_ensemble(message):
        raise RepositoryError(f"{where}: is no ensemble; it has no ensemble_scheduling")
    return Ensemble(
        name=message.name or folder,
        inputs=pbtxt.read_tensors(message.input, where),
        outputs=pbtxt.read_tensors(message.output, where),
        max_batch_size=message.max_batch_size,
        steps=tuple(
            Step(step.model_name, dict(step.input_map), dict(step.output_map))
            for step in message.ensemble_scheduling.step
        ),
    )


def ensemble_models(repository: Path, name: str) -> list[str]:
    """The models that serving `name` takes: itself, and all that are steps of it, once each."""
    needed, left = [], [name]
    while left:
        model = left.pop(0)
        if model not in needed:
            needed.append(model)
            if is_ensemble(repository, model):
                left += [step.model for step in _read(repository, model).steps]
    return needed


def package_ensemble(
    repository: Path,
    name: str,
    steps: Sequence[str],
    maps: Sequence[tuple[str, str]] = (),
    max_batch_size: int | None = None,
) -> Path:
    """Write an ensemble of models that are in the repository; returns its version's folder.

    steps and maps: as of `connect`. RepositoryError for what does not fit; nothing is written then.
    """
    require_model_name(name)
    if name in steps:
        raise RepositoryError(f"the ensemble '{name}' cannot be a step of itself; rename it")
    known = model_names(repository)
    if name in known and not is_ensemble(repository, name):
        raise RepositoryError(
            f"{repository / name} is a model, not an ensemble; give the ensemble another --name"
        )
    models = []
    for step in steps:
        require_model_name(step)
        if step not in known:
            raise RepositoryError(
                f"no model '{step}' in {repository} (it has {', '.join(known)}); package it first"
            )
        if name in ensemble_models(repository, step):
            raise RepositoryError(f"'{step}' has the ensemble '{name}' among its own steps")
        reads = _read if is_ensemble(repository, step) else read_config
        models.append(reads(repository, step))
    ensemble = connect(name, models, maps, max_batch_size)
    return write_entry(repository, name, encode_ensemble(ensemble), {}, version=VERSION, beside={})


def connect(
    name: str,
    models: Sequence[ModelConfig | Ensemble],
    maps: Sequence[tuple[str, str]] = (),
    max_batch_size: int | None = None,
) -> Ensemble:
    """Join models, in the order in which they run, into an ensemble.

    An input takes the output of its name of the last step before it that has one; where there is
    none it is an input of the ensemble. The outputs of the steps whose outputs no other takes are
    the ensemble's. maps say otherwise, as (from, to): `("tokenizer.ids", "ranker.input_ids")`. A
    side without a step is a tensor of the ensemble: `("text", "tokenizer.TEXT")` names an input,
    `("ranker.score", "relevance")` an output.
    max_batch_size: None takes the least of the steps.
    """
    return _Wiring(name, models, maps, max_batch_size).ensemble()


def _read(repository: Path, name: str) -> Ensemble:
    path, text = read_text(repository, name)
    return decode_ensemble(text, str(path), name)


_Side = Literal["inputs", "outputs"]


@dataclass(frozen=True)
class _End:
    """A tensor of a step; with no step, an input of the ensemble."""

    step: int | None
    side: _Side
    tensor: str


class _Wiring:
    """The tensors of an ensemble while it is put together."""

    def __init__(
        self,
        name: str,
        models: Sequence[ModelConfig | Ensemble],
        maps: Sequence[tuple[str, str]],
        max_batch_size: int | None,
    ):
        self._name = name
        self._models = models
        self._names = [model.name for model in models]
        for model in self._names:
            if self._names.count(model) > 1:
                raise self._refusal(f"the step '{model}' is there twice; name each model once")
        if len(models) < 2:
            raise self._refusal("an ensemble has two steps or more")
        least = min(models, key=lambda model: model.max_batch_size)
        if max_batch_size is not None and max_batch_size > least.max_batch_size:
            raise self._refusal(
                f"max_batch_size {max_batch_size} is more than the {least.max_batch_size} of its "
                f"step '{least.name}'"
            )
        self._rows = least.max_batch_size if max_batch_size is None else max_batch_size
        self._sources: dict[_End, _End] = {}
        self._renamed: dict[_End, str] = {}
        for source, target in maps:
            self._add_map(source, target)

    def ensemble(self) -> Ensemble:
        """The whole. RepositoryError for what does not fit together."""
        for index, model in enumerate(self._models):
            for tensor in model.inputs:
                self._connect(index, tensor.name)
            self._require_connected(index)
        outputs = self._outputs()
        inputs = self._inputs()
        for name in outputs:
            if name in inputs:
                raise self._refusal(
                    f"'{name}' is both an input and an output of it; rename one: "
                    f"--map {self._says(outputs[name])}=NAME"
                )
        return Ensemble(
            name=self._name,
            inputs=tuple(self._outer(n, ends) for n, ends in inputs.items()),
            outputs=tuple(self._outer(n, [end]) for n, end in outputs.items()),
            max_batch_size=self._rows,
            steps=tuple(self._step(index, outputs) for index in range(len(self._models))),
        )

    def _add_map(self, source: str, target: str) -> None:
        start = self._end(source, "outputs")
        end = self._end(target, "inputs")
        if end.step is None:
            if start.step is None:
                raise self._refusal(f"--map {source}={target} names no step; use STEP.TENSOR")
            if start in self._renamed:
                raise self._refusal(f"the output {source} has two names; give it one")
            self._renamed[start] = end.tensor
            return
        if end in self._sources:
            raise self._refusal(f"the input {target} is mapped twice; map it once")
        if start.step is not None and start.step >= end.step:
            raise self._refusal(
                f"--map {source}={target} goes backwards; a step takes what steps before it give"
            )
        self._sources[end] = start

    def _end(self, text: str, side: _Side) -> _End:
        """`step.tensor`, or a name of the ensemble's own. Names of steps may have dots in them."""
        for step in sorted(self._names, key=len, reverse=True):
            if text.startswith(f"{step}."):
                index, tensor = self._names.index(step), text.removeprefix(f"{step}.")
                known = [t.name for t in self._tensors(index, side)]
                if tensor not in known:
                    raise self._refusal(
                        f"step '{step}' has no {side[:-1]} '{tensor}'; it has {', '.join(known)}"
                    )
                return _End(index, side, tensor)
        if not text or "." in text:
            raise self._refusal(
                f"--map: '{text}' is no tensor of a step, and a name of the ensemble's own has no "
                f"dots; the steps are {', '.join(self._names)}"
            )
        return _End(None, side, text)

    def _connect(self, index: int, tensor: str) -> None:
        """Find where an input comes from, and refuse what does not fit there."""
        here = _End(index, "inputs", tensor)
        if here not in self._sources:
            before = [
                step
                for step in range(index)
                if any(t.name == tensor for t in self._tensors(step, "outputs"))
            ]
            self._sources[here] = _End(before[-1] if before else None, "outputs", tensor)
        source = self._sources[here]
        others = [source] if source.step is not None else self._inputs()[source.tensor]
        for other in others:
            if not _fit(self._tensor(other), self._tensor(here)):
                raise self._refusal(
                    f"{self._says(other)} is {_described(self._tensor(other))} and "
                    f"{self._says(here)} is {_described(self._tensor(here))}; they are one tensor "
                    "and do not fit"
                )

    def _require_connected(self, index: int) -> None:
        """A step that shares nothing with those before it was meant to be joined by --map."""
        mine = [
            self._sources[_End(index, "inputs", t.name)] for t in self._tensors(index, "inputs")
        ]
        earlier = {source for end, source in self._sources.items() if (end.step or 0) < index}
        if index and not any(s.step is not None or s in earlier for s in mine):
            given = [
                f"{self._names[step]}.{t.name}"
                for step in range(index)
                for t in self._models[step].outputs
            ]
            wanted = [f"{self._names[index]}.{t.name}" for t in self._models[index].inputs]
            raise self._refusal(
                f"step '{self._names[index]}' takes nothing from the steps before it; they give "
                f"{', '.join(given)}, it takes {', '.join(wanted)}; join them: "
                f"--map {given[-1]}={wanted[0]}"
            )

    def _inputs(self) -> dict[str, list[_End]]:
        """The ensemble's inputs, and which inputs of steps each goes to."""
        found: dict[str, list[_End]] = {}
        for end, source in self._sources.items():
            if source.step is None:
                found.setdefault(source.tensor, []).append(end)
        return found

    def _outputs(self) -> dict[str, _End]:
        """The ensemble's outputs, and which output of a step each is."""
        taken = {source.step for source in self._sources.values()}
        outer: dict[str, _End] = {}
        for index, model in enumerate(self._models):
            for tensor in model.outputs:
                end = _End(index, "outputs", tensor.name)
                if index in taken and end not in self._renamed:
                    continue
                name = self._renamed.get(end, tensor.name)
                if name in outer:
                    raise self._refusal(
                        f"{self._says(outer[name])} and {self._says(end)} would both be its "
                        f"output '{name}'; rename one: --map {self._says(end)}=NAME"
                    )
                outer[name] = end
        return outer

    def _step(self, index: int, outputs: Mapping[str, _End]) -> Step:
        """What Triton is told of one step: outputs that nobody takes are left out."""
        outer = {end: name for name, end in outputs.items()}
        taken = set(self._sources.values())
        inputs = {}
        for tensor in self._models[index].inputs:
            source = self._sources[_End(index, "inputs", tensor.name)]
            inputs[tensor.name] = (
                source.tensor if source.step is None else outer.get(source, self._says(source))
            )
        given = [_End(index, "outputs", t.name) for t in self._tensors(index, "outputs")]
        return Step(
            model=self._names[index],
            inputs=inputs,
            outputs={
                end.tensor: outer.get(end, self._says(end))
                for end in given
                if end in outer or end in taken
            },
        )

    def _outer(self, name: str, ends: Sequence[_End]) -> ConfigTensor:
        """A tensor of the ensemble. Of the dims of all that it is, a fixed one counts."""
        tensors = [self._tensor(end) for end in ends]
        dims = tuple(max(sizes) for sizes in zip(*(t.dims for t in tensors), strict=True))
        return ConfigTensor(name, tensors[0].dtype, dims[1:] if self._rows else dims)

    def _tensors(self, index: int, side: _Side) -> tuple[ConfigTensor, ...]:
        model = self._models[index]
        return model.inputs if side == "inputs" else model.outputs

    def _tensor(self, end: _End) -> ConfigTensor:
        """A step's tensor as it goes over the wire, with the batch if it has one."""
        assert end.step is not None
        (tensor,) = (t for t in self._tensors(end.step, end.side) if t.name == end.tensor)
        batch = (-1,) if self._models[end.step].max_batch_size > 0 else ()
        return ConfigTensor(tensor.name, tensor.dtype, (*batch, *tensor.wire_dims))

    def _says(self, end: _End) -> str:
        return end.tensor if end.step is None else f"{self._names[end.step]}.{end.tensor}"

    def _refusal(self, what: str) -> RepositoryError:
        return RepositoryError(f"ensemble '{self._name}': {what}")


def _fit(one: ConfigTensor, other: ConfigTensor) -> bool:
    return (
        one.dtype == other.dtype
        and len(one.dims) == len(other.dims)
        and all(a == b or -1 in (a, b) for a, b in zip(one.dims, other.dims, strict=True))
    )


def _described(tensor: ConfigTensor) -> str:
    return f"{tensor.dtype.name}[{','.join(map(str, tensor.dims))}]"
