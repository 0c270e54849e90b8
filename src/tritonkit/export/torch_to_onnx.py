"""A PyTorch module as one ONNX file, by whichever of torch's two exporters gets it right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonkit.check.onnx_model import OnnxModel
from tritonkit.check.parity import Parity, check_parity
from tritonkit.errors import CheckFailedError, ModelError, describe
from tritonkit.export.foreign import quiet
from tritonkit.export.source import BATCH, TorchSource, call_arguments
from tritonkit.signature import read_signature

_ONE_FILE_BYTES = 2_000_000_000
"""Weights above this go to files of their own: protobuf ends at 2 GiB."""


@dataclass(frozen=True)
class TorchExport:
    """Which exporter wrote the file (`dynamo` or `torchscript`), why that one, and the proof."""

    exporter: str
    why: str
    parity: Parity


def torch_to_onnx(source: TorchSource, path: Path) -> TorchExport:
    """Write `source` to `path`, in a folder that holds nothing else, and prove it right.

    The dynamo exporter is tried first; the older TorchScript one where dynamo fails or its file
    does not answer what the module answers. ModelError if neither can export the module;
    CheckFailedError if the last file that could be written answers something else.
    """
    try:
        return TorchExport("dynamo", "the default exporter", _export(source, path, _by_dynamo))
    except (CheckFailedError, _ExportFailed) as error:
        first = error
    for file in path.parent.iterdir():
        file.unlink()
    verb = "was wrong" if isinstance(first, CheckFailedError) else "failed"
    why = f"the dynamo exporter {verb}: {first}"
    try:
        return TorchExport("torchscript", why, _export(source, path, _by_torchscript))
    except CheckFailedError as error:
        if isinstance(first, CheckFailedError):
            raise CheckFailedError(f"{error} (both exporters tried)") from error
        raise CheckFailedError(f"{error} ({why})") from error
    except _ExportFailed as error:
        if isinstance(first, CheckFailedError):
            raise first from error
        raise ModelError(
            f"{source.text}: no exporter takes the module; dynamo: {first}; torchscript: {error}"
        ) from error


class _ExportFailed(Exception):
    """An exporter raised, or wrote a file that is not valid."""


def _export(source: TorchSource, path: Path, write: Callable[[TorchSource, Path], None]) -> Parity:
    import onnx

    try:
        with quiet():
            write(source, path)
            onnx.checker.check_model(path)
        model = OnnxModel(path)
    except Exception as error:
        raise _ExportFailed(describe(_root(error))) from error
    read_signature(path).require_batch_axis(source.text)
    return check_parity(
        model,
        source.inputs,
        source.run,
        against="PyTorch",
        remedy="take randomness and branches on values out of the module, or give a .onnx file",
        dynamic_axes=source.dynamic_axes,
    )


def _root(error: BaseException) -> BaseException:
    """The first exception of a chain: exporters wrap it in pages of general advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _by_dynamo(source: TorchSource, path: Path) -> None:
    import torch
    from onnx_ir.passes.common import NameFixPass

    names = {BATCH, *(d for named in source.dynamic_axes.values() for d in named.values())}
    dims = {name: torch.export.Dim(name) for name in names}
    shapes = {
        name: {0: dims[BATCH]} | {axis: dims[d] for axis, d in named.items()}
        for name, named in _all_axes(source).items()
    }
    args, kwargs = call_arguments(source.module, _tensors(source))
    program = torch.onnx.export(
        source.module,
        args,
        kwargs=kwargs,
        dynamo=True,
        verbose=False,
        input_names=list(source.inputs),
        output_names=list(source.output_names),
        dynamic_shapes=shapes if kwargs else tuple(shapes.values()),
    )
    # The exporter gives outputs their names without a look at the graph inside: an output
    # `embedding` beside an inner value `embedding` is an invalid file.
    NameFixPass()(program.model)
    program.save(path, external_data=_weight_bytes(source) > _ONE_FILE_BYTES)


def _by_torchscript(source: TorchSource, path: Path) -> None:
    import onnx
    import torch

    outputs = _output_axes(source)
    args, kwargs = call_arguments(source.module, _tensors(source))
    torch.onnx.export(
        source.module,
        args,
        path,
        kwargs=kwargs,
        dynamo=False,
        input_names=list(source.inputs),
        output_names=list(source.output_names),
        dynamic_axes=_all_axes(source) | {name: axes for name, (_, axes) in outputs.items()},
    )
    # It gives sizes that it cannot follow invented names; what never changed has a size.
    model = onnx.load(path, load_external_data=False)
    for value in model.graph.output:
        shape, axes = outputs[value.name]
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis not in axes:
                dim.dim_value = shape[axis]
    onnx.save(model, path)


def _all_axes(source: TorchSource) -> dict[str, dict[int, str]]:
    return {name: {0: BATCH, **source.dynamic_axes.get(name, {})} for name in source.inputs}


def _output_axes(source: TorchSource) -> dict[str, tuple[tuple[int, ...], dict[int, str]]]:
    """Output name → its shape on the examples, and the axes that change with the inputs'.

    Found by running the module with each named dimension cut to half.
    """
    usual = source.run(source.inputs)
    axes = {name: {0: BATCH} for name in usual}
    for dim in sorted({d for named in source.dynamic_axes.values() for d in named.values()}):
        cut = dict(source.inputs)
        for name, named in source.dynamic_axes.items():
            for axis in (a for a, d in named.items() if d == dim):
                cut[name] = cut[name].take(range(cut[name].shape[axis] // 2), axis=axis)
        for name, array in source.run(cut).items():
            for axis, size in enumerate(array.shape):
                if size != usual[name].shape[axis]:
                    axes[name].setdefault(axis, dim)
    return {name: (array.shape, axes[name]) for name, array in usual.items()}


def _tensors(source: TorchSource) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(array.copy()) for name, array in source.inputs.items()}


def _weight_bytes(source: TorchSource) -> int:
    tensors = (*source.module.parameters(), *source.module.buffers())
    return sum(t.numel() * t.element_size() for t in tensors)
