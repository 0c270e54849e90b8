"""Rules about instances, threads, parameters, accelerators and warm-up, with healthy twins."""

from __future__ import annotations

import pytest

DATA = "data_type: TYPE_FP32 dims: 4 zero_data: true"


def threads(number: str) -> str:
    return f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{number}" }} }}'


def parameter(key: str, value: str) -> dict[str, str]:
    return {"more": f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'}


def marked(blocks: dict[str, str]) -> dict[str, str]:
    return {key: f"{text} #!" for key, text in blocks.items()}


def group(inner: str) -> dict[str, str]:
    return {"group": f"instance_group {{ {inner}\n}}"}


def accelerator(side: str, name: str) -> dict[str, str]:
    inner = f'{side}_execution_accelerator {{ name: "{name}" }}'
    return {"more": f"optimization {{ execution_accelerators {{\n{inner}\n}} }}"}


def warmup(inputs: str, rows: str = "batch_size: 1") -> dict[str, str]:
    return {"more": f'model_warmup {{ name: "w"\n{rows}\n{inputs}\n}}'}


def warm(data: str) -> dict[str, str]:
    return warmup(f'inputs {{ key: "x" value {{\n{data}\n}} }}')


ONE = f'inputs {{ key: "x" value {{ {DATA} }} }}'
FIRST = {"first": "#!"}
CPU = {"gpu": False}

CASES = [
    ("instances-not-written", {**FIRST, "group": "", **CPU}, {"group": "", "gpu": True}),
    ("instances-not-written", group("kind: KIND_CPU #!"), group("kind: KIND_GPU")),
    ("instances-not-written", group("kind: KIND_CPU #!"), group("kind: KIND_MODEL")),
    ("instances-not-written", {**group("count: -1 #!"), **CPU}, {**group("count: 1"), **CPU}),
    ("threads-not-written", {**FIRST, "threads": ""}, {"threads": "", **group("kind: KIND_GPU")}),
    (
        "threads-not-written",
        {"threads": f"{threads('0')} #!"},
        {"threads": threads("1")},
    ),
    ("threads-over-cpus", group("count: 3 kind: KIND_CPU #!"), group("count: 2 kind: KIND_CPU")),
    (
        "threads-over-cpus",
        {**group("count: 1 kind: KIND_CPU #!"), "threads": threads("3")},
        {"threads": threads("2")},
    ),
    (
        "threads-over-cpus",
        {**group("count: 1 kind: KIND_CPU #!"), "threads": threads("4"), "cpus": 3},
        {"threads": threads("4"), "cpus": 4},
    ),
    (
        "threads-over-cpus",
        {**FIRST, "group": "", "threads": threads("2"), **CPU},
        {"group": "", "threads": threads("1"), **CPU},
    ),
    ("threads-over-cpus", {**group("count: 3 #!"), **CPU}, {**group("count: 3"), "gpu": True}),
    (
        "instance-gpus",
        group("kind: KIND_CPU count: 1\ngpus: [ 0 ] #!"),
        group("kind: KIND_GPU count: 1\ngpus: [ 0 ]"),
    ),
    ("instance-gpus", group('kind: KIND_CPU count: 1\nprofile: "1" #!'), {}),
    (
        "gpu-needed",
        {**group("count: 1\nkind: KIND_GPU #!"), **CPU},
        {**group("count: 1 kind: KIND_GPU"), "gpu": True},
    ),
    ("parameter-value", {"threads": f"{threads('two')} #!"}, {"threads": threads(" 2 ")}),
    ("parameter-value", {"threads": f"{threads('99999999999')} #!"}, {}),
    (
        "parameter-value",
        {"threads": 'parameters { key: "intra_op_thread_count" value { } } #!'},
        {"threads": ""},
    ),
    (
        "parameter-value",
        marked(parameter("execution_mode", "2")),
        parameter("execution_mode", "1"),
    ),
    (
        "parameter-value",
        marked(parameter("enable_mem_arena", "yes")),
        parameter("enable_mem_arena", "ON"),
    ),
    (
        "unknown-parameter",
        {"more": 'parameters {\nvalue { }\nkey: "intra_op_threads" #!\n}'},
        parameter("inter_op_thread_count", "1"),
    ),
    (
        "unknown-parameter",
        marked(parameter("MAX_BATCH_VOLUME_BYTES", "1")),
        {
            "threads": threads("1") + parameter("TRITON_BATCH_STRATEGY_PATH", "x")["more"],
            **parameter("MAX_BATCH_VOLUME_BYTES", "1"),
        },
    ),
    ("duplicate-parameter", {"more": f"{threads('2')} #!"}, parameter("execution_mode", "1")),
    (
        "unknown-accelerator",
        {"more": accelerator("cpu", "onednn")["more"].replace("}\n}", "} #!\n}")},
        accelerator("cpu", "openvino"),
    ),
    (
        "accelerator-unused",
        {"more": accelerator("gpu", "tensorrt")["more"].replace("}\n}", "} #!\n}")},
        {**accelerator("gpu", "tensorrt"), **group("count: 1 kind: KIND_GPU")},
    ),
    ("warmup-batch-size", warmup(ONE, "batch_size: 9 #!"), warmup(ONE, "batch_size: 8")),
    (
        "warmup-batch-size",
        {"most": "", **warmup(ONE, "batch_size: 2 #!")},
        {"most": "", **warmup(ONE)},
    ),
    (
        "warmup-batch-size",
        {"most": "", "y": "", "batching": "", **warmup(ONE, "batch_size: 5 #!")},
        # Auto-complete makes it 4.
        {"most": "", "y": "", "batching": "", **warmup(ONE, "batch_size: 4")},
    ),
    ("warmup-skipped", {"more": 'model_warmup { name: "w" } #!'}, warmup(ONE)),
    ("warmup-inputs", {"more": 'model_warmup { #!\nname: "w" batch_size: 1 }'}, warmup(ONE)),
    (
        "warmup-inputs",
        warmup(f'{ONE}\ninputs {{ key: "q" value {{ {DATA} }} }} #!'),
        warmup(ONE),
    ),
    ("warmup-tensor", warm("data_type: TYPE_INT32 #!\ndims: 4 zero_data: true"), warm(DATA)),
    ("warmup-tensor", warm("data_type: TYPE_FP32\ndims: 5 #!\nzero_data: true"), warm(DATA)),
    ("warmup-tensor", warm("data_type: TYPE_FP32\ndims: [ 1, 4 ] #!\nzero_data: true"), warm(DATA)),
    ("warmup-tensor", warm("data_type: TYPE_FP32\ndims: -1 #!\nzero_data: true"), warm(DATA)),
    (
        "warmup-data",
        warmup('inputs { key: "x"\nvalue { #!\ndata_type: TYPE_FP32 dims: 4 } }'),
        warm(DATA),
    ),
    (
        "warmup-data",
        warm('data_type: TYPE_FP32 dims: 4\ninput_data_file: "x.raw" #!'),
        warm(DATA),
    ),
]


@pytest.mark.parametrize(("rule", "broken", "twin"), CASES)
def test_caught_and_twin_passes(check, rule, broken, twin):
    """The rule finds just what is marked, at its line, and nothing in the twin."""
    check(rule, broken, twin)


@pytest.mark.parametrize(("size", "lines"), [(16, []), (15, [13])])
def test_warmup_file_holds_enough(repository, size, lines):
    """The file of a warm-up input lies in the folder warmup and holds all of its bytes."""
    data = 'data_type: TYPE_FP32 dims: 4\ninput_data_file: "x.raw"'
    folder = repository.add(**warm(data))
    (folder / "warmup").mkdir()
    (folder / "warmup" / "x.raw").write_bytes(bytes(size))
    assert repository.found("warmup-data") == lines


def test_did_you_mean(repository):
    """A parameter that is nearly one is told which."""
    repository.add(**parameter("intra_op_threads", "1"))
    (problem,) = [p for p in repository.lint("m") if p.rule == "unknown-parameter"]
    assert problem.remedy == "did you mean 'intra_op_thread_count'?"


def test_second_entry_of_a_map_counts(repository):
    """The last of two parameters with one key is what the other rules judge."""
    repository.add(threads=threads("two"), more=threads("1"))
    assert repository.found("parameter-value") == []
