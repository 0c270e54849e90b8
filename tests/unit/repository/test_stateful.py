"""Stateful models: controls and states come out of the model's own signature."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tritonkit.errors import RepositoryError
from tritonkit.repository.config import ModelConfig
from tritonkit.repository.layout import read_config
from tritonkit.repository.package import Settings, package_model
from tritonkit.repository.scheduling import ControlKind, Direct, InitialState, Oldest
from tritonkit.repository.stateful import Sequences

STATEFUL = """(float[N,2] x, float[N,2] h, float[N,k] c, bool[N,1] start, int64[N,1] id)
=> (float[N,2] y, float[N,2] h_next, float[N,k] c_next, double[N,2] wide, float[N,3] long)
<float[2,3] w = {1.0, 1.0, 1.0, 1.0, 1.0, 1.0}>
{ y = Add(x, h) h_next = Identity(y) c_next = Neg(c) wide = Cast<to=11>(y) long = MatMul(y, w) }"""

SEQUENCES = Sequences(
    Oldest(4),
    controls={ControlKind.START: "start", ControlKind.CORRID: "id"},
    states={"h": "h_next"},
)


@pytest.fixture
def stateful(tmp_path, onnx_file):
    """The stateful model, packaged so; its config."""

    def package(sequences: Sequences) -> ModelConfig:
        package_model(onnx_file(STATEFUL), "m", tmp_path / "repo", Settings(8, sequences))
        return read_config(tmp_path / "repo", "m")

    return package


def test_stateful(stateful):
    """Controls and states leave the inputs and outputs; states begin with zeros."""
    config = stateful(SEQUENCES)
    assert [t.name for t in config.inputs] == ["x", "c"]
    assert [t.name for t in config.outputs] == ["y", "c_next", "wide", "long"]
    batching = config.sequence_batching
    assert batching.strategy == Oldest(4)
    assert [(c.kind, c.input, c.dtype.name) for c in batching.controls] == [
        ("start", "start", "BOOL"),
        ("corrid", "id", "INT64"),
    ]
    (state,) = batching.states
    assert (state.input, state.output, state.dims) == ("h", "h_next", (2,))
    assert state.initial == InitialState("zeros", (2,))
    assert (config.warmup, config.dynamic_batching) == ((), None)


def test_initial_state(tmp_path, stateful):
    """A state may begin with an array, also one that gives a dynamic state its first size."""
    np.save(tmp_path / "first.npy", np.array([1, 2, 3], np.float32))
    config = stateful(
        replace(SEQUENCES, states={"c": "c_next"}, initial={"c": tmp_path / "first.npy"}),
    )
    (state,) = config.sequence_batching.states
    assert (state.dims, state.initial.dims) == ((-1,), (3,))
    file = tmp_path / "repo" / "m" / "initial_state" / state.initial.file
    assert np.frombuffer(file.read_bytes(), np.float32).tolist() == [1, 2, 3]


def test_direct(stateful):
    """Without more to say, every sequence has a slot of its own."""
    assert stateful(Sequences()).sequence_batching.strategy == Direct()


MISFITS = {
    "no such input": ({"states": {"q": "h_next"}}, "there is no input 'q'; the model has x, h,"),
    "no such output": ({"states": {"h": "q"}}, "there is no output 'q'; the model has y,"),
    "no such control": ({"controls": {ControlKind.END: "q"}}, "there is no input 'q'"),
    "another type": (
        {"states": {"h": "wide"}},
        "state h=wide: the input is FP32[2], the output FP64[2]",
    ),
    "another size": (
        {"states": {"h": "long"}},
        "state h=long: the input is FP32[2], the output FP32[3]",
    ),
    "a state of no size": (
        {"states": {"c": "c_next"}},
        "state 'c' has dims [-1], so its first value has no size; give it: --initial-state c=",
    ),
    "a control of a wrong type": (
        {"controls": {ControlKind.READY: "id"}},
        "control 'ready': input 'id' is INT64; it must be INT32, FP32, BOOL",
    ),
    "a corrid of a wrong type": (
        {"controls": {ControlKind.CORRID: "start"}},
        "control 'corrid': input 'start' is BOOL; it must be UINT64,",
    ),
    "a control of two": (
        {"controls": {ControlKind.READY: "x"}},
        "control 'ready': input 'x' has dims [2]; Triton gives one number for each row",
    ),
    "one input for two": (
        {"controls": {ControlKind.START: "start", ControlKind.END: "start"}},
        "'start' is there twice as input of a control or state",
    ),
    "a start of no state": (
        {"initial": {"x": Path("first.npy")}},
        "'x' has an initial state but is no state; add --state x=",
    ),
}


@pytest.mark.parametrize(("changed", "words"), MISFITS.values(), ids=MISFITS)
def test_stateful_misfit(tmp_path, stateful, changed, words):
    """What does not fit the model's own tensors is refused by name; nothing is written."""
    with pytest.raises(RepositoryError, match=re.escape(words)):
        stateful(replace(SEQUENCES, **changed))
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(3, np.float32), "first.npy is FP32[3]; state 'h' is FP32[2], without a batch"),
        (np.zeros((1, 2), np.float32), "first.npy is FP32[1, 2]; state 'h' is FP32[2]"),
        (np.zeros(2), "first.npy is FP64[2]; state 'h' is FP32[2]"),
        (None, "no such .npy file"),
    ],
)
def test_initial_state_misfit(tmp_path, stateful, array, words):
    """A first state that does not fit is refused; nothing is written."""
    if array is not None:
        np.save(tmp_path / "first.npy", array)
    with pytest.raises(RepositoryError, match=re.escape(words)):
        stateful(replace(SEQUENCES, initial={"h": tmp_path / "first.npy"}))
    assert not (tmp_path / "repo").exists()


def test_only_states(tmp_path, onnx_file):
    """A model whose every input is a state would take no requests."""
    path = onnx_file("(float[N,2] h) => (float[N,2] g) { g = Neg(h) }")
    settings = Settings(8, Sequences(states={"h": "g"}))
    with pytest.raises(RepositoryError, match="a request needs an input and an answer an output"):
        package_model(path, "m", tmp_path / "repo", settings)
