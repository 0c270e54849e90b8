"""Every rule on every model of a repository, less what the configs' comments switch off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tritonkit.errors import RepositoryError
from tritonkit.repository.layout import CONFIG
from tritonkit.repository.lint.entry import Entry, Limits, has_versions, read_entry
from tritonkit.repository.lint.problem import Problem, Rule
from tritonkit.repository.lint.reading import not_readable
from tritonkit.repository.lint.rules import READING, RULES, UNREADABLE


def lint_repository(
    repository: Path,
    *,
    models: Sequence[str] = (),
    cpus: int,
    slo_p99_ms: float | None,
    gpu: bool = True,
) -> list[Problem]:
    """The problems of a repository, or of these `models` of it, by file and line.

    cpus: how many the server may use. slo_p99_ms: the latency budget, if there is one. gpu:
    whether there is one. RepositoryError if it is no repository, or has no such model.
    """
    limits = Limits(cpus, slo_p99_ms, gpu)
    problems = []
    for folder in _folders(repository, models):
        problems += _lint_entry(read_entry(folder, limits))
    return problems


def _folders(repository: Path, models: Sequence[str]) -> list[Path]:
    if not repository.is_dir():
        raise RepositoryError(f"no model repository at {repository}; give the folder of one")
    folders = sorted(path for path in repository.iterdir() if path.is_dir())
    if not any((path / CONFIG).exists() or _has_versions(path) for path in folders):
        raise RepositoryError(
            f"{repository} is no model repository: no folder of it has a {CONFIG}; "
            "give the folder above the models', a model's folder, or a config.pbtxt"
        )
    names = {path.name for path in folders}
    for model in models:
        if model not in names:
            known = ", ".join(sorted(names))
            raise RepositoryError(f"no model '{model}' in {repository} (it has {known})")
    return [path for path in folders if not models or path.name in models]


def _has_versions(folder: Path) -> bool:
    try:
        return has_versions(folder)
    except OSError:  # told when its turn comes
        return False


def _lint_entry(entry: Entry) -> list[Problem]:
    ignored = entry.text.ignored
    problems = {
        problem: None
        for rule in (READING if entry.text.failure else RULES)
        for problem in _apply(rule, entry)
        if problem.rule not in ignored.get(problem.line, ())
    }
    return sorted(problems, key=lambda problem: problem.line)


def _apply(rule: Rule, entry: Entry) -> Iterator[Problem]:
    try:
        found = list(rule.find(entry))
    except OSError as error:
        rule, found = UNREADABLE, [not_readable(error)]
    for at in found:
        yield Problem(entry.config, at.line, rule.id, rule.severity, at.message, at.why, at.remedy)
