"""`tritonkit doctor`: what it reads, prints and refuses, without a server."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tritonkit import Client
from tritonkit.cli import cli
from tritonkit.cli.address import address_of
from tritonkit.cli.doctor import watch
from tritonkit.client.fake import FakeModel, FakeTransport
from tritonkit.client.operations import Operation
from tritonkit.errors import (
    InputError,
    NotFoundError,
    RequestError,
    TritonkitError,
    request_error,
)
from tritonkit.stats.traffic import Look

HEAVY = {"numpy", "grpc", "tritonclient", "urllib3", "rich", "tritonkit.client", "tritonkit.stats"}
ROW = np.ones((1, 2), np.float32)


def model() -> FakeModel:
    return FakeModel(["x:FP32[-1,2]"], ["y:FP32[-1,2]"], 4, lambda x: {"y": x + x})


@pytest.fixture
def fake(monkeypatch) -> FakeTransport:
    """A server behind whatever URL is given, with a model that batches and one that does not."""
    transport = FakeTransport({"double": model(), "unbatched": model()})
    with Client(transport=transport) as client:
        client.load("double", config={"dynamic_batching": {}})
    monkeypatch.setattr("tritonkit.client.client.blocking_transport", lambda *_: transport)
    return transport


@pytest.fixture
def meanwhile(fake, monkeypatch) -> Callable[[Callable[[Client], object]], None]:
    """`meanwhile(lambda client: …)`: what happens while the doctor watches."""
    module = importlib.import_module("tritonkit.cli.doctor")  # its package has the command instead

    def plan(act: Callable[[Client], object]) -> None:
        def acting(_: float) -> Iterator[None]:
            with Client(transport=fake) as client:
                act(client)
            yield

        monkeypatch.setattr(module, "_pauses", acting)

    return plan


def send(model: str, *sizes: int) -> Callable[[Client], object]:
    """Requests of so many rows, one after the other."""
    return lambda client: [client.infer(model, np.ones((n, 2), np.float32)) for n in sizes]


@pytest.fixture
def doctor(fake) -> Callable[..., Result]:
    """Run `tritonkit doctor localhost ARGUMENTS` in this process, for a moment."""

    def run(*arguments: object) -> Result:
        words = ["doctor", "localhost", *map(str, arguments), "--watch-s", "0.01"]
        return CliRunner().invoke(cli, words, standalone_mode=False)

    return run


# What is printed


def test_printed(doctor, meanwhile):
    """The verdict comes first, then why and what to do, then the numbers, aligned."""
    meanwhile(send("unbatched", *[1] * 40))
    done = doctor("unbatched")
    assert done.exception is None
    lines = done.stdout.splitlines()
    assert lines[0] == "unbatched: batching cannot happen: the config has no dynamic_batching"
    assert lines[1] == (
        "  why            each request is a run of its own: 40 runs for 40 requests"
    )
    assert lines[2].startswith("                 → add `dynamic_batching { }`")
    labels = [line[2:17].strip() for line in lines[1:] if line[2] != " "]
    assert labels == [
        *("why", "watched", "rate", "in flight", "each takes", "runs"),
        *("rows of a run", "runs", "ms a row", "config"),
    ]
    assert all(line[:2] == "  " and line[16] == " " for line in lines[1:])
    assert lines[-1] == (
        "  config         max_batch_size 4, no dynamic batching, 1 instance, response cache off"
    )


def test_sizes(doctor, meanwhile):
    """The sizes of runs are a small table, in powers of two."""
    meanwhile(send("double", 1, 1, 2, 3, 4, 4))
    table = [line[17:].split() for line in doctor("double").stdout.splitlines()[-5:-2]]
    assert table[:2] == [["1", "2", "3–4"], ["2", "1", "3"]]
    assert len(table[2]) == 3


def test_no_traffic(doctor):
    """Without traffic there are no rates to print."""
    done = doctor("double")
    lines = done.stdout.splitlines()
    assert lines[0] == "double: no traffic"
    assert [line[2:17].strip() for line in lines[1:]] == ["why", "", "watched", "config"]


def test_json(doctor, meanwhile):
    """--json prints one object with the same."""
    meanwhile(send("unbatched", *[1] * 40))
    said = json.loads(doctor("unbatched", "--json").stdout)
    assert (said["model"], said["version"], said["cause"]) == ("unbatched", "1", "no_scheduler")
    assert (said["numbers"]["requests"], said["numbers"]["batches"]) == (40, {"1": 40})
    assert said["config"]["scheduler"] == "none"
    assert {"headline", "why", "remedy", "notes"} < said.keys()


def test_ensemble(doctor, fake):
    """An ensemble is not watched: its steps are named."""
    with Client(transport=fake) as client:
        steps = {"step": [{"model_name": "first"}, {"model_name": "second"}]}
        client.load("double", config={"ensemble_scheduling": steps})
    lines = doctor("double").stdout.splitlines()
    assert lines[0] == "double: an ensemble runs nothing itself"
    assert "first, second" in lines[1]
    assert [line[2:17].strip() for line in lines[1:]] == ["why", ""]
    assert all(operation is not Operation.STATISTICS for operation, _ in fake.calls)


def test_restarted(doctor, fake, meanwhile):
    """A model that is loaded anew while watched is said to be, without numbers."""
    with Client(transport=fake) as client:
        client.infer("double", ROW)
    meanwhile(lambda client: client.load("double", config={"dynamic_batching": {}}))
    lines = doctor("double").stdout.splitlines()
    assert lines[0] == "double: the counters began anew while they were watched"
    assert [line[2:17].strip() for line in lines[1:]] == ["why", "", "config"]


# Watching


class Counting:
    """Looks at a server that answers one more request between any two of them."""

    def __init__(self, *, idle: bool = False, away_after: int = 99):
        self.looks, self._idle, self._away_after = 0, idle, away_after

    def __call__(self) -> Look:
        if self.looks == self._away_after:
            raise request_error("refused", "it is away")
        self.looks += 1
        ended = 0 if self._idle else self.looks
        stats = {"success": {"count": ended, "ns": 0}}
        return Look(self.looks, [{"version": "1", "inference_stats": stats}])


def interrupted(after: int) -> Iterator[None]:
    for _ in range(after):
        yield
    raise KeyboardInterrupt


def test_watch():
    """There is a look before the first pause and after each."""
    assert [look.at_ns for look in watch(Counting(), iter([None, None]))] == [1, 2, 3]


@pytest.mark.parametrize("after", [0, 2])
def test_interrupted(after):
    """Ctrl-C ends it with a last look, if that shows anything."""
    assert len(watch(Counting(), interrupted(after))) == after + 2


@pytest.mark.parametrize("look", [Counting(idle=True), Counting(away_after=1)])
def test_interrupted_in_vain(look):
    """Ctrl-C before anything was seen ends the command."""
    with pytest.raises(KeyboardInterrupt):
        watch(look, interrupted(0))


def test_interrupted_when_the_server_is_away():
    """What was seen before Ctrl-C is used also if there is no last look."""
    assert len(watch(Counting(away_after=3), interrupted(2))) == 3


def test_server_goes_away():
    """A server that goes away while watched is an error."""
    with pytest.raises(RequestError, match="it is away"):
        watch(Counting(away_after=2), iter([None, None]))


# What is refused


@pytest.mark.parametrize(
    ("url", "protocol", "address"),
    [
        ("host:8001", None, "host:8001"),
        ("host:8001", "grpc", "grpc://host:8001"),
        (" host:8000 ", "http", "http://host:8000"),
        ("HTTPS://host", "http", "HTTPS://host"),
        ("grpc://host", "grpc", "grpc://host"),
    ],
)
def test_address(url, protocol, address):
    """--protocol completes an address that names none, and agrees with one that does."""
    assert address_of(url, protocol) == address


@pytest.mark.parametrize(("url", "protocol"), [("grpc://h", "http"), ("https://h", "grpc")])
def test_two_protocols(url, protocol):
    """A URL of another protocol than --protocol is refused."""
    with pytest.raises(InputError, match=f"'{url}' is not of the protocol {protocol}"):
        address_of(url, protocol)


@pytest.mark.parametrize("name", ["nope", "", "../double", "\x1b[31m"])
def test_unknown_model(doctor, name):
    """An unknown model is a failed request that names it, in one line."""
    error = doctor(name).exception
    assert isinstance(error, TritonkitError)
    assert repr(name)[1:-1] in f"{error}" or name in f"{error}"


def test_unknown_model_among_others(doctor):
    """The error of an unknown model says which models the server has."""
    error = doctor("nope").exception
    assert isinstance(error, NotFoundError)
    assert f"{error}".endswith("; the server has double, unbatched")


@pytest.mark.parametrize(
    "config",
    [{"max_batch_size": "many"}, {"input": 3}, {"dynamic_batching": [1]}, {"instance_group": [1]}],
)
def test_no_triton(doctor, fake, config):
    """A config that no Triton answers is a failed request, in one line."""
    with Client(transport=fake) as client:
        client.load("double", config=config)
    error = doctor("double").exception
    assert isinstance(error, RequestError) and error.kind == "protocol"
    assert "is this a Triton?" in f"{error}" and "\n" not in f"{error}"


@pytest.mark.parametrize("value", ["0", "nan", "inf", "-1", "soon"])
def test_bad_watch(tritonkit, value):
    """A time that is no finite positive number is a wrong use."""
    done = tritonkit("doctor", "localhost", "m", "--watch-s", value)
    assert done.returncode == 2
    assert "Invalid value for '--watch-s'" in done.stderr


def test_bad_address(tritonkit):
    """An address of no known protocol is refused."""
    done = tritonkit("doctor", "ftp://localhost", "m")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: 'ftp://localhost' is not a server's address")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_no_server(tritonkit, protocol):
    """Where nothing listens it fails in one line that names the address."""
    done = tritonkit("doctor", "127.0.0.1:1", "m", "--protocol", protocol)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {protocol}://127.0.0.1:1: ")


def test_help_is_light():
    """Help is answered without importing numpy, gRPC, rich or the client."""
    code = (
        "import sys; from tritonkit.cli import cli\n"
        "try: cli.main(['doctor', '--help'])\n"
        f"finally: print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stderr == "[]\n"
