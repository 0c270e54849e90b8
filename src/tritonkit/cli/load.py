"""tritonkit load: one level of load on any live server, and its record."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritonkit.cli.address import address_of, protocol_option, quieten_grpc
from tritonkit.cli.lines import print_line
from tritonkit.cli.numbers import ABOVE_0, Finite
from tritonkit.errors import InputError

if TYPE_CHECKING:
    from tritonkit.client.spec import ModelSpec
    from tritonkit.load.level import LevelRecord, Measured
    from tritonkit.load.requests import RequestMix

USUAL_S, MOST_S = 10.0, 86_400


@click.command()
@click.argument("url")
@click.argument("model")
@click.option("--rate-rps", type=ABOVE_0, help="Open loop: so many requests a second.")
@click.option(
    "--arrivals",
    metavar="PATTERN",
    help="How they arrive: poisson (the default), constant, bursts[:ON_S,OFF_S], "
    "steps:RATExSECONDS,…, ramp:FROM-TO, or a trace FILE.jsonl, whose lines are "
    '{"t_s": SECONDS} or {"t_s": SECONDS, "payload": INDEX}.',
)
@click.option(
    "--users",
    type=click.IntRange(1, 4096),
    help="Closed loop: each sends its next request when it has the answer to the last.",
)
@click.option(
    "--duration-s",
    type=Finite(0, MOST_S, min_open=True),
    help="All of it; what the server needs to warm up is found afterwards, and left out. The "
    "default is 10, or as long as steps or a trace last.",
)
@protocol_option
@click.option(
    "--payloads",
    type=click.Path(path_type=Path),
    help="Real inputs: a file or folder of .npy, .npz, .json, .raw. The default is random values.",
)
@click.option("--rows", metavar="SHARES", help="Rows of a request: 8, or 1:0.8,8:0.2.")
@click.option("--lengths", metavar="SHARES", help="Sizes of dynamic dimensions of random values.")
@click.option(
    "--distinct",
    type=click.IntRange(1, 10**6),
    help="So many different requests, which then repeat: what a response cache sees.",
)
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, help="Of arrivals and values.")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Of the generator; they share the load.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 4096),
    default=128,
    show_default=True,
    help="The most that an open loop has in flight.",
)
@click.option("--shared-memory", is_flag=True, help="For a server on this machine.")
@click.option("--streaming", is_flag=True, help="For a decoupled model, over gRPC.")
@click.option("--timeout-s", type=ABOVE_0, default=30.0, show_default=True, help="Of a request.")
@click.option("--slo-p99-ms", type=ABOVE_0, help="Exit with 1 if it is not held.")
@click.option(
    "--samples",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where every request goes, such as samples.csv.gz.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def load(
    url: str,
    model: str,
    rate_rps: float | None,
    arrivals: str | None,
    users: int | None,
    duration_s: float | None,
    protocol: str | None,
    payloads: Path | None,
    rows: str | None,
    lengths: str | None,
    distinct: int | None,
    seed: int,
    processes: int,
    connections: int,
    shared_memory: bool,
    streaming: bool,
    timeout_s: float,
    slo_p99_ms: float | None,
    samples: Path | None,
    as_json: bool,
) -> None:
    """Load MODEL on the server at URL with one level, and say what it showed.

    With --rate-rps requests leave when they are due, whether or not earlier ones have been
    answered, and latency counts from then. With --users so many are always in flight.

    A trace is a file of one request a line: t_s is when it is due, in seconds from the start;
    payload is which of the requests to send, counted from 0, and without it they go in turn.

    \b
    Examples:
      tritonkit load localhost:8001 ranker --rate-rps 500
      tritonkit load http://localhost:8000 ranker --users 16 --payloads real/ --json
    """
    quieten_grpc()
    # A process that gevent forks closes the files of the threads that gRPC restarts in it.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from tritonkit.cli.known import naming_models
    from tritonkit.cli.outputs import require_place
    from tritonkit.client.address import parse_address
    from tritonkit.report.formats import compact

    # Without a scheme it is gRPC for clients, and HTTP for Locust.
    address = str(parse_address(address_of(url, protocol)))
    asked = _level(rate_rps, arrivals, users, duration_s)
    if samples is not None:
        if not samples.parent.is_dir():
            raise InputError(
                f"--samples {samples}: there is no folder {samples.parent}; make it first"
            )
        require_place(samples, "--samples")
    if duration_s is not None and asked["duration_s"] < duration_s:
        lasts = f"{asked['arrivals'].name} lasts {compact(asked['duration_s'])} s"
        click.echo(f"warning: {lasts}; nothing is sent after that", err=True)

    from tritonkit.load import runner  # first: it prepares the standard library for gevent

    # isort: split
    from tritonkit.client.client import Client
    from tritonkit.client.retry import NO_RETRIES
    from tritonkit.load.level import LevelCut, measure_level
    from tritonkit.load.requests import make_requests
    from tritonkit.load.shares import parse_shares

    # Locust warns that all users start at once, which is what is wanted here.
    logging.getLogger("locust").setLevel(logging.ERROR)
    level = runner.Level(**asked, seed=seed)
    with Client(address, timeout_s=timeout_s, retries=NO_RETRIES, shared_memory=False) as client:
        with naming_models(client):
            spec = client.spec(model)
        requests, mix = make_requests(
            spec,
            payloads,
            **({"rows": parse_shares(rows, "--rows")} if rows else {}),
            lengths=parse_shares(lengths, "--lengths") if lengths else None,
            distinct=distinct,
            seed=seed,
        )
        for warning in mix.warnings:
            click.echo(f"warning: {warning}", err=True)
        interrupted = None
        try:
            measured = measure_level(
                address,
                client,
                model,
                requests,
                level,
                slo_p99_ms=slo_p99_ms,
                timeout_s=timeout_s,
                connections=connections,
                streaming=streaming,
                shared_memory=shared_memory,
                processes=processes,
            )
        except LevelCut as cut:  # what was measured until then is told all the same
            measured, interrupted = cut.measured, cut.reason
    if measured.samples or interrupted is None:
        _tell(address, spec, measured, mix, slo_p99_ms, samples, as_json)
    if interrupted is not None:
        raise interrupted
    record = measured.record
    if slo_p99_ms is not None and not (record.holds_slo and not record.generator_bound):
        sys.exit(1)


def _level(
    rate_rps: float | None, arrivals: str | None, users: int | None, duration_s: float | None
) -> dict[str, Any]:
    """The level that was asked for, but for its seed. InputError if it is none, or two.

    It is no longer than its arrivals are.
    """
    from tritonkit.load.arrivals import parse_arrivals

    if users is not None:
        if rate_rps is not None or arrivals is not None:
            raise InputError(
                "--users is a closed loop, --rate-rps and --arrivals an open one; give one"
            )
        return {"mode": "closed", "offered": users, "duration_s": duration_s or USUAL_S}
    pattern = parse_arrivals(arrivals or "poisson")
    if pattern.own_rate and rate_rps is not None:
        raise InputError(f"{pattern.name} brings its own rates; leave out --rate-rps")
    if not pattern.own_rate and rate_rps is None:
        raise InputError("how much load? give --rate-rps R (open loop) or --users N (closed loop)")
    if duration_s is None:
        duration_s = USUAL_S if math.isinf(pattern.length_s) else pattern.length_s
        if duration_s > MOST_S:
            raise InputError(f"{pattern.name} lasts for more than a day; give --duration-s")
    duration_s = min(duration_s, pattern.length_s)
    if duration_s <= 0:
        raise InputError(f"{pattern.name} ends as it begins; give one that lasts")
    mean_rps = pattern.mean_rps(rate_rps or 0.0, duration_s)
    return {"mode": "open", "offered": mean_rps, "duration_s": duration_s, "arrivals": pattern}


def _tell(
    address: str,
    spec: ModelSpec,
    measured: Measured,
    mix: RequestMix,
    slo_p99_ms: float | None,
    samples: Path | None,
    as_json: bool,
) -> None:
    from dataclasses import replace

    from tritonkit.samples import write_samples

    record = measured.record
    if samples is not None:
        write_samples(samples, measured.samples)
        record = replace(record, samples=str(samples))
    if as_json:
        document = {**record.as_json(), "model": spec.label, "payloads": asdict(mix)}
        click.echo(json.dumps(document, indent=2, allow_nan=False))
        return
    click.echo(f"{spec.label} at {address}: {_offered(record)}")
    for name, text in _lines(record, mix, slo_p99_ms):
        print_line(name, text)


def _offered(record: LevelRecord) -> str:
    from tritonkit.report.formats import compact, counted

    if record.mode == "closed":
        return counted(record.offered, "user")
    return f"{compact(record.offered)} requests/s, {record.arrivals}"


def _lines(
    record: LevelRecord, mix: RequestMix, slo_p99_ms: float | None
) -> Iterator[tuple[str, str]]:
    """The record for people: a name and a text each."""
    errors = ", ".join(f"{n:,} {kind}" for kind, n in record.error_kinds.items())
    yield "payloads", str(mix)
    yield "requests", f"{record.requests:,}, errors {record.errors:,}{_in(errors)}"
    rate = f"{record.achieved_rps:,.1f} answers/s over {record.duration_s:.1f} s"
    if record.warmup_s:
        rate += f", after {record.warmup_s:.1f} s of warm-up that do not count"
    yield "rate", rate
    yield "latency", _latency(record)
    if record.p99_ms is not None and not record.p99_enough:
        yield "", f"its p99 rests on too little: it takes {record.p99_needs:,} answers"
    if record.service_p99_ms is not None and record.mode == "open":
        service = (record.service_p50_ms, record.service_p99_ms)
        yield "from sending", "p50 {}, p99 {} ms".format(*map(_ms, service))
    if record.no_connection:
        text = f"{record.no_connection:,} requests found all --connections busy; their wait counts"
        yield "connections", text
    if (split := record.time_split) is not None:
        parts = ("client", "connection", "wire", "queue", "input", "compute", "output")
        text = ", ".join(f"{part} {_ms(getattr(split, f'{part}_ms'))}" for part in parts)
        yield "mean time", f"{_ms(split.total_ms)} ms = {text}"
        if split.remark:
            yield "", split.remark
    if record.mean_batch is not None:
        yield "batches", f"{record.mean_batch:.1f} rows a run"
    if _changes(record):
        yield "steady", f"{record.arrivals} changes on purpose: not judged"
    elif not record.steady:
        yield "unsteady", record.unsteady_because
    yield "generator", _generator(record)
    if slo_p99_ms is not None and record.holds_slo is not None:
        yield "budget", f"p99 of {_ms(slo_p99_ms)} ms {_budget(record, slo_p99_ms)}"


def _latency(record: LevelRecord) -> str:
    if record.p99_ms is None:
        return "nothing was answered"
    interval = ""
    if record.p99_interval_ms is not None:
        interval = " (95 %: {}–{})".format(*map(_ms, record.p99_interval_ms))
    return (
        f"p50 {_ms(record.p50_ms)}, p90 {_ms(record.p90_ms)}, p99 {_ms(record.p99_ms)}{interval}, "
        f"max {_ms(record.max_ms)} ms"
    )


def _generator(record: LevelRecord) -> str:
    text = f"{record.generator_cpu:.0%} of a core"
    if record.lateness_p99_ms is not None:
        text += f"; it was {_ms(record.lateness_p99_ms)} ms late at p99"
    return f"{text}: IT WAS THE LIMIT" if record.generator_bound else text


def _budget(record: LevelRecord, slo_p99_ms: float) -> str:
    if record.generator_bound:
        return "undecided, as the generator was the limit; give it more --processes or more CPUs"
    if record.holds_slo:
        return "held"
    if record.errors:
        return "not held: there were errors"
    above = record.p99_ms is None or record.p99_ms > slo_p99_ms
    if above:
        return "not held"
    because = f"not held: {record.unsteady_because}"
    return because if _changes(record) else "not held: it is unsteady, and would leave it"


def _changes(record: LevelRecord) -> bool:
    """Its arrivals are not the same all through, so that its latency is not either is no news."""
    from tritonkit.load.arrivals import POISSON, Constant

    return record.mode == "open" and record.arrivals not in (POISSON.name, Constant().name)


def _ms(value: Any) -> str:
    if value is None:
        return "-"
    if value < 0.001:
        return f"{value:.3f}" if value else "0"
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _in(text: str) -> str:
    return f" ({text})" if text else ""
