"""System shared memory of this process: regions that a server on the same machine reads and writes.

Nothing here talks to a server; registering a region with one is the client's. A region is backed
in full when it is made, so that a /dev/shm that is too small (Docker gives a container 64 MB) is
an error there and not a SIGBUS at the first write. Regions are removed when the pool is closed,
when the interpreter exits and, through a small guard process, however this process ends.
"""

from __future__ import annotations

import mmap
import os
import secrets
import signal
import sys
import threading
import weakref
from collections.abc import Mapping
from itertools import count
from multiprocessing.util import spawnv_passfds
from pathlib import Path

from tritonkit.errors import InputError, UnavailableError

SMALLEST_REGION_BYTES = 64 * 1024
DEFAULT_IDLE_BYTES = 256 * 1024 * 1024

_FOLDER = Path("/dev/shm")
_ALIGNMENT = 64  # a cache line, and enough for any vector instruction

# Waits until every copy of the pipe's other end is closed, which is when its owner is gone, then
# removes what the owner left. The standard library's resource tracker would do, but it prints a
# warning whenever a process is ended by a signal, and waits for the processes forked from it too.
_GUARD = """
import os, sys
os.setsid()
null = os.open(os.devnull, os.O_RDWR)
for stream in 0, 1, 2:
    os.dup2(null, stream)
pipe, folder, ending = sys.argv[1:]
os.chdir(folder)
while os.read(int(pipe), 1):
    pass
for name in os.listdir():
    if name.startswith("tritonkit-") and name.endswith(ending):
        try:
            os.unlink(name)
        except OSError:
            pass
"""


class SharedRegion:
    """A region. name: what a server is to know it by; unique. key: where a server finds it.

    buffer: its memory, `byte_size` bytes, valid for as long as anything refers to it, even after
    the region was removed.
    """

    def __init__(self, byte_size: int):
        try:
            self.name = _process.new_name()
            self.key = f"/{self.name}"
            self.byte_size = byte_size
            self._path = _FOLDER / self.name
            # What shm_open does; mode: the server runs as this user or as root.
            file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, byte_size)
                self.buffer = memoryview(mmap.mmap(file, byte_size))
            except BaseException:
                self.unlink()
                raise
            finally:
                os.close(file)
        except (OSError, ValueError, OverflowError) as error:
            raise UnavailableError(
                "unavailable",
                f"no shared memory region of {byte_size} bytes in {_FOLDER} ({error}); enlarge it "
                "(docker: --shm-size) or send tensors over the network",
            ) from error

    def unlink(self) -> None:
        """Remove its name. The memory goes once no process has it mapped."""
        self._path.unlink(missing_ok=True)


class RegionPool:
    """Regions to take and give back, from any number of threads or greenlets at once.

    Sizes are powers of two, so that few regions, each registered once, serve many requests.
    idle_bytes: how much may lie unused; beyond that the regions longest unused are removed. In a
    forked child the pool is empty: the parent's regions are the parent's alone.
    """

    def __init__(self, idle_bytes: int = DEFAULT_IDLE_BYTES):
        self._idle_limit_bytes = idle_bytes
        self._start()
        _pools.add(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._taken: set[SharedRegion] = set()
        self._idle: list[SharedRegion] = []  # that longest unused first
        self._all: dict[str, SharedRegion] = {}
        self._finalizer = weakref.finalize(self, _unlink_all, self._all)

    def take(self, byte_size: int) -> SharedRegion:
        """A region of at least `byte_size` bytes; what it holds is undefined.

        UnavailableError if there is no room for it: send the tensors over the network instead.
        """
        size = max(SMALLEST_REGION_BYTES, 1 << max(byte_size - 1, 0).bit_length())
        with self._lock:
            self._check_open()
            # The one used last is the likeliest to be in the caches.
            fitting = [i for i, region in enumerate(self._idle) if region.byte_size == size]
            if fitting:
                region = self._idle.pop(fitting[-1])
                self._taken.add(region)
                return region
        region = SharedRegion(size)  # unlocked: zeroing gigabytes takes long
        with self._lock:
            if not self._closed:
                self._all[region.name] = region
                self._taken.add(region)
                return region
        region.unlink()
        raise _closed_error()

    def give_back(self, region: SharedRegion) -> tuple[SharedRegion, ...]:
        """Let `region` be taken again. Returns the regions that were removed for it: unregister
        them, or the servers keep their memory.

        Only for a region that no server can still write to; otherwise `discard` it.
        """
        with self._lock:
            if region not in self._taken:
                return ()
            self._taken.remove(region)
            if region.byte_size > self._idle_limit_bytes:  # it would only push out all others
                self._remove(region)
                return (region,)
            self._idle.append(region)
            excess = sum(r.byte_size for r in self._idle) - self._idle_limit_bytes
            dropped = []
            while excess > 0:
                oldest = self._idle.pop(0)
                excess -= oldest.byte_size
                dropped.append(oldest)
                self._remove(oldest)
        return tuple(dropped)

    def discard(self, region: SharedRegion) -> None:
        """Remove `region` instead of giving it back: a request that uses it was given up, and the
        server may yet read or write it.
        """
        with self._lock:
            if region in self._taken:
                self._taken.remove(region)
                self._remove(region)

    def close(self) -> None:
        """Remove all regions, those taken too; their buffers stay valid."""
        with self._lock:
            self._closed = True
            self._taken.clear()
            self._idle.clear()
            self._finalizer()

    def _remove(self, region: SharedRegion) -> None:
        del self._all[region.name]
        region.unlink()

    def _check_open(self) -> None:
        if self._closed:
            raise _closed_error()

    def _forget(self) -> None:
        """What a forked child does: the lock may be held by a thread that it has not."""
        was_closed = self._closed
        self._finalizer.detach()
        self._start()
        self._closed = was_closed


def lay_out(sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Where tensors of these sizes go in one region: the offset of each, and the bytes in all."""
    offsets = {}
    end = 0
    for name, byte_size in sizes.items():
        offsets[name] = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = offsets[name] + byte_size
    return offsets, end


def write(region: SharedRegion, offset: int, data: bytes | memoryview) -> None:
    """Copy `data` into the region. ValueError if it does not fit."""
    view = memoryview(data).cast("B")
    _slice(region, offset, view.nbytes)[:] = view


def read(region: SharedRegion, offset: int, byte_size: int) -> bytes:
    """A copy of that part of the region. ValueError if it has no such part."""
    return bytes(_slice(region, offset, byte_size))


def _slice(region: SharedRegion, offset: int, byte_size: int) -> memoryview:
    if offset < 0 or byte_size < 0 or offset + byte_size > region.byte_size:
        raise ValueError(
            f"{byte_size} bytes at {offset} are not within a region of {region.byte_size} bytes"
        )
    return region.buffer[offset : offset + byte_size]


def _closed_error() -> InputError:
    return InputError("this pool of shared memory regions is closed; make another")


def _unlink_all(regions: dict[str, SharedRegion]) -> None:
    for region in list(regions.values()):  # a thread that outlives main may add one
        region.unlink()
    regions.clear()


class _Process:
    """What the pools of one process share: the names and the guard."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guard_pipe: int | None = None
        self._counter = count()
        # The process id alone is not unique: containers may share a /dev/shm.
        self._random = secrets.token_hex(6)

    def new_name(self) -> str:
        """A name for a region that the guard, started with the first, will remove.

        OSError if there can be no regions here: this is no Linux, or no process can be started.
        """
        if not _FOLDER.is_dir():
            raise FileNotFoundError("this system has none")
        with self._lock:
            if self._guard_pipe is None:
                self._guard_pipe = _start_guard(self._random)
        return f"tritonkit-{os.getpid()}-{next(self._counter)}-{self._random}"

    def forget(self) -> None:
        """Give up the guard of the process that this one was forked from."""
        if self._guard_pipe is not None:
            os.close(self._guard_pipe)
        self.__init__()  # type: ignore[misc]


def _start_guard(ending: str) -> int:
    """Start the process that removes regions so named; returns the pipe that holds it back."""
    read_end, write_end = os.pipe()
    command = [sys.executable, "-I", "-S", "-c", _GUARD, str(read_end), str(_FOLDER), ending]
    # A signal to the whole process group is not to end the guard before it has its own session.
    outlived = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, outlived)
    try:
        # Not subprocess: gevent's works only in the main thread, and Python's own warns at exit
        # that the guard still runs.
        spawnv_passfds(os.fsencode(sys.executable), command, [read_end])
    except BaseException:
        os.close(write_end)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(read_end)
    return write_end


_process = _Process()
_pools: weakref.WeakSet[RegionPool] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    _process.forget()
    for pool in list(_pools):
        pool._forget()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no /dev/shm either
    os.register_at_fork(after_in_child=_after_fork_in_child)
