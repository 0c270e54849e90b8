"""`tritonkit load` as a user has it: on a real Triton, on servers that fail, and misused."""

from __future__ import annotations

import dataclasses
import fcntl
import itertools
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from contextlib import ExitStack

import numpy as np
import psutil
import pytest
from tests.integration.conftest import KIT
from tests.integration.known_server import DrawnServer

from tritonkit import Client
from tritonkit.load.arrivals import POISSON
from tritonkit.load.level import LevelRecord
from tritonkit.samples import read_samples
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.stats.latency import LevelStats, summarise
from tritonkit.stats.scrape import read_counters

OPEN = ("--rate-rps", 80, "--duration-s", 1, "--seed", 3)
SENT = len(list(POISSON.starts(80, 1.0, 3)))
CLOSED = ("--users", 4, "--duration-s", 1)
FOREVER = [(0.02, "")] * 100_000
"""What DrawnServer does to each request: an answer after 20 ms."""


@pytest.fixture(scope="module")
def triton(installed, package, tmp_path_factory):
    """A Triton with a model that doubles and one that fails for an index above 2."""
    folder = tmp_path_factory.mktemp("load-verb")
    repository = folder / "repository"
    for model in ("double", "lookup"):
        package(repository, model)
    with EmbeddedTriton(repository, log=folder / "log", drain=False) as server:
        yield {"http": f"http://{server.endpoints.http}", "grpc": f"grpc://{server.endpoints.grpc}"}


def load(*arguments, exit_code=0, **how):
    """(standard output, standard error) of `tritonkit load`; it never has a traceback."""
    done = subprocess.run(
        [*KIT, "load", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **how,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == exit_code, done.stderr
    return done.stdout, done.stderr


def record(*arguments, **how):
    """What `tritonkit load --json` prints."""
    return json.loads(load(*arguments, "--json", **how)[0])


def counted(triton, model="double"):
    with Client(triton["http"]) as client:
        return read_counters(client.statistics(model)[-1])


@pytest.fixture(scope="module", params=["http open", "http closed", "grpc open", "grpc closed"])
def level(request, triton):
    """The record of a level, and what Triton counted meanwhile.

    The address has no scheme in the closed ones: that is gRPC, if --protocol says nothing else.
    """
    protocol, mode = request.param.split()
    where, how = triton[protocol], OPEN
    if mode == "closed":
        where = where.partition("://")[2]
        how = (*CLOSED, "--protocol", "http") if protocol == "http" else CLOSED
    before = counted(triton)
    found = record(where, "double", *how)
    return mode, found, counted(triton).since(before)


def test_keys(level):
    """The record has the keys of a level of result.json, the model and what was sent."""
    fields = {field.name for field in dataclasses.fields(LevelRecord)}
    assert level[1].keys() == fields | {"model", "payloads"}


def test_what_was_asked_for(level):
    """It says which load it was."""
    mode, found, _ = level
    offered = (80.0, "poisson", 3) if mode == "open" else (4, "", 0)
    assert (found["mode"], found["offered"], found["arrivals"], found["seed"]) == (mode, *offered)
    assert found["model"] == "double" and found["holds_slo"] is None


def test_every_request_is_counted(level):
    """Its requests are those that Triton served; in an open loop those of the schedule."""
    mode, found, served = level
    assert found["errors"] == 0 and found["error_kinds"] == {}
    if mode == "open":
        assert served.requests == SENT
        assert found["warmup_s"] > 0 or found["requests"] == SENT
    else:  # those that were answered in time, and after the warm-up
        assert 0 < found["requests"] <= served.requests


def test_numbers_agree(level):
    """Percentiles are in order, and the parts of the time make up about the mean."""
    _, found, served = level
    assert 0 < found["p50_ms"] <= found["p90_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert found["mean_batch"] == served.mean_batch
    assert found["time_split"]["total_ms"] > found["time_split"]["compute_ms"] > 0


@pytest.mark.alone  # a warm-up, by latencies
@pytest.mark.parametrize(
    "how, cut",
    [(("--rate-rps", 200), True), (("--arrivals", "steps:200x2"), False)],
    ids=["poisson", "steps"],
)
def test_warm_up_is_of_a_load_that_stays_the_same(how, cut):
    """A slow start is left out where all load is alike, and counts where the load has steps."""
    with DrawnServer([(0.1, "")] * 40 + [(0.01, "")] * 10_000) as server:
        found = record(f"http://{server.address}", "m", *how, "--duration-s", 2)
    assert (found["warmup_s"] > 0) is cut
    assert (found["p99_ms"] < 100) is cut


def test_samples(triton, tmp_path):
    """--samples keeps every request, and the record is what they say."""
    path = tmp_path / "samples.csv.gz"
    found = record(triton["http"], "double", *OPEN, "--samples", path)
    samples = read_samples(path)
    assert len(samples) == SENT and found["samples"] == str(path)
    stats = json.loads(
        json.dumps(dataclasses.asdict(summarise(samples, duration_s=1.0, open_loop=True)))
    )
    assert stats == {key: found[key] for key in (f.name for f in dataclasses.fields(LevelStats))}


def test_payloads_of_a_folder(triton, tmp_path):
    """With --payloads the files of a folder are sent, and the model that refuses others answers."""
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.array([i]))
    found = record(triton["http"], "lookup", *OPEN, "--payloads", tmp_path)
    assert found["errors"] == 0
    payloads = found["payloads"]
    assert (payloads["source"], payloads["count"], payloads["distinct"]) == (str(tmp_path), 3, 3)


def test_model_that_fails(triton, tmp_path):
    """A model that answers errors makes a record of them, which holds no budget."""
    np.save(tmp_path / "x.npy", np.array([99]))
    found = record(
        *(triton["http"], "lookup", *OPEN, "--payloads", tmp_path, "--slo-p99-ms", 1000),
        exit_code=1,
    )
    assert found["error_kinds"] == {"failed": SENT} and found["requests"] == found["errors"] == SENT
    assert found["p99_ms"] is None and found["holds_slo"] is False


def test_rows(triton):
    """With --rows requests have so many rows, each number in its share."""
    before = counted(triton)
    found = record(triton["grpc"], "double", *OPEN, "--rows", "1:0.5,4:0.5")
    assert found["payloads"]["rows"] == {"1": 32, "4": 32}
    served = counted(triton).since(before)
    assert served.requests == SENT and served.inferences == pytest.approx(2.5 * SENT, rel=0.1)


def test_one_request_again_and_again(triton):
    """With --distinct 1 it warns, on standard error, and the record says it."""
    output, errors = load(triton["http"], "double", *OPEN, "--distinct", 1, "--json")
    assert errors.startswith("warning: every request is the same: ") and errors.count("\n") == 1
    assert json.loads(output)["payloads"]["warnings"] == [errors.removeprefix("warning: ").strip()]


@pytest.mark.parametrize(
    ("protocol", "how"), [("grpc", ("--processes", 2)), ("http", ("--shared-memory",))]
)
def test_processes_and_shared_memory(triton, protocol, how):
    """From two processes, and with tensors in shared memory, each arrival is served once."""
    before = counted(triton)
    found = record(triton[protocol], "double", *OPEN, *how)
    assert counted(triton).since(before).requests == SENT
    assert found["errors"] == 0


@pytest.mark.alone  # a budget is undecided where the generator is late
@pytest.mark.parametrize(
    ("slo_p99_ms", "said", "exit_code"), [(20_000, "held", 0), (19, "not held", 1)]
)
def test_budget(slo_p99_ms, said, exit_code):
    """With --slo-p99-ms the exit code says whether p99 is within it, and so does the output."""
    with DrawnServer(FOREVER) as server:
        arguments = (f"http://{server.address}", "m", *CLOSED, "--slo-p99-ms", slo_p99_ms)
        output, _ = load(*arguments, exit_code=exit_code)
    assert f"budget         p99 of {slo_p99_ms:,} ms {said}\n" in output


def test_output_fits_a_terminal(triton):
    """In a terminal of 80 columns no line is longer, and what matters is said."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with os.fdopen(ours, "rb") as terminal:
        command = [*KIT, "load", triton["grpc"], "double", *map(str, OPEN)]
        process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs)
        os.close(theirs)
        said = b"".join(iter(lambda: _read(terminal), b"")).decode()
        assert process.wait(30) == 0
    lines = said.splitlines()
    assert lines[0].startswith("double at grpc://127.0.0.1:")
    assert lines[0].endswith(": 80 requests/s, poisson")
    assert all(len(line) <= 80 for line in lines)
    labels = ("payloads", "requests", "rate", "latency", "from sending", "mean time", "generator")
    assert all(any(line.startswith(f"  {label:15}") for line in lines) for label in labels)


def _read(terminal):
    try:
        return terminal.read1()
    except OSError:  # how Linux says that nobody writes to it any more
        return b""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "how much load? give --rate-rps R (open loop) or --users N (closed loop)"),
        (("--rate-rps", 5, "--users", 2), "--users is a closed loop, --rate-rps and --arrivals"),
        (("--users", 2, "--arrivals", "poisson"), "--users is a closed loop"),
        (("--rate-rps", 5, "--arrivals", "ramp:1-5"), "ramp:1-5 brings its own rates"),
        (("--rate-rps", 5, "--arrivals", "zigzag"), "'zigzag' is no pattern of arrivals"),
        (("--rate-rps", 5, "--arrivals", "nix.jsonl"), "no trace file nix.jsonl"),
        (("--rate-rps", 1e9), "the rate must be above 0, and at most"),
        (("--users", 1, "--payloads", "/nix"), "no such file or folder of inputs: /nix"),
        (("--users", 1, "--samples", "/nix/s.gz"), "there is no folder /nix; make it first"),
        (("--users", 1, "--samples", "/proc/s.gz"), "/proc/s.gz: nothing can be written in /proc"),
        (("--users", 1, "--samples", "/dev/null"), "it is a device or a pipe; give a file"),
        (("--users", 1, "--rows", 99), "99 rows: double takes at most 8 in one request"),
        (("--users", 1, "--rows", "many"), "--rows: 'many' is no distribution of sizes"),
        (("--users", 1, "--streaming"), "Triton streams over gRPC only"),
        (("--users", 1, "--protocol", "grpc"), "is not of the protocol grpc"),
    ],
)
def test_misuse(triton, arguments, says):
    """What makes no sense is refused in one line, with exit code 2, before anything is sent."""
    before = counted(triton)
    output, errors = load(triton["http"], "double", *arguments, exit_code=2)
    (line,) = errors.splitlines()
    assert line.startswith("error: ") and says in line and not output
    assert counted(triton) == before


def test_payload_beyond(triton, tmp_path):
    """A trace with a payload that there is not is refused before anything is sent."""
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"t_s": 0.1, "payload": 2}\n{"t_s": 0.2, "payload": 64}\n')
    before = counted(triton)
    output, errors = load(triton["http"], "double", "--arrivals", trace, exit_code=2)
    (line,) = errors.splitlines()
    assert "the arrival at 0.2 s has payload 64, and the 64 requests are" in line and not output
    assert counted(triton) == before


@pytest.mark.parametrize("asked", [(), ("--duration-s", 3)])
def test_shorter_than_asked(triton, asked):
    """Steps that end before --duration-s end the level, which is said."""
    how = ("--arrivals", "steps:50x0.4,100x0.2", *asked, "--json")
    output, errors = load(triton["http"], "double", *how)
    assert json.loads(output)["duration_s"] == pytest.approx(0.6, abs=0.2)
    warning = "warning: steps:50x0.4,100x0.2 lasts 0.60 s; nothing is sent after that\n"
    assert errors == (warning if asked else "")


@pytest.mark.parametrize("option", ["--rate-rps", "--duration-s", "--timeout-s", "--slo-p99-ms"])
@pytest.mark.parametrize("number", ["nan", "inf", "-1", "0", "ten"])
def test_numbers_that_are_none(option, number):
    """A number that is none, or is not above 0, is refused for what it is."""
    from click.testing import CliRunner

    from tritonkit.cli.load import load as command

    done = CliRunner().invoke(command, ["localhost:1", "m", "--users", "1", option, number])
    assert done.exit_code == 2
    assert f"Invalid value for '{option}': " in done.output


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_server_that_is_away(protocol, free_port):
    """Where nothing listens that is said at once, in one line."""
    address = f"{protocol}://127.0.0.1:{free_port}"
    output, errors = load(address, "double", *CLOSED, exit_code=1)
    assert errors.startswith(f"error: {address}: ") and errors.count("\n") == 1 and not output


def test_unknown_model(triton):
    """So is a model that the server does not have, and which it has."""
    output, errors = load(triton["http"], "nix", *CLOSED, exit_code=1)
    assert "unknown model: 'nix'" in errors and errors.count("\n") == 1 and not output
    assert errors.endswith("; the server has double, lookup\n")


def test_failures_are_counted():
    """Of a server that fails now and then the record has every failure, by its kind."""
    fates = itertools.cycle([(0.02, "failed"), *[(0.02, "")] * 3, (0.02, "unavailable")])
    with DrawnServer(fates) as server:
        found = record(f"http://{server.address}", "m", *OPEN)
    fifth = SENT / 5
    assert found["error_kinds"] == {"failed": -(-SENT // 5), "unavailable": int(fifth)}


@pytest.mark.parametrize("load_of", [OPEN, CLOSED], ids=["open", "closed"])
def test_server_that_dies(load_of):
    """A server that dies in the middle leaves a record of what was before, and of the errors."""
    with DrawnServer(FOREVER, dies_at=0.4) as server:
        found = record(f"http://{server.address}", "m", *load_of)
        answered = server.answers
    assert set(found["error_kinds"]) <= {"closed", "refused"} and "refused" in found["error_kinds"]
    assert 0 < found["requests"] - found["errors"] <= answered
    assert found["p50_ms"] >= 20
    assert found["mean_batch"] is None and found["time_split"] is None


@pytest.mark.parametrize("how", [OPEN[:2], CLOSED[:2]], ids=["open", "closed"])
def test_interrupted(how, start_kit, wait_for, tmp_path):
    """On Ctrl-C it prints the record of what was measured so far, and exits with 130."""
    samples = tmp_path / "samples.csv.gz"
    with DrawnServer(FOREVER) as server:
        arguments = (f"http://{server.address}", "m", *how, "--duration-s", 600, "--json")
        more = ("--samples", samples, "--slo-p99-ms", 1000)
        with start_kit("load", *arguments, *more) as running:
            wait_for(lambda: server.answers >= 60)
            assert running.end(signal.SIGINT) == 130
            found = json.loads(running.said())
            assert running.complained().strip() == "interrupted"
    assert found["requests"] - found["errors"] >= 50
    assert found["error_kinds"].keys() <= {"cancelled", "not_sent"}
    assert found["duration_s"] < 60  # of what was, not of what was to be
    assert found["holds_slo"] is None
    assert 50 <= len([s for s in read_samples(samples) if not s.error]) <= server.answers


HOG = """
import os
os.sched_setaffinity(0, {{{}}})
try:
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
except PermissionError:
    pass
while True:
    pass
"""


@pytest.mark.alone  # it keeps a CPU from all others
def test_starved_generator_decides_nothing(start_kit, wait_for):
    """A budget is neither held nor broken where the generator was the limit."""
    with DrawnServer([(0.005, "")] * 10_000) as server, ExitStack() as stack:
        load_of = ("--rate-rps", 300, "--duration-s", 3, "--slo-p99-ms", 5000)
        running = stack.enter_context(start_kit("load", f"http://{server.address}", "m", *load_of))
        wait_for(lambda: server.requests)
        cpu = min(os.sched_getaffinity(0))
        for thread in psutil.Process(running.process.pid).threads():
            os.sched_setaffinity(thread.id, {cpu})
        psutil.Process(running.process.pid).nice(19)
        for _ in range(3):
            hog = stack.enter_context(subprocess.Popen([sys.executable, "-c", HOG.format(cpu)]))
            stack.callback(hog.kill)
        assert running.process.wait(60) == 1
        said = " ".join(running.said().split())
    assert "IT WAS THE LIMIT" in said
    assert "undecided, as the generator was the limit" in said
