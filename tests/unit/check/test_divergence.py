"""The first node at which rows part, found among all that part behind it."""

import numpy as np
import onnx
import pytest

from tritonkit.check.divergence import Run, first_divergence, rows_end
from tritonkit.check.tolerance import NARROW_TOLERANCES, WIDE_TOLERANCES


def row(seed, shape=(4,)):
    """A row of usual numbers."""
    return np.random.default_rng(seed).standard_normal((1, *shape)).astype(np.float32)


def run(*rows, name="x"):
    """These rows as a batch."""
    return Run({name: np.concatenate(rows)}, len(rows))


@pytest.fixture
def parted(onnx_file):
    """`parted(graph)` → the first node at which row 0 parts, beside another row than itself."""

    def find(graph, output="y", shape=(4,)):
        one, other = row(1, shape), 3 + row(2, shape)
        runs = run(one, one, one), run(one, other, one), run(*[one] * 4)
        return first_divergence(onnx_file(graph), output, *runs, (0, 2), NARROW_TOLERANCES)

    return find


@pytest.fixture
def resized(onnx_file):
    """`resized(graph)` → the first node at which a row alone parts from itself among copies."""

    def find(graph, made=None, output="y"):
        one = made if made is not None else row(1)
        runs = run(one), run(*[one] * 3), run(*[one] * 4)
        return first_divergence(onnx_file(graph), output, *runs, range(3), WIDE_TOLERANCES)

    return find


def test_chain(parted):
    """In a chain it is the node that mixes rows, not those before or after it."""
    found = parted(
        """(float[batch,4] x) => (float[batch,4] y)
        { [a] h = Relu(x) [leak] m = ReduceMean<axes=[0],keepdims=1>(h) [c] d = Sub(h, m)
          [e] y = Exp(d) }"""
    )
    assert (found.node, found.op_type, found.rounds) == ("leak", "ReduceMean", False)
    assert found.max_abs_diff > 0.5


def test_difference_at_the_node_itself(parted):
    """The difference told is the node's own, not what becomes of it behind."""
    found = parted(
        """(float[batch,4] x) => (float[batch,4] y)
        { [leak] m = ReduceMax<keepdims=1>(x) k = Constant<value_float=1000.0>() s = Mul(m, k)
          y = Add(x, s) }"""
    )
    assert found.node == "leak" and found.max_abs_diff < 10


@pytest.mark.parametrize("given", ["a, b", "b, a"])
def test_two_leaks(parted, given):
    """Of two leaks on two branches the one that comes first in the file is named."""
    found = parted(
        f"""(float[batch,4] x) => (float[batch,4] y)
        {{ [first] a = ReduceMax<keepdims=1>(x) [second] b = ReduceSum<keepdims=1>(x)
          [join] c = Add({given}) y = Add(x, c) }}"""
    )
    assert found.node == "first"


@pytest.mark.parametrize(("output", "node"), [("y", "first"), ("z", "second")])
def test_each_output_has_its_own(parted, output, node):
    """A leak on the way to another output is not this one's."""
    graph = """(float[batch,4] x) => (float[batch,4] y, float[batch,4] z)
        { [second] b = ReduceSum<keepdims=1>(x) [first] a = ReduceMax<keepdims=1>(x)
          y = Add(x, a) z = Add(x, b) }"""
    assert parted(graph, output).node == node


def test_healthy_output(parted):
    """Where an output did not part no node is to blame, whatever others do."""
    graph = """(float[batch,4] x) => (float[batch,4] y, float[batch,4] z)
        { y = Relu(x) a = ReduceMax<keepdims=1>(x) z = Add(x, a) }"""
    assert parted(graph) is None


def test_node_without_a_name(parted):
    """A node without a name is called by its operator and its output."""
    found = parted("(float[batch,4] x) => (float[batch,4] y) { y = Softmax<axis=0>(x) }")
    assert found.node == "Softmax:y"


def test_row_that_moves_to_another_axis(parted):
    """Rows are followed to another axis, so that a transposition is not blamed."""
    found = parted(
        """(float[batch,3,4] x) => (float[batch,3,4] y)
        { [t] a = Transpose<perm=[1,0,2]>(x) [leak] b = Softmax<axis=1>(a)
          y = Transpose<perm=[1,0,2]>(b) }""",
        shape=(3, 4),
    )
    assert found.node == "leak"


def test_merged_rows(parted):
    """Rows are followed into [batch·time, …], so that the reshape is not blamed."""
    found = parted(
        """(float[batch,3,4] x) => (float[batch,3,4] y)
        { s = Constant<value_ints=[-1,4]>() [merge] a = Reshape(x, s) [leak] b = Softmax<axis=0>(a)
          t = Constant<value_ints=[-1,3,4]>() y = Reshape(b, t) }""",
        shape=(3, 4),
    )
    assert found.node == "leak"


def test_interleaved_rows(parted):
    """And into [time·batch, …], where rows take turns."""
    found = parted(
        """(float[batch,3,4] x) => (float[3,batch,4] y)
        { [t] a = Transpose<perm=[1,0,2]>(x) s = Constant<value_ints=[-1,4]>()
          [merge] b = Reshape(a, s) [leak] c = Softmax<axis=0>(b)
          u = Constant<value_ints=[3,-1,4]>() y = Reshape(c, u) }""",
        shape=(3, 4),
    )
    assert found.node == "leak"


def test_shape_that_depends_on_neighbours(parted):
    """A tensor of another size beside other neighbours is where they part."""
    found = parted(
        """(float[batch,4] x) => (float[batch,4] y)
        { [leak] n = NonZero(x) s = Shape<start=1,end=2>(n) f = Cast<to=1>(s) z = Relu(x)
          k = ReduceMax<axes=[0],keepdims=1>(z) p = Mul(k, f) y = Add(x, p) }"""
    )
    assert found.node == "ReduceMax:k"  # there are no zeros in x, so NonZero does not part


def test_inside_an_if(parted):
    """A leak inside a node's own graph is told as that node."""
    found = parted(
        """(float[batch,4] x) => (float[batch,4] y)
        { c = Constant<value=bool {1}>()
          [outer] y = If(c) <then_branch = t () => (float[a,4] r) { r = Softmax<axis=0>(x) },
                     else_branch = e () => (float[b,4] s) { s = Identity(x) }> }"""
    )
    assert found.node == "outer"


def test_captured_by_an_if(parted):
    """What a node's own graph takes from outside counts as what the node is given."""
    found = parted(
        """(float[batch,4] x) => (float[batch,4] y)
        { c = Constant<value=bool {1}>() [leak] m = ReduceMax<keepdims=1>(x)
          [outer] y = If(c) <then_branch = t () => (float[a,4] r) { r = Add(x, m) },
                     else_branch = e () => (float[b,4] s) { s = Identity(x) }> }"""
    )
    assert found.node == "leak"


def test_size_of_the_batch(resized):
    """Against the row alone it is the node at which the number of rows becomes a number."""
    found = resized(
        """(float[batch,4] x) => (float[batch,4] y)
        { s = Shape<start=0,end=1>(x) f = Cast<to=1>(s) [leak] y = Div(x, f) }"""
    )
    assert (found.node, found.op_type, found.rounds) == ("leak", "Div", False)


def test_sum_of_copies(resized):
    """A sum over the batch is no row itself: the blame falls where it meets the rows."""
    found = resized(
        """(float[batch,4] x) => (float[batch,4] y)
        { s = ReduceSum<keepdims=1>(x) [meets] y = Add(x, s) }"""
    )
    assert found.node == "meets"


def test_healthy_alone(resized):
    """A row that is answered alone as among copies has no such node."""
    assert resized("(float[batch,4] x) => (float[batch,4] y) { y = Softmax<axis=1>(x) }") is None


def test_numbers_that_are_not_rounded(resized):
    """Integers made from the number of rows are no rounding, whatever else the node is given."""
    found = resized(
        """(float[batch,4] x) => (int64[batch,4] y)
        { i = Cast<to=7>(x) s = Shape<start=0,end=1>(x) [leak] y = Add(i, s) }"""
    )
    assert (found.node, found.rounds) == ("leak", False)


@pytest.mark.parametrize(
    ("graph", "made"),
    [
        (
            """(int64[batch,4] x) => (int64[batch,4] y)
            { s = Shape<start=0,end=1>(x) [leak] y = Mul(x, s) }""",
            np.array([[1, 2, 3, 4]]),
        ),
        (
            """(float[batch,4] x) => (float[batch,4] y)
            <int64 zero = {0}, int64 one = {1}, int64[1] ax = {1}, int64[1] first = {0}>
            { s = Shape<start=0,end=1>(x) n = Squeeze(s, first) [leak] r = Range(zero, n, one)
              u = Unsqueeze(r, ax) f = Cast<to=1>(u) y = Add(x, f) }""",
            None,
        ),
        (
            """(float[batch,4] x) => (bool[batch,4] y)
            { s = Shape<start=0,end=1>(x) f = Cast<to=1>(s) [leak] y = Greater(x, f) }""",
            np.full((1, 4), 2.0, np.float32),
        ),
    ],
)
def test_number_of_rows_is_no_rounding(resized, graph, made):
    """An integer or a truth value that depends on the number of rows is no rounding, where what
    the node is given of the row itself is the same to the last bit.
    """
    found = resized(graph, made)
    assert (found.node, found.rounds) == ("leak", False)


def test_tensor_that_numpy_lacks(parted):
    """A tensor of a dtype that cannot be looked at does not keep the node from being named."""
    found = parted(
        """(float[batch,4] x) => (float[batch,4] y)
        { b = Cast<to=16>(x) c = Cast<to=1>(b) [leak] m = ReduceMax<keepdims=1>(c)
          y = Add(c, m) }"""
    )
    assert found is not None and found.node == "leak"


def test_tolerance(parted):
    """A difference within the tolerance parts nothing."""
    graph = """(float[batch,4] x) => (float[batch,4] y)
        { m = ReduceMax<keepdims=1>(x) k = Constant<value_float=0.0000001>() s = Mul(m, k)
          y = Add(x, s) }"""
    assert parted(graph) is None


def test_more_tensors_than_a_chunk(tmp_path):
    """The node is found in a graph of more tensors than are looked at together."""
    chain = " ".join(f"a{i + 1} = Neg(a{i})" for i in range(450))
    text = f"""<ir_version: 8, opset_import: ["": 17]> g (float[batch,4] x) => (float[batch,4] y)
        {{ a0 = Relu(x) {chain} [leak] m = ReduceMax<keepdims=1>(a450) y = Sub(a450, m) }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    one, other = row(1), 3 + row(2)
    runs = run(one, one), run(one, other), run(one, one, one)
    found = first_divergence(tmp_path / "model.onnx", "y", *runs, (0,), NARROW_TOLERANCES)
    assert found.node == "leak"


def test_graph_that_does_not_run(onnx_file):
    """Where the graph does not run, no node is named."""
    path = onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Softmax<axis=0>(x) }")
    one = row(1, (5,))
    runs = run(one, one), run(one, 2 * one), run(one, one, one)
    assert first_divergence(path, "y", *runs, (0,), NARROW_TOLERANCES) is None


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ("{ [a] h = Relu(x) [end] y = ReduceMax<axes=[0]>(h) }", ("end", "ReduceMax")),
        ("{ [end] m = ReduceMax<axes=[0]>(x) [b] y = Relu(m) }", ("end", "ReduceMax")),
        (
            "{ s = Constant<value_ints=[-1]>() a = Relu(x) [end] f = Reshape(a, s) y = Exp(f) }",
            ("end", "Reshape"),
        ),
        ("{ t = Transpose(x) y = MatMul(t, x) }", ("MatMul:y", "MatMul")),
        ("{ y = Constant<value_floats=[1.0, 2.0]>() }", None),
    ],
)
def test_rows_end(tmp_path, graph, expected):
    """Where an output has no rows, the last node that was given some is named."""
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[batch,4] x) => (float[n] y) {graph}'
    model = onnx.parser.parse_model(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "model.onnx")
    one = row(1)
    runs = run(one, one, one), run(*[one] * 4)
    assert rows_end(tmp_path / "model.onnx", "y", *runs) == expected
