"""tritonkit package: an exported model into a model repository, or several into an ensemble."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritonkit.cli.package_options import GroupedCommand, all_options
from tritonkit.cli.package_settings import (
    given_options,
    read_maps,
    read_settings,
    require_ensemble_only,
)
from tritonkit.errors import InputError

if TYPE_CHECKING:
    from tritonkit.repository.package import Proof


@click.command(cls=GroupedCommand)
@click.argument("exported", type=click.Path(path_type=Path), required=False)
@all_options
@click.pass_context
def package(context: click.Context, /, exported: Path | None, **options: Any) -> None:
    """Write EXPORTED (a folder from `tritonkit export`, or a .onnx file) into a repository.

    No more rows may share a batch than were proved: what the export does not say is checked
    first, as by `tritonkit check`.

    With --step, write an ensemble of models that are in the repository instead:

        tritonkit package --name search --step tokenizer --step ranker
    """
    given = given_options(context)
    if options["step"]:
        require_ensemble_only(given)
        written = _package_ensemble(**options)
    elif exported is None:
        raise InputError("nothing to package; give an export's folder or a .onnx file, or --step")
    elif options["map"]:
        raise InputError("--map joins the steps of an ensemble; give --step too")
    else:
        written = _package_model(exported, options, given)
    click.echo(f"{written}")


def _package_model(exported: Path, options: dict[str, Any], given: frozenset[str]) -> Path:
    from tritonkit.bench.machine import cpu_limit
    from tritonkit.repository.package import package_model

    return package_model(
        exported,
        options["name"] or exported.resolve().stem,
        options["repository"],
        read_settings(options, given, cpu_limit()),
        options["version"],
        prove=partial(_prove, exported),
        force=options["force"],
    )


def _package_ensemble(
    *, name: str | None, repository: Path, step: tuple[str, ...], map: tuple[str, ...], **other: Any
) -> Path:
    from tritonkit.repository.ensemble import package_ensemble

    if name is None:
        raise InputError("an ensemble needs a name: --name NAME")
    return package_ensemble(repository, name, step, read_maps(map), other["max_batch_size"])


def _prove(exported: Path, model: Path, max_batch_size: int) -> Proof:
    """What `tritonkit check` says of a model, or of more rows, that the export did not check."""
    from tritonkit.check.check import Question, check_model
    from tritonkit.payloads import PAYLOADS, read_payloads

    # An export's folder has real requests; what lies beside a bare file may be another's.
    recorded = exported / PAYLOADS
    examples = read_payloads(recorded) if recorded.is_file() else ()
    return check_model(model, Question(max_batch_size=max_batch_size, examples=examples))
