"""What the locustfile of one arm needs: options, real payloads, a check that it is the right arm,
and raw samples, from which the percentiles are computed. Locust's own are rounded.
"""

from __future__ import annotations

import logging
import math
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, ClassVar

import gevent
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from tritonkit.client.client import Client
from tritonkit.client.transport import InferRequest, infer_request
from tritonkit.errors import CheckFailedError, TritonkitError
from tritonkit.load.arrivals import poisson
from tritonkit.load.user import DRAIN_S, InferUser, Run
from tritonkit.payloads import (
    RANDOM_PAYLOADS,
    Payload,
    random_payloads,
    read_payloads,
    require_fit,
)
from tritonkit.samples import write_samples
from tritonkit.stats.latency import summarise

log = logging.getLogger(__name__)


class ArmUser(InferUser):
    """A user of one arm. dynamic_batching: what the server's own config must say."""

    abstract = True
    dynamic_batching: ClassVar[bool]


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--model", default="ranker", help="Name of the model on the server")
    parser.add_argument(
        "--payloads",
        default="",
        help="Requests to send; the default is model_repository/MODEL/payloads.npz, else random",
    )
    parser.add_argument(
        "--rate-rps",
        type=float,
        default=0.0,
        help="Open loop: Poisson arrivals at this rate; --users is then the most in flight",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the arrivals")
    parser.add_argument(
        "--samples", default="", help="Where raw samples go, such as results/samples.csv.gz"
    )


def _start_together(environment: Environment, **_: Any) -> None:
    """Unless told otherwise all users start at once; Locust would add one each second."""
    options = environment.parsed_options
    if options is not None and options.spawn_rate is None:
        options.spawn_rate = options.num_users


def _prepare(environment: Environment, **_: Any) -> None:
    """Before any user starts: read the payloads, check the server."""
    # Requests that are under way at the end are let end, so that a hang is seen.
    environment.stop_timeout = environment.stop_timeout or DRAIN_S + 1
    if isinstance(environment.runner, MasterRunner):
        return
    options = environment.parsed_options
    user = environment.user_classes[0]
    assert options is not None and issubclass(user, ArmUser)
    arrivals = poisson(options.rate_rps, math.inf, options.seed) if options.rate_rps else None
    user.run_state = Run([], iter(()), None)  # sends nothing
    user.request_name = options.model
    try:
        requests = _requests(environment.host or user.host or "", options, user.dynamic_batching)
        user.run_state = Run(requests, arrivals, None)
        environment.process_exit_code = None
    except TritonkitError as error:
        log.error("%s", error)
        environment.process_exit_code = error.exit_code
        if environment.runner is not None:
            # Not from here: this is one of the greenlets that it ends.
            gevent.spawn(environment.runner.quit)
    user.run_state.start()


def _finish(environment: Environment, **_: Any) -> None:
    """When the test is being stopped: no more requests."""
    if not isinstance(environment.runner, MasterRunner):
        user = environment.user_classes[0]
        assert issubclass(user, ArmUser)
        user.run_state.finish()


def _conclude(environment: Environment, **_: Any) -> None:
    """Write the raw samples, and say what they show."""
    if isinstance(environment.runner, MasterRunner):
        return
    options = environment.parsed_options
    user = environment.user_classes[0]
    assert options is not None and issubclass(user, ArmUser)
    run = user.run_state
    run.give_up()
    if not run.samples:
        return
    stats = summarise(
        run.samples, warmup_s=0, duration_s=run.length_s, open_loop=bool(options.rate_rps)
    )
    log.info(
        "from raw samples: %d requests, %d errors %s, %.0f req/s, p50 %.1f p90 %.1f p99 %.1f ms",
        *(stats.requests, stats.errors, stats.error_kinds or "", stats.achieved_rps),
        *(math.nan if p is None else p for p in (stats.p50_ms, stats.p90_ms, stats.p99_ms)),
    )
    if stats.errors and environment.process_exit_code is None:
        environment.process_exit_code = options.exit_code_on_error
    if options.samples:
        path = Path(options.samples)
        if isinstance(environment.runner, WorkerRunner):
            path = path.with_name(f"worker{environment.runner.worker_index}-{path.name}")
        write_samples(path, run.samples)
        log.info("raw samples are in %s", path)


def _requests(host: str, options: Any, dynamic_batching: bool) -> list[InferRequest]:
    """The requests to send. CheckFailedError if another arm than the named listens at `host`."""
    with Client(host if "://" in host else f"http://{host}") as client:
        spec = client.spec(options.model)
        found = "dynamic_batching" in client.config(options.model)
    if found != dynamic_batching:
        raise CheckFailedError(
            f"the server at {host} runs {options.model} with dynamic batching "
            f"{'on' if found else 'off'}; this locustfile is for the other; check --host"
        )
    recorded = Path(options.payloads or f"model_repository/{options.model}/payloads.npz")
    payloads: list[Payload]
    if options.payloads or recorded.is_file():
        payloads = require_fit(
            recorded, read_payloads(recorded), spec.signature.inputs, spec.optional
        )
    else:
        log.warning("no %s: sending random values", recorded)
        payloads = random_payloads(
            spec.signature, RANDOM_PAYLOADS, options.seed, batched=spec.batches
        )
    outputs = [t.name for t in spec.signature.outputs]
    return [infer_request(options.model, payload, outputs) for payload in payloads]


events.init_command_line_parser.add_listener(_add_options)  # type: ignore[no-untyped-call]
events.init.add_listener(_start_together)  # type: ignore[no-untyped-call]
events.test_start.add_listener(_prepare)  # type: ignore[no-untyped-call]
events.test_stopping.add_listener(_finish)  # type: ignore[no-untyped-call]
events.test_stop.add_listener(_conclude)  # type: ignore[no-untyped-call]
