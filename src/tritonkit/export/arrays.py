"""Arrays in .npy and .npz files, read without ever unpickling anything."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tritonkit.errors import InputError, ModelError
from tritonkit.payloads import read_payloads
from tritonkit.signature import data_type_of

_PAYLOAD_KEY = re.compile(r"[0-9]+/.+")


def read_arrays(path: Path) -> np.ndarray | dict[str, list[np.ndarray]]:
    """The array of a .npy; or name → arrays of a .npz: one each, but of a payloads.npz one for each
    request.

    Strings come back as `bytes` objects, numbers in this machine's byte order. InputError if the
    file cannot be read, holds Python objects, or a dtype that Triton does not carry.
    """
    broken = (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
    strange = (NotImplementedError, RuntimeError, SyntaxError, MemoryError, OverflowError)
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                loaded = {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (*broken, *strange) as error:
        if isinstance(error, ValueError) and "\0" in str(path):
            raise InputError(f"{str(path)!a} is no file name; check the path") from error
        if "Object arrays" in str(error):
            what = "holds Python objects; save text as array.astype(bytes), all else as numbers"
        else:
            what = f"is no {path.suffix} file, or a damaged one; save it again with numpy"
        raise InputError(f"{path} {what}") from error
    if isinstance(loaded, np.ndarray):
        return _carried(path, "the array", loaded)
    if loaded and all(map(_PAYLOAD_KEY.fullmatch, loaded)):
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
