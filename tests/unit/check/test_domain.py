"""What a model may be asked: the sizes and the integers it runs on, found by running it."""

import numpy as np
import onnx
import pytest

from tritonkit.check.domain import (
    deciding_sizes,
    dimension_names,
    find_ranges,
    find_sizes,
    usable_rows,
)
from tritonkit.check.onnx_model import OnnxModel
from tritonkit.check.rows import Kind
from tritonkit.errors import ModelError
from tritonkit.signature import load_onnx, read_signature

INT64 = np.iinfo(np.int64)


@pytest.fixture
def sizes(onnx_file):
    """`sizes(graph)` → the rows found for the batch on axis 0 of every input, and the model."""

    def find(graph, fixed=None, axes=None):
        path = onnx_file(graph)
        model, signature = OnnxModel(path), read_signature(path)
        axes = axes or dict.fromkeys((t.name for t in signature.inputs), 0)
        return find_sizes(model, signature, axes, fixed or {}), model, path

    return find


@pytest.fixture
def ranges(sizes):
    """`ranges(graph)` → the ranges of its integer inputs."""

    def find(graph, examples=()):
        rows, model, path = sizes(graph)
        if examples:
            rows = type(rows)(rows.signature, rows.axes, rows.sizes, examples=examples)
        return find_ranges(model, load_onnx(path).graph, rows).ranges

    return find


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ("(float[batch,n] x) => (float[batch,n] y) { y = Relu(x) }", {"n": 16}),
        (
            """(float[batch,n] x) => (float[batch,m] y)
            { s = Constant<value_ints=[-1,100]>() r = Reshape(x, s) y = Relu(r) }""",
            {"n": 100},
        ),
        (
            """(float[batch,1,h,w] x) => (float[batch,k] y)
            { s = Constant<value_ints=[-1,50176]>() r = Reshape(x, s) y = Relu(r) }""",
            {"h": 224, "w": 224},
        ),
        (
            """(float[batch,1,a] x, float[batch,b,1] z) => (float[batch,1,1] y)
            { c = Concat<axis=2>(x, x) y = MatMul(c, z) }""",
            {"a": 16, "b": 32},
        ),
        ("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }", {}),
    ],
)
def test_sizes(sizes, graph, expected):
    """A size is found for models that take any, one only, or two that hang together."""
    assert sizes(graph)[0].sizes == expected


def test_sizes_of_one_come_last(sizes):
    """Sizes that hang together are found, and not 1 and 1, which are stretched to fit."""
    graph = """(float[batch,a] x, float[batch,b] z) => (float[batch,b] y)
        { c = Concat<axis=1>(x, x) y = Add(c, z) }"""
    assert sizes(graph)[0].sizes == {"a": 16, "b": 32}


def test_three_sizes(sizes):
    """The sizes of a model with a cache are found: tokens, mask over all, and what is cached."""
    graph = """(float[batch,seq,4] x, float[batch,total] m, float[batch,past,4] p)
        => (float[batch,total,4] y)
        { c = Concat<axis=1>(x, p) o = Constant<value_ints=[2]>() u = Unsqueeze(m, o)
          s = Shape<start=1,end=2>(c) k = Constant<value_ints=[0]>() t = Concat<axis=0>(k, s, o)
          e = Constant<value_ints=[1]>() f = Concat<axis=0>(k, s, e) r = Reshape(u, f)
          y = Mul(c, r) }"""
    found = sizes(graph)[0].sizes
    assert found["seq"] + found["past"] == found["total"] and min(found.values()) > 1


def test_fixed_size(sizes):
    """A size that is given is kept."""
    graph = "(float[batch,n,m] x) => (float[batch,n,m] y) { y = Relu(x) }"
    assert sizes(graph, fixed={"n": 5})[0].sizes == {"n": 5, "m": 16}


def test_no_size(sizes):
    """A model that runs at no size is refused in ONNX Runtime's words about the first."""
    graph = """(float[batch,n] x) => (float[batch,m] y)
        { s = Constant<value_ints=[-1,999983]>() r = Reshape(x, s) y = Relu(r) }"""
    with pytest.raises(ModelError, match=r"x\[1, 16\].*Reshape"):
        sizes(graph)


def test_dimension_names(onnx_file):
    """The batch is no dimension to find a size for, wherever it is; others come once."""
    path = onnx_file(
        "(float[a,batch,c] x, float[batch,c,d] z) => (float[a,batch,c] y) { y = Relu(x) }"
    )
    assert dimension_names(read_signature(path), {"x": 1, "z": 0}) == ["a", "c", "d"]


@pytest.mark.parametrize(
    "words",
    [
        *(1, 2, 3, 100, 257, 4096, 30522),
    ],
)
def test_vocabulary(tmp_path, words):
    """The last word of a table is found exactly, and below -1 nothing is taken from its end."""
    table = np.zeros((words, 1), np.float32)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (int64[batch,3] ids) => (float[batch,3,1] y)'
        "{ y = Gather<axis=0>(table, ids) }"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    opened = OnnxModel(path)
    rows = find_sizes(opened, read_signature(path), {"ids": 0}, {})
    assert find_ranges(opened, model.graph, rows).ranges["ids"] == (-1, words - 1)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("int8", (-128, 127)),
        ("uint8", (0, 255)),
        ("int32", (-(2**31), 2**31 - 1)),
        ("uint64", (0, 2**64 - 1)),
        ("int64", (INT64.min, INT64.max)),
    ],
)
def test_arithmetic_takes_all(ranges, dtype, expected):
    """An integer that only takes part in arithmetic has the range of its dtype."""
    graph = f"({dtype}[batch,4] x) => (float[batch,4] y) {{ y = Cast<to=1>(x) }}"
    assert ranges(graph) == {"x": expected}


LENGTH = """(int64[batch] n, float[batch,8] x) => (float[batch,8] y)
    { m = ReduceMax<keepdims=0>(n) z = Constant<value_int=0>() o = Constant<value_int=1>()
      r = Range(z, m, o) f = Cast<to=1>(r) s = ReduceSum<keepdims=0>(f) y = Add(x, s) }"""


def test_size_stays_small(ranges):
    """An input that decides the size of a tensor is asked for no more than a dimension has."""
    assert ranges(LENGTH) == {"n": (0, 8)}


def test_hidden_size_stays_small(ranges):
    """A size that is decided inside another graph cannot be seen, and is still not asked for
    without end: the time that a run takes stops it.
    """
    graph = """(int64[batch] n, float[batch,8] x) => (float[batch,8] y)
        { m = ReduceMax<keepdims=0>(n) t = Constant<value=bool {1}>()
          y = Loop(m, t, x)<body = b (int64 i, bool c, float[q,8] s) => (bool d, float[q,8] r)
            { d = Identity(c) r = Sin(s) }> }"""
    low, high = ranges(graph)["n"]
    assert low <= 0 < high <= 2**17


def test_examples_widen_the_range(ranges):
    """The most of the examples is in the range, even of an input that decides a size."""
    rows = [{"n": np.array([n]), "x": np.zeros((1, 8), np.float32)} for n in (3, 50)]
    low, high = ranges(LENGTH, rows)["n"]
    assert low <= 3 and high == 50


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (LENGTH, {"n"}),
        ("(int64[batch,4] x) => (float[batch,4] y) { y = Cast<to=1>(x) }", set()),
        (
            """(float[batch,4] x, int64[2] s) => (float[a,b] y)
            { o = Constant<value_ints=[1,1]>() m = Mul(s, o) y = Reshape(x, m) }""",
            {"s"},
        ),
        (
            """(float[batch,4] x) => (float[batch,4] y)
            { s = Shape(x) r = Reshape(x, s) y = Relu(r) }""",
            set(),
        ),
    ],
)
def test_deciding_sizes(onnx_file, graph, expected):
    """What reaches a shape by its values is told from what reaches it by its own shape."""
    assert deciding_sizes(load_onnx(onnx_file(graph)).graph) == expected


def test_usable_rows(sizes):
    """Rows that the model refuses, or answers with nothing but NaN, are left out."""
    rows, model, _ = sizes("(float[batch,4] x) => (float[batch,4] y) { y = Log(x) }")
    wanted = [(Kind.NAN, 1), (Kind.ONES, 2), (Kind.ZEROS, 3)]
    usable = usable_rows(model, rows, wanted)
    assert [row["x"][0, 0] for row in usable] == [1]


def test_refused_rows_are_left_out(sizes):
    """A row that makes the model fail is no error."""
    graph = """(int64[batch,2] i) => (float[batch,2] y) <float[2] t = {1.0, 2.0}>
        { y = Gather<axis=0>(t, i) }"""
    rows, model, _ = sizes(graph)
    rows = type(rows)(rows.signature, rows.axes, rows.sizes, {"i": (0, 2)})
    usable = usable_rows(model, rows, [(Kind.HIGHEST, 0), (Kind.ZEROS, 0)])
    assert [row["i"].tolist() for row in usable] == [[[0, 0]]]
