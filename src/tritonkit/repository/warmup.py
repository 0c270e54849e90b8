"""Warm-up: the runs that Triton makes of a model before it says that it is ready.

A warm-up of n rows is n equal requests of one row. Source: GenerateWarmupData() in
triton-inference-server/core, src/backend_model_instance.cc.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tritonkit.binary import to_bytes
from tritonkit.payloads import Payload
from tritonkit.repository.tensors import ConfigTensor
from tritonkit.signature import DataType

WARMUP_FOLDER = "warmup"
"""Where in a model's folder Triton looks for the files that a warm-up names."""

# Where a warm-up request meets a dynamic dimension: long enough to touch every kernel.
WARMUP_DYNAMIC_DIM = 16


@dataclass(frozen=True)
class WarmUpInput:
    """One input of a warm-up request. dims: without the batch, none of them dynamic.

    file: raw bytes in the folder `warmup`; without one the data is random, or else zeros.
    """

    dtype: DataType
    dims: tuple[int, ...]
    random: bool = False
    file: str = ""


@dataclass(frozen=True)
class WarmUp:
    """One warm-up run, made `count` times. inputs: by name; if one is missing, the load fails."""

    name: str
    batch_size: int
    inputs: Mapping[str, WarmUpInput]
    count: int = 1


def default_sizes(max_batch_size: int) -> tuple[int, ...]:
    """One row, half the most and the most."""
    return tuple(sorted({1, max(1, max_batch_size // 2), max(1, max_batch_size)}))


def resized(warmup: Sequence[WarmUp], max_batch_size: int) -> tuple[WarmUp, ...]:
    """The warm-up of a model that is given another max_batch_size: its largest run becomes that
    size, and what is larger goes.
    """
    if not warmup:
        return ()
    largest = max(warmup, key=lambda run: run.batch_size)
    smaller = [run for run in warmup if run is not largest and run.batch_size < max_batch_size]
    name = largest.name.replace(str(largest.batch_size), str(max_batch_size))
    return (*smaller, replace(largest, name=name, batch_size=max_batch_size))


def synthetic_warmup(
    inputs: Sequence[ConfigTensor], batch_sizes: Sequence[int]
) -> tuple[WarmUp, ...]:
    """Random floats, and zeros for all else: random bytes are no valid token ids or strings."""
    row = {
        tensor.name: WarmUpInput(
            dtype=tensor.dtype,
            dims=tuple(d if d >= 0 else WARMUP_DYNAMIC_DIM for d in tensor.wire_dims),
            random=tensor.dtype.name.startswith("FP"),
        )
        for tensor in inputs
    }
    return _runs(row, batch_sizes)


def real_warmup(
    inputs: Sequence[ConfigTensor],
    batch_sizes: Sequence[int],
    payloads: Sequence[Payload],
    batched: bool,
) -> tuple[tuple[WarmUp, ...], dict[str, bytes]]:
    """Runs of the largest of real requests, and the files that they read, by name.

    The largest, because a model that has run it need not ask for memory later. The payloads are
    requests of one row that fit the inputs; batched: their first axis is the batch.
    """
    largest = max(payloads, key=lambda payload: sum(a.size for a in payload.values()))
    row, files = {}, {}
    for index, tensor in enumerate(inputs):
        array = np.asarray(largest[tensor.name])
        file = f"input_{index}"
        files[file] = bytes(to_bytes(array, tensor.dtype))
        # A tensor that has nothing but its batch axis goes over the wire with dims [1].
        dims = (array.shape[1:] if batched else array.shape) or (1,)
        row[tensor.name] = WarmUpInput(tensor.dtype, dims, file=file)
    return _runs(row, batch_sizes), files


def warmup_refusals(warmup: Sequence[WarmUp], max_batch_size: int) -> Iterator[str]:
    """What Triton could not run, or the schema cannot hold."""
    most = max(1, max_batch_size)
    for run in warmup:
        if not 1 <= run.batch_size <= most:
            yield f"warm-up batch size {run.batch_size} is not in 1..{most}"
        for name, tensor in run.inputs.items():
            if any(d < 0 for d in tensor.dims):
                yield f"warm-up input '{name}' has dims {list(tensor.dims)}; give all sizes"


def _runs(row: Mapping[str, WarmUpInput], batch_sizes: Sequence[int]) -> tuple[WarmUp, ...]:
    return tuple(WarmUp(f"batch_{size}", size, row) for size in batch_sizes)
