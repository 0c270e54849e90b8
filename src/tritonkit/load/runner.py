"""One level of load, headless and in this process, through Locust's own runner.

Importing this module lets Locust patch the standard library for gevent, so a program that wants
to run load imports it first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import gevent
from gevent.hub import Hub
from locust.env import Environment
from locust.runners import STATE_RUNNING

from tritonkit.client.transport import InferRequest
from tritonkit.load.arrivals import poisson
from tritonkit.load.user import DRAIN_S, InferUser, Run
from tritonkit.samples import Sample

# Ctrl-C ends the program as ever; without this gevent prints it as an error first.
Hub.NOT_ERROR = (*Hub.NOT_ERROR, KeyboardInterrupt)

# Requests that an open loop may have in flight: its pool of users, each with a connection.
OPEN_LOOP_CONNECTIONS = 128


@dataclass(frozen=True)
class Level:
    """One level of load.

    mode: `closed`, offered = users; `open`, offered = requests per second, Poisson.
    warmup_s: at the beginning, sent but not counted. duration_s: counted.
    """

    mode: Literal["closed", "open"]
    offered: float
    duration_s: float
    warmup_s: float
    seed: int = 0


@dataclass(frozen=True)
class LevelRun:
    """What a level left behind. generator_cpu: CPU seconds of this process per wall second."""

    samples: list[Sample]
    generator_cpu: float


def run_level(
    address: str, requests: Sequence[InferRequest], level: Level, timeout_s: float = 30.0
) -> LevelRun:
    """Load the server at `http://host:port` or grpc://. Returns the warm-up's samples too."""
    length_s = level.warmup_s + level.duration_s
    is_open = level.mode == "open"
    arrivals = poisson(level.offered, length_s, level.seed) if is_open else None
    run = Run(requests, arrivals, length_s)
    # Bound to this run by a class, because Locust makes the users.
    user = type("LevelUser", (InferUser,), {"run_state": run, "timeout_s": timeout_s})
    environment = Environment(user_classes=[user], host=address, catch_exceptions=False)
    runner = environment.create_local_runner()
    users = OPEN_LOOP_CONNECTIONS if is_open else int(level.offered)
    run.start(in_s=0.2 if is_open else 0.0)
    wall, cpu = time.perf_counter(), time.process_time()
    runner.start(users, spawn_rate=users)
    deadline = time.monotonic() + length_s + DRAIN_S + timeout_s
    # The users end by themselves when the run has no more; the deadline is for a hung server.
    while (runner.state != STATE_RUNNING or runner.user_greenlets) and time.monotonic() < deadline:
        gevent.sleep(0.02)
    busy = (time.process_time() - cpu) / (time.perf_counter() - wall)
    runner.quit()
    run.give_up()
    return LevelRun(run.samples, busy)
