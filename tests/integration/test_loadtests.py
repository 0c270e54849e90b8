"""The Locust files of the arms, run as a user runs them, against live servers."""

from __future__ import annotations

import itertools
import math
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tritonkit import Client
from tritonkit.load.arrivals import POISSON, parse_arrivals
from tritonkit.repository.layout import read_config, write_variant
from tritonkit.samples import read_samples
from tritonkit.server.baseline import OrtBaseline
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.stats.scrape import read_counters

ROOT = Path(__file__).parents[2]
ARMS = ("triton_batched", "triton_unbatched", "ort_baseline", "ort_batcher")


@pytest.fixture(scope="module")
def server(installed, package, tmp_path_factory):
    """The servers by arm, each started when first asked for."""
    work = tmp_path_factory.mktemp("loadtests")
    repository = package(work / "repository", "double")
    plain = replace(read_config(repository, "double"), dynamic_batching=None)
    write_variant(repository, "double", plain, work / "unbatched")
    running = {}

    def start(arm):
        if arm not in running:
            log = work / f"{arm}.log"
            if arm.startswith("ort_"):
                batching = arm == "ort_batcher"
                made = OrtBaseline(repository, "double", log=log, batching=batching)
            else:
                folder = repository if arm == "triton_batched" else work / "unbatched"
                made = EmbeddedTriton(folder, log=log, drain=False)
            running[arm] = made.__enter__()
        return running[arm].endpoints.http

    start.grpc = lambda: running["triton_batched"].endpoints.grpc
    yield start
    for made in running.values():
        made.__exit__()


def command(arm, host, *options):
    locust = [sys.executable, "-m", "locust", "-f", f"loadtests/{arm}.py", "--host", host]
    return [*locust, "--model", "double", *map(str, options)]


@pytest.fixture
def locust(tmp_path):
    """Run the file of an arm without its web page; what it said, and its exit code."""

    def run(arm, host, *options):
        done = subprocess.run(
            command(arm, host, "--headless", "-u", 4, *options),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def requests_served(address):
    with Client(f"http://{address}") as client:
        return read_counters(client.statistics("double")[-1]).requests


def inferences(address):
    with Client(f"http://{address}") as client:
        return read_counters(client.statistics("double")[-1]).inferences


def from_raw_samples(done):
    """Requests, errors and rate in the line that the raw samples are summed up in."""
    found = re.findall(
        r"from raw samples: (\d+) requests, (\d+) errors(?: \(.+?\))?, (\d+) req/s, "
        r"p50 [\d.]+ p90 [\d.]+ p99 [\d.]+ ms, without [\d.]+ s of warm-up",
        done.stderr,
    )
    assert len(found) == 1, done.stderr
    return tuple(map(int, found[0]))


def expected(rate_rps, count, seed=0):
    """The first so many intended starts of the seeded Poisson process, in nanoseconds."""
    starts = POISSON.starts(rate_rps, math.inf, seed)
    return [int(arrival.start_s * 1e9) for arrival in itertools.islice(starts, count)]


@pytest.mark.parametrize("arm", ARMS)
def test_closed_loop(server, locust, tmp_path, arm):
    """Each file loads its own arm: every request is a raw sample, and the numbers are theirs."""
    host = server(arm)
    before = requests_served(host)
    path = tmp_path / "deep" / "samples.csv.gz"
    done = locust(arm, f"http://{host}", "-t", "2s", "--samples", path)
    assert done.returncode == 0, done.stderr
    samples = read_samples(path)
    requests, errors, _ = from_raw_samples(done)
    assert errors == 0
    assert len(samples) == requests_served(host) - before
    assert 0 < requests <= len(samples)
    assert {s.error for s in samples} == {""}
    assert f"raw samples are in {path}" in done.stderr


def test_open_loop(server, locust, tmp_path):
    """With a rate the arrivals are those of the seeded Poisson process, none left out."""
    path = tmp_path / "samples.csv.gz"
    host = server("triton_batched")
    options = ("-t", "2s", "--rate-rps", 80, "--seed", 3, "--samples", path)
    done = locust("triton_batched", f"http://{host}", *options)
    assert done.returncode == 0, done.stderr
    samples = read_samples(path)
    _, errors, _ = from_raw_samples(done)
    assert sorted(s.intended_ns for s in samples) == expected(80, len(samples), 3)
    assert len(samples) > 40 and errors == 0


def test_arrivals_rows_and_grpc(server, locust, tmp_path):
    """A pattern with rates of its own, requests of several rows, and gRPC where the host is one."""
    path = tmp_path / "samples.csv.gz"
    host = server("triton_batched")
    before = inferences(host)
    options = ("-t", "2s", "--arrivals", "steps:30x0.3,60x0.3", "--rows", 3, "--samples", path)
    done = locust("triton_batched", f"grpc://{server.grpc()}", *options)
    assert done.returncode == 0, done.stderr
    samples = read_samples(path)
    pattern = parse_arrivals("steps:30x0.3,60x0.3")
    starts = [int(arrival.start_s * 1e9) for arrival in pattern.starts(0, 2.0, 0)]
    assert sorted(s.intended_ns for s in samples) == starts
    assert inferences(host) - before == 3 * len(samples)
    assert "of 3 rows" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--arrivals", "bursts"), "--arrivals bursts needs --rate-rps"),
        (("--arrivals", "often"), "'often' is no pattern of arrivals"),
        (("--arrivals", "ramp:1-9"), "a ramp needs an end"),
        (("--rows", "9"), "9"),
        (("--rows", "many"), "--rows: 'many' is no distribution"),
    ],
)
def test_options_that_make_no_sense(server, locust, options, says):
    """What cannot be sent is said in one line, and is the user's mistake."""
    done = locust("triton_batched", f"http://{server('triton_batched')}", *options)
    assert done.returncode == 2
    (line,) = complaints(done)
    assert says in line


def test_processes_share_the_rate(server, locust, tmp_path):
    """With `--processes 2` each arrival of the one schedule is sent once, and written once."""
    path = tmp_path / "samples.csv.gz"
    host = server("triton_batched")
    before = requests_served(host)
    options = ("-t", "2s", "--rate-rps", 80, "--seed", 3, "--samples", path, "--processes", 2)
    done = locust("triton_batched", f"http://{host}", *options)
    assert done.returncode == 0, done.stderr
    samples = read_samples(path)
    from_raw_samples(done)
    intended = sorted(s.intended_ns for s in samples)
    schedule = expected(80, 400, 3)
    for share in (schedule[0::2], schedule[1::2]):
        # Each worker sends its share in order until it hears of the end.
        sent = [ns for ns in intended if ns in share]
        assert sent == share[: len(sent)] and sent
    assert set(intended) <= set(schedule)
    assert requests_served(host) - before == len(samples)
    assert [path.name] == [p.name for p in tmp_path.iterdir()]
    assert done.stderr.count("sends 64 requests") == 1


def test_processes_share_the_users(server, locust, tmp_path):
    """A closed loop of four users in two processes loses no sample."""
    path = tmp_path / "samples.csv.gz"
    host = server("triton_batched")
    before = requests_served(host)
    options = ("-t", "2s", "--samples", path, "--processes", 2)
    done = locust("triton_batched", f"http://{host}", *options)
    assert done.returncode == 0, done.stderr
    assert len(read_samples(path)) == requests_served(host) - before > 0


def test_wrong_arm_in_processes(server, locust):
    """What the workers find wrong is said once, by the master, and is its exit code."""
    host = server("triton_unbatched")
    before = requests_served(host)
    done = locust("triton_batched", f"http://{host}", "-t", "9s", "--processes", 2)
    assert done.returncode == 1
    (line,) = complaints(done)
    assert "runs double with dynamic batching off" in line
    assert requests_served(host) == before


def test_more_workers_than_users(server, locust):
    """A worker without users would leave its share unsent: that is refused."""
    host = server("triton_batched")
    done = locust("triton_batched", f"http://{host}", "-u", 1, "-t", "9s", "--processes", 2)
    assert done.returncode == 2
    (line,) = complaints(done)
    assert "1 users for 2 workers" in line


def test_interrupted_processes_lose_nothing(server, tmp_path, wait_for):
    """Ctrl-C reaches all processes at once, and the master still gets and writes every sample."""
    path, errors = tmp_path / "samples.csv.gz", tmp_path / "errors"
    host = server("triton_batched")
    before = requests_served(host)
    options = ("--headless", "-u", 4, "--samples", path, "--processes", 2)
    with errors.open("w") as sink:
        process = subprocess.Popen(
            command("triton_batched", f"http://{host}", *options),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=sink,
            start_new_session=True,
        )
    try:
        wait_for(lambda: requests_served(host) > before + 100)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 0, errors.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert "Traceback" not in errors.read_text()
    assert len(read_samples(path)) == requests_served(host) - before


CTRL_C = """
import itertools, signal
from tritonkit.load.distributed import Parts
from tritonkit.load.locustfile import ArmUser

class Interrupted(ArmUser):
    dynamic_batching = True

turns = itertools.count()
def press(of, name):
    act = getattr(of, name)
    def then_act(*arguments, **named):
        if next(turns) == {after}:
            signal.raise_signal(signal.SIGINT)
        return act(*arguments, **named)
    setattr(of, name, then_act)

if {processes}:
    press(Parts, "_on_samples")
else:
    from tritonkit.client.transports.http import HttpTransport
    press(HttpTransport, "send")
"""


@pytest.mark.parametrize(("processes", "after"), [(0, 50), (2, 1)])
def test_interrupted_at_work(server, tmp_path, processes, after):
    """Ctrl-C while a request is being sent, or samples are being taken in, cuts neither off."""
    path, file = tmp_path / "samples.csv.gz", tmp_path / "interrupted.py"
    file.write_text(CTRL_C.format(processes=processes, after=after))
    host = server("triton_batched")
    before = requests_served(host)
    options = ["--headless", "-u", "4", "--samples", str(path)]
    if processes:
        options += ["--processes", str(processes)]
    arguments = command("triton_batched", f"http://{host}", *options)
    arguments[arguments.index("-f") + 1] = str(file)
    done = subprocess.run(
        arguments, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(read_samples(path)) == requests_served(host) - before > 0


def test_worker_that_is_killed(server, tmp_path, wait_for, free_port):
    """A worker that dies is named, with what had come from it; the rest is written."""
    path, errors = tmp_path / "samples.csv.gz", tmp_path / "errors"
    host = server("triton_batched")
    before = requests_served(host)
    port = ("--master-bind-port", free_port, "--master-bind-host", "127.0.0.1")
    options = ("--headless", "-u", 4, "-t", "5s", "--samples", path, "--rate-rps", 50)
    with errors.open("w") as sink:

        def start(*more):
            arguments = command("triton_batched", f"http://{host}", *more)
            return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=sink)

        master = start(*options, "--master", "--expect-workers", 2, *port)
        workers = [start("--worker", "--master-port", free_port) for _ in range(2)]
        try:
            wait_for(lambda: requests_served(host) > before + 100)
            workers[0].kill()
            assert master.wait(60) == 1
        finally:
            for process in (master, *workers):
                process.kill()
                process.wait()
    said = errors.read_text()
    assert "Traceback" not in said
    assert re.search(
        r"load worker [01] .* ended before its time; \d+ of its samples had come", said
    )
    intended = [s.intended_ns for s in read_samples(path)]
    assert len(set(intended)) == len(intended) and set(intended) <= set(expected(50, 500))


def test_overload_is_not_silent(locust, tmp_path, start_slow):
    """What a server that hangs was owed when the time was up is in the samples, as errors."""
    path = tmp_path / "samples.csv.gz"
    options = ("-t", "2s", "--rate-rps", 50, "--samples", path)
    done = locust("ort_baseline", start_slow, *options)
    samples = read_samples(path)
    intended = sorted(s.intended_ns for s in samples)
    assert intended == expected(50, len(intended)) and intended[-1] > 0.3e9
    assert {s.error for s in samples} == {"timeout", "not_sent"}
    assert f"{len(samples)} requests, {len(samples)} errors (" in done.stderr
    assert done.returncode == 1


@pytest.fixture
def start_slow():
    """The address of a server that is what it should be, and never answers an inference."""
    import json
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    over = threading.Event()
    tensor = {"datatype": "FP32", "shape": [-1, 4]}
    pages = {
        "/v2/models/double": {
            "name": "double",
            "inputs": [{"name": "x", **tensor}],
            "outputs": [{"name": "y", **tensor}],
        },
        "/v2/models/double/config": {},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(pages[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            over.wait(30)

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
    thread.start()
    yield "127.0.0.1:{}".format(*httpd.server_address[1:])
    over.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def complaints(done):
    """The lines of its log that are errors."""
    return [line for line in done.stderr.splitlines() if "/ERROR/" in line]


@pytest.mark.parametrize(
    ("arm", "other"),
    [("triton_unbatched", "triton_batched"), ("triton_batched", "ort_baseline")],
)
def test_wrong_arm(server, locust, arm, other):
    """Against another arm's server it says so in one line, ends with 1, and sends nothing."""
    host = server(other)
    before = requests_served(host)
    done = locust(arm, f"http://{host}", "-t", "9s")
    assert done.returncode == 1
    (line,) = complaints(done)
    state = "on" if other == "triton_batched" else "off"
    assert f"the server at http://{host} runs double with dynamic batching {state}" in line
    assert "from raw samples" not in done.stderr
    assert requests_served(host) == before


def test_nobody_there(locust, free_port):
    """Where nothing listens it says so in one line and ends, with no traceback."""
    start = time.monotonic()
    done = locust("triton_batched", f"http://127.0.0.1:{free_port}", "-t", "20s")
    assert time.monotonic() - start < 15
    assert done.returncode == 1
    (line,) = complaints(done)
    assert f"127.0.0.1:{free_port}: nothing listens there" in line


def test_unknown_model(server, locust):
    """A model that the server does not have is named in one line."""
    host = server("triton_batched")
    done = locust("triton_batched", f"http://{host}", "-t", "9s", "--model", "other")
    assert done.returncode == 1
    (line,) = complaints(done)
    assert "other" in line


def test_no_payloads_file(server, locust, tmp_path):
    """A payloads file that is not there is named in one line, and is the user's mistake."""
    host = server("triton_batched")
    path = tmp_path / "none.npz"
    done = locust("triton_batched", f"http://{host}", "-t", "9s", "--payloads", path)
    assert done.returncode == 2
    (line,) = complaints(done)
    assert str(path) in line


@dataclass(frozen=True)
class Web:
    """A Locust file at work with its web page."""

    process: subprocess.Popen
    errors: Path

    def said(self):
        return self.errors.read_text()

    def end(self):
        """SIGTERM; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)


@pytest.fixture
def web(tmp_path, free_port, wait_for):
    """Start the file of an arm with its web page; returns once the page is there."""
    started = []

    def start(arm, host):
        errors = tmp_path / "errors"
        options = ("--web-host", "127.0.0.1", "--web-port", free_port)
        with errors.open("w") as sink:
            process = subprocess.Popen(
                command(arm, host, *options), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=sink
            )
        started.append(process)
        wait_for(lambda: process.poll() is not None or page(free_port) == 200)
        return Web(process, errors)

    yield start
    for process in started:
        process.kill()
        process.wait()


def page(port, path="/", data=None):
    """The status of a page of Locust's; None if nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=5) as answer:
            return answer.status
    except urllib.error.URLError:
        return None


def form(host):
    return f"user_count=4&spawn_rate=4&host=http://{host}".encode()


def test_web_page(server, web, free_port, wait_for):
    """Its web page answers, a test started there runs and stops, and SIGTERM ends it all."""
    host = server("triton_batched")
    before = requests_served(host)
    locust = web("triton_batched", f"http://{host}")
    assert page(free_port) == 200
    assert page(free_port, "/swarm", form(host)) == 200
    wait_for(lambda: requests_served(host) > before + 20)
    assert page(free_port, "/stop", b"") == 200
    assert "from raw samples" in locust.said()
    assert locust.end() == 0
    assert "Traceback" not in locust.said()


def test_web_page_after_a_wrong_host(server, web, free_port, wait_for):
    """A test that is refused sends nothing, and the page goes on to the next, which counts."""
    host, other = server("triton_batched"), server("triton_unbatched")
    before, before_other = requests_served(host), requests_served(other)
    locust = web("triton_batched", f"http://{other}")
    assert page(free_port, "/swarm", form(other)) == 200
    wait_for(lambda: "with dynamic batching off" in locust.said())
    assert page(free_port, "/stop", b"") == 200
    assert page(free_port, "/swarm", form(host)) == 200
    wait_for(lambda: requests_served(host) > before + 20)
    assert locust.end() == 0
    assert "Traceback" not in locust.said()
    assert requests_served(other) == before_other
