"""tritonkit plan --what-if: answers from a curve alone, a line each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tritonkit.cli.lines import printable
from tritonkit.errors import InputError

if TYPE_CHECKING:
    from tritonkit.load.arrivals import Arrivals
    from tritonkit.plan.what_if import Answer, WhatIf
    from tritonkit.profile.curve import ServiceCurve


def answer_all(
    asked: Sequence[str], model: str | None, arrivals: Arrivals, *, as_json: bool
) -> None:
    """Print what is predicted: a line for each question, or a list of objects.

    model: of which the curves must be, if it is given. InputError in one line for what is no
    question, no curve, or a budget that nothing keeps; what was answered before that stays.
    """
    from tritonkit.plan.fit import services, stream_of
    from tritonkit.plan.what_if import answer, parse_what_if
    from tritonkit.profile.curve import read_curve

    questions = [parse_what_if(text) for text in asked]
    curves = {what.curve: read_curve(what.curve) for what in questions}
    for path, curve in curves.items():
        if model is not None and model != curve.model:
            raise InputError(
                f"{path} is the curve of model '{curve.model}', not of '{model}'; leave out MODEL, "
                "which the curve names"
            )
    found = []
    for what in questions:
        curve = curves[what.curve]
        said = answer(what, services(curve), stream_of(curve, arrivals), curve.max_rows)
        if as_json:
            found.append(_document(what, curve, said))
        else:
            click.echo(_line(what, curve, said))
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False))


def _line(what: WhatIf, curve: ServiceCurve, said: Answer) -> str:
    """All of it, in one line."""
    from tritonkit.report import formats as f

    machine = f"{curve.machine.get('cpu_model')}, {f.counted(curve.machine.get('cpus'), 'CPU')}"
    model = printable(f"{curve.model} on {machine}, p99 within {f.compact(what.slo_p99_ms)} ms")
    capacity = f"{f.compact(said.capacity_rps)} requests/s"
    each = f" each, {f.compact(what.replicas * said.capacity_rps)} together"
    serves = f"{capacity}{each if what.replicas > 1 else ''}"
    if what.rate_rps is None:
        return f"{model}: {f.counted(what.replicas, 'replica')} with {said.settings}: {serves}"
    asked = f"{f.compact(what.rate_rps)} requests/s on {f.counted(what.replicas, 'replica')}"
    needs = (
        f"needs {f.counted(said.replicas_needed, 'replica')}, {said.replicas_if_one_fails} to "
        "stand the loss of one"
    )
    if said.p99_ms is None:
        return f"{model}: {asked}: too much; with {said.settings} at most {serves}; {needs}"
    return (
        f"{model}: {asked} with {said.settings}: p99 {f.compact(said.p99_ms)} ms; at most "
        f"{serves} ({f.ratio(said.headroom)} the rate); {needs}"
    )


def _document(what: WhatIf, curve: ServiceCurve, said: Answer) -> dict[str, Any]:
    from tritonkit.planning.result import settings_json

    return {
        "model": curve.model,
        "machine": dict(curve.machine),
        "asked": {**asdict(what), "curve": str(what.curve)},
        **asdict(said),
        "settings": settings_json(said.settings),
        "replicas_if_one_fails": said.replicas_if_one_fails,
    }
