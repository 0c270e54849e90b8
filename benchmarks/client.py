"""The kit's clients against those that people use now, on the same server, turn by turn.

    python benchmarks/client.py                    all, some 15 minutes on a quiet machine
    python benchmarks/client.py --only pytriton    what has the word in its name
    python benchmarks/client.py --quick            whether it runs; the figures mean nothing

A row's ratio is that of requests per second, ours to theirs. Exits 1 if one is below its bar
or cannot be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytriton_client
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from rounds import Arm, Ratio, compare, tasks, threads
from serving import LARGE, SMALL, serving

from tritonkit import AsyncClient, Client
from tritonkit.client import placement
from tritonkit.server.interface import Endpoints

TIMEOUT_S = 30.0  # of every client
CONCURRENCIES = (1, 4, 16)
MB_4 = 1024  # rows of LARGE
CROSSOVER_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Comparison:
    """bar: the ratio that is expected at least; None if it is for information only."""

    what: str
    x: np.ndarray
    ours: Arm
    theirs: Arm
    bar: float | None
    concurrencies: tuple[int, ...] = CONCURRENCIES
    tasks: bool = False


@dataclass(frozen=True)
class Row:
    """A comparison's outcome. problem: why there are no figures."""

    what: str
    concurrency: int
    bar: float | None
    figures: Ratio | None
    problem: str = ""

    @property
    def missed(self) -> bool:
        """Whether it is below its bar, or has no figures."""
        return self.figures is None or (self.bar is not None and self.figures.ratio < self.bar)


# Ours


@contextmanager
def ours(address: str, model: str, x: np.ndarray, **options: Any) -> Iterator[Callable[[], Any]]:
    """tritonkit.Client."""
    with Client(address, timeout_s=TIMEOUT_S, **options) as client:
        yield lambda: client.infer(model, x)["y"]


@contextmanager
def ours_over_shared_memory(address: str, model: str, x: np.ndarray) -> Iterator[Callable[[], Any]]:
    """tritonkit.Client that uses shared memory however small the tensors are."""
    usual, placement.WORTH_BYTES = placement.WORTH_BYTES, 1
    try:
        with ours(address, model, x, shared_memory=True) as call:
            yield call
    finally:
        placement.WORTH_BYTES = usual


@asynccontextmanager
async def ours_async(address: str, model: str, x: np.ndarray) -> AsyncIterator[Callable[[], Any]]:
    """tritonkit.AsyncClient."""
    async with AsyncClient(address, timeout_s=TIMEOUT_S) as client:

        async def call() -> Any:
            return (await client.infer(model, x))["y"]

        yield call


# Theirs, as their documentation has it


@contextmanager
def triton_grpc(address: str, model: str, x: np.ndarray) -> Iterator[Callable[[], Any]]:
    """tritonclient.grpc. Its client_timeout is set, as without it gRPC has a little less to do."""
    with tritonclient.grpc.InferenceServerClient(address) as client:

        def call() -> Any:
            given = tritonclient.grpc.InferInput("x", x.shape, "FP32")
            given.set_data_from_numpy(x)
            return client.infer(model, [given], client_timeout=TIMEOUT_S).as_numpy("y")

        yield call


@asynccontextmanager
async def triton_grpc_aio(
    address: str, model: str, x: np.ndarray
) -> AsyncIterator[Callable[[], Any]]:
    """tritonclient.grpc.aio."""
    async with tritonclient.grpc.aio.InferenceServerClient(address) as client:

        async def call() -> Any:
            given = tritonclient.grpc.aio.InferInput("x", x.shape, "FP32")
            given.set_data_from_numpy(x)
            return (await client.infer(model, [given], client_timeout=TIMEOUT_S)).as_numpy("y")

        yield call


@contextmanager
def triton_http(address: str, model: str, x: np.ndarray) -> Iterator[Callable[[], Any]]:
    """tritonclient.http, which must stay in the thread that it was made in."""
    timeouts = {"connection_timeout": TIMEOUT_S, "network_timeout": TIMEOUT_S}
    with tritonclient.http.InferenceServerClient(address, **timeouts) as client:

        def call() -> Any:
            given = tritonclient.http.InferInput("x", x.shape, "FP32")
            given.set_data_from_numpy(x)
            return client.infer(model, [given]).as_numpy("y")

        yield call


@asynccontextmanager
async def triton_http_aio(
    address: str, model: str, x: np.ndarray
) -> AsyncIterator[Callable[[], Any]]:
    """tritonclient.http.aio."""
    async with tritonclient.http.aio.InferenceServerClient(
        address, conn_timeout=TIMEOUT_S
    ) as client:

        async def call() -> Any:
            given = tritonclient.http.InferInput("x", x.shape, "FP32")
            given.set_data_from_numpy(x)
            return (await client.infer(model, [given])).as_numpy("y")

        yield call


@contextmanager
def pytriton(url: str, model: str, x: np.ndarray, *, verb: str) -> Iterator[Callable[[], Any]]:
    """pytriton's ModelClient; as it wraps the above, one for each thread. It sets the timeout."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its gRPC has no other timeouts
        client = pytriton_client.model_client()(url, model, inference_timeout_s=TIMEOUT_S)
    with client:
        infer = getattr(client, verb)
        yield lambda: infer(x)["y"]


def comparisons(at: Endpoints) -> list[Comparison]:
    """All that is compared, on a server at these endpoints."""
    assert at.grpc is not None
    grpc, http = f"grpc://{at.grpc}", f"http://{at.http}"
    batch = np.arange(64, dtype=np.float32).reshape(1, 64)
    row = batch[0]
    large = np.arange(MB_4 * 1024, dtype=np.float32).reshape(MB_4, 1024)

    def arm(opens: Callable[..., Any], address: str, model: str, x: np.ndarray, **more: Any) -> Arm:
        each = opens in (triton_http, pytriton)
        return Arm(partial(opens, address, model, x, **more), each)

    found = [
        Comparison(
            "Client, gRPC : tritonclient.grpc",
            batch,
            arm(ours, grpc, SMALL, batch),
            arm(triton_grpc, at.grpc, SMALL, batch),
            0.95,
        ),
        Comparison(
            "AsyncClient, gRPC : tritonclient.grpc.aio",
            batch,
            arm(ours_async, grpc, SMALL, batch),
            arm(triton_grpc_aio, at.grpc, SMALL, batch),
            0.95,
            tasks=True,
        ),
        Comparison(
            "Client, HTTP : tritonclient.http",
            batch,
            arm(ours, http, SMALL, batch),
            arm(triton_http, at.http, SMALL, batch),
            0.95,
        ),
        Comparison(
            "AsyncClient, HTTP : tritonclient.http.aio",
            batch,
            arm(ours_async, http, SMALL, batch),
            arm(triton_http_aio, at.http, SMALL, batch),
            None,
            tasks=True,
        ),
    ]
    for protocol, address in (("gRPC", grpc), ("HTTP", http)):
        for verb, x in (("infer_batch", batch), ("infer_sample", row)):
            found.append(
                Comparison(
                    f"Client, {protocol} : pytriton {verb}",
                    x,
                    arm(ours, address, SMALL, x),
                    arm(pytriton, address, SMALL, x, verb=verb),
                    1.0,
                )
            )
    for protocol, address in (("gRPC", grpc), ("HTTP", http)):
        found.append(
            Comparison(
                f"{protocol}, 4 MB, shared memory : wire",
                large,
                arm(ours, address, LARGE, large, shared_memory=True),
                arm(ours, address, LARGE, large, shared_memory=False),
                1.0,
                concurrencies=(1, 4),
            )
        )
    for protocol, address in (("gRPC", grpc), ("HTTP", http)):
        for rows in CROSSOVER_ROWS:
            x = large[:rows]
            found.append(
                Comparison(
                    f"{protocol}, crossover {4 * rows} kB, shared memory : wire",
                    x,
                    arm(ours_over_shared_memory, address, LARGE, x),
                    arm(ours, address, LARGE, x, shared_memory=False),
                    None,
                    concurrencies=(1,),
                )
            )
    return found


def measure(
    comparison: Comparison, concurrency: int, runner: asyncio.Runner, rounds: int, turn_s: float
) -> Row:
    """One row. Both arms' answers are checked first, in each thread."""
    right = comparison.x + comparison.x

    def check(y: np.ndarray) -> None:
        np.testing.assert_array_equal(y, right, strict=True)

    at_work = partial(tasks, runner=runner) if comparison.tasks else threads
    figures, problem = None, ""
    try:
        with (
            at_work(comparison.ours, concurrency, check) as ours_turn,
            at_work(comparison.theirs, concurrency, check) as theirs_turn,
        ):
            figures = compare(ours_turn, theirs_turn, rounds=rounds, turn_s=turn_s)
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
    return Row(comparison.what, concurrency, comparison.bar, figures, problem)


HEAD = f"{'what':50}{'at once':>8}{'ours/s':>8}{'theirs/s':>9}{'CPU us: ours':>13}{'theirs':>7}" + (
    f"{'ratio':>7} {'95% interval':14}{'bar':>5}"
)


def line(row: Row) -> str:
    """A row of the table."""
    start = f"{row.what:50}{row.concurrency:8}"
    bar = f"{row.bar:5.2f}" if row.bar is not None else "    –"
    verdict = "MISSED" if row.missed else "" if row.bar is None else "ok"
    if row.figures is None:
        return f"{start}  not measured: {row.problem} {verdict}"
    f = row.figures
    return (
        f"{start}{f.ours_per_s:8.0f}{f.theirs_per_s:9.0f}{f.ours_cpu_us:13.0f}"
        f"{f.theirs_cpu_us:7.0f}{f.ratio:7.3f} {f.low:6.3f}–{f.high:<6.3f} {bar}  {verdict}"
    )


def as_json(row: Row) -> dict[str, Any]:
    """A row as the JSON file has it."""
    figures = row.figures._asdict() if row.figures is not None else None
    return {**asdict(row), "figures": figures, "missed": row.missed}


def main() -> int:
    parser = argparse.ArgumentParser(description="The kit's clients against others, turn by turn.")
    parser.add_argument("--rounds", type=int, default=60, help="a turn of each in a round (60)")
    parser.add_argument("--turn-s", type=float, default=0.1, help="length of a turn (0.1)")
    parser.add_argument("--only", default="", help="the rows with this text in their name")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 10 ms: a smoke run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    asked = parser.parse_args()
    rounds, turn_s = (2, 0.01) if asked.quick else (asked.rounds, asked.turn_s)
    rows = []
    print(HEAD)
    with serving() as endpoints, asyncio.Runner() as runner:
        for comparison in comparisons(endpoints):
            if asked.only in comparison.what:
                for concurrency in comparison.concurrencies:
                    rows.append(measure(comparison, concurrency, runner, rounds, turn_s))
                    print(line(rows[-1]), flush=True)
    missed = [row for row in rows if row.missed]
    print(f"{len(missed)} of {len(rows)} rows missed")
    if asked.json is not None:
        packages = ("tritonkit", "tritonclient", "grpcio", "numpy")
        written = {
            "rounds": rounds,
            "turn_s": turn_s,
            "versions": {name: version(name) for name in packages},
            "rows": [as_json(row) for row in rows],
        }
        asked.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
