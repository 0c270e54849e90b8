"""A small model behind the arms that need no Triton, for tests that measure it for real.

They do so in a process of its own, because Locust patches the one that it is in.
"""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from onnx.parser import parse_model

from tritonkit.bench.cpus import CpuSets
from tritonkit.bench.progress import Progress
from tritonkit.bench.subject import Comparison, Subject
from tritonkit.client.transport import infer_request
from tritonkit.payloads import load_payloads
from tritonkit.repository.layout import model_file, read_config
from tritonkit.repository.package import Settings, package_model

QUESTION = {"model": "m"}

QUICK = "y = Add(x, x)"
# 2000 products of matrices a run: some milliseconds.
SLOW = (
    "most = Constant <value_int = 2000> () yes = Constant <value_int = 1> ()"
    " go = Cast <to = 9> (yes)"
    " size = Constant <value_ints = [64, 64]> () start = ConstantOfShape (size)"
    " end = Loop (most, go, start) <body = turn (int64 k, bool on, float[64,64] m) =>"
    " (bool more, float[64,64] n) { more = Identity (on) n = MatMul (m, m) }>"
    " sum = ReduceSum <keepdims = 0> (end) y = Add (x, sum)"
)


def make(work: Path, nodes: str = QUICK, **asked: object) -> tuple[Comparison, Subject, Progress]:
    """A comparison of `m` in `work`, gone on with if it was made there before."""
    if not (work / "m.onnx").exists():
        graph = f"g (float[N,4] x) => (float[N,4] y) {{ {nodes} }}"
        onnx.save(parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {graph}'), work / "m.onnx")
        package_model(work / "m.onnx", "m", work / "repository", Settings(8))
    config = read_config(work / "repository", "m")
    payloads, source = load_payloads(work / "repository" / "m", config.wire_inputs, 0)
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    what = Comparison(
        **{
            **{"repository": work / "repository", "model": "m", "slo_p99_ms": 50.0},
            **{"rate_rps": None, "level_s": 0.2, "time_budget_s": 1.0},
            **{"arms": ("ort_baseline", "ort_batcher"), **asked},
        }
    )
    subject = Subject(
        config=config,
        file=model_file(work / "repository", "m"),
        payloads=payloads,
        payload_source=source,
        requests=[infer_request("m", p, ["y"]) for p in payloads],
        answers=[],
        cpus=CpuSets(cpus, cpus),
    )
    return what, subject, Progress(work / "progress.jsonl", QUESTION)
