"""config.pbtxt as a protobuf message with the line of each field; or why it cannot be read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.repository.lint.positions import Positions, read_positions

_IGNORE = re.compile(r"#\s*lint:\s*ignore\s+([\w-]+(?:\s*,\s*[\w-]+)*)")
_NO_POSITIONS = Positions({}, ())


@dataclass(frozen=True)
class Failure:
    """Why there is no message. rule: `config-syntax`, `unknown-field`, …"""

    rule: str
    line: int
    message: str
    remedy: str


@dataclass(frozen=True)
class ConfigText:
    """A config.pbtxt. There is a `message` (of the schema) or a `failure`.

    utf8: whether the file is UTF-8. ignored: the rules that its comments switch off, by line.
    """

    message: Any
    failure: Failure | None
    positions: Positions
    utf8: bool
    ignored: dict[int, frozenset[str]]


def read_config_text(path: Path) -> ConfigText:
    """Read a config. Nothing is raised: a file that cannot be read is a failure too."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        return _failed("config-unreadable", 1, f"{error.strerror}", "make it a readable file")
    try:
        text, utf8 = raw.decode("utf-8"), True
    except UnicodeDecodeError:
        text, utf8 = raw.decode("latin-1"), False
    message = schema.ModelConfig()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        return _not_protobuf(text, error, utf8)
    positions = read_positions(text, message.DESCRIPTOR)
    return ConfigText(message, None, positions, utf8, _ignored(text))


def _ignored(text: str) -> dict[int, frozenset[str]]:
    """`# lint: ignore RULE, RULE` counts for its own line; on a line of its own, for the next."""
    found: dict[int, frozenset[str]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        comment = _IGNORE.search(line)
        if comment:
            rules = frozenset(re.split(r"\s*,\s*", comment.group(1)))
            alone = line.lstrip().startswith("#")
            for at in (number, number + 1) if alone else (number,):
                found[at] = found.get(at, frozenset()) | rules
    return found


def _failed(
    rule: str, line: int, message: str, remedy: str, text: str = "", utf8: bool = True
) -> ConfigText:
    return ConfigText(
        None, Failure(rule, line, message, remedy), _NO_POSITIONS, utf8, _ignored(text)
    )


def _not_protobuf(text: str, error: Any, utf8: bool) -> ConfigText:
    line, column = error.GetLine() or 1, error.GetColumn() or 1
    said = re.sub(r"^\d+:\d+ : ", "", str(error))
    lines = text.split("\n")
    said = said.removeprefix(f"'{lines[line - 1] if line <= len(lines) else ''}': ").rstrip(".")
    if len(said) > 300:
        said = f"{said[:300]}…"
    message = f"column {column}: {said}"

    unknown = re.search(r'Message type "([\w.]+)" has no field named "(.*)"', said)
    if unknown:
        remedy = _known_field(unknown.group(1), unknown.group(2))
        return _failed("unknown-field", line, message, remedy, text, utf8)
    value = re.search(r'Enum type "([\w.]+)" has no value named (.*)', said)
    if value:
        return _failed("config-syntax", line, message, _known_value(*value.groups()), text, utf8)
    if "another member of oneof" in said:
        remedy = "keep one of the two"
        return _failed("conflicting-fields", line, message, remedy, text, utf8)
    remedy = "mend this line"
    if text.startswith("\ufeff"):
        remedy = "save the file without a byte order mark"
    elif "$" in said:
        remedy = "fill in what the template leaves open"
    elif "should not have multiple" in said:
        remedy = "write it once"
    elif 'Expected "}"' in said or 'Expected ">"' in said:
        remedy = "close the block that begins here"
    return _failed("config-syntax", line, message, remedy, text, utf8)


def _known_field(message_type: str, name: str) -> str:
    descriptor = schema.DESCRIPTOR.pool.FindMessageTypeByName(message_type)
    if descriptor.name == "ModelParameter":
        return 'a parameter\'s value is text: value: { string_value: "…" }'
    return _did_you_mean(name, list(descriptor.fields_by_name))


def _known_value(enum_type: str, name: str) -> str:
    values = schema.DESCRIPTOR.pool.FindEnumTypeByName(enum_type).values_by_name
    if name.strip("\"'") in values:
        return "write it without quotes"
    return _did_you_mean(name, list(values))


def _did_you_mean(name: str, known: list[str]) -> str:
    close = get_close_matches(name.lower(), {k.lower(): k for k in known}, n=1)
    by_lower = {k.lower(): k for k in known}
    return f"did you mean {by_lower[close[0]]}?" if close else f"use one of {', '.join(known)}"
