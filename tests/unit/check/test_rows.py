"""The rows a model is asked with: one of each kind, for every dtype."""

import numpy as np
import pytest

from tritonkit.check.rows import Kind, Rows
from tritonkit.signature import KSERVE_TYPES, ModelSignature, TensorSpec

FLOATS = ("FP16", "FP32", "FP64")
INTEGERS = tuple(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
ALL = (*FLOATS, *INTEGERS, "BOOL", "BYTES")


def rows_of(dtype="FP32", shape=("batch", 6), axis=0, **more):
    """Rows for a model with the one input x."""
    spec = TensorSpec("x", KSERVE_TYPES[dtype], shape)
    return Rows(ModelSignature((spec,), ()), {"x": axis}, {"seq": 8}, **more)


def limits(dtype):
    """The range of an integer input that takes all that its dtype has."""
    info = np.iinfo(KSERVE_TYPES[dtype].numpy)
    return int(info.min), int(info.max)


@pytest.mark.parametrize("dtype", ALL)
def test_dtype_and_shape(dtype):
    """A row of every kind has the input's dtype, and is one long along the batch axis."""
    more = {"ranges": {"x": limits(dtype)}} if dtype in INTEGERS else {}
    rows = rows_of(dtype, (3, "batch", "seq"), axis=1, **more)
    for kind in rows.kinds():
        made = rows.row(kind, 5)["x"]
        assert (made.dtype, made.shape) == (KSERVE_TYPES[dtype].numpy, (3, 1, 8)), kind


@pytest.mark.parametrize("dtype", ALL)
def test_same_row_again(dtype):
    """A kind and a seed make the same row at every call; another seed makes another."""
    rows = rows_of(dtype, ("batch", 64))
    np.testing.assert_array_equal(rows.row(Kind.USUAL, 3)["x"], rows.row(Kind.USUAL, 3)["x"])
    assert (rows.row(Kind.USUAL, 3)["x"] != rows.row(Kind.USUAL, 4)["x"]).any()


@pytest.mark.parametrize(
    ("dtype", "missing"),
    [
        ("FP32", {Kind.SPREAD, Kind.HIGHEST, Kind.LOWEST, Kind.ENDED}),
        ("INT64", {Kind.LOUD, Kind.QUIET, Kind.NAN}),
    ],
)
def test_kinds(dtype, missing):
    """Only the kinds that mean something for the model's dtypes are made."""
    assert set(Kind) - set(rows_of(dtype).kinds()) == missing


def test_kinds_of_a_mixed_model():
    """A model with numbers of both sorts meets every kind."""
    specs = (TensorSpec("x", KSERVE_TYPES["FP32"], ("b", 4)),)
    specs += (TensorSpec("i", KSERVE_TYPES["INT32"], ("b", 4)),)
    assert Rows(ModelSignature(specs, ()), {"x": 0, "i": 0}, {}).kinds() == list(Kind)


@pytest.mark.parametrize("dtype", FLOATS)
def test_loud_and_quiet(dtype):
    """A loud row is 10,000 times the usual one, or as much as the dtype holds; a quiet one less."""
    rows = rows_of(dtype, ("batch", 64))
    usual, loud, quiet = (
        rows.row(kind, 1)["x"].astype(np.float64) for kind in (Kind.USUAL, Kind.LOUD, Kind.QUIET)
    )
    most = float(np.finfo(KSERVE_TYPES[dtype].numpy).max)
    np.testing.assert_allclose(loud, np.clip(usual * 1e4, -most, most), rtol=1e-2)
    assert np.isfinite(loud).all() and np.abs(quiet).max() <= 1e-3


@pytest.mark.parametrize("dtype", INTEGERS)
def test_extremes(dtype):
    """The extremes of an integer input are those of its range, the dtype's own included."""
    low, high = limits(dtype)
    rows = rows_of(dtype, ranges={"x": (low, high)})
    assert (rows.row(Kind.HIGHEST)["x"] == high).all()
    assert (rows.row(Kind.LOWEST)["x"] == low).all()
    spread = rows_of(dtype, ("batch", 500), ranges={"x": (low, high)}).row(Kind.SPREAD)["x"]
    assert spread.max() > high // 2 and (low == 0 or spread.min() < low // 2)


def test_usual_integers_of_a_table():
    """Usual token ids come from the whole table, and from nowhere else."""
    made = rows_of("INT64", ("batch", 500), ranges={"x": (-1, 9)}).row(Kind.USUAL, 1)["x"]
    assert set(made.ravel().tolist()) == set(range(10))


def test_usual_integers_without_a_limit():
    """An input that takes any integer is usually 0 or 1: a mask, a flag, a length, an id."""
    made = rows_of("INT64", ("batch", 500), ranges={"x": limits("INT64")}).row()["x"]
    assert set(made.ravel().tolist()) == {0, 1}


@pytest.mark.parametrize("dtype", ALL)
def test_padded(dtype):
    """The second half of a padded row is zero, false or empty; its first half is as usual."""
    rows = rows_of(dtype, (2, "batch", "seq"), axis=1)
    usual, padded = (rows.row(kind, 2)["x"] for kind in (Kind.USUAL, Kind.PADDED))
    np.testing.assert_array_equal(padded[:1], usual[:1])
    assert not padded[1:].astype(bool).any()


def test_padding_is_not_along_the_batch():
    """The axis that is padded is the first that is not the batch."""
    rows = rows_of("FP32", ("batch", "seq"))
    padded = rows.row(Kind.PADDED, 2)["x"]
    assert (padded[:, :4] != 0).all() and (padded[:, 4:] == 0).all()


@pytest.mark.parametrize("dtype", ALL)
def test_repeated_changes_one_element(dtype):
    """A repeated row differs from the row in its last element only."""
    rows = rows_of(dtype)
    row = rows.row(Kind.USUAL, 1)
    changed = (rows.repeated(row)["x"] != row["x"]).ravel()
    assert changed.tolist() == [False] * 5 + [True]


@pytest.mark.parametrize("value", [0, 4, 9])
def test_repeated_stays_in_the_range(value):
    """The element that is changed is still one that the model takes."""
    rows = rows_of("INT64", ranges={"x": (0, 9)})
    other = rows.repeated({"x": np.full((1, 6), value)})["x"].flat[-1]
    assert other != value and 0 <= other <= 9


def test_zero_size():
    """An input with a dimension of 0 has rows too, of every kind."""
    rows = rows_of("FP32", ("batch", 0))
    assert all(rows.row(kind)["x"].shape == (1, 0) for kind in rows.kinds())
    assert rows.repeated(rows.row())["x"].shape == (1, 0)


def test_vector():
    """An input with no axis but the batch has a single element a row, of every kind."""
    rows = rows_of("INT64", ("batch",))
    assert all(rows.row(kind)["x"].shape == (1,) for kind in rows.kinds())


def test_input_without_batch_axis():
    """An input without a batch axis has one value in every row, and comes once in a batch."""
    specs = (TensorSpec("x", KSERVE_TYPES["FP32"], ("b", 4)),)
    specs += (TensorSpec("k", KSERVE_TYPES["FP32"], (3,)),)
    rows = Rows(ModelSignature(specs, ()), {"x": 0, "k": None}, {})
    made = [rows.row(kind, seed) for seed, kind in enumerate((Kind.USUAL, Kind.LOUD, Kind.NAN))]
    assert len({row["k"].tobytes() for row in made}) == 1
    assert {name: a.shape for name, a in rows.batch(made).items()} == {"x": (3, 4), "k": (3,)}


def test_batch_along_another_axis():
    """Rows are put together along the batch axis, in their order."""
    rows = rows_of("FP32", (2, "batch"), axis=1)
    made = [rows.row(Kind.USUAL, seed) for seed in range(3)]
    batch = rows.batch(made)["x"]
    assert batch.shape == (2, 3)
    np.testing.assert_array_equal(batch[:, 1:2], made[1]["x"])


def test_examples():
    """Usual rows are the examples in turn, and special ones are made of them."""
    examples = [{"x": np.full((1, 6), i, np.float32)} for i in (1, 2, 3)]
    rows = rows_of(examples=examples)
    assert [rows.row(Kind.USUAL, seed)["x"][0, 0] for seed in range(4)] == [1, 2, 3, 1]
    assert (rows.row(Kind.LOUD, 1)["x"] == 2e4).all()


def test_examples_are_not_changed():
    """No kind of row writes into the example that it is made of."""
    example = np.arange(6, dtype=np.float32).reshape(1, 6)
    rows = rows_of(examples=[{"x": example}])
    for kind in rows.kinds():
        rows.row(kind)
    rows.repeated(rows.row())
    assert example.ravel().tolist() == [0, 1, 2, 3, 4, 5]


def test_strings():
    """Strings have neighbours of their own: empty, of one letter, half empty."""
    rows = rows_of("BYTES", ("batch", 4))
    assert (rows.row(Kind.ZEROS)["x"] == b"").all() and (rows.row(Kind.ONES)["x"] == b"1").all()
    assert rows.row(Kind.PADDED)["x"][0, 2:].tolist() == [b"", b""]
