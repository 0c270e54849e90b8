"""One server process: start it, wait until it is ready, end it and all of its children."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tritonkit.errors import ServerError

# Run by a Python of its own between fork and the server, because preexec_fn would not do: it makes
# Popen really fork, gRPC's fork handlers then run in the child, and abort it now and then.
# 1 is PR_SET_PDEATHSIG, 15 SIGTERM; the parent may have died before that was set.
_LAUNCH = """
import ctypes, os, sys
parent, cpus, *argv = sys.argv[1:]
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() != int(parent):
    os._exit(1)
if cpus:
    os.sched_setaffinity(0, map(int, cpus.split(",")))
os.execv(argv[0], argv)
"""


class ServerProcess:
    """A child process whose output goes to a log, and that never outlives the kit.

    It runs in a process group of its own: Ctrl-C reaches only the kit, which then ends the
    server in order. If the kit itself is killed, the kernel sends the server SIGTERM; so it
    does when the thread that started it ends.
    Its working folder is `cwd`, an empty one: Python would import from the folder that the kit
    happens to run in, where a `numpy/` may lie. So argv must not name relative paths.
    inherits: open files that it and its children are to keep open.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: dict[str, str],
        cwd: Path,
        log: Path,
        cpus: Sequence[int],
        inherits: Sequence[int] = (),
    ):
        # As last seen, because the children of a server that was killed cannot be found by it.
        self._children: list[psutil.Process] = []
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*_launcher(cpus), *argv],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                pass_fds=inherits,
            )

    def pids(self) -> list[int]:
        """The process and its descendants that are alive."""
        try:
            process = psutil.Process(self._process.pid)
            if process.status() == psutil.STATUS_ZOMBIE:  # its children are no longer its own
                return []
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        self._children = family[1:]
        return [p.pid for p in family]

    def wait(self) -> int:
        """Block until it ends; returns its exit status."""
        return self._process.wait()

    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait_ready(self, where: Mapping[str, str], timeout_s: float) -> bool:
        """Poll until KServe's readiness says yes over `http` and every other port listens.

        where: purpose → host:port. Triton opens its ports one after the other, metrics last.
        False if the process ended first. ServerError if it is still not ready after timeout_s.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            if says_ready(where["http"]) and all(map(_listens, where.values())):
                self.pids()
                return True
            time.sleep(0.02)
        raise ServerError(f"the server at {where['http']} was not ready after {timeout_s:.0f} s")

    def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL for what is still there after grace_s, children included.

        With a grace of 0 it is SIGKILL at once.
        """
        self.pids()
        if self._process.poll() is None:
            try:
                if grace_s > 0:
                    self._process.terminate()
                    self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                pass
            finally:  # a second Ctrl-C lands here too
                self._process.kill()
                self._process.wait()
        left = _wait_ended(self._children, min(grace_s, 2.0))
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _wait_ended(left, 2.0)


def says_ready(address: str) -> bool:
    """Whether what listens at host:port says over HTTP, as KServe has it, that it can infer."""
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def _launcher(cpus: Sequence[int]) -> list[str]:
    if sys.platform != "linux":  # it has neither call
        return []
    cpu_list = ",".join(map(str, cpus))
    return [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), cpu_list]


def _wait_ended(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait for processes that are not our own children; returns those that still run."""
    deadline = time.monotonic() + timeout_s
    while (left := [p for p in processes if _runs(p)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def _runs(process: psutil.Process) -> bool:
    try:  # a zombie has ended, even where init is slow to collect it, or never does
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
