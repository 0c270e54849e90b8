"""What a user may hand over as a model, turned into one of two checked things.

A factory is a function without arguments that returns one of

    module                              its inputs are then given beside it (`--input`)
    (module, inputs)
    (module, inputs, output_names)
    TorchModel(module, inputs, dynamic_axes={…}, output_names=…)

`inputs` are examples: a dict from input name to a tensor or array, or what `forward` takes by
place. Files are told apart by their content: torch.export programs, TorchScript and ONNX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tritonkit.errors import InputError, ModelError
from tritonkit.export.factory import call_factory, factories_in
from tritonkit.export.inputs import BATCH, Examples, read_examples
from tritonkit.export.model_file import kind_of
from tritonkit.export.program import load_program
from tritonkit.export.torch_model import (
    TorchModel,
    TorchSource,
    name_outputs,
    no_inputs,
    of_rows,
    own_examples,
    refuse_text,
    run_module,
    torch_source,
)
from tritonkit.export.torchscript import load_script
from tritonkit.payloads import Payload
from tritonkit.signature import data_type_of, read_signature

__all__ = [
    "BATCH",
    "OnnxSource",
    "Source",
    "TorchModel",
    "TorchSource",
    "load_source",
    "torch_source",
]

_KINDS = "package.module:factory, path/file.py:factory, or a .pt2, TorchScript or .onnx file"


@dataclass(frozen=True)
class OnnxSource:
    """A model that is ONNX already. text: what the user wrote; path: the file.

    requests: single requests that `--input` gave, and where they are from; none: empty.
    """

    text: str
    path: Path
    requests: tuple[Payload, ...] = ()
    origin: str = ""


Source = TorchSource | OnnxSource


def load_source(
    text: str,
    *,
    inputs: Sequence[str] = (),
    output_names: Sequence[str] = (),
    opset: int | None = None,
) -> Source:
    """The model that `text` names. ModelError if it cannot be had.

    inputs: as `--input` takes them (see inputs.py), instead of the model's own examples.
    InputError if these cannot be read. opset: of the ONNX file to be written.
    """
    given = read_examples(inputs) if inputs else None
    names = tuple(output_names) or None
    path = Path(text)
    if path.suffix == ".py":
        raise _python_file(text, path)
    if _is_file(path):
        kind = kind_of(path)
        if kind == "program":
            return _program_source(text, given, names, opset)
        if kind == "script":
            script = TorchModel(load_script(path), None, output_names=names)
            return torch_source(script, text, given, opset=opset, against="the TorchScript module")
        if names is not None or opset is not None:
            option = "--output-name" if names is not None else "--opset"
            raise InputError(f"{text} is ONNX already and is kept as it is; leave out {option}")
        return _onnx_source(text, path, given)
    if ":" in text:
        model = _as_torch_model(text, call_factory(text))
        if names is not None:
            model = replace(model, output_names=names)
        return torch_source(model, text, given, opset=opset)
    if _exists(path):
        raise ModelError(f"{text} is no regular file; give {_KINDS}")
    if path.suffix or len(path.parts) > 1:
        raise ModelError(f"no such model file: {path}; check the path")
    raise ModelError(f"'{text}' is no model source; give {_KINDS}")


def _is_file(path: Path) -> bool:
    return _exists(path) and path.is_file()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name
        return False


def _python_file(text: str, path: Path) -> ModelError:
    if not _is_file(path):
        return ModelError(f"no such Python file: {path}; check the path")
    has = " or ".join(f"{text}:{name}" for name in factories_in(path)[:5])
    return ModelError(
        f"{text} is a Python file; name the function in it that makes the model: "
        f"{has or f'{text}:FUNCTION'}"
    )


def _as_torch_model(text: str, made: object) -> TorchModel:
    import torch

    if isinstance(made, TorchModel):
        return made
    if isinstance(made, torch.nn.Module):
        return TorchModel(made, None)
    if isinstance(made, tuple) and len(made) in (2, 3):
        module, inputs, *names = made
        return TorchModel(module, inputs, output_names=names[0] if names else None)
    raise ModelError(
        f"{text} returned a {type(made).__name__}; return (module, example inputs), "
        "(module, example inputs, output names), a TorchModel, or a module and give --input"
    )


def _program_source(
    text: str, given: Examples | None, names: tuple[str, ...] | None, opset: int | None
) -> TorchSource:
    program = load_program(Path(text))
    if given is None:
        if program.examples is None:
            raise no_inputs(f"{text} holds no example inputs", program.inputs)
        given = own_examples(text, program.module, program.examples)
    elif set(given.inputs) != set(program.inputs):
        raise ModelError(
            f"{text} takes {', '.join(program.inputs)}, but --input gives "
            f"{', '.join(given.inputs)}; name them alike"
        )
    refuse_text(text, given.inputs)
    inputs = {name: given.inputs[name] for name in program.inputs}
    axes = program.axes_for(inputs, given.dynamic_axes)
    low, high = program.rows
    result = run_module(
        text, program.module, of_rows(inputs, max(low, min(2, high or 2))), given.origin
    )
    return TorchSource(
        text=text,
        module=program.module,
        inputs=inputs,
        dynamic_axes=axes,
        output_names=name_outputs(text, inputs, result, names),
        requests=tuple({name: r[name] for name in inputs} for r in given.requests),
        origin=given.origin,
        rows=program.rows,
        exported=program.exported,
        opset=opset,
        against="the exported program",
    )


def _onnx_source(text: str, path: Path, given: Examples | None) -> OnnxSource:
    signature = read_signature(path)
    if given is None:
        return OnnxSource(text, path)
    specs = {spec.name: spec for spec in signature.inputs}
    if set(given.inputs) != set(specs):
        raise ModelError(
            f"{text} takes {', '.join(map(str, specs.values()))}, but --input gives "
            f"{', '.join(given.inputs)}; name them alike"
        )
    for name, array in given.inputs.items():
        spec = specs[name]
        fits = len(spec.shape) == array.ndim and all(
            isinstance(dim, str) or dim == size
            for dim, size in zip(spec.shape[1:], array.shape[1:], strict=True)
        )
        if not fits or data_type_of(array) != spec.dtype:
            raise ModelError(
                f"{text}: --input '{name}' is {array.dtype}[batch, "
                f"{', '.join(map(str, array.shape[1:]))}], but the model takes {spec}; convert it"
            )
    requests = tuple({name: request[name] for name in specs} for request in given.requests)
    return OnnxSource(text, path, requests, given.origin)
