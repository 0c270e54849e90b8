"""A file or a folder of real inputs → single requests that the model takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tritonkit.binary import from_bytes
from tritonkit.client.spec import ModelSpec
from tritonkit.client.tensors import check_inputs, split
from tritonkit.client.values import MisfitError, convert
from tritonkit.errors import InputError, TensorError
from tritonkit.payloads import (
    Payload,
    are_payloads,
    parse_json,
    read_numpy,
    read_payloads,
    require_fit,
)

MOST_BYTES = 2 << 30
"""What a run may send is held in memory, by each process that sends."""

_SUFFIXES = (".npy", ".npz", ".json", ".raw", ".bin")
_KINDS = ".npy, .npz, .json, .raw or .bin"


def read_payloads_from(path: Path, spec: ModelSpec) -> list[Payload]:
    """Single requests from `path`: one row each if the model batches, in the order of the file.

    .npy: the only input of the model, one row or an array of rows. .npz: arrays by input name, or
    a payloads.npz. .json: values by input name, a KServe v2 request, or the only input's value.
    .raw, .bin: the only input's bytes, row-major and little-endian. A folder: all of its files by
    name, hidden ones left out.

    InputError names the first file that cannot be used. Nothing is ever unpickled.
    """
    file, total = path, 0
    payloads: list[Payload] = []
    try:
        for file in _files(path):
            total += file.stat().st_size
            if total > MOST_BYTES:
                raise InputError(
                    f"{path} has more than {MOST_BYTES >> 30} GiB of inputs, which are held in "
                    "memory; give fewer"
                )
            payloads += _read_file(file, spec)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    return payloads


def _files(path: Path) -> list[Path]:
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    else:
        raise InputError(f"no such file or folder of inputs: {path}")
    for file in files:
        if not file.is_file() or file.suffix.lower() not in _SUFFIXES:
            raise InputError(f"{file} is no file of inputs; they end in {_KINDS}; put it elsewhere")
    if not files:
        raise InputError(f"{path} has no files of inputs; put some there, ending in {_KINDS}")
    return files


def _read_file(file: Path, spec: ModelSpec) -> Iterator[Payload]:
    kind = file.suffix.lower()
    if kind in (".npy", ".npz"):
        given: Any = read_numpy(file)
        if isinstance(given, dict) and are_payloads(given):
            recorded = read_payloads(file)
            for payload in require_fit(file, recorded, spec.signature.inputs, spec.optional):
                yield from _singles(file, payload, spec)
            return
    elif kind == ".json":
        given = parse_json(file.read_bytes(), str(file))
        if isinstance(given, dict) and _is_kserve(given):
            given = _named(file, given["inputs"], spec)
    else:
        given = _read_raw(file, spec)
    yield from _singles(file, given, spec)


def _singles(file: Path, given: Any, spec: ModelSpec) -> Iterator[Payload]:
    try:
        checked = check_inputs(spec, given, {})
    except TensorError as error:
        raise InputError(f"{file}: {error}") from error
    if spec.batches:
        yield from split(checked.arrays, checked.rows, 1)
    else:
        yield checked.arrays


def _is_kserve(given: dict[str, Any]) -> bool:
    """Whether it is a KServe v2 request, and not the values of an input that is called `inputs`."""
    entries = given.get("inputs")
    return isinstance(entries, list) and any(isinstance(entry, dict) for entry in entries)


def _named(file: Path, entries: list[Any], spec: ModelSpec) -> dict[str, Any]:
    """The values in the `inputs` of a KServe v2 request, by name."""
    values: dict[str, Any] = {}
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or "data" not in entry:
            raise InputError(f"{file}: each of its inputs must have a name and data")
        if name in values:
            raise InputError(f"{file}: input '{name}' is there twice; give it once")
        try:
            values[name] = _shaped(entry, name, spec)
        except MisfitError as misfit:
            raise InputError(
                f"{file}: input '{name}' {misfit} (the model expects {spec.inputs[name]})"
            ) from misfit
    return values


def _shaped(entry: dict[str, Any], name: str, spec: ModelSpec) -> Any:
    """The data of one input. It may be flat, and is then put into the shape beside it."""
    tensor, data, shape = spec.inputs.get(name), entry["data"], entry.get("shape")
    if tensor is None:  # which the check of all inputs says, and what there is
        return data
    if entry.get("datatype", tensor.dtype.name) != tensor.dtype.name:
        raise MisfitError(f"has datatype {entry['datatype']!r:.40}")
    if shape is None:
        return data
    if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
        raise MisfitError("has a shape that is no list of sizes")
    array = convert(data, tensor.dtype.numpy, max(len(shape), 1))
    if array.size != math.prod(shape):
        raise MisfitError(f"has {array.size} values for a tensor of shape {shape}")
    return array.reshape(shape)


def _read_raw(file: Path, spec: ModelSpec) -> Any:
    """The only input from its bytes: an array with the batch axis where the model batches."""
    names = spec.required if len(spec.required) == 1 else tuple(spec.inputs)
    if len(names) != 1:
        raise InputError(
            f"{file}: raw bytes are of one input, and {spec.label} has {len(names)}; "
            "give an .npz with them by name"
        )
    tensor = spec.inputs[names[0]]
    if tensor.dtype.name == "BYTES":
        raise InputError(f"{file}: raw bytes cannot be text for {tensor}; give .json or .npy")
    data = file.read_bytes()
    shape: list[int | str] = list(tensor.shape)
    if spec.batches and any(isinstance(size, str) for size in shape[1:]):
        shape[0] = 1
    unknown = [axis for axis, size in enumerate(shape) if isinstance(size, str)]
    known_bytes = math.prod(size for size in shape if isinstance(size, int))
    known_bytes *= tensor.dtype.numpy.itemsize
    if len(unknown) > 1:
        raise InputError(
            f"{file}: raw bytes do not tell the {len(unknown)} unknown sizes of {tensor}; "
            "give an .npy"
        )
    if unknown and known_bytes and len(data) % known_bytes == 0:
        shape[unknown[0]] = len(data) // known_bytes
        known_bytes = len(data)
    if len(data) != known_bytes or not data:
        wanted = f"a multiple of {known_bytes}" if unknown else f"{known_bytes}"
        raise InputError(f"{file} has {len(data)} bytes; {tensor} takes {wanted}")
    return from_bytes(data, tensor.dtype, [int(size) for size in shape])
