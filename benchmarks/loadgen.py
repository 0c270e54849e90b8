"""The kit's load generator beside MLPerf LoadGen, on one server and at the same Poisson rate.

    python benchmarks/loadgen.py           some ten minutes
    python benchmarks/loadgen.py --quick   whether it runs; the figures mean little

LoadGen decides when a query is due (its Server scenario: a Poisson process) and measures; the kit's
Client sends the queries, from a pool of threads. Both count latency from when a request was due,
LoadGen too: one that is issued late has waited. The two take turns, A B, B A, …; the ratios are
the medians of the rounds' ratios. Exits 1 if one of them is beyond 10 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WITHIN = 0.1
RATES_RPS = (50.0, 100.0, 200.0)
AT_ONCE = 32
"""Connections of ours, threads of LoadGen's: each more costs LoadGen's process CPU."""

WIDTHS = (512, 2048, 2048, 2048, 1)


class Seen(NamedTuple):
    """What a generator saw in one turn. requests: answered."""

    requests: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Row:
    """Both at one rate. The ratios are ours to LoadGen's, each with its 95 % interval."""

    rate_rps: float
    ours: Seen
    loadgen: Seen
    p50: tuple[float, float, float]
    p99: tuple[float, float, float]

    @property
    def missed(self) -> bool:
        return any(abs(ratio - 1) > WITHIN for ratio, _, _ in (self.p50, self.p99))


def by_ours(
    address: str, model: str, rate_rps: float, duration_s: float, seed: int, at_once: int
) -> Seen:
    """One turn of the kit's generator, in this process, which it patches for gevent."""
    from tritonkit.load.runner import Level, run_level  # isort: skip
    from tritonkit import Client
    from tritonkit.load.requests import make_requests
    from tritonkit.stats.latency import summarise

    with Client(address, shared_memory=False) as client:
        requests, _ = make_requests(client.spec(model))
    level = Level("open", rate_rps, duration_s, seed)
    samples = run_level(address, requests, level, connections=at_once).samples
    stats = summarise(samples, duration_s=duration_s, open_loop=True)
    if stats.errors or stats.p50_ms is None or stats.p99_ms is None:
        raise SystemExit(f"{stats.errors} errors: {stats.error_kinds}")
    return Seen(stats.requests, stats.p50_ms, stats.p99_ms)


def by_loadgen(
    address: str, model: str, rate_rps: float, duration_s: float, seed: int, at_once: int
) -> Seen:
    """One turn of LoadGen, in this process, all of whose threads run ahead of others if they may,
    as those of the kit's generator do.
    """
    import mlperf_loadgen as loadgen

    from tritonkit import Client
    from tritonkit.payloads import random_payloads

    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    count = round(rate_rps * duration_s)
    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.Server
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.server_target_qps = rate_rps
    settings.server_target_latency_ns = 10**9  # what it calls valid is not asked here
    settings.min_duration_ms = 0
    settings.min_query_count = settings.max_query_count = count
    settings.schedule_rng_seed = seed
    failures: list[BaseException] = []
    with (
        Client(address, shared_memory=False) as client,
        tempfile.TemporaryDirectory(prefix="tritonkit-benchmark-") as logs,
        _threads(at_once) as pool,
    ):
        payloads = random_payloads(client.spec(model).signature, 64, 0)
        log = loadgen.LogSettings()
        log.log_output.outdir = logs
        log.enable_trace = False

        def send(query: int, sample: int) -> None:
            client.infer(model, payloads[sample])
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query, 0, 0)])

        def over(sent: Future[None], query: int) -> None:
            if (error := sent.exception()) is not None:
                failures.append(error)
                loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query, 0, 0)])

        def issue(queries: list[Any]) -> None:
            for query in queries:
                number = query.id
                pool.submit(send, number, query.index).add_done_callback(
                    lambda sent, number=number: over(sent, number)
                )

        system = loadgen.ConstructSUT(issue, lambda: None)
        library = loadgen.ConstructQSL(len(payloads), len(payloads), _nothing, _nothing)
        loadgen.StartTestWithLogSettings(system, library, settings, log)
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)
        if failures:
            raise SystemExit(f"{len(failures)} errors, such as {failures[0]}")
        said = _read_log(Path(logs) / "mlperf_log_detail.txt")
    p50, p99 = (said[f"result_{q}.00_percentile_latency_ns"] / 1e6 for q in (50, 99))
    return Seen(count, p50, p99)


def _nothing(_: list[int]) -> None:
    """The samples are in memory as they are."""


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """All there from the beginning: making one takes longer than many a request."""
    with ThreadPoolExecutor(count) as pool:
        met = threading.Barrier(count)
        for thread in [pool.submit(met.wait) for _ in range(count)]:
            thread.result()
        yield pool


def _read_log(path: Path) -> dict[str, Any]:
    """The keys and values of LoadGen's detailed log."""
    entries = (line.partition(":::MLLOG ")[2] for line in path.read_text().splitlines())
    found = [json.loads(entry) for entry in entries if entry]
    return {entry["key"]: entry["value"] for entry in found}


GENERATORS = {"ours": by_ours, "loadgen": by_loadgen}


def turn(by: str, *arguments: Any) -> Seen:
    """One turn, in a process of its own: the one generator patches it, the other must not be."""
    command = [sys.executable, __file__, "--turn", json.dumps([by, *arguments])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{by} at {arguments}: {done.stderr}")
    return Seen(*json.loads(done.stdout))


def compare(address: str, model: str, rate_rps: float, rounds: int, duration_s: float) -> Row:
    """Let both take turns."""
    from rounds import interval

    seen: dict[str, list[Seen]] = {by: [] for by in GENERATORS}
    for number in range(rounds):
        for by in GENERATORS if number % 2 else reversed(GENERATORS):
            seen[by].append(turn(by, address, model, rate_rps, duration_s, number, AT_ONCE))
    ours, theirs = (np.array(turns) for turns in seen.values())  # round, field of Seen
    ratios = ours / theirs
    p50, p99 = ((float(np.median(r)), *interval(r)) for r in (ratios[:, 1], ratios[:, 2]))
    medians = (Seen(*np.median(turns, axis=0).tolist()) for turns in (ours, theirs))
    return Row(rate_rps, *medians, p50, p99)


@contextmanager
def serving() -> Iterator[str]:
    """The address of the embedded Triton with a model `mlp`, whose runs take some milliseconds:
    as wide as the example `ranker`, so a batch costs little more than a row.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from tritonkit.repository.package import Settings, package_model
    from tritonkit.server.embedded import EmbeddedTriton
    from tritonkit.server.triton_wheel import fetch_triton

    fetch_triton()
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for i, shape in enumerate(pairwise(WIDTHS)):
        values = random.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0]))
        weights.append(numpy_helper.from_array(values, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [f"h{i - 1}" if i else "x", f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("Tanh", [f"m{i}"], [f"h{i}"]))
    nodes[-1].output[0] = "y"
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
        for name, width in (("x", WIDTHS[0]), ("y", WIDTHS[-1]))
    )
    graph = helper.make_graph(nodes, "mlp", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with tempfile.TemporaryDirectory(prefix="tritonkit-benchmark-") as folder:
        work = Path(folder)
        onnx.save(model, work / "model.onnx")
        package_model(work / "model.onnx", "mlp", work / "repository", Settings(64))
        log = work / "triton.log"
        with EmbeddedTriton(work / "repository", log=log, drain=False) as server:
            yield f"http://{server.endpoints.http}"


HEAD = (
    f"{'requests/s':>10}{'a turn':>8}{'p50 ms: ours':>14}{'LoadGen':>9}{'ratio':>7} "
    f"{'95% interval':14}{'p99 ms: ours':>13}{'LoadGen':>9}{'ratio':>7} {'95% interval':14}"
)


def line(row: Row) -> str:
    """A row of the table."""
    text = f"{row.rate_rps:10g}{row.ours.requests:8.0f}"
    pairs = ((14, "p50_ms", row.p50), (13, "p99_ms", row.p99))
    for width, name, (ratio, low, high) in pairs:
        ours, loadgen = getattr(row.ours, name), getattr(row.loadgen, name)
        text += f"{ours:{width}.2f}{loadgen:9.2f}{ratio:7.3f} {low:6.3f}–{high:<7.3f}"
    return f"{text} {'MISSED' if row.missed else 'ok'}"


def as_json(row: Row) -> dict[str, Any]:
    """A row as the JSON file has it."""
    both = {"ours": row.ours._asdict(), "loadgen": row.loadgen._asdict()}
    return {**asdict(row), **both, "missed": row.missed}


def main() -> int:
    parser = argparse.ArgumentParser(description="The kit's load generator beside MLPerf LoadGen.")
    parser.add_argument("--rounds", type=int, default=6, help="a turn of each in a round (6)")
    parser.add_argument("--turn-s", type=float, default=12.0, help="length of a turn (12)")
    parser.add_argument("--quick", action="store_true", help="one turn of 1 s each: a smoke run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    parser.add_argument("--turn", type=json.loads, help=argparse.SUPPRESS)  # what turn() starts
    asked = parser.parse_args()
    if asked.turn is not None:
        by, *arguments = asked.turn
        print(json.dumps(GENERATORS[by](*arguments)))
        return 0
    rounds, turn_s = (1, 1.0) if asked.quick else (asked.rounds, asked.turn_s)
    rows = []
    print(HEAD)
    with serving() as address:
        for rate_rps in RATES_RPS[-1:] if asked.quick else RATES_RPS:
            turn("ours", address, "mlp", rate_rps, 2.0, 0, AT_ONCE)  # the server warms up
            rows.append(compare(address, "mlp", rate_rps, rounds, turn_s))
            print(line(rows[-1]), flush=True)
    if asked.json is not None:
        written = {
            "rounds": rounds,
            "turn_s": turn_s,
            "versions": {name: version(name) for name in ("tritonkit", "mlcommons-loadgen")},
            "rows": [as_json(row) for row in rows],
        }
        asked.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return 1 if any(row.missed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
