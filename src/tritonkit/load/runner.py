"""One level of load, headless, through Locust's own runners.

Importing this module lets Locust patch the standard library for gevent, so a program that wants
to run load imports it first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from locust.env import Environment

from tritonkit.client.transport import InferRequest
from tritonkit.errors import InputError
from tritonkit.load.generator import (
    Generator,
    Level,
    LevelInterrupted,
    LevelRun,
    Sending,
    ctrl_c_heard,
    new_user_class,
    require_sense,
    users_of,
)
from tritonkit.load.processes import GeneratorError, run_in_processes

__all__ = ["GeneratorError", "Level", "LevelInterrupted", "LevelRun", "run_level"]

_LEAD_NS = 20_000_000
"""From when all users are connected to the start."""


def run_level(
    address: str,
    requests: Sequence[InferRequest],
    level: Level,
    *,
    timeout_s: float = 30.0,
    connections: int = 128,
    streaming: bool = False,
    shared_memory: bool = False,
    processes: int = 1,
) -> LevelRun:
    """Load the server at `http://host:port` or `grpc://host:port`.

    connections: the most requests that an open loop has in flight; those due beyond that wait,
    and go late. streaming: for decoupled models, over gRPC; a request is done with its last
    answer. shared_memory: tensors lie in shared memory that the server is told of before; see
    SharedRequests. processes: how many send; each has its share of the users and arrivals.

    InputError for what makes no sense. LevelInterrupted on Ctrl-C; GeneratorError if a process
    is lost. Both have what was measured until then.
    """
    sending = Sending(timeout_s, connections, streaming, shared_memory)
    require_sense(address, requests, level, sending)
    if processes < 1:
        raise InputError(f"{processes} processes: at least 1 is needed to send anything")
    processes = min(processes, users_of(level, sending))
    if processes > 1:
        return run_in_processes(address, requests, level, sending, processes)
    user = new_user_class()
    with Generator(user, address, requests, level, sending) as generator:
        environment = Environment(user_classes=[user], host=address, catch_exceptions=False)
        runner = environment.create_local_runner()
        users = users_of(level, sending)
        try:
            runner.start(users, spawn_rate=users)
            generator.wait_for_users(users)
            with ctrl_c_heard() as interrupted:
                generator.send(runner, time.perf_counter_ns() + _LEAD_NS, interrupted)
        finally:
            runner.quit()
    run = LevelRun(sorted(generator.run.samples), generator.busy, generator.ahead)
    if interrupted():
        raise LevelInterrupted(run)
    return run
