"""The line of every field of a protobuf text."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.repository.lint.positions import Positions, read_positions

ENTRY = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def positions(text: str) -> Positions:
    text_format.Parse(text, schema.ModelConfig())
    return read_positions(text, schema.ModelConfig.DESCRIPTOR)


@st.composite
def messages(draw: st.DrawFn):
    """Any config of fields of every shape: scalar, repeated, message, map, oneof, enum."""
    config = schema.ModelConfig(name=draw(ENTRY), max_batch_size=draw(st.integers(-3, 3)))
    for side in (config.input, config.output):
        for name in draw(st.lists(ENTRY, max_size=3)):
            tensor = side.add(name=name, data_type=draw(st.integers(0, 14)))
            tensor.dims.extend(draw(st.lists(st.integers(-1, 9), max_size=3)))
            if draw(st.booleans()):
                tensor.reshape.shape.extend(draw(st.lists(st.integers(1, 9), max_size=2)))
    for key in draw(st.sets(ENTRY, max_size=3)):
        config.parameters[key].string_value = draw(ENTRY)
    if draw(st.booleans()):
        block = config.dynamic_batching
        block.preferred_batch_size.extend(draw(st.lists(st.integers(1, 9), max_size=3)))
        for key in draw(st.sets(st.integers(0, 2**64 - 1), max_size=2)):
            block.priority_queue_policy[key].max_queue_size = draw(st.integers(0, 9))
    for _ in range(draw(st.integers(0, 2))):
        warmup = config.model_warmup.add(name=draw(ENTRY))
        for key in draw(st.sets(ENTRY, max_size=2)):
            warmup.inputs[key].zero_data = True
    return config


def scalars(message, at=()):
    """The place of every scalar that is written, told by the message and not by the text."""
    for field, value in message.ListFields():
        here = (*at, field.name)
        if field.message_type is None:
            yield from [(*here, i) for i in range(len(value))] if field.is_repeated else [here]
        elif field.message_type.GetOptions().map_entry:
            for key in value:
                if key:  # protobuf does not write a default
                    yield (*here, key, "key")
                yield from scalars(value[key], (*here, key, "value"))
        elif field.is_repeated:
            for i, inner in enumerate(value):
                yield from scalars(inner, (*here, i))
        else:
            yield from scalars(value, here)


def shown(text: str, line: int) -> tuple[str, str]:
    """The name and the value that a line of protobuf's own layout has."""
    name, _, value = text.split("\n")[line - 1].strip().partition(": ")
    return name, value


def as_text(value: str) -> str:
    return text_format.Parse(f"name: {value}", schema.ModelConfig()).name


@given(messages())
def test_every_scalar_stands_on_its_line(config):
    """In protobuf's own layout, one scalar a line, each place leads to a line of its own."""
    text = text_format.MessageToString(config)
    where = positions(text)
    places = list(scalars(config))
    assert len({where.lines[place] for place in places}) == len(places)
    for place in places:
        name, value = shown(text, where.lines[place])
        assert name == next(part for part in reversed(place) if isinstance(part, str))
        if place[-1] == "key" and isinstance(place[-2], str):
            assert as_text(value) == place[-2]
        if place[-1] == "string_value":
            assert as_text(value) == config.parameters[place[1]].string_value
        if place[-2:-1] == ("dims",):
            assert int(value) == getattr(config, place[0])[place[1]].dims[place[-1]]


@given(messages())
def test_layout_does_not_matter(config):
    """A config on one line has the same places, all on line 1."""
    text = text_format.MessageToString(config)
    flat = text_format.MessageToString(config, as_one_line=True)
    assert set(positions(flat).lines) == set(positions(text).lines)
    assert set(positions(flat).lines.values()) <= {1}


HAND = """\
# a comment: input {
name: "a"  # "
      'b'
input: [ {
    name: "x", dims: [ 1,
      2, -1 ];
  },
  < name: "z" dims: 3 dims: 4 >
]
parameters: {
  value: { string_value: "1" }
  key: "k"
}
parameters [ { key: "l" value {
  string_value: "2" } }, { key: "k" value { } } ]
dynamic_batching { priority_queue_policy {
    key: 0x10 value { max_queue_size: 3 } } }
"""


@pytest.mark.parametrize(
    ("where", "line"),
    [
        (("name",), 2),
        (("input",), 4),
        (("input", 0), 4),
        (("input", 0, "name"), 5),
        (("input", 0, "dims"), 5),
        (("input", 0, "dims", 0), 5),
        (("input", 0, "dims", 1), 6),
        (("input", 0, "dims", 2), 6),
        (("input", 1), 8),
        (("input", 1, "dims", 1), 8),
        (("parameters", "l"), 14),
        (("parameters", "l", "value", "string_value"), 15),
        (("parameters", "k"), 15),
        (("dynamic_batching", "priority_queue_policy", 16), 16),
        (("dynamic_batching", "priority_queue_policy", 16, "key"), 17),
        (("dynamic_batching", "priority_queue_policy", 16, "value", "max_queue_size"), 17),
    ],
)
def test_what_people_write(where, line):
    """Comments, lists, both brackets, separators, strings in parts, keys behind their values."""
    assert positions(HAND).lines[where] == line


def test_what_is_not_written():
    """A field that is not written is at the line of what would hold it, or at the first."""
    where = positions(HAND)
    assert where.line("input", 1, "data_type") == 8
    assert where.line("dynamic_batching", "default_queue_policy", "max_queue_size") == 16
    assert where.line("max_batch_size") == 1
    assert where.line() == 1


def test_key_that_is_written_again():
    """The second entry of a map with the same key is told, with its line."""
    assert positions(HAND).repeated == ((("parameters", "k"), 15),)
