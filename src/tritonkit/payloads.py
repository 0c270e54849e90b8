"""Single requests kept in one `payloads.npz`: what the load tests send.

The file holds one array for each input of each request, under the key `0007/input name`, each
with a leading batch dimension of 1: in an export as the model takes it, in a model repository as
requests have it (repository/tensors.py tells the difference). Strings lie there as fixed-width
bytes and come back as arrays of `bytes` objects, the form that BYTES tensors have everywhere in
tritonkit.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tritonkit.errors import InputError
from tritonkit.signature import ModelSignature, TensorSpec, data_type_of

PAYLOADS = "payloads.npz"

_KEY = re.compile(r"[0-9]+/.+")

RANDOM_PAYLOADS = 64
"""How many requests are drawn where none are recorded."""

Payload = dict[str, np.ndarray]
"""One request: input name → array, first axis 1 if the model batches."""

_DYNAMIC_SIZE = 16
"""The size that random payloads give to a dynamic dimension other than the batch."""


def write_payloads(path: Path, payloads: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Write single requests to `path`, uncompressed.

    InputError if there are none, if an array's first axis is not 1, or if a string ends in a NUL
    byte (numpy's fixed-width strings lose it).
    """
    if not payloads:
        raise InputError(f"no payloads to write to {path}; give one request or more")
    arrays = {
        f"{index:04d}/{name}": _storable(index, name, array)
        for index, payload in enumerate(payloads)
        for name, array in payload.items()
    }
    with path.open("wb") as file:  # given a path, savez may add a suffix to it
        np.savez(file, allow_pickle=False, **arrays)


def read_payloads(path: Path) -> list[Payload]:
    """The requests of `path`, in order. InputError if it is missing or is no such file."""
    if not path.is_file():
        raise InputError(f"no payloads file {path}; export the model again")
    payloads: dict[int, Payload] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                index, _, name = key.partition("/")
                array = file[key]
                payloads.setdefault(int(index), {})[name] = (
                    array.astype(object) if array.dtype.kind == "S" else array
                )
    except (ValueError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a payloads file ({error}); export it again") from error
    return [payloads[index] for index in sorted(payloads)]


def read_numpy(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array of a .npy, or the arrays of a .npz by name; nothing is ever unpickled.

    InputError if the file cannot be read, is neither, or holds Python objects.
    """
    broken = (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
    strange = (NotImplementedError, RuntimeError, SyntaxError, MemoryError, OverflowError)
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: loaded[name] for name in loaded.files}
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


def parse_json(text: str | bytes, what: str) -> Any:
    """The values of a JSON text, with NaN and Infinity. InputError that says where it is wrong."""
    try:
        return json.loads(text, parse_float=_finite)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        reason = f"{error.msg} at {where}" if error.doc.strip() else "it is empty"
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    except (ValueError, RecursionError) as error:  # a number of too many digits; lists too deep
        reason = " ".join(str(error).split())
    raise InputError(f"{what} is not JSON: {reason}")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # of digits; Infinity does not come here
        raise ValueError(f"{text:.40} is too large for a number")
    return number


def are_payloads(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether the arrays of a .npz are the inputs of requests, as `write_payloads` names them."""
    return bool(arrays) and all(map(_KEY.fullmatch, arrays))


def random_payloads(
    signature: ModelSignature, count: int, seed: int = 0, *, batched: bool = True
) -> list[Payload]:
    """`count` requests of the right shapes and dtypes, for a model nobody gave real ones for.

    batched: the first dimension is the batch, and 1. The other dynamic ones are 16. Floats are
    standard normal, integers 0 or 1 (valid as token ids, masks and flags), strings short words.
    """
    random = np.random.default_rng(seed)
    return [
        {spec.name: _random_array(random, spec, batched) for spec in signature.inputs}
        for _ in range(count)
    ]


def misfit(
    payload: Payload, inputs: Sequence[TensorSpec], optional: Collection[str] = ()
) -> str | None:
    """Why a request does not have these inputs, in words; None if it has."""
    wanted = {
        spec.name: spec for spec in inputs if spec.name in payload or spec.name not in optional
    }
    if payload.keys() != wanted.keys():
        return f"a request has the inputs {sorted(payload)}; the model takes {sorted(wanted)}"
    for name, array in payload.items():
        spec = wanted[name]
        fits = array.ndim == len(spec.shape) and all(
            have == want or not isinstance(want, int)
            for have, want in zip(array.shape, spec.shape, strict=True)
        )
        if data_type_of(array) != spec.dtype or not fits:
            return f"a request has {name}:{array.dtype}{list(array.shape)}; the model takes {spec}"
    return None


def _random_array(random: np.random.Generator, spec: TensorSpec, batched: bool) -> np.ndarray:
    sizes = (dim if isinstance(dim, int) else _DYNAMIC_SIZE for dim in spec.shape[batched:])
    shape = (*([1] if batched else []), *sizes)
    if spec.dtype.numpy.kind == "f":
        return random.standard_normal(shape).astype(spec.dtype.numpy)
    bits = random.integers(2, size=shape)
    if spec.dtype.name == "BYTES":
        # Of no dimensions it would be the text itself.
        return np.asarray(np.array([b"yes", b"no"], dtype=object)[bits], dtype=object)
    return bits.astype(spec.dtype.numpy)


def _storable(index: int, name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 0 or array.shape[0] != 1:
        raise InputError(
            f"payload {index}: '{name}' has shape {list(array.shape)}; one request has 1 row"
        )
    if array.dtype.kind not in "OSU":
        return array
    texts = [t.encode() if isinstance(t, str) else bytes(t) for t in array.ravel().tolist()]
    if any(t.endswith(b"\0") for t in texts):
        raise InputError(f"payload {index}: a string in '{name}' ends in NUL; leave it out")
    return np.array(texts, dtype=np.bytes_).reshape(array.shape)


def load_payloads(
    folder: Path, inputs: Sequence[TensorSpec], seed: int = 0
) -> tuple[list[Payload], str]:
    """The requests recorded in a packaged model's folder, else random ones; and which they are.

    inputs: what a request has, of a model that batches. InputError if those that are recorded
    have something else, as they had in a repository of old.
    """
    recorded = folder / PAYLOADS
    if recorded.is_file():
        return require_fit(recorded, read_payloads(recorded), inputs), PAYLOADS
    drawn = random_payloads(ModelSignature(tuple(inputs), ()), RANDOM_PAYLOADS, seed)
    return drawn, "random values drawn from the signature"


def require_fit(
    path: Path,
    payloads: Sequence[Payload],
    inputs: Sequence[TensorSpec],
    optional: Collection[str] = (),
) -> list[Payload]:
    """The requests of the file `path`. InputError unless a server takes them with these inputs."""
    for payload in payloads:
        if (why := misfit(payload, inputs, optional)) is not None:
            raise InputError(
                f"{path}: {why}; send the {PAYLOADS} of a model repository, and if it is that, "
                "package the model again"
            )
    return list(payloads)
