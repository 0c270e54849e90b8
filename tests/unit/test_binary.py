"""Raw bytes of tensors: there and back, malformed data, and tritonclient's own as the reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from tritonkit.binary import from_bytes, to_bytes
from tritonkit.signature import DATA_TYPES, data_type

BYTES = data_type("BYTES")
FIXED_SIZE = [d for d in DATA_TYPES if d.name != "BYTES"]
shapes = nps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def byte_arrays(draw, elements):
    """An object array of any shape."""
    shape = draw(shapes)
    array = np.empty(shape, np.object_)
    flat = [draw(elements) for _ in range(array.size)]
    array.reshape(-1)[:] = flat
    return array


@given(st.sampled_from(FIXED_SIZE).flatmap(lambda d: nps.arrays(d.numpy, shapes)))
def test_round_trip(array):
    """Every array comes back bit for bit."""
    dtype = next(d for d in FIXED_SIZE if d.numpy == array.dtype)
    back = from_bytes(bytes(to_bytes(array, dtype)), dtype, array.shape)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(byte_arrays(st.binary(max_size=8)))
def test_round_trip_of_bytes(array):
    """Bytes come back as they were: empty ones, and those that end in NUL."""
    back = from_bytes(to_bytes(array, BYTES), BYTES, array.shape)
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()


@given(byte_arrays(st.binary(max_size=8) | st.text(st.characters(codec="utf-8"), max_size=8)))
def test_writes_what_tritonclient_writes(array):
    """The bytes are those that tritonclient makes of the same array."""
    reference = serialize_byte_tensor(array)
    assert to_bytes(array, BYTES) == (reference.item() if array.size else b"")


@given(st.lists(st.binary(max_size=8), max_size=8))
def test_reads_what_tritonclient_reads(elements):
    """What tritonclient reads in bytes is what we read in them."""
    data = to_bytes(np.array([*elements, b""], dtype=object)[:-1], BYTES)
    reference = deserialize_bytes_tensor(data).tolist()
    assert from_bytes(data, BYTES, (len(elements),)).tolist() == reference == elements


@given(
    st.binary(max_size=40),
    st.sampled_from(DATA_TYPES),
    st.lists(st.integers(-2, 5) | st.integers() | st.none() | st.floats(), max_size=4),
)
def test_random_bytes(data, dtype, shape):
    """Bytes that are no such tensor raise ValueError and nothing else."""
    try:
        array = from_bytes(data, dtype, shape)
    except ValueError:
        return
    assert array.shape == tuple(shape)
    assert bytes(to_bytes(array, dtype)) == data


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (b"\0" * 7, "FP32", (2,)),
        (b"\0" * 8, "FP32", (3,)),
        (b"\0" * 8, "FP32", (1,)),
        (b"\0" * 8, "FP32", (-1,)),
        (b"", "FP32", (2**32, 2**32)),
        (b"", "FP32", (1,)),
        (b"\1\0\0\0", "BYTES", (1,)),
        (b"\1\0\0", "BYTES", (1,)),
        (b"\xff\xff\xff\xffa", "BYTES", (1,)),
        (b"\0\0\0\0", "BYTES", (2,)),
        (b"\0\0\0\0", "BYTES", (0,)),
        (b"\0\0\0\0", "BYTES", (-1,)),
        (b"", "BYTES", (2**70,)),
    ],
)
def test_malformed(data, dtype, shape):
    """Too few bytes, too many, half an element, and no possible shape are refused."""
    with pytest.raises(ValueError, match=r"."):
        from_bytes(data, data_type(dtype), shape)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize(("dtype", "raw"), [("FP32", b"\0" * 8), ("BYTES", b"\0" * 8)])
def test_reading_is_read_only(kind, dtype, raw):
    """An array that was read cannot be written to, whatever holds the bytes."""
    assert not from_bytes(kind(raw), data_type(dtype), (2,)).flags.writeable


def test_reading_copies_nothing():
    """A numeric array is a view of the bytes, wherever in a body they begin."""
    body = memoryview(b"{}" + np.arange(3, dtype=np.float32).tobytes() + b"!")
    array = from_bytes(body[2:-1], data_type("FP32"), (3,))
    assert array.tolist() == [0, 1, 2]
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))


def test_writing_copies_nothing():
    """The bytes of a contiguous array are a view of it."""
    array = np.zeros((2, 3), np.float32)
    assert np.shares_memory(np.frombuffer(to_bytes(array, data_type("FP32"))), array)


def test_writing_what_is_not_contiguous():
    """A transposed or big-endian array is written row-major and little-endian."""
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    raw = bytes(to_bytes(array, data_type("INT32")))
    assert raw == np.array([0, 3, 1, 4, 2, 5], "<i4").tobytes()


@pytest.mark.parametrize("element", [None, 3, 1.5, np.float32(1), np.zeros(2), ["a"]])
def test_elements_that_are_no_text(element):
    """An element that is neither str nor bytes is a TypeError, even if it has a buffer."""
    array = np.empty(1, np.object_)
    array[0] = element
    with pytest.raises(TypeError, match="neither str nor bytes"):
        to_bytes(array, BYTES)
