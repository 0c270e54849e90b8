"""Give an ONNX file with a fixed batch a dynamic one.

Exporters bake the batch of their example inputs into a file: into what it declares, and into the
constants of nodes (the shape of a Reshape, the end of a Slice, an LSTM's first state). Here the
nodes that hold it are found by running each on a larger batch, are mended, and the new file is
run against the old one before it is kept.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.check.tolerance import TOLERANCES, compare
from tritonkit.errors import ModelError
from tritonkit.export.batch_apply import BATCH, apply_mends
from tritonkit.export.batch_examples import different_examples
from tritonkit.export.batch_forms import forms
from tritonkit.export.batch_oracle import Oracle
from tritonkit.export.batch_search import HeldBatchError, Search
from tritonkit.signature import (
    ModelSignature,
    TensorSpec,
    external_files,
    read_signature,
)

if TYPE_CHECKING:
    import onnx

_EXAMPLES = 3
"""Batches that the old model is run on: enough to tell rows apart, and from most other sizes."""

_PROOF_BATCHES = (1, 2, 3, 7)


@dataclass(frozen=True)
class Rewrite:
    """What was done to a file.

    batch: the fixed batch that it had. changed: a line for each node that was changed, such as
    `Reshape 'node_12': shape [1, 12, 64] → [batch, 12, 64]`.
    """

    batch: int
    changed: tuple[str, ...]


def make_batch_dynamic(path: Path, target: Path, examples: Sequence[Arrays]) -> Rewrite:
    """Write `path` to `target` (and its external data beside it) with a batch that may change.

    examples: three or more different inputs that the model takes as it is, of the same shapes.
    The new file has been run at several batches, and gives each row what the old one gives it.
    ModelError otherwise, with the node that holds the batch, and nothing at `target`.
    """
    signature = read_signature(path)
    batch = _fixed_batch(path, signature)
    for location in external_files(path):
        if (target.parent / location).resolve() == target.resolve():
            raise ModelError(f"{target}: the external data of {path} goes there; give another name")
    opened = OnnxModel(path)
    examples = different_examples(path, opened, signature, examples[:_EXAMPLES], _EXAMPLES)
    remedy = _export_line(signature)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".rewritten-", dir=target.parent) as temporary:
        new = Path(temporary) / "new" / target.name
        try:
            changed = _rewrite(path, new, examples)
            _prove(opened, new, examples, batch)
        except HeldBatchError as error:
            raise ModelError(
                f"{path}: its batch is fixed at {batch} by {error.holder}: it {error.why}; {remedy}"
            ) from error
        except _WrongRowsError as error:
            raise ModelError(
                f"{path}: with a batch other than {batch} {error}; {remedy}"
            ) from error
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error
        _put_data(path, target, Path(temporary))
        new.replace(target)
    return Rewrite(batch, tuple(changed))


def _fixed_batch(path: Path, signature: ModelSignature) -> int:
    """The fixed size that all inputs begin with."""
    first: TensorSpec | None = None
    for spec in signature.inputs:
        size = spec.shape[0] if spec.shape else None
        if not isinstance(size, int) or size < 1:
            what = f"has the batch '{size}' already" if size else "has no batch"
            raise ModelError(
                f"{path}: input {spec} {what}, so there is no fixed batch of all inputs to make "
                "dynamic; export the model with the batch as axis 0 of every input"
            )
        if first is not None and size != first.shape[0]:
            raise ModelError(
                f"{path}: inputs {first} and {spec} do not begin with the same size, which would "
                "be the batch; export the model with the batch as axis 0 of every input"
            )
        first = first or spec
    if first is None:
        raise ModelError(f"{path} has no inputs, so there is nothing to batch; give another model")
    return int(first.shape[0])


def _put_data(path: Path, target: Path, temporary: Path) -> None:
    """Have the external data of the model `path` beside `target` too, where it may be already.

    Copied, for onnx refuses to read a file that has several hard links.
    """
    for location, data in external_files(path).items():
        place = target.parent / location
        if place.exists() and place.samefile(data):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data, temporary / "data").replace(place)


def _export_line(signature: ModelSignature) -> str:
    axes = "{" + ", ".join(f"{spec.name!r}: {{0: '{BATCH}'}}" for spec in signature.inputs) + "}"
    return (
        f"if it is a PyTorch model, export it with torch.onnx.export(…, dynamic_shapes={axes}), "
        f"or, with dynamo=False, dynamic_axes={axes}"
    )


def _rewrite(path: Path, new: Path, examples: Sequence[Arrays]) -> list[str]:
    """Write the model at `path`, mended, to `new`; the lines for Rewrite."""
    data = external_files(path)
    held: HeldBatchError | None = None
    for count, model in enumerate(forms(path)):
        form = new.parent.with_name(f"form-{count}") / new.name
        _save(model, form, data)
        try:
            oracle = Oracle(form, examples)
            plan = Search(model, oracle).mends()
        except HeldBatchError as error:
            held = held or error
        except ModelError:
            if held is None:
                raise
        else:
            changed = apply_mends(model, oracle, plan)
            _save(model, new, data)
            return changed
    assert held is not None  # the first form is always there
    raise held


def _save(model: onnx.ModelProto, path: Path, data: Mapping[str, Path]) -> None:
    import onnx

    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    for location, file in data.items():
        _link_or_copy(file, path.parent / location)


class _WrongRowsError(ModelError):
    """The new file does not answer as the old one does."""


def _prove(old: OnnxModel, path: Path, examples: Sequence[Arrays], batch: int) -> None:
    """Run the new model too: each row of any batch must get what a batch of its copies got."""
    rows = [
        {name: array[index : index + 1] for name, array in example.items()}
        for index in range(batch)
        for example in examples
    ][: max(_PROOF_BATCHES)]
    expected = [
        old.run({name: np.repeat(array, batch, axis=0) for name, array in row.items()})
        for row in rows
    ]
    # Also as it is written: an optimisation may replace a wrong shape by one that fits.
    for optimise in (False, True):
        try:
            new = OnnxModel(path, optimise=optimise)
        except ModelError as error:
            raise _WrongRowsError("it cannot be loaded") from error
        for count in sorted({*_PROOF_BATCHES, batch}):
            chosen = [(count + place) % len(rows) for place in range(count)]
            inputs = {n: np.concatenate([rows[i][n] for i in chosen]) for n in rows[0]}
            try:
                got = new.run(inputs)
            except ModelError as error:
                raise _WrongRowsError(f"it fails: {error}") from error
            _require_rows(got, [expected[i] for i in chosen])


def _require_rows(got: Arrays, expected: Sequence[Arrays]) -> None:
    """_WrongRowsError unless each row of a batch is what is expected (in row 0 there) for it."""
    count = len(expected)
    for name, array in got.items():
        if array.shape[:1] != (count,):
            raise _WrongRowsError(
                f"output '{name}' has shape {list(array.shape)} for a batch of {count}"
            )
        for place, wanted in enumerate(expected):
            difference = compare(wanted[name][:1], array[place : place + 1], TOLERANCES)
            if difference.differs:
                raise _WrongRowsError(
                    f"output '{name}' is another for row {place} of {count} than for that row "
                    f"among copies of itself ({difference.worst})"
                )


def _link_or_copy(source: Path, target: Path) -> None:
    """Have `source` also at `target`: without a copy of its bytes where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
