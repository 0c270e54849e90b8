"""Shared memory regions: sizes, reuse, and that none is left behind."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tritonkit.client import shared_memory
from tritonkit.client.shared_memory import RegionPool, lay_out, read, write
from tritonkit.errors import InputError, UnavailableError

KIB, MIB = 1024, 1024 * 1024
SHM = Path("/dev/shm")


@pytest.fixture
def pool():
    pool = RegionPool()
    yield pool
    pool.close()


def exists(region):
    return (SHM / region.name).exists()


@pytest.mark.parametrize(
    ("asked", "given"),
    [(0, 64 * KIB), (1, 64 * KIB), (64 * KIB, 64 * KIB), (64 * KIB + 1, 128 * KIB), (MIB, MIB)],
)
def test_sizes(pool, asked, given):
    """Sizes are powers of two from 64 KiB."""
    region = pool.take(asked)
    assert (region.byte_size, region.buffer.nbytes) == (given, given)


def test_names(pool):
    """Each region has its own name, with the process id, and the key that shm_open takes."""
    first, second = pool.take(1), pool.take(1)
    assert first.name != second.name
    assert first.name.startswith(f"tritonkit-{os.getpid()}-")
    assert first.key == f"/{first.name}"


def test_others_see_it(pool):
    """What is written is what another process reads under the region's name."""
    region = pool.take(1)
    write(region, 64, b"hello")
    assert (SHM / region.name).read_bytes()[64:69] == b"hello"


def test_reuse(pool):
    """A region that was given back is taken again, the one used last first."""
    regions = [pool.take(1) for _ in range(3)]
    for region in regions:
        pool.give_back(region)
    assert [pool.take(1), pool.take(1)] == [regions[2], regions[1]]


def test_no_larger_region_is_wasted(pool):
    """A request never gets a region of another size."""
    large = pool.take(MIB)
    pool.give_back(large)
    assert pool.take(1) is not large


def test_given_back_twice(pool):
    """Giving back twice does not make two of one region."""
    region = pool.take(1)
    pool.give_back(region)
    assert pool.give_back(region) == ()
    assert pool.take(1) is not pool.take(1)


def test_idle_bound():
    """Beyond the bound the regions longest unused are removed, and returned."""
    pool = RegionPool(idle_bytes=2 * MIB)
    first, second, third = (pool.take(MIB) for _ in range(3))
    assert pool.give_back(first) == ()
    assert pool.give_back(second) == ()
    assert pool.give_back(third) == (first,)
    assert [exists(r) for r in (first, second, third)] == [False, True, True]
    pool.close()


def test_larger_than_the_bound():
    """A region larger than all that may lie unused goes at once, and no other with it."""
    pool = RegionPool(idle_bytes=MIB)
    small, large = pool.take(1), pool.take(2 * MIB)
    pool.give_back(small)
    assert pool.give_back(large) == (large,)
    assert exists(small)
    pool.close()


def test_discard(pool):
    """A discarded region is removed and never taken again."""
    region = pool.take(1)
    pool.discard(region)
    assert not exists(region)
    assert pool.give_back(region) == ()
    assert pool.take(1) is not region


def test_close_removes_all(pool):
    """Closing removes the regions that lie unused and those taken, whose buffers stay valid."""
    idle, taken = pool.take(1), pool.take(1)
    pool.give_back(idle)
    pool.close()
    assert not exists(idle)
    assert not exists(taken)
    write(taken, 0, b"still there")
    assert pool.give_back(taken) == ()


def test_closed(pool):
    """A closed pool gives no regions; closing it again does nothing."""
    pool.close()
    pool.close()
    with pytest.raises(InputError, match="closed"):
        pool.take(1)


def test_dropped_pool():
    """A pool that is no longer referred to takes its regions with it."""
    pool = RegionPool()
    region = pool.take(1)
    del pool
    assert not exists(region)


def test_too_large(pool):
    """A region that /dev/shm cannot hold is an error when it is taken, and leaves nothing."""
    with pytest.raises(UnavailableError, match="--shm-size"):
        pool.take(1 << 50)
    with pytest.raises(UnavailableError):
        pool.take(1 << 80)
    assert list(SHM.glob(f"tritonkit-{os.getpid()}-*")) == []


def test_full(pool, monkeypatch):
    """A full /dev/shm is an error at take, and the pool works on once there is room."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(UnavailableError, match="No space left"):
            pool.take(1)
    pool.take(1)


def test_no_dev_shm(pool, monkeypatch, tmp_path):
    """Where there is no /dev/shm, there is no shared memory."""
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path / "none")
    with pytest.raises(UnavailableError, match="this system has none"):
        pool.take(1)


def test_backed_in_full(pool):
    """A region has all its memory from the start."""
    status = (SHM / pool.take(MIB).name).stat()
    assert status.st_blocks * 512 >= MIB
    assert status.st_mode & 0o777 == 0o600


def test_lay_out():
    """Tensors lie one after the other, each at a multiple of 64 bytes."""
    assert lay_out({"a": 1, "b": 64, "c": 0, "d": 100}) == (
        {"a": 0, "b": 64, "c": 128, "d": 128},
        228,
    )
    assert lay_out({}) == ({}, 0)


def test_read_is_a_copy(pool):
    """What was read does not change with the region."""
    region = pool.take(1)
    write(region, 8, memoryview(np.arange(3, dtype=np.float32)))
    copy = read(region, 8, 12)
    write(region, 8, bytes(12))
    assert np.frombuffer(copy, np.float32).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("offset", "size"), [(64 * KIB - 1, 2), (-1, 1), (0, 64 * KIB + 1)])
def test_bounds(pool, offset, size):
    """Neither reading nor writing goes past a region's end, or before its start."""
    region = pool.take(1)
    with pytest.raises(ValueError, match="not within"):
        read(region, offset, size)
    with pytest.raises(ValueError, match="not within"):
        write(region, offset, bytes(size))


def test_threads(pool):
    """No two threads ever have the same region."""
    clashes = []

    def work(number):
        mark = bytes([number]) * 32
        for _ in range(200):
            region = pool.take(1)
            write(region, 0, mark)
            if read(region, 0, 32) != mark:
                clashes.append(number)
            pool.give_back(region)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == []


# How processes end. Each prints the names of its regions, one a line, before it does.

TAKE = """
import os, signal, sys
from tritonkit.client.shared_memory import RegionPool
pool = RegionPool()
def take():
    region = pool.take(1)
    print(region.name, flush=True)
    return region
"""


def run(code, *flags):
    """Run a program that takes regions; the finished process, and the regions' files."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", TAKE + code], capture_output=True, text=True, timeout=60
    )
    return done, [SHM / name for name in done.stdout.split()]


def wait_until(condition, timeout_s=20.0):
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.01)


STRICT = ("-X", "dev", "-W", "error")
ENDINGS = {
    "closed": "take(); pool.close()",
    "never closed": "take(); pool.give_back(take())",
    "a view of the buffer is alive": "view = take().buffer[:10]",
    "an exception": "take(); sys.exit(3)",
    "taken in a thread": "import threading; t = threading.Thread(target=take); t.start(); t.join()",
}


@pytest.mark.parametrize("flags", [(), STRICT], ids=["as users run it", "strict"])
@pytest.mark.parametrize("code", ENDINGS.values(), ids=ENDINGS)
def test_exit(code, flags):
    """At exit nothing is left, and nothing is said."""
    done, files = run(code, *flags)
    assert files
    assert done.stderr == ""
    assert not any(f.exists() for f in files)


@pytest.mark.parametrize("ending", ["signal.SIGKILL", "signal.SIGTERM"])
def test_killed(ending):
    """A process that is killed leaves nothing for long, and nothing is said."""
    done, files = run(f"take(); pool.give_back(take()); os.kill(os.getpid(), {ending})")
    assert done.returncode < 0
    assert len(files) == 2
    wait_until(lambda: not any(f.exists() for f in files))
    assert done.stderr == ""


def test_killed_with_its_group():
    """A kill of the whole process group does not keep the regions from being removed."""
    code = TAKE + "take(); signal.pause()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    file = SHM / process.stdout.readline().strip()
    (guard,) = psutil.Process(process.pid).children()
    wait_until(lambda: os.getsid(guard.pid) == guard.pid)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not file.exists())


def test_exit_without_cleaning_up():
    """os._exit, which multiprocessing's workers end with, leaves nothing for long."""
    done, files = run("take(); os._exit(0)")
    wait_until(lambda: not files[0].exists())
    assert done.stderr == ""


def test_fork():
    """A forked child leaves its parent's regions alone, and its own go with it."""
    code = """
mine = take()
child = os.fork()
if not child:
    pool.give_back(mine)
    own = take()
    assert own.name != mine.name and own.name.split("-")[1] == str(os.getpid())
    pool.close()
    sys.exit(0 if not os.path.exists("/dev/shm/" + own.name) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert os.path.exists("/dev/shm/" + mine.name)
pool.give_back(mine)
assert pool.take(1) is mine
"""
    done, files = run(code, *STRICT)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(files) == 2
    assert not any(f.exists() for f in files)


def test_fork_outlives_parent():
    """A child that lives on does not keep the regions of its killed parent."""
    code = """
take()
child = os.fork()
if not child:
    os.close(1); os.close(2)
    signal.pause()
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    _, (file, child) = run(code)
    try:
        wait_until(lambda: not file.exists())
    finally:
        os.kill(int(child.name), signal.SIGKILL)


def test_fork_while_locked():
    """A child forked while another thread takes regions can take some too."""
    code = """
import threading
pool._lock.acquire()
child = os.fork()
if not child:
    take()
    sys.exit(0)
pool._lock.release()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    done, _ = run(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_gevent():
    """Under gevent, greenlets and its native threads take regions, and nothing is left."""
    code = (
        """
from gevent import monkey; monkey.patch_all()
import gevent, gevent.threadpool
"""
        + TAKE
        + """
gevent.threadpool.ThreadPool(1).spawn(take).get()
gevent.joinall([gevent.spawn(take) for _ in range(5)], raise_error=True)
"""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    names = done.stdout.split()
    assert len(set(names)) == 6
    assert not any((SHM / n).exists() for n in names)
