"""A tensor's raw bytes, as KServe v2's binary data has them: row-major, little-endian.

BYTES: each element's length (4 bytes), then the element; see Triton's binary data extension.
"""

from __future__ import annotations

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
        data = np.ascontiguousarray(array, dtype.numpy)
        return data.reshape(-1).view(np.uint8).data if data.size else b""
    chunks: list[bytes] = []
    for element in array.ravel().tolist():
        raw = element.encode() if isinstance(element, str) else bytes(memoryview(element))
        chunks += (_LENGTH.pack(len(raw)), raw)
    return b"".join(chunks)


def from_bytes(data: bytes | memoryview, dtype: DataType, shape: Sequence[int]) -> np.ndarray:
    """The tensor in `data`, a read-only view of it; of objects of type bytes if it is BYTES.

    ValueError if the bytes are too few, too many, or no such tensor.
    """
    if dtype.name != "BYTES":
        return np.frombuffer(data, dtype.numpy).reshape(shape)
    data, offset = bytes(data), 0
    elements: list[bytes] = []
    while offset < len(data):
        if offset + 4 > len(data):
            raise ValueError("a BYTES tensor that ends within an element")
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += 4 + length
        if offset > len(data):
            raise ValueError("a BYTES tensor that ends within an element")
        elements.append(data[offset - length : offset])
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array.reshape(shape)
