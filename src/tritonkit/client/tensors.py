"""Users' values → arrays that the model takes, or a TensorError that says what is wrong.

No value is ever changed to make it fit: numpy's "safe" casts, and Python numbers that the
model's dtype has exactly (floats: to its precision).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from tritonkit.binary import to_bytes
from tritonkit.client.spec import ModelSpec, no_such
from tritonkit.client.transport import Tensor
from tritonkit.client.values import MisfitError, convert
from tritonkit.errors import TensorError
from tritonkit.signature import TensorSpec


class Checked(NamedTuple):
    """Inputs that fit. Where nothing had to be changed an array is the user's own, or a view of it.

    arrays: in the model's order and its dtypes, all with the batch axis where the model batches;
    BYTES: objects of type bytes. rows: 1 for a model that does not batch. single_row: the batch
    axis was added here, and the answer is to lose it again.
    """

    arrays: dict[str, np.ndarray]
    rows: int
    single_row: bool


def check_inputs(
    spec: ModelSpec,
    given: object,
    named: Mapping[str, object],
    *,
    nan: Literal["send", "refuse"] = "send",
) -> Checked:
    """The model's inputs from `given` and the keyword arguments `named`. TensorError if they do
    not fit.

    given: None, a mapping of name to value, or the value of the only required input. A value: a
    number, str or bytes, a list or tuple of values, an array, or what numpy can see as one (a
    torch tensor on the CPU, anything with `__array__` or `__dlpack__`). If no input has the batch
    axis they are a single row. nan="refuse": so are NaN and infinity.
    """
    if type(given) is np.ndarray and not named and nan == "send" and _fits(given, spec):
        return Checked({spec.signature.inputs[0].name: given}, len(given), False)
    values = _by_name(spec, given, named)
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in spec.inputs.items():
        if name in values:
            value, want = values[name], tensor.dtype.numpy
            try:
                # The right array, which is what comes most often, is let through at once.
                if type(value) is np.ndarray and value.dtype == want and want.kind != "O":
                    array = value
                else:
                    array = convert(value, want, len(tensor.shape))
                _check_shape(array.shape, tensor, spec.batches)
                if nan == "refuse" and want.kind == "f":
                    _check_finite(array, tensor, spec.batches)
            except MisfitError as misfit:
                text = f"input '{name}' {misfit} (the model expects {tensor})"
                raise TensorError(f"{spec.label}: {text}") from misfit.__cause__
            arrays[name] = array
    if not spec.batches or not arrays:
        return Checked(arrays, 1, False)
    return _check_rows(spec, arrays)


def split(arrays: Mapping[str, np.ndarray], rows: int, size: int) -> list[dict[str, np.ndarray]]:
    """Parts of at most `size` rows, in order; views along axis 0 of arrays that have `rows`."""
    return [
        {name: array[start : start + size] for name, array in arrays.items()}
        for start in range(0, rows, size)
    ]


def join(
    parts: Sequence[Mapping[str, np.ndarray]], rows: Sequence[int] = ()
) -> dict[str, np.ndarray]:
    """The outputs of parts, at least one, put together along axis 0.

    rows: how many each part was sent with; every output must have as many. TensorError if the
    outputs differ in more than rows.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.keys() != first.keys():
            raise TensorError(
                f"outputs {', '.join(first)} came for some rows and {', '.join(part)} for others"
            )
    return {name: _join(name, [part[name] for part in parts], rows) for name in first}


def encode(arrays: Mapping[str, np.ndarray], spec: ModelSpec) -> tuple[Tensor, ...]:
    """Checked arrays, or parts of them, as they go over the wire. Contiguous ones are not copied:
    they must stay as they are until the request is sent.
    """
    tensors, inputs = [], spec.inputs
    for name, array in arrays.items():
        dtype = inputs[name].dtype
        tensors.append(Tensor(name, dtype.name, array.shape, to_bytes(array, dtype)))
    return tuple(tensors)


def _fits(array: np.ndarray, spec: ModelSpec) -> bool:
    """Whether it is the only input, with its batch axis, as it has to be: the commonest case, told
    apart at a fraction of what the whole check costs.
    """
    tensor = spec.only_input
    if tensor is None or not spec.batches or array.dtype is not tensor.dtype.numpy:
        return False
    shape = array.shape
    if len(shape) != len(tensor.shape) or not shape[0] or array.dtype.kind == "O":
        return False
    for size, dim in zip(shape, tensor.shape, strict=True):
        if size != dim and type(dim) is int:
            return False
    return True


def _by_name(spec: ModelSpec, given: object, named: Mapping[str, object]) -> Mapping[str, object]:
    """The values by input name: all of them known, none twice, none missing."""
    if type(given) is dict or isinstance(given, Mapping):
        values = given
    elif given is None:
        values = {}
    else:
        names = spec.required if len(spec.required) == 1 else tuple(spec.inputs)
        if len(names) != 1:
            raise TensorError(
                f"{spec.label}: one value for {len(names)} inputs; give them by name: "
                f"{_listed(spec.inputs.values())}"
            )
        values = {names[0]: given}
    if named:
        for name in named:
            if name in values:
                raise TensorError(f"{spec.label}: input '{name}' is given twice; give it once")
        values = {**values, **named}
    if not values.keys() <= spec.inputs.keys():
        name = next(name for name in values if name not in spec.inputs)
        raise TensorError(f"{spec.label}: {no_such('input', name, spec.inputs)}")
    for name in spec.required:
        if name not in values:
            what = f"input '{name}' is missing" if values else "no inputs are given"
            wanted = _listed(spec.inputs[n] for n in spec.required)
            raise TensorError(f"{spec.label}: {what}; the model needs {wanted}")
    return values


def _listed(tensors: Iterable[TensorSpec]) -> str:
    return ", ".join(map(str, tensors)) or "none"


def _check_shape(shape: tuple[int, ...], tensor: TensorSpec, batches: bool) -> None:
    """Whether `shape` is the tensor's, or where the model batches that of a row of it."""
    expected = tensor.shape
    if missing := len(expected) - len(shape):
        if missing != 1 or not batches:
            row = f", or {len(expected) - 1} for a single row" if batches else ""
            raise MisfitError(f"has shape {[*shape]}; it must have {len(expected)} dimensions{row}")
        expected = expected[1:]
    for want, size in zip(expected, shape, strict=True):
        if want != size and type(want) is int:
            axis = next(i for i, w in enumerate(expected) if w != shape[i] and type(w) is int)
            row = ", which makes it a single row" if missing else ""
            raise MisfitError(f"has shape {[*shape]}{row}; dimension {axis} must be {want}")


def _check_rows(spec: ModelSpec, arrays: dict[str, np.ndarray]) -> Checked:
    """All inputs have equally many rows, or all are without the batch axis, which is added."""
    rows, first = -1, ""
    for name, array in arrays.items():
        batched = array.ndim == len(spec.inputs[name].shape)
        size = len(array) if batched else 0
        if rows < 0:
            rows, first = size, name
        elif size != rows or batched != (arrays[first].ndim == len(spec.inputs[first].shape)):
            raise TensorError(
                f"{spec.label}: inputs '{first}' and '{name}' have shapes "
                f"{[*arrays[first].shape]} and {[*array.shape]}; both must have the same number "
                f"of rows, or be a single row (the model expects {_listed(spec.inputs.values())})"
            )
    if arrays[first].ndim < len(spec.inputs[first].shape):
        return Checked({name: array[np.newaxis] for name, array in arrays.items()}, 1, True)
    if rows == 0:
        raise TensorError(f"{spec.label}: the inputs have no rows; send at least one")
    return Checked(arrays, rows, False)


def _check_finite(array: np.ndarray, tensor: TensorSpec, batches: bool) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(np.argwhere(~finite)[0].tolist())
        batched = batches and array.ndim == len(tensor.shape)
        row = f" (row {index[0]})" if batched else ""
        raise MisfitError(f"has {array[index]} at {[*index]}{row}; NaN and infinity are refused")


def _join(name: str, arrays: list[np.ndarray], rows: Sequence[int]) -> np.ndarray:
    first = arrays[0]
    most = max(rows, default=len(first) if first.ndim else 1)
    for i, array in enumerate(arrays):
        if not array.ndim or (rows and len(array) != rows[i]):
            what = f"has shape {[*array.shape]}, which is not one row for each that was sent"
        elif array.shape[1:] != first.shape[1:] or array.dtype != first.dtype:
            what = (
                f"is {first.dtype}{[*first.shape]} for some rows and "
                f"{array.dtype}{[*array.shape]} for others"
            )
        else:
            continue
        raise TensorError(
            f"output '{name}' {what}; outputs of different sizes cannot be joined: "
            f"send at most {most} rows at once"
        )
    return np.concatenate(arrays) if len(arrays) > 1 else first
