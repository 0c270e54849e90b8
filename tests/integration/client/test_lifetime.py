"""How a client ends, in processes of their own that must end soon, well, and without a word."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tritonkit.server.embedded import EmbeddedTriton

PROTOCOLS = ("grpc", "http")

# Answers after so many seconds, or when it is cancelled; before that it leaves a mark that it has
# begun. Any number of requests at once.
CONFIG = """
name: "wait" backend: "python" max_batch_size: 0
input [{ name: "what" data_type: TYPE_FP64 dims: [2] }]
output [{ name: "done" data_type: TYPE_INT32 dims: [1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
WAIT = """
import threading, time
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            what = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "what"))
            arguments = (request, request.get_response_sender(), *what.tolist())
            threading.Thread(target=self.wait, args=arguments, daemon=True).start()

    def wait(self, request, sender, seconds, mark):
        Path(__file__).with_name(str(int(mark))).touch()
        until = time.monotonic() + seconds
        while time.monotonic() < until and not request.is_cancelled():
            time.sleep(0.01)
        value = pb_utils.Tensor.from_dlpack("done", np.array([1], np.int32))
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        sender.send(pb_utils.InferenceResponse([value]), flags)
"""

PRELUDE = f'''
import asyncio, os, signal, sys, threading, time
import numpy as np
from tritonkit import AsyncClient, Client
from tritonkit.errors import RequestError
address = sys.argv[1]
X = np.ones((1, 4), np.float32)
BIG = np.ones((1, {1 << 18}), np.float32)
ENDLESS, SOON = [60.0, float(os.getpid())], [0.0, 0.0]
def say(text):
    print(text, flush=True)
def begun():
    """Return when an endless request has begun."""
    deadline = time.monotonic() + 15
    while not os.path.exists(f"{{sys.argv[2]}}/{{os.getpid()}}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
def go(main):
    with asyncio.Runner() as runner:
        runner.get_loop().slow_callback_duration = 9  # -X dev tells of every import that takes long
        runner.run(main())
'''


@pytest.fixture(scope="module")
def repository(package, tmp_path_factory):
    repository = package(tmp_path_factory.mktemp("lifetime") / "repository", "double")
    package(repository, f"(float[N,{1 << 18}] x) => (float[N,{1 << 18}] y) {{ y = Add(x, x) }}",
            name="big")  # fmt: skip
    version = repository / "wait" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    (version / "model.py").write_text(WAIT)
    return repository


@pytest.fixture(scope="module")
def triton(installed, repository):
    with EmbeddedTriton(repository, log=repository.parent / "log", drain=False) as server:
        yield server


@pytest.fixture
def marks(repository):
    """Where the waiting model leaves its marks."""
    return repository / "wait" / "1"


@pytest.fixture(params=PROTOCOLS)
def address(request, triton):
    return f"{request.param}://{getattr(triton.endpoints, request.param)}"


@pytest.fixture
def start(marks):
    """`start(code, address)`: a process; those that still run in the end are killed."""
    started = []

    def starting(code, address, *options, before=""):
        code = before + PRELUDE + code
        process = subprocess.Popen(
            [
                sys.executable,
                *(options or ("-X", "dev", "-W", "error")),
                "-c",
                code,
                address,
                str(marks),
            ],
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield starting
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with those that it has forked
        process.communicate()


@pytest.fixture
def ends(start, address):
    """Run code to its end: it must say "done", and nothing on stderr."""

    def run(code, *options, within_s=20):
        process = start(textwrap.dedent(code), address, *options)
        output, errors = process.communicate(timeout=within_s)
        assert (process.returncode, output, errors) == (0, "done\n", "")

    return run


def line(process):
    """What it says next, within 20 seconds."""
    readable, _, _ = select.select([process.stdout], [], [], 20)
    assert readable, "it says nothing"
    return process.stdout.readline()


def regions(pid):
    return sorted(p.name for p in Path("/dev/shm").glob(f"tritonkit-{pid}-*"))


# Client


def test_closed(ends):
    """A client that is closed leaves nothing to complain of."""
    ends("""
        client = Client(address)
        client.infer("double", X)
        client.close()
        client.close()
        say("done")
    """)


def test_never_closed(ends):
    """Nor does one that is not."""
    ends("""
        client = Client(address)
        client.infer("double", X)
        say("done")
    """)


def test_context_manager(ends):
    """Nor one that is used as a context manager, left by an exception."""
    ends("""
        try:
            with Client(address) as client:
                client.infer("double", X)
                raise RuntimeError
        except RuntimeError:
            say("done")
    """)


def test_forgotten(ends):
    """Nor hundreds that are garbage; nor do they keep sockets."""
    ends("""
        import gc, psutil
        for _ in range(100):
            Client(address).infer("double", X)
        gc.collect()
        deadline = time.monotonic() + 10
        while (n := len(psutil.Process().net_connections())) > 10:
            assert time.monotonic() < deadline, n
            time.sleep(0.01)
        say("done")
    """)


def test_shared_memory_never_closed(start, address, wait_for):
    """Shared memory of a client that is never closed goes with the process."""
    process = start(
        'Client(address, shared_memory=True).infer("big", BIG)\nkeep = Client(address, '
        'shared_memory=True)\nkeep.infer("big", BIG)\nsay("done")\nsys.stdin.read()',
        address,
    )
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (0, "done\n", "")
    wait_for(lambda: not regions(process.pid))


def test_shared_memory_of_a_killed_process(start, address, wait_for):
    """And however that ends."""
    process = start(
        'client = Client(address, shared_memory=True)\nclient.infer("big", BIG)\n'
        'say("done")\ntime.sleep(60)',
        address,
    )
    assert line(process) == "done\n"
    assert regions(process.pid)
    process.kill()
    process.wait(20)
    wait_for(lambda: not regions(process.pid))


def test_submitted_at_exit(ends):
    """What was submitted before the end of the program is waited for, and answered."""
    ends("""
        client = Client(address)
        def tell(pending):
            assert pending.result()["done"].item() == 1
            say("done")
        pending = client.submit("wait", [0.3, 0.0])
        threading.Thread(target=tell, args=(pending,)).start()
    """)


def test_submitted_and_cancelled_at_exit(ends):
    """What was submitted and given up holds nobody up."""
    ends("""
        client = Client(address, timeout_s=None)
        client.infer("wait", SOON)
        pending = [client.submit("wait", ENDLESS) for _ in range(2)]
        begun()
        for each in pending:
            each.cancel()
        say("done")
    """)


def test_a_map_that_is_left(ends):
    """The loop over a map may be left, or its iterator forgotten."""
    ends("""
        client = Client(address, timeout_s=None)
        for result in client.map("wait", [SOON, ENDLESS, ENDLESS], max_in_flight=2):
            break
        results = client.map("wait", [SOON, ENDLESS, ENDLESS], max_in_flight=2)
        next(results)
        del results
        say("done")
    """)


def test_a_stream_that_is_not_read(ends, address):
    """A stream that is never begun, and one that is left, are forgotten."""
    if address.startswith("http"):
        pytest.skip("streams need gRPC")
    ends("""
        client = Client(address)
        never = client.stream("double", X)
        left = client.stream("wait", ENDLESS)
        threading.Thread(target=next, args=(left,), daemon=True).start()
        begun()
        say("done")
    """)


# AsyncClient


def test_async_closed(ends):
    """An AsyncClient that is closed leaves nothing to complain of."""
    ends("""
        async def main():
            async with AsyncClient(address) as client:
                await client.infer("double", X)
        go(main)
        say("done")
    """)


def test_async_never_closed(ends):
    """One that is not closed is as silent, with Python's own settings."""
    ends(
        """
        async def main():
            client = AsyncClient(address)
            await client.infer("double", X)
        go(main)
        say("done")
        """,
        "-X",
        "faulthandler",
    )


def test_async_never_closed_and_global(ends):
    """So is one that outlives its loop."""
    ends(
        """
        client = AsyncClient(address)
        async def main():
            await client.infer("double", X)
        go(main)
        say("done")
        """,
        "-X",
        "faulthandler",
    )


def test_async_requests_under_way(ends):
    """A client that is closed with requests under way lets them end, or be cancelled."""
    ends("""
        async def main():
            async with AsyncClient(address, timeout_s=None) as client:
                await client.infer("wait", SOON)
                tasks = [asyncio.create_task(client.infer("wait", ENDLESS)) for _ in range(3)]
                await asyncio.to_thread(begun)
            for task in tasks:
                task.cancel()
            for end in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(end, (RequestError, asyncio.CancelledError))
        go(main)
        say("done")
    """)


def test_async_requests_under_way_and_never_closed(ends):
    """A loop that ends with requests under way ends soon, its client not closed."""
    ends(
        """
        client = AsyncClient(address, timeout_s=None)
        async def main():
            await client.infer("wait", SOON)
            tasks = [asyncio.create_task(client.infer("wait", ENDLESS)) for _ in range(3)]
            await asyncio.to_thread(begun)
        go(main)
        say("done")
        """,
        "-X",
        "faulthandler",
    )


def test_async_map_that_is_left(ends):
    """The loop over a map may be left."""
    ends("""
        async def main():
            async with AsyncClient(address, timeout_s=None) as client:
                items = [SOON, ENDLESS, ENDLESS]
                async for result in client.map("wait", items, max_in_flight=2):
                    break
        go(main)
        say("done")
    """)


def test_a_second_loop(ends, address):
    """An AsyncClient over HTTP whose loop is over works in the next one."""
    if address.startswith("grpc"):
        pytest.skip("grpc.aio's channels belong to one loop")
    ends(
        """
        client = AsyncClient(address)
        async def main():
            assert (await client.infer("double", X))["y"].tolist() == [[2.0] * 4]
        asyncio.run(main())
        asyncio.run(main())
        say("done")
        """,
        "-X",
        "faulthandler",
    )


# Ctrl-C


INTERRUPTED = {
    "infer": 'client.infer("wait", ENDLESS)',
    "map": 'list(client.map("wait", [ENDLESS] * 3, max_in_flight=3))',
    "the wait for what was submitted": 'client.submit("wait", ENDLESS).result()',
    "stream": 'list(client.stream("wait", ENDLESS))',
    "asyncio": "go(main)",
}


@pytest.mark.parametrize("what", INTERRUPTED)
def test_interrupted(start, address, what):
    """Ctrl-C while a request runs ends the program at once with KeyboardInterrupt."""
    if what == "stream" and address.startswith("http"):
        pytest.skip("streams need gRPC")
    code = f"""
client = Client(address, timeout_s=None)
client.infer("wait", SOON)
def ready():
    begun()
    say("ready")
async def main():
    async with AsyncClient(address, timeout_s=None) as client:
        await client.infer("wait", SOON)
        threading.Thread(target=ready).start()
        # Python looks at signals before it waits, and one may come just between: so it looks again.
        ticking = asyncio.create_task(tick())
        await client.infer("wait", ENDLESS)
async def tick():
    while True:
        await asyncio.sleep(0.1)
if {what != "asyncio"}:
    threading.Thread(target=ready).start()
try:
    {INTERRUPTED[what]}
finally:
    say(repr(sys.exc_info()[0].__name__))
    if {what.startswith("the wait")}:
        os._exit(9)
"""
    process = start(code, address)
    assert line(process) == "ready\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert time.monotonic() - began < 3
    assert output == "'KeyboardInterrupt'\n"
    if not what.startswith("the wait"):
        assert process.returncode == -signal.SIGINT
        assert errors.splitlines()[-1] == "KeyboardInterrupt"
        assert errors.count("Traceback") <= 2, errors


# Many at once


THREADS = """
    from concurrent.futures import ThreadPoolExecutor
    with Client(address) as client:
        def work(i):
            for k in range(20):
                x = np.full((1, 4), 100 * i + k, np.float32)
                assert (client.infer("double", x)["y"] == 2 * x).all()
                b = np.full((1, 1 << 18), 100 * i + k, np.float32)
            assert (client.infer("big", b)["y"] == 2 * b).all()
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(work, range(32)))
    say("done")
"""


def test_thirty_two_threads(ends):
    """32 threads share a client, and each gets its own answers, over the wire and memory."""
    ends(THREADS, within_s=60)


GREENLETS = """
    client = Client(address)
    slow = gevent.spawn(client.infer, "wait", ENDLESS)
    ticks = 0
    def tick():
        global ticks
        while True:
            ticks += 1
            gevent.sleep(0.001)
    ticking = gevent.spawn(tick)
    together = most = 0
    def work(i):
        global together, most
        for k in range(3):
            x = np.full((1, 4), 100 * i + k, np.float32)
            together += 1
            most = max(most, together)
            y = client.infer("double", x)["y"]
            together -= 1
            assert (y == 2 * x).all()
    jobs = [gevent.spawn(work, i) for i in range(64)]
    gevent.joinall(jobs, raise_error=True)
    assert most > 32, most
    assert not slow.dead
    assert ticks > 5, ticks
    pending = [client.submit("double", X * i) for i in range(8)]
    assert [p.result()["y"][0, 0] for p in pending] == [2 * i for i in range(8)]
    assert len(list(client.map("double", [X] * 20))) == 20
    slow.kill()
    ticking.kill()
    client.close()
    say("done")
"""


def test_sixty_four_greenlets(start, address):
    """In a process that gevent has patched 64 greenlets share a client, and none blocks another."""
    code = "from gevent import monkey; monkey.patch_all(); import gevent\n"
    # Python's own settings: gevent's hub is never closed, which -X dev would complain of.
    process = start(textwrap.dedent(GREENLETS), address, "-X", "faulthandler", before=code)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "done\n", "")


FORKED = """
    parent = Client(address{options})
    parent.infer("double", X)
    parent.infer("big", BIG)
    child = os.fork()
    if not child:
        {own}
            assert client.infer("double", X)["y"].tolist() == [[2.0] * 4]
            assert client.infer("big", BIG)["y"].sum() == 2 * BIG.sum()
        os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert parent.infer("double", X)["y"].tolist() == [[2.0] * 4]
    assert parent.infer("big", BIG)["y"].sum() == 2 * BIG.sum()
    parent.close()
    say("done")
"""


def test_a_forked_childs_own_client(ends):
    """After a fork the child makes a client of its own, and both go on."""
    ends(FORKED.format(options="", own="with Client(address) as client:"), "-X", "faulthandler")


def test_a_forked_childs_use_of_its_parents_http_client(ends, address):
    """Over HTTP a child may use its parent's client too: it opens connections of its own."""
    if address.startswith("grpc"):
        pytest.skip("gRPC's channels do not survive a fork")
    ends(FORKED.format(options="", own="for client in [parent]:"), "-X", "faulthandler")
