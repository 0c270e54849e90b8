"""Calling a module by the names of its inputs, and naming what it returns."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from tritonkit.errors import ModelError
from tritonkit.export.foreign import quiet

if TYPE_CHECKING:
    import torch


def parameters(module: torch.nn.Module) -> list[inspect.Parameter]:
    """What `module.forward` takes, `self` left out. Empty where that cannot be seen."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        # Its Python signature is (*args, **kwargs) whatever it takes.
        try:
            arguments = module.forward.schema.arguments[1:]
        except (AttributeError, RuntimeError):  # no forward at all
            return []
        return [
            inspect.Parameter(
                argument.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=argument.default_value if argument.has_default_value() else _NO_DEFAULT,
            )
            for argument in arguments
        ]
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # a compiled forward may have no signature
        return []


T = TypeVar("T")
_NO_DEFAULT = inspect.Parameter.empty
_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def wanted(module: torch.nn.Module) -> list[str]:
    """The names of the inputs that `forward` cannot do without; if none, of its first."""
    named = [p for p in parameters(module) if p.kind in (*_BY_PLACE, *_BY_NAME)]
    return [p.name for p in named if p.default is _NO_DEFAULT] or [p.name for p in named[:1]]


def positional(module: torch.nn.Module) -> list[str]:
    """The names of what `forward` takes by place, in order."""
    return [p.name for p in parameters(module) if p.kind in _BY_PLACE]


def call_arguments(
    module: torch.nn.Module, inputs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`inputs` as (args, kwargs) for `module`: by name if `forward` knows the names, else in order.

    ModelError if it knows only some of them: then neither way is right.
    """
    import torch

    known = [p for p in parameters(module) if p.kind in (*_BY_PLACE, *_BY_NAME)]
    named = [p.name for p in known]
    strangers = [name for name in inputs if name not in named]
    if not strangers:
        # The exporter takes no keywords for TorchScript.
        script = isinstance(module, torch.jit.ScriptModule)
        if script or any(p.kind is inspect.Parameter.POSITIONAL_ONLY for p in known):
            return _in_order(known, inputs)
        return (), dict(inputs)
    if len(strangers) == len(inputs):
        return tuple(inputs.values()), {}
    raise ModelError(
        f"forward() has no parameter '{strangers[0]}' (it has {', '.join(sorted(named))}); "
        "name all inputs after its parameters, or none"
    )


def in_order(module: torch.nn.Module, inputs: Mapping[str, T]) -> dict[str, T]:
    """`inputs` as `forward` lists them, if it knows all their names: exporters number them so."""
    named = [p.name for p in parameters(module) if p.kind in (*_BY_PLACE, *_BY_NAME)]
    if not all(name in named for name in inputs):
        return dict(inputs)
    return {name: inputs[name] for name in named if name in inputs}


def _in_order(
    known: list[inspect.Parameter], inputs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    last = max(i for i, p in enumerate(known) if p.name in inputs)
    missing = [p.name for p in known[:last] if p.name not in inputs and p.default is _NO_DEFAULT]
    if missing:
        raise ModelError(f"forward() also needs '{missing[0]}'; give an input of that name")
    return tuple(inputs.get(p.name, p.default) for p in known[: last + 1]), {}


def named_outputs(result: object) -> dict[str, torch.Tensor]:
    """Every tensor in `result`, named by the way to it: `output` for a single one, else keys,
    fields and indices joined by `_`; what is None is left out.

    ModelError for anything else in it, and for two tensors of one name.
    """
    named: dict[str, torch.Tensor] = {}
    for path, tensor in _leaves(result, ()):
        if path and isinstance(path[0], int):
            path = ("output", *path)
        name = "_".join(map(str, path)) or "output"
        if name in named:
            raise ModelError(
                f"the module returns two outputs called '{name}'; call one of them otherwise"
            )
        named[name] = tensor
    if not named:
        raise ModelError(
            f"the module returns a {type(result).__name__} without any tensor; return a tensor, "
            "or a tuple or dict of tensors"
        )
    return named


def is_plain(result: object) -> bool:
    """Whether exporters give `result` the outputs that `named_outputs` finds, in its order."""
    import torch

    return isinstance(result, torch.Tensor) or (
        type(result) in (tuple, list) and all(isinstance(r, torch.Tensor) for r in result)  # type: ignore[attr-defined]
    )


def _leaves(value: object, path: tuple[object, ...]) -> Iterator[tuple[tuple[object, ...], Any]]:
    import torch

    if value is None:
        return
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):  # transformers' outputs are also dataclasses
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for field, inner in zip(value._fields, value, strict=True):
            yield from _leaves(inner, (*path, field))
    elif isinstance(value, tuple | list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for entry in dataclasses.fields(value):
            yield from _leaves(getattr(value, entry.name), (*path, entry.name))
    else:
        where = "_".join(map(str, path))
        what = f"has a {type(value).__name__} as '{where}'" if path else type(value).__name__
        raise ModelError(
            f"the module returns {'something that ' if path else 'a '}{what}; return a tensor, or "
            "a tuple or dict of tensors"
        )


def flattened(module: torch.nn.Module, inputs: Mapping[str, Any]) -> torch.nn.Module:
    """A module that takes what `module` takes and returns its outputs as one flat tuple.

    inputs: example tensors, to run TorchScript with: around that it has to be TorchScript too.
    """
    import torch

    class Flattened(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

            def forward(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
                return tuple(named_outputs(self.module(*args, **kwargs)).values())

            # Exporters read the names of the inputs off the signature.
            forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
                parameters(module) or list(inspect.signature(forward).parameters.values())
            )
            self.forward = forward

    flat = Flattened().eval()
    if not isinstance(module, torch.jit.ScriptModule):
        return flat
    with quiet():
        args, _ = call_arguments(module, inputs)
        return torch.jit.trace(flat, args, check_trace=False, strict=False)
