"""Users' inputs against a model's spec: names, shapes, rows, parts, and bytes for the wire."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from tritonkit.client.spec import ModelSpec
from tritonkit.client.tensors import Checked, check_inputs, encode, join, split
from tritonkit.errors import TensorError
from tritonkit.signature import ModelSignature, TensorSpec, data_type


def spec(*inputs: str, rows: int = 64, optional: str = "", version: str = "") -> ModelSpec:
    """A model called ranker with inputs such as "x FP32 n 512"."""
    tensors = []
    for text in inputs:
        name, dtype, *shape = text.split()
        sizes = tuple(int(d) if d.isdigit() else d for d in shape)
        tensors.append(TensorSpec(name, data_type(dtype), sizes))
    signature = ModelSignature(tuple(tensors), ())
    return ModelSpec(
        "ranker", version, "", ("1",), signature, rows, optional=frozenset(optional.split())
    )


ONE = spec("x FP32 n 512")
TWO = spec("ids INT64 n s", "mask INT64 n s")
NO_BATCH = spec("x FP32 n 2 3", rows=0)
X = np.zeros((3, 512), np.float32)
IDS = np.zeros((3, 7), np.int64)


def shape_of(checked: Checked) -> tuple[list[tuple[int, ...]], int, bool]:
    """What was made of the inputs, without their values."""
    return [a.shape for a in checked.arrays.values()], checked.rows, checked.single_row


# Names


@pytest.mark.parametrize(("value", "named"), [({"x": X}, {}), (None, {"x": X}), (X, {})])
def test_ways_to_give(value, named):
    """A mapping, a keyword, or the value itself where there is one input; none is copied."""
    checked = check_inputs(ONE, value, named)
    assert checked.arrays["x"] is X
    assert shape_of(checked) == ([(3, 512)], 3, False)


def test_both_ways_at_once():
    """A mapping and keywords are put together, in the model's order."""
    checked = check_inputs(TWO, {"mask": IDS}, {"ids": IDS})
    assert list(checked.arrays) == ["ids", "mask"]


def test_one_value_and_an_optional_input():
    """A value is the one required input; optional ones come by name, or not at all."""
    model = spec("prior FP32 n", "x FP32 n 512", optional="prior")
    assert list(check_inputs(model, X, {}).arrays) == ["x"]
    checked = check_inputs(model, X, {"prior": np.zeros(3, np.float32)})
    assert list(checked.arrays) == ["prior", "x"]


def test_nothing_for_a_model_that_needs_nothing():
    """A model without required inputs may be called with none."""
    assert shape_of(check_inputs(spec(), None, {})) == ([], 1, False)
    assert shape_of(check_inputs(spec("x FP32 n", optional="x"), None, {})) == ([], 1, False)


@pytest.mark.parametrize(
    ("model", "value", "named", "words"),
    [
        (ONE, None, {}, r"no inputs are given; the model needs x:FP32\[n,512\]$"),
        (ONE, {}, {}, r"no inputs are given"),
        (TWO, {"ids": IDS}, {}, r"input 'mask' is missing; the model needs ids:INT64"),
        (TWO, IDS, {}, r"one value for 2 inputs; give them by name: ids:INT64\[n,s\], mask:"),
        (spec(), X, {}, r"one value for 0 inputs"),
        (ONE, {"x": X}, {"x": X}, r"input 'x' is given twice; give it once$"),
        (ONE, X, {"x": X}, r"input 'x' is given twice"),
        (TWO, {"id": IDS}, {}, r"no input 'id'; did you mean 'ids'\? It has ids:INT64\[n,s\], m"),
        (ONE, {"qqqq": X}, {}, r"no input 'qqqq'; it has x:FP32\[n,512\]$"),
        (ONE, {0: X}, {}, r"no input '0'; it has"),
        (ONE, {"x": None}, {}, r"input 'x' is of type NoneType; leave it out \(the model expects"),
    ],
)
def test_names_refused(model, value, named, words):
    """Missing, unknown, doubled and nameless inputs are refused with what the model needs."""
    with pytest.raises(TensorError, match=f"^ranker: .*{words}"):
        check_inputs(model, value, named)


def test_version_in_messages():
    """A version that was asked for is part of the model's name in messages."""
    with pytest.raises(TensorError, match=r"^ranker/2: no inputs"):
        check_inputs(spec("x FP32 n", version="2"), None, {})


# Shapes and rows


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (ONE, (3, 500), r"has shape \[3, 500\]; dimension 1 must be 512 \(the model expects x:"),
        (ONE, (500,), r"\[500\], which makes it a single row; dimension 0 must be 512 \("),
        (ONE, (1, 3, 512), r"\[1, 3, 512\]; it must have 2 dimensions, or 1 for a single row \("),
        (ONE, (), r"has shape \[\]; it must have 2 dimensions"),
        (ONE, (0, 512), r"the inputs have no rows; send at least one"),
        (NO_BATCH, (2, 3), r"\[2, 3\]; it must have 3 dimensions \(the model expects x:FP32\[n,2,"),
        (NO_BATCH, (9, 2, 2), r"dimension 2 must be 3"),
    ],
)
def test_shapes_refused(model, shape, words):
    """A shape that does not fit is refused with the dimension and what it must be."""
    with pytest.raises(TensorError, match=f"^ranker: .*{words}"):
        check_inputs(model, np.zeros(shape, np.float32), {})


def test_message_in_full():
    """One line says what was given, what is wrong with it, and what the model expects."""
    with pytest.raises(TensorError) as error:
        check_inputs(ONE, np.zeros((3, 500), np.float32), {})
    assert str(error.value) == (
        "ranker: input 'x' has shape [3, 500]; dimension 1 must be 512 "
        "(the model expects x:FP32[n,512])"
    )
    assert error.value.exit_code == 2


def test_single_row():
    """Without the batch axis the inputs are one row, and get the axis; still a view."""
    checked = check_inputs(ONE, X[0], {})
    assert shape_of(checked) == ([(1, 512)], 1, True)
    assert np.shares_memory(checked.arrays["x"], X)


def test_scalar_row():
    """A number is a row of a model whose rows are numbers."""
    checked = check_inputs(spec("x FP32 n"), 1.5, {})
    assert shape_of(checked) == ([(1,)], 1, True)


def test_without_batching():
    """Where the model does not batch the first dimension is like any other; there is one row."""
    x = np.zeros((9, 2, 3), np.float32)
    assert shape_of(check_inputs(NO_BATCH, x, {})) == ([(9, 2, 3)], 1, False)


def test_more_rows_than_a_request_may_have():
    """Too many rows are no fault here: they can be split."""
    assert check_inputs(ONE, np.zeros((65, 512), np.float32), {}).rows == 65


@pytest.mark.parametrize(
    ("ids", "mask"), [((3, 7), (2, 7)), ((3, 7), (7,)), ((7,), (3, 7)), ((0, 7), (7,))]
)
def test_rows_that_differ(ids, mask):
    """All inputs have equally many rows, or all are a single row; else both are named."""
    words = "^ranker: inputs 'ids' and 'mask' have shapes .* same number of rows"
    with pytest.raises(TensorError, match=words):
        check_inputs(TWO, None, {"ids": np.zeros(ids, int), "mask": np.zeros(mask, int)})


@given(st.data())
def test_any_shape(data):
    """A shape is taken exactly if its rank and its fixed dimensions are the model's."""
    want = data.draw(st.lists(st.sampled_from(["d", "1", "2"]), max_size=3))
    shape = data.draw(nps.array_shapes(min_dims=0, max_dims=4, max_side=3))
    row = shape[1:] if len(shape) == len(want) + 1 else shape
    fitting = len(shape) in (len(want), len(want) + 1) and all(
        w == "d" or int(w) == size for w, size in zip(want, row, strict=True)
    )
    try:
        checked = check_inputs(spec(f"x FP32 n {' '.join(want)}"), np.zeros(shape, "f4"), {})
    except TensorError:
        assert not fitting
    else:
        assert fitting
        assert checked.arrays["x"].shape == (checked.rows, *row)
        assert checked.single_row == (len(shape) == len(want))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite(value):
    """NaN and infinity are sent, or if the user wants refused with their place."""
    x = X.copy()
    x[1, 17] = x[2, 3] = value
    assert check_inputs(ONE, x, {}).arrays["x"] is x
    words = rf"input 'x' has {value} at \[1, 17\] \(row 1\); NaN and infinity are refused"
    with pytest.raises(TensorError, match=words):
        check_inputs(ONE, x, {}, nan="refuse")
    with pytest.raises(TensorError, match=rf"has {value} at \[17\]; NaN"):
        check_inputs(ONE, x[1], {}, nan="refuse")


def test_finite():
    """Finite numbers, and inputs that cannot be anything else, are not refused."""
    assert check_inputs(ONE, X, {}, nan="refuse").arrays["x"] is X
    assert check_inputs(TWO, {"ids": IDS, "mask": IDS}, {}, nan="refuse").rows == 3


# Parts


@given(nps.arrays(np.int16, nps.array_shapes(max_dims=3, max_side=9)), st.integers(1, 10))
def test_split_and_join(array, size):
    """Parts have at most so many rows, and joined they are what was split."""
    parts = split({"a": array, "b": array[:, ...]}, len(array), size)
    assert all(1 <= len(part["a"]) == len(part["b"]) <= size for part in parts)
    joined = join(parts, [len(part["a"]) for part in parts])
    assert list(joined) == ["a", "b"]
    assert all(np.array_equal(a, array) and a.dtype == array.dtype for a in joined.values())


def test_split_copies_nothing():
    """Parts are views."""
    assert all(np.shares_memory(part["x"], X) for part in split({"x": X}, 3, 2))


def test_joining_text():
    """Bytes are joined like numbers."""
    part = {"t": np.array([[b"a\0"]], dtype=object)}
    assert join([part, part])["t"].tolist() == [[b"a\0"], [b"a\0"]]


@pytest.mark.parametrize(
    ("shapes", "rows", "words"),
    [
        ([(4, 2), (1, 3)], (), r"float64\[4, 2\] for some .* float64\[1, 3\] .* at most 4 rows"),
        ([(), ()], (), r" has shape \[\], which is not one row .* send at most 1 rows at once"),
        ([(4, 2), (2, 2)], [4, 1], r" has shape \[2, 2\], which is not one row .* at most 4 rows"),
    ],
)
def test_what_cannot_be_joined(shapes, rows, words):
    """Outputs of different size, or without the rows that were sent, are refused."""
    with pytest.raises(TensorError, match=f"^output 'y'.*{words}"):
        join([{"y": np.zeros(s)} for s in shapes], rows)


def test_joining_other_outputs():
    """Parts with other outputs cannot be joined."""
    with pytest.raises(TensorError, match="outputs y came for some rows and z for others"):
        join([{"y": X}, {"z": X}])


# The wire


def test_encode():
    """Arrays go over the wire under KServe's dtype names, row-major, contiguous ones uncopied."""
    model = spec("x FP32 n 2", "t BYTES n", "h FP16 n")
    x = np.arange(4, dtype=np.float32).reshape(2, 2)
    checked = check_inputs(model, None, {"x": x, "t": ["a", "é"], "h": [1, 2]})
    sent = encode(checked.arrays, model)
    assert [(t.name, t.datatype, t.shape) for t in sent] == [
        ("x", "FP32", (2, 2)),
        ("t", "BYTES", (2,)),
        ("h", "FP16", (2,)),
    ]
    assert np.shares_memory(np.frombuffer(sent[0].data), x)
    assert sent[1].data == b"\1\0\0\0a\2\0\0\0\xc3\xa9"


def test_encoding_a_part():
    """Rows out of the middle of an array are encoded alone."""
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    model = spec("x FP32 n 2")
    parts = [encode(part, model)[0] for part in split({"x": x[:, ::-1]}, 3, 2)]
    assert [p.shape for p in parts] == [(2, 2), (1, 2)]
    assert np.frombuffer(b"".join(p.data for p in parts), "f4").tolist() == [1, 0, 3, 2, 5, 4]
