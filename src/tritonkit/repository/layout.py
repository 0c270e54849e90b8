"""The folders of a model repository: `<repository>/<model>/{config.pbtxt, <version>/model.onnx}`.

Beside a model's config lies `configs/unbatched.pbtxt`, the same without a scheduler: a second
Triton, with --model-config-name=unbatched, serves the same folders to compare.

A version is written to a temporary folder and renamed into place, so a server or a crash never
meets half of one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tritonkit.errors import RepositoryError
from tritonkit.folders import made, put
from tritonkit.payloads import PAYLOADS
from tritonkit.repository import pbtxt
from tritonkit.repository.config import ModelConfig, VersionPolicy

CONFIG = "config.pbtxt"
MODEL = "model.onnx"
CONFIGS = "configs"
"""Where in a model's folder Triton looks for a config that --model-config-name names."""
UNBATCHED = f"{CONFIGS}/unbatched.pbtxt"


def model_names(repository: Path) -> list[str]:
    """The models of a repository, by name. RepositoryError if there is no such folder."""
    if not repository.is_dir():
        raise RepositoryError(
            f"no model repository at {repository}; "
            "make one with: python scripts/export_and_package.py, or tritonkit package"
        )
    return sorted(p.parent.name for p in repository.glob(f"*/{CONFIG}"))


def read_text(repository: Path, model: str) -> tuple[Path, str]:
    """The config.pbtxt of one model, and what is in it. RepositoryError if there is no such model,
    or if that is no text.
    """
    names = model_names(repository)
    if model not in names:
        known = ", ".join(names) or "no models"
        raise RepositoryError(f"no model '{model}' in {repository} (it has {known})")
    path = repository / model / CONFIG
    try:
        return path, path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RepositoryError(f"{path}: not a text file; write it as protobuf text") from error


def read_config(repository: Path, model: str) -> ModelConfig:
    """The config of one model. RepositoryError if it is unknown or cannot be used."""
    path, text = read_text(repository, model)
    config = pbtxt.decode(text, str(path), model)
    if config.name != model:
        raise RepositoryError(
            f"{path}: the name is '{config.name}' but the folder is '{model}'; they must be equal"
        )
    return config


def is_ensemble(repository: Path, model: str) -> bool:
    """Whether there is such an entry, and it is an ensemble, which has no model file."""
    if not (repository / model / CONFIG).is_file():
        return False
    path, text = read_text(repository, model)
    return pbtxt.is_ensemble(pbtxt.parse(text, str(path)))


def versions(repository: Path, model: str) -> list[int]:
    """The version numbers that a model has on disk, ascending."""
    folder = repository / model
    return sorted(int(p.name) for p in folder.iterdir() if p.is_dir() and p.name.isdigit())


def served_versions(repository: Path, config: ModelConfig) -> list[int]:
    """Of the versions that a model has on disk, those that its config lets Triton serve."""
    found = versions(repository, config.name)
    policy = config.version_policy
    if policy == "all":
        return found
    if isinstance(policy, tuple):
        return [version for version in found if version in policy]
    return found[-(policy or 1) :]


def model_file(repository: Path, model: str) -> Path:
    """The ONNX file of the newest version, of those that the config names where it names some.

    RepositoryError if its weights are not there, or if it names none that is there.
    """
    policy = read_config(repository, model).version_policy
    found = versions(repository, model)
    allowed = [v for v in found if v in policy] if isinstance(policy, tuple) else found
    if found and not allowed:
        raise RepositoryError(
            f"{repository / model}: its version policy serves {policy}, but there are "
            f"{found}; package one of the versions that it serves, or change the policy"
        )
    for version in reversed(allowed):
        path = repository / model / str(version) / MODEL
        if path.is_dir():  # external data: a folder of that name holds model.onnx and its data
            path = path / MODEL
        if path.is_file():
            return path
    raise RepositoryError(
        f"{repository / model} has a config but no {MODEL}; weights are not committed: "
        "make them with python scripts/export_and_package.py"
    )


def version_folder(file: Path) -> Path:
    """The folder of the version that a model's file, as `model_file` has it, belongs to."""
    return next(folder for folder in file.parents if folder.name.isdigit())


def files_in(folder: Path) -> dict[str, Path]:
    """The files of a folder and of those in it, by their place there."""
    return {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}


def write_model(
    repository: Path,
    config: ModelConfig,
    files: Mapping[str, Path | bytes],
    *,
    version: int | None = None,
    payloads: Path | None = None,
    keep_payloads: bool = True,
    beside: Mapping[str, Path | bytes] | None = None,
) -> Path:
    """Write one version of a model, its config, and that without a scheduler; returns the
    version's folder.

    files: what goes into the version folder, by its place there; one is `model.onnx`. A Path is
    copied, bytes are written.
    version: None takes the next free number; a number that exists is replaced.
    payloads: real inputs for load tests, kept beside the versions; without new ones those that
    are there stay, if keep_payloads. beside: what else lies there, by its place.
    """
    return write_entry(
        repository,
        config.name,
        pbtxt.encode(config),
        files,
        version=version,
        payloads=payloads,
        keep_payloads=keep_payloads,
        beside={**(beside or {}), UNBATCHED: pbtxt.encode(config.unbatched()).encode()},
    )


def write_entry(
    repository: Path,
    name: str,
    text: str,
    files: Mapping[str, Path | bytes],
    *,
    version: int | None,
    payloads: Path | None = None,
    keep_payloads: bool = True,
    beside: Mapping[str, Path | bytes],
) -> Path:
    """As write_model, with the text of the config; an ensemble's version has no files."""
    folder = repository / name
    with made(folder), tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
        target = folder / str(version or max(versions(repository, name), default=0) + 1)
        work = Path(temporary)
        (work / "version").mkdir()
        for place, content in files.items():
            _put(content, work / "version" / place)
        for place, content in beside.items():
            _put(content, work / "beside" / place)
        (work / CONFIG).write_text(text, encoding="utf-8")
        if payloads is not None:
            shutil.copyfile(payloads, work / PAYLOADS)
        put(work / "version", target, work / "replaced")
        for place in beside:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (work / "beside" / place).replace(folder / place)
        if payloads is not None:
            (work / PAYLOADS).replace(folder / PAYLOADS)
        elif not keep_payloads:
            (folder / PAYLOADS).unlink(missing_ok=True)
        replace_if_other(work / CONFIG, folder / CONFIG)
    return target


def replace_if_other(new: Path, old: Path) -> None:
    """Put a file in the place of another, unless they are equal: Triton goes by the time of a file,
    and for a config that is newer it loads every version again.
    """
    if not old.is_file() or old.read_bytes() != new.read_bytes():
        new.replace(old)


def _put(content: Path | bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, target)
    else:
        target.write_bytes(content)


def write_variant(
    repository: Path,
    model: str,
    config: ModelConfig,
    target: Path,
    *,
    every_version: bool = False,
) -> None:
    """A model under another config, and under its name, in the repository at `target`.

    It has the newest version that is served, or with every_version all of those; the policy has
    done its work then and is not written. The version's files, and what else lies in the model's
    folder (labels), are linked, not copied.
    """
    newest = version_folder(model_file(repository, model))
    served = served_versions(repository, replace(config, name=model)) if every_version else []
    names = {newest.name, *map(str, served)}
    folder = target / config.name
    folder.mkdir(parents=True)
    for entry in (repository / model).iterdir():
        if entry.name in names or not (entry.name == CONFIG or entry.name.isdigit()):
            (folder / entry.name).symlink_to(entry.resolve())
    policy: VersionPolicy | None = "all" if len(names) > 1 else None
    text = pbtxt.encode(replace(config, version_policy=policy))
    (folder / CONFIG).write_text(text, encoding="utf-8")
