"""The folders of a model repository: `<repository>/<model>/{config.pbtxt, <version>/model.onnx}`.

A version is written to a temporary folder and renamed into place, so a server or a crash never
meets half of one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tritonkit.errors import RepositoryError
from tritonkit.payloads import PAYLOADS
from tritonkit.repository import pbtxt
from tritonkit.repository.config import ModelConfig

CONFIG = "config.pbtxt"
MODEL = "model.onnx"


def model_names(repository: Path) -> list[str]:
    """The models of a repository, by name. RepositoryError if there is no such folder."""
    if not repository.is_dir():
        raise RepositoryError(
            f"no model repository at {repository}; "
            "make one with: python scripts/export_and_package.py, or tritonkit package"
        )
    return sorted(p.parent.name for p in repository.glob(f"*/{CONFIG}"))


def read_config(repository: Path, model: str) -> ModelConfig:
    """The config of one model. RepositoryError if it is unknown or cannot be used."""
    names = model_names(repository)
    if model not in names:
        known = ", ".join(names) or "no models"
        raise RepositoryError(f"no model '{model}' in {repository} (it has {known})")
    path = repository / model / CONFIG
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RepositoryError(f"{path}: not a text file; write it as protobuf text") from error
    config = pbtxt.decode(text, str(path), model)
    if config.name != model:
        raise RepositoryError(
            f"{path}: the name is '{config.name}' but the folder is '{model}'; they must be equal"
        )
    return config


def versions(repository: Path, model: str) -> list[int]:
    """The version numbers that a model has on disk, ascending."""
    folder = repository / model
    return sorted(int(p.name) for p in folder.iterdir() if p.is_dir() and p.name.isdigit())


def model_file(repository: Path, model: str) -> Path:
    """The ONNX file of the newest version. RepositoryError if its weights are not there."""
    for version in reversed(versions(repository, model)):
        path = repository / model / str(version) / MODEL
        if path.is_dir():  # external data: a folder of that name holds model.onnx and its data
            path = path / MODEL
        if path.is_file():
            return path
    raise RepositoryError(
        f"{repository / model} has a config but no {MODEL}; weights are not committed: "
        "make them with python scripts/export_and_package.py"
    )


def write_model(
    repository: Path,
    config: ModelConfig,
    files: Mapping[str, Path],
    *,
    version: int | None = None,
    payloads: Path | None = None,
) -> Path:
    """Write one version of a model and its config; returns the version's folder.

    files: what goes into the version folder, by its place there; one is `model.onnx`.
    version: None takes the next free number; a number that exists is replaced.
    payloads: real inputs for load tests, kept beside the versions.
    """
    folder = repository / config.name
    text = pbtxt.encode(config)
    with _made(folder), tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as name:
        target = folder / str(version or max(versions(repository, config.name), default=0) + 1)
        work = Path(name)
        for place, file in files.items():
            copy = work / "version" / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        (work / CONFIG).write_text(text, encoding="utf-8")
        if payloads is not None:
            shutil.copyfile(payloads, work / PAYLOADS)
        try:
            if target.exists():
                target.rename(work / "replaced")
            (work / "version").rename(target)
        except BaseException:
            if (work / "replaced").exists():
                (work / "replaced").rename(target)
            raise
        for name in (PAYLOADS, CONFIG):
            if (work / name).exists():
                (work / name).replace(folder / name)
    return target


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; after the block the ones left empty go again."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in made:
            with suppress(OSError):  # it is not empty
                path.rmdir()


def write_variant(repository: Path, model: str, config: ModelConfig, target: Path) -> None:
    """A repository at `target` with the newest version of one model under another config.

    The version's files, and what else lies in the model's folder (labels), are linked, not copied.
    """
    source = model_file(repository, model)
    version = next(p for p in source.parents if p.parent == repository / model)
    folder = target / model
    folder.mkdir(parents=True)
    for entry in (repository / model).iterdir():
        if entry == version or not (entry.name == CONFIG or entry.name.isdigit()):
            (folder / entry.name).symlink_to(entry.resolve())
    (folder / CONFIG).write_text(pbtxt.encode(config), encoding="utf-8")
