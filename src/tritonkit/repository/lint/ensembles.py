"""Rules about ensembles: steps that are other models, and tensors that flow between them.

As ValidateEnsembleSchedulingConfig() and ValidateEnsembleConfig() in Triton's core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.repository.lint.entry import ENSEMBLE, Entry
from tritonkit.repository.lint.problem import Finding

_REFUSED = "Triton does not load the ensemble"


def ensemble_settings(entry: Entry) -> Iterator[Finding]:
    """An ensemble without its platform or steps, or with what only models have."""
    config = entry.message
    if not entry.is_ensemble:
        return
    steps = entry.line("ensemble_scheduling")
    if config.platform != ENSEMBLE:
        what = f"ensemble_scheduling under platform '{config.platform}'"
        yield Finding(steps, what, _REFUSED, f'write platform: "{ENSEMBLE}"')
    elif not config.ensemble_scheduling.step:
        what = f"platform is '{ENSEMBLE}' and there are no steps"
        yield Finding(steps, what, _REFUSED, "write ensemble_scheduling { step [ … ] }")
    there = {
        "backend": config.backend,
        "instance_group": config.instance_group,
        "optimization": config.HasField("optimization"),
        "model_warmup": config.model_warmup,
    }
    for field in there:
        if there[field]:
            remedy = f"take {field} out; the models of its steps have their own"
            yield Finding(entry.line(field), f"{field} of an ensemble", _REFUSED, remedy)


def ensemble_step(entry: Entry) -> Iterator[Finding]:
    """A step without a model, or whose model or version is not in the repository."""
    for i, step in enumerate(entry.message.ensemble_scheduling.step):
        where = ("ensemble_scheduling", "step", i)
        for field in ("model_name", "input_map", "output_map"):
            if not getattr(step, field):
                what = f"step {i} has no {field}"
                yield Finding(entry.line(*where), what, _REFUSED, f"write its {field}")
        if not step.model_name:
            continue
        at = entry.line(*where, "model_name")
        other = entry.sibling(step.model_name)
        if step.model_name == entry.name:
            what = f"step {i} is the ensemble itself"
            yield Finding(at, what, _REFUSED, "name another model")
        elif not (entry.folder.parent / step.model_name).is_dir() or "/" in step.model_name:
            what = f"step {i}: there is no model '{step.model_name}' in {entry.folder.parent}"
            yield Finding(at, what, _REFUSED, "put it there, or name another")
        elif other and step.model_version > 0 and step.model_version not in other.versions.chosen:
            what = f"step {i}: '{step.model_name}' does not serve version {step.model_version}"
            at = entry.line(*where, "model_version")
            yield Finding(at, what, _REFUSED, "write -1 for its newest, or a version that it has")


def ensemble_map(entry: Entry) -> Iterator[Finding]:
    """A step that maps tensors its model does not have, or leaves inputs of it out."""
    for i, step, other in _steps(entry):
        where = ("ensemble_scheduling", "step", i)
        for side, tensors in (("input", other.message.input), ("output", other.message.output)):
            if not tensors:
                continue  # left to auto-complete
            known = {tensor.name for tensor in tensors}
            mapped = getattr(step, f"{side}_map")
            for name in sorted(set(mapped) - known):
                at = entry.line(*where, f"{side}_map", name, "key")
                what = f"step {i}: model '{other.name}' has no {side} '{name}'"
                remedy = f"write one of {', '.join(sorted(known))}"
                yield Finding(at, what, _REFUSED, remedy)
        for tensor in other.message.input:
            if not tensor.optional and tensor.name not in step.input_map:
                at = entry.line(*where, "input_map")
                what = f"step {i}: input '{tensor.name}' of model '{other.name}' is not mapped"
                yield Finding(at, what, _REFUSED, "write an input_map for it")


def ensemble_flow(entry: Entry) -> Iterator[Finding]:
    """A tensor of an ensemble that nothing writes, nothing reads, or two steps write."""
    config = entry.message
    steps = config.ensemble_scheduling.step
    if not entry.is_ensemble or not steps:
        return
    at = entry.line("ensemble_scheduling")
    inputs = [tensor.name for tensor in config.input]
    outputs = [tensor.name for tensor in config.output]
    read = {value for step in steps for value in step.input_map.values()}
    ready, written = set(inputs), set[str]()
    for i, step in enumerate(steps):
        for key, value in step.output_map.items():
            if value in written:
                line = entry.line("ensemble_scheduling", "step", i, "output_map", key, "value")
                what = f"tensor '{value}' is written twice"
                yield Finding(line, what, _REFUSED, "give each output its own name")
            written.add(value)
    waiting = list(steps)
    while True:
        runs = [set(step.input_map.values()) <= ready for step in waiting]
        if not any(runs):
            break
        for step, can_run in zip(waiting, runs, strict=True):
            ready |= set(step.output_map.values()) if can_run else set()
        waiting = [step for step, can_run in zip(waiting, runs, strict=True) if not can_run]
    for i, name in enumerate(inputs):
        if name not in read | written:
            what = f"no step takes the input '{name}'"
            yield Finding(entry.line("input", i), what, _REFUSED, "map it, or take it out")
    for i, name in enumerate(outputs):
        if name not in ready:
            what = f"no step that can run writes the output '{name}'"
            yield Finding(entry.line("output", i), what, _REFUSED, "map it, or take it out")
    for name in sorted((read | written) - set(outputs)):
        if name not in ready:
            what = f"nothing that can run writes the tensor '{name}'"
            yield Finding(at, what, _REFUSED, "let a step or an input of the ensemble give it")
        elif name not in read:
            what = f"nothing reads the tensor '{name}'"
            remedy = "take it out of the output_map, or make it an output"
            yield Finding(at, what, _REFUSED, remedy)


def ensemble_tensor(entry: Entry) -> Iterator[Finding]:
    """A tensor that the models on its two sides do not give the same type or dims."""
    tensors: dict[str, _Tensor] = {}
    if not entry.is_ensemble:
        return
    for side in ("input", "output"):
        for tensor in getattr(entry.message, side):
            dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
            tensors[tensor.name] = _tensor(entry, tensor.data_type, dims)
    for i, step, other in _steps(entry):
        sides = (("input", other.message.input), ("output", other.message.output))
        for side, theirs in sides:
            for tensor in theirs:
                mapped = getattr(step, f"{side}_map")
                if tensor.name not in mapped:
                    continue
                name = mapped[tensor.name]
                new = _tensor(other, tensor.data_type, tensor.dims)
                old = tensors.setdefault(name, new)
                if not old.agrees(new):
                    where = ("ensemble_scheduling", "step", i, f"{side}_map", tensor.name)
                    what = f"tensor '{name}' is {old}, and {new}"
                    remedy = "let both have the same type and dims"
                    yield Finding(entry.line(*where), what, _REFUSED, remedy)


def ensemble_batch_size(entry: Entry) -> Iterator[Finding]:
    """An ensemble with a max_batch_size beyond that of one of its models."""
    most = entry.message.max_batch_size
    theirs = {other.name: other.message.max_batch_size for _, _, other in _steps(entry)}
    least = min((size for size in theirs.values() if size > 0), default=most)
    if least < most:
        names = [name for name, size in theirs.items() if size == least]
        yield Finding(
            entry.line("max_batch_size"),
            f"max_batch_size is {most}, and model '{names[0]}' has {least}",
            _REFUSED,
            f"write max_batch_size: {least} or less",
        )


@dataclass(frozen=True)
class _Tensor:
    """A tensor as one model sees it. full: dims with the batch dimension, if it has one."""

    model: str
    data_type: int
    dims: tuple[int, ...]
    full: tuple[int, ...]

    def agrees(self, other: _Tensor) -> bool:
        """The type is the same, and the dims with or without the batch dimension."""
        return self.data_type == other.data_type and (
            _compatible(self.dims, other.dims) or _compatible(self.full, other.full)
        )

    def __str__(self) -> str:
        known = self.data_type in schema.DataType.values()
        name = schema.DataType.Name(self.data_type) if known else self.data_type
        return f"{name} {list(self.full)} in '{self.model}'"


def _tensor(entry: Entry, data_type: int, dims: Any) -> _Tensor:
    batch = (-1,) if entry.message.max_batch_size > 0 else ()
    return _Tensor(entry.name, data_type, tuple(dims), (*batch, *dims))


def _compatible(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(one) == len(other) and all(
        -1 in (a, b) or a == b for a, b in zip(one, other, strict=True)
    )


def _steps(entry: Entry) -> Iterator[tuple[int, Any, Entry]]:
    """The steps whose model has a config that can be read."""
    for i, step in enumerate(entry.message.ensemble_scheduling.step):
        other = entry.sibling(step.model_name) if step.model_name != entry.name else None
        if other:
            yield i, step, other
