"""The inputs of a model as a user writes them down: `--input`.

    name:dtype[batch,dim,…]     what an input is like; the kit draws values
    name=file.npy, file.npz     what it is; the first axis is the batch

Both may be given for one input: then the first says which axes may vary, the second the values.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tritonkit.check.onnx_model import Arrays
from tritonkit.check.parity import DynamicAxes
from tritonkit.errors import InputError
from tritonkit.export.arrays import read_arrays
from tritonkit.payloads import RANDOM_PAYLOADS, Payload, random_payloads
from tritonkit.signature import DATA_TYPES, KSERVE_TYPES, DataType, Dim, ModelSignature, TensorSpec

BATCH = "batch"
"""The name of axis 0 of every tensor."""

_FORMS = "NAME:DTYPE[batch,SIZE,…], NAME=FILE.npy or FILE.npz"
_SPEC = re.compile(r"(?P<name>.+):(?P<dtype>[\w.()\s]+)\[(?P<dims>[^\[\]]*)\]\s*", re.DOTALL)
_FILE = re.compile(r"(?:(?P<name>[^=]+)=)?@?(?P<path>.+\.np[yz])", re.DOTALL | re.IGNORECASE)

_NUMBER = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)

_ALIASES = {
    **{"float": "FP32", "f32": "FP32", "double": "FP64", "f64": "FP64", "half": "FP16"},
    **{"f16": "FP16", "byte": "UINT8", "char": "INT8", "short": "INT16", "int": "INT32"},
    **{"long": "INT64", "str": "BYTES", "bytes": "BYTES", "string": "BYTES"},
}
"""torch's and everyday names beside those in the table of dtypes. `float` is torch's and ONNX's."""
_DTYPES = {
    name.lower(): d
    for d in DATA_TYPES
    for name in (d.name, d.triton, d.onnx, d.onnxruntime, d.numpy.name)
} | {alias: KSERVE_TYPES[name] for alias, name in _ALIASES.items()}

_SIZES = (16, 24, 20, 28, 32, 36, 40, 44, 48, 52, 56, 60)
_ROWS = (3, 5, 2, 7, 9, 11, 13)
_MAX_BYTES = 2**31
"""Of all examples of one input together."""
_REQUESTS_BYTES = 2**28
"""Fewer than RANDOM_PAYLOADS requests are drawn where these would be larger together."""


@dataclass(frozen=True)
class Examples:
    """inputs: name → array, all of the same number (≥ 2) of rows. dynamic_axes: without axis 0.

    requests: single requests: the rows of the files as they are, or random ones; origin: which.
    """

    inputs: Arrays
    dynamic_axes: DynamicAxes
    requests: tuple[Payload, ...]
    origin: str


@dataclass(frozen=True)
class _Spec:
    """One `name:dtype[…]`. dims: without the batch. sizes: those given, by name of dimension."""

    name: str
    dtype: DataType
    dims: tuple[Dim, ...]
    sizes: Mapping[str, int]

    def __str__(self) -> str:
        return f"{self.name}:{self.dtype.name}[{','.join(map(str, (BATCH, *self.dims)))}]"


def read_examples(texts: Sequence[str]) -> Examples:
    """The inputs that `texts` say, in their order. InputError for what cannot be meant or read."""
    specs: dict[str, _Spec] = {}
    files: dict[str, list[np.ndarray]] = {}
    paths = []
    order: dict[str, None] = {}
    for text in texts:
        spec, file = _SPEC.fullmatch(text), _FILE.fullmatch(text)
        if spec is not None:
            found = _read_spec(text, spec)
            _add(specs, found.name, found)
            order[found.name] = None
        elif file is not None:
            paths.append(file["path"])
            for name, rows in _read_file(file["name"], Path(file["path"])).items():
                _add(files, name, rows)
                order[name] = None
        else:
            raise InputError(f"--input '{_short(text)}' cannot be read; give {_FORMS}")
    requests = _requests(files)
    taken = _alike(requests)
    sizes = _sizes(specs, taken)
    drawn = [spec for name, spec in specs.items() if name not in files]
    for missing in drawn:
        _require_fits_memory(missing, sizes)
    random = _draw(drawn, sizes, len(requests) or None)
    if requests:
        origin = ", ".join(dict.fromkeys(paths)) + (" and random values" if drawn else "")
        merged = [row | other for row, other in zip(requests, random, strict=True)]
    else:
        origin, merged = "random", random
    whole = [{name: request[name] for name in order} for request in merged]
    inputs = _stack(whole, sizes[BATCH] if not requests else None)
    return Examples(inputs, _dynamic_axes(specs), tuple(whole), origin)


def row_requests(inputs: Arrays) -> tuple[Payload, ...]:
    """Each row of `inputs` as a request of its own."""
    count = len(next(iter(inputs.values())))
    return tuple({name: a[i : i + 1] for name, a in inputs.items()} for i in range(count))


def two_rows(inputs: Arrays) -> dict[str, np.ndarray]:
    """`inputs`, a single row twice: an exporter given a batch of 1 takes it for a constant."""
    return {n: np.repeat(a, 2, axis=0) if len(a) == 1 else a for n, a in inputs.items()}


def _add(table: dict[str, object] | dict, name: str, value: object) -> None:
    if name in table:
        raise InputError(f"--input '{name}' is given twice; give it once")
    table[name] = value


def _short(text: str) -> str:
    return ascii(text)[1:-1][:80]


def _read_spec(text: str, match: re.Match[str]) -> _Spec:
    name = match["name"].strip()
    if not name or not name.isprintable():
        raise InputError(f"--input '{_short(text)}' has no proper name; give {_FORMS}")
    what = f"--input '{name}'"
    dtype = _read_dtype(what, match["dtype"].strip())
    dims: list[Dim] = []
    sizes: dict[str, int] = {}
    parts = match["dims"].split(",") if match["dims"].strip() else []
    for axis, part in enumerate(parts):
        dim, equals, size = (piece.strip() for piece in part.partition("="))
        if (dim == BATCH) != (axis == 0):
            dims.clear()
            break
        if _NUMBER.fullmatch(dim) and not equals:
            dims.append(int(dim))
        elif dim.isidentifier() and dim.isascii():
            dims.append(dim)
            if equals:
                if not _NUMBER.fullmatch(size) or int(size) < 2:
                    raise InputError(
                        f"{what}: the example size of '{dim}' is '{size}'; give a number, 2 or more"
                    )
                if sizes.setdefault(dim, int(size)) != int(size):
                    raise InputError(f"{what} gives '{dim}' two sizes; give it one")
        else:
            raise InputError(
                f"{what}: '{_short(part)}' is no dimension; give a size, the name of one that may "
                "vary, or NAME=SIZE with a size to try"
            )
    if not dims:
        others = [part.strip() for part in parts[1:]]
        wanted = ",".join([BATCH, *(part for part in others if part != BATCH)])
        raise InputError(
            f"{what}: the first dimension, and no other, is the batch; "
            f"give '{name}:{match['dtype'].strip()}[{wanted}]'"
        )
    return _Spec(name, dtype, tuple(dims[1:]), sizes)


def _read_dtype(what: str, text: str) -> DataType:
    plain = text.lower().removeprefix("torch.").removeprefix("np.").removeprefix("numpy.")
    if plain in _DTYPES:
        return _DTYPES[plain]
    if plain in ("bfloat16", "bf16"):
        raise InputError(f"{what}: Triton's clients carry no bfloat16 arrays; use float32 or half")
    known = ", ".join(d.name for d in DATA_TYPES)
    raise InputError(f"{what}: '{_short(text)}' is no dtype; use {known} (or numpy's names)")


def _read_file(name: str | None, path: Path) -> dict[str, list[np.ndarray]]:
    """Input name → its rows, each of shape [1, …]."""
    loaded = read_arrays(path)
    if isinstance(loaded, np.ndarray):
        if not name:
            raise InputError(f"{path} does not say which input it is; give NAME={path}")
        loaded = {name.strip(): [loaded]}
    elif name is not None:
        if name not in loaded:
            raise InputError(f"{path} has no array '{name}'; it has {', '.join(loaded) or 'none'}")
        loaded = {name: loaded[name]}
    if not loaded:
        raise InputError(f"{path} holds no arrays; give one for each input")
    return {key: list(_rows(path, key, arrays)) for key, arrays in loaded.items()}


def _rows(path: Path, name: str, arrays: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for array in arrays:
        if not array.ndim or not len(array):
            raise InputError(
                f"{path}: '{name}' has shape {list(array.shape)}; its first axis is the batch "
                "and needs a row or more"
            )
        yield from (array[i : i + 1] for i in range(len(array)))


def _requests(files: Mapping[str, list[np.ndarray]]) -> list[Payload]:
    counts = {name: len(rows) for name, rows in files.items()}
    if len(set(counts.values())) > 1:
        text = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise InputError(f"example files differ in rows ({text}); give all the same number")
    return [dict(zip(files, rows, strict=True)) for rows in zip(*files.values(), strict=True)]


def _alike(requests: Sequence[Payload]) -> Payload:
    """The first request of the commonest shapes; empty where there are no requests."""
    if not requests:
        return {}
    shapes = [_shapes(request) for request in requests]
    return requests[shapes.index(Counter(shapes).most_common(1)[0][0])]


def _shapes(request: Payload) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in request.values())


def _stack(requests: Sequence[Payload], count: int | None) -> dict[str, np.ndarray]:
    """The first `count` of the requests that have the commonest shapes, as one batch."""
    shapes = _shapes(_alike(requests))
    alike = [request for request in requests if _shapes(request) == shapes][:count]
    return two_rows({name: np.concatenate([r[name] for r in alike]) for name in alike[0]})


def _sizes(specs: Mapping[str, _Spec], row: Payload) -> dict[str, int]:
    """A size for each named dimension, the batch too: from `row`, as given, or one of its own.

    All differ from each other and from the fixed sizes, so that an exporter cannot take one for
    another.
    """
    sizes: dict[str, int] = {}

    def settle(spec: _Spec, dim: str, size: int) -> None:
        if sizes.setdefault(dim, size) != size:
            raise InputError(
                f"--input '{spec.name}': '{dim}' is {size} here and {sizes[dim]} elsewhere; give "
                "it one size, or another name"
            )

    for spec in specs.values():
        if spec.name in row:
            _require_alike(spec, row[spec.name])
            for dim, size in zip(spec.dims, row[spec.name].shape[1:], strict=True):
                if isinstance(dim, str):
                    settle(spec, dim, size)
    for spec in specs.values():
        for dim, size in spec.sizes.items():
            settle(spec, dim, size)
    taken = {d for spec in specs.values() for d in spec.dims if isinstance(d, int)}
    for spec in specs.values():
        for dim in spec.dims:
            if isinstance(dim, str) and dim not in sizes:
                sizes[dim] = _free(_SIZES, taken | set(sizes.values()))
    if BATCH not in sizes:
        sizes[BATCH] = _free(_ROWS, taken | set(sizes.values()))
    return sizes


def _free(candidates: Sequence[int], taken: set[int]) -> int:
    more = range(max(candidates) + 1, max(candidates) + len(taken) + 2)
    free: int = next(size for size in (*candidates, *more) if size not in taken)
    return free


def _require_alike(spec: _Spec, row: np.ndarray) -> None:
    fits = len(spec.dims) == row.ndim - 1 and all(
        isinstance(dim, str) or dim == size
        for dim, size in zip(spec.dims, row.shape[1:], strict=True)
    )
    is_text = spec.dtype.name == "BYTES" and row.dtype.kind == "O"
    if not fits or (row.dtype != spec.dtype.numpy and not is_text):
        raise InputError(
            f"--input '{spec.name}': rows of its file are {row.dtype}{list(row.shape[1:])}, which "
            f"is not {spec}; make them agree"
        )


def _require_fits_memory(spec: _Spec, sizes: Mapping[str, int]) -> None:
    elements = math.prod(d if isinstance(d, int) else sizes[d] for d in (BATCH, *spec.dims))
    if elements * spec.dtype.numpy.itemsize > _MAX_BYTES:
        raise InputError(
            f"--input '{spec.name}': an example of {sizes[BATCH]} rows would be larger than 2 GiB; "
            "give smaller sizes"
        )


def _draw(specs: Sequence[_Spec], sizes: Mapping[str, int], count: int | None) -> list[Payload]:
    """Random requests; `count` of them, or as many as are usual and no memory hog."""
    tensors = tuple(
        TensorSpec(
            s.name, s.dtype, (BATCH, *(d if isinstance(d, int) else sizes[d] for d in s.dims))
        )
        for s in specs
    )
    if count is None:
        row_bytes = sum(
            math.prod(d for d in t.shape if isinstance(d, int)) * t.dtype.numpy.itemsize
            for t in tensors
        )
        count = max(sizes[BATCH], min(RANDOM_PAYLOADS, _REQUESTS_BYTES // max(row_bytes, 1)))
    return random_payloads(ModelSignature(tensors, ()), count)


def _dynamic_axes(specs: Mapping[str, _Spec]) -> dict[str, dict[int, str]]:
    axes = {
        name: {i: dim for i, dim in enumerate(spec.dims, start=1) if isinstance(dim, str)}
        for name, spec in specs.items()
    }
    return {name: named for name, named in axes.items() if named}
