"""Wire shapes: what Triton makes of tensors without dims, and back."""

import numpy as np
import pytest

from tritonkit.repository.tensors import ConfigTensor, to_model, to_wire
from tritonkit.signature import TensorSpec, data_type

INT64 = data_type("INT64")

# The shape in the model, its dims in a config, the shape on the wire.
SHAPES = [
    ((3,), (), (3, 1)),
    ((1,), (), (1, 1)),
    ((0,), (), (0, 1)),
    ((3, 1), (1,), (3, 1)),
    ((3, 4), (4,), (3, 4)),
    ((), (1,), (1,)),
    ((1,), (1,), (1,)),
    ((2, 3), (-1, 3), (2, 3)),
]


@pytest.mark.parametrize(("model", "dims", "wire"), SHAPES)
def test_there_and_back(model, dims, wire):
    """Only [n] of a batch and a scalar look otherwise on the wire; both ways values stay."""
    array = np.arange(np.prod(model, dtype=int)).reshape(model)
    sent = to_wire({"x": array}, [ConfigTensor("x", INT64, dims)])["x"]
    assert sent.shape == wire
    back = to_model({"x": sent}, [TensorSpec("x", INT64, tuple("abcd"[: len(model)]))])["x"]
    assert back.shape == model
    assert (back == array).all()


@pytest.mark.parametrize("dims", [(), (4,)])
def test_wire_is_wire_already(dims):
    """What is in wire shapes stays so."""
    tensor = ConfigTensor("x", INT64, dims)
    sent = np.zeros((2, *tensor.wire_dims), np.int64)
    assert to_wire({"x": sent}, [tensor])["x"].shape == sent.shape


def test_only_a_dimension_of_one_goes():
    """No values are dropped where a model and a config do not belong together."""
    given = np.zeros((2, 3), np.int64)
    assert to_model({"x": given}, [TensorSpec("x", INT64, ("n",))])["x"].shape == (2, 3)


@pytest.mark.parametrize("translate", [to_wire, to_model])
def test_of_another_name(translate):
    """What neither config nor model names stays as it is."""
    assert translate({"q": np.zeros(3)}, [])["q"].shape == (3,)


@pytest.mark.parametrize(
    ("dims", "batched", "shape"),
    [
        ((), True, ("batch", 1)),
        ((4, -1), True, ("batch", 4, "dim_2")),
        ((-1, 4), False, ("dim_0", 4)),
        ((1,), False, (1,)),
    ],
)
def test_wire_spec(dims, batched, shape):
    """A tensor of a request has the batch axis, if there is one, and no empty dims."""
    assert ConfigTensor("x", INT64, dims).wire_spec(batched) == TensorSpec("x", INT64, shape)
