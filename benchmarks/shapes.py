"""What Triton's batcher costs while requests of different shapes wait for an instance.

    python benchmarks/shapes.py         half a minute, after `make models`

`text_embedder`, whose requests have a length each, with a batcher and without one: four users in a
closed loop, in turn, and the CPU time of Triton's busiest thread meanwhile (none of which computes:
runs are in processes of their own). It says what is; there is no bar.
"""

from __future__ import annotations

from tritonkit.load.runner import Level, run_level  # first: it prepares gevent

# isort: split
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from tritonkit.bench.subject import prepare
from tritonkit.plan.settings import Settings
from tritonkit.planning.variants import variants
from tritonkit.profile.sweep import Target
from tritonkit.repository.config import DynamicBatching

REPOSITORY = Path(__file__).parents[1] / "model_repository"
MODEL, ROWS, USERS = "text_embedder", 32, 4
ROUNDS, LEVEL_S = 6, 2.0
ARMS = {
    "without a batcher": Settings(ROWS, None, 2, 1),
    "with one": Settings(ROWS, DynamicBatching(), 2, 1),
}


def _threads_s() -> dict[int, float]:
    """CPU time of each of Triton's threads."""
    found = {}
    for process in psutil.Process(os.getpid()).children(recursive=True):
        if process.name() == "tritonserver":
            found |= {t.id: t.user_time + t.system_time for t in process.threads()}
    return found


def _round(target: Target) -> tuple[float, float]:
    """Answers a second, and the busiest thread's share of a CPU."""
    before = _threads_s()
    run = run_level(target.address, target.requests, Level("closed", USERS, LEVEL_S))
    spent_s = max(s - before.get(thread, 0.0) for thread, s in _threads_s().items())
    return sum(not s.error for s in run.samples) / LEVEL_S, spent_s / LEVEL_S


def _rows() -> Iterator[tuple[str, float, float]]:
    subject = prepare(REPOSITORY, MODEL)
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ARMS}
    with (
        tempfile.TemporaryDirectory(prefix="tritonkit-benchmark-") as folder,
        variants(REPOSITORY, subject, list(ARMS.values()), Path(folder) / "log") as targets,
    ):
        for number in range(ROUNDS):
            for name in list(ARMS) if number % 2 else list(ARMS)[::-1]:
                seen[name].append(_round(targets[ARMS[name]]))
    for name, of in seen.items():
        rates, shares = zip(*of, strict=True)
        yield name, statistics.median(rates), statistics.median(shares)


def main() -> None:
    print(f"{MODEL}, {USERS} users        requests/s   busiest thread of Triton")
    for name, rate_rps, share in _rows():
        print(f"{name:<30}{rate_rps:>8.0f}{share:>22.0%} of a CPU")


if __name__ == "__main__":
    main()
