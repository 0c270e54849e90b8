"""`tritonkit doctor` against a real Triton that is given each cause for real."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from tests.integration.traffic import calling, rest

from tritonkit import Client
from tritonkit.cli.doctor import look_at, watch
from tritonkit.client.retry import NO_RETRIES
from tritonkit.errors import RequestError
from tritonkit.repository.config import DynamicBatching
from tritonkit.repository.ensemble import package_ensemble
from tritonkit.repository.scheduling import QueuePolicy
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.stats.batching import Diagnosis, diagnose

pytestmark = pytest.mark.alone  # what it finds depends on how requests meet

# A loop that multiplies matrices, as often as the row of the batch that wants the most turns: a
# batch costs no more than that row. COSTLY makes the square of what all rows want together.
LOOP = """(int64[N,{size}] steps) => (float[N,{size}] turns)
{{ wanted = {wanted} <keepdims = 0> (steps) most = {cost} (wanted{twice})
  yes = Constant <value_int = 1> () go = Cast <to = 9> (yes)
  size = Constant <value_ints = [200, 200]> () start = ConstantOfShape (size)
  one = Constant <value_float = 0.0> ()
  matrix, count = Loop (most, go, start, one) <body = turn
   (int64 k, bool on, float[200,200] m, float c) =>
   (bool more, float[200,200] n, float d)
   {{ more = Identity (on) n = MatMul (m, m) up = Constant <value_float = 1.0> ()
     d = Add (c, up) }}>
  same = Cast <to = 1> (steps) none = Sub (same, same) turns = Add (none, count) }}"""
SLOW = LOOP.format(size=1, wanted="ReduceMax", cost="Identity", twice="")
ANY_SIZE = LOOP.format(size="L", wanted="ReduceMax", cost="Identity", twice="")
COSTLY = LOOP.format(size=1, wanted="ReduceSum", cost="Mul", twice=", wanted")
DOUBLE = "(float[N,4] y) => (float[N,4] z) { z = Add(y, y) }"
# Turns of the loop that take some ms, so that callers meet at the server.
LONG = 40

ROW = np.ones((1, 4), np.float32)


@pytest.fixture(scope="module")
def repository(package, onnx_file, tmp_path_factory) -> Path:
    """One model for each cause."""
    folder = tmp_path_factory.mktemp("doctor") / "repository"

    def put(graph: str, name: str, rows: int = 8, **settings: object) -> None:
        package(folder, graph, name=name, max_batch_size=rows, **settings)

    put(SLOW, "batched")
    put(SLOW, "none", scheduler=None)
    put("double", "unbatchable", 0, scheduler=None)
    put(ANY_SIZE, "sizes")
    put(COSTLY, "costly")
    put(SLOW, "delayed", scheduler=DynamicBatching(100_000))
    put(SLOW, "preferred", scheduler=DynamicBatching(0, (2,)))
    put(SLOW, "several", instances=4)
    put(SLOW, "bounded", scheduler=DynamicBatching(queue=QueuePolicy(2)))
    put(SLOW, "impatient", scheduler=DynamicBatching(queue=QueuePolicy(0, 1000)))
    put("double", "cached", response_cache=True)
    put("double", "double")
    put("double", "renewed")
    put(DOUBLE, "again")
    package_ensemble(folder, "both", ["double", "again"])
    return folder


@pytest.fixture(scope="module")
def server(installed, repository) -> Iterator[EmbeddedTriton]:
    options = ("--model-control-mode=explicit", "--load-model=*", "--log-verbose=1")
    log = repository.parent / "log"
    with EmbeddedTriton(
        repository, log=log, drain=False, response_cache_mb=8, options=options
    ) as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def url(server, request) -> str:
    return f"{request.param}://{getattr(server.endpoints, request.param)}"


@pytest.fixture(scope="module")
def client(server) -> Iterator[Client]:
    with Client(f"grpc://{server.endpoints.grpc}", retries=NO_RETRIES) as connected:
        yield connected


def steps(turns: int = LONG, *, rows: int = 1, size: int = 1) -> np.ndarray:
    return np.full((rows, size), turns, np.int64)


@pytest.fixture
def watched(client, wait_for) -> Callable[..., Diagnosis]:
    """`watched("m", [x], [x, x], times=9)`: what is found of the model while it has one caller that
    sends x, then two. Each waits for its answer before it asks again, until so many were good.

    The watch ends when the last group has, and the server has counted all of it.
    """

    def call(model: str, value: np.ndarray, times: int) -> None:
        answered = 0
        while answered < times:
            with suppress(RequestError):
                client.infer(model, value)
                answered += 1

    def counted(model: str) -> int:
        (record,) = client.statistics(model)
        return int(record["inference_stats"]["success"]["count"])

    def run(model: str, *groups: Sequence[np.ndarray], times: int) -> Diagnosis:
        before = counted(model)

        def working() -> Iterator[None]:
            for group in groups:
                with ThreadPoolExecutor(len(group)) as pool:
                    for done in [pool.submit(call, model, value, times) for value in group]:
                        done.result()
                yield
            # An answer is out before it is counted.
            wait_for(lambda: counted(model) == before + times * sum(map(len, groups)))
            yield

        looks = watch(lambda: look_at(client, model), working())
        return diagnose(model, client.config(model), looks)

    return run


def test_no_scheduler(watched):
    """Without a scheduler many callers have a run each, and the config is the cause."""
    found = watched("none", [steps()] * 8, times=8)
    assert found.finding.cause == "no_scheduler"
    assert (found.traffic.requests, found.traffic.runs) == (64, 64)
    assert found.traffic.waiting > 3


def test_no_batch_dimension(watched):
    """A model with max_batch_size 0 cannot batch."""
    found = watched("unbatchable", [ROW], times=5)
    assert found.finding.cause == "max_batch_size"


def test_no_traffic(client, watched):
    """A model that nobody calls has no traffic; what others are sent is not its own."""
    client.infer("double", ROW)
    found = watched("batched", times=0)
    assert found.finding.cause == "no_traffic"


def test_one_caller(watched):
    """One caller has one request in flight at most, and so nothing to share."""
    found = watched("batched", [steps()], times=150)
    assert found.finding.cause == "low_concurrency"
    assert "one caller" in found.finding.why
    assert found.traffic.batches == {1: 150}
    assert found.traffic.in_flight <= 1.0


def test_many_callers(watched):
    """Many callers share runs, which costs less per row."""
    found = watched("batched", [steps()], [steps()] * 12, times=10)
    assert found.finding.cause == "healthy"
    assert found.traffic.requests == 130
    assert sum(n * runs for n, runs in found.traffic.batches.items()) == found.traffic.rows == 130
    assert 1 < found.traffic.in_flight <= 12


def test_batches_that_cost_as_much(watched):
    """A model whose batch costs more than its rows alone batches, but it does not pay."""
    found = watched("costly", [steps(6)], [steps(6)] * 6, times=6)
    assert found.finding.cause == "does_not_pay"


def test_client_batches(watched):
    """Requests of several rows are batches already."""
    found = watched("batched", [steps(rows=4)], times=20)
    assert found.finding.cause == "client_batches"
    assert (found.traffic.rows_per_request, found.traffic.batches) == (4.0, {4: 20})


def test_full_requests(watched):
    """Requests of max_batch_size rows leave no room, however many come at once."""
    found = watched("batched", [steps(rows=8)] * 4, times=8)
    assert found.finding.cause == "full_requests"
    assert found.traffic.requests_per_run == 1.0


def test_rows_that_do_not_fit(watched):
    """Two requests of more than half the rows never share a run."""
    found = watched("batched", [steps(rows=5)] * 6, times=6)
    assert found.finding.cause == "rows_do_not_fit"
    assert found.traffic.batches == {5: 36}


def test_cache(watched):
    """Answers out of the cache run nothing, and are told from requests that do."""
    found = watched("cached", [ROW], times=50)
    assert found.finding.cause == "cache"
    assert (found.traffic.cache_hits, found.traffic.runs) == (49, 1)


def test_shapes(watched):
    """Callers whose sizes differ wait for each other and share nothing."""
    differing = [steps(size=size) for size in range(1, 9)]
    found = watched("sizes", differing, times=8)
    assert found.finding.cause == "shapes"
    assert found.batching.must_agree == ("steps",)
    assert found.traffic.requests_per_run == 1.0


def test_equal_shapes(watched):
    """The same model, called with one size only, batches."""
    found = watched("sizes", [steps(size=3)], [steps(size=3)] * 12, times=10)
    assert found.finding.cause == "healthy"


def test_preferred_batch_size(watched):
    """A preferred size holds batches there, though more requests wait."""
    found = watched("preferred", [steps()] * 12, times=10)
    assert found.finding.cause == "preferred_batch_size"
    assert max(found.traffic.batches) == 2


def test_delay(watched):
    """One caller waits out the delay with each request, for nobody."""
    found = watched("delayed", [steps()], times=8)
    assert found.finding.cause == "delay_in_vain"
    assert found.traffic.queue_ms >= 100


def test_instances(watched):
    """As many instances as callers find each request free, and nothing is shared."""
    differing = [steps(LONG * n) for n in (3, 4, 5)]
    found = watched("several", differing, times=10)
    assert found.finding.cause == "instances"
    assert found.traffic.waiting < 1 < found.traffic.running


def test_full_queue(watched):
    """A bounded queue that refuses is told by how full it is, as Triton counts no refusals."""
    found = watched("bounded", [steps()] * 8, times=4)
    assert found.finding.cause == "queue_full"
    assert (found.traffic.requests, found.traffic.failures) == (32, 0)


def test_timeouts(watched):
    """Requests that are refused because they waited too long are counted as failures."""
    found = watched("impatient", [steps()] * 8, times=4)
    assert found.finding.cause == "timeouts"
    assert found.traffic.requests == 32


def test_ensemble(watched):
    """An ensemble's steps are named."""
    found = watched("both", [ROW], times=3)
    assert found.finding.cause == "ensemble"
    assert found.batching.steps == ("double", "again")


def test_loaded_anew(client):
    """A model that is loaded anew while watched is found out."""

    def renewed() -> Iterator[None]:
        rest()
        client.unload("renewed")
        client.load("renewed")
        yield

    for _ in range(50):  # more than it is warmed up with
        client.infer("renewed", ROW)
    looks = watch(lambda: look_at(client, "renewed"), renewed())
    assert diagnose("renewed", client.config("renewed"), looks).finding.cause == "restarted"


# The command


@pytest.fixture
def under_load(server) -> Iterator[None]:
    """Four callers of the model `batched`, as long as the test runs."""
    with calling(f"grpc://{server.endpoints.grpc}", "batched", steps(), callers=4):
        yield


@pytest.mark.usefixtures("under_load")
def test_command(tritonkit, url):
    """The command watches a live server over either protocol, and says what it saw."""
    done = tritonkit("doctor", url, "batched", "--watch-s", 1, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said["numbers"]["requests"] > 10
    assert 1 <= said["numbers"]["watched_s"] < 5
    assert (said["config"]["scheduler"], said["config"]["max_batch_size"]) == ("dynamic", 8)
    assert said["numbers"]["in_flight"] <= 4.5


@pytest.mark.usefixtures("under_load")
def test_printed(tritonkit, url):
    """For people the first line has the verdict."""
    done = tritonkit("doctor", url, "batched", "--watch-s", 0.5)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("batched: ")
    assert "  in flight      " in done.stdout


@pytest.mark.usefixtures("under_load")
def test_ctrl_c(server, client, start_kit, wait_for):
    """Ctrl-C ends the watch early, and what was seen until then is said."""
    looked = server.log.read_text().count("/batched/stats")
    http = f"http://{server.endpoints.http}"
    with start_kit("doctor", http, "batched", "--watch-s", 600) as running:
        wait_for(lambda: server.log.read_text().count("/batched/stats") > looked)
        for _ in range(20):  # enough time for the answer to that look
            client.infer("batched", steps())
        assert running.end(signal.SIGINT) == 0
        assert running.said().startswith("batched: ")
        assert running.complained() == ""


def test_ctrl_c_in_vain(server, start_kit, wait_for):
    """Ctrl-C while nothing was seen is an interrupt."""
    looked = server.log.read_text().count("/none/stats")
    http = f"http://{server.endpoints.http}"
    with start_kit("doctor", http, "none", "--watch-s", 600) as running:
        wait_for(lambda: server.log.read_text().count("/none/stats") > looked)
        assert running.end(signal.SIGINT) == 130
        assert (running.said(), running.complained()) == ("", "\ninterrupted\n")


def test_unknown_model(tritonkit, url):
    """An unknown model is a failed request that names it."""
    done = tritonkit("doctor", url, "nope")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "'nope'" in line


@pytest.mark.parametrize(("protocol", "port"), [("http", "grpc"), ("grpc", "http")])
def test_wrong_port(tritonkit, server, protocol, port):
    """The port of the other protocol is a failed request, in one line."""
    address = getattr(server.endpoints, port)
    done = tritonkit("doctor", address, "double", "--protocol", protocol)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert f"{port}://" in line


def test_what_is_no_triton(tritonkit, not_triton):
    """Who answers something else is told so in one line."""
    done = tritonkit("doctor", not_triton, "double", "--watch-s", 0.5)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "is this a Triton?" in line
