"""Ensembles: models of a repository joined by their tensors' names, or not at all."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonkit.errors import RepositoryError
from tritonkit.repository.config import ConfigTensor, ModelConfig
from tritonkit.repository.ensemble import (
    Ensemble,
    Step,
    connect,
    decode_ensemble,
    encode_ensemble,
    ensemble_models,
    package_ensemble,
)
from tritonkit.repository.layout import model_names, write_model
from tritonkit.signature import DATA_TYPES, data_type


def tensors(text: str) -> tuple[ConfigTensor, ...]:
    """`"ids:INT64[-1] x:FP32[4,2]"` as tensors."""
    found = re.findall(r"(\S+?):(\w+)\[(.*?)\]", text)
    return tuple(
        ConfigTensor(name, data_type(dtype), tuple(int(d) for d in dims.split(",") if d))
        for name, dtype, dims in found
    )


def model(name: str, inputs: str, outputs: str, rows: int = 8) -> ModelConfig:
    """A model with these tensors."""
    return ModelConfig(name, tensors(inputs), tensors(outputs), rows)


TOKENIZER = model("tokenizer", "text:BYTES[1]", "ids:INT64[-1] mask:INT64[-1] count:INT32[1]", 16)
RANKER = model("ranker", "ids:INT64[-1] mask:INT64[-1]", "score:FP32[]")
SCORER = model("scorer", "input_ids:INT64[-1] m:INT64[-1]", "score:FP32[1]", 4)


def test_matching_names():
    """Tensors of one name are one tensor; what no step gives is an input of the ensemble."""
    assert connect("search", [TOKENIZER, RANKER]) == Ensemble(
        name="search",
        inputs=tensors("text:BYTES[1]"),
        outputs=tensors("score:FP32[1]"),
        max_batch_size=8,
        steps=(
            Step("tokenizer", {"text": "text"}, {"ids": "tokenizer.ids", "mask": "tokenizer.mask"}),
            Step("ranker", {"ids": "tokenizer.ids", "mask": "tokenizer.mask"}, {"score": "score"}),
        ),
    )


MAPS = [("tokenizer.ids", "scorer.input_ids"), ("tokenizer.mask", "scorer.m")]


def test_mapped_names():
    """Tensors of other names are joined by maps, and those of the ensemble named by them."""
    maps = [*MAPS, ("question", "tokenizer.text"), ("scorer.score", "relevance")]
    ensemble = connect("search", [TOKENIZER, SCORER], maps)
    assert (ensemble.inputs, ensemble.outputs) == (
        tensors("question:BYTES[1]"),
        tensors("relevance:FP32[1]"),
    )
    assert ensemble.max_batch_size == 4
    assert ensemble.steps[1] == Step(
        "scorer",
        {"input_ids": "tokenizer.ids", "m": "tokenizer.mask"},
        {"score": "relevance"},
    )


def test_output_of_a_step_within():
    """An output that a later step takes may be one of the ensemble's too."""
    ensemble = connect("search", [TOKENIZER, RANKER], [("tokenizer.ids", "ids")])
    assert ensemble.outputs == tensors("ids:INT64[-1] score:FP32[1]")
    assert ensemble.steps[0].outputs["ids"] == "ids"
    assert ensemble.steps[1].inputs["ids"] == "ids"


def test_latest_of_a_name():
    """Of several outputs of a name the last before a step is the one it takes."""
    first = model("first", "x:FP32[4]", "y:FP32[4]")
    second = model("second", "y:FP32[4]", "y:FP32[4]")
    third = model("third", "y:FP32[4]", "z:FP32[4]")
    steps = connect("e", [first, second, third]).steps
    assert [step.inputs for step in steps] == [
        {"x": "x"},
        {"y": "first.y"},
        {"y": "second.y"},
    ]


def test_side_by_side():
    """Steps may share an input of the ensemble; the outputs of both are its own."""
    a, b = model("a", "x:FP32[-1,4]", "p:FP32[4]"), model("b", "x:FP32[2,-1]", "q:FP32[4]")
    ensemble = connect("e", [a, b])
    assert ensemble.inputs == tensors("x:FP32[2,4]")
    assert ensemble.outputs == tensors("p:FP32[4] q:FP32[4]")


def test_without_batches():
    """Where a step has no batches the ensemble has none, and its dims have the batch in them."""
    crop = model("crop", "image:UINT8[-1,3]", "pixels:FP32[-1,3]", 0)
    classify = model("classify", "pixels:FP32[3]", "label:FP32[7]", 8)
    ensemble = connect("e", [crop, classify])
    assert (ensemble.max_batch_size, ensemble.inputs, ensemble.outputs) == (
        0,
        tensors("image:UINT8[-1,3]"),
        tensors("label:FP32[-1,7]"),
    )


@pytest.mark.parametrize(("asked", "rows", "dims"), [(3, 3, ()), (8, 8, ()), (0, 0, (-1,))])
def test_fewer_rows(asked, rows, dims):
    """Fewer rows than the steps take may be asked for, or none."""
    ensemble = connect("e", [TOKENIZER, RANKER], max_batch_size=asked)
    assert ensemble.max_batch_size == rows
    assert ensemble.outputs[0].dims == (*dims, 1)


def test_step_of_steps():
    """An ensemble may be a step of another."""
    inner = connect("inner", [TOKENIZER, RANKER])
    last = model("last", "score:FP32[1]", "yes:BOOL[1]")
    assert connect("e", [inner, last]).steps[0].model == "inner"


def test_dots_in_names():
    """Names of models and tensors may have dots in them."""
    a, b = model("a", "x:FP32[4]", "y:FP32[4]"), model("a.b", "x.1:FP32[4]", "z.0:FP32[4]")
    ensemble = connect("e", [a, b], [("a.y", "a.b.x.1")])
    assert ensemble.steps[1] == Step("a.b", {"x.1": "a.y"}, {"z.0": "z.0"})


DOUBLE = model("double", "x:FP32[4]", "y:FP32[4]")
NEGATE = model("negate", "x:FP32[4]", "y:FP32[4]")

REFUSED = {
    "one step": ([DOUBLE], [], None, "an ensemble has two steps or more"),
    "one model twice": (
        [DOUBLE, NEGATE, DOUBLE],
        [],
        None,
        "the step 'double' is there twice; name each model once",
    ),
    "not joined": (
        [TOKENIZER, SCORER],
        [],
        None,
        "step 'scorer' takes nothing from the steps before it; they give tokenizer.ids, "
        "tokenizer.mask, tokenizer.count, it takes scorer.input_ids, scorer.m; join them: --map",
    ),
    "another type": (
        [TOKENIZER, SCORER],
        [("tokenizer.text", "scorer.m")],
        None,
        "step 'tokenizer' has no output 'text'; it has ids, mask, count",
    ),
    "dtypes": (
        [TOKENIZER, SCORER],
        [MAPS[0], ("tokenizer.count", "scorer.m")],
        None,
        "tokenizer.count is INT32[-1,1] and scorer.m is INT64[-1,-1]; they are one tensor and do",
    ),
    "dims": (
        [DOUBLE, model("wide", "y:FP32[5]", "z:FP32[5]")],
        [],
        None,
        "double.y is FP32[-1,4] and wide.y is FP32[-1,5]",
    ),
    "rank": (
        [DOUBLE, model("wide", "y:FP32[4,1]", "z:FP32[5]")],
        [],
        None,
        "double.y is FP32[-1,4] and wide.y is FP32[-1,4,1]",
    ),
    "batches and none": (
        [DOUBLE, model("whole", "y:FP32[4]", "z:FP32[4]", 0)],
        [],
        None,
        "double.y is FP32[-1,4] and whole.y is FP32[4]",
    ),
    "a shared input": (
        [DOUBLE, model("other", "x:FP64[4]", "z:FP32[4]")],
        [],
        None,
        "double.x is FP32[-1,4] and other.x is FP64[-1,4]",
    ),
    "no such input": (
        [DOUBLE, NEGATE],
        [("double.y", "negate.q")],
        None,
        "step 'negate' has no input 'q'; it has x",
    ),
    "no such step": (
        [DOUBLE, NEGATE],
        [("dubble.y", "negate.x")],
        None,
        "--map: 'dubble.y' is no tensor of a step",
    ),
    "backwards": (
        [DOUBLE, NEGATE],
        [("negate.y", "double.x")],
        None,
        "--map negate.y=double.x goes backwards",
    ),
    "to itself": (
        [DOUBLE, NEGATE],
        [("double.y", "double.x")],
        None,
        "--map double.y=double.x goes backwards",
    ),
    "no step at all": ([DOUBLE, NEGATE], [("a", "b")], None, "--map a=b names no step"),
    "mapped twice": (
        [DOUBLE, NEGATE],
        [("double.y", "negate.x"), ("other", "negate.x")],
        None,
        "the input negate.x is mapped twice",
    ),
    "named twice": (
        [DOUBLE, NEGATE],
        [("double.y", "negate.x"), ("negate.y", "a"), ("negate.y", "b")],
        None,
        "the output negate.y has two names",
    ),
    "two outputs of one name": (
        [DOUBLE, NEGATE],
        [],
        None,
        "double.y and negate.y would both be its output 'y'; rename one: --map negate.y=NAME",
    ),
    "in and out": (
        [DOUBLE, NEGATE],
        [("double.y", "negate.x"), ("negate.y", "x")],
        None,
        "'x' is both an input and an output of it; rename one: --map negate.y=NAME",
    ),
    "too many rows": (
        [TOKENIZER, SCORER],
        MAPS,
        5,
        "max_batch_size 5 is more than the 4 of its step 'scorer'",
    ),
}


@pytest.mark.parametrize(("models", "maps", "rows", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(models, maps, rows, words):
    """Steps that do not fit together are refused by their tensors, in one line."""
    with pytest.raises(RepositoryError) as caught:
        connect("e", models, maps, rows)
    assert str(caught.value).startswith(f"ensemble 'e': {words}")
    assert "\n" not in str(caught.value)


names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=9)
some_tensors = st.lists(
    st.builds(
        ConfigTensor,
        names,
        st.sampled_from(DATA_TYPES),
        st.lists(st.sampled_from([-1, 1, 7]), min_size=1, max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
maps = st.dictionaries(names, names, max_size=3)


@given(
    st.builds(
        Ensemble,
        names,
        some_tensors,
        some_tensors,
        st.integers(0, 99),
        st.lists(st.builds(Step, names, maps, maps), min_size=1, max_size=3).map(tuple),
    )
)
def test_round_trip(ensemble):
    """What is encoded decodes to the same ensemble."""
    assert decode_ensemble(encode_ensemble(ensemble), "here") == ensemble


def test_golden():
    """What is written is, letter for letter, what Triton's documents show."""
    text = encode_ensemble(connect("e", [DOUBLE, NEGATE], [("double.y", "negate.x")]))
    assert (
        text
        == """name: "e"
platform: "ensemble"
max_batch_size: 8
input {
  name: "x"
  data_type: TYPE_FP32
  dims: 4
}
output {
  name: "y"
  data_type: TYPE_FP32
  dims: 4
}
ensemble_scheduling {
  step {
    model_name: "double"
    model_version: -1
    input_map {
      key: "x"
      value: "x"
    }
    output_map {
      key: "y"
      value: "double.y"
    }
  }
  step {
    model_name: "negate"
    model_version: -1
    input_map {
      key: "x"
      value: "double.y"
    }
    output_map {
      key: "y"
      value: "y"
    }
  }
}
"""
    )


def test_not_an_ensemble():
    """A model's config is no ensemble."""
    with pytest.raises(RepositoryError, match=r"^here: is no ensemble"):
        decode_ensemble('backend: "onnxruntime"', "here")


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository with the two models."""
    (tmp_path / "file").write_text("weights")
    for config in (DOUBLE, NEGATE):
        write_model(tmp_path / "repo", config, {"model.onnx": tmp_path / "file"})
    return tmp_path / "repo"


@pytest.fixture
def package(repository) -> Callable[..., Path]:
    """Write an ensemble of the two."""

    def write(name: str = "e", *steps: str) -> Path:
        first, second = steps or ("double", "negate")
        maps = [(f"{first}.y", f"{second}.x")]
        return package_ensemble(repository, name, [first, second], maps)

    return write


def test_written(repository, package):
    """An ensemble has its config and a version with nothing in it."""
    written = package()
    assert written == repository / "e" / "1"
    assert sorted(p.name for p in (repository / "e").rglob("*")) == ["1", "config.pbtxt"]
    assert model_names(repository) == ["double", "e", "negate"]


def test_written_again(repository, package):
    """An ensemble may be written anew, in its place."""
    package()
    assert package("e", "negate", "double") == repository / "e" / "1"
    text = (repository / "e" / "config.pbtxt").read_text()
    steps = decode_ensemble(text, "here").steps
    assert [step.model for step in steps] == ["negate", "double"]


def test_models_of(repository, package):
    """What serving an ensemble takes is itself and all its steps, however deep."""
    package("inner")
    package_ensemble(repository, "outer", ["inner", "double"], [("inner.y", "double.x")])
    assert ensemble_models(repository, "outer") == ["outer", "inner", "double", "negate"]
    assert ensemble_models(repository, "double") == ["double"]


@pytest.mark.parametrize(
    ("name", "steps", "words"),
    [
        ("e", ("double", "nope"), "no model 'nope' in .* \\(it has double, negate\\); package it"),
        ("double", ("negate", "double"), "the ensemble 'double' cannot be a step of itself"),
        ("../e", ("double", "negate"), "a model name must be a plain folder name"),
    ],
)
def test_not_written(repository, package, name, steps, words):
    """What is no ensemble of models that are there is refused, and nothing is written."""
    with pytest.raises(RepositoryError, match=words):
        package(name, *steps)
    assert model_names(repository) == ["double", "negate"]
    assert not (repository / "e").exists()


def test_name_of_a_model(tmp_path, repository, package):
    """An ensemble does not take the place of a model."""
    write_model(repository, replace(DOUBLE, name="e"), {"model.onnx": tmp_path / "file"})
    with pytest.raises(RepositoryError, match="e is a model, not an ensemble; give the ensemble"):
        package("e")


def test_step_of_its_own_step(repository, package):
    """Ensembles do not go round in a circle."""
    package("inner")
    package_ensemble(repository, "outer", ["inner", "double"], [("inner.y", "double.x")])
    with pytest.raises(RepositoryError, match="'outer' has the ensemble 'inner' among its own"):
        package_ensemble(repository, "inner", ["outer", "double"], [("outer.y", "double.x")])
