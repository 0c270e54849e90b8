"""Protobuf messages of Triton's schemas as plain dicts, as its JSON answers have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor


def as_dict(message: Any) -> dict[str, Any]:
    """All fields but those of messages that are not set. (protobuf's own makes text of numbers.)"""
    read: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            convert = _converter(inner.fields_by_name["value"])
            read[field.name] = {key: convert(each) for key, each in value.items()}
        elif field.is_repeated:
            read[field.name] = list(map(_converter(field), value))
        else:
            read[field.name] = _converter(field)(value)
    return read


def _converter(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.message_type is not None:
        return as_dict
    if field.enum_type is not None:
        names = field.enum_type.values_by_number
        return lambda number: names[number].name if number in names else number
    return lambda value: value
