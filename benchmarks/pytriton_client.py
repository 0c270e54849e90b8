"""pytriton's ModelClient, in a folder of its own in the kit's cache.

Its metadata asks for numpy below 2, so it is not installed here. Nothing of it is changed: its
folder is the last on sys.path, and what it imports besides comes with it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tritonkit.server.triton_wheel import REQUIREMENT, cache_dir

_NEEDED = ("typing-inspect==0.9.0", "mypy-extensions==1.2.0", "wrapt==2.5.2")


def model_client() -> Any:
    """The class. ImportError, or CalledProcessError of pip, if it cannot be had."""
    folder = cache_dir() / REQUIREMENT.replace("==", "-")
    if not folder.is_dir():
        _fetch(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    from pytriton.client import ModelClient

    return ModelClient


def _fetch(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as name:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", name]
        subprocess.run([*pip, REQUIREMENT, *_NEEDED], check=True)
        shutil.rmtree(Path(name) / "pytriton" / "tritonserver")  # the kit has it already
        Path(name).rename(folder)
        Path(name).mkdir()  # for the clean-up to remove
