"""Where a command writes its results: whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    out = out.resolve()  # `.` has no name to put `.partial` behind
    if out.exists() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise InputError(f"{out} has files that are no earlier result; choose another --out")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    made = [folder for folder in partial.parents if not folder.exists()]
    partial.mkdir(parents=True)
    try:
        yield partial
    except TritonkitError:
        _remove(partial, made)
        raise
    except BaseException:
        if any(partial.glob("samples/*")):
            click.echo(f"what was measured so far is in {partial}", err=True)
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
