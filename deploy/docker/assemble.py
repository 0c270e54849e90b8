"""Lay the embedded Triton out as NVIDIA's image has it: assemble.py /opt/tritonserver.

Fetches the wheel as `tritonkit setup` does, with the hash that is written there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tritonkit.errors import SetupError
from tritonkit.server.triton_wheel import TritonFiles, assemble_backends, fetch_triton


def main(target: Path) -> None:
    """Make `target` with bin/, lib/ and backends/. A SystemExit of one line if it cannot."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITONKIT_CACHE"] = cache
        try:
            files = TritonFiles(fetch_triton())
        except SetupError as error:
            raise SystemExit(f"error: {error}") from error
        (target / "bin").mkdir(parents=True)
        shutil.copy2(files.binary, target / "bin")
        assemble_backends(files, target / "backends")
        libraries = target / "lib"
        shutil.copytree(files.libraries, libraries)
    stub = target / "backends" / "python" / files.python_stub.name
    used = _linked(stub, libraries)
    for library in libraries.glob("libpython*"):
        library.unlink()  # a fifth of Triton's size
        if library.name in used:
            # The stub for Python 3.13 would take the wheel's. It has not the modules built in that
            # Debian's has, and that Debian's standard library does not bring as files.
            library.symlink_to(_own_libpython())
    for program in (target / "bin" / "tritonserver", stub):
        missing = [line for line in _linked(program, libraries).splitlines() if "not found" in line]
        if missing:
            names = ", ".join(line.split()[0] for line in missing)
            raise SystemExit(f"error: the base image has no {names}, which Triton needs; add it")


def _own_libpython() -> str:
    """The path of the base image's."""
    name = sysconfig.get_config_var("INSTSONAME")
    said = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for line in said.splitlines():
        words = line.split()
        if words[:1] == [name]:
            return words[-1]
    raise SystemExit(f"error: the base image has no {name}, which Triton needs; add it")


def _linked(program: Path, libraries: Path) -> str:
    """What ldd says."""
    env = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    done = subprocess.run(["ldd", program], env=env, capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))
