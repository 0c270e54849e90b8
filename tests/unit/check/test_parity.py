"""The comparison of batched answers with a reference."""

import numpy as np
import pytest

from tritonkit.check.onnx_model import OnnxModel
from tritonkit.check.parity import BATCHES, check_parity, draw_rows
from tritonkit.errors import CheckFailedError, ModelError

X = {"x": np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)}
RELU = "(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }"


def relu(inputs):
    """What RELU should answer."""
    return {"y": np.maximum(inputs["x"], 0)}


def test_all_batches(onnx_file):
    """Batches of 1, 2, 3, 7 and 16 are compared."""
    parity = check_parity(OnnxModel(onnx_file(RELU)), X, relu, against="numpy", remedy="mend it")
    assert tuple(b.batch for b in parity.batches) == BATCHES == (1, 2, 3, 7, 16)
    assert parity.max_abs_diff == 0


def test_mismatch(onnx_file):
    """A difference is raised with its size, the element and what was allowed."""

    def off(inputs):
        return {"y": relu(inputs)["y"] + np.float32([0, 0, 0.5, 0])}

    with pytest.raises(CheckFailedError) as caught:
        check_parity(OnnxModel(onnx_file(RELU)), X, off, against="numpy", remedy="mend it")
    assert "output 'y' at a batch of 1 is not that of numpy: 1 of 4 elements" in str(caught.value)
    assert "worst [0, 2]" in str(caught.value) and "difference 0.5" in str(caught.value)
    assert str(caught.value).endswith("; mend it")


@pytest.mark.parametrize(
    ("expected", "passes"),
    [
        ([[np.nan, np.inf, -np.inf, 1.0]], True),
        ([[0.0, np.inf, -np.inf, 1.0]], False),
        ([[np.nan, -np.inf, -np.inf, 1.0]], False),
        ([[np.nan, np.inf, -np.inf, np.inf]], False),
    ],
)
def test_nan_and_infinity(onnx_file, expected, passes):
    """NaN equals NaN and an infinity itself; nothing else equals them."""
    graph = "(float[batch,4] x) => (float[batch,4] y) { y = Identity(x) }"
    examples = {"x": np.float32([[np.nan, np.inf, -np.inf, 1.0]])}

    def reference(inputs):
        rows = np.repeat(np.float32(expected), len(inputs["x"]), axis=0)
        return {"y": np.where(np.isfinite(rows) & np.isfinite(inputs["x"]), inputs["x"], rows)}

    model = OnnxModel(onnx_file(graph))
    if passes:
        check_parity(model, examples, reference, against="numpy", remedy="mend it")
    else:
        with pytest.raises(CheckFailedError):
            check_parity(model, examples, reference, against="numpy", remedy="mend it")


def test_integers_are_exact(onnx_file):
    """Integers one apart are a mismatch, even where a float64 cannot tell them apart."""
    graph = "(int64[batch,1] x) => (int64[batch,1] y) { y = Identity(x) }"
    examples = {"x": np.full((2, 1), 2**60)}
    with pytest.raises(CheckFailedError, match="1 of 1 elements differ"):
        check_parity(
            OnnxModel(onnx_file(graph)),
            examples,
            lambda i: {"y": i["x"] + 1},
            against="numpy",
            remedy="mend it",
        )


def test_fp16_is_looser(onnx_file):
    """A difference that FP32 does not forgive is rounding in FP16."""
    graph = "(float16[batch,4] x) => (float16[batch,4] y) { y = Identity(x) }"
    examples = {"x": np.ones((2, 4), np.float16)}
    parity = check_parity(
        OnnxModel(onnx_file(graph)),
        examples,
        lambda i: {"y": i["x"] * np.float16(1.005)},
        against="numpy",
        remedy="mend it",
    )
    assert 0 < parity.max_abs_diff < 0.01


def test_lost_rows(onnx_file):
    """An output with fewer rows than the reference is a failure that says both shapes."""
    graph = """(float[batch,4] x) => (float[rows,4] y)
        <int64[1] zero = {0}, int64[1] one = {1}> { y = Slice(x, zero, one) }"""
    with pytest.raises(CheckFailedError, match=r"got float32\[1, 4\], expected float32\[2, 4\]"):
        check_parity(
            OnnxModel(onnx_file(graph)),
            X,
            lambda i: {"y": i["x"]},
            against="numpy",
            remedy="mend it",
        )


def test_batch_that_does_not_run(onnx_file):
    """A model that runs at one batch size and fails at the next is a failed check."""
    graph = """(float[batch,4] x) => (float[batch,2,2] y)
        <int64[3] s = {1, 2, 2}> { y = Reshape(x, s) }"""
    with pytest.raises(CheckFailedError, match=r"batch of 2 .* ONNX Runtime fails on x\[2, 4\]"):
        check_parity(
            OnnxModel(onnx_file(graph)),
            X,
            lambda i: {"y": i["x"].reshape(-1, 2, 2)},
            against="numpy",
            remedy="mend it",
        )


def test_not_loadable(onnx_file):
    """A file that ONNX Runtime has no kernels for is a ModelError that names it."""
    path = onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }")
    path.write_bytes(path.read_bytes().replace(b"Relu", b"Rely"))
    with pytest.raises(ModelError, match=r"small.onnx: ONNX Runtime cannot load it"):
        OnnxModel(path)


def test_draws_are_the_same_each_time():
    """Rows are drawn from a fixed seed."""
    assert (draw_rows(X, 7)["x"] == draw_rows(X, 7)["x"]).all()


def test_draws_keep_integers_and_pairs():
    """Integers are only drawn again, the same rows of every input."""
    ids = np.arange(10).reshape(5, 2)
    drawn = draw_rows({"ids": ids, "twice": ids * 2}, 16)
    assert set(drawn["ids"][:, 0]) <= set(ids[:, 0])
    assert (drawn["ids"] * 2 == drawn["twice"]).all()


def test_draws_stay_in_range():
    """Noise moves floats, but not out of the range of the examples."""
    examples = np.float32([[0, 1], [0.5, 1]])
    drawn = draw_rows({"x": examples}, 16)["x"]
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert drawn.dtype == np.float32 and len(np.unique(drawn)) > 3


def test_draws_from_one_value():
    """Examples that are all one value are moved all the same, or every check would be blind."""
    assert len(np.unique(draw_rows({"x": np.zeros((2, 3), np.float32)}, 3)["x"])) == 9
