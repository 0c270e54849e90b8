"""A piece of a config.pbtxt that a person adds to what the kit writes.

It is for what the kit has no option for: rate limits, custom operations, metric tags, pinned
memory, parameters of a backend. It may repeat what the kit says, and not contradict it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tritonkit.errors import RepositoryError
from tritonkit.repository import pbtxt
from tritonkit.repository.config import ModelConfig


def read_fragment(path: Path) -> str:
    """The text of `path`. RepositoryError if it cannot be read, or is not of the schema, or says
    what no ONNX model of the kit can be.
    """
    if not path.is_file():
        raise RepositoryError(f"no such file of protobuf text: {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{path}: {error}; give a file of protobuf text") from error
    message = pbtxt.parse(text, str(path))
    if message.model_transaction_policy.decoupled:
        raise RepositoryError(f"{path}: an ONNX model cannot be decoupled; leave that out")
    if message.default_model_filename or message.cc_model_filenames:
        raise RepositoryError(f"{path}: the kit names the model's file; leave the filenames out")
    if pbtxt.is_ensemble(message):
        raise RepositoryError(f"{path}: an ensemble is made with --step; leave it out")
    return text


def require_kept(path: Path, config: ModelConfig) -> None:
    """RepositoryError unless all that the fragment says is in the config's text, as it says it."""
    text = pbtxt.encode(config)
    lost = _lost(pbtxt.parse(config.base, str(path)), pbtxt.parse(text, str(path)))
    if lost:
        raise RepositoryError(
            f"{path}: '{lost}' is not what the model or the options say; leave it out there, and "
            "use the option for it"
        )
    pbtxt.decode(text, str(path))


def _lost(asked: Any, written: Any) -> str:
    """The path of the first field of `asked` that `written` does not have alike; "" if all are."""
    for field, value in asked.ListFields():
        other = getattr(written, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in value:
                if key not in other or not _same(value[key], other[key]):
                    return f"{field.name}.{key}"
        elif field.is_repeated:
            if not all(any(_same(v, o) for o in other) for v in value):
                return str(field.name)
        elif field.message_type is not None:
            if not written.HasField(field.name):
                return str(field.name)
            if inner := _lost(value, other):
                return f"{field.name}.{inner}"
        elif value != other:
            return str(field.name)
    return ""


def _same(asked: Any, written: Any) -> bool:
    """Whether all that `asked` says is in `written`; both messages, or both plain values."""
    if hasattr(asked, "ListFields"):
        return not _lost(asked, written)
    return bool(asked == written)
