"""tritonkit doctor: why batching does or does not happen on a server that runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from tritonkit.cli.address import protocol_option
from tritonkit.cli.lines import print_line, printable
from tritonkit.cli.numbers import Finite
from tritonkit.cli.statistics import as_triton_speaks, connected
from tritonkit.errors import TritonkitError

if TYPE_CHECKING:
    from tritonkit.client.client import Client
    from tritonkit.stats.batching import Diagnosis
    from tritonkit.stats.traffic import Batching, Look, Traffic


@click.command()
@click.argument("url")
@click.argument("model")
@click.option(
    "--watch-s",
    type=Finite(0, 1e6, min_open=True),
    default=10.0,
    show_default=True,
    help="How long to watch; Ctrl-C ends it early.",
)
@protocol_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(url: str, model: str, watch_s: float, protocol: str | None, as_json: bool) -> None:
    """Say why batching does or does not happen for MODEL on the server at URL.

    It sends no requests: it reads the server's statistics while your load runs, and names one
    cause, its remedy, and the numbers behind it. Exit code 0 whenever it could look.

    URL is grpc://HOST:PORT, http://HOST:PORT, with s for TLS (grpcs, https), or HOST:PORT.

    \b
    Example:
      tritonkit doctor localhost:8001 ranker
    """
    from rich.console import Console

    from tritonkit.cli.inputs import require_text
    from tritonkit.cli.known import naming_models
    from tritonkit.report.formats import compact
    from tritonkit.stats.batching import diagnose
    from tritonkit.stats.traffic import read_batching

    require_text(url, model)
    with connected(url, protocol) as client:
        with naming_models(client):
            config = client.config(model)
        with as_triton_speaks(url):
            is_ensemble = bool(read_batching(config).steps)
        looks: list[Look] = []
        if not is_ensemble:
            with Console(stderr=True).status(f"watching {model} for {compact(watch_s)} s"):
                looks = watch(lambda: look_at(client, model), _pauses(watch_s))
    with as_triton_speaks(url):
        diagnosis = diagnose(model, config, looks)
    if as_json:
        click.echo(json.dumps(diagnosis.to_json(), indent=2, allow_nan=False))
    else:
        _print(diagnosis)


def look_at(client: Client, model: str) -> Look:
    """The model's counters as they are now."""
    from tritonkit.stats.traffic import Look

    records = client.statistics(model)
    return Look(time.perf_counter_ns(), records)


def watch(look: Callable[[], Look], pauses: Iterable[None]) -> list[Look]:
    """A look before the first pause and after each. Ctrl-C ends it with a last one, unless nothing
    was seen by then.
    """
    from tritonkit.stats.traffic import has_traffic

    looks = [look()]
    try:
        for _ in pauses:
            looks.append(look())
    except KeyboardInterrupt:
        with suppress(TritonkitError):
            looks.append(look())
        if not has_traffic(looks):
            raise
    return looks


def _pauses(watch_s: float) -> Iterator[None]:
    """Often enough to see when traffic began and ended, and seldom enough to cost nothing."""
    end_s = time.perf_counter() + watch_s
    while (left_s := end_s - time.perf_counter()) > 0:
        time.sleep(min(left_s, max(0.5, watch_s / 20)))
        yield


def _print(diagnosis: Diagnosis) -> None:
    """The cause, its remedy, and the numbers behind it, for people."""
    finding, traffic = diagnosis.finding, diagnosis.traffic
    click.echo(printable(f"{diagnosis.model}: {finding.headline}"))
    print_line("why", finding.why)
    print_line("", f"→ {finding.remedy}")
    if traffic is not None:
        for label, text in _numbers(traffic):
            print_line(label, text)
        for label, text in _sizes(traffic):
            click.echo(f"  {label:<15}{text}")
    if not diagnosis.batching.steps:
        print_line("config", _config(diagnosis.batching))
    for note in diagnosis.notes:
        print_line("note", note)


def _numbers(t: Traffic) -> Iterator[tuple[str, str]]:
    """The traffic as lines: a label, and what it says."""
    from tritonkit.report.formats import compact, counted

    ended = [counted(t.requests, "request")]
    if t.failures:
        ended.append(f"{t.failures:,} failed")
    if t.cache_hits:
        ended.append(f"{t.cache_hits:,} from the cache")
    yield "watched", f"{compact(t.watched_s)} s: {', '.join(ended)}"
    if not t.requests + t.failures:
        return
    rows = counted(float(f"{t.rows_per_request:.2g}"), "row")
    yield "rate", f"{compact(t.rate_rps)} requests a second, of {rows} each"
    yield (
        "in flight",
        f"{compact(t.in_flight)} requests at once, {compact(t.waiting)} of them waiting for a run",
    )
    yield "each takes", f"{compact(t.server_ms)} ms, {compact(t.queue_ms)} ms of it waiting"
    if t.runs:
        yield (
            "runs",
            f"{t.runs:,} of {compact(t.mean_run_ms)} ms; requests a run: "
            f"{compact(t.requests_per_run)}, rows a run: {compact(t.mean_batch)}; instances busy "
            f"{compact(t.busy * 100)} %",
        )


def _sizes(t: Traffic) -> Iterator[tuple[str, str]]:
    """A small table: rows of a run, in powers of two, how many such runs, what a row cost."""
    from tritonkit.report.formats import TO, compact, count

    columns = []
    for power in range(max(t.batches, default=0).bit_length() + 1):
        least, most = (1 << power >> 1) + 1, 1 << power
        runs = {rows: n for rows, n in t.batches.items() if least <= rows <= most}
        if runs:
            spent_ms = sum(n * t.run_ms[rows] for rows, n in runs.items())
            row_ms = spent_ms / sum(n * rows for rows, n in runs.items())
            name = f"{most}" if least == most else f"{least}{TO}{most}"
            columns.append((name, count(sum(runs.values())), compact(row_ms)))
    if not columns:
        return
    for label, cells in zip(
        ("rows of a run", "runs", "ms a row"), zip(*columns, strict=True), strict=True
    ):
        widths = [max(map(len, column)) for column in columns]
        yield label, "  ".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))


def _config(b: Batching) -> str:
    """The settings that matter."""
    from tritonkit.report.formats import compact, counted

    parts = [f"max_batch_size {b.max_batch_size}", f"{_SCHEDULERS[b.scheduler]}"]
    if b.scheduler != "none":
        parts.append(f"max_queue_delay {compact(b.delay_us / 1e3)} ms")
    if b.preferred:
        parts.append(f"preferred_batch_size {list(b.preferred)}")
    if b.max_queue_size:
        parts.append(f"max_queue_size {b.max_queue_size}")
    if b.timeout_us:
        parts.append(f"queue timeout {compact(b.timeout_us / 1e3)} ms")
    parts += [
        counted(b.instances, "instance"),
        f"response cache {'on' if b.response_cache else 'off'}",
    ]
    return ", ".join(parts)


_SCHEDULERS = {
    "none": "no dynamic batching",
    "dynamic": "dynamic batching",
    "sequence": "sequence batching",
}
