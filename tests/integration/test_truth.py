"""The recorder tells the truth: what it says of a server is what the server knows of itself.

The servers draw from a seed how long each request takes and which ones fail, many at a time, and
note what each really took. A request takes 100 ms or more here, so that what the generator and
the system add, a millisecond or so even on a busy machine, is far less than 2 %.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack

import numpy as np
import pytest
from tests.integration.known_server import DrawnGrpcServer, DrawnServer

from tritonkit.load.arrivals import POISSON
from tritonkit.samples import Sample
from tritonkit.stats.capacity import Trial
from tritonkit.stats.latency import summarise
from tritonkit.stats.ratio import ratio

pytestmark = pytest.mark.alone  # percentiles within 2 %

LEVEL = """
import json, sys
from tritonkit.load.runner import Level, run_level
from tritonkit.client.transport import InferRequest, Tensor
address, mode, offered, duration_s, count = json.loads(sys.argv[1])
x = Tensor("x", "FP32", (1, 4), bytes(16))
requests = [InferRequest(f"m{i}", (x,)) for i in range(count)]
level = Level(mode, offered, duration_s)
json.dump(run_level(address, requests, level, connections=400).samples, sys.stdout)
"""
RATE_RPS, USERS, DURATION_S = 350, 100, 4.0
MOST = 4000
"""More requests than any level sends: each is for a model of its own, so that it is known again."""


def python(script, *arguments):
    """What the script prints, as JSON; in a process of its own, because Locust patches it."""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Truth:
    """A level, and what the server noted of it."""

    def __init__(self, protocol, mode):
        rng = np.random.default_rng([len(protocol), len(mode)])
        service_s = np.maximum(0.1, rng.lognormal(np.log(0.25), 0.4, MOST))
        kinds = ["failed", "unavailable", "invalid", *(["closed"] if protocol == "http" else [])]
        errors = np.where(rng.random(MOST) < 0.03, rng.choice(kinds, MOST), "")
        # One that is dropped at once may have been dropped for being idle, and is sent again.
        service_s[errors == "closed"] += 0.3
        fates = zip(service_s.tolist(), errors.tolist(), strict=True)
        self.is_open = mode == "open"
        with {"http": DrawnServer, "grpc": DrawnGrpcServer}[protocol](fates) as server:
            address = f"{protocol}://{server.address}"
            offered = RATE_RPS if self.is_open else USERS
            found = python(LEVEL, address, mode, offered, DURATION_S, MOST)
        self.samples = [Sample(*sample) for sample in found]
        self.requests = server.requests
        self.took_ms = {int(model[1:]): 1000 * took_s for model, took_s, _ in server.took}
        self.errors = {int(model[1:]): error for model, _, error in server.took}
        self.stats = summarise(self.samples, duration_s=DURATION_S, open_loop=self.is_open)

    def counted(self):
        """The requests that are in the statistics."""
        begin_s, end_s = self.stats.warmup_s, DURATION_S
        if self.is_open:  # by the schedule
            arrivals = enumerate(POISSON.starts(RATE_RPS, DURATION_S, 0))
            return [i for i, arrival in arrivals if arrival.start_s >= begin_s]
        return [s.payload for s in self.samples if begin_s <= s.done_ns / 1e9 < end_s]

    def percentile_ms(self, q):
        """Of what the server took for those that it answered well."""
        took_ms = [self.took_ms[i] for i in self.counted() if not self.errors[i]]
        return np.percentile(took_ms, q, method="inverted_cdf")


@pytest.fixture(scope="module", params=["http open", "http closed", "grpc open", "grpc closed"])
def truth(request):
    """A level of each mode over each protocol."""
    return Truth(*request.param.split())


@pytest.mark.parametrize("q", [50, 90, 99])
def test_percentiles(truth, q):
    """p50, p90 and p99 are within 2 % of what the server itself took."""
    assert getattr(truth.stats, f"p{q}_ms") == pytest.approx(truth.percentile_ms(q), rel=0.02)


def test_no_request_is_faster_than_the_server(truth):
    """No request is recorded as shorter than what the server took for it."""
    assert all((s.done_ns - s.sent_ns) / 1e6 >= truth.took_ms[s.payload] for s in truth.samples)


def test_every_request_is_recorded_once(truth):
    """There is one sample for each request that the server had."""
    payloads = [s.payload for s in truth.samples]
    assert len(payloads) == len(set(payloads)) == truth.requests
    assert set(payloads) == truth.took_ms.keys()


def test_errors_are_counted_exactly(truth):
    """The errors are those that the server drew, each of its kind, and no other."""
    assert {s.payload: s.error for s in truth.samples} == truth.errors
    drawn = Counter(error for error in truth.errors.values() if error)
    assert truth.stats.error_kinds == drawn and truth.stats.errors == drawn.total() > 20


SEARCH = """
import json, sys
from tritonkit.load.runner import Level
from tritonkit.bench.levels import guess_rps, next_curve, next_search, trials
from tritonkit.client.client import Client
from tritonkit.load.level import measure_level
from tritonkit.load.requests import make_requests
addresses, rounds, level_s, slo_p99_ms = json.loads(sys.argv[1])
clients = [Client(address, shared_memory=False) for address in addresses]
levels = [[] for _ in clients]
for number in range(1, rounds + 1):
    for i in range(len(clients)) if number % 2 else reversed(range(len(clients))):
        wanted = next_curve(levels[i]) or next_search(levels[i], None)
        requests, _ = make_requests(clients[i].spec("m"))
        level = Level(wanted.mode, wanted.offered, level_s, number)
        measured = measure_level(
            addresses[i], clients[i], "m", requests, level,
            slo_p99_ms=slo_p99_ms, purpose=wanted.purpose, round=number,
        )
        levels[i].append(measured.record)
json.dump([[trials(each), guess_rps(each)] for each in levels], sys.stdout, default=vars)
"""


@pytest.fixture(scope="module")
def arms():
    """(trials, guess) of three servers that do one request at a time, in levels that take turns:
    two that take 2 ms for each, and one that takes 8.
    """

    def fates(seed, mean_s):
        rng = np.random.default_rng(seed)
        while True:
            yield mean_s * rng.lognormal(-0.02, 0.2), ""

    with ExitStack() as stack:
        servers = [
            stack.enter_context(DrawnServer(fates(seed, mean_s), one_at_a_time=True))
            for seed, mean_s in enumerate((0.002, 0.002, 0.008))
        ]
        addresses = [f"http://{server.address}" for server in servers]
        found = python(SEARCH, addresses, 9, 1.0, 30.0)
    return [([Trial(**trial) for trial in trials], guess_rps) for trials, guess_rps in found]


def test_identical_arms_do_not_differ(arms):
    """Of two servers that behave alike the comparison says that there is no difference."""
    found = ratio(*arms[0], *arms[1])
    assert not found.differs, found
    assert found.low > 1 / 3 and found.high < 3  # and it is no shrug


def test_different_arms_differ(arms):
    """Of a server that is four times as slow it says so."""
    found = ratio(*arms[0], *arms[2])
    assert found.low > 1, found
