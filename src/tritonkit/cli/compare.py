"""tritonkit compare: the main job."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from tritonkit.cli.numbers import ABOVE_0, Finite
from tritonkit.cli.repository import repository_option
from tritonkit.errors import CheckFailedError, InputError

if TYPE_CHECKING:
    from tritonkit.bench.result import ArmName
    from tritonkit.bench.subject import Comparison


class _Arms(click.ParamType):
    """Names of arms, separated by commas, in the order of `ARMS`."""

    name = "arms"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        from tritonkit.bench.arms import ARMS

        asked = [name.strip() for name in value.split(",")]
        for name in asked:
            if name not in ARMS:
                self.fail(f"no arm {name!r}; the arms are {','.join(ARMS)}.", param, ctx)
        if len(set(asked)) < 2:
            self.fail("one arm is no comparison; name two or more.", param, ctx)
        return tuple(arm for arm in ARMS if arm in asked)


class _Endpoint(click.ParamType):
    """ARM=URL as the arm and host:port. Load goes over plain HTTP."""

    name = "arm=url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from tritonkit.bench.arms import ARMS
        from tritonkit.client.address import parse_address

        arm, found, url = str(value).partition("=")
        if arm not in ARMS or not found:
            self.fail(f"{value!r} is not ARM=URL; the arms are {','.join(ARMS)}.", param, ctx)
        address = parse_address(url)
        if address.protocol != "http" or address.secure or address.path:
            self.fail(f"{url!r}: load goes over plain HTTP; give http://HOST:PORT.", param, ctx)
        return arm, address.netloc


@click.command()
@click.argument("model")
@repository_option
@click.option(
    "--slo-p99-ms", type=ABOVE_0, default=50.0, show_default=True, help="The latency budget."
)
@click.option(
    "--arms",
    type=_Arms(),
    help="What is compared; the default is ort_baseline,triton_unbatched,triton_batched. "
    "ort_batcher is a session with a hand-written batcher.",
)
@click.option(
    "--endpoint",
    "endpoints",
    type=_Endpoint(),
    multiple=True,
    help="An arm that is up already, such as triton_batched=http://localhost:8000; twice or more.",
)
@click.option(
    "--runtime",
    type=click.Choice(["embedded", "compose"]),
    default="embedded",
    show_default=True,
    help="Where the arms run; compose: as services of docker-compose.yml, with the settings that "
    "the model has.",
)
@click.option(
    "--compose-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("docker-compose.yml"),
    show_default=True,
)
@click.option(
    "--rate-rps",
    type=ABOVE_0,
    help="The rate that you must sustain; without it the verdict looks for the most.",
)
@click.option("--per-day", type=ABOVE_0, help="The same as requests a day.")
@click.option(
    "--peak-factor",
    type=Finite(min=1),
    default=3.0,
    show_default=True,
    help="How far the day's peak is above its mean.",
)
@click.option("--cost-per-hour", type=ABOVE_0, help="Of one replica, in any currency.")
@click.option(
    "--level-s",
    type=Finite(min=0.5),
    help="Seconds of each load level; the default is 2. Longer gives a better p99.",
)
@click.option(
    "--time-budget-s",
    type=ABOVE_0,
    help="For all load levels; the default is 33 for each arm. More narrows the intervals.",
)
@click.option("--thorough", is_flag=True, help="Levels of 5 s and 4 minutes for each arm.")
@click.option(
    "--soak",
    "soak_minutes",
    type=ABOVE_0,
    help="Then load the chosen arm for so many minutes, and look for what grows.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, dir_okay=False),
    help="An earlier result.json, for --fail-if.",
)
@click.option(
    "--fail-if",
    multiple=True,
    metavar="RULE",
    help="Exit with 1 if it is worse than the baseline: 'capacity -10%', 'p99 +20%'.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where result.json, report.html and the samples go; the default is results/MODEL.",
)
@click.option("--resume", is_flag=True, help="Go on with a run that was interrupted.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, help="Of the arrivals.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json instead of tables.")
def compare(
    model: str,
    repository: Path,
    slo_p99_ms: float,
    arms: tuple[ArmName, ...] | None,
    endpoints: tuple[tuple[ArmName, str], ...],
    runtime: Literal["embedded", "compose"],
    compose_file: Path,
    rate_rps: float | None,
    per_day: float | None,
    peak_factor: float,
    cost_per_hour: float | None,
    level_s: float | None,
    time_budget_s: float | None,
    thorough: bool,
    soak_minutes: float | None,
    baseline: Path | None,
    fail_if: tuple[str, ...],
    out: Path | None,
    resume: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Load-test MODEL as one ONNX Runtime session, on Triton without and with batching.

    Takes about two and a half minutes on two cores. Ends with a verdict: whether batching pays.
    """
    from tritonkit.load import runner  # first: it prepares the standard library for gevent

    assert runner
    from rich.console import Console

    from tritonkit.bench.compare import compare as run
    from tritonkit.bench.demand import rate_of_a_day
    from tritonkit.bench.regression import (
        judge,
        parse_rule,
        read_result,
        require_comparable,
        require_same_question,
    )
    from tritonkit.bench.subject import Comparison
    from tritonkit.cli.outputs import publish
    from tritonkit.cli.screen import print_progress, print_report
    from tritonkit.report.html import render_html
    from tritonkit.report.text import render_text

    if rate_rps is not None and per_day is not None:
        raise InputError("--rate-rps and --per-day are the same question; give one of them")
    if per_day is not None:
        rate_rps = rate_of_a_day(per_day, peak_factor)
    if cost_per_hour is not None and rate_rps is None:
        raise InputError("--cost-per-hour needs a rate to serve: --rate-rps or --per-day")
    if bool(fail_if) != (baseline is not None):
        raise InputError("--fail-if and --baseline go together: what is worse than what?")
    asked = _arms(arms, dict(endpoints), runtime, soak_minutes)
    rules = [parse_rule(text) for text in fail_if]
    before = read_result(baseline) if baseline else None
    if before is not None and baseline is not None:
        require_same_question(before, baseline, model, slo_p99_ms)
        require_comparable(rules, before, asked, rate_rps)
    # Locust warns that all users start at once, which is what is wanted here.
    logging.getLogger("locust").setLevel(logging.ERROR)
    out = out or Path("results") / model
    what = Comparison(
        repository=repository,
        model=model,
        slo_p99_ms=slo_p99_ms,
        rate_rps=rate_rps,
        level_s=level_s or (5.0 if thorough else 2.0),
        time_budget_s=time_budget_s or (240.0 if thorough else 33.0) * len(asked),
        arms=asked,
        endpoints=dict(endpoints),
        soak_minutes=soak_minutes or 0.0,
        cost_per_hour=cost_per_hour,
        seed=seed,
    )
    progress = Console(stderr=True)
    minutes = (what.time_budget_s + 25 * len(asked)) / 60 + what.soak_minutes
    with publish(out, resume=resume) as folder:
        with (
            progress.status(f"comparing {model}: about {minutes:.0f} minutes"),
            _placed(what, runtime, compose_file) as placed,
        ):
            result = run(placed, folder, partial(print_progress, progress))
        document = json.loads(json.dumps(result.as_json(), allow_nan=False))
        text = json.dumps(document, indent=2)
        (folder / "result.json").write_text(text + "\n", encoding="utf-8")
        (folder / "report.html").write_text(render_html(document), encoding="utf-8")
    if as_json:
        click.echo(text)
    else:
        print_report(render_text(document))
        click.echo(f"\n{out / 'report.html'}")
    if before is not None:
        judged = judge(rules, document, before)
        for found in judged:
            click.echo(found.line, err=as_json)
        if any(found.failed for found in judged):
            raise CheckFailedError(f"worse than {baseline}")


def _arms(
    asked: tuple[ArmName, ...] | None,
    endpoints: Mapping[ArmName, str],
    runtime: str,
    soak_minutes: float | None,
) -> tuple[ArmName, ...]:
    """What is compared. Servers that are up are compared with one another alone: beside one that is
    started and tuned here they would have other CPUs, and work while it does.
    """
    from tritonkit.bench.arms import ARMS, USUAL_ARMS
    from tritonkit.server.compose import SERVICES

    foreign = "--endpoint" if endpoints else "--runtime compose"
    if (endpoints or runtime == "compose") and soak_minutes:
        raise InputError(
            f"--soak follows the memory of the server, which {foreign} does not see; leave one out"
        )
    if runtime == "compose":
        if endpoints:
            raise InputError(
                "--endpoint and --runtime compose name the same arms; give one of them"
            )
        if missing := set(asked or ()) - set(SERVICES):
            raise InputError(f"docker-compose.yml has no {missing.pop()}; leave it out of --arms")
    if not endpoints:
        return asked or USUAL_ARMS
    if asked is not None and set(asked) != set(endpoints):
        raise InputError("--arms and --endpoint name other arms; with --endpoint leave --arms out")
    if len(endpoints) < 2:
        raise InputError("one arm is no comparison; give --endpoint twice or more")
    return tuple(arm for arm in ARMS if arm in endpoints)


@contextmanager
def _placed(what: Comparison, runtime: str, compose_file: Path) -> Iterator[Comparison]:
    """With the servers of docker compose, which go with the block unless they were up before."""
    from tritonkit.repository.layout import read_config
    from tritonkit.server.compose import SERVICES, composed

    if runtime == "embedded":
        yield what
        return
    read_config(what.repository, what.model)  # rather now than when all are up
    services = {arm: SERVICES[arm] for arm in what.arms}
    with composed(compose_file, [*services.values()], what.repository, what.model) as where:
        yield replace(what, endpoints={arm: where[name] for arm, name in services.items()})
