"""The load-time refusals, without Triton: configs against what a session says of itself."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tritonkit.errors import RepositoryError
from tritonkit.repository.backend_rules import check_model, check_supported
from tritonkit.signature import DATA_TYPES


@dataclass(frozen=True)
class Node:
    name: str
    shape: tuple[int | str | None, ...]
    type: str = "tensor(float)"


def fp32(name, *dims, **more):
    return {"name": name, "data_type": "TYPE_FP32", "dims": list(dims), **more}


def config(inputs, outputs=(), max_batch_size=8, **more):
    return {
        "name": "m",
        "max_batch_size": max_batch_size,
        "input": inputs,
        "output": list(outputs),
        **more,
    }


def refusal(conf, inputs, outputs=(), initializers=()):
    with pytest.raises(RepositoryError) as error:
        check_model(conf, inputs, outputs, initializers)
    return str(error.value)


X = Node("x", ("N", 4))


def test_config_that_fits():
    """A config with the model's names, dtypes and dims is accepted."""
    check_model(config([fp32("x", 4)], [fp32("y", 1)]), [X], [Node("y", (None, 1))])


def test_dims_of_protobuf_json():
    """Dims that are text, as protobuf's own JSON has them, are numbers all the same."""
    check_model(config([fp32("x", "4")]), [X], [])


def test_number_of_inputs():
    """A config must have as many inputs as the model."""
    assert refusal(config([fp32("x", 4), fp32("q", 4)]), [X]) == (
        "unable to load model 'm', configuration expects 2 inputs, model provides 1"
    )


@pytest.mark.parametrize(("side", "what"), [("input", "inputs"), ("output", "outputs")])
def test_unknown_name(side, what):
    """A name that the model does not have is refused, with those that it has, sorted."""
    nodes = [Node("b", ("N", 4)), Node("a", ("N", 4))]
    tensors = [fp32("q", 4), fp32("a", 4)]
    words = f"unexpected inference {side} 'q', allowed {what} are: a, b"
    if side == "input":
        assert refusal(config(tensors), nodes) == words
    else:
        assert refusal(config([fp32("x", 4)], tensors), [X], nodes) == words


@pytest.mark.parametrize("dtype", DATA_TYPES, ids=lambda d: d.name)
def test_datatype(dtype):
    """A dtype other than the model's is refused, and the model's own is accepted."""
    node = Node("x", ("N", 4), dtype.onnxruntime)
    check_model(config([fp32("x", 4) | {"data_type": dtype.triton}]), [node], [])
    other = "TYPE_INT8" if dtype.name != "INT8" else "TYPE_FP32"
    assert refusal(config([fp32("x", 4) | {"data_type": other}]), [node]) == (
        f"unable to load model 'm', configuration expects datatype {other} for input 'x', "
        f"model provides TYPE_{dtype.name}"
    )


def test_datatype_that_onnxruntime_lacks():
    """A dtype of Triton's that ONNX Runtime cannot be given is refused as such."""
    conf = config([fp32("x", 4) | {"data_type": "TYPE_BF16"}])
    words = "unsupported datatype TYPE_BF16 for input 'x' for model 'm'"
    assert refusal(conf, [X]) == words


def test_input_that_is_no_tensor():
    """Sequences and maps are refused: Triton carries only tensors."""
    node = Node("x", (), "seq(tensor(float))")
    assert refusal(config([fp32("x", 4)]), [node]) == (
        "Unsupported ONNX Type 'seq(tensor(float))' for I/O 'x', expected a tensor"
    )


@pytest.mark.parametrize(("shape", "text"), [((1, 4), "[1,4]"), ((), "[]")])
def test_no_batch_axis(shape, text):
    """With batching, the first dimension of a model's tensor must be dynamic."""
    assert refusal(config([fp32("x", 4)]), [Node("x", shape)]) == (
        "model 'm', tensor 'x': for the model to support batching the shape should have at least "
        "1 dimension and the first dimension must be -1; but shape expected by the model is "
        f"{text}"
    )


def test_dims_of_a_batched_input():
    """With batching, the complete shape is the batch dimension followed by dims."""
    assert refusal(config([fp32("x", 5)]), [X]) == (
        "model 'm', tensor 'x': the model expects 2 dimensions (shape [-1,4]) but the model "
        "configuration specifies 2 dimensions (an initial batch dimension because max_batch_size "
        "> 0 followed by the explicit tensor shape, making complete shape [-1,5])"
    )


def test_dims_of_an_unbatched_input():
    """Without batching, dims are the whole shape."""
    assert refusal(config([fp32("x", 2, 5)], max_batch_size=0), [Node("x", (2, 4))]) == (
        "model 'm', tensor 'x': the model expects 2 dimensions (shape [2,4]) but the model "
        "configuration specifies 2 dimensions (shape [2,5])"
    )


def test_dynamic_input_accepts_any_size():
    """An input that is dynamic in the model may be fixed in the config."""
    check_model(config([fp32("x", 7)]), [Node("x", ("N", "L"))], [])


def test_fixed_input_does_not_accept_any_size():
    """An input that is fixed in the model may not be dynamic in the config."""
    assert "making complete shape [-1,-1]" in refusal(config([fp32("x", -1)]), [X])


@pytest.mark.parametrize(("have", "want"), [("L", 7), (7, -1)])
def test_output_dims_match_exactly(have, want):
    """An output is dynamic in the config just where it is in the model."""
    conf = config([fp32("x", 4)], [fp32("y", want)])
    assert f"making complete shape [-1,{want}]" in refusal(conf, [X], [Node("y", ("N", have))])


def test_reshape_is_what_the_model_sees():
    """Where there is a reshape, its shape is compared and dims are not."""
    conf = config([fp32("x", 2, 2, reshape={"shape": [4]})], [fp32("y", 1, reshape={"shape": []})])
    check_model(conf, [X], [Node("y", ("N",))])


def test_scalar_has_dims_of_one():
    """A model's scalar must be `[1]` in the config."""
    check_model(config([fp32("x", 1)], max_batch_size=0), [Node("x", ())], [])
    assert refusal(config([fp32("x", 3)], max_batch_size=0), [Node("x", ())]) == (
        "unable to load model 'm', scalar tensor 'x', should only provide 1 in the model "
        "configuration when the model doesn't support batching. Model configuration provided: [3]."
    )


def test_optional_input_is_an_overridable_weight():
    """An optional input does not count as an input, and is looked for among the weights."""
    conf = config([fp32("x", 2), fp32("w", 2, optional=True)], max_batch_size=0)
    check_model(conf, [Node("x", (2,))], [], [Node("w", (2,))])


def test_optional_input_in_a_batch():
    """Requests of one batch cannot each leave out another input."""
    conf = config([fp32("x", 4), fp32("w", 4, optional=True)])
    assert refusal(conf, [X], [], [Node("w", ("N", 4))]) == (
        "unable to load model 'm', optional input 'w' is not supported for models that support "
        "batching"
    )


def test_ragged_input_of_a_model_that_has_none():
    """A ragged input is one flat dimension in the model."""
    assert refusal(config([fp32("x", 4, allow_ragged_batch=True)]), [X]) == (
        "unable to load model 'm', configuration expects model provides input with shape [-1] "
        "for ragged input 'x', model provides [-1,4]"
    )


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"sequence_batching": {"max_sequence_idle_microseconds": 1}}, "sequence_batching"),
        ({"batch_input": [{"kind": "BATCH_ITEM_SHAPE"}]}, "batch_input"),
        ({"batch_output": [{"target_name": ["y"]}]}, "batch_output"),
        ({"model_transaction_policy": {"decoupled": True}}, "decoupled"),
        ({"output": [fp32("t", 1) | {"data_type": "TYPE_STRING"}]}, "text (TYPE_STRING tensor 't'"),
        ({"input": [fp32("x", -1, allow_ragged_batch=True)]}, "allow_ragged_batch (input 'x')"),
    ],
)
def test_what_only_the_cpp_backend_does(more, what):
    """What the embedded backend would do wrong it does not do."""
    with pytest.raises(RepositoryError, match="docker") as error:
        check_supported(config([fp32("x", 4)]) | more)
    assert f"the embedded onnxruntime backend does not do {what}" in str(error.value)


def test_empty_lists_ask_for_nothing():
    """Triton hands over a config with every list written out, most of them empty."""
    check_supported(config([fp32("x", 4)], batch_input=[], batch_output=[]))
