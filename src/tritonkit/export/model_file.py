"""What kind of model a file holds, told by its content: names of files lie."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import IO, Literal

from tritonkit.errors import ModelError
from tritonkit.signature import load_onnx

Kind = Literal["onnx", "program", "script"]

_HEAD_BYTES = 64
_WEIGHTS_ONLY = (
    "def model(): net = Net(); "
    "net.load_state_dict(torch.load({path!r}, weights_only=True)); return net"
)
_PLAIN = ("torch", "collections", "numpy", "builtins", "_codecs", "__builtin__")
"""Packages whose names in a pickle are those of tensors and their containers."""


def kind_of(path: Path) -> Kind:
    """`program` (torch.export), `script` (TorchScript) or `onnx`. Nothing is loaded or unpickled.

    ModelError for anything else, with what it is and what to do, above all for weights without a
    model.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _kind_of_archive(path, archive)
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
                raise _pickled(path, file)
    except zipfile.BadZipFile as error:
        raise ModelError(f"{path} is a damaged file ({error}); save or copy it again") from error
    if not head:
        raise ModelError(f"{path} is empty; save or copy it again")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path} is only a Git LFS pointer; fetch the file itself: git lfs pull")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        load = f"def model(): net = Net(); load_model(net, {str(path)!r}); return net"
        raise ModelError(_weights(path, f"{load} (load_model is safetensors.torch's)"))
    if head.startswith(b"\x89HDF") or head[4:8] == b"TFL3":
        raise ModelError(f"{path} is a Keras or TensorFlow model; convert it to ONNX with tf2onnx")
    if head.startswith(b"PK"):
        raise ModelError(f"{path} is a zip archive that is cut short; save or copy it again")
    try:
        load_onnx(path)
    except ModelError as error:
        if path.suffix == ".onnx":
            raise
        raise ModelError(
            f"{path} is no model: not of torch.export, not TorchScript, not ONNX; "
            "give one of these, or a factory"
        ) from error
    return "onnx"


def _kind_of_archive(path: Path, archive: zipfile.ZipFile) -> Kind:
    # Below one folder, which is called like the file when it was saved.
    names = {name.partition("/")[2] or name for name in archive.namelist()}
    if "serialized_exported_program.json" in names | set(archive.namelist()):
        return "program"
    if "archive_format" in names:
        if any(name.startswith("models/") and name.endswith(".json") for name in names):
            return "program"
        raise ModelError(
            f"{path} is compiled by AOTInductor, which is no model to export; save it with "
            "torch.export.save"
        )
    if "constants.pkl" in names:
        return "script"
    if "data.pkl" in names:
        member = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        with archive.open(member) as file:
            raise _pickled(path, file)
    raise ModelError(
        f"{path} is a zip archive, but no model that torch saved; give a factory, a .pt2, a "
        "TorchScript or an .onnx file"
    )


def _pickled(path: Path, file: IO[bytes]) -> ModelError:
    """What to say of a pickle: weights, or an object with code of its own. It is only read."""
    strange = _strange_names(file)
    if not strange:
        return ModelError(_weights(path, _WEIGHTS_ONLY.format(path=str(path))))
    save = "torch.save(net.state_dict(), 'weights.pt')"
    load = _WEIGHTS_ONLY.format(path="weights.pt")
    return ModelError(
        f"{path} holds a pickled {strange[0]}, which may run any code when it is loaded; "
        f"where you trust it, {save}, and give a file with a factory: {load}"
    )


def _weights(path: Path, factory: str) -> str:
    return (
        f"{path} is a checkpoint: weights without the code that they belong to; "
        f"give a file with a factory: {factory}"
    )


def _strange_names(file: IO[bytes]) -> list[str]:
    """The classes that a pickle refers to, without those that only hold tensors."""
    file.seek(0)
    names: list[str] = []
    try:
        for _ in range(5):  # torch's old format is several pickles in a row
            texts: list[str] = []
            memo: dict[int, str] = {}
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    names.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    names.append(".".join(texts[-2:]))
                elif isinstance(argument, int) and opcode.name in ("BINGET", "LONG_BINGET"):
                    texts += [memo[argument]] if argument in memo else []
                elif opcode.name == "MEMOIZE":
                    memo[len(memo)] = texts[-1] if texts else ""
                elif isinstance(argument, int) and opcode.name in ("BINPUT", "LONG_BINPUT"):
                    memo[argument] = texts[-1] if texts else ""
                elif isinstance(argument, str):
                    texts.append(argument)
    except Exception:  # the end, or bytes that are no pickle: what was found stands
        pass
    return [name for name in names if not _is_plain(name)]


def _is_plain(name: str) -> bool:
    package = name.partition(".")[0]
    return package in _PLAIN and not name.startswith("torch.nn.modules")
