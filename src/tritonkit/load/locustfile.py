"""What the locustfile of one arm needs: options, real payloads, a check that it is the right arm,
and raw samples, from which the percentiles are computed. Locust's own are rounded.

With workers (`--processes`, or `--worker` on other hosts) each sends its share, and the master
has the samples of all. The payloads are read on each worker's host, the samples are written on
the master's.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gevent
from gevent.hub import Hub
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from tritonkit.client.client import Client
from tritonkit.client.transport import InferRequest
from tritonkit.errors import CheckFailedError, InputError, TritonkitError
from tritonkit.load.arrivals import (
    POISSON,
    Arrivals,
    Constant,
    parse_arrivals,
    require_payloads,
    share,
)
from tritonkit.load.distributed import Delivery, Parts
from tritonkit.load.requests import ONE, make_requests
from tritonkit.load.shares import parse_shares
from tritonkit.load.user import DRAIN_S, InferUser, Run
from tritonkit.payloads import PAYLOADS
from tritonkit.samples import Sample, write_samples
from tritonkit.stats.latency import summarise

log = logging.getLogger(__name__)

_GRACE_S = 5.0  # in which a worker that is done, or a message, may be late
# Ctrl-C ends the program as ever; without this gevent prints it as an error first.
Hub.NOT_ERROR = (*Hub.NOT_ERROR, KeyboardInterrupt)

_STATIONARY = {pattern.name for pattern in (POISSON, Constant())}


class ArmUser(InferUser):
    """A user of one arm. dynamic_batching: what the server's own config must say."""

    abstract = True
    dynamic_batching: ClassVar[bool]


def _add_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", default="ranker", help="Name of the model on the server")
    add(
        "--payloads",
        default="",
        help="Real inputs to send, a file or a folder; the default is "
        "model_repository/MODEL/payloads.npz, else random values",
    )
    add("--rows", default="", help="Rows of a request: 4, 1-8, or shares such as 1:0.9,16:0.1")
    add("--lengths", default="", help="The same for dynamic dimensions of random values")
    add(
        "--rate-rps",
        type=float,
        default=0.0,
        help="Open loop: this many requests a second; --users is then the most in flight",
    )
    add(
        "--arrivals",
        default="poisson",
        help="How they arrive: poisson, constant, bursts, bursts:ON_S,OFF_S; or at rates of its "
        "own: steps:RATExSECONDS,…, ramp:FROM-TO, or a trace FILE.jsonl, whose lines are "
        '{"t_s": SECONDS} or {"t_s": SECONDS, "payload": INDEX}',
    )
    add("--seed", type=int, default=0, help="Seed of the arrivals and of random values")
    add("--samples", default="", help="Where raw samples go, such as results/samples.csv.gz")


def _set_up(environment: Environment, **_: Any) -> None:
    """When Locust has made its runner: be its part of the test."""
    # gevent's clock stood still during the imports, and --run-time would end too early by as much.
    gevent.get_hub().loop.update_now()
    options = environment.parsed_options
    if options is not None and options.spawn_rate is None:
        # Unless told otherwise all users start at once; Locust would add one each second.
        options.spawn_rate = options.num_users
    gevent.signal_handler(signal.SIGINT, _interrupt)
    if isinstance(environment.runner, MasterRunner):
        part: _Alone | _Master | _Worker = _Master(environment, environment.runner)
    elif isinstance(environment.runner, WorkerRunner):
        part = _Worker(environment, environment.runner)
    else:
        part = _Alone(environment)
    listeners = (
        (environment.events.test_start, part.prepare),
        (environment.events.test_stopping, part.finish),
        (environment.events.test_stop, part.conclude),
    )
    for event, listener in listeners:
        event.add_listener(listener)  # type: ignore[no-untyped-call]


def _interrupt() -> None:
    """On Ctrl-C, in a greenlet of its own, from which gevent hands it on to the main one. Else it
    would hit whichever is at work: a request would be cut off, or the master hear no more of its
    workers.
    """
    raise KeyboardInterrupt


class _Alone:
    """All in one process."""

    def __init__(self, environment: Environment):
        self._environment = environment

    def prepare(self, **_: Any) -> None:
        """Before any user starts: read the payloads, check the server."""
        _allow_drain(self._environment)
        run, error = _new_run(self._environment)
        if error is not None:
            _refuse(self._environment, error)
        run.start()

    def finish(self, **_: Any) -> None:
        """When the test is being stopped: no more requests."""
        _user(self._environment).run_state.finish()

    def conclude(self, **_: Any) -> None:
        """When all users have gone."""
        run = _user(self._environment).run_state
        run.give_up()
        _conclude(self._environment, run.samples, run.length_s)


class _Worker:
    """One of several processes."""

    def __init__(self, environment: Environment, runner: WorkerRunner):
        self._environment = environment
        self._runner = runner
        options = environment.parsed_options
        if options is not None and options.processes:
            # Ctrl-C reaches all processes at once, and the master then ends its workers. Here it
            # would hit whichever user is at work, and lose the sample.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._said: Mapping[str, Any] = {}
        self._delivery = Delivery(
            runner, on_begin=self._begin, on_start=self._start, on_finish=self._end
        )
        # Before Locust's own, which takes leave of the master.
        environment.events.quitting.add_listener(  # type: ignore[no-untyped-call]
            lambda **_: self._end(cancel=False)
        )

    def prepare(self, **_: Any) -> None:
        """As if alone, but the start is when the master says, and it is told of what is wrong."""
        user = _user(self._environment)
        if not self._delivery.is_under_way:
            log.warning("this worker came after the start of the test; it sends nothing")
            user.run_state = _nothing()
            user.run_state.start()
            return
        run, error = _new_run(self._environment, **self._said)
        self._delivery.ready(error)
        if error is not None:
            run.start()

    def finish(self, **_: Any) -> None:
        """When Locust stops this worker: no more requests."""
        if self._delivery.is_under_way:
            _user(self._environment).run_state.finish()

    def conclude(self, **_: Any) -> None:
        """When all users have gone: send the master what it does not have yet."""
        if self._delivery.is_under_way:
            run = _user(self._environment).run_state
            run.give_up()
            self._delivery.done(run, cpu=0.0, first_in_line=False)

    def _begin(self, said: Mapping[str, Any]) -> None:
        self._said = {key: said[key] for key in ("index", "of", "run_time")}

    def _start(self, at_ns: int) -> None:
        run = _user(self._environment).run_state
        run.start(at_ns)
        self._delivery.keep_delivering(run)

    def _end(self, cancel: bool) -> None:
        """When the master stops the test, which then waits for the samples."""
        if self._delivery.is_under_way:
            self.finish()
            self._runner.user_greenlets.join(self._environment.stop_timeout)
            self._runner.user_greenlets.kill(block=True)
            self.conclude()


class _Master:
    """The process that sends nothing and has the samples of all."""

    def __init__(self, environment: Environment, runner: MasterRunner):
        self._environment = environment
        self._runner = runner
        self._parts = Parts(runner)

    def prepare(self, **_: Any) -> None:
        """Before Locust orders the workers to start their users: tell each its share."""
        _allow_drain(self._environment)
        runner, options = self._runner, self._environment.parsed_options
        nodes = [*runner.clients.ready, *runner.clients.spawning, *runner.clients.running]
        said = {"run_time": None if options is None else options.run_time}
        workers = sorted(node.id for node in nodes)
        self._environment.process_exit_code = None
        deadline = time.monotonic() + _GRACE_S
        while not self._parts.have(workers):
            if time.monotonic() > deadline:
                self._parts.begin([], said)
                why = f"not all {len(workers)} workers answer; start each with this locustfile"
                return _refuse(self._environment, CheckFailedError(why))
            gevent.sleep(0.01)
        self._parts.begin(workers, said)
        gevent.spawn(self._start_when_ready)

    def finish(self, **_: Any) -> None:
        """Have the workers finish, and wait for what they have."""
        self._parts.finish()
        self._parts.wait_until_over(self._environment.stop_timeout + _GRACE_S)

    def conclude(self, **_: Any) -> None:
        """As if alone, with the samples of all. What is missing is an error."""
        parts = self._parts.parts.values()
        length_s = max((part.length_s for part in parts), default=0.0)
        _conclude(self._environment, self._parts.samples(), length_s)
        if self._parts.error is None:
            for line in self._parts.losses():
                log.error("%s", line)
                self._environment.process_exit_code = 1

    def _start_when_ready(self) -> None:
        parts, begun = self._parts, self._parts.parts
        users, workers = self._runner.target_user_count, len(begun)
        while parts.parts is begun and not parts.are_ready:
            gevent.sleep(0.01)
            parts.look_for_lost()
        if parts.parts is not begun:
            return  # the test was stopped before it could start, and this is the next
        if parts.error is not None:
            _refuse(self._environment, parts.error)
        elif users < workers:
            why = f"{users} users for {workers} workers: each needs one to send its share"
            _refuse(self._environment, InputError(f"{why}; give --users {workers} or more"))
        else:
            parts.start()


def _user(environment: Environment) -> type[ArmUser]:
    user = environment.user_classes[0]
    assert issubclass(user, ArmUser)
    return user


def _allow_drain(environment: Environment) -> None:
    """Requests that are under way at the end are let end, so that a hang is seen."""
    environment.stop_timeout = environment.stop_timeout or DRAIN_S + 1


def _nothing() -> Run:
    return Run([], iter(()), None)


def _new_run(
    environment: Environment, *, index: int = 0, of: int = 1, run_time: float | None = None
) -> tuple[Run, TritonkitError | None]:
    """The run that the users will find; one that sends nothing, and why, if there can be none."""
    options, user = environment.parsed_options, _user(environment)
    assert options is not None
    user.run_state, user.request_name = _nothing(), options.model
    environment.process_exit_code = None
    try:
        pattern, duration_s = _pattern(options), run_time or options.run_time or math.inf
        arrivals = None
        if pattern is not None:
            whole = pattern.starts(options.rate_rps, duration_s, options.seed)
            arrivals = share(whole, index, of)
        requests = _requests(environment.host or user.host or "", options, user, tell=not index)
        if pattern is not None:
            require_payloads(pattern, len(requests))
    except TritonkitError as error:
        return user.run_state, error
    if pattern is not None and not index and pattern.length_s < duration_s < math.inf:
        log.warning("%s lasts %.1f s; nothing is sent after that", pattern.name, pattern.length_s)
    user.run_state = Run(requests, arrivals, None, index=index, of=of)
    return user.run_state, None


def _pattern(options: Any) -> Arrivals | None:
    """That of an open loop; None if it is a closed one."""
    pattern = parse_arrivals(options.arrivals)
    if not options.rate_rps and not pattern.own_rate:
        if options.arrivals != "poisson":
            raise InputError(f"--arrivals {options.arrivals} needs --rate-rps")
        return None
    return pattern


def _requests(
    host: str, options: Any, user: type[ArmUser], *, tell: bool
) -> Sequence[InferRequest]:
    """The requests to send. CheckFailedError if another arm than the named listens at `host`."""
    rows = parse_shares(options.rows, "--rows") if options.rows else ONE
    lengths = parse_shares(options.lengths, "--lengths") if options.lengths else None
    with Client(host if "://" in host else f"http://{host}") as client:
        spec = client.spec(options.model)
        found = "dynamic_batching" in client.config(options.model)
    if found != user.dynamic_batching:
        raise CheckFailedError(
            f"the server at {host} runs {options.model} with dynamic batching "
            f"{'on' if found else 'off'}; this locustfile is for the other; check --host"
        )
    path = Path(options.payloads or f"model_repository/{options.model}/{PAYLOADS}")
    recorded = bool(options.payloads) or (lengths is None and path.is_file())
    requests, mix = make_requests(
        spec, path if recorded else None, rows=rows, lengths=lengths, seed=options.seed
    )
    if tell:
        log.info("sends %s", mix)
        for warning in mix.warnings:
            log.warning("%s", warning)
    return requests


def _refuse(environment: Environment, error: TritonkitError) -> None:
    """Say why there is no test, and end it."""
    log.error("%s", error)
    environment.process_exit_code = error.exit_code
    runner, options = environment.runner, environment.parsed_options
    assert runner is not None and options is not None
    # Not from here: this may be one of the greenlets that it ends.
    gevent.spawn(runner.quit if options.headless else runner.stop)


def _conclude(environment: Environment, samples: list[Sample], length_s: float) -> None:
    """Write the raw samples, and say what they show."""
    options = environment.parsed_options
    assert options is not None
    if not samples:
        return
    if options.samples:
        path = Path(options.samples)
        write_samples(path, samples)
        log.info("raw samples are in %s", path)
    # A closed loop has neither; the pattern is not read again, its file may have gone.
    is_open = bool(options.rate_rps) or options.arrivals != "poisson"
    stationary = not is_open or options.arrivals in _STATIONARY
    stats = summarise(samples, duration_s=length_s, open_loop=is_open, stationary=stationary)
    kinds = ", ".join(f"{kind} {count}" for kind, count in stats.error_kinds.items())
    said = f"from raw samples: {stats.requests} requests, {stats.errors} errors"
    said += f" ({kinds})" if kinds else ""
    said += f", {stats.achieved_rps:.0f} req/s"
    if stats.p50_ms is not None:
        said += f", p50 {stats.p50_ms:.1f} p90 {stats.p90_ms:.1f} p99 {stats.p99_ms:.1f} ms"
    log.info("%s, without %.1f s of warm-up", said, stats.warmup_s)
    if stats.errors and environment.process_exit_code is None:
        environment.process_exit_code = options.exit_code_on_error


events.init_command_line_parser.add_listener(_add_options)  # type: ignore[no-untyped-call]
events.init.add_listener(_set_up)  # type: ignore[no-untyped-call]
