"""One level of load from several processes of this host."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import IO, Any

import gevent
from locust.env import Environment
from locust.runners import MasterRunner

from tritonkit.client.transport import InferRequest, Region, Tensor, Wanted
from tritonkit.errors import TritonkitError
from tritonkit.load.arrivals import parse_arrivals
from tritonkit.load.distributed import Parts
from tritonkit.load.generator import (
    Level,
    LevelInterrupted,
    LevelRun,
    Sending,
    ctrl_c_heard,
    new_user_class,
    users_of,
)
from tritonkit.load.user import CONNECT_S, DRAIN_S

_HOST = "127.0.0.1"
_BEGIN_S = 60.0  # to import everything on a machine that is busy
_END_S = 5.0


class GeneratorError(TritonkitError):
    """A process that was to send load is lost. run: what was delivered until then."""

    def __init__(self, message: str, run: LevelRun):
        super().__init__(message)
        self.run = run


def run_in_processes(
    address: str, requests: Sequence[InferRequest], level: Level, sending: Sending, processes: int
) -> LevelRun:
    """As `runner.run_level`, from so many processes, which are started and ended here."""
    said = {
        "address": address,
        "requests": [pack(request) for request in requests],
        "level": {
            "mode": level.mode,
            "offered": level.offered,
            "duration_s": level.duration_s,
            "seed": level.seed,
            "arrivals": parse_arrivals(level.arrivals.name).name,
        },
        "sending": asdict(sending),
    }
    # gevent's clock stood still during the imports: what waits would wait for too short a time.
    gevent.get_hub().loop.update_now()
    environment = Environment(user_classes=[new_user_class()], host=address)
    runner = environment.create_master_runner(_HOST, 0)
    parts = Parts(runner)
    try:
        with _workers(runner, processes) as workers:
            _wait(lambda: len(runner.clients.ready) == processes, workers)
            _wait(lambda: parts.have(runner.clients), workers)
            parts.begin(sorted(runner.clients), said)
            users = users_of(level, sending)
            runner.start(users, spawn_rate=users)
            _wait(lambda: parts.are_ready, workers)
            if parts.error is not None:
                raise parts.error
            with ctrl_c_heard() as interrupted:
                parts.start()
                limit_s = level.duration_s + DRAIN_S + sending.timeout_s
                lost = _watch(parts, workers, limit_s, interrupted)
    finally:
        runner.greenlet.kill(block=True, timeout=_END_S)
        runner.server.close(linger=0)  # type: ignore[no-untyped-call]
        runner.server.socket.context.term()  # its thread and files, which Locust leaves
    run = LevelRun(
        parts.samples(),
        max(part.cpu for part in parts.parts.values()),
        all(part.first_in_line for part in parts.parts.values()),
    )
    if lost:
        raise GeneratorError("; ".join(lost), run)
    if interrupted():
        raise LevelInterrupted(run)
    return run


class _Worker:
    """A worker process. It ends when its standard input does, which is when this process does."""

    def __init__(self, port: int, errors: IO[bytes]):
        self._errors = errors
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tritonkit.load.worker", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for this process to hear
        )

    def why_ended(self) -> str:
        """Its exit status, and the last it said."""
        status = self.process.returncode
        how = f"killed by signal {-status}" if status < 0 else f"exit code {status}"
        last = self.last_said()
        return f"{how}: {last}" if last else how

    def last_said(self) -> str:
        """The last line of its standard error; "" if there is none."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def end(self) -> None:
        """Close its input, and kill it if that does not end it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def _workers(runner: MasterRunner, count: int) -> Iterator[list[_Worker]]:
    with ExitStack() as stack:
        workers = []
        for _ in range(count):
            errors = stack.enter_context(tempfile.TemporaryFile())
            workers.append(_Worker(runner.server.port, errors))
            stack.callback(workers[-1].end)
        yield workers


def _wait(ready: Callable[[], bool], workers: Sequence[_Worker]) -> None:
    """Until it is so, as long as all workers live. GeneratorError if it does not come to that."""
    deadline = time.monotonic() + _BEGIN_S
    while not ready():
        for worker in workers:
            if worker.process.poll() is not None:
                raise GeneratorError(
                    f"load worker (process {worker.process.pid}) ended before it could start: "
                    f"{worker.why_ended()}",
                    LevelRun([], 0.0),
                )
        if time.monotonic() > deadline:
            said = next(filter(None, (worker.last_said() for worker in workers)), "")
            raise GeneratorError(
                f"the {len(workers)} load workers were not ready within {_BEGIN_S:.0f} s; "
                + (f"one said: {said}" if said else "use fewer processes"),
                LevelRun([], 0.0),
            )
        gevent.sleep(0.01)


def _watch(
    parts: Parts, workers: Sequence[_Worker], limit_s: float, interrupted: Callable[[], bool]
) -> list[str]:
    """Until all workers are done, one is lost, or Ctrl-C. Returns what was lost, a line each."""
    deadline = time.monotonic() + limit_s + CONNECT_S + _END_S
    whys: list[str] = []
    while not (parts.are_over or whys or interrupted() or time.monotonic() > deadline):
        gevent.sleep(0.02)
        whys = [
            f" ({worker.why_ended()})" for worker in workers if worker.process.poll() is not None
        ]
    if not parts.are_over:
        for part in parts.parts.values():
            part.lost = any(
                worker.process.pid == part.pid and worker.process.poll() is not None
                for worker in workers
            )
        parts.finish(cancel=True)
        parts.wait_until_over(_END_S)
    return [line + "".join(whys) for line in parts.losses()]


def pack(request: InferRequest) -> list[Any]:
    """A request as plain values, for a message."""
    inputs = [
        (name, datatype, shape, bytes(d) if isinstance(d, memoryview) else d, dict(parameters))
        for name, datatype, shape, d, parameters in request.inputs
    ]
    parameters = dict(request.parameters)
    return [request.model, inputs, request.version, request.outputs, request.id, parameters]


def unpack(plain: Sequence[Any]) -> InferRequest:
    """What was packed, after it came as a message."""
    model, inputs, version, outputs, id, parameters = plain
    tensors = (
        Tensor(name, datatype, tuple(shape), _data(data), own)
        for name, datatype, shape, data, own in inputs
    )
    wanted = (Wanted(name, k, None if at is None else Region(*at)) for name, k, at in outputs)
    return InferRequest(model, tuple(tensors), version, tuple(wanted), id, parameters)


def _data(data: Any) -> bytes | Region:
    return data if isinstance(data, bytes) else Region(*data)
