"""Looking at the inner tensors of an ONNX file."""

import numpy as np
import onnx
import pytest

from tritonkit.check.exposed import ExposedModel
from tritonkit.errors import ModelError

CHAIN = """(float[batch,4] x) => (float[batch,4] y)
    { a = Neg(x) b = Relu(a) c = Exp(b) y = Neg(c) }"""
X = {"x": np.array([[-1.0, 0.0, 1.0, 2.0]], np.float32)}


def merged(exposed, inputs, **options):
    """All values of `exposed` at each of `inputs`."""
    made = [{} for _ in inputs]
    for part in exposed.values(inputs, **options):
        for all_values, values in zip(made, part, strict=True):
            all_values.update(values)
    return made


def test_every_tensor(onnx_file):
    """Every tensor that a node makes has the value that the graph, as written, gives it."""
    exposed = ExposedModel(onnx_file(CHAIN))
    (values,) = merged(exposed, [X])
    assert list(values) == ["a", "b", "c", "y"]
    np.testing.assert_allclose(values["b"], [[1, 0, 0, 0]])
    np.testing.assert_allclose(values["y"], [[-np.e, -1, -1, -1]], rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_chunks(onnx_file, chunk):
    """In chunks of any size each tensor comes exactly once, at each of the inputs."""
    other = {"x": np.repeat(X["x"], 3, axis=0)}
    exposed = ExposedModel(onnx_file(CHAIN))
    parts = list(exposed.values([X, other], chunk=chunk))
    names = [name for part in parts for name in part[0]]
    assert names == ["a", "b", "c", "y"]
    assert all(one.keys() == two.keys() for one, two in parts)
    assert all(len(one) <= chunk for one, _ in parts)
    assert {a.shape for _, two in parts for a in two.values()} == {(3, 4)}


def test_unused_tensors(onnx_file):
    """Tensors on no way to an output are seen too, and names that are left out are not."""
    graph = """(float[batch,4] x) => (float[batch,4] y)
        { dead = Exp(x) n, mask = Dropout(x) y = Relu(x) }"""
    path = onnx_file(graph)
    model = onnx.load(path)
    model.graph.node[1].output[1] = ""
    onnx.save(model, path)
    exposed = ExposedModel(path)
    assert exposed.tensors == ["dead", "n", "y"]
    assert list(merged(exposed, [X])[0]) == ["dead", "n", "y"]


def test_graph_inside_a_node(onnx_file):
    """Of an If the result is seen, and what is inside stays hidden."""
    graph = """(float[batch,4] x, bool c) => (float[batch,4] y)
        { y = If(c) <then_branch = t () => (float[a,4] r) { r = Neg(x) },
                     else_branch = e () => (float[a,4] s) { s = Identity(x) }> }"""
    exposed = ExposedModel(onnx_file(graph))
    (values,) = merged(exposed, [{**X, "c": np.array(True)}])
    assert list(values) == ["y"]
    np.testing.assert_array_equal(values["y"], -X["x"])


def test_local_function(tmp_path):
    """A function of the model's own is seen from outside, with its neighbours in the graph."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[batch,4] x) => (float[batch,4] y) { a = Neg(x) b = own.f(a) y = Neg(b) }
        <opset_import: ["": 17], domain: "own"> f (p) => (q) { r = Abs(p) q = Neg(r) }"""
    )
    onnx.save(model, tmp_path / "model.onnx")
    exposed = ExposedModel(tmp_path / "model.onnx")
    (values,) = merged(exposed, [X])
    np.testing.assert_array_equal(values["b"], -np.abs(X["x"]))


@pytest.fixture
def external(tmp_path):
    """An ONNX file whose weights lie in a folder beside it."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[batch,4] x) => (float[batch,4] y)'
        "{ a = Mul(x, w) y = Neg(a) }"
    )
    weights = np.full(4, 3, np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.external_data_helper.convert_model_to_external_data(
        model, location="weights.bin", size_threshold=0
    )
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_external_data(external):
    """A file with its weights beside it is exposed, and both are left as they were."""
    before = {p.name: p.read_bytes() for p in external.parent.iterdir()}
    exposed = ExposedModel(external)
    (values,) = merged(exposed, [X], chunk=1)
    np.testing.assert_array_equal(values["a"], 3 * X["x"])
    assert {p.name: p.read_bytes() for p in external.parent.iterdir()} == before


def test_missing_external_data(external):
    """Weights that are not there are missed by name."""
    (external.parent / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights\.bin is missing"):
        list(ExposedModel(external).values([X]))


def test_failing_inputs(onnx_file):
    """Inputs that the model does not take are an error of the kit's own."""
    exposed = ExposedModel(onnx_file(CHAIN))
    with pytest.raises(ModelError, match=r"x\[1, 5\]"):
        list(exposed.values([{"x": np.zeros((1, 5), np.float32)}]))


def test_graph_stays_as_it_was(onnx_file):
    """Looking at inner tensors leaves the graph that is shown as it is in the file."""
    exposed = ExposedModel(onnx_file(CHAIN))
    list(exposed.values([X]))
    assert [value.name for value in exposed.graph.output] == ["y"]


def test_opened(onnx_file):
    """The tensors asked for are the outputs, in the order asked for."""
    exposed = ExposedModel(onnx_file(CHAIN))
    assert list(exposed.opened(["c", "y", "a"]).run(X)) == ["c", "y", "a"]
