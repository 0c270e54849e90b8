"""An answer to `tritonkit infer`: for people, as JSON, as a file."""

from __future__ import annotations

import json
import math
import os
import sys
import textwrap
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np

from tritonkit.cli.lines import columns
from tritonkit.cli.outputs import require_place
from tritonkit.client.result import Classification, InferResult
from tritonkit.client.spec import ModelSpec
from tritonkit.errors import InputError
from tritonkit.signature import data_type_of

_SAVED_AS = (".npz", ".npy", ".json")
# Longer arrays are shown to people by their corners; numpy's own 1000 fills many screens.
_SHOWN_ELEMENTS = 100


def show(result: InferResult, as_json: bool, blank_line: bool = False) -> None:
    """Print it: an object of JSON on one line, or for people, after a blank line if that is so."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # None where stdout is closed
    if as_json:
        ascii_only = not encoding.lower().startswith("utf")
        click.echo(json.dumps(_document(result), ensure_ascii=ascii_only, allow_nan=False))
        return
    width = max((columns() or sys.maxsize) - 2, 20)
    blocks = []
    for name, array in result.items():
        title = f"{_printable(name)} {_datatype(array)}[{','.join(map(str, array.shape))}]"
        body = _class_table(array) if _has_classes(array) else _array_text(array, width)
        blocks.append(f"{title}\n{textwrap.indent(body, '  ')}")
    text = "\n".join(blocks) or "no outputs"
    text = f"\n{text}" if blank_line else text
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def _array_text(array: np.ndarray, width: int) -> str:
    formatter: Any = {"object": _bytes_text} if array.dtype.kind == "O" else None
    return np.array2string(array, width, threshold=_SHOWN_ELEMENTS, formatter=formatter)


def _bytes_text(element: bytes) -> str:
    """In quotes, with everything that a terminal might take for a command escaped."""
    try:
        return repr(element.decode())
    except UnicodeDecodeError:
        return repr(element)


def _class_table(array: np.ndarray) -> str:
    """A line for each class; without columns that have nothing in them."""
    rows = [("row", "score", "index", "label")]
    for where in np.ndindex(array.shape):
        top: Any = array[where]
        row = ",".join(map(str, where[:-1]))
        rows.append((row, f"{top.score:.6g}", f"{top.index}", _printable(top.label)))
    columns = []
    for column in zip(*rows, strict=True):
        if any(column[1:]):
            width = max(map(len, column))
            columns.append([cell.ljust(width) for cell in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _has_classes(array: np.ndarray) -> bool:
    return array.dtype.kind == "O" and array.size > 0 and isinstance(array.flat[0], Classification)


def _datatype(array: np.ndarray) -> str:
    return "CLASSES" if _has_classes(array) else data_type_of(array).name


def _document(result: InferResult) -> dict[str, Any]:
    """The answer as it is written in JSON."""
    return {
        "model": result.model,
        "version": result.version,
        "id": result.id,
        "outputs": {
            name: {
                "datatype": _datatype(array),
                "shape": [*array.shape],
                "data": _nested(array),
            }
            for name, array in result.items()
        },
    }


def _nested(array: np.ndarray) -> Any:
    """The elements as nested lists that JSON can hold."""
    elements: list[Any]
    if array.dtype.kind == "O":
        elements = [_element(e) for e in array.ravel().tolist()]
    elif array.dtype.kind == "f":
        # By way of text: 0.1 of 32 bits is to be 0.1, and not 0.10000000149011612.
        floats = map(float, array.ravel().astype(str).tolist())
        elements = [f if math.isfinite(f) else None for f in floats]
    else:
        return array.tolist()
    nested = np.empty(len(elements), np.object_)
    nested[:] = elements
    return nested.reshape(array.shape).tolist()


def _element(element: Any) -> Any:
    if isinstance(element, bytes):
        return element.decode("utf-8", errors="backslashreplace")
    score = element.score if math.isfinite(element.score) else None
    return {"score": score, "index": element.index, "label": element.label}


def place_to_save(path: Path) -> Path:
    """InputError where nothing can be written, before anything is sent."""
    if path.suffix not in _SAVED_AS:
        raise InputError(f"--save {path}: the name must end in {', '.join(_SAVED_AS)}")
    if path.is_dir():
        raise InputError(f"--save {path}: it is a directory; give a file")
    path = Path(os.path.realpath(path))  # a link stays, and what it leads to is replaced
    require_place(path, "--save")
    return path


def require_savable(spec: ModelSpec, outputs: Sequence[str], path: Path) -> None:
    """InputError if the model's answer cannot be written to such a file."""
    if spec.decoupled:
        raise InputError(f"{spec.label} streams its answers; print them with --json, not --save")
    names = set(outputs) or set(spec.outputs)
    if path.suffix == ".npy" and len(names) != 1:
        known = ", ".join(spec.outputs)
        raise InputError(
            f"a .npy holds one output, and {len(names)} were asked for; "
            f"give --output, one of {known}, or save a .npz"
        )


def save_as(path: Path, result: InferResult) -> None:
    """Write the file whole, or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("xb") as file:
            _write(file, path.suffix, result)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _write(file: BinaryIO, suffix: str, result: InferResult) -> None:
    if suffix == ".json":
        text = json.dumps(_document(result), ensure_ascii=False, allow_nan=False)
        file.write(f"{text}\n".encode())
        return
    arrays = {name: _plain(name, array) for name, array in result.items()}
    if suffix == ".npy":
        np.save(file, next(iter(arrays.values())), allow_pickle=False)
        return
    with zipfile.ZipFile(file, "w") as archive:  # np.savez has no place for an output called `file`
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """The array without Python objects: text of a fixed width, classes as records."""
    if array.dtype.kind != "O":
        return array
    elements = array.ravel().tolist()
    if _has_classes(array):
        width = max(1, *(len(e.label) for e in elements))
        record = [("score", "f8"), ("index", "i8"), ("label", f"U{width}")]
        return np.array([tuple(e) for e in elements], record).reshape(array.shape)
    if any(e.endswith(b"\0") for e in elements):
        raise InputError(f"output '{name}' has text that ends in NUL; save it as .json")
    return np.array(elements, np.bytes_).reshape(array.shape)
