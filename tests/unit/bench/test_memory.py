"""What memory processes hold, seen on this one."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tritonkit.bench.memory import rss_bytes, shm_bytes

MB = 1 << 20
SHARED = Path("/dev/shm")


def test_resident():
    """Memory that is taken and touched shows."""
    before = rss_bytes([os.getpid()])
    held = bytearray(b"x") * (64 * MB)
    assert rss_bytes([os.getpid()]) - before > 48 * MB
    assert held


@pytest.mark.skipif(not SHARED.is_dir(), reason="a system without /dev/shm")
def test_shared():
    """A file of shared memory shows once, however many processes have it mapped."""
    file = SHARED / f"tritonkit-test-{os.getpid()}"
    code = (
        "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0)\n"
        "print(flush=True); sys.stdin.read()"
    )
    before = shm_bytes([os.getpid()])
    try:
        with file.open("w+b") as opened:
            opened.truncate(4 * MB)
            with (
                mmap.mmap(opened.fileno(), 0),
                subprocess.Popen(
                    [sys.executable, "-c", code, str(file)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                ) as other,
            ):
                other.stdout.readline()
                assert shm_bytes([os.getpid(), other.pid]) - before == 4 * MB
                other.stdin.close()
    finally:
        file.unlink()


def test_ended_process():
    """A process that has ended holds nothing."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert rss_bytes([ended.pid]) == 0 == shm_bytes([ended.pid])
