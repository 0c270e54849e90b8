"""Write a folder so that it is either there whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tritonkit.errors import InputError


@contextmanager
def filled_folder(out_dir: Path, last: str) -> Iterator[Path]:
    """A temporary folder beside `out_dir` that becomes `out_dir` if the block ends well.

    If `out_dir` exists already its files are replaced one by one, the one called `last` removed
    first and put back last: who finds `last` finds a whole set. Files of other names stay. On any
    exception, KeyboardInterrupt included, the temporary folder goes and `out_dir` is as it was.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise InputError(f"{out_dir} is a file; give a folder to write to")
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile.mkdtemp: it hides the folder from other users, such as a container's.
    temporary = out_dir.with_name(f".{out_dir.name}.{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        if out_dir.exists():
            _replace_files(temporary, out_dir, last)
        else:
            temporary.replace(out_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_files(source: Path, target: Path, last: str) -> None:
    (target / last).unlink(missing_ok=True)
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    for file in sorted(files, key=lambda path: (path == Path(last), path)):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).replace(target / file)
