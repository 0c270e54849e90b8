"""Example inputs by which the rows of a batch can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.errors import ModelError
from tritonkit.signature import ModelSignature


def different_examples(
    path: Path, model: OnnxModel, signature: ModelSignature, examples: Sequence[Arrays], count: int
) -> list[Arrays]:
    """The examples, varied. ModelError unless there are `count`, alike in shape but different."""
    names = {spec.name for spec in signature.inputs}
    for example in examples:
        if set(example) != names:
            raise ModelError(
                f"{path}: an example has inputs {sorted(example)}, the model {sorted(names)}; "
                "name them alike"
            )
        for name, array in example.items():
            if array.shape != examples[0][name].shape:
                shapes = f"{list(examples[0][name].shape)} and {list(array.shape)}"
                raise ModelError(
                    f"{path}: examples of '{name}' have shapes {shapes}; give some of one shape"
                )
    if examples:
        examples = _varied(model, examples)
    if len(examples) < count or all(_equal(example, examples[0]) for example in examples):
        raise ModelError(
            f"{path}: to tell its rows apart {count} example inputs that differ are needed; "
            "give more payloads"
        )
    return list(examples)


def _varied(model: OnnxModel, examples: Sequence[Arrays]) -> Sequence[Arrays]:
    """The examples, with no input the same in all of them if `model` takes another.

    A mask of ones in each would hide that rows get each other's. So the ends of such an input
    become 0 (or 1 where they are), unless the model then fails, or gives what is no number.
    """
    for name, first in examples[0].items():
        if all(np.array_equal(example[name], first) for example in examples):
            changed = [
                {**example, name: _with_other_end(first, place, len(examples))}
                for place, example in enumerate(examples)
            ]
            if all(_takes(model, example) for example in changed):
                examples = changed
    return examples


def _equal(one: Arrays, other: Arrays) -> bool:
    return all(np.array_equal(array, other[name]) for name, array in one.items())


def _with_other_end(array: np.ndarray, place: int, count: int) -> np.ndarray:
    """Example 0 stays as it is, and the end of each next one that changes is longer."""
    if not array.ndim or array.dtype.kind not in "biuf" or not place:
        return array
    end = max(1, array.shape[-1] * place // count)
    changed = array.copy()
    changed[..., -end:] = changed[..., -end:] == 0
    return changed


def _takes(model: OnnxModel, inputs: Arrays) -> bool:
    try:
        outputs = model.run(inputs)
    except ModelError:
        return False
    return all(a.dtype.kind != "f" or bool(np.isfinite(a).all()) for a in outputs.values())
