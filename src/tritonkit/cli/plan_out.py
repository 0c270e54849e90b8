"""The folder that `tritonkit plan` fills: whole or not at all, but for the curve."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tritonkit.cli.outputs import require_place
from tritonkit.errors import InputError
from tritonkit.folders import made

PLAN, REPORT, CURVE = "plan.json", "report.html", "curve.json"
_PARTS = ("samples", "logs", CURVE, REPORT, PLAN)


@contextmanager
def filling(out: Path, *, measuring: bool) -> Iterator[Path]:
    """A folder inside `out` to fill, whose parts replace those of an older plan when the block ends
    well. Where plan.json is, all that it speaks of is.

    If it does not end well the older plan stays, and a curve that was measured by then goes to
    `out`, with a line that says so. measuring: whether it is measured and not given.
    InputError if nothing can be written there, or `out` is a folder of something else.
    """
    if out.exists() and any(out.iterdir()) and not any((out / p).is_file() for p in (PLAN, CURVE)):
        raise InputError(f"{out} has files that are no earlier plan; choose another --out")
    require_place(out, "--out")
    with made(out), tempfile.TemporaryDirectory(prefix=".planning-", dir=out) as temporary:
        work = Path(temporary)
        try:
            yield work
        except BaseException:
            if measuring and (work / CURVE).is_file():
                (work / CURVE).replace(out / CURVE)
                kept = f"the curve is in {out / CURVE}; go on with --curve {out / CURVE}"
                click.echo(kept, err=True)
            raise
        (out / PLAN).unlink(missing_ok=True)
        for part in _PARTS:
            if (out / part).is_dir():
                shutil.rmtree(out / part)
            if (work / part).exists():
                (work / part).replace(out / part)
