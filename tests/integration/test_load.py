"""The load generator against a server whose every answer is known beforehand.

The generator runs in a process of its own, because Locust patches the one that imports it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from itertools import pairwise

import pytest

from tritonkit.load.arrivals import constant, poisson
from tritonkit.samples import Sample
from tritonkit.stats.latency import summarise

SCRIPT = """
import json, sys, time
from tritonkit.load.runner import Level, run_level
from tritonkit.client.transport import InferRequest, Tensor
address, level, timeout_s = json.loads(sys.argv[1])
x = Tensor("x", "UINT8", (100,), b"x" * 100)
requests = [InferRequest(f"m{i}", (x,)) for i in range(3)]
start = time.perf_counter()
run = run_level(address, requests, Level(**level), timeout_s)
took_s = time.perf_counter() - start
json.dump({"samples": run.samples, "cpu": run.generator_cpu, "took_s": took_s}, sys.stdout)
"""

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class KnownServer:
    """Answers each request after `service_s`, however many there are at a time.

    Seconds count from the first request. stall: (from, to), in which nothing is answered.
    dies_at: when it drops every connection and listens no more. fail_every: each so manieth
    request is answered with 500.
    """

    def __init__(self, service_s, *, stall=(0.0, 0.0), dies_at=None, fail_every=None):
        self.requests = 0
        self.answers = 0
        self.paths = []
        self.most_at_a_time = 0
        self._now = 0
        self._service_s = service_s
        self._stall = stall
        self._dies_at = dies_at
        self._fail_every = fail_every
        self._started = None
        self._writers = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self):
        self._thread.start()
        opened = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512), self._loop
        )
        self._server = opened.result(5)
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname())
        return self

    def __exit__(self, *exc):
        async def end():
            self._die()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _die(self):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        _, _, rest = head.partition("content-length: ")
        await reader.readexactly(int(rest.split("\r\n")[0]))
        if self._started is None:
            self._started = self._loop.time()
            if self._dies_at is not None:
                self._loop.call_later(self._dies_at, self._die)
        self.requests += 1
        turn = self.requests
        self.paths.append(head.split()[1])
        self._now += 1
        self.most_at_a_time = max(self.most_at_a_time, self._now)
        begin, end = self._stall
        at = self._loop.time() - self._started
        await asyncio.sleep(self._service_s + (end - at if begin <= at < end else 0))
        bad = self._fail_every is not None and turn % self._fail_every == 0
        writer.write(ANSWER.replace(b"200 OK", b"500 Sorry") if bad else ANSWER)
        self._now -= 1
        self.answers += 1
        await writer.drain()


class Ran:
    """What a level left behind."""

    def __init__(self, outcome):
        self.samples = [Sample(*sample) for sample in outcome["samples"]]
        self.took_s = outcome["took_s"]
        self.cpu = outcome["cpu"]

    def kinds(self):
        return {sample.error for sample in self.samples}

    def stats(self, duration_s, warmup_s=0.0, *, open_loop=False):
        return summarise(
            self.samples, warmup_s=warmup_s, duration_s=duration_s, open_loop=open_loop
        )


def run(address, mode, offered, duration_s, *, warmup_s=0.0, seed=0, timeout_s=5.0):
    level = {
        "mode": mode,
        "offered": offered,
        "duration_s": duration_s,
        "warmup_s": warmup_s,
        "seed": seed,
    }
    argument = json.dumps([address, level, timeout_s])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, argument], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(json.loads(done.stdout))


@pytest.fixture(scope="module")
def closed():
    """Five users for a second and a half, half a second of it warm-up, on 20 ms a request."""
    with KnownServer(0.02) as server:
        return server, run(server.address, "closed", 5, 1.0, warmup_s=0.5)


@pytest.fixture(scope="module")
def opened():
    """150 requests a second for 1.2 s, 0.4 s of it warm-up, on 20 ms a request."""
    with KnownServer(0.02) as server:
        return server, run(server.address, "open", 150, 0.8, warmup_s=0.4, seed=7)


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
    """Five users at 20 ms a request make a bit less than 250 requests a second."""
    stats = closed[1].stats(1.0, warmup_s=0.5)
    assert 150 < stats.achieved_rps <= 250
    assert 20 <= stats.p50_ms < 30


def test_closed_loop_is_never_late(closed):
    """In a closed loop a request is sent when it was intended, within a millisecond or so."""
    late_ms = sorted((s.sent_ns - s.intended_ns) / 1e6 for s in closed[1].samples)
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
    assert 1.5 <= ran.took_s < 2.5
    assert max(s.intended_ns for s in ran.samples) < 1.5e9


def test_warm_up_is_sent_but_not_counted(closed):
    """Samples of the warm-up are there, and the numbers leave them out."""
    _, ran = closed
    warm_up = [s for s in ran.samples if s.done_ns < 0.5e9]
    late = [s for s in ran.samples if s.done_ns >= 1.5e9]
    assert len(warm_up) >= 50
    assert ran.stats(1.0, warmup_s=0.5).requests == len(ran.samples) - len(warm_up) - len(late)


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


def test_open_loop_follows_the_schedule(opened):
    """The intended starts are those of the seeded Poisson process, every one, exactly."""
    server, ran = opened
    expected = [int(s * 1e9) for s in poisson(150, 1.2, 7)]
    assert sorted(s.intended_ns for s in ran.samples) == expected
    assert server.requests == len(expected)
    assert ran.kinds() == {""}


def test_open_loop_sends_in_time(opened):
    """No request leaves before its time, and most within a few milliseconds after it."""
    late_ms = sorted((s.sent_ns - s.intended_ns) / 1e6 for s in opened[1].samples)
    assert late_ms[0] >= 0
    assert late_ms[len(late_ms) // 2] < 5


def test_open_loop_counts_what_was_intended_in_the_window(opened):
    """Its numbers are of the arrivals between the end of the warm-up and the end."""
    _, ran = opened
    expected = [s for s in poisson(150, 1.2, 7) if s >= 0.4]
    stats = ran.stats(0.8, warmup_s=0.4, open_loop=True)
    assert stats.requests == len(expected)
    assert stats.p50_ms >= 20


def test_stall_shows_in_an_open_loop():
    """Half a second of silence is in the p99 of an open loop: those who arrived then waited."""
    with KnownServer(0.005, stall=(0.5, 1.0)) as server:
        ran = run(server.address, "open", 100, 1.5)
    stats = ran.stats(1.5, open_loop=True)
    assert stats.errors == 0
    assert stats.p99_ms > 400
    # A tenth of them arrived in the first 150 ms of it, and waited for the other 350.
    assert stats.p90_ms > 250


def test_stall_hides_in_a_closed_loop():
    """The same silence is not in the p99 of a closed loop: its users just sent nothing."""
    with KnownServer(0.005, stall=(0.5, 1.0)) as server:
        ran = run(server.address, "closed", 2, 1.5)
    stats = ran.stats(1.5)
    assert stats.max_ms > 400
    assert stats.p99_ms < 100
    assert len(ran.samples) == server.requests


def test_overload_is_not_silent():
    """Arrivals that never got a turn are samples of their own, none is lost, and it ends."""
    with KnownServer(1.0) as server:
        ran = run(server.address, "open", 1500, 0.6)
    expected = [int(s * 1e9) for s in poisson(1500, 0.6, 0)]
    assert sorted(s.intended_ns for s in ran.samples) == expected
    assert ran.kinds() == {"", "not_sent"}
    sent = [s for s in ran.samples if s.error != "not_sent"]
    assert len(sent) == server.requests < len(expected)
    assert server.most_at_a_time == 128
    stats = ran.stats(0.6, open_loop=True)
    assert stats.error_kinds == {"not_sent": len(expected) - len(sent)}
    assert ran.took_s < 0.2 + 0.6 + 3.0 + 1.0 + 1.0
    assert stats.max_ms > 2000  # from the intended start


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
    """A server that dies under load: nothing is raised, it ends in time, the kinds say why."""
    with KnownServer(0.02, dies_at=0.3) as server:
        ran = run(server.address, mode, 4 if mode == "closed" else 100, 0.8)
    assert ran.kinds() == {"", "closed", "refused"}
    assert ran.took_s < 2
    assert max(s.intended_ns for s in ran.samples) > 0.6e9
    if mode == "open":
        assert len(ran.samples) == len(list(poisson(100, 0.8, 0)))
    else:  # no busy loop on a dead server
        assert len(ran.samples) - server.requests < 4 * 0.5 / 0.01 + 10


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_nobody_there(mode, free_port):
    """Where nothing listens every sample is `refused`."""
    ran = run(f"127.0.0.1:{free_port}", mode, 20, 0.3)
    assert ran.kinds() == {"refused"} and ran.took_s < 2


def test_server_that_hangs():
    """Requests that are not answered within the timeout are samples too."""
    with KnownServer(60.0) as server:
        ran = run(server.address, "closed", 3, 0.4, timeout_s=1.0)
    assert ran.kinds() == {"timeout"}
    assert len(ran.samples) == server.requests == 3
    assert all(1e9 <= s.done_ns - s.sent_ns < 1.5e9 for s in ran.samples)


def test_hung_at_the_deadline():
    """Requests that are still under way when the level is given up are samples too."""
    with DrippingServer() as server:
        ran = run(server.address, "closed", 3, 0.3, timeout_s=0.5)
    assert ran.kinds() == {"timeout"}
    assert len(ran.samples) == 3
    assert ran.took_s < 0.3 + 3.0 + 0.5 + 1.0


class DrippingServer(KnownServer):
    """Sends its answer byte by byte, too slowly to end and too fast to time out."""

    def __init__(self):
        super().__init__(0)

    async def _answer(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")
        while True:
            writer.write(b"H")
            await writer.drain()
            await asyncio.sleep(0.1)


def test_same_seed_same_schedule():
    """Arrivals are the same for the same seed, and others for another."""
    assert list(poisson(50, 2, 3)) == list(poisson(50, 2, 3)) != list(poisson(50, 2, 4))


def test_poisson_gaps():
    """A thousand seconds of arrivals have the rate, and gaps as spread as their mean."""
    starts = list(poisson(20, 1000, 1))
    gaps = [b - a for a, b in pairwise(starts)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((g - mean) ** 2 for g in gaps) / len(gaps)) ** 0.5
    assert starts == sorted(starts) and starts[0] >= 0 and starts[-1] < 1000
    assert len(starts) == pytest.approx(20_000, rel=0.03)
    assert spread == pytest.approx(mean, rel=0.05)


def test_constant_arrivals():
    """Constant arrivals are evenly spaced from zero."""
    assert list(constant(4, 1.0)) == [0, 0.25, 0.5, 0.75]
