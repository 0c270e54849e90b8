"""What a user may hand over as a model, turned into one of two checked things.

A factory is a function without arguments that returns one of

    (module, inputs)
    (module, inputs, output_names)
    TorchModel(module, inputs, dynamic_axes={…}, output_names=…)

`inputs` are examples: a dict from input name to a tensor or array of at least two rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tritonkit.check.onnx_model import Arrays
from tritonkit.check.parity import DynamicAxes
from tritonkit.errors import ModelError, describe
from tritonkit.export.factory import call_factory
from tritonkit.export.foreign import quiet
from tritonkit.signature import data_type_of, load_onnx

if TYPE_CHECKING:
    import torch

BATCH = "batch"
"""The name of axis 0 of every tensor."""

_KINDS = "package.module:factory, path/file.py:factory or model.onnx"


@dataclass(frozen=True)
class TorchModel:
    """What a factory may return when a pair is not enough.

    inputs: example inputs, name → tensor or array; all with the same number (≥ 2) of rows.
      They are passed to `module` by name where its `forward` has parameters of these names, and
      in the dict's order where it has none of them.
    dynamic_axes: further axes whose size may change; axis 0 always does, and is not listed. Axes
      of one name always have one size.
    output_names: names of what `module` returns. Left out: the keys of a dict, `output` for one
      tensor, `output_0`, `output_1`, … for several.
    """

    module: torch.nn.Module
    inputs: Mapping[str, Any]
    dynamic_axes: DynamicAxes | None = None
    output_names: Sequence[str] | None = None


@dataclass(frozen=True)
class TorchSource:
    """A checked PyTorch model: `module` is in eval mode on the CPU and runs on `inputs`.

    text: what the user wrote. inputs: example arrays. dynamic_axes: without axis 0.
    """

    text: str
    module: torch.nn.Module
    inputs: Arrays
    dynamic_axes: DynamicAxes
    output_names: tuple[str, ...]

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The module's own answer, output name → array. ModelError if it raises."""
        return _run_module(self.text, self.module, inputs, self.output_names)


@dataclass(frozen=True)
class OnnxSource:
    """A model that is ONNX already. text: what the user wrote; path: the file."""

    text: str
    path: Path


Source = TorchSource | OnnxSource


def load_source(text: str) -> Source:
    """The model that `text` names: a factory, or an ONNX file. ModelError if it cannot be had."""
    if text.endswith(".onnx"):
        load_onnx(Path(text))
        return OnnxSource(text, Path(text))
    if ":" in text:
        return torch_source(_as_torch_model(text, call_factory(text)), text)
    kind = Path(text).suffix
    if kind in (".pt2", ".pt", ".pth", ".torchscript", ".safetensors"):
        raise ModelError(f"{text}: {kind} files are not read yet; give {_KINDS}")
    raise ModelError(f"'{text}' is no model source; give {_KINDS}")


def torch_source(model: TorchModel, text: str) -> TorchSource:
    """Check `model` by running it on its own example inputs. ModelError says what is wrong.

    `model.module` is put in eval mode and on the CPU.
    """
    import torch

    if not isinstance(model.module, torch.nn.Module):
        raise ModelError(
            f"{text} gave a {type(model.module).__name__} as its module; return a torch.nn.Module"
        )
    inputs = _check_inputs(text, model.inputs)
    axes = _check_axes(text, inputs, model.dynamic_axes or {})
    module = model.module.eval().to("cpu")
    names = None if model.output_names is None else tuple(model.output_names)
    outputs = _run_module(text, module, inputs, names)
    for name in outputs.keys() & inputs.keys():
        raise ModelError(f"{text}: '{name}' is both an input and an output; rename the output")
    return TorchSource(text, module, inputs, axes, tuple(outputs))


def call_arguments(
    module: torch.nn.Module, inputs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`inputs` as (args, kwargs) for `module`: by name if `forward` knows the names, else in order.

    ModelError if it knows only some of them: then neither way is right.
    """
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # a compiled forward may have no signature
        parameters = ()  # type: ignore[assignment]
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    strangers = [name for name in inputs if name not in named]
    if not strangers:
        return (), dict(inputs)
    if len(strangers) == len(inputs):
        return tuple(inputs.values()), {}
    raise ModelError(
        f"forward() has no parameter '{strangers[0]}' (it has {', '.join(sorted(named))}); "
        "name all inputs after its parameters, or none"
    )


def _as_torch_model(text: str, made: object) -> TorchModel:
    if isinstance(made, TorchModel):
        return made
    if isinstance(made, tuple) and len(made) in (2, 3):
        module, inputs, *names = made
        return TorchModel(module, inputs, output_names=names[0] if names else None)
    raise ModelError(
        f"{text} returned a {type(made).__name__}; return (module, example inputs), "
        "(module, example inputs, output names) or a TorchModel"
    )


def _check_inputs(text: str, inputs: object) -> dict[str, np.ndarray]:
    if not isinstance(inputs, Mapping) or not inputs:
        raise ModelError(f"{text} gave no example inputs; return a dict of name to tensor")
    arrays = {name: _to_array(text, f"input '{name}'", value) for name, value in inputs.items()}
    rows = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    for name, count in rows.items():
        if count < 2:
            raise ModelError(
                f"{text}: example input '{name}' has shape {list(arrays[name].shape)}; its first "
                "axis is the batch and needs 2 rows or more, for the exporter to see that it varies"
            )
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"'{name}' {count}" for name, count in rows.items())
        raise ModelError(f"{text}: example inputs differ in rows ({counts}); give all the same")
    return arrays


def _check_axes(text: str, inputs: Arrays, axes: DynamicAxes) -> dict[str, dict[int, str]]:
    sizes: dict[str, int] = {}
    for name, named in axes.items():
        if name not in inputs:
            raise ModelError(f"{text}: dynamic_axes names '{name}', which is no input")
        for axis, dim in named.items():
            if dim == BATCH or not 0 < axis < inputs[name].ndim:
                raise ModelError(
                    f"{text}: dynamic axis {axis} ('{dim}') of '{name}' cannot be; the batch is "
                    f"axis 0 and not listed, further ones are 1 to {inputs[name].ndim - 1}"
                )
            size = inputs[name].shape[axis]
            if size < 2 or sizes.setdefault(dim, size) != size:
                raise ModelError(
                    f"{text}: dynamic axis {axis} ('{dim}') of example '{name}' has size {size}; "
                    f"give examples of one size, 2 or more, wherever '{dim}' is named"
                )
    return {name: dict(named) for name, named in axes.items()}


def _run_module(
    text: str, module: torch.nn.Module, inputs: Arrays, names: tuple[str, ...] | None
) -> dict[str, np.ndarray]:
    import torch

    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in inputs.items()}
    args, kwargs = call_arguments(module, tensors)
    try:
        with torch.no_grad(), quiet():
            result = module(*args, **kwargs)
    except Exception as error:
        shapes = ", ".join(f"{name}{list(a.shape)}" for name, a in inputs.items())
        raise ModelError(
            f"{text}: the module fails on {shapes} ({describe(error)}); mend the module or its "
            "example inputs"
        ) from error
    named = _name_outputs(text, result, names)
    return {name: _to_array(text, f"output '{name}'", value) for name, value in named.items()}


def _name_outputs(text: str, result: object, names: tuple[str, ...] | None) -> dict[str, object]:
    import torch

    if isinstance(result, Mapping):
        values = {str(name): value for name, value in result.items()}
    elif isinstance(result, torch.Tensor):
        values = {"output": result}
    elif isinstance(result, tuple | list) and result:
        values = {f"output_{i}": value for i, value in enumerate(result)}
    else:
        raise ModelError(
            f"{text}: the module returns a {type(result).__name__}; return a tensor, a tuple or a "
            "dict of tensors"
        )
    if names is None:
        return values
    if len(set(names)) != len(values):
        raise ModelError(
            f"{text}: output_names are {list(names)} for a module that returns {len(values)}; "
            "give each output one name of its own"
        )
    return dict(zip(names, values.values(), strict=True))


def _to_array(text: str, what: str, value: object) -> np.ndarray:
    """A private CPU array of a dtype that Triton carries."""
    import torch

    try:
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        if not isinstance(array, np.ndarray):
            raise ModelError(f"it is a {type(array).__name__}, not a tensor or array")
        if data_type_of(array).name == "BYTES":
            raise ModelError("it holds strings, which torch has not")
    except (TypeError, ModelError) as error:  # TypeError: bfloat16 and the like, unknown to numpy
        raise ModelError(f"{text}: {what} cannot be used ({error}); convert it") from error
    return array.copy()
