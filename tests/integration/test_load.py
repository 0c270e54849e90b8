"""The load generator against a server whose every answer is known beforehand: when it sends."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
from tests.integration.known_server import KnownServer
from tests.integration.levels import Ran, command, expected, run

from tritonkit.stats.latency import summarise

pytestmark = pytest.mark.alone  # it times what is sent


@pytest.fixture(scope="module")
def closed():
    """Five users for a second and a half on 20 ms a request."""
    with KnownServer(0.02) as server:
        return server, run(server.address, "closed", 5, 1.5)


@pytest.fixture(scope="module")
def opened():
    """150 requests a second for 1.2 s on 20 ms a request."""
    with KnownServer(0.02) as server:
        return server, run(server.address, "open", 150, 1.2, seed=7)


def test_closed_loop_sends_as_many_at_a_time_as_users(closed):
    """Five users have five requests at the server, never more."""
    server, _ = closed
    assert server.most_at_a_time == 5


def test_closed_loop_loses_no_sample(closed):
    """There is one sample for each request that the server saw, all answered."""
    server, ran = closed
    assert len(ran.samples) == server.requests == server.answers
    assert ran.kinds() == {""}


def test_closed_loop_rate_is_users_by_service_time(closed):
    """Five users at 20 ms a request make no more than 250 requests a second, each of 20 ms."""
    _, ran = closed
    assert 5 < len(ran.samples) <= 5 * math.ceil(1.5 / 0.02)
    assert min(s.done_ns - s.sent_ns for s in ran.samples) >= 20e6


def test_closed_loop_is_never_late(closed):
    """In a closed loop a request is sent when it was intended, within a millisecond or so."""
    late_ms = closed[1].late_ms()
    assert late_ms[0] >= 0 and late_ms[len(late_ms) // 2] < 1


def test_closed_loop_user_waits_for_its_answer(closed):
    """At no moment are there more requests under way, by the samples, than users."""
    edges = sorted(edge for s in closed[1].samples for edge in ((s.sent_ns, 1), (s.done_ns, -1)))
    under_way = most = 0
    for _, step in edges:
        under_way += step
        most = max(most, under_way)
    assert most == 5


def test_level_ends_when_it_should(closed):
    """The level ends with the last answer, and no request is started after its duration."""
    _, ran = closed
    assert ran.took_s >= 1.5
    assert ran.intended()[0] >= 0 and ran.intended()[-1] < 1.5e9


def test_payloads_take_turns(closed):
    """The requests are sent in turn, each as often as the others, and the samples say which."""
    server, ran = closed
    sent = [int(path.removesuffix("/infer")[-1]) for path in server.paths]
    assert sorted(sent) == sorted(s.payload for s in ran.samples)
    counts = [sent.count(i) for i in range(3)]
    assert max(counts) - min(counts) <= 1


def test_generator_cpu(closed):
    """A generator that mostly waits says that it used a small part of a CPU."""
    assert 0 < closed[1].cpu < 0.8


@pytest.mark.parametrize("processes", [1, 2])
def test_generator_cpu_is_of_the_level(processes):
    """What it waits for a request that hangs does not make a busy generator an idle one."""
    with KnownServer(0, stall=(0.5, 60)) as server:
        ran = run(server.address, "closed", 16, 0.6, timeout_s=6.0, processes=processes)
    assert ran.kinds() == {"", "timeout"}
    assert ran.took_s > 6  # in which it had next to nothing to do
    assert ran.cpu > 0.15


def test_first_in_line_is_given_back(closed):
    """The generator runs ahead where that is permitted, and as it was before after the level."""
    before, after = closed[1].policies
    assert before == after == os.SCHED_OTHER
    assert closed[1].ahead == may_go_ahead()


def may_go_ahead():
    """Whether this process may have a real-time policy, as root may, outside of some containers."""
    code = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
    return not subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode


def test_open_loop_follows_the_schedule(opened):
    """The intended starts are those of the seeded Poisson process, every one, exactly."""
    server, ran = opened
    assert ran.intended() == expected(150, 1.2, 7)
    assert server.requests == len(ran.samples)
    assert ran.kinds() == {""}


def test_open_loop_sends_in_time(opened):
    """No request leaves before its time, and most within a few milliseconds after it."""
    late_ms = opened[1].late_ms()
    assert late_ms[0] >= 0
    assert late_ms[len(late_ms) // 2] < 5


def test_open_loop_sends_payloads_in_turn(opened):
    """The arrivals have the payloads in turn, in the order of their times."""
    _, ran = opened
    by_time = [s.payload for s in sorted(ran.samples)]
    assert by_time == [i % 3 for i in range(len(by_time))]


@pytest.fixture(scope="module")
def stalled():
    """The same second of silence in the middle of three, in an open and in a closed loop."""
    with KnownServer(0.001, stall=(1.0, 2.0)) as server:
        open_loop = run(server.address, "open", 100, 3.0)
    with KnownServer(0.001, stall=(1.0, 2.0)) as server:
        closed_loop = run(server.address, "closed", 2, 3.0)
    return open_loop, closed_loop


def test_stall_shows_in_an_open_loop(stalled):
    """A second of silence is in the p99 of an open loop: those who arrived then waited for it."""
    ran, _ = stalled
    assert ran.intended() == expected(100, 3.0) and ran.kinds() == {""}
    stats = summarise(ran.samples, duration_s=3.0, open_loop=True)
    # A thirtieth of all arrived in the first 100 ms of it.
    assert stats.p99_ms > 900


def test_stall_hides_in_a_closed_loop(stalled):
    """Of the same silence a closed loop has one slow request a user, and none in the p99."""
    _, ran = stalled
    latencies_ms = sorted((s.done_ns - s.intended_ns) / 1e6 for s in ran.samples)
    assert sum(ms > 900 for ms in latencies_ms) == 2
    assert len(latencies_ms) > 300  # so that two are less than one in a hundred
    stats = summarise(ran.samples, duration_s=3.0, open_loop=False)
    assert stats.max_ms > 900
    assert stats.p99_ms < 900


HOG = """
import os
os.sched_setaffinity(0, {int(os.environ["PIN_TO"])})
try:
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
except PermissionError:
    pass
print("busy", flush=True)
while True:
    pass
"""


@pytest.fixture
def one_busy_cpu():
    """A CPU that processes which never pause share, ahead of others where that is permitted."""
    pinned = {**os.environ, "PIN_TO": str(min(os.sched_getaffinity(0)))}
    hogs = [
        subprocess.Popen([sys.executable, "-c", HOG], env=pinned, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for hog in hogs:
        hog.stdout.readline()
    yield pinned
    for hog in hogs:
        hog.kill()
        hog.wait()
        hog.stdout.close()


def test_starved_generator_is_late(one_busy_cpu):
    """A generator on one CPU with others that never pause sends late, and it shows."""
    with KnownServer(0.001) as server:
        done = subprocess.run(
            command(server.address, "open", 500, 1.0, connections=16),
            env=one_busy_cpu,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    ran = Ran(json.loads(done.stdout))
    assert ran.intended() == expected(500, 1.0)
    assert len([s for s in ran.samples if not s.error]) == server.requests
    stats = summarise(ran.samples, duration_s=1.0, open_loop=True)
    # Its turn comes when the others have had theirs, each of some milliseconds.
    assert stats.lateness_p99_ms > max(1, 0.05 * stats.p99_ms)


def test_overload_is_not_silent():
    """Arrivals that never got a turn are samples of their own, none is lost, and it ends."""
    with KnownServer(1.0) as server:
        ran = run(server.address, "open", 1500, 0.6)
    assert ran.intended() == expected(1500, 0.6)
    assert ran.kinds() == {"", "not_sent"}
    sent = [s for s in ran.samples if s.error != "not_sent"]
    assert len(sent) == server.requests < len(ran.samples)
    assert server.most_at_a_time == 128
    stats = summarise(ran.samples, duration_s=0.6, open_loop=True)
    assert stats.not_sent == len(ran.samples) - len(sent)
    assert stats.max_ms > 2000  # from the intended start


@pytest.fixture(scope="module")
def two_processes():
    """150 requests a second for 1.2 s on 20 ms a request, from two processes."""
    with KnownServer(0.02) as server:
        return server, run(server.address, "open", 150, 1.2, seed=7, processes=2)


def test_two_processes_share_the_arrivals(two_processes):
    """A master and two workers send each arrival of the one schedule once, and lose no sample."""
    server, ran = two_processes
    assert ran.intended() == expected(150, 1.2, 7)
    assert server.requests == len(ran.samples)
    assert ran.kinds() == {""}


def test_two_processes_send_the_same_payloads(two_processes):
    """Each arrival has the payload that it would have had from one process."""
    by_time = [s.payload for s in sorted(two_processes[1].samples)]
    assert by_time == [i % 3 for i in range(len(by_time))]


def test_two_processes_start_together(two_processes):
    """The merged arrivals are sent in the order of their times, however many processes send."""
    _, ran = two_processes
    assert ran.late_ms()[0] >= 0
    assert ran.late_ms()[len(ran.samples) // 2] < 20
    assert 0 < ran.cpu < 0.8
