"""Where a command writes its results: whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from tritonkit.errors import CheckFailedError, InputError

_MARK = "result.json"
_MEASURED = "progress.jsonl"


@contextmanager
def publish(out: Path, *, resume: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `out` when the block ends well.

    An older result at `out` is replaced only then. What a run measured before it failed or was
    interrupted stays in the `.partial` folder, from which `resume` goes on; after a failed check
    nothing is left of it. InputError if `out` holds anything but an older result, or if there is
    nothing to go on with.
    """
    out = out.resolve()  # `.` has no name to put `.partial` behind
    if out.exists() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise InputError(f"{out} has files that are no earlier result; choose another --out")
    partial = out.with_name(f"{out.name}.partial")
    if resume and not (partial / _MEASURED).is_file():
        raise InputError(f"nothing to resume: no {partial / _MEASURED}; leave out --resume")
    if not resume:
        shutil.rmtree(partial, ignore_errors=True)
    made = [folder for folder in partial.parents if not folder.exists()]
    partial.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
    except CheckFailedError:
        _remove(partial, made)
        raise
    except BaseException as error:
        if resume and isinstance(error, InputError):
            raise  # it cannot be gone on with; it stays as it was
        if any(partial.glob("samples/*")):
            click.echo(f"what was measured is in {partial}; --resume goes on with it", err=True)
        else:
            _remove(partial, made)
        raise
    if not out.exists():
        partial.rename(out)
        return
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    out.rename(old)
    try:
        partial.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old)


def _remove(partial: Path, made: list[Path]) -> None:
    """Remove what was begun, and the folders above it that were made for it."""
    shutil.rmtree(partial)
    for folder in made:
        with suppress(OSError):  # somebody else's work is in it now
            folder.rmdir()
