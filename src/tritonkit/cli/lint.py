"""tritonkit lint: what a server would refuse in hand-written configs, before one starts."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonkit.errors import RepositoryError

if TYPE_CHECKING:
    from tritonkit.repository.lint.problem import Problem


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--sarif", "as_sarif", is_flag=True, help="Print SARIF 2.1.0, for code hosts.")
@click.option("--strict", is_flag=True, help="Fail for warnings too.")
@click.option(
    "--cpus",
    type=click.IntRange(min=1),
    help="CPUs that the server may use; the default is this machine's, or its container's limit.",
)
@click.option(
    "--slo-p99-ms",
    type=click.FloatRange(min=0, min_open=True),
    help="The latency budget, for the queue delay.",
)
@click.option("--rules", "list_rules", is_flag=True, help="List the rules and end.")
def lint(
    paths: tuple[Path, ...],
    as_json: bool,
    as_sarif: bool,
    strict: bool,
    cpus: int | None,
    slo_p99_ms: float | None,
    list_rules: bool,
) -> None:
    """Find what Triton would refuse in config.pbtxt, and what it accepts and is regretted.

    PATH is a model repository (the default is model_repository), one model's folder, or a
    config.pbtxt. Exit code 1 if there are errors. A comment `# lint: ignore RULE` at the end of
    a line, or on the line above, switches a rule off for it.
    """
    from tritonkit.bench.machine import cpu_limit
    from tritonkit.repository.lint.problem import Severity
    from tritonkit.repository.lint.repository import lint_repository
    from tritonkit.repository.lint.rules import RULES
    from tritonkit.repository.lint.sarif import to_sarif

    if list_rules:
        for rule in RULES:
            click.echo(f"{rule.severity:8} {rule.id:25} {rule.summary}")
        return
    if as_json and as_sarif:
        raise click.UsageError("give --json or --sarif")
    problems = []
    for repository, models in _targets(paths or (Path("model_repository"),)).items():
        problems += lint_repository(
            repository,
            models=models,
            cpus=cpus or cpu_limit(),
            slo_p99_ms=slo_p99_ms,
            gpu=Path("/dev/nvidiactl").exists(),
        )
    counts = Counter(problem.severity.value for problem in problems)
    if as_sarif:
        click.echo(json.dumps(to_sarif(problems, Path.cwd()), indent=2))
    elif as_json:
        click.echo(json.dumps(_as_json(problems, counts), indent=2))
    else:
        for problem in problems:
            click.echo(_line(problem))
        total = [f"{counts[s]} {s}{'' if counts[s] == 1 else 's'}" for s in Severity]
        click.echo(", ".join(total), err=True)
    if counts["error"] or (strict and counts["warning"]):
        sys.exit(1)


def _targets(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """The repositories that the paths are or lie in, and their models; none means all of them.

    RepositoryError for a path that is not there.
    """
    targets: dict[Path, list[str]] = {}
    whole = set()
    for given in paths:
        path = Path(os.path.normpath(Path.cwd() / given))  # links keep their names: the models'
        if not path.exists() and not path.is_symlink():
            raise RepositoryError(f"no model repository at {given}; give the folder of one")
        if path.name == "config.pbtxt" and not path.is_dir():
            path = path.parent
        elif not path.is_dir():
            raise RepositoryError(f"{given} is no config.pbtxt; give one, or a folder")
        elif not _is_model(path):
            targets[_shown(path)] = []
            whole.add(_shown(path))
            continue
        repository = _shown(path.parent)
        if repository not in whole and path.name not in targets.setdefault(repository, []):
            targets[repository].append(path.name)
    return targets


def _is_model(folder: Path) -> bool:
    """Whether this is a model's folder and not a repository: by its config, or its versions."""
    if (folder / "config.pbtxt").exists() or (folder / "config.pbtxt").is_symlink():
        return True
    below = [path for path in folder.iterdir() if path.is_dir()]
    has_models = any((path / "config.pbtxt").exists() for path in below)
    return not has_models and any(path.name.isdecimal() for path in below)


def _line(problem: Problem) -> str:
    """As compilers write it."""
    where = f"{problem.file}:{problem.line}"
    what = f"{problem.severity} {problem.rule}: {problem.message}: {problem.why}; {problem.remedy}"
    return _printable(f"{where}: {what}")


def _as_json(problems: Sequence[Problem], counts: Counter[str]) -> dict[str, object]:
    shown = [{**dataclasses.asdict(p), "file": str(p.file)} for p in problems]
    return {
        "problems": shown,
        "errors": counts["error"],
        "warnings": counts["warning"],
        "notes": counts["note"],
    }


def _shown(path: Path) -> Path:
    """Relative to where we are, if it lies in there."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _printable(text: str) -> str:
    """On one line, whatever names and values a config has."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
