"""Whether the client's process grows, in memory, threads or sockets, with the requests it sends.

    python benchmarks/client_memory.py                   4 x 100,000 requests, some 5 minutes
    python benchmarks/client_memory.py --requests 20000  fewer, so a leak must be larger to be seen
    python benchmarks/client_memory.py --leak 64         keeps 64 bytes a request: has to fail
    python benchmarks/client_memory.py --quick           whether it runs; the figures mean nothing

After a warm-up the resident memory is taken at equal distances and made into ten blocks' medians.
Memory goes up and down by chance, and once in a while by a step that stays; a leak goes up in
every block. So what is judged is the mean of the nine differences between the blocks against its
standard error, as one judges the drift of a random walk. Exits 1 if anything trends.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from serving import SMALL, serving

from tritonkit import Client
from tritonkit.server.interface import Endpoints

SAMPLES = 100  # of the memory; with the warm-up that is a twentieth more requests
BLOCKS = 10
# A trend is a drift of more than so many standard errors, and of more than so many bytes a request:
# the smallest Python object that a request might leave behind has twice as many.
ERRORS = 3.0
BYTES = 8.0

X = np.arange(64, dtype=np.float32).reshape(1, 64)


@dataclass(frozen=True)
class Sample:
    """What the process has. connections: TCP, this process's."""

    requests: int
    rss_bytes: int
    threads: int
    connections: int


@dataclass(frozen=True)
class Drift:
    """The growth of memory between the first and the last block, and for each request."""

    growth_mb: float
    bytes_per_request: float
    error: float

    @property
    def trends(self) -> bool:
        """Whether it is a leak."""
        return self.bytes_per_request > max(BYTES, ERRORS * self.error)


@dataclass(frozen=True)
class Row:
    """before: there was a client; after: it was closed."""

    what: str
    requests: int
    per_s: float
    before: Sample
    after: Sample
    drift: Drift
    more_threads: int
    more_connections: int

    @property
    def failed(self) -> bool:
        """Whether anything grew with the requests, or a connection is left."""
        left = self.after.connections > self.before.connections
        return self.drift.trends or self.more_threads > 0 or self.more_connections > 0 or left


def sample(requests: int = 0) -> Sample:
    """Of this process, now."""
    me = psutil.Process()
    return Sample(
        requests, me.memory_info().rss, me.num_threads(), len(me.net_connections(kind="tcp"))
    )


def drift(samples: list[Sample]) -> Drift:
    """How the memory moved; see above."""
    blocks = np.array_split(np.array([s.rss_bytes for s in samples], float), BLOCKS)
    medians = np.array([np.median(block) for block in blocks])
    per_block = (
        (samples[-1].requests - samples[0].requests) / (len(samples) - 1) * (len(samples) / BLOCKS)
    )
    steps = np.diff(medians) / per_block
    error = float(np.std(steps, ddof=1)) / math.sqrt(len(steps))
    return Drift(float(medians[-1] - medians[0]) / 1e6, float(np.mean(steps)), error)


def more(samples: list[Sample], of: Callable[[Sample], int]) -> int:
    """By how much the fewest of the last block exceed the most of the first."""
    size = len(samples) // BLOCKS
    return max(0, min(map(of, samples[-size:])) - max(map(of, samples[:size])))


def with_infer(client: Client, count: int) -> Iterator[Any]:
    """One request after the other."""
    for _ in range(count):
        yield client.infer(SMALL, X)


def with_map(client: Client, count: int) -> Iterator[Any]:
    """`map` over a generator, which makes each item anew."""
    return client.map(SMALL, (X.copy() for _ in range(count)))


def measure(
    what: str,
    address: str,
    answers: Callable[[Client, int], Iterator[Any]],
    requests: int,
    leak_bytes: int,
) -> Row:
    """Send the warm-up and the requests through one client."""
    every, warm_up = requests // SAMPLES, requests // 20
    kept: list[bytes] = []
    samples: list[Sample] = []
    before = sample()
    began_s = time.perf_counter()
    with Client(address) as client:
        np.testing.assert_array_equal(client.infer(SMALL, X)["y"], X + X, strict=True)
        for i, _ in enumerate(answers(client, warm_up + requests)):
            if leak_bytes:
                kept.append(bytes(leak_bytes))
            if i >= warm_up and (i - warm_up) % every == 0:
                samples.append(sample(i))
    took_s = time.perf_counter() - began_s
    return Row(
        *(what, requests, (warm_up + requests) / took_s, before, sample(), drift(samples)),
        more_threads=more(samples, lambda s: s.threads),
        more_connections=more(samples, lambda s: s.connections),
    )


HEAD = (
    f"{'what':12}{'requests':>9}{'/s':>7}{'growth MB':>11}{'bytes a request':>17}"
    f"{'threads before, after, more':>29}{'connections':>13}"
)


def line(row: Row) -> str:
    """A row of the table."""
    slope = f"{row.drift.bytes_per_request:.1f} ± {row.drift.error:.1f}"
    threads = f"{row.before.threads}, {row.after.threads}, {row.more_threads}"
    connections = f"{row.before.connections}, {row.after.connections}, {row.more_connections}"
    return (
        f"{row.what:12}{row.requests:9}{row.per_s:7.0f}{row.drift.growth_mb:11.2f}{slope:>17}"
        f"{threads:>29}{connections:>13}  {'TRENDS' if row.failed else 'ok'}"
    )


def measure_all(at: Endpoints, requests: int, leak_bytes: int) -> Iterator[Row]:
    """Both protocols, both ways; each in a new process, as what one freed the next would use."""
    for protocol, address in (("gRPC", f"grpc://{at.grpc}"), ("HTTP", f"http://{at.http}")):
        for verb, answers in (("infer", with_infer), ("map", with_map)):
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                given = (f"{protocol}, {verb}", address, answers, requests, leak_bytes)
                yield process.submit(measure, *given).result()


def main() -> int:
    parser = argparse.ArgumentParser(description="Whether the client's process grows.")
    parser.add_argument("--requests", type=int, default=100_000, help="of each kind (100,000)")
    parser.add_argument("--leak", type=int, default=0, metavar="BYTES", help="keep so many of each")
    parser.add_argument("--quick", action="store_true", help="300 requests: a smoke run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    asked = parser.parse_args()
    requests = 300 if asked.quick else asked.requests
    if requests < SAMPLES:
        parser.error(f"--requests is {requests}; it must be at least {SAMPLES}")
    rows = []
    print(HEAD)
    with serving() as endpoints:
        for row in measure_all(endpoints, requests, asked.leak):
            rows.append(row)
            print(line(row), flush=True)
    if asked.json is not None:
        written = [{**asdict(r), "failed": r.failed, "trends": r.drift.trends} for r in rows]
        asked.json.write_text(json.dumps({"rows": written}, indent=1) + "\n", encoding="utf-8")
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
