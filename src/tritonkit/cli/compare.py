"""tritonkit compare: the main job."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import click


class _Positive(click.FloatRange):
    """A finite number above 0, or at least `min`."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return float(number)


@click.command()
@click.argument("model")
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=Path("model_repository"),
    show_default=True,
)
@click.option(
    "--slo-p99-ms",
    type=_Positive(min=0, min_open=True),
    default=50.0,
    show_default=True,
    help="The latency budget.",
)
@click.option(
    "--rate-rps",
    type=_Positive(min=0, min_open=True),
    help="The rate that you must sustain; without it the verdict looks for the most.",
)
@click.option(
    "--level-s",
    type=_Positive(min=0.5),
    default=2.5,
    show_default=True,
    help="Counted seconds of each load level. Longer gives a better p99.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where result.json, report.html and the samples go; the default is results/MODEL.",
)
@click.option("--json", "as_json", is_flag=True, help="Print result.json instead of tables.")
def compare(
    model: str,
    repository: Path,
    slo_p99_ms: float,
    rate_rps: float | None,
    level_s: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Load-test MODEL as one ONNX Runtime session, on Triton without and with batching.

    Takes about two minutes on two cores. Ends with a verdict: whether batching pays.
    """
    from tritonkit.load import runner  # first: it prepares the standard library for gevent

    assert runner
    from rich.console import Console

    from tritonkit.bench.compare import compare as run
    from tritonkit.bench.subject import Comparison
    from tritonkit.cli.outputs import publish
    from tritonkit.report.html import render_html
    from tritonkit.report.text import render_text

    # Locust warns that all users start at once, which is what is wanted here.
    logging.getLogger("locust").setLevel(logging.ERROR)
    out = out or Path("results") / model
    what = Comparison(repository, model, slo_p99_ms, rate_rps, level_s)
    progress = Console(stderr=True)
    with publish(out) as folder:
        with progress.status(f"comparing {model}"):
            result = run(what, folder, lambda line: progress.print(line, highlight=False))
        document = result.as_json()
        text = json.dumps(document, indent=2, allow_nan=False)
        (folder / "result.json").write_text(text + "\n", encoding="utf-8")
        (folder / "report.html").write_text(render_html(document), encoding="utf-8")
    if as_json:
        click.echo(text)
        return
    Console().print(render_text(document))
    click.echo(f"\n{out / 'report.html'}")
