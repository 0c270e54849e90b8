"""The folder that is applied: the shipped base, the patches, and what was decided above them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from tritonkit.deploy.manifests import Object
from tritonkit.errors import InputError
from tritonkit.folders import made, put

BASE = "base"
_MARK = "kustomization.yaml"
# All that any deployment has.
_WRITTEN = {
    *(BASE, _MARK, "deployment.yaml", "autoscaler.yaml", "service-monitor.yaml", "claim.yaml"),
    *("inference-service.yaml", "upload.yaml"),
}


def shipped() -> Path:
    """Where the kit's objects are: in the package, or in the repository that it is run from."""
    inside = Path(__file__).parent / "kubernetes"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "deploy" / "kubernetes"


def read_objects(folder: Path) -> dict[str, Object]:
    """The objects of a folder, one in each file, by the file's name."""
    return {path.name: read_object(path) for path in sorted(folder.glob("*.yaml"))}


def read_object(path: Path) -> Object:
    """The object of one file."""
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def write_folder(
    out: Path,
    bases: Sequence[Path],
    files: Mapping[str, Object],
    comments: Mapping[str, Sequence[str]],
    *,
    force: bool,
) -> None:
    """Write the files, with comments above some, and beside them the shipped files as `base`.

    bases: folders, whose files are all taken, and files. force: an earlier deployment is replaced.
    InputError if there is one, or anything else.
    """
    out = out.resolve()
    _require_free(out, force)
    with (
        made(out.parent),
        tempfile.TemporaryDirectory(prefix=".deploying-", dir=out.parent) as temporary,
    ):
        work = Path(temporary) / "new"
        (work / BASE).mkdir(parents=True)
        for source in bases:
            for path in sorted(source.iterdir()) if source.is_dir() else [source]:
                shutil.copyfile(path, work / BASE / path.name)
        for name, content in files.items():
            above = "".join(_comment(line) for line in comments.get(name, ()))
            (work / name).write_text(above + _text(content), encoding="utf-8")
        put(work, out, Path(temporary) / "old")


def _require_free(out: Path, force: bool) -> None:
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")
    if Path.cwd().is_relative_to(out):
        raise InputError(f"--out {out} is where you are; give a folder in it")
    there = {path.name for path in out.iterdir()}
    if not there:
        return
    if strange := sorted(there - _WRITTEN):
        raise InputError(
            f"--out {out} has files that are of no deployment ({strange[0]}); choose another"
        )
    if not force:
        raise InputError(f"--out {out} has a deployment; replace it with --force")


def _comment(line: str) -> str:
    """One line, whatever a plan's path or words have in them."""
    return "".join(c if c.isprintable() else "�" for c in f"# {line}").rstrip() + "\n"


def _text(content: Object) -> str:
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100))
