"""What a client gets back, against real Triton."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tritonkit.signature import DATA_TYPES

TYPES = {d.name: d for d in DATA_TYPES if d.name != "BYTES"}
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def triton(serve, repository, graph):
    def fp32(name, *dims, **more):
        return {"name": name, "data_type": "TYPE_FP32", "dims": dims, **more}

    repository.add(
        "two_outputs",
        graph(
            "(float[N,3] a, float[N,3] b) => (float[N,3] s, float[N,3] p)"
            "{ s = Add(a, b) p = Mul(a, b) }"
        ),
        max_batch_size=8,
        input=[fp32("a", 3), fp32("b", 3)],
        output=[fp32("s", 3), fp32("p", 3)],
    )
    element = {
        d.name: d.onnxruntime.removeprefix("tensor(").removesuffix(")") for d in TYPES.values()
    }
    repository.add(
        "every_type",
        graph(
            f"({', '.join(f'{element[n]}[N,2,2] in_{n}' for n in TYPES)}) => "
            f"({', '.join(f'{element[n]}[N,2,2] out_{n}' for n in TYPES)})"
            f"{{ {' '.join(f'out_{n} = Identity(in_{n})' for n in TYPES)} }}"
        ),
        max_batch_size=8,
        input=[
            {"name": f"in_{n}", "data_type": d.triton, "dims": [2, 2]} for n, d in TYPES.items()
        ],
        output=[
            {"name": f"out_{n}", "data_type": d.triton, "dims": [2, 2]} for n, d in TYPES.items()
        ],
    )
    repository.add(
        "unbatched",
        graph("(float[2,3] x) => (float[3,2] y) { y = Transpose(x) }"),
        input=[fp32("x", 2, 3)],
        output=[fp32("y", 3, 2)],
    )
    repository.add(
        "scalars",
        graph("(float x) => (float y) { y = Add(x, x) }"),
        input=[fp32("x", 1)],
        output=[fp32("y", 1)],
    )
    repository.add(
        "reshaped",
        graph("(float[N] x, float[N,2,2] z) => (float[N] y) { y = Add(x, x) }"),
        max_batch_size=8,
        input=[fp32("x", 1, reshape={"shape": []}), fp32("z", 4, reshape={"shape": [2, 2]})],
        output=[fp32("y", 1, reshape={"shape": []})],
    )
    repository.add(
        "nonzero",
        graph("(float[K] x) => (int64[1,M] y) { y = NonZero(x) }"),
        input=[fp32("x", -1)],
        output=[{"name": "y", "data_type": "TYPE_INT64", "dims": [1, -1]}],
    )
    repository.add(
        "optional",
        graph("(float[2] x, float[2] w = {10.0, 20.0}) => (float[2] y) { y = Mul(x, w) }"),
        input=[fp32("x", 2), fp32("w", 2, optional=True)],
        output=[fp32("y", 2)],
    )
    weights = np.arange(512, dtype=np.float32)
    for name in ("external_beside", "external_folder"):
        folder = repository.add(
            name, None, max_batch_size=8, input=[fp32("x", 512)], output=[fp32("y", 512)]
        )
        if name == "external_folder":
            folder = folder / "model.onnx"
            folder.mkdir()
        model = graph("(float[N,512] x) => (float[N,512] y) { y = Add(x, w) }")
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
        onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin")
        assert (folder / "weights.bin").stat().st_size == weights.nbytes
    with serve(repository.path) as served:
        yield served


def values(name: str, rows: int) -> np.ndarray:
    """Values of one dtype, `[rows, 2, 2]`, each its own."""
    if name == "BOOL":
        return RANDOM.random((rows, 2, 2)) < 0.5
    dtype = TYPES[name].numpy
    if dtype.kind == "f":
        return RANDOM.standard_normal((rows, 2, 2)).astype(dtype)
    limits = np.iinfo(dtype)
    return RANDOM.integers(limits.min, limits.max, (rows, 2, 2), dtype, endpoint=True)


@pytest.fixture(scope="module")
def echoed(triton):
    sent = {f"in_{name}": values(name, 2) for name in TYPES}
    return sent, triton.infer("every_type", sent)


@pytest.mark.parametrize("name", TYPES)
def test_every_type_comes_back_bit_for_bit(echoed, name):
    """Numbers of each dtype that Triton and ONNX Runtime share survive the way there and back."""
    sent, received = echoed
    expected, result = sent[f"in_{name}"], received[f"out_{name}"]
    assert result.dtype == TYPES[name].numpy
    assert result.tolist() == expected.tolist()


def test_all_outputs_when_none_is_named(triton):
    """A request that names no output gets every output, each with its own values."""
    a, b = RANDOM.random((2, 5, 3), np.float32)
    result = triton.infer("two_outputs", {"a": a, "b": b})
    assert (result["s"] == a + b).all() and (result["p"] == a * b).all()


def test_only_the_outputs_that_are_named(triton):
    """A request gets just the outputs it names."""
    a, b = RANDOM.random((2, 5, 3), np.float32)
    result = triton.infer("two_outputs", {"a": a, "b": b}, ["p"])
    assert list(result) == ["p"] and (result["p"] == a * b).all()


def test_order_of_inputs_does_not_matter(triton):
    """Inputs are told apart by name, not by their order in the request."""
    a, b = RANDOM.random((2, 1, 3), np.float32)
    result = triton.infer("two_outputs", {"b": b - 1, "a": a})
    assert (result["p"] == a * (b - 1)).all()


def test_model_without_a_batch_axis(triton):
    """With max_batch_size 0 the request's tensors are the model's, as they are."""
    x = RANDOM.random((2, 3), np.float32)
    assert (triton.infer("unbatched", {"x": x})["y"] == x.T).all()


def test_scalars_are_dims_of_one(triton):
    """A model's scalars are `[1]` for the client, in and out."""
    assert triton.infer("scalars", {"x": np.float32([2])})["y"].tolist() == [4]


def test_reshape_in_the_config(triton):
    """The client sees `dims`, the model sees `reshape`, in and out."""
    x, z = RANDOM.random((3, 1), np.float32), np.zeros((3, 4), np.float32)
    assert (triton.infer("reshaped", {"x": x, "z": z})["y"] == 2 * x).all()


def test_empty_output(triton):
    """An output with no elements comes back with its shape."""
    assert triton.infer("nonzero", {"x": np.zeros(3, np.float32)})["y"].shape == (1, 0)


def test_empty_input(triton):
    """An input with no elements reaches the model with its shape."""
    assert triton.infer("nonzero", {"x": np.zeros(0, np.float32)})["y"].shape == (1, 0)


def test_optional_input_given(triton):
    """An optional input that is given replaces the weight of its name."""
    x, w = np.float32([1, 2]), np.float32([3, 4])
    assert triton.infer("optional", {"x": x, "w": w})["y"].tolist() == [3, 8]


def test_optional_input_missing(triton):
    """An optional input that is left out keeps the weight of its name."""
    assert triton.infer("optional", {"x": np.float32([1, 2])})["y"].tolist() == [10, 40]


@pytest.mark.parametrize("name", ["external_beside", "external_folder"])
def test_weights_outside_the_model_file(triton, name):
    """Weights are found beside the model file, and in a folder called model.onnx that has both."""
    x = np.zeros((1, 512), np.float32)
    assert (triton.infer(name, {"x": x})["y"] == np.arange(512)).all()
