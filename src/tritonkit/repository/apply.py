"""Other settings of a model as a new version of it, and the way back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tritonkit.repository.config import ModelConfig
from tritonkit.repository.layout import (
    CONFIG,
    CONFIGS,
    UNBATCHED,
    files_in,
    model_file,
    version_folder,
    versions,
    write_model,
)


@dataclass(frozen=True)
class Applied:
    """What was written. kept: the config of before, in the model's folder."""

    version: int
    before: int
    kept: Path


def apply_config(repository: Path, config: ModelConfig) -> Applied:
    """Write the model under this config as its next version, with the files of the version that is
    served now; a policy that names that one names the new one instead.

    All versions stay, and the config of before stays in `configs`. If it fails, nothing has
    changed. RepositoryError if there is no such model, or it has no version that is served.
    """
    folder = repository / config.name
    source = version_folder(model_file(repository, config.name))
    before = int(source.name)
    number = max(versions(repository, config.name)) + 1
    if isinstance(config.version_policy, tuple):
        served = tuple(number if v == before else v for v in config.version_policy)
        config = replace(config, version_policy=served)
    present = (folder / CONFIG).read_bytes()
    kept = next(path for path in _places(folder, before) if _is_free(path, present))
    unbatched = folder / UNBATCHED
    without = unbatched.read_bytes() if unbatched.is_file() else None
    written = (kept.parent, kept, unbatched, folder / str(number))
    new = [path for path in written if not path.exists()]
    place = kept.relative_to(folder).as_posix()
    try:
        write_model(repository, config, files_in(source), version=number, beside={place: present})
    except BaseException:
        if (folder / CONFIG).read_bytes() == present:
            _remove(new)
            if without is not None:
                unbatched.write_bytes(without)
        raise
    return Applied(number, before, kept)


def _places(folder: Path, version: int) -> Iterator[Path]:
    yield folder / CONFIGS / f"version-{version}.pbtxt"
    count = 2
    while True:
        yield folder / CONFIGS / f"version-{version}-{count}.pbtxt"
        count += 1


def _is_free(path: Path, content: bytes) -> bool:
    """Whether nothing else would be lost."""
    return not path.exists() or (path.is_file() and path.read_bytes() == content)


def _remove(new: list[Path]) -> None:
    for path in reversed(new):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
