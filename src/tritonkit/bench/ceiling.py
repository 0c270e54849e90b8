"""The in-process ceiling: what bare ONNX Runtime reaches at each batch size.

It is measured in a process of its own: the load generator's process is patched for gevent, in
which threads do not run side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from tritonkit.bench.arms import candidates
from tritonkit.bench.result import Ceiling, CeilingPoint
from tritonkit.errors import ServerError
from tritonkit.payloads import load_payloads
from tritonkit.repository import pbtxt
from tritonkit.repository.config import ModelConfig
from tritonkit.repository.layout import model_file, read_config
from tritonkit.repository.tensors import to_model
from tritonkit.server.onnxruntime_backend.session import open_session
from tritonkit.signature import read_signature

# Of each point, twice, the better counts: a ceiling is the most that was ever reached.
MEASURE_S = 0.12
REPEATS = 2


def measure_ceiling(repository: Path, model: str, cpus: Sequence[int]) -> Ceiling:
    """Time the session at the arms' own threads × instances and at each batch size, on these CPUs:
    those that the servers have.
    """
    # -P: a folder called numpy/ in the user's working folder must not be imported.
    module = [sys.executable, "-P", "-m", "tritonkit.bench.ceiling"]
    command = [*module, str(repository), model, *map(str, cpus)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ServerError(f"the in-process run of {model} failed: {reason}")
    points = tuple(CeilingPoint(**point) for point in json.loads(done.stdout))
    best = max(points, key=lambda p: p.ips)
    return Ceiling(
        batch1_ips=max(p.ips for p in points if p.batch == 1),
        best_ips=best.ips,
        best_batch=best.batch,
        best_threads=best.threads,
        best_instances=best.instances,
        points=points,
    )


def batch_sizes(max_batch_size: int) -> tuple[int, ...]:
    """Powers of two up to the most, and the most itself."""
    sizes = [2**i for i in range(max_batch_size.bit_length()) if 2**i < max_batch_size]
    return (*sizes, max_batch_size)


def _points(
    file: Path, config: ModelConfig, row: Mapping[str, np.ndarray], cpus: int
) -> list[CeilingPoint]:
    """row: one request as the model takes it, each array with a leading dimension of 1; a batch is
    that row repeated.
    """
    points = []
    for threads, instances in candidates("triton_batched", cpus):
        settings = pbtxt.as_json(replace(config, intra_op_threads=threads))
        sessions = [open_session(file, settings) for _ in range(instances)]
        for batch in batch_sizes(config.max_batch_size):
            inputs = {name: np.repeat(array, batch, axis=0) for name, array in row.items()}
            runs_per_s = max(_runs_per_s(sessions, inputs) for _ in range(REPEATS))
            points.append(CeilingPoint(threads, instances, batch, batch * runs_per_s))
    return points


def _runs_per_s(sessions: list[Any], inputs: Mapping[str, np.ndarray]) -> float:
    def work(session: Any) -> float:
        session.run(None, inputs)
        runs, start = 0, time.perf_counter()
        while (passed := time.perf_counter() - start) < MEASURE_S:
            session.run(None, inputs)
            runs += 1
        return runs / passed

    with ThreadPoolExecutor(len(sessions)) as pool:
        return sum(pool.map(work, sessions))


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("model")
    parser.add_argument("cpus", type=int, nargs="+")
    arguments = parser.parse_args()
    repository, model = arguments.repository, arguments.model
    if hasattr(os, "sched_setaffinity"):  # it was started by the generator, on whose CPUs it is
        os.sched_setaffinity(0, arguments.cpus)
    file, config = model_file(repository, model), read_config(repository, model)
    payloads, _ = load_payloads(repository / model, config.wire_inputs)
    # The median payload: where lengths vary, the row that stands for most of them.
    row = sorted(payloads, key=lambda p: sum(a.size for a in p.values()))[len(payloads) // 2]
    row = to_model(row, read_signature(file).inputs)
    points = _points(file, config, row, len(arguments.cpus))
    sys.stdout.write(json.dumps([asdict(point) for point in points]))


if __name__ == "__main__":
    _main()
