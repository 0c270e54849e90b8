"""Where each field of a protobuf text stands. The parser of protobuf itself tells no lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor

Where = tuple[str | int, ...]
"""A place: names of fields, indices of repeated ones, keys of maps.

`("input", 1, "dims", 0)`, `("parameters", "intra_op_thread_count", "value")`.
"""


@dataclass(frozen=True)
class Positions:
    """The lines, from 1, of all that a text writes. repeated: map keys that it writes again."""

    lines: Mapping[Where, int]
    repeated: tuple[tuple[Where, int], ...]

    def line(self, *where: str | int) -> int:
        """The line of a field; where it is not written, of what would hold it; 1 for the whole."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)


def read_positions(text: str, descriptor: Any) -> Positions:
    """The positions in `text`, which protobuf can read as a message of `descriptor`."""
    lines: dict[Where, int] = {}
    repeated: list[tuple[Where, int]] = []
    _Reader(text, lines, repeated).message(descriptor, (), end="")
    return Positions(lines, tuple(repeated))


class _Reader:
    """Reads as protobuf's own parser does, and keeps the lines instead of the values."""

    def __init__(self, text: str, lines: dict[Where, int], repeated: list[tuple[Where, int]]):
        self._tokens = text_format.Tokenizer(text.split("\n"))
        self._lines = lines
        self._repeated = repeated

    def message(self, descriptor: Any, at: Where, end: str) -> str | int | None:
        """The fields up to `end`; returns the key, if this is an entry of a map."""
        tokens = self._tokens
        counts: Counter[str] = Counter()
        key = None
        while not tokens.AtEnd() and not (end and tokens.TryConsume(end)):
            line = self._line()
            name = tokens.ConsumeIdentifierOrNumber()
            field = descriptor.fields_by_name[name]
            self._lines.setdefault((*at, name), line)
            tokens.TryConsume(":")
            several = field.is_repeated and tokens.TryConsume("[")
            while not (several and tokens.TryConsume("]")):
                line = self._line() if several else line
                if field.message_type is None:
                    value = self._scalar(field)
                    key = value if name == "key" else key
                    if field.is_repeated:
                        self._lines[(*at, name, counts[name])] = line
                elif field.message_type.GetOptions().map_entry:
                    self._entry(field.message_type, (*at, name), line)
                else:
                    inner = (*at, name, counts[name]) if field.is_repeated else (*at, name)
                    self._lines[inner] = line
                    self._block(field.message_type, inner)
                counts[name] += 1
                if not several:
                    break
                tokens.TryConsume(",")
            if not tokens.TryConsume(","):
                tokens.TryConsume(";")
        return key

    def _block(self, descriptor: Any, at: Where) -> str | int | None:
        if self._tokens.TryConsume("<"):
            return self.message(descriptor, at, ">")
        self._tokens.Consume("{")
        return self.message(descriptor, at, "}")

    def _entry(self, descriptor: Any, at: Where, line: int) -> None:
        """An entry of a map, whose key may come last. Of entries with one key the last counts."""
        outside, self._lines = self._lines, {}
        key = self._block(descriptor, ())
        inside, self._lines = self._lines, outside
        if key is None:  # an entry that leaves its key out has the default one
            field = descriptor.fields_by_name["key"]
            key = field.default_value
        at = (*at, key)
        if at in self._lines:
            self._repeated.append((at, line))
        self._lines[at] = line
        for where, inner in inside.items():
            self._lines[(*at, *where)] = inner

    def _scalar(self, field: Any) -> str | int:
        if field.type == FieldDescriptor.TYPE_STRING:
            return str(self._tokens.ConsumeString())
        token = str(self._tokens.token)
        self._tokens.NextToken()
        if field.name == "key":
            signed = field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64)
            return int(text_format.ParseInteger(token, is_signed=signed, is_long=True))
        return token

    def _line(self) -> int:
        """The line of the token that comes next."""
        return int(self._tokens.ParseError("").GetLine())
