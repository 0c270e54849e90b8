"""Dtypes by all their names, and signatures read from ONNX files."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from tritonkit.errors import ModelError
from tritonkit.signature import (
    DATA_TYPES,
    ModelSignature,
    TensorSpec,
    data_type,
    data_type_of,
    load_onnx,
    read_signature,
)


def save(folder: Path, graph: str) -> Path:
    """An ONNX file from its text form."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {graph}')
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def test_dtype_by_every_name():
    """A dtype is found by its KServe, Triton and ONNX names."""
    for row in DATA_TYPES:
        assert data_type(row.name) == data_type(row.triton) == data_type(row.onnx) == row


def test_unknown_dtype():
    """A dtype that Triton does not carry is refused with those that it does."""
    with pytest.raises(ModelError, match=r"'COMPLEX64' is not carried .* use BOOL, UINT8"):
        data_type("COMPLEX64")


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (np.ones(1, np.float16), "FP16"),
        (np.ones(1, np.int64), "INT64"),
        (np.array(["a"]), "BYTES"),
        (np.array([b"a"]), "BYTES"),
        (np.array([b"a"], dtype=object), "BYTES"),
    ],
)
def test_dtype_of_an_array(array, name):
    """An array's dtype is known; all kinds of strings are BYTES."""
    assert data_type_of(array).name == name


def test_array_that_triton_has_not():
    """A complex array is refused."""
    with pytest.raises(ModelError, match="complex128 is not carried"):
        data_type_of(np.ones(1, complex))


def test_read_signature(tmp_path):
    """Names, dtypes and dimensions are read; a dimension without a name gets one."""
    path = save(tmp_path, "(float[n,?,4] x, int64[n] k) => (float[n,?,4] y) { y = Relu(x) }")
    signature = read_signature(path)
    assert [str(t) for t in signature.inputs] == ["x:FP32[n,x_dim_1,4]", "k:INT64[n]"]
    assert [str(t) for t in signature.outputs] == ["y:FP32[n,y_dim_1,4]"]


def test_weights_are_not_inputs(tmp_path):
    """An initializer that is listed among the inputs, as old files do, is no input."""
    model = onnx.parser.parse_model(
        """<ir_version: 3, opset_import: ["": 8]> g (float[n,1] x, float[1] w) => (float[n,1] y)
        { y = Mul(x, w) }"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), "w"))
    onnx.save(model, tmp_path / "m.onnx")
    assert [t.name for t in read_signature(tmp_path / "m.onnx").inputs] == ["x"]


def test_sequence_output(tmp_path):
    """An output that is no tensor is refused by name."""
    path = save(tmp_path, "(float[n] x) => (seq(float[n]) y) { y = SequenceConstruct(x) }")
    with pytest.raises(ModelError, match="'y' is not a tensor"):
        read_signature(path)


def without_output_shape(path):
    """The same file, with nothing said of its output's shape."""
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    return path


def test_output_without_shape(tmp_path):
    """A shape that is not declared follows from the inputs'."""
    path = without_output_shape(save(tmp_path, "(float[n,4] x) => (float[n,4] y) { y = Relu(x) }"))
    assert [str(t) for t in read_signature(path).outputs] == ["y:FP32[n,4]"]


def test_output_of_unknown_rank(tmp_path):
    """A shape that does not follow either is refused by the tensor's name."""
    graph = "(float[n] x, int64[r] s) => (float[m] y) { y = Reshape(x, s) }"
    with pytest.raises(ModelError, match="'y' has no declared shape"):
        read_signature(without_output_shape(save(tmp_path, graph)))


@pytest.mark.parametrize("name", ["?", ""])
def test_dimensions_without_a_name(tmp_path, name):
    """Dimensions that are only known to be dynamic get names of their own."""
    path = save(tmp_path, "(float[n,m] x) => (float[n,m] y) { y = Relu(x) }")
    model = onnx.load(path)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_param, dims[1].dim_value = name, -1
    onnx.save(model, path)
    assert read_signature(path).inputs[0].shape == ("x_dim_0", "x_dim_1")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"certainly not protobuf", "is not an ONNX file"), (b"", "is not an ONNX model")],
)
def test_not_onnx(tmp_path, content, words):
    """A file of something else is refused."""
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=words):
        load_onnx(tmp_path / "m.onnx")


def test_no_file(tmp_path):
    """A missing file and a folder are told apart."""
    with pytest.raises(ModelError, match="no such model file"):
        load_onnx(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="is a directory"):
        load_onnx(tmp_path)


FP32 = data_type("FP32")


def test_batch_axis():
    """Fixed leading dimensions and scalars keep a model from being batched."""
    good = TensorSpec("good", FP32, ("batch", 4))
    fixed = TensorSpec("fixed", FP32, (1, 4))
    scalar = TensorSpec("scalar", FP32, ())
    signature = ModelSignature((good, fixed), (scalar,))
    assert signature.without_batch_axis() == (fixed, scalar)
    with pytest.raises(ModelError, match=r"m: tensor fixed:FP32\[1,4\] has no batch axis"):
        signature.require_batch_axis("m")


def test_to_json():
    """A signature is written as plain JSON."""
    spec = TensorSpec("x", FP32, ("batch", 4))
    assert json.loads(json.dumps(ModelSignature((spec,), ()).to_json())) == {
        "inputs": [{"name": "x", "dtype": "FP32", "shape": ["batch", 4]}],
        "outputs": [],
    }
