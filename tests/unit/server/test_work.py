"""A server's temporary folder goes with its process, however that ends, and never before."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tritonkit.server.process import ServerProcess
from tritonkit.server.work import WorkFolder

SHARED = Path("/dev/shm")
HOLD = (
    "import subprocess, sys; from tritonkit.server.work import WorkFolder\n"
    "work = WorkFolder(); print(work.path, flush=True)\n"
)
CHILD = "print(subprocess.Popen(['cat'], pass_fds=[work.lock]).pid, flush=True)\n"


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files of the test's own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def shared():
    """`shared(folder)` → a region whose name begins with that of the folder."""
    made = []

    def make(name: str) -> Path:
        made.append(SHARED / name)
        made[-1].write_bytes(b"0")
        return made[-1]

    yield make
    for region in made:
        region.unlink(missing_ok=True)


def holding(more: str = "") -> tuple[subprocess.Popen, Path]:
    """A process that has a folder until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{HOLD}{more}sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, Path(process.stdout.readline().strip())


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_removed(temporary, shared):
    """It goes with its shared memory, and nothing else."""
    ours, theirs = None, shared(f"tritonkit-{os.getpid()}-other")
    with WorkFolder() as path:
        assert path.parent == temporary and path.is_dir()
        (path / "file").write_text("")
        ours = shared(f"{path.name}-region")
    assert not list(temporary.iterdir())
    assert not ours.exists() and theirs.exists()


def test_left_by_a_killed_process(temporary, shared):
    """What a killed process left goes, with its shared memory, when the next folder is made."""
    process, left = holding()
    region = shared(f"{left.name}-region")
    (left / "repository").mkdir()
    (left / "repository" / "model").write_text("")
    kill(process)
    process.stdin.close()
    assert left.exists()
    with WorkFolder() as path:
        assert list(temporary.iterdir()) == [path]
        assert not region.exists()


def test_of_a_living_process(temporary, shared):
    """A folder in use stays, this process's own too."""
    process, used = holding()
    region = shared(f"{used.name}-region")
    with WorkFolder() as ours, WorkFolder() as path:
        assert {*temporary.iterdir()} == {used, ours, path}
        assert region.exists()
    process.communicate()


def test_server_outlives_the_kit(temporary):
    """As long as a server runs that inherited the lock the folder stays, and goes after that."""
    process, used = holding(CHILD)
    child = psutil.Process(int(process.stdout.readline()))
    kill(process)
    with WorkFolder():
        assert used.exists()
    process.stdin.close()  # now the child ends
    with suppress(psutil.NoSuchProcess):
        while child.status() != psutil.STATUS_ZOMBIE:
            pass
    with WorkFolder():
        assert not used.exists()


@pytest.mark.parametrize(
    "name", ["tritonkit-arm-abc", "tritonkit-1-abc", "tritonkit-1-A*", "other"]
)
def test_foreign_folders(temporary, name):
    """A folder of another name stays, and one without a lock, which may be new."""
    (temporary / name).mkdir()
    if name != "tritonkit-1-abc":
        (temporary / name / "lock").touch()
    with WorkFolder():
        assert (temporary / name).exists()


def test_link(temporary, tmp_path):
    """What a link leads to stays."""
    (tmp_path / "dear").mkdir()
    (tmp_path / "dear" / "lock").touch()
    (temporary / "tritonkit-1-abc").symlink_to(tmp_path / "dear")
    with WorkFolder():
        assert (tmp_path / "dear" / "lock").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_folder_of_another_user(temporary):
    """Another user's folder stays, though root could remove it."""
    theirs = temporary / "tritonkit-1-abc"
    theirs.mkdir()
    (theirs / "lock").touch()
    os.chown(theirs, 12345, 12345)
    with WorkFolder():
        assert theirs.exists()


def test_server_process_inherits(tmp_path):
    """A server is started so that the lock of its folder lives as long as it does."""
    work = WorkFolder()
    wait = [sys.executable, "-c", "import signal; signal.pause()"]
    files = {"cwd": tmp_path, "log": tmp_path / "log"}
    server = ServerProcess(wait, env={}, **files, cpus=(), inherits=(work.lock,))
    os.close(work.lock)  # as it is when the kit dies
    work.lock = None
    with WorkFolder():
        assert work.path.exists()
    server.stop(0)
    with WorkFolder():
        assert not work.path.exists()
    work.remove()  # that it has gone is no error
