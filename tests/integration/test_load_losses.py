"""The load generator against a server whose every answer is known beforehand: nothing that it sends
is lost, whatever fails or ends, however long it takes.
"""

from __future__ import annotations

import json
import signal
import subprocess

import psutil
import pytest
from tests.integration.known_server import DrippingServer, KnownServer
from tests.integration.levels import Ran, command, expected, run


def test_generator_cpu_of_nothing():
    """A generator that had nothing to send was not busy."""
    with KnownServer(0) as server:
        ran = run(server.address, "open", 1e-6, 0.1)
    assert ran.samples == [] and ran.cpu < 0.9


def test_open_loop_without_timerfd(monkeypatch):
    """Where the system has no timerfd gevent's timers send every arrival, none before its time."""
    monkeypatch.setenv("NO_TIMERFD", "1")
    with KnownServer(0.005) as server:
        ran = run(server.address, "open", 200, 0.5)
    assert ran.intended() == expected(200, 0.5) and ran.kinds() == {""}
    assert ran.late_ms()[0] >= 0


def test_trace_is_replayed(tmp_path):
    """A trace is sent at its times and with its payloads, modulo their number."""
    trace = tmp_path / "trace.jsonl"
    lines = [{"t_s": 0.01, "payload": 2}, {"t_s": 0.05, "payload": 4}, {"t_s": 0.02}]
    trace.write_text("\n".join(map(json.dumps, lines)))
    with KnownServer(0.005) as server:
        ran = run(server.address, "open", 1, 0.2, arrivals=str(trace))
    sent = [(s.intended_ns, s.payload) for s in sorted(ran.samples)]
    assert sent == [(10_000_000, 2), (20_000_000, 1), (50_000_000, 1)]


def test_no_more_in_flight_than_connections():
    """An open loop never has more requests at the server than connections; all are sent."""
    with KnownServer(0.05) as server:
        ran = run(server.address, "open", 200, 0.5, connections=3)
    assert server.most_at_a_time == 3
    assert ran.intended() == expected(200, 0.5)


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_failed_requests_are_data(mode):
    """Requests that the server fails are samples with their kind, and the level goes on."""
    with KnownServer(0.005, fail_every=5) as server:
        ran = run(server.address, mode, 4 if mode == "closed" else 100, 0.6)
    assert ran.kinds() == {"", "failed"}
    failed = [s for s in ran.samples if s.error]
    assert len(failed) == server.requests // 5
    assert len(ran.samples) == server.requests


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_server_that_dies(mode):
    """A server that dies under load: nothing is raised, and the kinds say why."""
    with KnownServer(0.02, dies_at=0.3) as server:
        ran = run(server.address, mode, 4 if mode == "closed" else 100, 0.8)
    assert ran.kinds() == {"", "closed", "refused"}
    assert ran.intended()[-1] > 0.6e9
    if mode == "open":
        assert ran.intended() == expected(100, 0.8)
    else:  # no busy loop on a dead server
        assert len(ran.samples) - server.requests < 4 * 0.5 / 0.01 + 10


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_nobody_there(mode, free_port):
    """Where nothing listens every sample is `refused`."""
    ran = run(f"127.0.0.1:{free_port}", mode, 20, 0.3)
    assert ran.kinds() == {"refused"}


def test_server_that_hangs():
    """Requests that are not answered within the timeout are samples too."""
    with KnownServer(60.0) as server:
        ran = run(server.address, "closed", 3, 0.4, timeout_s=1.0)
    assert ran.kinds() == {"timeout"}
    assert len(ran.samples) == server.requests == 3
    assert all(s.done_ns - s.sent_ns >= 1e9 for s in ran.samples)


def test_hung_at_the_deadline():
    """Requests that are still under way when the level is given up are samples too."""
    with DrippingServer() as server:
        ran = run(server.address, "closed", 3, 0.3, timeout_s=0.5)
    assert ran.kinds() == {"timeout"}
    assert len(ran.samples) == 3


@pytest.mark.parametrize("processes", [1, 2])
def test_interrupted_level_loses_nothing(processes, wait_for):
    """On Ctrl-C what was answered, what was under way and what was due are all in the samples."""
    with KnownServer(0.3) as server:
        process = subprocess.Popen(
            command(server.address, "open", 100, 30.0, connections=10, processes=processes),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: server.answers >= 30)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        ran = Ran(json.loads(output))
        assert ran.raised.startswith("LevelInterrupted")
        assert ran.kinds() == {"", "cancelled", "not_sent"}
        cancelled = [s for s in ran.samples if s.error == "cancelled"]
        assert len(cancelled) == 10
        wait_for(lambda: server.requests == len([s for s in ran.samples if s.error != "not_sent"]))
    assert ran.intended() == expected(100, 30.0)[: len(ran.samples)]


def test_two_processes_share_the_users():
    """Five users of two processes are five at the server, and no sample is lost."""
    with KnownServer(0.02) as server:
        ran = run(server.address, "closed", 5, 0.8, processes=2)
    assert server.most_at_a_time == 5
    assert len(ran.samples) == server.requests == server.answers
    assert ran.kinds() == {""}
    counts = [sum(s.payload == i for s in ran.samples) for i in range(3)]
    assert max(counts) - min(counts) <= 5


def test_no_more_processes_than_users():
    """A process without users could send nothing: two users are of two processes at most."""
    with KnownServer(0.02) as server:
        ran = run(server.address, "open", 50, 0.5, connections=2, processes=3)
    assert ran.intended() == expected(50, 0.5)
    assert server.requests == len(ran.samples)


LATE = """
import sys
if "tritonkit.load.worker" in sys.orig_argv:
    from gevent.event import Event
    from locust.runners import WorkerRunner
    from tritonkit.load.distributed import Delivery
    told = Event()
    handle, listen = WorkerRunner.handle_message, Delivery.__init__

    def handle_message(self, msg):
        handle(self, msg)
        if msg.type.startswith("tritonkit "):
            told.set()

    def listen_late(self, *arguments, **named):
        told.wait()
        listen(self, *arguments, **named)

    WorkerRunner.handle_message, Delivery.__init__ = handle_message, listen_late
"""


def test_workers_that_listen_late(tmp_path, monkeypatch):
    """What is said to a worker before it listens, which is then lost, is nothing that it needs."""
    (tmp_path / "sitecustomize.py").write_text(LATE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with KnownServer(0.005) as server:
        ran = run(server.address, "open", 100, 0.5, processes=2)
    assert ran.intended() == expected(100, 0.5) and ran.kinds() == {""}


def test_worker_that_is_killed(wait_for):
    """A worker that dies is named with what it had delivered, which is kept; the others end."""
    with KnownServer(0.005) as server:
        process = subprocess.Popen(
            command(server.address, "open", 100, 30.0, processes=2),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: server.answers >= 250)
        victim, other = workers_of(process)
        victim.kill()
        output, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert not other.is_running()
    ran = Ran(json.loads(output))
    lost = f"(process {victim.pid}) ended before its time; "
    assert ran.raised.startswith("GeneratorError: load worker ") and lost in ran.raised
    assert ran.raised.endswith("(killed by signal 9)")
    count = int(ran.raised.partition(lost)[2].split()[0])
    assert 0 < count < len(ran.samples)
    assert set(ran.intended()) <= set(expected(100, 30.0))
    assert len(set(ran.intended())) == len(ran.samples)


def test_workers_end_with_their_master(wait_for):
    """Where the process that started them is killed no worker is left, and none goes on sending."""
    with KnownServer(0.005) as server:
        process = subprocess.Popen(command(server.address, "open", 100, 60.0, processes=2))
        wait_for(lambda: server.answers >= 20)
        workers = workers_of(process)
        assert len(workers) == 2
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert not alive


def workers_of(process):
    children = psutil.Process(process.pid).children()
    return [child for child in children if "tritonkit.load.worker" in child.cmdline()]


@pytest.mark.parametrize(
    ("arguments", "how", "says"),
    [
        (("open", 10, 0.0), {}, "a level of 0 s: give more than 0 seconds"),
        (("open", 0, 1.0), {}, "the rate must be above 0"),
        (("closed", 0, 1.0), {}, "no users: at least 1"),
        (("open", 10, 1.0), {"connections": 0}, "no connections: at least 1"),
        (("open", 10, 1.0), {"processes": 0}, "0 processes: at least 1"),
        (("open", 10, 1.0), {"streaming": True}, "Triton streams over gRPC only"),
    ],
)
def test_senseless_levels(free_port, arguments, how, says):
    """What cannot be run is refused in one line before anything is sent."""
    done = subprocess.run(
        command(f"127.0.0.1:{free_port}", *arguments, **how),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("InputError: ") and says in line
