"""Which axis is the batch: what is guessed, in which order, and what comes of each guess."""

import itertools

import numpy as np
import pytest

from tritonkit.check.axes import Behaviour, find_batch_axes, guesses, try_axes
from tritonkit.check.onnx_model import OnnxModel
from tritonkit.signature import KSERVE_TYPES, ModelSignature, TensorSpec, read_signature


def signature(**shapes):
    """A signature whose inputs have these shapes."""
    specs = (TensorSpec(name, KSERVE_TYPES["FP32"], shape) for name, shape in shapes.items())
    return ModelSignature(tuple(specs), ())


@pytest.fixture
def found(onnx_file):
    """`found(graph)` → the axes found, and what came of axis 0 where that is not it."""

    def find(graph, examples=()):
        path = onnx_file(graph)
        return find_batch_axes(OnnxModel(path), read_signature(path), {}, examples)

    return find


@pytest.fixture
def tried(onnx_file):
    """`tried(graph, x=0)` → what happens with the batch on these axes."""

    def attempt(graph, **axes):
        path = onnx_file(graph)
        return try_axes(OnnxModel(path), read_signature(path), axes, {}, ())

    return attempt


def test_axis_0_is_guessed_first():
    """The first guess is axis 0 of every input that has it dynamic."""
    shapes = {"a": ("n", "m"), "b": (2, "n"), "c": (), "d": ("k", 3)}
    assert next(guesses(signature(**{**shapes, "b": (2, "j")}))) == {
        **{"a": 0, "b": None, "c": None, "d": 0}
    }


def test_one_name_is_guessed_next():
    """Then all axes of one name, in the order of the names."""
    made = guesses(signature(a=("time", "batch"), b=(2, "batch", 4)))
    assert list(itertools.islice(made, 2)) == [{"a": 0, "b": None}, {"a": 1, "b": 1}]


def test_any_axis_is_guessed_last():
    """Then all other combinations, those in the front of the shapes first."""
    made = list(guesses(signature(a=("a0", "a1"), b=("b0", "b1"))))
    by_name = [{"a": 0, "b": None}, {"a": 1, "b": None}, {"a": None, "b": 0}, {"a": None, "b": 1}]
    both = [{"a": 0, "b": 1}, {"a": 1, "b": 0}]
    assert made == [{"a": 0, "b": 0}, *by_name, {"a": 1, "b": 1}, *both]


def test_inputs_without_a_batch_are_guessed_last():
    """Of the combinations those come first that leave no input without a batch."""
    made = list(guesses(signature(a=("a0", "a1"), b=("b0", "b1"), c=("c0", "c1"))))[1 + 6 + 1 :]
    missing = [list(axes.values()).count(None) for axes in made]
    assert missing == sorted(missing) and set(missing) == {0, 1}


def test_guesses_are_not_repeated():
    """No guess comes twice, and none takes no axis at all."""
    made = list(guesses(signature(a=("n", "m"), b=("n", "k"), c=("q",))))
    assert len({tuple(axes.items()) for axes in made}) == len(made)
    assert all(any(axis is not None for axis in axes.values()) for axes in made)


def test_axes_of_one_name_go_together():
    """Dimensions of one name have one size: a guess takes all of them or none."""
    for axes in guesses(signature(a=("n", "m"), b=("m", "n"), c=("n",))):
        assert axes in ({"a": 0, "b": 1, "c": 0}, {"a": 1, "b": 0, "c": None})


def test_matrix_of_a_graph_has_no_batch():
    """A name that one input has twice cannot be the batch."""
    assert list(guesses(signature(a=("n", "n")))) == []


def test_guesses_are_limited():
    """However many inputs there are, the guesses come at once and are few."""
    shapes = {f"x{i}": (f"a{i}", f"b{i}", f"c{i}") for i in range(40)}
    made = list(guesses(signature(**shapes)))
    assert len(made) == 64 and made[0] == dict.fromkeys(shapes, 0)


def test_nothing_dynamic():
    """Without a dynamic axis, and without inputs, there is nothing to guess."""
    assert list(guesses(signature(a=(1, 2)))) == [] and list(guesses(signature())) == []


def test_unnamed_dimensions(found):
    """Axes are found without names: ones that are left out of the file, or called `?`."""
    axes, first = found("(float[?,4] x, float[?,?] z) => (float[?,4] y) { y = Relu(x) }")
    assert (axes.behaviour, axes.inputs, first) == (Behaviour.APART, {"x": 0, "z": 0}, None)


def test_axis_0_is_preferred(found):
    """Where every axis can be taken apart, the batch is axis 0."""
    axes, first = found("(float[a,b,c] x) => (float[a,b,c] y) { y = Relu(x) }")
    assert (axes.inputs, axes.outputs, first) == ({"x": 0}, {"y": 0}, None)


def test_what_came_of_axis_0(found):
    """Where the batch is elsewhere, it is told what axis 0 did: here, time."""
    axes, first = found(
        """(float[a,b,4] x) => (float[a,b,4] y)
        { a = Constant<value_int=0>() y = CumSum(x, a) }"""
    )
    assert (axes.inputs, axes.outputs) == ({"x": 1}, {"y": 1})
    assert first.behaviour is Behaviour.COUPLED
    others = first.influence & ~np.eye(5, dtype=bool)
    np.testing.assert_array_equal(others, np.tril(np.ones((5, 5), bool), -1))


def test_output_axis_is_found_apart_from_the_inputs(found):
    """An output has the batch where it comes out, not where it went in."""
    axes, _ = found("(float[batch,4] x) => (float[4,n] y) { y = Transpose(x) }")
    assert (axes.inputs, axes.outputs) == ({"x": 0}, {"y": 1})
    assert axes.shapes == {"y": ((4, 1), (4, 2), (4, 3), (4, 5))}


@pytest.mark.parametrize(
    ("graph", "behaviour", "outputs"),
    [
        ("(float[n,4] x) => (float[n,4] y) { y = Relu(x) }", Behaviour.APART, {"y": 0}),
        ("(float[n,4] x) => (float[n,4] y) { y = Softmax<axis=0>(x) }",
         Behaviour.COUPLED, {"y": 0}),
        ("(float[n,4] x) => (float[1,4] y) { y = ReduceMax<axes=[0]>(x) }",
         Behaviour.NO_ROWS, {"y": None}),
        ("(float[n,4] x) => (float[n,m] y) { t = Transpose(x) y = MatMul(x, t) }",
         Behaviour.NO_ROWS, {"y": None}),
        ("""(float[n,4] x) => (float[a,b] y)
         { s = Constant<value_ints=[1,4]>() y = Reshape(x, s) }""", Behaviour.FAILS, {"y": None}),
    ],
)  # fmt: skip
def test_behaviour(tried, graph, behaviour, outputs):
    """Each way in which a model treats rows on an axis is told from the others."""
    result = tried(graph, x=0)
    assert (result.behaviour, dict(result.outputs)) == (behaviour, outputs)
    assert bool(result.failure) == (behaviour is Behaviour.FAILS)


def test_influence(tried):
    """Who moves whom is told: here each row is moved by the one before it, and by itself."""
    graph = """(float[n,4] x) => (float[n,4] y)
        { last = Constant<value_ints=[-1]>() zero = Constant<value_ints=[0]>()
          pads = Constant<value_ints=[1,0,0,0]>() p = Pad(x, pads) q = Slice(p, zero, last, zero)
          y = Add(x, q) }"""
    influence = tried(graph, x=0).influence
    np.testing.assert_array_equal(influence, np.eye(5, dtype=bool) | np.eye(5, k=-1, dtype=bool))


def test_examples(found):
    """With real rows the batch is found where the model takes no other rows."""
    graph = """(float[batch,n] x) => (float[batch,m] y)
        { s = Constant<value_ints=[-1,1009]>() r = Reshape(x, s) y = Relu(r) }"""
    rows = [{"x": np.full((1, 1009), i, np.float32)} for i in (1, 2, 3)]
    axes, _ = found(graph, rows)
    assert axes.behaviour is Behaviour.APART and axes.rows.examples == rows
