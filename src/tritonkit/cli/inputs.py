"""What `tritonkit infer` is to send: values from the command line, from files, from stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tritonkit.client.spec import ModelSpec, no_such
from tritonkit.errors import InputError, TensorError
from tritonkit.payloads import are_payloads, parse_json, read_numpy, read_payloads
from tritonkit.signature import TensorSpec

# What begins a value that has no name before it, whatever `=` may follow.
_VALUE_BEGINS = ("@", "[", "{", '"')


class Typed(NamedTuple):
    """A value that stands on the command line itself: JSON, or text for an input of BYTES."""

    text: str


def require_text(*arguments: str) -> None:
    """InputError for an argument that is not in the terminal's encoding."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{argument!a:.80} is no valid text; put bytes into a file") from error


def read_inputs(arguments: Sequence[str]) -> list[tuple[str, Any]]:
    """(name, value) of each input, the name empty where there is none; reads the files."""
    given: list[tuple[str, Any]] = []
    if sum(_split(argument)[1] == "@-" for argument in arguments) > 1:
        raise InputError("stdin can be read only once; give @- to one input")
    for argument in arguments:
        given += _read_input(*_split(argument))
    names = [name for name, _ in given]
    for name in names:
        if names.count(name) > 1:
            what = f"input '{name}'" if name else "an input without a name"
            raise InputError(f"{what} is given twice; give it once")
    return given


def _split(argument: str) -> tuple[str, str]:
    """The name and the value of `NAME=VALUE`."""
    if argument.startswith(_VALUE_BEGINS) or "=" not in argument:
        return "", argument
    name, _, value = argument.partition("=")
    return name, value


def _read_input(name: str, value: str) -> Iterator[tuple[str, Any]]:
    if not value.startswith("@"):
        yield name, Typed(value)
        return
    path = Path(value[1:])
    if value == "@-" and sys.stdin is None:
        raise InputError("stdin is closed; nothing can be read from it")
    if value == "@-":
        content = parse_json(sys.stdin.buffer.read(), "stdin")
    elif path.suffix == ".json":
        content = parse_json(_read(path), str(path))
    elif path.suffix in (".npy", ".npz"):
        content = _load(path)
    else:
        raise InputError(f"{value}: the name must end in .npy, .npz or .json, or be @- for stdin")
    if name and path.suffix == ".npz":
        if name not in content:
            known = ", ".join(content) or "none"
            raise InputError(f"{path} has no array '{name}'; it has {known}")
        yield name, content[name]
    elif isinstance(content, dict) and not name:
        yield from content.items()
    else:
        yield name, content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{path} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else ""
    return reason or " ".join(str(error).split()) or type(error).__name__


def _load(path: Path) -> Any:
    """The array of a .npy, or the arrays of a .npz by name; of payloads, lists of rows by name."""
    loaded = read_numpy(path)
    if isinstance(loaded, dict) != (path.suffix == ".npz"):
        raise InputError(f"{path} is no {path.suffix} file, though it is named so")
    return _arrays(path, loaded) if isinstance(loaded, dict) else loaded


def _arrays(path: Path, loaded: dict[str, Any]) -> dict[str, Any]:
    for name, array in loaded.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path}: '{name}' in it is no array")
    if not are_payloads(loaded):
        return loaded
    payloads = read_payloads(path)
    if any(payload.keys() != payloads[0].keys() for payload in payloads):
        raise InputError(f"{path}: its requests have different inputs; give one of them as .npz")
    return {name: Requests(payload[name] for payload in payloads) for name in payloads[0]}


class Requests(list[np.ndarray]):
    """One input of all requests of a payloads.npz, each as long along the batch as it is sent."""


def read_header(text: str) -> tuple[str, str]:
    """Name and value of `NAME: VALUE`."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise InputError(f"'{name}' is not a header; give 'NAME: VALUE'")
    return name.strip(), value.strip()


def read_token(path: Path) -> str:
    """The bearer token that a file holds, without white space around it."""
    try:
        token = _read(path).decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise InputError(f"{path} holds no bearer token: one word of printable ASCII")
    return token


def values_of(spec: ModelSpec, given: Sequence[tuple[str, Any]], row: int | None) -> dict[str, Any]:
    """What the model's inputs get, by name."""
    values: dict[str, Any] = {}
    for called, value in given:
        name = called or _only_input(spec)
        if name not in spec.inputs:
            raise TensorError(f"{spec.label}: {no_such('input', name, spec.inputs)}")
        if name in values:
            raise InputError(f"input '{name}' is given twice; give it once")
        tensor = spec.inputs[name]
        if isinstance(value, Requests):
            value = [array[0] if spec.batches else array for array in value]
        if isinstance(value, Typed):
            value = _from_typed(value.text, tensor)
        if row is not None:
            value = _take_row(value, name, row)
        if isinstance(value, list):
            shapes = {element.shape for element in value if isinstance(element, np.ndarray)}
            if len(shapes) > 1:  # of a payloads.npz; each of them is a request that can be sent
                raise InputError(
                    f"input '{name}' has rows of different shapes; send one with --row"
                )
        if isinstance(value, str | int | float):
            value = _as_row(value, tensor, spec.batches)
        values[name] = value
    return values


def _only_input(spec: ModelSpec) -> str:
    names = spec.required if len(spec.required) == 1 else tuple(spec.inputs)
    if len(names) != 1:
        known = ", ".join(map(str, spec.inputs.values())) or "none"
        raise TensorError(f"{spec.label}: an input without a name, but the model has {known}")
    return names[0]


def _from_typed(text: str, tensor: TensorSpec) -> Any:
    is_text = tensor.dtype.name == "BYTES"
    try:
        value = parse_json(text, f"input '{tensor.name}'")
    except InputError as error:
        if is_text:
            return text
        if _is_file(text):
            raise InputError(f"{error}; for the file give '@{text}'") from None
        raise
    return text if is_text and not isinstance(value, str | list) else value


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _take_row(value: Any, name: str, row: int) -> Any:
    has_rows = isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim > 0)
    rows = len(value) if has_rows else 0
    if row >= rows:
        has = f"{rows} rows, 0 to {rows - 1}" if rows else "no rows"
        raise InputError(f"no row {row}: input '{name}' has {has}")
    return value[row : row + 1]


def _as_row(value: Any, tensor: TensorSpec, batches: bool) -> Any:
    """A single number or text as the only element of a row, if a row may have only one."""
    sizes = tensor.shape[1:] if batches else tensor.shape
    if all(size == 1 or isinstance(size, str) for size in sizes):
        for _ in sizes:
            value = [value]
    return value
