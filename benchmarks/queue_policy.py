"""What a bound or a timeout on Triton's queue costs, below it and beyond it.

    python benchmarks/queue_policy.py           some three minutes

One model that sleeps 8 ms and 0.5 ms a row, up to 8 rows a run, behind four queue policies; each
gets the same Poisson arrivals. `none` at the last rate is overloaded, and shows what the others
refuse. Nothing here computes, so what differs is the batcher. Fails with 1 if a policy costs more
than a tenth of p99 where it refuses nothing, which Triton 2.51 does.
"""

from __future__ import annotations

from tritonkit.load.runner import Level, run_level  # first: it prepares gevent

# isort: split
import logging
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tritonkit.client.client import Client
from tritonkit.client.transport import infer_request
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.server.triton_wheel import fetch_triton

POLICIES = {
    "none": "",
    "size_1000": "max_queue_size: 1000",
    "size_16": "max_queue_size: 16",
    "timeout_5_s": "default_timeout_microseconds: 5000000",
}
RATES_RPS = (60.0, 150.0, 400.0, 700.0)
LEVEL_S = 8.0
ROW = "{:>10}  {:<12}{:>9}{:>9}{:>9}{:>9}{:>9}"
CONFIG = """
    name: "{name}" backend: "python" max_batch_size: 8
    input [{{ name: "x" data_type: TYPE_FP32 dims: [1] }}]
    output [{{ name: "y" data_type: TYPE_FP32 dims: [1] }}]
    instance_group [{{ kind: KIND_CPU count: 1 }}]
    dynamic_batching {{ default_queue_policy {{ {policy} }} }}
"""
MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        until = time.perf_counter() + 0.008 + 0.0005 * len(requests)
        y = np.zeros((1, 1), np.float32)
        answers = [
            pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("y", y)]) for _ in requests
        ]
        time.sleep(max(0.0, until - time.perf_counter()))
        return answers
"""


class Seen(NamedTuple):
    """What a level saw. stalled: answers after 400 ms or more."""

    answered: int
    refused: int
    p50_ms: float
    p99_ms: float
    stalled: int


def _level(address: str, model: str, rate_rps: float) -> Seen:
    requests = [infer_request(model, {"x": np.ones((1, 1), np.float32)})]
    run = run_level(address, requests, Level("open", rate_rps, LEVEL_S, 7), connections=256)
    good = np.array([(s.done_ns - s.intended_ns) / 1e6 for s in run.samples if not s.error])
    p50_ms, p99_ms = np.percentile(good, [50, 99], method="inverted_cdf")
    refused = len(run.samples) - len(good)
    return Seen(len(good), refused, float(p50_ms), float(p99_ms), int((good >= 400).sum()))


def main() -> None:
    logging.getLogger("locust").setLevel(logging.ERROR)  # all connections at once are wanted
    fetch_triton()
    worse = False
    with tempfile.TemporaryDirectory(prefix="tritonkit-benchmark-") as folder:
        work = Path(folder)
        for name, policy in POLICIES.items():
            version = work / "repository" / name / "1"
            version.mkdir(parents=True)
            (version / "model.py").write_text(MODEL)
            (version.parent / "config.pbtxt").write_text(CONFIG.format(name=name, policy=policy))
        with EmbeddedTriton(work / "repository", log=work / "log", drain=False) as server:
            address = f"http://{server.endpoints.http}"
            with Client(address) as client:
                for name in POLICIES:  # the first run of an instance is slow
                    client.infer(name, {"x": np.ones((1, 1), np.float32)})
            print(ROW.format("requests/s", "policy", *Seen._fields))
            for rate_rps in RATES_RPS:
                seen = {name: _level(address, name, rate_rps) for name in POLICIES}
                for name, s in seen.items():
                    told = (s.answered, s.refused, f"{s.p50_ms:.1f}", f"{s.p99_ms:.1f}", s.stalled)
                    print(ROW.format(f"{rate_rps:g}", name, *told), flush=True)
                    if not s.refused and rate_rps < RATES_RPS[-1]:
                        worse |= s.p99_ms > 1.1 * seen["none"].p99_ms
    sys.exit(int(worse))


if __name__ == "__main__":
    main()
