"""tritonkit monitor: how the models of a server are doing, as long as one looks."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tritonkit.cli.address import protocol_option
from tritonkit.cli.lines import printable
from tritonkit.cli.numbers import Finite
from tritonkit.cli.statistics import as_triton_speaks, connected
from tritonkit.errors import TritonkitError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tritonkit.client.client import Client
    from tritonkit.stats.health import Health
    from tritonkit.stats.traffic import Look, Traffic

LOOKS = 5
"""Of a window, after the one it begins with."""

_STATES = ("healthy", "degraded", "failing")
_COLOURS = {"healthy": "green", "degraded": "yellow", "failing": "red"}


@click.command()
@click.argument("url")
@click.argument("models", nargs=-1)
@click.option("--slo-p99-ms", type=Finite(0, 1e6, min_open=True), help="The budget of a request.")
@click.option(
    "--window-s",
    type=Finite(0.5, 1e6),
    default=10.0,
    show_default=True,
    help="What is shown is of so many seconds, and changes five times in them.",
)
@protocol_option
@click.option("--once", is_flag=True, help="Watch one window, print it, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, a line each time.")
def monitor(
    url: str,
    models: tuple[str, ...],
    slo_p99_ms: float | None,
    window_s: float,
    protocol: str | None,
    once: bool,
    as_json: bool,
) -> None:
    """Watch MODELS (all, if none is named) on the server at URL.

    Shows each model's rate, latency and where it goes, batches, queue, and health: healthy,
    degraded or failing, with the reason. It sends no requests. When a model's health changes, a
    line on standard error says so. Ctrl-C ends it.

    Exit code of --once: 0 if all are healthy, 1 if not.

    \b
    Examples:
      tritonkit monitor localhost:8001 --slo-p99-ms 50
      tritonkit monitor localhost:8001 ranker --once --json
    """
    from tritonkit.cli.inputs import require_text

    require_text(url, *models)
    with connected(url, protocol) as client:
        watch = Watch(client, models, slo_p99_ms)

        def seen() -> list[Row]:
            with as_triton_speaks(url):
                watch.look()
                return watch.rows()

        rows = seen()
        if once:
            for _ in range(LOOKS):
                time.sleep(window_s / LOOKS)
                rows = seen()
            _print(url, rows, as_json)
            raise SystemExit(0 if worst(rows) == "healthy" else 1)
        with _shown(url, as_json) as (show, tell):
            while True:
                time.sleep(window_s / LOOKS)
                rows = seen()
                for line in watch.changes(rows):
                    tell(line)
                show(rows)


@dataclass(frozen=True)
class Row:
    """One version of a model. traffic: None where there is none to go by."""

    model: str
    version: str
    health: Health
    traffic: Traffic | None = None

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return {
            **{"model": self.model, "version": self.version},
            **self.health._asdict(),
            "numbers": None if self.traffic is None else self.traffic.to_json(),
        }


@dataclass
class Watch:
    """The looks of the last window, at all models of a server at once."""

    client: Client
    models: Sequence[str]
    slo_p99_ms: float | None = None
    _looks: dict[str, deque[Look]] = field(default_factory=dict)
    _configs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _not_ready: Sequence[str] = ()
    _silent: str = ""
    _states: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def look(self) -> None:
        """At the counters as they are now. A server that does not answer is a finding."""
        try:
            self._look()
            self._silent = ""
        except TritonkitError as error:
            self._looks.clear()
            self._silent = str(error)

    def _look(self) -> None:
        from tritonkit.stats.traffic import Look, went_backwards

        loaded: dict[str, list[Any]] = defaultdict(list)
        for record in self.client.statistics():
            loaded[record["name"]].append(record)
        at_ns = time.perf_counter_ns()
        for name in sorted(set(self.models or loaded) & set(loaded)):
            look = Look(at_ns, loaded[name])
            looks = self._looks.setdefault(name, deque(maxlen=LOOKS + 1))
            if looks and went_backwards([looks[-1], look]):
                looks.clear()
            if not looks:
                self._configs[name] = self.client.config(name)
            looks.append(look)
        for name in set(self._looks) - set(loaded):
            del self._looks[name]
        self._not_ready = [
            name for name in sorted(self.models or loaded) if not self.client.is_ready(name)
        ]

    def rows(self) -> list[Row]:
        """Each version of each model, by name."""
        from tritonkit.stats.health import Health, health_of
        from tritonkit.stats.traffic import read_batching, versions

        if self._silent:
            return [Row("", "", Health("failing", f"the server does not answer: {self._silent}"))]
        rows = [Row(name, "", Health("failing", "not ready")) for name in self._not_ready]
        for name in sorted(set(self._looks) - set(self._not_ready)):
            looks = list(self._looks[name])
            if len(looks) < 2:
                rows.append(Row(name, "", Health("healthy", "just loaded")))
                continue
            batching = read_batching(self._configs[name])
            for version in versions(looks):
                health, traffic = health_of(batching, looks, version, self.slo_p99_ms)
                rows.append(Row(name, version, health, traffic))
        return rows

    def changes(self, rows: Sequence[Row]) -> Iterator[str]:
        """A line for each that is no longer what it was."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        states = {(row.model, row.version): row.health.state for row in rows}
        for row in rows:
            before = self._states.get((row.model, row.version), "healthy")
            if row.health.state != before:
                level = "INFO" if row.health.state == "healthy" else "WARNING"
                yield printable(
                    f"{now} {level} {_who(row)}: {row.health.state}: {row.health.reason}"
                )
        self._states = states


def worst(rows: Sequence[Row]) -> str:
    """Of the states."""
    return max((row.health.state for row in rows), key=_STATES.index, default="healthy")


def _who(row: Row) -> str:
    return f"{row.model} {row.version}".strip() or "server"


@contextmanager
def _shown(
    url: str, as_json: bool
) -> Iterator[tuple[Callable[[Sequence[Row]], None], Callable[[str], None]]]:
    """What shows rows, and what tells a line: a table that changes, and the line above it, on a
    terminal; elsewhere the rows again and again, and the line on standard error.
    """
    from rich.console import Console
    from rich.live import Live

    from tritonkit.cli.screen import print_progress

    def tell(line: str) -> None:
        click.echo(line, err=True)

    console = Console()
    if as_json or not console.is_terminal:
        yield lambda rows: _print(url, rows, as_json), tell
        return
    with Live(console=console, auto_refresh=False) as live:

        def above(line: str) -> None:
            print_progress(console, line)

        show = sys.stderr is not None and sys.stderr.isatty()
        yield lambda rows: live.update(_table(url, rows), refresh=True), above if show else tell


def _print(url: str, rows: Sequence[Row], as_json: bool) -> None:
    from tritonkit.cli.screen import print_report

    if as_json:
        document = {"url": url, "state": worst(rows), "models": [row.to_json() for row in rows]}
        click.echo(json.dumps(document, allow_nan=False))
    else:
        print_report(_table(url, rows))


def _table(url: str, rows: Sequence[Row]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from tritonkit.report.formats import compact

    table = Table(box=None, pad_edge=False, title=None)
    table.add_column(printable(url))
    for name in ("req/s", "failed", "ms", "queue", "run", "rows a run", "waiting", "busy"):
        table.add_column(name, justify="right")
    table.add_column("health")
    for row in rows:
        t = row.traffic
        cells = ["–"] * 8
        if t is not None:
            cells = [
                compact(t.rate_rps),
                f"{t.failures:,}",
                compact(t.server_ms),
                compact(t.queue_ms),
                compact(t.mean_run_ms),
                _sizes(t),
                compact(t.waiting),
                f"{t.busy * 100:.0f} %",
            ]
        health = Text(row.health.state, style=_COLOURS[row.health.state])
        table.add_row(
            printable(_who(row)), *cells, health.append(f": {printable(row.health.reason)}", "none")
        )
    return table


_BARS = "▁▂▃▄▅▆▇█"


def _sizes(t: Traffic) -> str:
    """The mean, and a bar for runs of 1, 2, 3 to 4, 5 to 8, … rows."""
    from tritonkit.report.formats import compact

    if not t.batches:
        return "–"
    bins = [0] * (max(t.batches) - 1).bit_length()
    bins.append(0)
    for rows, runs in t.batches.items():
        bins[(rows - 1).bit_length()] += runs
    most = max(bins)
    bars = "".join(_BARS[round(n / most * (len(_BARS) - 1))] if n else " " for n in bins)
    return f"{compact(t.mean_batch)} {bars}"
