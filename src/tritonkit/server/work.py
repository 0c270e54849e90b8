"""Temporary folders for servers, which go even where nobody was left to remove them."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_OURS = re.compile(r"tritonkit-[0-9]+-[a-z0-9_]+")
_LOCK = "lock"
_SHARED = Path("/dev/shm")


class WorkFolder:
    """A temporary folder, until it is removed. What a killed process left goes when the next one
    makes such a folder.

    path: its name is unique; shared memory whose name begins with it and a dash goes with it.
    lock: a file that is locked as long as this process, or one that inherits it, lives; None where
    files cannot be locked. Only a folder whose lock is free was left behind.
    """

    def __init__(self) -> None:
        _sweep()
        self._folder = tempfile.TemporaryDirectory(prefix=f"tritonkit-{os.getpid()}-")
        self.path = Path(self._folder.name)
        self.lock = _lock(self.path)

    def remove(self) -> None:
        """Remove it, and the shared memory of its name."""
        try:
            _remove_shared(self.path.name)
            self._folder.cleanup()
        finally:
            if self.lock is not None:
                os.close(self.lock)
                self.lock = None

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *exc: object) -> None:
        self.remove()


def _lock(folder: Path) -> int | None:
    begun = folder / f"{_LOCK}.new"
    file = os.open(begun, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a file system without locks
        os.close(file)
        return None
    begun.rename(folder / _LOCK)  # only now, or others might find it there and free
    return file


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob("tritonkit-*"):
        with suppress(OSError):  # another user's, or it is gone by now
            if _OURS.fullmatch(folder.name) and folder.lstat().st_uid == os.geteuid():
                _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    file = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_shared(folder.name)
        shutil.rmtree(folder, ignore_errors=True)  # which refuses a link
    finally:
        os.close(file)


def _remove_shared(name: str) -> None:
    for left in _SHARED.glob(f"{name}-*"):
        left.unlink(missing_ok=True)
