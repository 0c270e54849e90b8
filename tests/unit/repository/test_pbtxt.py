"""config.pbtxt is read and written through the schema, and nothing of it gets lost."""

import os
from dataclasses import replace

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.errors import RepositoryError
from tritonkit.repository.config import ConfigTensor, DynamicBatching, ModelConfig
from tritonkit.repository.pbtxt import as_json, decode, encode
from tritonkit.signature import DATA_TYPES, data_type

FP32 = data_type("FP32")
CONFIG = ModelConfig(
    name="m",
    inputs=(ConfigTensor("x", FP32, (4, -1)), ConfigTensor("ids", data_type("INT64"), (-1,))),
    outputs=(ConfigTensor("y", FP32, (2,)), ConfigTensor("t", data_type("BYTES"), (1,))),
    max_batch_size=8,
    instances=2,
    intra_op_threads=3,
    dynamic_batching=DynamicBatching(500),
    warmup_batch_sizes=(1, 8),
)

BY_HAND = """
name: "m"  # ours
platform: "onnxruntime_onnx"
version_policy { specific { versions: 3 } }
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 reshape { shape: [ 2, 2 ] } }
output { name: "y" data_type: TYPE_FP32 dims: 2 label_filename: "labels.txt" }
instance_group { count: 2 kind: KIND_GPU gpus: 0 name: "g" }
dynamic_batching {
  max_queue_delay_microseconds: 100
  preserve_ordering: true
  priority_levels: 2
  default_priority_level: 1
  default_queue_policy { timeout_action: DELAY max_queue_size: 7 }
}
optimization { graph { level: 1 } }
parameters { key: "enable_mem_arena" value { string_value: "0" } }
parameters { key: "intra_op_thread_count" value { string_value: "2" } }
model_warmup {
  name: "real" batch_size: 4
  inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 input_data_file: "x.raw" } }
}
response_cache { enable: true }
"""


def parsed(text: str) -> schema.ModelConfig:
    """The text as the schema has it."""
    return text_format.Parse(text, schema.ModelConfig())


names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12)
tensors = st.lists(
    st.builds(
        ConfigTensor,
        names,
        st.sampled_from(DATA_TYPES),
        st.lists(st.sampled_from([-1, 1, 7, 2**40]), max_size=4).map(tuple),
    ),
    min_size=1,
    max_size=3,
).map(tuple)


def is_folder_name(name: str) -> bool:
    """Whether ModelConfig takes it as a name."""
    return name.isprintable() and "/" not in name and not name.startswith(".")


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Any config that ModelConfig itself takes."""
    most = draw(st.integers(0, 64))
    sizes = st.lists(st.integers(1, max(1, most)), max_size=3).map(tuple)
    batching = st.builds(DynamicBatching, st.integers(0, 2**31 - 1), sizes)
    return ModelConfig(
        name=draw(names.filter(is_folder_name)),
        inputs=draw(tensors),
        outputs=draw(tensors),
        max_batch_size=most,
        instances=draw(st.integers(1, 9)),
        intra_op_threads=draw(st.integers(1, 99)),
        inter_op_threads=draw(st.integers(1, 99)),
        dynamic_batching=draw(st.none() | batching) if most else None,
        warmup_batch_sizes=draw(sizes),
    )


@given(configs())
def test_round_trip(config):
    """What is encoded decodes to the same config, and that encodes to the same text."""
    text = encode(config)
    back = decode(text, "here")
    assert replace(back, base="") == config
    assert back.base == text
    assert encode(back) == text


@given(configs(), configs())
def test_change_is_written(old, new):
    """A config that was read and then changed in every field is written as the new one."""
    changed = replace(new, base=encode(old))
    assert replace(decode(encode(changed), "here"), base="") == new


def test_round_trip_by_hand():
    """What a person wrote keeps every field through decode and encode, but for the kit's own."""
    before, after = parsed(BY_HAND), parsed(encode(decode(BY_HAND, "here")))
    assert after.backend == "onnxruntime"
    assert after.parameters["inter_op_thread_count"].string_value == "1"
    after.ClearField("backend")
    del after.parameters["inter_op_thread_count"]
    assert after == before


def test_decode_by_hand():
    """What the kit decides on is read from a config that a person wrote."""
    config = decode(BY_HAND, "here")
    assert replace(config, base="") == ModelConfig(
        name="m",
        inputs=(ConfigTensor("x", FP32, (4,)),),
        outputs=(ConfigTensor("y", FP32, (2,)),),
        max_batch_size=8,
        instances=2,
        intra_op_threads=2,
        dynamic_batching=DynamicBatching(100),
        warmup_batch_sizes=(4,),
    )


def test_change_keeps_the_rest():
    """Other threads, instances and delay leave alone all that the kit does not model."""
    config = replace(
        decode(BY_HAND, "here"),
        intra_op_threads=5,
        instances=1,
        dynamic_batching=DynamicBatching(0, (2, 4)),
    )
    after = parsed(encode(config))
    assert after.version_policy.specific.versions == [3]
    assert after.output[0].label_filename == "labels.txt"
    assert after.input[0].reshape.shape == [2, 2]
    assert after.optimization.graph.level == 1
    assert after.parameters["enable_mem_arena"].string_value == "0"
    assert after.response_cache.enable
    assert after.model_warmup[0].inputs["x"].input_data_file == "x.raw"
    group = after.instance_group[0]
    assert (group.name, group.kind, list(group.gpus)) == ("g", group.KIND_GPU, [0])
    block = after.dynamic_batching
    assert (block.priority_levels, block.default_priority_level) == (2, 1)
    assert block.default_queue_policy.max_queue_size == 7
    assert block.preserve_ordering
    assert (block.max_queue_delay_microseconds, list(block.preferred_batch_size)) == (0, [2, 4])
    assert after.parameters["intra_op_thread_count"].string_value == "5"
    assert group.count == 1


def test_no_scheduler():
    """Without dynamic batching the whole block is gone, so that no two requests share a run."""
    text = encode(replace(decode(BY_HAND, "here"), dynamic_batching=None))
    assert "dynamic_batching" not in text
    assert not parsed(text).HasField("dynamic_batching")


def test_scheduler_without_options():
    """Dynamic batching with nothing to say is still written: an empty block switches it on."""
    text = encode(replace(CONFIG, dynamic_batching=DynamicBatching()))
    assert parsed(text).HasField("dynamic_batching")
    assert parsed(text).dynamic_batching == schema.ModelDynamicBatching()


def test_no_preferred_sizes():
    """No preferred sizes are written unless they were asked for."""
    assert "preferred_batch_size" not in encode(CONFIG)
    asked = replace(CONFIG, dynamic_batching=DynamicBatching(0, (4,)))
    assert "preferred_batch_size: 4" in encode(asked)


def test_all_tensors_are_written():
    """Every input and output is written with name, dtype and dims, in order."""
    message = parsed(encode(CONFIG))
    assert [(t.name, t.data_type, list(t.dims)) for t in message.input] == [
        ("x", schema.TYPE_FP32, [4, -1]),
        ("ids", schema.TYPE_INT64, [-1]),
    ]
    assert [(t.name, t.data_type, list(t.dims)) for t in message.output] == [
        ("y", schema.TYPE_FP32, [2]),
        ("t", schema.TYPE_STRING, [1]),
    ]


def test_new_config():
    """A new config is for the onnxruntime backend, on the CPU."""
    message = parsed(encode(CONFIG))
    assert message.backend == "onnxruntime"
    assert message.instance_group[0].kind == schema.ModelInstanceGroup.KIND_CPU


def test_renamed_tensor():
    """A tensor that is gone from the config is gone from the text, with all that it had."""
    config = replace(decode(BY_HAND, "here"), outputs=(ConfigTensor("z", FP32, (2,)),))
    (output,) = parsed(encode(config)).output
    assert (output.name, output.label_filename) == ("z", "")


def test_warmup():
    """Warm-up runs have every input: random floats, zeros for others, 16 where dynamic."""
    first, last = parsed(encode(CONFIG)).model_warmup
    assert (first.batch_size, last.batch_size) == (1, 8)
    assert (first.count, first.name) == (1, "batch_1")
    x, ids = last.inputs["x"], last.inputs["ids"]
    assert (x.data_type, list(x.dims), x.random_data) == (schema.TYPE_FP32, [4, 16], True)
    assert (ids.data_type, list(ids.dims), ids.zero_data) == (schema.TYPE_INT64, [16], True)


def test_changed_warmup():
    """Other warm-up sizes replace a person's warm-up; none remove it."""
    config = decode(BY_HAND, "here")
    text = encode(replace(config, warmup_batch_sizes=(1, 8)))
    assert [w.batch_size for w in parsed(text).model_warmup] == [1, 8]
    assert not parsed(encode(replace(config, warmup_batch_sizes=()))).model_warmup


MINIMAL = """
backend: "onnxruntime"
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
"""


def test_defaults():
    """What a person left out is what Triton and ONNX Runtime would take."""
    config = decode(MINIMAL, "here", "folder")
    assert (config.max_batch_size, config.instances, config.dynamic_batching) == (0, 2, None)
    assert (config.intra_op_threads, config.inter_op_threads) == (os.cpu_count(), 1)


@pytest.mark.parametrize(
    ("value", "threads"), [("0", os.cpu_count()), ("1", 1), ("7", 7)], ids=["0", "1", "7"]
)
def test_threads(value, threads):
    """Threads are read from the parameter; 0 is ONNX Runtime's own choice."""
    text = MINIMAL + 'parameters { key: "intra_op_thread_count" value { string_value: "%s" } }'
    assert decode(text % value, "here", "m").intra_op_threads == threads


def test_name_of_the_folder():
    """A config without a name, which Triton allows, has its folder's."""
    assert decode(MINIMAL, "here", "folder").name == "folder"
    assert decode('name: "own"' + MINIMAL, "here", "folder").name == "own"


def test_empty_group():
    """An instance group without a count has one instance."""
    assert decode(MINIMAL + "instance_group {}", "here", "m").instances == 1


def refused(text: str) -> str:
    """What decode says to it; one line that names the file."""
    with pytest.raises(RepositoryError) as caught:
        decode(text, "repo/m/config.pbtxt", "m")
    message = str(caught.value)
    assert message.startswith("repo/m/config.pbtxt: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "text",
    [
        "hello there",
        "hello: 1",
        'name: "a" name: "b"',
        "max_batch_size: 99999999999",
        'max_batch_size: "8"',
        "input { data_type: TYPE_NOPE }",
        'name: "unclosed\n',
        "input {",
        "\x00\x01",
    ],
)
def test_not_a_config(text):
    """Text that is not of the schema is refused."""
    assert "not a valid config.pbtxt" in refused(text)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (MINIMAL.replace("onnxruntime", "pytorch"), "backend is 'pytorch'; tritonkit serves 'on"),
        (MINIMAL.replace('backend: "onnxruntime"', ""), "backend is ''; tritonkit serves"),
        (MINIMAL + "instance_group {} instance_group {}", "has several instance groups"),
        (MINIMAL.replace("input {", "output {"), "inputs and outputs must all be written"),
        (MINIMAL.replace("output {", "input {"), "inputs and outputs must all be written"),
        (MINIMAL.replace("FP32", "BF16"), "dtype 'TYPE_BF16' is not carried"),
        (MINIMAL.replace("data_type: TYPE_FP32", ""), "dtype 'TYPE_INVALID' is not carried"),
        (
            MINIMAL + 'parameters { key: "intra_op_thread_count" value { string_value: "all" } }',
            "intra_op_thread_count is 'all'; it must be a whole number",
        ),
        (
            MINIMAL + 'parameters { key: "inter_op_thread_count" value { string_value: "²" } }',
            "inter_op_thread_count is '²'; it must be a whole number",
        ),
    ],
)
def test_what_the_kit_cannot_serve(wrong, words):
    """What the kit cannot serve is refused by what it is."""
    assert words in refused(wrong)


@given(st.text(max_size=60))
def test_any_text(text):
    """No text whatever raises anything but a RepositoryError."""
    with pytest.raises(RepositoryError):
        decode(text, "here", "m")


def test_as_json():
    """The JSON form has the schema's names and says what the text says."""
    document = as_json(CONFIG)
    assert document["max_batch_size"] == 8
    assert document["parameters"]["intra_op_thread_count"] == {"string_value": "3"}
    assert document["dynamic_batching"] == {"max_queue_delay_microseconds": "500"}
