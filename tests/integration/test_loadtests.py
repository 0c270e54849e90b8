"""The three Locust files, run as a user runs them, against live servers."""

from __future__ import annotations

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
from tritonkit.load.arrivals import poisson
from tritonkit.repository.layout import read_config, write_variant
from tritonkit.samples import read_samples
from tritonkit.server.baseline import OrtBaseline
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.stats.scrape import read_counters

ROOT = Path(__file__).parents[2]
ARMS = ("triton_batched", "triton_unbatched", "ort_baseline")


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
            if arm == "ort_baseline":
                made = OrtBaseline(repository, "double", log=log)
            else:
                folder = repository if arm == "triton_batched" else work / "unbatched"
                made = EmbeddedTriton(folder, log=log, drain=False)
            running[arm] = made.__enter__()
        return running[arm].endpoints.http

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
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def requests_served(address):
    with Client(f"http://{address}") as client:
        return read_counters(client.statistics("double")[-1]).requests


def from_raw_samples(done):
    """Requests, errors and rate in the line that the raw samples are summed up in."""
    found = re.findall(
        r"from raw samples: (\d+) requests, (\d+) errors .*?, (\d+) req/s, "
        r"p50 [\d.]+ p90 [\d.]+ p99 [\d.]+ ms",
        done.stderr,
    )
    assert len(found) == 1, done.stderr
    return tuple(map(int, found[0]))


@pytest.mark.parametrize("arm", ARMS)
def test_closed_loop(server, locust, tmp_path, arm):
    """Each file loads its own arm: every request is a raw sample, and the numbers are theirs."""
    host = server(arm)
    before = requests_served(host)
    path = tmp_path / "deep" / "samples.csv.gz"
    done = locust(arm, f"http://{host}", "-t", "1s", "--samples", path)
    assert done.returncode == 0, done.stderr
    samples = read_samples(path)
    requests, errors, rate = from_raw_samples(done)
    assert errors == 0 and rate > 50
    assert len(samples) == requests_served(host) - before
    assert len(samples) - 4 <= requests <= len(samples)
    assert {s.error for s in samples} == {""}
    assert f"raw samples are in {path}" in done.stderr


def test_open_loop(server, locust, tmp_path):
    """With a rate the arrivals are those of the seeded Poisson process, none left out."""
    path = tmp_path / "samples.csv.gz"
    host = server("triton_batched")
    options = ("-t", "1s", "--rate-rps", 80, "--seed", 3, "--samples", path)
    done = locust("triton_batched", f"http://{host}", *options)
    assert done.returncode == 0, done.stderr
    samples = read_samples(path)
    requests, errors, rate = from_raw_samples(done)
    intended = sorted(s.intended_ns for s in samples)
    assert intended == [int(s * 1e9) for s in poisson(80, 9, 3)][: len(intended)]
    assert requests == len(samples) and errors == 0
    assert 40 < rate < 120


def test_overload_is_not_silent(locust, tmp_path, start_slow):
    """What a server that hangs was owed when the time was up is in the samples, as errors."""
    path = tmp_path / "samples.csv.gz"
    options = ("-t", "1s", "--rate-rps", 50, "--samples", path)
    done = locust("ort_baseline", start_slow, *options)
    samples = read_samples(path)
    expected = [int(s * 1e9) for s in poisson(50, 9, 0)]
    intended = sorted(s.intended_ns for s in samples)
    assert intended == expected[: len(intended)] and intended[-1] > 0.3e9
    assert {s.error for s in samples} == {"timeout", "not_sent"}
    assert f"{len(samples)} requests, {len(samples)} errors" in done.stderr
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
    done = locust(arm, f"http://{host}", "-t", "2s")
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
    done = locust("triton_batched", f"http://{host}", "-t", "2s", "--model", "other")
    assert done.returncode == 1
    (line,) = complaints(done)
    assert "other" in line


def test_no_payloads_file(server, locust, tmp_path):
    """A payloads file that is not there is named in one line, and is the user's mistake."""
    host = server("triton_batched")
    path = tmp_path / "none.npz"
    done = locust("triton_batched", f"http://{host}", "-t", "2s", "--payloads", path)
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
