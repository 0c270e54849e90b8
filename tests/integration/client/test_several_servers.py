"""One client, three real servers: the spread, and what becomes of a dead one."""

import asyncio
import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

from tritonkit import AsyncClient, Client, SequencePart
from tritonkit.client.events import ServerBack, ServerRested
from tritonkit.errors import UnavailableError
from tritonkit.server.embedded import EmbeddedTriton

PROTOCOLS = ("grpc", "http")
AT_ONCE = 16


@pytest.fixture(scope="module")
def repository(package, tmp_path_factory):
    return package(tmp_path_factory.mktemp("several"), "double")


@pytest.fixture
def start(installed, repository, tmp_path):
    """Start a server, on given ports or on free ones; all end with the test."""
    with ExitStack() as stack:

        def starting(ports=None):
            log = tmp_path / f"log{len(list(tmp_path.iterdir()))}"
            server = EmbeddedTriton(repository, log=log, drain=False, **(ports or {}))
            return stack.enter_context(server)

        yield starting


@pytest.fixture
def servers(start):
    return [start() for _ in range(3)]


def addresses(servers, protocol):
    return [f"{protocol}://{getattr(s.endpoints, protocol)}" for s in servers]


def served(server):
    """Requests that the server has answered."""
    with Client(f"grpc://{server.endpoints.grpc}") as client:
        (record,) = client.statistics("double")
        return record["inference_stats"]["success"]["count"]


def kill(server):
    os.kill(server.pids()[0], signal.SIGKILL)


def rows(i):
    return np.full((1, 4), i, np.float32)


def right(i, result):
    return bool((result["y"] == 2 * i).all())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_requests_are_spread(servers, protocol):
    """Each of three servers answers a third of them."""
    before = [served(s) for s in servers]
    with Client(addresses(servers, protocol)) as client:
        assert all(right(i, client.infer("double", rows(i))) for i in range(60))
    assert [served(s) - b for s, b in zip(servers, before, strict=True)] == [20, 20, 20]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_request_fails_when_a_server_is_killed(servers, protocol):
    """Of 3,000 under load, with a SIGKILL in their midst, every one is answered rightly."""
    begun, events = threading.Event(), []
    with Client(addresses(servers, protocol), hooks=[events.append]) as client:

        def infer(i):
            if i == 1000:
                begun.set()
            return right(i, client.infer("double", rows(i)))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = pool.map(infer, range(3000))
            assert begun.wait(60)
            kill(servers[1])
            assert all(answers)
    assert any(isinstance(e, ServerRested) for e in events)
    assert min(served(servers[0]), served(servers[2])) > 1000


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_request_fails_when_a_server_is_killed_under_asyncio(servers, protocol):
    """The same from one event loop."""

    async def main():
        room = asyncio.Semaphore(AT_ONCE)
        async with AsyncClient(addresses(servers, protocol)) as client:

            async def infer(i):
                async with room:
                    if i == 500:
                        kill(servers[1])
                    return right(i, await client.infer("double", rows(i)))

            return await asyncio.gather(*(infer(i) for i in range(1500)))

    assert all(asyncio.run(main()))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_back_gets_its_share_again(servers, start, protocol, wait_for):
    """Killed, left out, started again on its port, it is found without being told of."""
    where = servers[1].endpoints
    ports = {
        f"{name}_port": int(getattr(where, name).rpartition(":")[2])
        for name in ("http", "grpc", "metrics")
    }
    events = []
    with Client(addresses(servers, protocol), hooks=[events.append]) as client:
        kill(servers[1])
        assert all(right(i, client.infer("double", rows(i))) for i in range(9))
        again = start(ports)

        def is_back():
            assert right(1, client.infer("double", rows(1)))
            return any(isinstance(e, ServerBack) for e in events)

        wait_for(is_back)
        before = served(again)
        for i in range(30):
            client.infer("double", rows(i))
        assert served(again) - before == 10


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_gone_is_an_error_soon(servers, protocol):
    """No server left: UnavailableError, long before the deadline."""
    with Client(addresses(servers, protocol), timeout_s=30) as client:
        client.infer("double", rows(1))
        for server in servers:
            kill(server)
        with pytest.raises(UnavailableError):
            client.infer("double", rows(1))
        with pytest.raises(UnavailableError):
            client.infer("double", rows(1), timeout_s=5)


def test_a_sequence_stays_with_one_server(servers):
    """All its parts go where its state is; other sequences may go elsewhere."""
    before = [served(s) for s in servers]
    with Client(addresses(servers, "grpc")) as client:
        for number in range(1, 7):
            for part in range(4):
                step = SequencePart(number, start=part == 0, end=part == 3)
                client.infer("double", rows(1), sequence=step)
    shares = Counter(served(s) - b for s, b in zip(servers, before, strict=True))
    assert shares == Counter({8: 3})
