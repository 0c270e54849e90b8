"""What several kinds of tests share."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run, and no failing because the machine is busy.
settings.register_profile("tritonkit", derandomize=True, deadline=None)
settings.load_profile("tritonkit")


@dataclass(frozen=True)
class PackagedExamples:
    """repository: as served. exports/<name>: each example as it was exported."""

    repository: Path
    exports: Path


# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the commands
# that they start and send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def packaged_examples(tmp_path_factory: pytest.TempPathFactory) -> PackagedExamples:
    """All example models, exported and packaged by the real command, once (about 25 s).

    Tests that run side by side share them, and wait here for the first that needs them.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "examples"
    folder.mkdir(exist_ok=True)
    made = PackagedExamples(folder / "repository", folder / "exports")
    command = [sys.executable, "-m", "tritonkit.cli", "examples"]
    options = ["--repository", str(made.repository), "--exports", str(made.exports)]
    finished = folder / "finished"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            finished.touch()
    return made


@pytest.fixture(scope="session")
def tritonkit() -> Callable[..., subprocess.CompletedProcess]:
    """`tritonkit("serve", "--help")` runs the installed script to its end."""
    script = Path(sys.executable).with_name("tritonkit")

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(script), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **options,
        )

    return run
