"""tritonkit plan: the best batching settings, by simulation and a few live runs."""

from __future__ import annotations

import json
import logging
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonkit.cli.numbers import ABOVE_0
from tritonkit.cli.repository import repository_option
from tritonkit.errors import CheckFailedError, InputError

if TYPE_CHECKING:
    from tritonkit.load.arrivals import Arrivals
    from tritonkit.planning.result import Plan


@click.command()
@click.argument("model", required=False)
@repository_option
@click.option(
    "--slo-p99-ms", type=ABOVE_0, default=50.0, show_default=True, help="The latency budget."
)
@click.option("--rate-rps", type=ABOVE_0, help="Look for the lowest p99 at this rate.")
@click.option(
    "--maximise",
    is_flag=True,
    help="Look for the highest rate within the budget; so it is without --rate-rps.",
)
@click.option(
    "--arrivals",
    default="poisson",
    show_default=True,
    metavar="poisson|FILE.jsonl",
    help="How requests come; a trace is sped up or slowed down to each rate.",
)
@click.option(
    "--max-batch-size",
    type=click.IntRange(2, 4096),
    help="The largest to try; the default is what was proved safe, up to 128.",
)
@click.option(
    "--curve",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A curve.json of an earlier plan, to leave out measuring it.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where plan.json, report.html and curve.json go; the default is plans/MODEL.",
)
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, help="Of the arrivals.")
@click.option("--json", "as_json", is_flag=True, help="Print plan.json instead of tables.")
@click.option(
    "--apply", "apply_it", is_flag=True, help="Write the settings as a new version of the model."
)
@click.option(
    "--what-if",
    "what_if",
    multiple=True,
    metavar="s=curve.json,rate=R,slo=MS,replicas=N",
    help="Answer from the curve alone, in seconds; all but s may be left out.",
)
@click.pass_context
def plan(
    context: click.Context,
    model: str | None,
    repository: Path,
    slo_p99_ms: float,
    rate_rps: float | None,
    maximise: bool,
    arrivals: str,
    max_batch_size: int | None,
    curve: Path | None,
    out: Path | None,
    seed: int,
    as_json: bool,
    apply_it: bool,
    what_if: tuple[str, ...],
) -> None:
    """Find the batching settings under which MODEL serves most within the latency budget.

    Measures how long its runs take, simulates Triton's batcher under hundreds of settings, runs the
    best few live and confirms one. Takes a minute and a half on two cores, up to three minutes
    for a model that does 300 requests/s or less.

    \b
    Examples:
      tritonkit plan ranker --slo-p99-ms 20
      tritonkit plan ranker --rate-rps 500 --apply
      tritonkit plan --what-if s=plans/ranker/curve.json,rate=4000,replicas=2
    """
    if what_if:
        _require_what_if_alone(context)
        from tritonkit.cli.what_if import answer_all

        answer_all(what_if, model, _arrivals(arrivals), as_json=as_json)
        return
    if model is None:
        raise click.UsageError("which MODEL? Name one, or ask --what-if of a curve", context)
    if maximise and rate_rps is not None:
        raise InputError(
            "--maximise looks for the highest rate and --rate-rps gives one; give one of them"
        )
    pattern = _arrivals(arrivals)

    from tritonkit.load import runner  # first: it prepares the standard library for gevent

    assert runner
    from rich.console import Console

    from tritonkit.cli.plan_out import PLAN, REPORT, filling
    from tritonkit.cli.screen import print_progress, print_report
    from tritonkit.planning.planner import Question
    from tritonkit.planning.planner import plan as run
    from tritonkit.report.plan_html import render_plan_html
    from tritonkit.report.plan_text import render_plan_text

    # Locust warns that all users start at once, which is what is wanted here.
    logging.getLogger("locust").setLevel(logging.ERROR)
    what = Question(
        repository=repository,
        model=model,
        slo_p99_ms=slo_p99_ms,
        rate_rps=rate_rps,
        arrivals=pattern,
        max_batch_size=max_batch_size,
        curve=curve,
        seed=seed,
    )
    if curve is not None:
        _require_curve(repository, model, curve)
    out = (out or Path("plans") / model).resolve()
    progress = Console(stderr=True)
    with filling(out, measuring=curve is None) as folder:
        with progress.status(f"planning {model}: one to three minutes"):
            found = run(what, folder, partial(print_progress, progress))
        document = json.loads(json.dumps(found.as_json(), allow_nan=False))
        text = json.dumps(document, indent=2)
        (folder / REPORT).write_text(render_plan_html(document), encoding="utf-8")
        (folder / PLAN).write_text(text + "\n", encoding="utf-8")
    if as_json:
        click.echo(text)
    else:
        print_report(render_plan_text(document))
        click.echo(f"\n{out / REPORT}")
    if apply_it:
        _apply(repository, found, to_stderr=as_json)


def _apply(repository: Path, found: Plan, *, to_stderr: bool) -> None:
    """Write the winner, unless the plan is for something else. CheckFailedError for no winner."""
    from tritonkit.planning.variants import with_settings
    from tritonkit.repository.apply import apply_config
    from tritonkit.repository.layout import CONFIG, read_config

    def say(line: str) -> None:
        click.echo(line, err=to_stderr)

    model = found.model
    if found.conclusion == "none":
        raise CheckFailedError(f"nothing is applied to '{model}': {found.because}")
    if found.conclusion == "ort_baseline":
        say(f"nothing is applied to '{model}': the plan is to keep one ONNX Runtime session")
        return
    present = read_config(repository, model)
    config = with_settings(present, found.winner)
    if config == present:
        say(f"nothing is applied to '{model}': it has these settings already")
        return
    done = apply_config(repository, config)
    folder = repository / model
    new = folder / str(done.version)
    say(
        f"{new} is version {done.before} with the settings of the plan in config.pbtxt; version "
        f"{done.before} stays"
    )
    copy = shlex.join(["cp", str(done.kept), str(folder / CONFIG)])
    say(f"to go back: {copy} && {shlex.join(['rm', '-r', str(new)])}")


def _arrivals(text: str) -> Arrivals:
    """Poisson or a trace. InputError for patterns whose rates are not all alike, or not random."""
    from tritonkit.load.arrivals import POISSON, Trace, parse_arrivals

    if text == "poisson":
        return POISSON
    pattern = parse_arrivals(text)
    if not isinstance(pattern, Trace):
        raise InputError(
            f"--arrivals {text}: a plan is made for poisson or for a trace, FILE.jsonl; give one"
        )
    return pattern


def _require_curve(repository: Path, model: str, path: Path) -> None:
    """InputError for a curve of something else: at once, before a server is looked for."""
    from tritonkit.bench.machine import describe_machine
    from tritonkit.profile.curve import read_curve
    from tritonkit.repository.layout import model_file
    from tritonkit.verification import file_sha256

    sha256 = file_sha256(model_file(repository, model))
    read_curve(path).require(path, sha256, describe_machine())


def _require_what_if_alone(context: click.Context) -> None:
    """InputError for options of a plan that an answer from a curve has no use for."""
    own = {"model", "arrivals", "as_json", "what_if"}
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name)
        if name not in own and given is click.core.ParameterSource.COMMANDLINE:
            raise InputError(
                f"--what-if answers from a curve alone and has no use for {parameter.opts[0]}; "
                "leave that out, or write it inside: s=curve.json,rate=R,slo=MS,replicas=N"
            )
