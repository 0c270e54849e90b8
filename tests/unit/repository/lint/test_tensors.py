"""Rules about inputs and outputs, each on a config to catch and on a healthy twin."""

from __future__ import annotations

import pytest

FIXED = "(float[1,4] x) => (float[1,4] y) { y = Relu(x) }"
WIDE = "(float[N,L] x) => (float[N,L] y) { y = Relu(x) }"
TWO = "(float[N,4] x, float[N,4] z) => (float[N,4] y) { y = Add(x, z) }"
SCALAR = "(float[N,4] x, float s) => (float[N,4] y) { y = Add(x, s) }"
WEIGHT = "(float[N,4] x, float[4] w = {1.0, 2.0, 3.0, 4.0}) => (float[N,4] y) { y = Add(x, w) }"
FLAT = "(float[N] x) => (float[N] y) { y = Relu(x) }"


def x(rest: str, name: str = "x") -> str:
    return f'input {{ name: "{name}" data_type: TYPE_FP32\n{rest}\n}}'


def y(rest: str) -> str:
    return f'output {{ name: "y" data_type: TYPE_FP32\n{rest}\n}}'


UNBATCHED = {"most": "", "batching": ""}
WHOLE = {**UNBATCHED, "x": x("dims: [ -1, 4 ]"), "y": y("dims: [ -1, 4 ]")}
MARKED = {"x": 'input { #!\n name: "x" data_type: TYPE_FP32 dims: 4 }'}

CASES = [
    ("max-batch-size-negative", {"most": "max_batch_size: -8 #!"}, {}),
    ("tensor-incomplete", {"x": "input { data_type: TYPE_FP32 dims: 4 } #!"}, {}),
    ("tensor-incomplete", {"x": 'input { name: "x" dims: 4 } #!'}, {}),
    ("tensor-incomplete", {"y": 'output { name: "y" data_type: TYPE_FP32 } #!'}, {}),
    ("dims-not-positive", {"x": x("dims: 0 #!")}, {}),
    ("dims-not-positive", {"y": y("dims: [ -2 ] #!")}, {}),
    (
        "reshape",
        {"x": x("dims: 4\nreshape { shape: [ 3 ] } #!")},
        {"x": x("dims: [ 2, 2 ]\nreshape { shape: [ 4 ] }")},
    ),
    (
        "reshape",
        {"x": x("dims: [ 2, -1, 6 ]\nreshape { shape: [ -1, 12 ] } #!")},
        {"x": x("dims: [ 2, -1, 6 ]\nreshape { shape: [ 1, 2, -1, 3, 2 ] }")},
    ),
    (
        "reshape",
        {**UNBATCHED, "x": x("dims: 1\nreshape { } #!")},
        {"x": x("dims: 1\nreshape { }")},
    ),
    (
        "tensor-format",
        {"x": x("dims: 4\nformat: FORMAT_NHWC #!")},
        {"x": x("dims: [ 3, 2, 2 ]\nformat: FORMAT_NHWC")},
    ),
    (
        "tensor-format",
        {"y": y("dims: 4\nis_shape_tensor: true #!")},
        {"backend": 'backend: "tensorrt"', "y": y("dims: 4\nis_shape_tensor: true")},
    ),
    ("duplicate-input", {"more": 'input { name: "x" data_type: TYPE_FP32 dims: 4 } #!'}, {}),
    ("duplicate-output", {"more": 'output { name: "y" data_type: TYPE_FP32 dims: 4 } #!'}, {}),
    ("input-count", {**MARKED, "graph": TWO}, {"more": x("dims: 4", "z"), "graph": TWO}),
    ("unknown-input", {"x": 'input {\nname: "q" #!\ndata_type: TYPE_FP32 dims: 4 }'}, {}),
    ("unknown-output", {"y": 'output {\nname: "q" #!\ndata_type: TYPE_FP32 dims: 4 }'}, {}),
    ("data-type", {"x": 'input { name: "x"\ndata_type: TYPE_INT64 #!\ndims: 4 }'}, {}),
    ("data-type", {"y": 'output { name: "y"\ndata_type: TYPE_BF16 #!\ndims: 4 }'}, {}),
    (
        "no-batch-axis",
        {**MARKED, "y": 'output { #!\n name: "y" data_type: TYPE_FP32 dims: 4 }', "graph": FIXED},
        {**UNBATCHED, "x": x("dims: [ 1, 4 ]"), "y": y("dims: [ 1, 4 ]"), "graph": FIXED},
    ),
    ("dims-repeat-batch", {"x": x("dims: [ -1, 4 ] #!")}, {}),
    ("dims-repeat-batch", {"y": y("dims: [ -1, 4 ] #!")}, WHOLE),
    ("dims", {"x": x("dims: 5 #!")}, {}),
    ("dims", {"x": x("dims: [ 4, 4 ] #!")}, {}),
    ("dims", {**WHOLE, "x": x("dims: 4 #!")}, WHOLE),
    # An output's dims are exact, an input's may be narrower than the model's.
    ("dims", {"y": y("dims: 4 #!"), "graph": WIDE}, {"y": y("dims: -1"), "graph": WIDE}),
    ("dims", {"x": x("dims: -1 #!")}, {"y": y("dims: -1"), "graph": WIDE}),
    (
        "dims",
        {"x": x("dims: [ 2, 3 ]\nreshape { shape: 6 } #!")},
        {"x": x("dims: [ 2, 2 ]\nreshape { shape: 4 }")},
    ),
    (
        "scalar-dims",
        {**WHOLE, "more": x("dims: 2 #!", "s"), "graph": SCALAR},
        {**WHOLE, "more": x("dims: 1", "s"), "graph": SCALAR},
    ),
    (
        "optional-input",
        {"more": x("dims: 4\noptional: true #!", "w"), "graph": WEIGHT},
        {**WHOLE, "more": x("dims: 4\noptional: true", "w"), "graph": WEIGHT},
    ),
    (
        "ragged-input",
        {"x": x("dims: 4\nallow_ragged_batch: true #!")},
        {"x": x("dims: -1\nallow_ragged_batch: true"), "graph": FLAT},
    ),
    (
        "auto-complete-refused",
        {"y": "", "most": "max_batch_size: 8 #!", "graph": FIXED},
        {**UNBATCHED, "y": "", "graph": FIXED},
    ),
    ("auto-complete-batching", {"first": "#!", "x": "", "y": "", "batching": ""}, {"batching": ""}),
    ("auto-complete-batching", {"first": "#!", "y": "", "most": ""}, {"y": ""}),
    # With a scheduler and max_batch_size written there is nothing left to switch on.
    ("tensors-not-written", {"first": "#!", "y": ""}, {}),
    ("tensors-not-written", {"first": "#!", **WHOLE, "x": "", "graph": FIXED}, WHOLE),
    ("container-only", {"more": "model_transaction_policy { decoupled: true } #!"}, {}),
]


@pytest.mark.parametrize(("rule", "broken", "twin"), CASES)
def test_caught_and_twin_passes(check, rule, broken, twin):
    """The rule finds just what is marked, at its line, and nothing in the twin."""
    check(rule, broken, twin)


def test_auto_complete_changes_what_dims_mean(repository):
    """Outputs left out, max_batch_size 0: auto-complete batches, and the input's dims no longer
    fit."""
    repository.add(**{**WHOLE, "y": ""})
    (problem,) = [p for p in repository.lint("m") if p.rule == "dims-repeat-batch"]
    assert "(auto-complete sets max_batch_size to 4)" in problem.message
    assert "[-1,-1,4]" in problem.message


def test_dims_that_onnxruntime_infers(repository):
    """Dims are those that ONNX Runtime infers, not those that the file leaves open."""
    repository.add(graph="(float[N,4] x) => (float[N,M] y) { y = Relu(x) }")
    assert repository.found("dims") == []
    repository.add("other", "(float[N,4] x) => (float[N,M] y) { y = Relu(x) }", y=y("dims: -1"))
    assert repository.found("dims", "other") == [6]


def test_malformed_tensor_is_told_once(repository):
    """A tensor that the core refuses is not compared with the model as well."""
    repository.add(x='input { name: "x" }')
    rules = {p.rule for p in repository.lint("m") if p.severity == "error"}
    assert rules == {"tensor-incomplete"}


def test_other_versions_are_compared_too(repository):
    """Each version that the policy serves is compared, and what they share is told once."""
    folder = repository.add(x=x("dims: 5"), more="version_policy { all { } }")
    (folder / "2").mkdir()
    (folder / "2" / "model.onnx").write_bytes((folder / "1" / "model.onnx").read_bytes())
    assert repository.found("dims") == [5]


def test_other_backends_are_not_compared(repository):
    """A model of another backend is judged by the core's rules alone."""
    repository.add(backend='backend: "mine"', x=x("dims: 5"), graph=None)
    assert repository.lint("m") == []
