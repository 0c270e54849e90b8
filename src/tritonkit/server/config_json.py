"""A model's config as JSON, as Triton answers it at /v2/models/M/config.

protobuf's own JSON makes text of 64-bit numbers and leaves out what has its default value; Triton
does neither.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format


def config_json(message: Any) -> dict[str, Any]:
    """A message of the model config's schema, with whole numbers as numbers."""
    text = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _numbers(message.DESCRIPTOR, text)


def _numbers(descriptor: Any, read: dict[str, Any]) -> dict[str, Any]:
    return {name: _value(descriptor.fields_by_name[name], value) for name, value in read.items()}


def _value(field: Any, value: Any) -> Any:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return {key: _value(inner.fields_by_name["value"], each) for key, each in value.items()}
    if isinstance(value, list):
        return [_one(field, each) for each in value]
    return _one(field, value)


def _one(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _numbers(field.message_type, value)
    wide = (field.CPPTYPE_INT64, field.CPPTYPE_UINT64)
    return int(value) if field.cpp_type in wide else value
