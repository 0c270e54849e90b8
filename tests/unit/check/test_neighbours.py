"""Rows beside the worst of neighbours: what is tried, and what is told."""

import itertools

import numpy as np
import onnx
import pytest

from tritonkit.check.domain import find_ranges, find_sizes
from tritonkit.check.neighbours import meet_neighbours
from tritonkit.check.onnx_model import OnnxModel
from tritonkit.check.rows import Kind, Rows
from tritonkit.errors import ModelError
from tritonkit.signature import load_onnx, read_signature


@pytest.fixture
def met(onnx_file):
    """`met(graph)` → what came of the trials, with the batch on axis 0 of everything."""

    def meet(graph, most=7, budget_s=0.0, axis=0):
        path = onnx_file(graph)
        model, signature = OnnxModel(path), read_signature(path)
        axes = {t.name: axis for t in signature.inputs}
        rows = find_ranges(model, load_onnx(path).graph, find_sizes(model, signature, axes, {}))
        return meet_neighbours(
            model, rows, {t.name: axis for t in signature.outputs}, most, budget_s
        )

    return meet


class Watched:
    """A healthy model, the float input x doubled, that keeps every batch it is given."""

    def __init__(self):
        self.batches = []

    def run(self, inputs):
        self.batches.append(inputs["x"])
        return {"y": 2 * inputs["x"]}


@pytest.fixture
def watched(onnx_file):
    """`watched(most)` → (the model, what came of it), with no time to spare."""
    path = onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Add(x, x) }")

    def meet(most, budget_s=0.0):
        model, rows = Watched(), Rows(read_signature(path), {"x": 0}, {})
        return model, rows, meet_neighbours(model, rows, {"y": 0}, most, budget_s)

    return meet


RELU = "(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }"


@pytest.mark.parametrize(
    ("most", "sizes"),
    [
        (2, (1, 2)),
        (3, (1, 2, 3)),
        (5, (1, 2, 3, 5)),
        (7, (1, 2, 3, 7)),
        (16, (1, 2, 3, 7, 16)),
        (100, (1, 2, 3, 7, 100)),
    ],
)
def test_sizes(met, most, sizes):
    """Batches of 2, 3, 7 and the most are made, none beyond the most."""
    assert met(RELU, most).batches == sizes


def test_every_kind_without_time(watched):
    """With no time to spare each kind of neighbour is still met."""
    _, rows, met = watched(7)
    assert met.tried.keys() == {kind.value for kind in rows.kinds()}


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (size, kind)
        for size in (2, 3, 20, 32)
        for kind in Kind
        if kind not in (Kind.SPREAD, Kind.HIGHEST, Kind.LOWEST, Kind.REPEATED)
        and (kind is not Kind.NAN or size < 4)
    ],
)
def test_every_kind_at_small_and_large_sizes(watched, kind, size):
    """Every kind is beside the row in some batch of two or three and, but for NaN, in some batch
    of the largest size, with no time to spare.
    """
    model, rows, _ = watched(size)
    victim = rows.row(Kind.USUAL, 1)["x"][0]
    wanted = [rows.row(kind, 100 + place)["x"][0] for place in range(size)]
    assert any(
        (batch == victim).all(axis=1).any()
        and any(np.array_equal(batch[i], wanted[i], equal_nan=True) for i in range(size))
        for batch in model.batches
        if len(batch) == size
    )


def test_every_kind_alone(watched):
    """A row is also between two neighbours of one kind, of each, with no time to spare."""
    model, rows, _ = watched(3)
    victim = rows.row(Kind.USUAL, 1)["x"][0]
    for kind in set(rows.kinds()) - {Kind.REPEATED}:
        two = [rows.row(kind, 100 + place)["x"][0] for place in (0, 2)]
        wanted = np.stack([two[0], victim, two[1]])
        assert any(np.array_equal(batch, wanted, equal_nan=True) for batch in model.batches), kind


@pytest.mark.parametrize("size", [2, 3, 7])
def test_every_position(watched, size):
    """The row is at every position beside others, with no time to spare."""
    model, rows, _ = watched(size)
    victim = rows.row(Kind.USUAL, 1)["x"][0]
    at = [(batch == victim).all(axis=1) for batch in model.batches if len(batch) == size]
    beside = [places for places in at if places.any() and not places.all()]
    assert all(any(places[i] for places in beside) for i in range(size))


@pytest.mark.parametrize("size", [2, 3, 7])
def test_every_pair_of_positions(watched, size):
    """For each two positions some batch has the row at one and another row at the other."""
    model, rows, _ = watched(size)
    victim = rows.row(Kind.USUAL, 1)["x"][0]
    at = [(batch == victim).all(axis=1) for batch in model.batches if len(batch) == size]
    pairs = {(i, j) for places in at for i in np.flatnonzero(places)
             for j in np.flatnonzero(~places)}  # fmt: skip
    assert pairs >= set(itertools.permutations(range(size), 2))


LOUD_FLAG = (
    """c = Constant<value_float=100.0>() b = Greater(p, c) f = Cast<to=1>(b) y = Add(x, f)"""
)


@pytest.mark.parametrize("leak", [1, 2, 3, 5])
def test_one_neighbour_is_felt(met, leak):
    """A row that feels only a loud row at some distance before it is caught."""
    graph = f"""(float[batch,4] x) => (float[batch,4] y)
        {{ last = Constant<value_ints=[{-leak}]>() zero = Constant<value_ints=[0]>()
          pads = Constant<value_ints=[{leak},0,0,0]>() q = Pad(x, pads)
          p = Slice(q, zero, last, zero) {LOUD_FLAG} }}"""
    assert [felt.what for felt in met(graph, 32).felt] == ["neighbour"]


@pytest.mark.parametrize("size", [8, 20])
def test_leak_of_large_batches_only(met, size):
    """What rows feel only in large batches is caught in the largest."""
    graph = f"""(float[batch,4] x) => (float[batch,4] y)
        {{ s = Shape<start=0,end=1>(x) n = Constant<value_ints=[{size}]>() l = Less(s, n)
          g = Not(l) h = Cast<to=1>(g) m = ReduceMax<keepdims=1>(x)
          c = Constant<value_float=100.0>() b = Greater(m, c) f = Cast<to=1>(b) p = Mul(f, h)
          y = Add(x, p) }}"""
    assert met(graph, size - 1).felt == ()
    felt = met(graph, 32).felt
    assert [(one.what, one.trial.size) for one in felt] == [("neighbour", 32)]


def test_first_feels_the_last(met):
    """A leak between the first and the last row only is caught."""
    graph = f"""(float[batch,4] x) => (float[batch,4] y)
        {{ last = Constant<value_ints=[-1]>() end = Constant<value_ints=[9223372036854775807]>()
          zero = Constant<value_ints=[0]>() o = Constant<value_ints=[1]>()
          l = Slice(x, last, end, zero) r = Slice(x, o, end, zero) k = Sub(r, r)
          p = Concat<axis=0>(l, k) {LOUD_FLAG} }}"""
    assert {felt.what for felt in met(graph, 32).felt} == {"neighbour"}


@pytest.mark.parametrize(
    ("graph", "what"),
    [
        ("{ m = ReduceMax<keepdims=1>(x) y = Sub(x, m) }", "neighbour"),
        ("{ n = RandomNormalLike(x) y = Add(x, n) }", "random"),
        ("{ s = Shape<start=0,end=1>(x) f = Cast<to=1>(s) y = Div(x, f) }", "batch_size"),
        (
            """{ s = Shape<start=0,end=1>(x) i = Constant<value_ints=[0,0,0,0]>()
            o = Constant<value_ints=[1]>() t = Sub(s, o) g = Gather(i, t) f = Cast<to=1>(g)
            y = Add(x, f) }""",
            "fails",
        ),
        ("{ y = Softmax<axis=1>(x) }", None),
    ],
)
def test_what_is_felt(met, graph, what):
    """Each kind of trouble is told from the others, and a healthy model has none."""
    found = met(f"(float[batch,4] x) => (float[batch,4] y) {graph}")
    assert [felt.what for felt in found.felt] == ([what] if what else [])


def test_batch_that_fails_is_not_proved(met):
    """A size that does not run is not among those that did."""
    graph = """(float[batch,4] x) => (float[batch,4] y)
        { s = Shape<start=0,end=1>(x) i = Constant<value_ints=[0,0,0,0]>()
          o = Constant<value_ints=[1]>() t = Sub(s, o) g = Gather(i, t) f = Cast<to=1>(g)
          y = Add(x, f) }"""
    assert met(graph, 7).batches == (1, 2, 3)


def test_shape_among_neighbours(met):
    """An answer whose shape depends on the others in the batch is told as a shape."""
    graph = """(float[batch,4] x) => (float[batch,k] y)
        { a = Constant<value_ints=[0]>() s = ReduceMax<axes=[0],keepdims=0>(x)
          z = Constant<value_float=100.0>() b = Greater(s, z) n = Not(b)
          y = Compress<axis=1>(x, n) }"""
    assert [felt.what for felt in met(graph).felt] == ["shape"]


def test_each_output_is_told_once(met):
    """Each output that is in trouble is told once, with the trial that shows it best."""
    graph = """(float[batch,4] x) => (float[batch,4] y, float[batch,4] good, float[batch,4] z)
        { m = ReduceMax<keepdims=1>(x) y = Sub(x, m) good = Relu(x) z = Softmax<axis=0>(x) }"""
    found = met(graph, budget_s=1)
    told = {felt.tensor: felt.max_abs_diff for felt in found.felt}
    assert len(found.felt) == 2 and told.keys() == {"y", "z"}
    assert 1e3 < told["y"] < np.inf  # beside a loud row; NaN would say less


def test_batch_on_axis_1(met):
    """Rows are put together and taken apart along whichever axis the batch has."""
    time = (
        "(float[t,batch] x) => (float[t,batch] y) { a = Constant<value_int=%d>() y = CumSum(x, a) }"
    )
    assert met(time % 0, axis=1).felt == ()
    assert [felt.what for felt in met(time % 1, axis=1).felt] == ["neighbour"]


def test_tokens(onnx_file, met):
    """Rows of token ids feel a mask that has no bearing on usual words."""
    graph = """(int64[batch,4] ids) => (float[batch,4] y) <float[64] t = {0.0}>
        { e = Gather<axis=0>(t, ids) last = Constant<value_int=63>() h = Equal(ids, last)
          f = Cast<to=1>(h) m = ReduceMax<keepdims=1>(f) y = Add(e, m) }"""
    path = onnx_file(RELU)
    text = graph.replace("<float[64] t = {0.0}>", "")
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    table = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "t"))
    onnx.save(model, path)
    opened, signature = OnnxModel(path), read_signature(path)
    rows = find_ranges(opened, model.graph, find_sizes(opened, signature, {"ids": 0}, {}))
    felt = meet_neighbours(opened, rows, {"y": 0}, 7, 0.0).felt
    assert felt[0].what == "neighbour" and Kind.HIGHEST in felt[0].trial.kinds


def test_nothing_to_look_at(onnx_file):
    """A model that answers nothing but NaN is refused with the remedy."""
    graph = """(float[batch,4] x) => (float[batch,4] y)
        { a = Abs(x) n = Neg(a) k = Constant<value_float=1.0>() m = Sub(n, k) y = Log(m) }"""
    path = onnx_file(graph)
    rows = Rows(read_signature(path), {"x": 0}, {})
    with pytest.raises(ModelError, match="--input"):
        meet_neighbours(OnnxModel(path), rows, {"y": 0}, 7, 0.0)


def test_refused_kinds_are_no_neighbours(onnx_file):
    """A kind that the model refuses alone is not put beside others."""
    graph = """(int64[batch,2] i) => (float[batch,2] y) <float[3] t = {1.0, 2.0, 3.0}>
        { y = Gather<axis=0>(t, i) }"""
    path = onnx_file(graph)
    rows = Rows(read_signature(path), {"i": 0}, {}, {"i": (-(2**40), 2)})
    met = meet_neighbours(OnnxModel(path), rows, {"y": 0}, 3, 0.0)
    assert met.felt == () and Kind.LOWEST.value not in met.tried
    assert Kind.HIGHEST.value in met.tried


SUM_OF_IDS = """(int64[batch,4] a, int64[batch,4] b) => (float[batch,4] y) <float[50] t = {0.0}>
    { i = Add(a, b) y = Gather<axis=0>(t, i) }"""


def test_refused_rows_are_no_neighbours(onnx_file):
    """Nor is a single row that the model refuses, though it takes others of its kind: here the
    sum of two ids picks from a table.
    """
    path = onnx_file(RELU)
    text = SUM_OF_IDS.replace("<float[50] t = {0.0}>", "")
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.arange(50, dtype=np.float32), "t")
    )
    onnx.save(model, path)
    opened, signature = OnnxModel(path), read_signature(path)
    rows = find_ranges(opened, model.graph, find_sizes(opened, signature, {"a": 0, "b": 0}, {}))
    assert meet_neighbours(opened, rows, {"y": 0}, 32, 1.0).felt == ()


def test_huge_element_hides_nothing(met):
    """Beside a masked score of -1e9 in an answer, a leak in its other scores is still felt."""
    graph = """(int64[batch,8] x) => (float[batch,9] y) <float[1,1] low = {-1e9}, int64[1] k = {1}>
        { f = Cast<to=1>(x) m = ReduceMax<keepdims=1>(f) c = Constant<value_float=3.0>()
          g = Min(m, c) e = Add(f, g) s = Shape<start=0,end=1>(x) t = Concat<axis=0>(s, k)
          w = Expand(low, t) a = Min(e, c) y = Concat<axis=1>(a, w) }"""
    assert [felt.what for felt in met(graph, 7, 1.0).felt] == ["neighbour"]


def test_padded_row_beside_a_full_one(met):
    """A short row that is divided by the length of the longest in its batch is caught."""
    graph = """(float[batch,16] x) => (float[batch,1] y) <int64[1] one = {1}>
        { z = Constant<value_float=0.0>() e = Equal(x, z) k = Not(e) f = Cast<to=1>(k)
          n = ReduceSum<keepdims=0>(f, one) m = ReduceMax<keepdims=0>(n)
          s = ReduceSum<keepdims=1>(x, one) y = Div(s, m) }"""
    assert [felt.what for felt in met(graph, 7, 1.0).felt] == ["neighbour"]


def test_position_in_the_batch(met):
    """A row that is answered by its place in the batch is told as a trouble, however small."""
    graph = """(float[batch,4] x) => (float[batch,4] y)
        <int64 zero = {0}, int64 one = {1}, int64[1] ax = {1}, int64[1] first = {0}>
        { s = Shape<start=0,end=1>(x) n = Squeeze(s, first) r = Range(zero, n, one)
          u = Unsqueeze(r, ax) f = Cast<to=1>(u) c = Constant<value_float=0.003>() p = Mul(f, c)
          y = Add(x, p) }"""
    assert [felt.what for felt in met(graph, 7, 1.0).felt] == ["batch_size"]


def test_constant_outputs(met):
    """An output that no row moves is told, and one that moves is not."""
    graph = """(float[batch,4] x) => (float[batch,4] y, float[batch,4] z)
        { y = Sub(x, x) z = Relu(x) k = Relu(y) }"""
    graph = graph.replace("y = Sub(x, x)", "s = Shape(x) y = ConstantOfShape(s)")
    assert met(graph).constant == ("y",)


def test_rounding_is_no_trouble(met):
    """What is summed in another order at another size is told apart from a leak."""
    found = met("(float[batch,512] x) => (float[batch,512] y) { y = Softmax<axis=1>(x) }")
    assert (found.felt, found.blown_up) == ((), ())
