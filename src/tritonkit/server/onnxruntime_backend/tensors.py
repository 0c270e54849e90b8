"""Triton's tensors as numpy arrays and back, by DLPack.

The Python backend's own way, `tensor.as_numpy()` and `pb_utils.Tensor(name, array)`, cannot be
trusted with numbers: the embedded Triton (2.51) was built for numpy 1 and looks for an array's
item size where numpy 2 keeps something else. It finds 0, raises nothing, and a request's tensor
reads as its first element repeated; a response has the right shape and no data. DLPack says the
same in terms that no numpy version changes, and without a copy. It has no text, so text (whose
bytes get lost in the same way) is refused when a model is loaded.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

_CONSUMED = b"used_dltensor"  # a capsule keeps the pointer, so this must live as long as any
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_SetName", ctypes.pythonapi)
)


class _Exporter:
    """What `np.from_dlpack` asks for. Triton's tensor itself would do, at three times the cost."""

    __slots__ = ("capsule",)

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU


def to_array(tensor: Any) -> np.ndarray:
    """The memory of a request's tensor (of numbers) as an array, read-only.

    It is valid while the request is, and it may be unaligned.
    """
    return np.from_dlpack(_Exporter(tensor.to_dlpack()))


def to_tensor(name: str, array: np.ndarray) -> Any:
    """The `pb_utils.Tensor` over the memory of `array` (C-contiguous numbers, of any shape).

    This Triton renames the capsule that it consumed to a name that is not the standard's, so numpy
    takes it for one never consumed and complains to stderr, once a tensor: hence the renaming.
    """
    if not array.size:  # nothing to lose, and this Triton takes an empty DLPack for a strided one
        return pb_utils.Tensor(name, array)
    capsule = array.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    _rename(capsule, _CONSUMED)
    return tensor
