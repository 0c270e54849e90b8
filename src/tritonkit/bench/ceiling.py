"""The in-process ceiling: what the bare ONNX Runtime session reaches at each batch size."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tritonkit.bench.result import Ceiling, CeilingPoint
from tritonkit.repository import pbtxt
from tritonkit.repository.config import ModelConfig
from tritonkit.server.onnxruntime_backend.session import open_session

# Per point: long enough for some dozens of runs of a 10 ms model.
MEASURE_S = 0.3


def batch_sizes(max_batch_size: int) -> tuple[int, ...]:
    """Powers of two up to the most, and the most itself."""
    sizes = [2**i for i in range(max_batch_size.bit_length()) if 2**i < max_batch_size]
    return (*sizes, max_batch_size)


def measure_ceiling(
    file: Path, config: ModelConfig, row: Mapping[str, np.ndarray], threads: tuple[int, ...]
) -> Ceiling:
    """Time the session at each thread count and batch size, with the arms' own session options.

    row: one request, each array with a leading dimension of 1; a batch is that row repeated.
    """
    points = []
    for count in threads:
        session = open_session(
            file, pbtxt.as_json(dataclasses.replace(config, intra_op_threads=count))
        )
        for batch in batch_sizes(config.max_batch_size):
            inputs = {name: np.repeat(array, batch, axis=0) for name, array in row.items()}
            points.append(CeilingPoint(count, batch, batch * _runs_per_s(session, inputs)))
    best = max(points, key=lambda p: p.ips)
    return Ceiling(
        batch1_ips=max(p.ips for p in points if p.batch == 1),
        best_ips=best.ips,
        best_batch=best.batch,
        best_threads=best.threads,
        points=tuple(points),
    )


def _runs_per_s(session: object, inputs: Mapping[str, np.ndarray]) -> float:
    run = session.run  # type: ignore[attr-defined]
    for _ in range(2):
        run(None, inputs)
    runs, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < MEASURE_S or runs < 3:
        run(None, inputs)
        runs += 1
    return runs / passed
