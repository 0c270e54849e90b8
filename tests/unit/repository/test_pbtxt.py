"""config.pbtxt is read and written through the schema, and nothing of it gets lost."""

import os
from dataclasses import replace

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.errors import RepositoryError
from tritonkit.repository.config import (
    ConfigTensor,
    DynamicBatching,
    ModelConfig,
    require_model_name,
)
from tritonkit.repository.execution import Accelerator, Execution, GraphLevel, InstanceKind
from tritonkit.repository.pbtxt import as_json, decode, encode
from tritonkit.repository.scheduling import (
    CORRID_TYPES,
    FLAG_TYPES,
    Control,
    ControlKind,
    Direct,
    InitialState,
    Oldest,
    Priorities,
    QueuePolicy,
    SequenceBatching,
    StateTensor,
    TimeoutAction,
)
from tritonkit.repository.warmup import WarmUp, WarmUpInput, synthetic_warmup
from tritonkit.signature import DATA_TYPES, data_type

FP32 = data_type("FP32")
INPUTS = (ConfigTensor("x", FP32, (4, -1)), ConfigTensor("ids", data_type("INT64"), (-1,)))
CONFIG = ModelConfig(
    name="m",
    inputs=INPUTS,
    outputs=(ConfigTensor("y", FP32, (2,)), ConfigTensor("t", data_type("BYTES"), (1,))),
    max_batch_size=8,
    instances=2,
    intra_op_threads=3,
    dynamic_batching=DynamicBatching(500),
    warmup=synthetic_warmup(INPUTS, (1, 8)),
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
dtypes = st.sampled_from(DATA_TYPES)
delays = st.integers(0, 2**31 - 1)
timeouts = st.integers(0, 2**63 - 1)
single = st.floats(-9, 9, width=32)
policies = st.builds(
    QueuePolicy, st.integers(0, 2**32 - 1), timeouts, st.sampled_from(TimeoutAction), st.booleans()
)


def lists(of: st.SearchStrategy, most: int = 3, **how: object) -> st.SearchStrategy:
    """Tuples of up to `most`."""
    return st.lists(of, max_size=most, **how).map(tuple)


def is_folder_name(name: str) -> bool:
    """Whether ModelConfig takes it as a name."""
    try:
        require_model_name(name)
    except RepositoryError:
        return False
    return True


def tensors(most: int, *, outputs: bool) -> st.SearchStrategy:
    """One tensor or more; without batches none is without dims; only outputs have labels."""
    dims = st.lists(st.sampled_from([-1, 1, 7, 2**40]), min_size=0 if most else 1, max_size=4)
    labels = st.just("") | names if outputs else st.just("")
    tensor = st.builds(ConfigTensor, names, dtypes, dims.map(tuple), labels)
    return st.lists(tensor, min_size=1, max_size=3).map(tuple)


@st.composite
def dynamic(draw: st.DrawFn, most: int) -> DynamicBatching:
    """Any dynamic batching of batches up to `most`."""
    ordered = draw(st.booleans())
    levels = draw(st.integers(1, 1 if ordered else 5))
    kinds = policies.filter(lambda p: not ordered or p.timeout_action is TimeoutAction.REJECT)
    by_level = st.dictionaries(st.integers(1, levels), kinds, max_size=3)
    priorities = st.builds(Priorities, st.just(levels), st.integers(1, levels), by_level)
    return DynamicBatching(
        draw(delays),
        draw(lists(st.integers(1, most))),
        ordered,
        draw(kinds),
        draw(st.none() | priorities),
    )


@st.composite
def controls(draw: st.DrawFn, kind: ControlKind, name: str) -> Control:
    """A control of that kind, in each of its types."""
    if kind is ControlKind.CORRID:
        return Control(kind, name, data_type(draw(st.sampled_from(CORRID_TYPES))))
    dtype = draw(st.sampled_from(FLAG_TYPES))
    value = {"FP32": single, "INT32": st.integers(-(2**31), 2**31 - 1), "BOOL": st.integers(0, 1)}
    return Control(kind, name, data_type(dtype), draw(st.tuples(value[dtype], value[dtype])))


@st.composite
def states(draw: st.DrawFn, before: str, after: str) -> StateTensor:
    """A state between these two tensors."""
    dims = draw(lists(st.sampled_from([-1, 1, 5])))
    fixed = tuple(draw(st.integers(0, 9)) if d < 0 else d for d in dims)
    initial = st.builds(InitialState, names, st.just(fixed), st.just("") | names)
    same = draw(st.booleans())
    growable = same and draw(st.booleans())
    return StateTensor(before, after, draw(dtypes), dims, draw(st.none() | initial), same, growable)


@st.composite
def sequences(draw: st.DrawFn, most: int, taken: set[str]) -> SequenceBatching:
    """Any sequence batching whose inputs are none of `taken`."""
    free = draw(st.lists(names.filter(lambda n: n not in taken), min_size=6, unique=True))
    kinds = draw(st.lists(st.sampled_from(ControlKind), unique=True))
    sizes = lists(st.integers(1, most)) if most else st.just(())
    direct = st.builds(Direct, delays, st.floats(0, 1, width=32))
    oldest = st.builds(Oldest, st.integers(0, 2**31 - 1), sizes, delays, st.booleans())
    return SequenceBatching(
        draw(direct | oldest),
        draw(timeouts),
        tuple(draw(controls(k, n)) for k, n in zip(kinds, free, strict=False)),
        tuple(draw(states(n, n + "'")) for n in free[4:6])[: draw(st.integers(0, 2))],
    )


@st.composite
def executions(draw: st.DrawFn) -> Execution:
    """Any execution; accelerators in the order in which they count."""
    kind = draw(st.sampled_from(InstanceKind))
    gpus = draw(lists(st.integers(0, 9))) if kind in ("KIND_GPU", "KIND_AUTO") else ()
    parameters = {
        "tensorrt": st.dictionaries(st.just("trt_x") | st.just("max_workspace_size_bytes"), names),
        "cuda": st.dictionaries(names, names, max_size=2),
        "openvino": st.just({}),
    }
    switch = st.none() | st.booleans()
    return Execution(
        kind,
        gpus,
        draw(switch),
        draw(st.sampled_from(GraphLevel)),
        draw(switch),
        draw(switch),
        draw(st.sampled_from(["", "cpu:0", "cpu:0;gpu:0"])),
        tuple(Accelerator(n, draw(p)) for n, p in parameters.items() if draw(st.booleans())),
    )


@st.composite
def warmups(draw: st.DrawFn, most: int) -> WarmUp:
    """A warm-up with zeros, random data and files."""
    row = st.builds(
        WarmUpInput, dtypes, lists(st.integers(0, 9)), st.booleans(), st.just("")
    ) | st.builds(WarmUpInput, dtypes, lists(st.integers(1, 9)), st.just(False), names)
    inputs = st.dictionaries(names, row, max_size=2)
    return WarmUp(
        draw(names), draw(st.integers(1, max(1, most))), draw(inputs), draw(st.integers(0, 9))
    )


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Any config that ModelConfig itself takes."""
    most = draw(st.integers(0, 64))
    inputs = draw(tensors(most, outputs=False))
    scheduler = draw(st.sampled_from(["none", "sequence", *(["dynamic"] if most else [])]))
    versions = lists(st.integers(1, 2**63 - 1), 4, min_size=1)
    return ModelConfig(
        name=draw(names.filter(is_folder_name)),
        inputs=inputs,
        outputs=draw(tensors(most, outputs=True)),
        max_batch_size=most,
        instances=draw(st.integers(1, 9)),
        intra_op_threads=draw(st.integers(1, 99)),
        inter_op_threads=draw(st.integers(1, 99)),
        dynamic_batching=draw(dynamic(most)) if scheduler == "dynamic" else None,
        sequence_batching=draw(sequences(most, {t.name for t in inputs}))
        if scheduler == "sequence"
        else None,
        execution=draw(executions()),
        warmup=draw(lists(warmups(most), 2)),
        response_cache=scheduler != "sequence" and draw(st.booleans()),
        version_policy=draw(st.none() | st.just("all") | st.integers(1, 2**32 - 1) | versions),
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
        outputs=(ConfigTensor("y", FP32, (2,), "labels.txt"),),
        max_batch_size=8,
        instances=2,
        intra_op_threads=2,
        dynamic_batching=DynamicBatching(
            100,
            queue=QueuePolicy(7, timeout_action=TimeoutAction.DELAY),
            priorities=Priorities(2, 1),
        ),
        execution=Execution(
            InstanceKind.GPU, (0,), graph_level=GraphLevel.EXTENDED, mem_arena=False
        ),
        warmup=(WarmUp("real", 4, {"x": WarmUpInput(FP32, (4,), file="x.raw")}, 0),),
        response_cache=True,
        version_policy=(3,),
    )


def test_change_keeps_the_rest():
    """Other threads, instances and delay leave alone all that the kit does not model."""
    config = decode(BY_HAND, "here")
    config = replace(
        config,
        intra_op_threads=5,
        instances=1,
        dynamic_batching=replace(
            config.dynamic_batching, max_queue_delay_us=0, preferred_batch_sizes=(2, 4)
        ),
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
    text = encode(replace(config, warmup=synthetic_warmup(config.inputs, (1, 8))))
    assert [w.batch_size for w in parsed(text).model_warmup] == [1, 8]
    assert not parsed(encode(replace(config, warmup=()))).model_warmup


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


def test_batch_and_no_more():
    """A tensor that has only its batch axis goes as [1], and Triton takes that off again."""
    text = encode(replace(CONFIG, outputs=(ConfigTensor("y", FP32, ()),)))
    (output,) = parsed(text).output
    assert list(output.dims) == [1]
    assert output.HasField("reshape")
    assert not output.reshape.shape
    back = decode(text, "here")
    assert back.outputs[0].dims == ()
    (changed,) = parsed(encode(replace(back, outputs=(ConfigTensor("y", FP32, (3,)),)))).output
    assert not changed.HasField("reshape")


QUEUED = """dynamic_batching {
  max_queue_delay_microseconds: 500
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy {
    max_queue_size: 100
  }
  priority_queue_policy {
    key: 1
    value {
      timeout_action: DELAY
      default_timeout_microseconds: 3000
      allow_timeout_override: true
    }
  }
}
"""

STATEFUL = """sequence_batching {
  max_sequence_idle_microseconds: 5000000
  control_input {
    name: "START"
    control {
      bool_false_true: false
      bool_false_true: true
    }
  }
  control_input {
    name: "ID"
    control {
      kind: CONTROL_SEQUENCE_CORRID
      data_type: TYPE_UINT64
    }
  }
  oldest {
    max_candidate_sequences: 4
  }
  state {
    input_name: "h"
    output_name: "h_next"
    data_type: TYPE_FP32
    dims: 2
    dims: -1
    initial_state {
      data_type: TYPE_FP32
      dims: 2
      dims: 3
      data_file: "state_0"
      name: "first"
    }
  }
}
"""

ACCELERATED = """optimization {
  graph {
    level: 2
  }
  execution_accelerators {
    gpu_execution_accelerator {
      name: "tensorrt"
      parameters {
        key: "precision_mode"
        value: "FP16"
      }
    }
    gpu_execution_accelerator {
      name: "cuda"
    }
  }
}
"""

GOLDEN = {
    "queued": (
        {
            "dynamic_batching": DynamicBatching(
                500,
                queue=QueuePolicy(100),
                priorities=Priorities(
                    2,
                    2,
                    {1: QueuePolicy(0, 3000, TimeoutAction.DELAY, allow_timeout_override=True)},
                ),
            )
        },
        QUEUED,
    ),
    "stateful": (
        {
            "dynamic_batching": None,
            "sequence_batching": SequenceBatching(
                Oldest(4),
                5_000_000,
                (
                    Control(ControlKind.START, "START", data_type("BOOL")),
                    Control(ControlKind.CORRID, "ID", data_type("UINT64")),
                ),
                (
                    StateTensor(
                        "h", "h_next", FP32, (2, -1), InitialState("first", (2, 3), "state_0")
                    ),
                ),
            ),
        },
        STATEFUL,
    ),
    "accelerated": (
        {
            "execution": Execution(
                InstanceKind.GPU,
                (0, 1),
                graph_level=GraphLevel.OFF,
                accelerators=(
                    Accelerator("tensorrt", {"precision_mode": "FP16"}),
                    Accelerator("cuda"),
                ),
            )
        },
        ACCELERATED,
    ),
    "gpus": (
        {"execution": Execution(InstanceKind.GPU, (0, 1))},
        "instance_group {\n  count: 2\n  gpus: 0\n  gpus: 1\n  kind: KIND_GPU\n}\n",
    ),
    "switches": (
        {"execution": Execution(parallel=True, mem_pattern=False)},
        'parameters {\n  key: "execution_mode"\n  value {\n    string_value: "1"\n  }\n}\n',
    ),
    "cached": ({"response_cache": True}, "response_cache {\n  enable: true\n}\n"),
    "all versions": ({"version_policy": "all"}, "version_policy {\n  all {\n  }\n}\n"),
    "two versions": (
        {"version_policy": 2},
        "version_policy {\n  latest {\n    num_versions: 2\n  }\n}\n",
    ),
    "these versions": (
        {"version_policy": (1, 3)},
        "version_policy {\n  specific {\n    versions: 1\n    versions: 3\n  }\n}\n",
    ),
}


@pytest.mark.parametrize(("fields", "block"), GOLDEN.values(), ids=GOLDEN)
def test_golden(fields, block):
    """What is written is, letter for letter, what Triton's documents show."""
    assert block in encode(replace(CONFIG, **fields))


def test_defaults_are_not_written():
    """What a model leaves to Triton and ONNX Runtime is not in its text."""
    text = encode(CONFIG)
    for word in ("version_policy", "optimization", "response_cache", "sequence", "gpus", "arena"):
        assert word not in text


def test_everything_taken_back():
    """All that a config has beyond the plain one can be taken out again."""
    full = CONFIG
    for fields, _ in GOLDEN.values():
        if "sequence_batching" not in fields:
            full = replace(full, **fields)
    assert decode(encode(full), "here") != decode(encode(CONFIG), "here")
    plain = encode(replace(CONFIG, base=encode(full)))
    assert replace(decode(plain, "here"), base="") == CONFIG
    assert "enable_mem_pattern" not in plain


def test_other_words_stay():
    """Where a person wrote the same in other words, those stay."""
    text = encode(decode(BY_HAND.replace('"0"', '"Off"'), "here"))
    assert parsed(text).parameters["enable_mem_arena"].string_value == "Off"


SEQUENCE = MINIMAL + "sequence_batching { %s }"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            MINIMAL + 'parameters { key: "enable_mem_arena" value { string_value: "si" } }',
            "enable_mem_arena is 'si'; it must be one of false, off, 0, true, on, 1",
        ),
        (
            MINIMAL + 'parameters { key: "execution_mode" value { string_value: "2" } }',
            "execution_mode is '2'; it must be one of 0, 1",
        ),
        (SEQUENCE % "iterative_sequence: true", "iterative_sequence is nothing that ONNX models"),
        (
            SEQUENCE % 'control_input { name: "s" control {} }',
            "control 'start' (s) has 0 of int32_false_true, fp32_false_true, bool_false_true",
        ),
        (
            SEQUENCE % 'control_input { name: "s" control { int32_false_true: [ 0 ] } }',
            "control 'start' (s): int32_false_true has two entries",
        ),
        (
            SEQUENCE % 'control_input { name: "s" control { int32_false_true: [ 0, 1 ] '
            "fp32_false_true: [ 0, 1 ] } }",
            "control 'start' (s) has 2 of",
        ),
        (
            SEQUENCE % 'state { input_name: "h" initial_state {} initial_state {} }',
            "state 'h' has several initial states; give one",
        ),
        (
            SEQUENCE % 'state { input_name: "h" data_type: TYPE_FP32 initial_state {} }',
            "state 'h' and its initial state differ in data_type",
        ),
        (
            SEQUENCE % 'state { input_name: "h" data_type: TYPE_FP32 '
            "initial_state { data_type: TYPE_FP32 } }",
            "the initial state of 'h' has no data; set zero_data, or name a data_file",
        ),
        ('platform: "ensemble"', "an ensemble has no model of its own; give a step: "),
    ],
)
def test_what_triton_would_not_load(wrong, words):
    """What Triton would not load either is refused by what it is."""
    assert words in refused(wrong)
