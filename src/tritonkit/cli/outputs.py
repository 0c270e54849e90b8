"""Where a command writes its results: whole, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tritonkit.errors import InputError, TritonkitError

_MARK = "result.json"


@contextmanager
def publish(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` when the block ends well.

    An older result at `out` is replaced only then. After a foreseen failure nothing is left;
    what an interrupted run measured stays in the `.partial` folder, and its place is said.
    InputError if `out` holds anything but an older result.
    """
    if out.exists() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise InputError(f"{out} has files that are no earlier result; choose another --out")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except TritonkitError:
        shutil.rmtree(partial)
        raise
    except BaseException:
        if any(partial.glob("samples/*")):
            click.echo(f"what was measured so far is in {partial}", err=True)
        else:
            shutil.rmtree(partial)
        raise
    if out.exists():
        old = out.with_name(f"{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        partial.rename(out)
        shutil.rmtree(old)
    else:
        partial.rename(out)
