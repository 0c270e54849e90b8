"""A PyTorch module as one ONNX file, by whichever of torch's exporters gets it right."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tritonkit.check.onnx_model import OnnxModel
from tritonkit.check.parity import Parity, check_parity
from tritonkit.errors import CheckFailedError, ModelError, describe
from tritonkit.export.foreign import quiet
from tritonkit.export.forward import call_arguments
from tritonkit.export.inputs import BATCH
from tritonkit.export.torch_model import TorchSource, as_tensors, of_rows
from tritonkit.signature import read_signature

_ONE_FILE_BYTES = 2_000_000_000
"""Weights above this go to files of their own: protobuf ends at 2 GiB."""

_REASON_LENGTH = 240
"""Exporters explain at length; the first words say it."""


@dataclass(frozen=True)
class TorchExport:
    """Which exporter wrote the file (`dynamo` or `torchscript`; `…, fixed batch`), why that one,
    and the proof.

    fixed_batch: the one batch size that the file takes; it has then to be rewritten for others,
    and `check_export` to be called on what comes of it: parity is None. None: it takes any.
    """

    exporter: str
    why: str
    parity: Parity | None
    fixed_batch: int | None = None


def torch_to_onnx(source: TorchSource, path: Path) -> TorchExport:
    """Write `source` to `path`, in a folder that holds nothing else, and prove it right.

    The dynamo exporter is tried first; the older TorchScript one where dynamo fails or its file
    does not answer what the module answers; and where only a dynamic batch is too much for them,
    a file of a fixed batch is written. ModelError if no exporter takes the module;
    CheckFailedError if the last file that could be written answers something else.
    """
    failures: list[tuple[str, CheckFailedError | _ExportFailed]] = []
    for road in _roads(source):
        rescue = road.source.fixed_batch is not None and source.fixed_batch is None
        if rescue and isinstance(failures[0][1], CheckFailedError):
            break  # a dynamic batch was not what was wrong
        try:
            noticed, parity = _export(road, path)
        except (CheckFailedError, _ExportFailed) as error:
            failures.append((road.name, error))
            for file in path.parent.iterdir():
                file.unlink()
            continue
        why = "; ".join([*(_failure(*failure) for failure in failures), *noticed])
        return TorchExport(road.name, why or road.reason, parity, road.source.fixed_batch)
    raise _refusal(source, failures)


def check_export(source: TorchSource, path: Path) -> Parity:
    """Compare the file with what `source` answers, in batches. CheckFailedError if they differ."""
    return check_parity(
        OnnxModel(path),
        source.inputs,
        source.run,
        against=source.against,
        remedy="take randomness and branches on values out of the module, or give a .onnx file",
        dynamic_axes=source.dynamic_axes,
    )


class _ExportFailed(Exception):
    """An exporter raised, or wrote a file that is not valid."""


@dataclass(frozen=True)
class _Road:
    """One way to a file. source: its fixed_batch says whether the file's batch is fixed.

    write: writes the file, and returns what a reader of the verification should know of it.
    """

    name: str
    reason: str
    source: TorchSource
    write: Callable[[TorchSource, Path], Sequence[str] | None]


def _roads(source: TorchSource) -> list[_Road]:
    """The ways to try, best first."""
    import torch

    if source.exported is not None:
        program = _Road("dynamo", "the exporter of programs", source, _by_dynamo)
        return [program if source.fixed_batch is None else _fixed(program, source)]
    script = isinstance(source.module, torch.jit.ScriptModule)
    dynamo = _Road("dynamo", "the default exporter", source, _by_dynamo)
    torchscript = _Road("torchscript", "the exporter of TorchScript", source, _by_torchscript)
    roads = [torchscript] if script else [dynamo, torchscript]
    if source.fixed_batch is not None:
        return [_fixed(road, source) for road in roads]
    return [*roads, _fixed(roads[0], replace(source, rows=(1, 1)))]


def _fixed(road: _Road, source: TorchSource) -> _Road:
    reason = f"it takes batches of {source.fixed_batch} only"
    return _Road(f"{road.name}, fixed batch", reason, source, road.write)


def _failure(name: str, error: CheckFailedError | _ExportFailed) -> str:
    verb = "was wrong" if isinstance(error, CheckFailedError) else "failed"
    return f"the {name} exporter {verb}: {textwrap.shorten(f'{error}', _REASON_LENGTH)}"


def _refusal(
    source: TorchSource, failures: Sequence[tuple[str, CheckFailedError | _ExportFailed]]
) -> ModelError | CheckFailedError:
    """What to raise when every road failed."""
    wrong = [failure for failure in failures if isinstance(failure[1], CheckFailedError)]
    if not wrong:
        told: list[str] = []
        for index, (name, error) in enumerate(failures):
            # A third try with a fixed batch has mostly nothing new to say.
            if index < 2 or f"{error}" not in (f"{earlier}" for _, earlier in failures[:index]):
                told.append(f"{name}: {error}")
        remedy = "take such code out of forward(), or give a .onnx file"
        if source.opset is not None:
            remedy = f"choose another opset than {source.opset}, or {remedy}"
        return ModelError(
            f"{source.text}: no exporter takes the module; {'; '.join(told)}; {remedy}"
        )
    others = [_failure(*failure) for failure in failures if failure not in wrong]
    if len(failures) > 1 and not others:
        others = ["both exporters tried"]
    return CheckFailedError(f"{wrong[-1][1]}" + (f" ({'; '.join(others)})" if others else ""))


def _export(road: _Road, path: Path) -> tuple[Sequence[str], Parity | None]:
    import onnx

    source = road.source
    try:
        with quiet():
            noticed = road.write(source, path) or ()
            # By its path: a model above 2 GiB cannot be checked in memory.
            onnx.checker.check_model(path)
        OnnxModel(path)
    except Exception as error:
        reason = " ".join(describe(_root(error)).split())
        raise _ExportFailed(textwrap.shorten(reason, _REASON_LENGTH, placeholder=" …")) from error
    _require_opset(source, path)
    signature = read_signature(path)
    if source.fixed_batch is not None:
        return noticed, None
    if any(not s.shape or isinstance(s.shape[0], int) for s in signature.inputs):
        raise _ExportFailed(f"it fixed the batch: {', '.join(map(str, signature.inputs))}")
    for tensor in signature.without_batch_axis():
        raise ModelError(
            f"{source.text}: tensor {tensor} has no batch axis (its first size is another); "
            "move the batch to the front in forward(), or do not return it"
        )
    return noticed, check_export(source, path)


def _require_opset(source: TorchSource, path: Path) -> None:
    import onnx

    written = onnx.load(path, load_external_data=False).opset_import
    versions = [entry.version for entry in written if entry.domain in ("", "ai.onnx")]
    if source.opset is not None and versions != [source.opset]:
        raise _ExportFailed(f"it writes opset {versions[0]}, and cannot write {source.opset}")


def _root(error: BaseException) -> BaseException:
    """The first exception of a chain: exporters wrap it in pages of general advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _by_dynamo(source: TorchSource, path: Path) -> None:
    import torch
    from onnx_ir.passes.common import NameFixPass

    axes = _all_axes(source)
    dims = {d: torch.export.Dim(d) for named in axes.values() for d in named.values()}
    shapes = {name: {a: dims[d] for a, d in named.items()} for name, named in axes.items()}
    if source.exported is None:
        args, kwargs = call_arguments(source.module, as_tensors(_example_rows(source)))
    else:
        args, kwargs = (), {}  # it has its sizes; the shapes only name them
    program = torch.onnx.export(
        source.exported or source.module,
        args,
        kwargs=kwargs,
        dynamo=True,
        verbose=False,
        input_names=list(source.inputs),
        output_names=list(source.output_names),
        opset_version=source.opset,
        dynamic_shapes=shapes if kwargs else tuple(shapes.values()),
    )
    # The exporter gives outputs their names without a look at the graph inside: an output
    # `embedding` beside an inner value `embedding` is an invalid file.
    NameFixPass()(program.model)
    program.save(path, external_data=_weight_bytes(source) > _ONE_FILE_BYTES)


def _by_torchscript(source: TorchSource, path: Path) -> Sequence[str]:
    import onnx
    import torch

    outputs = _output_axes(source)
    args, kwargs = call_arguments(source.module, as_tensors(_example_rows(source)))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        torch.onnx.export(
            source.module,
            args,
            str(path),  # as a Path it will not do above 2 GiB
            kwargs=kwargs,
            dynamo=False,
            input_names=list(source.inputs),
            output_names=list(source.output_names),
            opset_version=source.opset,
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
    if _weight_bytes(source) > _ONE_FILE_BYTES:
        _gather_weights(path)
    branches = any("to a Python boolean" in str(w.message) for w in warned)
    return ["forward() branches on values or sizes: the file always goes the examples' way"][
        :branches
    ]


def _gather_weights(path: Path) -> None:
    """Move all weights to one file beside the model: above 2 GiB the exporter writes many."""
    import onnx

    model = onnx.load(path)
    for file in path.parent.iterdir():
        file.unlink()
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")


def _all_axes(source: TorchSource) -> dict[str, dict[int, str]]:
    batch = {} if source.fixed_batch else {0: BATCH}
    return {name: {**batch, **source.dynamic_axes.get(name, {})} for name in source.inputs}


def _output_axes(source: TorchSource) -> dict[str, tuple[tuple[int, ...], dict[int, str]]]:
    """Output name → its shape on the examples, and the axes that change with the inputs'.

    Found by running the module with one row more, and with each named dimension cut to half.
    """
    inputs = _example_rows(source)
    usual = source.run(inputs)
    axes: dict[str, dict[int, str]] = {name: {} for name in usual}
    cases = []
    if source.fixed_batch is None:
        cases.append((BATCH, of_rows(inputs, len(next(iter(inputs.values()))) + 1)))
    for dim in sorted({d for named in source.dynamic_axes.values() for d in named.values()}):
        cut = dict(inputs)
        for name, named in source.dynamic_axes.items():
            for axis in (a for a, d in named.items() if d == dim):
                cut[name] = cut[name].take(range(cut[name].shape[axis] // 2), axis=axis)
        cases.append((dim, cut))
    for dim, changed in cases:
        rows = len(next(iter(changed.values())))
        for name, array in source.run(changed).items():
            for axis, size in enumerate(array.shape):
                if size != usual[name].shape[axis]:
                    is_other = dim == BATCH and size != rows  # such as two for each row
                    axes[name].setdefault(axis, f"{name}_dim_{axis}" if is_other else dim)
    return {name: (array.shape, axes[name]) for name, array in usual.items()}


def _example_rows(source: TorchSource) -> dict[str, Any]:
    count = source.fixed_batch or len(next(iter(source.inputs.values())))
    return of_rows(source.inputs, count)


def _weight_bytes(source: TorchSource) -> int:
    tensors = (*source.module.parameters(), *source.module.buffers())
    return sum(t.numel() * t.element_size() for t in tensors)
