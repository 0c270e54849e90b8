"""Where a command writes its results: whole, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tritonkit.errors import CheckFailedError, InputError
from tritonkit.folders import made, put

_MARK = "result.json"
_MEASURED = "progress.jsonl"


def require_place(path: Path, option: str) -> None:
    """InputError where no file or folder can be made at `path`, found by trying it, before anything
    is sent or measured; nothing is left of that. option: as the user gave it.
    """
    folder = path
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(f"{option} {path}: it is a device or a pipe; give a file")
        folder = next((folder for folder in path.absolute().parents if folder.exists()), path)
        with tempfile.TemporaryFile(dir=folder):  # not even root may write to every file system
            pass
    except OSError as error:
        raise InputError(
            f"{option} {path}: nothing can be written in {folder} ({error.strerror}); choose "
            "another place"
        ) from error


@contextmanager
def publish(out: Path, *, resume: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `out` when the block ends well.

    An older result at `out` is replaced only then. What a run measured before it failed or was
    interrupted stays in the `.partial` folder, from which `resume` goes on; after a failed check
    nothing is left of it. InputError if nothing can be written there, if `out` holds anything but
    an older result, if there is nothing to go on with or without `resume` there is, or if another
    run fills it at this moment.
    """
    out = out.resolve()  # `.` has no name to put `.partial` behind
    require_place(out, "--out")
    if out.exists() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise InputError(f"{out} has files that are no earlier result; choose another --out")
    partial = out.with_name(f"{out.name}.partial")
    if resume and not (partial / _MEASURED).is_file():
        raise InputError(f"nothing to resume: no {partial / _MEASURED}; leave out --resume")
    with made(partial.parent), _held(partial):
        if not resume:
            _require_nothing_measured(partial)
            _empty(partial)
        try:
            yield partial
        except CheckFailedError:
            shutil.rmtree(partial)
            raise
        except BaseException as error:
            if resume and isinstance(error, InputError):
                raise  # it cannot be gone on with; it stays as it was
            if _has_measured(partial):
                click.echo(f"what was measured is in {partial}; --resume goes on with it", err=True)
            else:
                shutil.rmtree(partial)
            raise
        old = out.with_name(f".{out.name}.{os.getpid()}.old")
        put(partial, out, old)
        if old.exists():
            shutil.rmtree(old)


@contextmanager
def _held(partial: Path) -> Iterator[None]:
    """Make the folder; nobody else fills it meanwhile. InputError if somebody does."""
    partial.mkdir(exist_ok=True)
    file = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another run is writing to {partial}; wait for it, or choose another --out"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(file)


def _has_measured(partial: Path) -> bool:
    return any(partial.glob("samples/*"))


def _require_nothing_measured(partial: Path) -> None:
    if _has_measured(partial):
        raise InputError(
            f"{partial} has what an interrupted run measured; go on with it with --resume, choose "
            "another --out, or remove that folder"
        )
    if any(partial.iterdir()) and not (partial / _MEASURED).is_file():
        raise InputError(f"{partial} has files of something else; choose another --out")


def _empty(partial: Path) -> None:
    for left in partial.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()
