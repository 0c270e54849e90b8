"""What users give for one input: taken without a change of value, or refused."""

import array as stdlib_array
import datetime
import decimal
import enum
import math

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from tritonkit.client.values import MisfitError, convert
from tritonkit.signature import DATA_TYPES, data_type

NUMERIC = [d.numpy for d in DATA_TYPES if d.name != "BYTES"]
FLOATS = [d for d in NUMERIC if d.kind == "f"]
INTS = [d for d in NUMERIC if d.kind in "iu"]


class Four(enum.IntEnum):
    """A number with a name."""

    IT = 4


class OnlyArray:
    """Something with `__array__` and no more, as pandas has it."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class OnlyDlpack:
    """Something with DLPack and no more."""

    def __init__(self, array):
        self.__dlpack__ = array.__dlpack__
        self.__dlpack_device__ = array.__dlpack_device__


class OnTheGpu:
    """A tensor on an accelerator, as far as one can see."""

    device = "cuda:0"

    def __dlpack_device__(self):
        return (2, 0)

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("it must not be read")


def to(value, datatype: str = "FP32", rank: int = 3) -> np.ndarray:
    """The value for an input of this datatype."""
    return convert(value, data_type(datatype).numpy, rank)


def exactly_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal as mathematics has it, with no dtype in common; NaN equals NaN."""
    pairs = zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)
    return a.shape == b.shape and all(x == y or (x != x and y != y) for x, y in pairs)


# Arrays


@given(
    st.sampled_from(NUMERIC).flatmap(lambda d: nps.arrays(d, nps.array_shapes(max_side=3))),
    st.sampled_from(NUMERIC),
)
def test_casts_change_no_value(array, want):
    """An array comes in the wanted dtype with the same values, or is refused."""
    try:
        converted = convert(array, want, 3)
    except MisfitError:
        assert array.dtype != want
    else:
        assert converted.dtype == want
        assert exactly_equal(converted, array)


@pytest.mark.parametrize("have", NUMERIC)
@pytest.mark.parametrize("want", NUMERIC)
def test_casts_of_small_numbers(have, want):
    """Where every value of a dtype fits into another one, or nearly, the cast is made."""
    array = np.ones(2, have)
    if np.can_cast(have, want, "safe"):
        assert convert(array, want, 1).tolist() == [1, 1]
    else:
        with pytest.raises(MisfitError, match=f"has dtype {have}, which does not fit into {want}"):
            convert(array, want, 1)


def test_large_ints_into_double():
    """An int64 goes into a double if the double has it exactly; numpy alone would round."""
    assert to(np.array([2**62, -(2**53)]), "FP64").tolist() == [2.0**62, -(2.0**53)]
    with pytest.raises(MisfitError, match=r"element at \[1\] that is 9007199254740993, which fl"):
        to(np.array([1, 2**53 + 1]), "FP64")


def test_the_array_itself():
    """An array that needs no cast is not copied, read-only or not contiguous as it may be."""
    array = np.zeros((4, 4), np.float32)[::2, ::-1]
    array.flags.writeable = False
    assert np.shares_memory(to(array), array)


def test_byte_order():
    """Big-endian arrays are turned round."""
    converted = to(np.array([1, 2.5], ">f4"))
    assert converted.dtype.isnative
    assert converted.tolist() == [1, 2.5]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, complex),
        np.zeros(2, "M8[s]"),
        np.zeros(2, "m8[s]"),
        np.zeros(2, [("a", "f4")]),
        np.zeros(2, "V4"),
        np.array(["1", "2"]),
        np.array([1, 2], object),
        np.zeros(2, np.longdouble),
    ],
)
@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BOOL"])
def test_dtypes_that_are_no_numbers(array, datatype):
    """Complex, dates, records, text and objects are no numbers."""
    with pytest.raises(MisfitError, match=r"^has dtype .*, which does not fit"):
        to(array, datatype)


def test_bfloat16():
    """A numpy bfloat16 has its values in FP32, and not in FP16."""
    array = np.array([1.5, 3e38], ml_dtypes.bfloat16)
    assert to(array).tolist() == array.astype(np.float64).tolist()
    with pytest.raises(MisfitError, match="has dtype bfloat16"):
        to(array, "FP16")


def test_masked():
    """A masked array is taken only if nothing in it is masked."""
    assert to(np.ma.array([1, 2], np.float32)).tolist() == [1, 2]
    with pytest.raises(MisfitError, match="masked elements; fill them"):
        to(np.ma.array([1, 2], np.float32, mask=[0, 1]))


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([1.0, 2.0]),
        torch.tensor([1.0, 2.0], requires_grad=True),
        torch.nn.Parameter(torch.tensor([1.0, 2.0])),
        torch.tensor([1.0, 0.0, 2.0])[::2],
        OnlyArray(np.array([1, 2], np.float32)),
        OnlyDlpack(np.array([1, 2], np.float32)),
        OnlyDlpack(torch.tensor([1.0, 2.0])),
    ],
)
def test_foreign_arrays(value):
    """Tensors of torch, with gradient or without, and all that numpy can see are taken."""
    assert to(value).tolist() == [1, 2]


def test_foreign_arrays_are_not_copied():
    """A torch tensor of the right dtype is only looked at."""
    tensor = torch.zeros(3)
    assert np.shares_memory(to(tensor), tensor.numpy())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (OnTheGpu(), r"^is on cuda:0; move it to the CPU: \.cpu\(\)$"),
        (torch.zeros(2, dtype=torch.float64), "^has dtype float64, which does not fit into float3"),
        (torch.zeros(2, dtype=torch.bfloat16), r"\(Tensor of torch.bfloat16\): Got unsupported"),
        (torch.zeros(2).to_sparse(), r"cannot be seen as a numpy array .*to_dense\(\)"),
        (torch.zeros(2, device="meta"), "cannot be seen as a numpy array"),
        (OnlyArray(None), "cannot be seen as a numpy array"),
        ([OnTheGpu()], r"has an element at \[0\] that is on cuda:0"),
    ],
)
def test_foreign_arrays_refused(value, words):
    """What numpy cannot see, or only with loss, is refused, with the library's own reason."""
    with pytest.raises(MisfitError, match=words) as error:
        to(value)
    assert "\n" not in str(error.value)


# Python's numbers


@given(
    st.lists(st.booleans() | st.integers() | st.floats() | st.integers(-3, 300), max_size=4),
    st.sampled_from(NUMERIC),
)
def test_python_numbers_change_little(numbers, want):
    """Bools and ints come exactly, floats rounded to the dtype, or all are refused."""
    try:
        array = convert(numbers, want, 1)
    except MisfitError:
        return
    assert array.dtype == want
    for number, value in zip(numbers, array.tolist(), strict=True):
        if isinstance(number, float):
            assert want.kind == "f"
            assert math.isinf(number) == math.isinf(value)
            assert np.array_equal(want.type(number), value, equal_nan=True)
        else:
            assert number == value
            assert isinstance(number, bool) == (want.kind == "b")


@pytest.mark.parametrize("want", INTS)
def test_limits_of_ints(want):
    """The least and the largest int of a dtype go in, the next ones do not."""
    limits = np.iinfo(want)
    ends = [int(limits.min), int(limits.max)]
    assert convert(ends, want, 1).tolist() == ends
    for i, number in enumerate((ends[0] - 1, ends[1] + 1)):
        with pytest.raises(
            MisfitError, match=rf"at \[{i}\] that is {number}; {want} has {ends[0]}"
        ):
            convert([0] * i + [number], want, 1)


@pytest.mark.parametrize(("want", "bits"), zip(FLOATS, (11, 24, 53), strict=True))
def test_ints_in_floats(want, bits):
    """A float dtype takes the ints that it has, and refuses those that it would round."""
    fitting = [2**bits, -(2**bits), 2 ** (bits + 1)]
    assert convert(fitting, want, 1).tolist() == fitting
    for number in (2**bits + 1, 10**400, 10**5000):
        with pytest.raises(MisfitError, match=f"which {want} cannot hold exactly"):
            convert(number, want, 0)


@pytest.mark.parametrize(
    ("value", "datatype", "words"),
    [
        (1.0, "INT32", "^is of type float; give int$"),
        ([1, 1.0], "INT32", r"^has an element at \[1\] that is of type float; give int$"),
        ([[1], [True]], "INT32", r"at \[1, 0\] that is of type bool; give int"),
        (True, "FP32", "is of type bool; give float or int"),
        (1, "BOOL", "is of type int; give bool"),
        ([1.0, 70000.0], "FP16", r"at \[1\] that is 70000.0, too large for float16"),
        (1e39, "FP32", "^is 1e\\+39, too large for float32"),
        (2**200, "INT64", "^is a number of 201 bits; int64 has"),
        ("1", "FP32", "is of type str; give float or int"),
        (b"1", "INT8", "is of type bytes; give int"),
        ([1, "1"], "INT64", r"at \[1\] that is of type str; give int"),
        (1j, "FP32", "is of type complex; give an array, or a list"),
        (datetime.date(2024, 1, 1), "FP32", "is of type date; give"),
        ([1, None], "FP32", r"at \[1\] that is of type NoneType"),
        ([decimal.Decimal(1)], "FP32", "is of type Decimal"),
        ({"x": 1}, "FP32", "is of type dict"),
        ({1, 2}, "FP32", "is of type set"),
        (range(3), "INT64", "is of type range"),
        (bytearray(4), "FP32", "is of type bytearray"),
        (stdlib_array.array("f", [1]), "FP32", "is of type array"),
    ],
)
def test_values_refused(value, datatype, words):
    """Numbers of another kind, and what is no number, are refused with place and type."""
    with pytest.raises(MisfitError, match=words):
        to(value, datatype)


def test_numbers_with_a_name():
    """Members of an IntEnum are ints."""
    assert to(Four.IT, "INT8").tolist() == 4
    assert to([Four.IT, 1], "FP32").tolist() == [4, 1]


def test_numpy_numbers():
    """A number of numpy has a dtype, alone and in lists, and keeps to its rules."""
    assert to(np.float32(1.5), "FP64").tolist() == 1.5
    assert to([np.int8(3), 4], "INT64").tolist() == [3, 4]
    for value in (np.float64(0.5), [np.float64(0.5)]):
        with pytest.raises(MisfitError, match="has dtype float64"):
            to(value)


# Lists


@given(nps.arrays(np.float32, nps.array_shapes(min_dims=0, max_side=3)))
def test_lists(array):
    """Nested lists are the array that they were made of."""
    assert exactly_equal(to(array.tolist(), rank=array.ndim), array)


@pytest.mark.parametrize(
    ("value", "shape"),
    [([], (0,)), ([[]], (1, 0)), ([[], []], (2, 0)), (((1, 2), [3, 4]), (2, 2))],
)
def test_shapes_of_lists(value, shape):
    """Empty lists have a shape; tuples are lists."""
    assert to(value).shape == shape


def test_lists_of_arrays():
    """Arrays in a list are stacked, whatever they are arrays of."""
    value = [[np.zeros(3, np.float32), torch.ones(3)], [np.ones(3, np.float16), torch.zeros(3)]]
    assert to(value)[..., 0].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[1, 2], [1]], "ragged: at depth 1 there are lists of 1 elements and 2 elements; make"),
        ([[[1], [1, 2]]], "ragged: at depth 2 "),
        ([[1], 1], "ragged: .* lists of 1 elements and elements that are no lists"),
        ([np.zeros(2, "f4"), np.zeros(3, "f4")], r"element at \[1\] has shape \[3\], the first"),
        ([[[[1]]]], "nested more than 3 deep"),
    ],
)
def test_lists_refused(value, words):
    """Lists of unequal length and lists nested too deeply are refused."""
    with pytest.raises(MisfitError, match=words):
        to(value)


def test_list_within_itself():
    """A list that contains itself is nested too deeply."""
    value: list = []
    value += [value, value]
    with pytest.raises(MisfitError, match="nested more than 3 deep"):
        to(value)


# Text


@pytest.mark.parametrize(
    "value",
    [
        ["a", b"\xff\0", "é", ""],
        np.array(["a", b"\xff\0", "é", ""], object),
        np.array(["a", b"\xff\0", "é", ""], object).reshape(2, 2)[:, :],
        [np.str_("a"), b"\xff\0", np.str_("é"), np.bytes_()],
    ],
)
def test_text(value):
    """str, encoded in UTF-8, and bytes may stand side by side; bytes come out."""
    array = to(value, "BYTES")
    assert array.dtype == object
    assert array.ravel().tolist() == [b"a", b"\xff\0", "é".encode(), b""]


@pytest.mark.parametrize(
    "array",
    [
        np.array(["é", ""]),
        np.array(["é".encode(), b""]),
        np.array(["é", ""], np.dtypes.StringDType()),
    ],
)
def test_text_arrays(array):
    """numpy's three kinds of text are taken."""
    assert to(array, "BYTES").tolist() == ["é".encode(), b""]


@pytest.mark.parametrize("value", ["é", "é".encode(), np.str_("é")])
def test_one_text(value):
    """A single text is a scalar, and not a list of letters."""
    array = to(value, "BYTES")
    assert array.shape == ()
    assert array.item() == "é".encode()


def test_bytes_arrays_are_not_copied():
    """An object array of bytes is taken as it is."""
    array = np.array([b"a", b""], object)
    assert to(array, "BYTES") is array


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1, "^is of type int; give str or bytes$"),
        ([["a", 1]], r"^has an element at \[0, 1\] that is of type int; give str or bytes$"),
        (bytearray(2), "^is of type bytearray"),
        (["a", None], r"at \[1\] that is of type NoneType"),
        (np.array([["a"], [1.5]], object), r"at \[1, 0\] that is of type float; give str or bytes"),
        (np.zeros(2, np.float32), "^has dtype float32; give str or bytes"),
        (np.zeros(2, "M8[s]"), "^has dtype datetime64"),
        (torch.zeros(2), "^has dtype float32; give str or bytes"),
        (["a", "\ud800"], r"at \[1\] that is no valid text \(half a surrogate pair\); give bytes"),
    ],
)
def test_text_refused(value, words):
    """What is neither str nor bytes, and str that has no UTF-8, is refused."""
    with pytest.raises(MisfitError, match=words):
        to(value, "BYTES")
