"""A fixed batch becomes a dynamic one, or the node that holds it is named."""

import numpy as np
import onnx
import onnx.parser
import pytest

from tritonkit.check.onnx_model import OnnxModel
from tritonkit.errors import ModelError
from tritonkit.export.batch_axis import make_batch_dynamic
from tritonkit.payloads import random_payloads
from tritonkit.signature import read_signature


def examples_of(path, batch=1, count=3):
    """Different random inputs of the model, of `batch` rows each."""
    rows = random_payloads(read_signature(path), batch * count, seed=3)
    return [
        {name: np.concatenate([r[name] for r in rows[i * batch : (i + 1) * batch]]) for name in r}
        for i, r in enumerate(rows[:count])
    ]


def rewritten(path, batch=1):
    """The new file and what was changed, once five new rows got what the old file gives each."""
    target = path.parent / "out" / "dynamic.onnx"
    rewrite = make_batch_dynamic(path, target, examples_of(path, batch))
    assert rewrite.batch == batch
    old, new = OnnxModel(path), OnnxModel(target)
    rows = random_payloads(read_signature(path), 5, seed=9)
    got = new.run({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
    for place, row in enumerate(rows):
        wanted = old.run({name: np.repeat(array, batch, axis=0) for name, array in row.items()})
        for name, array in wanted.items():
            if array.dtype.kind == "f":
                np.testing.assert_allclose(got[name][place], array[0], rtol=1e-4, atol=1e-5)
            else:
                np.testing.assert_array_equal(got[name][place], array[0])
    return target, rewrite.changed


def refusal(path, batch=1):
    """What is said about a model that cannot be rewritten; nothing is left of the attempt."""
    target = path.parent / "out" / "dynamic.onnx"
    with pytest.raises(ModelError) as error:
        make_batch_dynamic(path, target, examples_of(path, batch))
    assert not target.parent.exists() or not any(target.parent.iterdir())
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))
    return str(error.value)


MENDED = {
    "a Reshape": (
        "(float[1,6] x) => (float[1,2,3] y) <int64[3] s={1,2,3}> { y = Reshape(x, s) }",
        ("Reshape 'y': shape [1, 2, 3] → [batch, 2, 3]",),
    ),
    "a Reshape with -1": (
        "(float[1,2,3] x) => (float[1,6] y) <int64[2] s={1,-1}> { y = Reshape(x, s) }",
        ("Reshape 'y': shape [1, -1] → [batch, -1]",),
    ),
    "a batch merged for a while": (
        "(float[1,3,4] x) => (float[1,3,2] y) <int64[2] s={3,4}, int64[3] t={1,3,2}, "
        "float[4,2] w={1.,2.,3.,4.,5.,6.,7.,8.}> "
        "{ a = Reshape(x, s) b = MatMul(a, w) y = Reshape(b, t) }",
        (
            "Reshape 'a': shape [3, 4] → [3·batch, 4]",
            "Reshape 'y': shape [1, 3, 2] → [batch, 3, 2]",
        ),
    ),
    "a batch on another axis for a while": (
        "(float[1,3,4] x) => (float[1,3,4] y) <int64[3] s={3,1,4}> "
        "{ a = Transpose<perm=[1,0,2]>(x) b = Reshape(a, s) y = Transpose<perm=[1,0,2]>(b) }",
        ("Reshape 'b': shape [3, 1, 4] → [3, batch, 4]",),
    ),
    "a Slice": (
        "(float[1,4] x) => (float[1,4] y) <int64[1] a={0}, int64[1] b={1}> { y = Slice(x,a,b,a) }",
        ("Slice 'y': ends [1] → [batch]",),
    ),
    "a Resize": (
        "(float[1,1,2,2] x) => (float[1,1,4,4] y) <int64[4] s={1,1,4,4}> { y = Resize(x,,,s) }",
        ("Resize 'y': sizes [1, 1, 4, 4] → [batch, 1, 4, 4]",),
    ),
    "a class token": (
        "(float[1,2,2] x) => (float[1,3,2] y) <float[1,1,2] c={5.,6.}> "
        "{ y = Concat<axis=1>(c, x) }",
        ("Concat 'y': 'c' of shape [1, 1, 2] → [batch, 1, 2]",),
    ),
    "an expanded class token": (
        "(float[1,2,2] x) => (float[1,3,2] y) <float[1,1,2] c={5.,6.}, int64[3] s={1,1,2}> "
        "{ e = Expand(c, s) y = Concat<axis=1>(e, x) }",
        ("Concat 'y': 'e' of shape [1, 1, 2] → [batch, 1, 2]",),
    ),
    "a ConstantOfShape": (
        "(float[1,4] x) => (float[1,6] y) <int64[2] s={1,2}> "
        "{ z = ConstantOfShape(s) y = Concat<axis=1>(x, z) }",
        ("Concat 'y': 'z' of shape [1, 2] → [batch, 2]",),
    ),
    "a string": (
        '(string[1,3] x) => (string[1,4] y) <string[1,1] c={"a"}> { y = Concat<axis=1>(x, c) }',
        ("Concat 'y': 'c' of shape [1, 1] → [batch, 1]",),
    ),
    "the last step of each row": (
        "(float[1,3,2] x) => (float[1,2] y) <int64[1,2] i={0,-1}> { y = GatherND(x, i) }",
        ("GatherND 'y': indices + the number of the row in column 0",),
    ),
    "a step of its own for each row": (
        "(float[1,2,2] x, int64[1] i) => (float[1,2] y) <int64[2] s={2,2}> "
        "{ a = Reshape(x, s) y = Gather<axis=0>(a, i) }",
        (
            "Reshape 'a': shape [2, 2] → [2·batch, 2]",
            "Gather 'y': indices + the number of the row",
        ),
    ),
    "several steps of its own for each row": (
        "(float[1,3,2] x, int64[1,2] i) => (float[1,4] y) <int64[2] s={3,2}, int64[1] f={-1}, "
        "int64[2] t={1,4}> { a = Reshape(x, s) j = Reshape(i, f) g = Gather<axis=0>(a, j) "
        "y = Reshape(g, t) }",
        (
            "Reshape 'a': shape [3, 2] → [3·batch, 2]",
            "Gather 'g': indices + the number of the row",
            "Reshape 'y': shape [1, 4] → [batch, 4]",
        ),
    ),
    "a mask that is read by its places": (
        "(float[1,2] x, int64[1,2] m) => (float[1,2] y) <int64[1] f={-1}, int64[1,2] p={0,1}, "
        "int64[1,1] z={0}, int64[1] w={1}> { a = Reshape(m, f) s = Shape(m) n = Gather(s, w) "
        "o = Mul(n, z) i = Add(o, p) g = Gather(a, i) c = Cast<to=1>(g) y = Mul(x, c) }",
        ("Gather 'g': indices + the number of the row",),
    ),
    "a constant output": (
        "(float[1,4] x) => (float[1,4] y, float[1,2] z) "
        "{ y = Relu(x) z = Constant<value=float[1,2] {1.,2.}>() }",
        ("output 'z' of shape [1, 2] → [batch, 2]",),
    ),
    "an initializer as output": (
        "(float[1,4] x) => (float[1,4] y, float[1,2] z) <float[1,2] z={1.,2.}> { y = Relu(x) }",
        ("output 'z' of shape [1, 2] → [batch, 2]",),
    ),
    "another dynamic dimension": (
        "(float[1,seq,2] x) => (float[1,seq,2] y) <int64[1] b={1}, int64[1] w={2}> { s = Shape(x) "
        "t = Gather<axis=0>(s, b) v = Concat<axis=0>(b, t, w) y = Reshape(x, v) }",
        ("Reshape 'y': shape [1, 16, 2] → [batch, 16, 2]",),
    ),
    "a shape that an If reads": (
        "(float[1,4] x) => (float[1,2,2] y) <bool c={1}, int64[3] s={1,2,2}> { "
        "y = If(c)<then_branch = t () => (float[1,2,2] a) { a = Reshape(x, s) }, "
        "else_branch = e () => (float[1,2,2] b) { n = Neg(x) b = Reshape(n, s) }> }",
        ("If 'y': 's' [1, 2, 2] → [batch, 2, 2]",),
    ),
    "a shape inside an If": (
        "(float[1,4] x) => (float[1,2,2] y) <bool c={1}> { y = If(c)<"
        "then_branch = t () => (float[1,2,2] a) "
        "{ i = Constant<value=int64[3] {1,2,2}>() a = Reshape(x, i) }, "
        "else_branch = e () => (float[1,2,2] b) "
        "{ j = Constant<value=int64[3] {1,2,2}>() b = Reshape(x, j) }> }",
        ("If 'y': 'i_2' [1, 2, 2] → [batch, 2, 2]",),
    ),
    "a first state of a Scan": (
        "(float[1,3,4] x) => (float[1,4] y) <float[1,4] h={0.,0.,0.,0.}> "
        "{ xt = Transpose<perm=[1,0,2]>(x) y, u = Scan<num_scan_inputs=1, "
        "body = b (float[1,4] s, float[1,4] v) => (float[1,4] so, float[1,4] o) "
        "{ so = Add(s, v) o = Identity(v) }>(h, xt) }",
        ("Scan 'y': 'h' of shape [1, 4] → [batch, 4]",),
    ),
}


@pytest.mark.parametrize("what", MENDED)
def test_mended(what, onnx_file):
    """What holds the batch is mended, and said in a line for each node."""
    graph, changed = MENDED[what]
    assert rewritten(onnx_file(graph))[1] == changed


FINE = {
    "nothing held": "(float[1,4] x) => (float[1,4] y) { y = Relu(x) }",
    "a Flatten": "(float[1,2,3] x) => (float[1,6] y) { y = Flatten<axis=1>(x) }",
    "a Reshape that fits any": (
        "(float[1,2,3] x) => (float[1,6] y) <int64[2] s={-1,6}> { y = Reshape(x, s) }"
    ),
    "a Tile": "(float[1,4] x) => (float[1,8] y) <int64[2] s={1,2}> { y = Tile(x, s) }",
    "an Expand of each row": (
        "(float[1,1,2] x) => (float[1,3,2] y) <int64[3] s={1,3,2}> { y = Expand(x, s) }"
    ),
    "a shape that is read": (
        "(float[1,4] x) => (float[1,4] y) { s = Shape(x) z = ConstantOfShape(s) y = Add(x, z) }"
    ),
    "an input as output": "(float[1,4] x) => (float[1,4] y, float[1,4] x) { y = Relu(x) }",
    "a Loop": (
        "(float[1,4] x) => (float[1,4] y) <float[1,4] h={0.,0.,0.,0.}, int64 n={3}, bool t={1}> "
        "{ y = Loop(n, t, h)<body = b (int64 i, bool ci, float[1,4] s) => "
        "(bool co, float[1,4] so) { co = Identity(ci) so = Add(s, x) }> }"
    ),
    "an axis of no rank but the batch": "(float[1] x) => (float[1] y) { y = Relu(x) }",
}


@pytest.mark.parametrize("what", FINE)
def test_nothing_to_mend(what, onnx_file):
    """A model whose nodes take any batch gets new declarations, and no node changes."""
    target, changed = rewritten(onnx_file(FINE[what]))
    assert changed == ()
    for tensor in (*read_signature(target).inputs, *read_signature(target).outputs):
        assert tensor.shape[0] == "batch"


REFUSED = {
    "the only row is picked": (
        "(float[1,4] x) => (float[4] y) <int64 i={0}> { y = Gather<axis=0>(x, i) }",
        "Gather 'y'",
        "not what it gives 1 at a time",
    ),
    "the batch is squeezed": (
        "(float[1,4] x) => (float[1,4] y) <int64[1] i={0}> "
        "{ s = Squeeze(x, i) r = Relu(s) y = Unsqueeze(r, i) }",
        "Squeeze 's'",
        "fails for 3 rows (Dimension of input 0 must be 1 instead of 3)",
    ),
    "a mean over the batch": (
        "(float[1,4] x) => (float[1,4] y) { m = ReduceMean<axes=[0]>(x) y = Mul(x, m) }",
        "ReduceMean 'm'",
        "not what it gives 1 at a time",
    ),
    "a sum along the batch": (
        "(float[1,4] x) => (float[1,4] y) <int64 a={0}> { y = CumSum(x, a) }",
        "CumSum 'y'",
        "not what it gives 1 at a time",
    ),
    "a scale for all rows": (
        "(float[1,4] x) => (float[1,4] y) "
        "{ q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z) }",
        "DynamicQuantizeLinear 'q'",
        "not what it gives 1 at a time",
    ),
    "a decision for all rows": (
        "(float[1,4] x) => (float[1,4] y) <float z={2.}> { m = ReduceMax<keepdims=0>(x) "
        "c = Less(m, z) y = If(c)<then_branch = t () => (float[1,4] a) { a = Neg(x) }, "
        "else_branch = e () => (float[1,4] b) { b = Relu(x) }> }",
        "ReduceMax 'm'",
        "not what it gives 1 at a time",
    ),
    "the batch ends on axis 1": (
        "(float[1,4] x) => (float[4,1] y) { t = Transpose<perm=[1,0]>(x) y = Relu(t) }",
        "Transpose 't'",
        "why output 'y' has the batch on axis 1, not on axis 0",
    ),
    "the batch ends merged": (
        "(float[1,3,4] x) => (float[3,4] y) <int64[2] s={3,4}> { r = Reshape(x, s) y = Relu(r) }",
        "Reshape 'r'",
        "why output 'y' has the batch merged into axis 0",
    ),
    "a merged batch is too much for a later node": (
        "(float[1,4] x) => (float[2] y) <int64[1] s={4}, float[4,2] w={1.,2.,3.,4.,5.,6.,7.,8.}> "
        "{ r = Reshape(x, s) y = MatMul(r, w) }",
        "MatMul 'y'",
        "Reshape 'r' has moved the batch from axis 0 before it",
    ),
    "an output without rows": (
        "(float[1,4] x) => (float[1,4] y, int64[2] z) { y = Relu(x) z = Shape(x) }",
        "Shape 'z'",
        "why output 'z' does not depend on the inputs",
    ),
    "an initializer that is no row": (
        "(float[1,4] x) => (float[1,4] y, float[2] z) <float[2] z={1.,2.}> { y = Relu(x) }",
        "output 'z'",
        "does not depend on the inputs",
    ),
    "a sequence": (
        "(float[1,4] x) => (float[1,4] y) <int64 z={0}> "
        "{ s = SequenceConstruct(x, x) y = SequenceAt(s, z) }",
        "SequenceConstruct 's'",
        "makes a sequence of tensors",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what, onnx_file):
    """What cannot be mended is refused with the node, the reason and the export that would."""
    graph, node, why = REFUSED[what]
    said = refusal(onnx_file(graph))
    assert f"its batch is fixed at 1 by {node}: it " in said
    assert why in said
    assert "torch.onnx.export(…, dynamic_shapes={'x': {0: 'batch'}})" in said
    assert "dynamo=False, dynamic_axes={'x': {0: 'batch'}}" in said


def test_random_numbers(onnx_file):
    """A model that draws random numbers has no right answer, and is refused with the node."""
    graph = "(float[1,4] x) => (float[1,4] y) { r = RandomNormalLike(x) y = Add(x, r) }"
    assert "RandomNormalLike 'r' gives another answer to the same inputs" in refusal(
        onnx_file(graph)
    )


def test_accidentally_equal_rows(onnx_file):
    """A tensor that is equal for all examples, but made of the rows, still has to keep them."""
    graph = (
        "(float[1,4] x) => (float[1,4] y) <int64[1] z={0}, int64[1] o={1}, float t={100.}> "
        "{ big = Greater(x, t) m = Cast<to=1>(big) w = ReduceMax<axes=[0]>(m) y = Sub(x, w) }"
    )
    assert "ReduceMax 'w'" in refusal(onnx_file(graph))


HEADS = (
    # Two heads of two; -1 lets each Reshape run on a larger batch too, with the rows in the time.
    "(float[1,3,4] x) => (float[1,3,4] y) <int64[3] s={{{first},2,2}}, int64[3] b={{3,1,4}}> {{ "
    "t = Transpose<perm=[1,0,2]>(x) q = Reshape(t, s) n = Neg(t) k = Reshape(n, s) "
    "qh = Transpose<perm=[1,0,2]>(q) kh = Transpose<perm=[1,2,0]>(k) a = MatMul(qh, kh) "
    "p = Softmax(a) vh = Transpose<perm=[1,0,2]>(q) o = MatMul(p, vh) "
    "u = Transpose<perm=[1,0,2]>(o) r = Reshape(u, b) y = Transpose<perm=[1,0,2]>(r) }}"
)


def test_heads(onnx_file):
    """A batch merged into the heads of an attention keeps each row's heads together."""
    changed = rewritten(onnx_file(HEADS.format(first=3)))[1]
    assert changed[0] == "Reshape 'q': shape [3, 2, 2] → [3, 2·batch, 2]"


def test_a_way_that_fails_later(onnx_file):
    """A node that runs as it is, but in a way that a later node cannot go on from, is mended."""
    changed = rewritten(onnx_file(HEADS.format(first=-1)))[1]
    assert changed == (
        "Reshape 'q': shape [-1, 2, 2] → [-1, 2·batch, 2]",
        "Reshape 'k': shape [-1, 2, 2] → [-1, 2·batch, 2]",
        "Reshape 'r': shape [3, 1, 4] → [3, batch, 4]",
    )


def test_shared_shape(onnx_file):
    """A constant that several nodes read changes only for those that hold the batch by it."""
    graph = (
        "(float[1,4] x) => (float[1,4] y) <int64[2] s={1,4}> "
        "{ a = Reshape(x, s) z = ConstantOfShape(s) b = Add(a, z) y = Reshape(b, s) }"
    )
    target, changed = rewritten(onnx_file(graph))
    assert len(changed) == 2
    nodes = {node.op_type: node for node in onnx.load(target).graph.node}
    assert nodes["ConstantOfShape"].input == ["s"]
    assert sum(node.op_type == "Concat" for node in onnx.load(target).graph.node) == 1


def test_names_that_are_taken(onnx_file):
    """New nodes and constants get names that the model does not have."""
    graph = (
        "(float[1,4] batch_shape) => (float[1,2,2] batch_gather) <int64[3] batch_constant={1,2,2}> "
        "{ batch_concat = Relu(batch_shape) batch_gather = Reshape(batch_concat, batch_constant) }"
    )
    target, _ = rewritten(onnx_file(graph))
    onnx.checker.check_model(target, full_check=True)


def test_batch_is_the_name_of_another_dimension(onnx_file):
    """Axis 0 does not take a name that another dimension has."""
    graph = "(float[1,batch] x) => (float[1,batch] y) { y = Relu(x) }"
    target, _ = rewritten(onnx_file(graph))
    assert read_signature(target).inputs[0].shape == ("batch_size", "batch")


class TestOtherBatches:
    """A file with a fixed batch of more than one row."""

    def test_mended(self, onnx_file):
        """Sizes and constants that have the batch in them are brought to one row first."""
        graph = (
            "(float[4,6] x) => (float[4,3,3] y) <int64[3] s={4,2,3}, "
            "float[4,1,3] c={1.,2.,3.,1.,2.,3.,1.,2.,3.,1.,2.,3.}> "
            "{ r = Reshape(x, s) y = Concat<axis=1>(r, c) }"
        )
        assert rewritten(onnx_file(graph), batch=4)[1] == (
            "Reshape 'r': shape [4, 2, 3] → [batch, 2, 3]",
            "Concat 'y': 'c' of shape [4, 1, 3] → [batch, 1, 3]",
        )

    def test_row_numbers(self, onnx_file):
        """Indices that count the rows of the old batch count those of any."""
        graph = (
            "(float[2,3] x) => (float[2,2] y, float[2] z) <int64[2,2,2] i={0,0,0,2,1,0,1,2}, "
            "int64[2] j={1,4}, int64[1] f={-1}> "
            "{ y = GatherND(x, i) a = Reshape(x, f) z = Gather(a, j) }"
        )
        assert rewritten(onnx_file(graph), batch=2)[1] == (
            "GatherND 'y': indices with the number of the row in column 0",
            "Gather 'z': indices with the number of the row",
        )

    def test_merged(self, onnx_file):
        """A size that is several times the batch stays that."""
        graph = (
            "(float[4,3,2] x) => (float[4,3,2] y) <int64[2] s={12,2}, int64[3] t={4,3,2}> "
            "{ a = Reshape(x, s) y = Reshape(a, t) }"
        )
        assert "Reshape 'a': shape [12, 2] → [3·batch, 2]" in rewritten(onnx_file(graph), 4)[1]

    def test_further_dynamic_dimension(self, onnx_file):
        """A shape that is computed from another dimension stays computed."""
        graph = (
            "(float[4,seq,2] x) => (float[4,seq,2] y) <int64[1] b={4}, int64[1] o={1}, "
            "int64[1] w={2}> { s = Shape(x) t = Gather<axis=0>(s, o) "
            "v = Concat<axis=0>(b, t, w) y = Reshape(x, v) }"
        )
        target, _ = rewritten(onnx_file(graph), batch=4)
        x = np.random.default_rng(0).standard_normal((3, 5, 2)).astype(np.float32)
        np.testing.assert_array_equal(OnnxModel(target).run({"x": x})["y"], x)

    def test_a_constant_of_its_own_for_each_row(self, onnx_file):
        """Rows that differ by their place cannot be batched otherwise, and are refused."""
        graph = "(float[4,2] x) => (float[4,2] y) <float[4,1] c={1.,2.,3.,4.}> { y = Add(x, c) }"
        assert "Add 'y'" in refusal(onnx_file(graph), batch=4)

    def test_rows_that_feel_each_other(self, onnx_file):
        """A mean over the batch of four is refused with its node."""
        graph = "(float[4,2] x) => (float[4,2] y) { m = ReduceMean<axes=[0]>(x) y = Sub(x, m) }"
        assert "fixed at 4 by ReduceMean 'm'" in refusal(onnx_file(graph), batch=4)

    def test_rows_that_feel_each_other_within_the_old_batch(self, onnx_file):
        """What is right for whole old batches, but not for a row in one, is found by running."""
        graph = (
            "(float[4,2] x) => (float[4,2] y) <int64[3] s={-1,4,2}, int64[2] t={-1,2}> "
            "{ r = Reshape(x, s) m = ReduceMean<axes=[1]>(r) n = Sub(r, m) y = Reshape(n, t) }"
        )
        assert "with a batch other than 4" in refusal(onnx_file(graph), batch=4)


class TestOldOpsets:
    """Sizes that are attributes of nodes."""

    @staticmethod
    def written(tmp_path, graph, opset):
        """The file of a graph in an old opset."""
        path = tmp_path / "old.onnx"
        text = f'<ir_version: 4, opset_import: ["": {opset}]> g {graph}'
        onnx.save(onnx.parser.parse_model(text), path)
        return path

    def test_raised(self, tmp_path):
        """A Slice that holds the batch in an attribute is mended in a later opset."""
        graph = (
            "(float[1,4] x) => (float[1,2] y) { y = Slice<starts=[0,0], ends=[1,2], axes=[0,1]>(x)}"
        )
        target, changed = rewritten(self.written(tmp_path, graph, 9))
        assert changed == ("Slice 'y': ends [1, 2] → [batch, 2]",)
        assert onnx.load(target).opset_import[0].version == 13

    def test_kept(self, tmp_path):
        """A model that can be mended as it is keeps its opset."""
        graph = "(float[1,4] x) => (float[1,2,2] y) <int64[3] s={1,2,2}> { y = Reshape(x, s) }"
        target, _ = rewritten(self.written(tmp_path, graph, 9))
        assert onnx.load(target).opset_import[0].version == 9

    def test_refused(self, tmp_path):
        """What a later opset does not help is refused as ever."""
        graph = "(float[1,4] x) => (float[4] y) { y = Squeeze<axes=[0]>(x) }"
        assert "Squeeze 'y'" in refusal(self.written(tmp_path, graph, 9))


def test_functions(tmp_path):
    """A node inside a function of the model is mended too."""
    text = (
        '<ir_version: 8, opset_import: ["": 17, "my": 1]> '
        "g (float[1,4] x) => (float[1,2,2] y) { y = my.Cut(x) } "
        '<domain: "my", opset_import: ["": 17]> '
        "Cut (a) => (b) { s = Constant<value=int64[3] {1,2,2}>() b = Reshape(a, s) }"
    )
    path = tmp_path / "functions.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    assert rewritten(path)[1] == ("Reshape 'y': shape [1, 2, 2] → [batch, 2, 2]",)


def test_stale_shapes(onnx_file):
    """What the file says about inner tensors does not keep the old batch in it."""
    path = onnx_file("(float[1,4] x) => (float[1,4] y) { a = Relu(x) y = Relu(a) }")
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path)), path)
    assert onnx.load(path).graph.value_info
    target, _ = rewritten(path)
    assert not onnx.load(target).graph.value_info


def test_metadata(onnx_file):
    """What the file says about itself is kept."""
    path = onnx_file("(float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"author": "somebody"})
    model.producer_name = "something"
    onnx.save(model, path)
    new = onnx.load(rewritten(path)[0])
    assert [(p.key, p.value) for p in new.metadata_props] == [("author", "somebody")]
    assert (new.producer_name, new.ir_version) == ("something", model.ir_version)


class TestExternalData:
    """Weights in files beside the model."""

    GRAPH = (
        "(float[1,4] x) => (float[1,2,2] y) <float[4,4] w={1.,2.,3.,4.,5.,6.,7.,8.,9.,10.,11.,"
        "12.,13.,14.,15.,16.}, int64[3] s={1,2,2}> { m = MatMul(x, w) y = Reshape(m, s) }"
    )

    @staticmethod
    def moved_out(path, location):
        """The model, with its larger weights in a file."""
        model = onnx.load(path)
        for weight in model.graph.initializer:
            raw = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight), weight.name)
            weight.CopyFrom(raw)
        (path.parent / location).parent.mkdir(exist_ok=True)
        onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=64)
        return path

    @pytest.fixture
    def path(self, onnx_file):
        """A model with its weights in `data/weights.bin`."""
        return self.moved_out(onnx_file(self.GRAPH), "data/weights.bin")

    def test_stay_external(self, path):
        """They are beside the new file too, and that can be read by onnx."""
        target, changed = rewritten(path)
        assert changed == ("Reshape 'y': shape [1, 2, 2] → [batch, 2, 2]",)
        data = target.parent / "data/weights.bin"
        assert data.read_bytes() == (path.parent / "data/weights.bin").read_bytes()
        weight = next(w for w in onnx.load(target).graph.initializer if w.name == "w")
        assert onnx.numpy_helper.to_array(weight)[3, 3] == 16

    def test_in_the_same_folder(self, path):
        """A new file in the old one's folder, or in its place, shares its weights."""
        data = path.parent / "data/weights.bin"
        before = data.stat()
        make_batch_dynamic(path, path, examples_of(path))
        assert read_signature(path).inputs[0].shape[0] == "batch"
        after = data.stat()
        assert (after.st_ino, after.st_nlink) == (before.st_ino, 1)
        assert sorted(p.name for p in path.parent.iterdir()) == ["data", path.name]

    def test_target_is_the_data(self, onnx_file):
        """The new file does not take the place of the weights."""
        path = self.moved_out(onnx_file(self.GRAPH), "w")
        before = (path.parent / "w").read_bytes()
        with pytest.raises(ModelError, match="give another name"):
            make_batch_dynamic(path, path.parent / "w", examples_of(path))
        assert (path.parent / "w").read_bytes() == before


class TestInputs:
    """Which inputs make a batch."""

    @pytest.mark.parametrize(
        ("inputs", "fixed"),
        [
            ("float[1,4] x", True),
            ("float[4,4] x, int64[4] i", True),
            ("float[1,seq] x", True),
            ("float[batch,4] x", False),
            ("float[1,4] x, float[batch,4] z", False),
            ("float[1,4] x, float[2,4] z", False),
            ("float x", False),
            ("float[0,4] x", False),
            ("", False),
        ],
    )
    def test_has_fixed_batch(self, inputs, fixed, onnx_file):
        """All inputs have to begin with the same fixed size."""
        graph = f"({inputs}) => (float y) {{ y = Constant<value=float {{1.}}>() }}"
        assert (read_signature(onnx_file(graph)).fixed_batch is not None) == fixed

    @pytest.mark.parametrize(
        ("inputs", "said"),
        [
            ("float[1,4] x, float[2,3] z", "inputs x:FP32[1,4] and z:FP32[2,3] do not begin with"),
            ("float[1,4] x, float[n,3] z", "input z:FP32[n,3] has the batch 'n' already"),
            ("float[1,4] x, float z", "input z:FP32[] has no batch"),
            ("float[0,4] x", "input x:FP32[0,4] has no batch"),
            ("", "has no inputs"),
        ],
    )
    def test_refused(self, inputs, said, onnx_file):
        """An input that keeps the others from being batched is named."""
        path = onnx_file(f"({inputs}) => (float y) {{ y = Constant<value=float {{1.}}>() }}")
        with pytest.raises(ModelError) as error:
            make_batch_dynamic(path, path.with_name("new.onnx"), [])
        assert said in str(error.value)

    def test_odd_names(self, onnx_file):
        """The export line has the names that the inputs have, whatever these are."""
        path = onnx_file("(float[1,4] x) => (float[4] y) <int64 i={0}> { y = Gather(x, i) }")
        model = onnx.load(path)
        model.graph.input[0].name = model.graph.node[0].input[0] = "serving default/x:0'"
        onnx.save(model, path)
        assert """dynamic_shapes={"serving default/x:0'": {0: 'batch'}}""" in refusal(path)


class TestExamples:
    """The inputs by which rows are told apart."""

    GRAPH = "(float[1,2] x, int64[1,2] m) => (float[1,2] y) { f = Cast<to=1>(m) y = Mul(x, f) }"

    @pytest.fixture
    def path(self, onnx_file):
        """A model with an input and a mask."""
        return onnx_file(self.GRAPH)

    @staticmethod
    def example(value=1.0, name="x", width=2):
        """One row, with a mask of ones."""
        return {
            name: np.full((1, width), value, np.float32),
            "m": np.ones((1, width), np.int64),
        }

    @pytest.mark.parametrize(
        ("examples", "said"),
        [
            ([], "3 example inputs that differ are needed"),
            ([example(1.0), example(2.0)], "3 example inputs that differ are needed"),
            ([example(1.0, "z")] * 3, "an example has inputs"),
            ([example(1.0), example(2.0), example(3.0, width=3)], "have shapes [1, 2] and [1, 3]"),
        ],
    )
    def test_refused(self, examples, said, path):
        """Too few of them, other names, or several shapes are refused."""
        with pytest.raises(ModelError) as error:
            make_batch_dynamic(path, path.with_name("new.onnx"), examples)
        assert said in str(error.value)

    def test_all_the_same(self, onnx_file):
        """Examples that are the same, and cannot be varied, prove nothing and are refused."""
        path = onnx_file("(string[1,2] x) => (string[1,2] y) { y = Identity(x) }")
        same = {"x": np.array([["a", "b"]], dtype=object)}
        with pytest.raises(ModelError, match="3 example inputs that differ are needed"):
            make_batch_dynamic(path, path.with_name("new.onnx"), [same] * 3)

    def test_masks_that_are_the_same(self, onnx_file):
        """That rows get each other's masks is found though all examples have one of ones."""
        graph = (
            "(float[1,2,2] x, int64[1,2] m) => (float[1,2,2] y) <int64[2] two={2,1}, "
            "int64[2] s={2,2}, int64[3] b={1,2,2}> { h = Reshape(x, s) t = Tile(m, two) "
            "f = Cast<to=1>(t) p = Mul(h, f) y = Reshape(p, b) }"
        )
        path = onnx_file(graph)
        target = path.with_name("new.onnx")
        examples = [
            {"x": np.full((1, 2, 2), value, np.float32), "m": np.ones((1, 2), np.int64)}
            for value in (1.0, 2.0, 3.0)
        ]
        with pytest.raises(ModelError, match="Mul 'p'"):
            make_batch_dynamic(path, target, examples)

    def test_a_mask_that_must_stay(self, onnx_file):
        """An input that the model takes only as it is, in all examples, is left so."""
        graph = (  # any m but 1 points outside t
            "(float[1,1] x, int64[1,1] m) => (float[1,1] y) <float[2,1] t={1.,2.}, int64 n={1}, "
            "int64 far={9}> { o = Sub(m, n) p = Mul(o, far) q = Add(p, n) "
            "g = GatherElements(t, q) y = Mul(x, g) }"
        )
        path = onnx_file(graph)
        target = path.with_name("new.onnx")
        make_batch_dynamic(path, target, [self.example(v, width=1) for v in (1.0, 2.0, 3.0)])
        assert target.exists()

    def test_bytes(self, onnx_file):
        """Strings may be bytes, as payloads have them."""
        path = onnx_file(
            '(string[1,1] x) => (string[1,2] y) <string[1,1] c={"a"}> { y = Concat<axis=1>(x, c) }'
        )
        texts = (b"1", b"2", "ü".encode())
        examples = [{"x": np.array([[text]], dtype=object)} for text in texts]
        make_batch_dynamic(path, path.with_name("new.onnx"), examples)


class TestFiles:
    """What can be wrong with the file."""

    @pytest.mark.parametrize("content", [b"", b"nothing"])
    def test_not_onnx(self, content, tmp_path):
        """What is no model is refused."""
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match="is not an ONNX"):
            make_batch_dynamic(path, tmp_path / "new.onnx", [])

    def test_sparse(self, onnx_file):
        """A model with sparse weights is refused with the weight's name."""
        path = onnx_file("(float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
        model = onnx.load(path)
        sparse = onnx.helper.make_sparse_tensor(
            onnx.helper.make_tensor("few", onnx.TensorProto.FLOAT, [1], [1.0]),
            onnx.helper.make_tensor("few_indices", onnx.TensorProto.INT64, [1], [2]),
            [4],
        )
        model.graph.sparse_initializer.append(sparse)
        onnx.save(model, path)
        assert "'few' is a sparse weight" in refusal(path)

    def test_what_was_there_stays(self, onnx_file):
        """A file at the target stays as it is where the model cannot be rewritten."""
        path = onnx_file("(float[1,4] x) => (float[4] y) <int64 i={0}> { y = Gather(x, i) }")
        target = path.with_name("new.onnx")
        target.write_text("before")
        with pytest.raises(ModelError):
            make_batch_dynamic(path, target, examples_of(path))
        assert target.read_text() == "before"
        assert sorted(p.name for p in path.parent.iterdir()) == ["new.onnx", "small.onnx"]
