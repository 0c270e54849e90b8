"""A tensor's raw bytes, as KServe v2's binary data has them: row-major, little-endian.

BYTES: each element's length (4 bytes), then the element; see Triton's binary data extension.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from tritonkit.signature import DataType

_LENGTH = struct.Struct("<I")


def to_bytes(array: np.ndarray, dtype: DataType) -> memoryview | bytes:
    """The raw bytes of `array`, a view of it if it is contiguous. BYTES: of str (UTF-8) or bytes.

    A TypeError means that an element of a BYTES array is neither.
    """
    if dtype.name != "BYTES":
        if array.dtype is dtype.numpy and array.flags.c_contiguous and array.size:
            return array.data.cast("B")
        data = np.ascontiguousarray(array, dtype.numpy)
        return data.reshape(-1).view(np.uint8).data if data.size else b""
    elements = array.ravel().tolist()
    if not set(map(type, elements)) <= {bytes}:
        elements = [e.encode() if type(e) is str else _element(e) for e in elements]
    chunks = [b""] * (2 * len(elements))
    chunks[::2] = map(_LENGTH.pack, map(len, elements))
    chunks[1::2] = elements
    return b"".join(chunks)


def from_bytes(data: bytes | memoryview, dtype: DataType, shape: Sequence[int]) -> np.ndarray:
    """The tensor in `data`, a read-only view of it; of objects of type bytes if it is BYTES.

    ValueError if the bytes are too few, too many, or no such tensor.
    """
    try:
        if min(shape, default=0) < 0:  # numpy would take -1 for "as many as there are"
            raise ValueError(f"a tensor of shape {shape}")
        if dtype.name == "BYTES":
            return _read_elements(bytes(data), math.prod(shape)).reshape(shape)
        if type(data) is not bytes:
            data = memoryview(data).toreadonly().cast("B")
        array = np.ndarray(shape, dtype.numpy, data)
        if array.nbytes != len(data):
            raise ValueError(f"{len(data)} bytes for a tensor of shape {shape}")
        return array
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a tensor of shape {shape}: {error}") from error


def _element(element: object) -> bytes:
    if isinstance(element, str):
        return element.encode()
    if isinstance(element, bytes | bytearray | memoryview):
        return bytes(element)
    raise TypeError(f"an element of type {type(element).__name__}, which is neither str nor bytes")


def _read_elements(data: bytes, count: int) -> np.ndarray:
    elements: list[bytes] = []
    unpack, append, offset = _LENGTH.unpack_from, elements.append, 0
    try:
        for _ in range(count):
            (length,) = unpack(data, offset)
            offset += 4
            append(data[offset : offset + length])
            offset += length
    except struct.error as error:
        raise ValueError("a BYTES tensor with too few elements, or a part of one") from error
    if offset != len(data):
        raise ValueError("a BYTES tensor whose elements do not end where its bytes do")
    array = np.empty(count, np.object_)
    array[:] = elements
    array.flags.writeable = False
    return array
