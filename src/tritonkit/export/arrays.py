"""Arrays in .npy and .npz files, read without ever unpickling anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tritonkit.errors import InputError, ModelError
from tritonkit.payloads import are_payloads, read_numpy, read_payloads
from tritonkit.signature import data_type_of


def read_arrays(path: Path) -> np.ndarray | dict[str, list[np.ndarray]]:
    """The array of a .npy; or name → arrays of a .npz: one each, but of a payloads.npz one for each
    request.

    Strings come back as `bytes` objects, numbers in this machine's byte order. InputError if the
    file cannot be read, holds Python objects, or a dtype that Triton does not carry.
    """
    loaded = read_numpy(path)
    if isinstance(loaded, np.ndarray):
        return _carried(path, "the array", loaded)
    if are_payloads(loaded):
        payloads = read_payloads(path)
        if any(payload.keys() != payloads[0].keys() for payload in payloads):
            raise InputError(
                f"{path}: its requests have different inputs; give requests of one kind"
            )
        return {name: [payload[name] for payload in payloads] for name in payloads[0]}
    return {name: [_carried(path, f"'{name}'", array)] for name, array in loaded.items()}


def _carried(path: Path, what: str, array: object) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: {what} in it is no array; save it again with numpy")
    if array.dtype.kind == "S":
        return array.astype(object)
    if array.dtype.kind == "U":
        return np.char.encode(array, "utf-8").astype(object)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    try:
        data_type_of(array)
    except ModelError as error:
        raise InputError(f"{path}: {what} in it cannot be used: {error}") from error
    return np.ascontiguousarray(array) if array.ndim else array
