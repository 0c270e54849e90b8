"""One value that a user gave for an input → an array of the input's dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NoReturn

import numpy as np

_DLPACK_IN_MAIN_MEMORY = (1, 3, 11)  # kDLCPU, and what CUDA and ROCm pin there
_LISTS = (list, tuple)
_NUMBERS = frozenset((bool, int, float))
_TEXTS = frozenset((str, bytes))

# The Python numbers that each kind of dtype takes.
_TAKES: dict[str, frozenset[type]] = {
    "b": frozenset((bool,)),
    "i": frozenset((int,)),
    "u": frozenset((int,)),
    "f": frozenset((int, float)),
}
# Up to here a float dtype has every int.
_INT_LIMITS = {"float16": 2**11, "float32": 2**24, "float64": 2**53}


class MisfitError(Exception):
    """What is wrong with a value, in words that follow "input 'x'"."""


def convert(value: Any, want: np.dtype, rank: int) -> np.ndarray:
    """The value as an array of dtype `want` (`O`: objects of type bytes), or MisfitError.

    rank: how deep lists may be nested.
    """
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
            raise MisfitError("has masked elements; fill them: .filled(…)")
        return _cast(np.asarray(value), want)
    if isinstance(value, _LISTS):
        return _from_lists(value, want, rank)
    if isinstance(value, str | bytes) or type(value) in _NUMBERS:
        return _from_python([value], want, ())
    if _is_array_like(value):
        return _cast(_view(value), want)
    if isinstance(value, int | float):
        return _from_python([int(value) if isinstance(value, int) else float(value)], want, ())
    remedy = "leave it out" if value is None else "give an array, or a list of numbers or text"
    raise MisfitError(f"is of type {type(value).__name__}; {remedy}")


def owned(value: Any) -> Any:
    """A copy that stays as it is when the caller uses the array anew. What is no array, nor a
    collection of some, is returned as it is.
    """
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {name: owned(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [owned(v) for v in value]
    if _is_array_like(value):
        with suppress(MisfitError):  # the check of the inputs will say so, and why
            return _view(value).copy()
    return value


def _is_array_like(value: object) -> bool:
    return hasattr(value, "__array__") or hasattr(value, "__dlpack__")


def _view(value: Any) -> np.ndarray:
    """What numpy sees in a foreign array; without torch or the like being imported."""
    try:
        if hasattr(value, "__dlpack_device__"):
            device = int(value.__dlpack_device__()[0])
            if device not in _DLPACK_IN_MAIN_MEMORY:
                where = getattr(value, "device", f"DLPack device {device}")
                raise MisfitError(f"is on {where}; move it to the CPU: .cpu()")
        if getattr(value, "requires_grad", False):
            value = value.detach()
        return np.asarray(value) if hasattr(value, "__array__") else np.from_dlpack(value)
    except MisfitError:
        raise
    except Exception as error:  # it is foreign code, and may raise anything
        what = f"{type(value).__name__} of {getattr(value, 'dtype', 'unknown dtype')}"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MisfitError(f"cannot be seen as a numpy array ({what}): {reason}") from error


def _cast(array: np.ndarray, want: np.dtype) -> np.ndarray:
    """The array in dtype `want` if every value stays what it is."""
    have = array.dtype
    if want.kind == "O":
        if have.kind not in "OSUT":
            raise MisfitError(f"has dtype {have}; give str or bytes")
        return _texts(array.astype(np.object_, copy=False))
    if have == want:
        return array
    if have.kind == "O" or not np.can_cast(have, want, "safe"):
        raise MisfitError(
            f"has dtype {have}, which does not fit into {want} without loss; "
            f"convert it to {want} first, if it may be"
        )
    cast = array.astype(want)
    # numpy calls these casts safe, though a double has 53 bits.
    if have.kind in "iu" and have.itemsize == 8 and want.kind == "f" and array.size:
        limit = _INT_LIMITS[want.name]
        if not -limit <= int(array.min()) <= int(array.max()) <= limit:
            _check_exact(array.ravel().tolist(), want, array.shape)
    return cast


def _texts(array: np.ndarray) -> np.ndarray:
    """An object array of bytes from one of str and bytes."""
    elements = array.ravel().tolist()
    if set(map(type, elements)) <= {bytes}:
        return array
    encoded = np.empty(len(elements), np.object_)
    for i, element in enumerate(elements):
        if isinstance(element, str):
            try:
                encoded[i] = element.encode()
            except UnicodeEncodeError:
                _refuse(i, array.shape, "is no valid text (half a surrogate pair); give bytes")
        elif isinstance(element, bytes):
            encoded[i] = bytes(element)
        else:
            _refuse(i, array.shape, f"is of type {type(element).__name__}; give str or bytes")
    return encoded.reshape(array.shape)


def _from_lists(value: Sequence[Any], want: np.dtype, rank: int) -> np.ndarray:
    """An array from nested lists, whose leaves may be arrays themselves."""
    shape, leaves = [len(value)], list(value)
    types = set(map(type, leaves))
    while any(issubclass(t, _LISTS) for t in types):
        sizes = sorted({len(leaf) for leaf in leaves if isinstance(leaf, _LISTS)})
        if len(sizes) > 1 or not all(issubclass(t, _LISTS) for t in types):
            other = f"{sizes[-1]} elements" if len(sizes) > 1 else "elements that are no lists"
            raise MisfitError(
                f"is ragged: at depth {len(shape)} there are lists of {sizes[0]} elements and "
                f"{other}; make them equally long"
            )
        if len(shape) >= rank:  # and it may contain itself
            raise MisfitError(f"is nested more than {rank} deep")
        shape.append(sizes[0])
        leaves = list(chain.from_iterable(leaves))
        types = set(map(type, leaves))
    if types <= _NUMBERS or types <= _TEXTS:
        return _from_python(leaves, want, tuple(shape))
    return _from_mixed(leaves, want, tuple(shape))


def _from_mixed(leaves: list[Any], want: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Leaves of which some are arrays, numpy's numbers, or of no use."""
    arrays = []
    for i, leaf in enumerate(leaves):
        try:
            arrays.append(convert(leaf, want, 0))
        except MisfitError as misfit:
            raise MisfitError(f"has an element{_index(i, shape)} that {misfit}") from misfit
        if arrays[i].shape != arrays[0].shape:
            raise MisfitError(
                f"is ragged: the element{_index(i, shape)} has shape {[*arrays[i].shape]}, "
                f"the first one {[*arrays[0].shape]}"
            )
    return np.stack(arrays).reshape(shape + arrays[0].shape)


def _from_python(leaves: list[Any], want: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """An array of bools, ints and floats, or of str and bytes."""
    types = set(map(type, leaves))
    if want.kind == "O":
        array = np.empty(len(leaves), np.object_)
        array[:] = leaves
        return _texts(array.reshape(shape))
    takes = _TAKES[want.kind]
    if not types <= takes:
        i = next(i for i, leaf in enumerate(leaves) if type(leaf) not in takes)
        wanted = " or ".join(sorted(t.__name__ for t in takes))
        _refuse(i, shape, f"is of type {type(leaves[i]).__name__}; give {wanted}")
    if want.kind == "f":
        if int in types:
            _check_exact(leaves, want, shape)
        return _from_floats(leaves, want, shape)
    try:
        return np.array(leaves, want).reshape(shape)
    except OverflowError:
        least, most = int(np.iinfo(want).min), int(np.iinfo(want).max)
        i = next(i for i, leaf in enumerate(leaves) if not least <= leaf <= most)
        _refuse(i, shape, f"is {_shown(leaves[i])}; {want} has {least} to {most}")


def _from_floats(leaves: list[Any], want: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """An array of floats, which are rounded, and ints."""
    wide = np.array(leaves, np.float64)
    with np.errstate(over="ignore"):
        array = wide.astype(want, copy=False)
    if (lost := np.isinf(array) & np.isfinite(wide)).any():
        i = int(lost.argmax())
        _refuse(i, shape, f"is {leaves[i]}, too large for {want}")
    return array.reshape(shape)


def _check_exact(numbers: list[Any], want: np.dtype, shape: tuple[int, ...]) -> None:
    """Whether the float dtype `want` has each int among `numbers` exactly."""
    limit = _INT_LIMITS[want.name]
    for i, number in enumerate(numbers):
        if type(number) is int and not -limit <= number <= limit:
            try:
                with np.errstate(over="ignore"):
                    exact = int(want.type(float(number))) == number
            except OverflowError:
                exact = False
            if not exact:
                _refuse(i, shape, f"is {_shown(number)}, which {want} cannot hold exactly")


def _shown(number: int) -> str:
    """In digits, unless there are very many, which Python itself refuses to write."""
    bits = number.bit_length()
    return str(number) if bits <= 128 else f"a number of {bits} bits"


def _refuse(i: int, shape: tuple[int, ...], what: str) -> NoReturn:
    """MisfitError of the element that is the i-th, row-major; or of a value that has no shape."""
    raise MisfitError(f"has an element{_index(i, shape)} that {what}" if shape else what)


def _index(i: int, shape: tuple[int, ...]) -> str:
    return f" at {[int(n) for n in np.unravel_index(i, shape)]}" if shape else ""
