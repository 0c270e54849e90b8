"""Every way in which rows of a batch can feel each other is caught, and healthy twins pass."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tritonkit.check.check import Question, check_model
from tritonkit.errors import ModelError
from tritonkit.verification import Verdict

QUICK = Question(max_batch_size=8, budget_s=1.0)

LEAKS = {
    "a mean over the batch": (
        """(float[batch,4] x) => (float[batch,4] y)
        { a = Relu(x) [leak] m = ReduceMean<axes=[0],keepdims=1>(a) y = Sub(a, m) }""",
        ("neighbour", "leak"),
    ),
    "a maximum over everything, a millionth of it": (
        """(float[batch,4] x) => (float[batch,4] y)
        { [leak] m = ReduceMax<keepdims=1>(x) c = Constant<value_float=0.000001>()
          s = Mul(m, c) y = Add(x, s) }""",
        ("neighbour", "leak"),
    ),
    "a sum over the batch, times zero": (
        """(float[batch,4] x) => (float[batch,4] y)
        { [leak] m = ReduceSum<keepdims=1>(x) c = Constant<value_float=0.0>()
          s = Mul(m, c) y = Add(x, s) }""",
        ("neighbour", "leak"),
    ),
    "a softmax over the batch": (
        "(float[batch,4] x) => (float[batch,4] y) { [leak] y = Softmax<axis=0>(x) }",
        ("neighbour", "leak"),
    ),
    "a running sum over the batch": (
        """(float[batch,4] x) => (float[batch,4] y)
        { a = Constant<value_int=0>() [leak] y = CumSum(x, a) }""",
        ("neighbour", "leak"),
    ),
    "the row before": (
        """(float[batch,4] x) => (float[batch,4] y)
        { last = Constant<value_ints=[-1]>() end = Constant<value_ints=[9223372036854775807]>()
          zero = Constant<value_ints=[0]>() [leak] head = Slice(x, last, end, zero)
          [leak_too] rest = Slice(x, zero, last, zero)
          r = Concat<axis=0>(head, rest) y = Add(x, r) }""",
        ("neighbour", "leak"),
    ),
    "a scale of quantisation for the whole batch": (
        """(float[batch,4] x) => (float[batch,4] y)
        { [leak] q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z) }""",
        ("neighbour", "leak"),
    ),
    "a mask as long as the longest row": (
        """(float[batch,8] x, int64[batch] n) => (float[batch,8] y)
        { [leak] m = ReduceMax<keepdims=0>(n) z = Constant<value_int=0>()
          o = Constant<value_int=1>() e = Constant<value_int=8>()
          r = Range(z, e, o) k = Less(r, m) f = Cast<to=1>(k) y = Mul(x, f) }""",
        ("neighbour", "leak"),
    ),
    "a batch that changes places with another axis": (
        """(float[batch,3,4] x) => (float[batch,3,4] y)
        { s = Shape(x) i = Constant<value_ints=[1,0,2]>() s2 = Gather(s, i)
          [leak] w = Reshape(x, s2) y = Transpose<perm=[1,0,2]>(w) }""",
        ("neighbour", "leak"),
    ),
    "the number of rows": (
        """(float[batch,4] x) => (float[batch,4] y)
        { s = Shape<start=0,end=1>(x) f = Cast<to=1>(s) [leak] y = Div(x, f) }""",
        ("batch_size", "leak"),
    ),
    "a little of the number of rows": (
        """(float[batch,4] x) => (float[batch,4] y)
        { s = Shape<start=0,end=1>(x) f = Cast<to=1>(s) k = Constant<value_float=0.001>()
          g = Mul(f, k) o = Constant<value_float=1.0>() h = Add(g, o) [leak] y = Div(x, h) }""",
        ("batch_size", "leak"),
    ),
    "the row's place in the batch": (
        """(float[batch,4] x) => (float[batch,4] y)
        <int64 zero = {0}, int64 one = {1}, int64[1] ax = {1}, int64[1] first = {0}>
        { s = Shape<start=0,end=1>(x) n = Squeeze(s, first) [leak] r = Range(zero, n, one)
          u = Unsqueeze(r, ax) f = Cast<to=1>(u) y = Add(x, f) }""",
        ("batch_size", "leak"),
    ),
    "integers times the number of rows": (
        """(int64[batch,4] x) => (int64[batch,4] y)
        { s = Shape<start=0,end=1>(x) [leak] y = Mul(x, s) }""",
        ("batch_size", "leak"),
    ),
    "a leak over the batch, with another axis that comes apart": (
        "(float[batch,seq] x) => (float[batch,seq] y) { [leak] y = Softmax<axis=0>(x) }",
        ("neighbour", "leak"),
    ),
    "chance": (
        """(float[batch,4] x) => (float[batch,4] y)
        { [leak] n = RandomNormalLike(x) y = Add(x, n) }""",
        ("random", "leak"),
    ),
    "a leak in the second output only": (
        """(float[batch,4] x) => (float[batch,4] good, float[batch,1] y)
        { good = Relu(x) t = ReduceSum<keepdims=1>(x) h = Constant<value_ints=[1]>()
          p = ReduceSum<keepdims=1>(x, h) [leak] y = Add(t, p) }""",
        ("neighbour", "ReduceSum:t"),
    ),
}

TWINS = {
    "a mean over the row": """(float[batch,4] x) => (float[batch,4] y)
        { m = ReduceMean<axes=[1],keepdims=1>(x) y = Sub(x, m) }""",
    "a softmax over the row": "(float[batch,4] x) => (float[batch,4] y) { y = Softmax<axis=1>(x) }",
    "a running sum over the row": """(float[batch,4] x) => (float[batch,4] y)
        { a = Constant<value_int=1>() y = CumSum(x, a) }""",
    "fixed quantisation": """(float[batch,4] x) => (float[batch,4] y)
        <float s={0.1}, uint8 z={128}>
        { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }""",
    "normalisation in eval mode": """(float[batch,4,5] x) => (float[batch,4,5] y)
        <float[4] g={1,1,1,1}, float[4] b={0,0,0,0}, float[4] m={0,0,0,0}, float[4] v={1,1,1,1}>
        { y = BatchNormalization(x, g, b, m, v) }""",
    "a mask of each row's own length": """(float[batch,8] x, int64[batch] n) => (float[batch,8] y)
        { a = Constant<value_ints=[1]>() m = Unsqueeze(n, a) z = Constant<value_int=0>()
          o = Constant<value_int=1>() e = Constant<value_int=8>()
          r = Range(z, e, o) k = Less(r, m) f = Cast<to=1>(k) y = Mul(x, f) }""",
    "constants in reshapes": """(float[batch,4] x) => (float[batch,4] y)
        { s = Constant<value_ints=[-1,2,2]>() r = Reshape(x, s)
          t = Constant<value_ints=[-1,4]>() y = Reshape(r, t) }""",
    "a batch merged with time and taken apart again": """
        (float[batch,3,4] x) => (float[batch,3,4] y)
        { s = Shape(x) f = Constant<value_ints=[-1,4]>() r = Reshape(x, f)
          e = Softmax<axis=1>(r) y = Reshape(e, s) }""",
    "time first inside": """(float[batch,3,4] x) => (float[batch,3,4] y)
        { t = Transpose<perm=[1,0,2]>(x) a = Constant<value_int=0>() c = CumSum(t, a)
          y = Transpose<perm=[1,0,2]>(c) }""",
    "an integer output": """(float[batch,4] x) => (int64[batch] y)
        { y = ArgMax<axis=1,keepdims=0>(x) }""",
    "text": "(string[batch,2] x) => (string[batch,2] y) { y = Identity(x) }",
    "half precision": "(float16[batch,4] x) => (float16[batch,4] y) { y = Softmax<axis=1>(x) }",
    "double precision": "(double[batch,4] x) => (double[batch,4] y) { y = Softmax<axis=1>(x) }",
    "truth values": """(bool[batch,4] x) => (bool[batch,4] y) { y = Not(x) }""",
    "no numbers at all": """(float[batch,4] x) => (float[batch,4] y)
        { l = Log(x) y = Identity(l) }""",
}

NO_BATCH = {
    "a set that is pooled": (
        "(float[points,4] x) => (float[1,4] y) { [end] y = ReduceMax<axes=[0]>(x) }",
        ("set", "y", "end"),
    ),
    "a set whose members attend to each other": (
        """(float[points,4] x) => (float[points,4] y)
        { t = Transpose(x) [end] a = MatMul(x, t) s = Softmax<axis=1>(a) y = MatMul(s, x) }""",
        ("set", "y", "end"),
    ),
    "time": (
        """(float[time,4] x) => (float[time,4] y)
        { a = Constant<value_int=0>() [end] y = CumSum(x, a) }""",
        ("time", "y", "end"),
    ),
    "nodes and edges": (
        """(float[nodes,4] x, int64[2,edges] e) => (float[nodes,4] y)
        { zero = Constant<value_int=0>() from = Gather<axis=0>(e, zero)
          g = Gather<axis=0>(x, from) m = ReduceMean<axes=[0],keepdims=1>(g) y = Add(x, m) }""",
        ("graph", "y", None),
    ),
    "a batch merged with another axis": (
        """(float[batch,4] x) => (float[n] y)
        { s = Constant<value_ints=[-1]>() [end] y = Reshape(x, s) }""",
        ("merged", "y", "end"),
    ),
    "as many answers as the values will have": (
        """(float[batch,4] x) => (float[k,4] y)
        { i = Constant<value_ints=[1]>() s = ReduceSum<keepdims=0>(x, i)
          z = Constant<value_float=0.0>() c = Greater(s, z) [end] y = Compress<axis=0>(x, c) }""",
        ("no_batch_axis", "y", "end"),
    ),
    "every row with every row": (
        """(float[batch,4] x) => (float[batch,n] y) { t = Transpose(x) y = MatMul(x, t) }""",
        ("no_batch_axis", "y", None),
    ),
    "an output without rows": (
        """(float[batch,4] x) => (float[batch,4] y, float[2] anchors)
        { y = Relu(x) anchors = Constant<value_floats=[1.0, 2.0]>() }""",
        ("no_batch_axis", "anchors", None),
    ),
    "an input without rows": (
        "(float[batch,4] x, float k) => (float[batch,4] y) { y = Mul(x, k) }",
        ("no_batch_axis", "k", None),
    ),
    "a batch on axis 1": (
        """(float[time,batch,4] x) => (float[time,batch,4] y)
        { a = Constant<value_int=0>() y = CumSum(x, a) }""",
        ("batch_axis", "x", None),
    ),
    "a fixed batch": (
        "(float[1,4] x) => (float[1,4] y) { y = Relu(x) }",
        ("fixed_batch", "x", None),
    ),
    "nothing dynamic": (
        "(float[3,4] x) => (float[4] y) { y = ReduceSum<keepdims=0,noop_with_empty_axes=0>(x) }",
        ("fixed_batch", "x", None),
    ),
    "a batch baked into a shape": (
        """(float[batch,4] x) => (float[batch,4] y)
        { s = Constant<value_ints=[1,2,2]>() [end] r = Reshape(x, s)
          t = Constant<value_ints=[-1,4]>() y = Reshape(r, t) }""",
        ("fails", "x", "end"),
    ),
    "a first dimension that is declared fixed": (
        "(float[batch,4] x) => (float[1,4] y) { y = Relu(x) }",
        ("signature", "y", None),
    ),
}


GATHER = """(int64[batch,5] ids) => (float[batch,5,1] y) <float[50,1] table = {%s}>
    { y = Gather<axis=0>(table, ids) }""" % ",".join(map(str, range(50)))  # noqa: UP031


@pytest.mark.parametrize("name", LEAKS)
def test_leak(onnx_file, name):
    """Rows that feel something else than themselves make a model unsafe, and the node is named."""
    graph, (kind, node) = LEAKS[name]
    proof = check_model(onnx_file(graph), QUICK)
    assert proof.verdict is Verdict.UNSAFE and proof.max_batch_size == 0
    assert [(f.kind, f.tensor) for f in proof.findings] == [(kind, "y")]
    assert proof.findings[0].node.startswith(node)
    assert proof.findings[0].batch in (2, 3, 7, 8)


def test_normalisation_in_train_mode(onnx_file):
    """It is unsafe and named, by whichever trouble shows first: ONNX Runtime moves its running
    statistics with every run, so that not even two equal runs agree.
    """
    graph = """(float[batch,4,5] x) => (float[batch,4,5] y)
        <float[4] g={1,1,1,1}, float[4] b={0,0,0,0}, float[4] m={0,0,0,0}, float[4] v={1,1,1,1}>
        { [leak] y, rm, rv = BatchNormalization<training_mode=1>(x, g, b, m, v) }"""
    proof = check_model(onnx_file(graph), QUICK)
    assert proof.verdict is Verdict.UNSAFE
    assert proof.findings[0].node == "leak" and "model.eval()" in proof.findings[0].remedy


@pytest.mark.parametrize("name", TWINS)
def test_healthy_twin(onnx_file, name):
    """A model that keeps rows apart is safe, and nothing is found."""
    proof = check_model(onnx_file(TWINS[name]), QUICK)
    assert (proof.verdict, proof.findings) == (Verdict.SAFE, ())
    assert proof.max_batch_size == 8 and proof.batches == (1, 2, 3, 7, 8)
    assert set(proof.batch_axis.values()) == {0}


@pytest.mark.parametrize("name", NO_BATCH)
def test_no_batch(onnx_file, name):
    """What has no batch that Triton could fill is refused, and the tensor and node are named."""
    graph, expected = NO_BATCH[name]
    proof = check_model(onnx_file(graph), QUICK)
    assert proof.verdict is Verdict.NOT_BATCHABLE and proof.max_batch_size == 0
    first = proof.findings[0]
    assert (first.kind, first.tensor, first.node if expected[2] else None) == expected


def test_batch_on_axis_1(onnx_file):
    """The batch axis is told where it is, though Triton cannot use it there."""
    proof = check_model(onnx_file(NO_BATCH["a batch on axis 1"][0]), QUICK)
    assert proof.batch_axis == {"x": 1, "y": 1}
    assert "axis 0 is time" in proof.findings[0].why


def test_axes_that_differ(tmp_path):
    """Each tensor has its own batch axis, found without names: a recurrent state has it on 1."""
    graph = """(float[batch,4] x, float[1,b,4] state) => (float[d0,4] y, float[1,d1,4] new)
        { z = Constant<value_ints=[0]>() s = Squeeze(state, z) y = Add(x, s)
          new = Unsqueeze(y, z) }"""
    proof = check_model(_written(tmp_path, graph), QUICK)
    assert proof.batch_axis == {"x": 0, "state": 1, "y": 0, "new": 1}
    assert [f.tensor for f in proof.findings] == ["state", "new"]


def test_declared_rank(onnx_file):
    """An output of another rank than declared is reported, and does not make a model unsafe."""
    graph = "(float[batch,4] x) => (float[batch,m,k] y) { y = Relu(x) }"
    proof = check_model(onnx_file(graph), QUICK)
    assert proof.verdict is Verdict.SAFE
    assert [(f.kind, f.tensor) for f in proof.findings] == [("signature", "y")]
    assert "[1, 4]" in proof.findings[0].why


def test_rounding_that_is_blown_up(onnx_file):
    """Rounding that differs with the batch's size is told as a tolerance."""
    # (x + 1000)² - 1000² - 2000·x = x², with few digits left; a sum over 600 in two orders
    graph = """(float[batch,600] x) => (float[batch,1] y)
        { w = Constant<value = float[600,1] {0.0}>() y = MatMul(x, w) }"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {graph}')
    random = np.random.default_rng(0)
    weights = (random.standard_normal((600, 1)) * 1e4).astype(np.float32)
    weights[300:] = -weights[:300]
    model.graph.node[0].attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(weights))
    path = onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }")
    onnx.save(model, path)
    row = np.repeat(random.standard_normal((1, 300)).astype(np.float32), 2, axis=0).reshape(1, 600)
    proof = check_model(path, Question(max_batch_size=8, examples=[{"x": row}], budget_s=1))
    assert proof.verdict in (Verdict.SAFE, Verdict.SAFE_WITHIN)


def test_parity(onnx_file):
    """An answer that is not the reference's makes a model unsafe, with the worst element."""

    def reference(inputs):
        return {"y": np.maximum(inputs["x"], 0) + np.float32([0, 0, 0.5, 0])}

    graph = "(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }"
    question = Question(8, reference=reference, against="the source", budget_s=1)
    proof = check_model(onnx_file(graph), question)
    assert proof.verdict is Verdict.UNSAFE
    finding = proof.findings[0]
    assert (finding.kind, finding.tensor, finding.batch) == ("parity", "y", 1)
    assert finding.max_abs_diff == pytest.approx(0.5) and "[0, 2]" in finding.why


def test_vocabulary(tmp_path):
    """Token ids are drawn from the whole table, and so the last word is tried."""
    table = np.arange(200, dtype=np.float32).reshape(100, 2)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5, 2])],
        [onnx.numpy_helper.from_array(table, "table")],
    )
    path = tmp_path / "table.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    proof = check_model(path, QUICK)
    assert proof.verdict is Verdict.SAFE
    assert "the largest integers that the model takes" in proof.tried


def test_leak_that_needs_rich_rows(onnx_file):
    """A mask that leaks is found though two words only would not show it."""
    graph = """(int64[batch,seq] ids, int64[batch,seq] mask) => (float[batch,seq,8] y)
        <float[50,8] table>
        { e = Gather<axis=0>(table, ids) t = Transpose<perm=[0,2,1]>(e) a = MatMul(e, t)
          [leak] any = ReduceMax<axes=[0],keepdims=1>(mask) f = Cast<to=1>(any)
          one = Constant<value_float=1.0>() off = Sub(one, f)
          big = Constant<value_float=-10000.0>() o = Mul(off, big)
          ax = Constant<value_ints=[1]>() m = Unsqueeze(o, ax)
          b = Add(a, m) s = Softmax<axis=2>(b) y = MatMul(s, e) }"""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g {graph.replace("<float[50,8] table>", "")}'
    )
    table = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    path = onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }")
    onnx.save(model, path)
    proof = check_model(path, QUICK)
    assert proof.verdict is Verdict.UNSAFE and proof.findings[0].node == "leak"


def test_no_usable_inputs(onnx_file):
    """A model that runs on nothing that can be thought of is refused with the remedy."""
    graph = """(float[batch,n] x) => (float[batch,4] y)
        { s = Constant<value_ints=[-1,999983]>() r = Reshape(x, s) y = Relu(r) }"""
    with pytest.raises(ModelError, match="give one with --input"):
        check_model(onnx_file(graph), QUICK)


def test_examples_are_used(onnx_file):
    """Sizes and values come from real rows where they are given."""
    graph = """(float[batch,n] x) => (float[batch,m] y)
        { s = Constant<value_ints=[-1,1009]>() r = Reshape(x, s) y = Relu(r) }"""
    rows = [{"x": np.full((1, 1009), i, np.float32)} for i in range(1, 4)]
    proof = check_model(onnx_file(graph), Question(8, examples=rows, budget_s=1))
    assert proof.verdict is Verdict.SAFE


def test_output_that_never_moves(onnx_file):
    """An output that is the same whatever comes in is noted: nothing is known of it."""
    graph = """(float[batch,4] x) => (float[batch,4] y)
        { z = Constant<value_float=0.0>() a = Abs(x) n = Neg(a) m = Min(n, z) y = Relu(m) }"""
    proof = check_model(onnx_file(graph), QUICK)
    assert "nothing is known of it" in proof.notes[0]


def test_limit_of_a_table(tmp_path):
    """That an id beyond the table fails everybody's batch is noted, with the last that does not."""
    proof = check_model(_written(tmp_path, GATHER), QUICK)
    assert "'ids' above 49 makes the model fail" in proof.notes[0]


def test_json(onnx_file):
    """The JSON form has all that was found, without values that JSON has not."""
    record = check_model(onnx_file(LEAKS["a sum over the batch, times zero"][0]), QUICK).to_json()
    text = json.loads(json.dumps(record, allow_nan=False))
    assert text["verdict"] == "unsafe" and text["batch_axis"] == {"x": 0, "y": 0}
    assert text["findings"][0]["max_abs_diff"] is None and text["gain"] == {}
    assert {"kind", "tensor", "node", "max_abs_diff", "batch", "why", "remedy"} <= set(
        text["findings"][0]
    )


def test_gain_is_measured(onnx_file):
    """What batching would buy is told for every power of two up to the most."""
    proof = check_model(onnx_file(TWINS["a mean over the row"]), QUICK)
    assert list(proof.gain.ratios) == [1, 2, 4, 8]


def test_large_batches_are_proved(onnx_file):
    """The largest batch is the one that was asked for."""
    proof = check_model(onnx_file(TWINS["a mean over the row"]), Question(100, budget_s=1))
    assert proof.max_batch_size == 100 and proof.batches[-1] == 100


def test_batch_that_fails(onnx_file):
    """A batch that does not run, though each row does, is told with its size and node."""
    graph = """(float[batch,4] x) => (float[batch,4] y)
        { i = Constant<value_ints=[0,1,2,3,4]>() s = Shape<start=0,end=1>(x)
          one = Constant<value_ints=[1]>() last = Sub(s, one)
          [leak] g = Gather(i, last) z = Constant<value_ints=[0]>() q = Mul(g, z)
          f = Cast<to=1>(q) y = Add(x, f) }"""
    proof = check_model(onnx_file(graph), QUICK)
    assert proof.verdict is Verdict.UNSAFE
    assert (proof.findings[0].kind, proof.findings[0].node) == ("fails", "leak")
    assert proof.findings[0].batch == 7


def _written(folder, graph):
    """A file that onnx's checker is not asked about."""
    path = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {graph}'), path)
    return path
