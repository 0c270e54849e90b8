"""Rules about ensembles: two models in a row, and what may be wrong between them."""

from __future__ import annotations

import pytest

WIDER = "(float[N,4] y) => (float[N,1] z) <int64[1] a = {1}> { z = ReduceSum(y, a) }"
BLOCKS = {
    "platform": 'platform: "ensemble"',
    "most": "max_batch_size: 8",
    "a": 'input { name: "a" data_type: TYPE_FP32 dims: 4 }',
    "b": 'output { name: "b" data_type: TYPE_FP32 dims: 1 }',
    "open": "ensemble_scheduling {",
    "first": 'step { model_name: "one" model_version: -1 input_map { key: "x" value: "a" }'
    ' output_map { key: "y" value: "between" } }',
    "second": 'step { model_name: "two" model_version: -1 input_map { key: "y" value: "between" }'
    ' output_map { key: "z" value: "b" } }',
    "close": "}",
    "more": "",
}


@pytest.fixture
def ensemble(repository):
    """`ensemble(first="step { … }")`: the lines that each rule finds, by rule."""
    repository.add("one")
    z = 'output { name: "z" data_type: TYPE_FP32 dims: 1 }'
    repository.add("two", WIDER, x='input { name: "y" data_type: TYPE_FP32 dims: 4 }', y=z)

    def found(**blocks: str) -> tuple[dict[str, list[int]], list[int]]:
        folder = repository.path / "both"
        (folder / "1").mkdir(parents=True)
        text = "\n".join({**BLOCKS, **blocks}.values())
        (folder / "config.pbtxt").write_text(text)
        rules: dict[str, list[int]] = {}
        for problem in repository.lint("both"):
            rules.setdefault(problem.rule, []).append(problem.line)
        return rules, [n for n, line in enumerate(text.split("\n"), start=1) if "#!" in line]

    return found


def test_sound_ensemble(ensemble):
    """Two models in a row, mapped from end to end, have no problems at all."""
    assert ensemble() == ({}, [])


FROM_A = 'input_map { key: "x" value: "a" } output_map { key: "y" value: "between" }'


def step(model="one", maps=FROM_A, version="-1"):
    return f'step {{\nmodel_name: "{model}"\nmodel_version: {version}\n{maps}\n}}'


CASES = {
    "no platform": ("ensemble-settings", {"platform": "", "open": "ensemble_scheduling { #!"}),
    "a backend": ("ensemble-settings", {"more": 'backend: "onnxruntime" #!'}),
    "instances": ("ensemble-settings", {"more": "instance_group { count: 1 } #!"}),
    "optimization": ("ensemble-settings", {"more": "optimization { } #!"}),
    "warm-up": ("ensemble-settings", {"more": 'model_warmup { name: "w" batch_size: 1 } #!'}),
    "absent model": ("ensemble-step", {"first": step("nobody").replace('y"\n', 'y" #!\n')}),
    "hostile model": ("ensemble-step", {"first": step("../x").replace('x"\n', 'x" #!\n')}),
    "itself": ("ensemble-step", {"first": step("both").replace('h"\n', 'h" #!\n')}),
    "absent version": ("ensemble-step", {"first": step(version="7 #!")}),
    "no model": ("ensemble-step", {"first": 'step { #!\ninput_map { key: "x" value: "a" } '
                 'output_map { key: "y" value: "between" } }'}),
    "no input": (
        "ensemble-map",
        {"first": step(maps='input_map {\nkey: "q" #!\nvalue: "a" }\ninput_map { key: "x" value: '
                       '"a" }\noutput_map { key: "y" value: "between" }')},
    ),
    "no output": (
        "ensemble-map",
        {"second": step("two", 'input_map { key: "y" value: "between" }\noutput_map {\n'
                        'key: "q" #!\nvalue: "b" }')},
    ),
    "unmapped input": (
        "ensemble-step",
        {"second": 'step { #!\nmodel_name: "two" output_map { key: "z" value: "b" } }'},
    ),
    "unused input": (
        "ensemble-flow",
        {"more": 'input { name: "c" data_type: TYPE_FP32 dims: 4 } #!'},
    ),
    "unwritten output": (
        "ensemble-flow",
        {"more": 'output { name: "c" data_type: TYPE_FP32 dims: 4 } #!'},
    ),
    "unread tensor": (
        "ensemble-flow",
        {"open": "ensemble_scheduling { #!", "b": 'output { name: "between" data_type: TYPE_FP32'
         ' dims: 4 }'},
    ),
    "written twice": (
        "ensemble-flow",
        {"close": 'step { model_name: "one" input_map { key: "x" value: "a" }\noutput_map { '
         'key: "y" value: "between" } #!\n} }'},
    ),
    "other type": (
        "ensemble-tensor",
        {"a": 'input { name: "a" data_type: TYPE_FP16 dims: 4 }', "first": step(
            maps='input_map { key: "x" value: "a" } #!\noutput_map { key: "y" value: "between" }')},
    ),
    "other dims": (
        "ensemble-tensor",
        {"b": 'output { name: "b" data_type: TYPE_FP32 dims: 2 }', "second": step(
            "two", 'input_map { key: "y" value: "between" }\noutput_map { key: "z" value: "b" } '
            "#!")},
    ),
    "batch size": ("ensemble-batch-size", {"most": "max_batch_size: 9 #!"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_unsound_ensemble(ensemble, case):
    """What is wrong is found by its rule, just where it is marked."""
    rule, blocks = CASES[case]
    rules, marked = ensemble(**blocks)
    assert marked and rules.get(rule) == marked


def test_no_steps(ensemble):
    """An ensemble of nothing is told once."""
    rules, _ = ensemble(open="", first="", second="", close="")
    assert rules == {"ensemble-settings": [1]}


def test_unbatched_step(ensemble, repository):
    """An ensemble with batches may have a step without, if its shapes begin with the batch."""
    config = repository.path / "one" / "config.pbtxt"
    text = config.read_text().replace("max_batch_size: 8", "").replace("dims: 4", "dims: [ -1, 4 ]")
    config.write_text(text)
    assert ensemble() == ({}, [])


def test_ensemble_without_a_version(ensemble, repository):
    """Git keeps no empty folder, so the version that an ensemble needs is easily lost."""
    ensemble()
    (repository.path / "both" / "1").rmdir()
    (problem,) = repository.lint("both")
    assert problem.rule == "no-version" and ".gitkeep" in problem.remedy
