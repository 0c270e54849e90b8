"""`tritonkit rollout` on a real Triton that is under load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from tests.integration.traffic import calling

from tritonkit import Client
from tritonkit.client.retry import NO_RETRIES
from tritonkit.errors import AccessError, ServerFaultError, request_error
from tritonkit.repository.layout import read_config, versions
from tritonkit.repository.lint.repository import lint_repository
from tritonkit.rollout import Server, roll_out
from tritonkit.server.embedded import EmbeddedTriton

ROW = np.ones((1, 4), np.float32)
KEY = "admin=for-those-who-know"
RESTRICTED = (
    "--model-control-mode=explicit",
    "--load-model=*",
    f"--grpc-restricted-protocol=model-repository:{KEY}",
    f"--http-restricted-api=model-repository:{KEY}",
)


def times(factor: int, dtype: str = "float") -> str:
    return f"({dtype}[N,4] x) => ({dtype}[N,4] y) <{dtype} k = {{{factor}}}> {{ y = Mul(x, k) }}"


class Live:
    """A server, what it serves, and new versions of it."""

    def __init__(self, folder: Path, server: EmbeddedTriton, put: Callable[..., Path], run):
        self.folder = folder
        self.repository = folder / "live"
        self.server = server
        self._put = put
        self._run = run
        (folder / "key").write_text(f"{KEY}\n")

    @property
    def urls(self) -> list[str]:
        ends = self.server.endpoints
        return [f"grpc://{ends.grpc}", f"http://{ends.http}"]

    def new(self, graph: str, name: str = "m", **settings: object) -> Path:
        """A repository with a version that is not live."""
        folder = self.folder / f"new-{len(list(self.folder.iterdir()))}"
        return self._put(folder, graph, name=name, **settings)

    def rollout(self, *arguments: object, url: str = ""):
        key = ("--key-file", self.folder / "key")
        where = ("--repository", self.repository)
        return self._run("rollout", url or self.urls[0], "m", *where, *key, *arguments)

    def factor(self) -> float:
        """Of the version that answers."""
        with Client(self.urls[0]) as client:
            return float(client.infer("m", ROW)["y"][0, 0])

    def state(self) -> dict[str, bytes]:
        """All files of the model."""
        folder = self.repository / "m"
        return {
            str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
        }


@pytest.fixture
def live(installed, package, tritonkit, tmp_path) -> Iterator[Live]:
    """Version 1 multiplies by 1."""
    package(tmp_path / "live", times(1), name="m")
    log = tmp_path / "log"
    with EmbeddedTriton(tmp_path / "live", log=log, drain=False, options=RESTRICTED) as server:
        yield Live(tmp_path, server, package, tritonkit)


@pytest.fixture
def load(live) -> Iterator[None]:
    """Callers over both protocols, none of whose requests may fail, and which try but once."""
    with ExitStack() as stack:
        for url in live.urls:
            stack.enter_context(calling(url, "m", ROW, retries=NO_RETRIES))
        yield


@pytest.mark.usefixtures("load")
def test_out_and_back(live):
    """Not one request fails while a version comes, while the next does, and while it goes again."""
    found = [live.factor()]
    for factor in (2, 3):
        done = live.rollout("--from", live.new(times(factor)))
        assert (done.returncode, done.stderr) == (0, "")
        found.append(live.factor())
    done = live.rollout("--back")
    assert (done.returncode, done.stderr) == (0, "")
    assert "version 2 serves, 3 was taken back" in done.stdout
    found.append(live.factor())
    assert found == [1.0, 2.0, 3.0, 2.0]


def test_the_old_version_stays_loaded(live):
    """So that who names it gets it, and the way back is short."""
    assert live.rollout("--from", live.new(times(2))).returncode == 0
    with Client(live.urls[0]) as client:
        assert client.infer("m", ROW, version="1")["y"][0, 0] == 1.0


def test_settings_come_and_go_with_a_version(live):
    """Back is the config of before, and the files beside the versions."""
    before = live.state()
    assert live.rollout("--from", live.new(times(2), threads=2)).returncode == 0
    assert read_config(live.repository, "m").intra_op_threads == 2
    assert live.rollout("--back", url=live.urls[1]).returncode == 0
    after = {
        name: data for name, data in live.state().items() if "rollout/withdrawn-2/" not in name
    }
    assert after == before


def test_lint_has_nothing_against_it(live):
    """What a rollout keeps is not taken for a version."""
    before = lint_repository(live.repository, cpus=2, slo_p99_ms=None)
    assert live.rollout("--from", live.new(times(2))).returncode == 0
    assert live.rollout("--back").returncode == 0
    assert lint_repository(live.repository, cpus=2, slo_p99_ms=None) == before


def test_a_number_is_never_used_again(live):
    """A version after one that was taken back has another number."""
    assert live.rollout("--from", live.new(times(2))).returncode == 0
    assert live.rollout("--back").returncode == 0
    assert live.rollout("--from", live.new(times(3))).returncode == 0
    assert versions(live.repository, "m") == [1, 3]


def test_recorded_answers(live, tritonkit):
    """What the version has to answer may have been recorded elsewhere."""
    new, answers = live.new(times(2)), live.folder / "answers.npz"
    np.savez(answers, y=np.full((64, 4), 7, np.float32))
    before = live.state()
    done = live.rollout("--from", new, "--answers", answers)
    assert done.returncode == 1 and "'y' is not what was recorded" in done.stderr
    assert live.state() == before and live.factor() == 1.0


def test_a_version_that_does_not_load(live):
    """The old one serves on, and nothing is left of the new one."""
    new, before = live.new(times(2)), live.state()
    config = new / "m/config.pbtxt"
    config.write_text(config.read_text().replace("intra_op_thread_count", "no_such_parameter"))
    with (new / "m/config.pbtxt").open("a") as file:
        file.write('model_operations { op_library_filename: "no.so" }\n')
    done = live.rollout("--from", new)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert live.state() == before and live.factor() == 1.0
    assert not (live.repository / "m-next").exists()


class Refusing(Client):
    """Loads what is new on its own, and not what is to serve."""

    def load(self, model, **options):
        if model == "m":
            raise request_error("failed", "no memory left")
        super().load(model, **options)


@pytest.mark.usefixtures("load")
def test_a_switch_that_fails(live):
    """Servers that have switched already switch back."""
    new, before = live.new(times(2)), live.state()
    headers = {"triton-grpc-protocol-admin": "for-those-who-know"}
    url = live.urls[0]
    with Client(url, headers=headers) as good, Refusing(url, headers=headers) as bad:
        servers = [Server(url, good), Server("the other", bad)]
        told: list[str] = []
        with pytest.raises(ServerFaultError, match="no memory"):
            roll_out(servers, new, live.repository, "m", None, told.append)
        assert any("version 2 serves" in line for line in told)
    assert live.factor() == 1.0
    assert live.state() == before


@pytest.mark.parametrize(
    ("graph", "settings", "words"),
    [
        (times(2, "double"), {}, "'x' is"),
        (times(2).replace("y", "z"), {}, "not there"),
        (times(2), {"max_batch_size": 4}, "--max-batch-size 8"),
    ],
)
def test_a_version_that_callers_could_not_use(live, graph, settings, words):
    """Is refused before anything is touched."""
    before = live.state()
    done = live.rollout("--from", live.new(graph, **settings))
    assert done.returncode == 2 and words in done.stderr
    assert live.state() == before


def test_without_the_key(live, tritonkit):
    """The API is restricted, and what is missing is said."""
    new, where = live.new(times(2)), ("--repository", live.repository)
    for url in live.urls:
        done = tritonkit("rollout", url, "m", *where, "--from", new)
        assert done.returncode == 1 and "--key-file" in done.stderr
        with Client(url) as client, pytest.raises(AccessError):
            client.load("m")


def test_a_server_that_is_not_to_be_controlled(live, tritonkit, tmp_path):
    """What it has to be started with is said, and nothing is left."""
    before = live.state()
    with EmbeddedTriton(live.repository, log=tmp_path / "other", drain=False) as other:
        done = live.rollout("--from", live.new(times(2)), url=f"http://{other.endpoints.http}")
    assert done.returncode == 1 and "--model-control-mode=explicit" in done.stderr
    assert live.state() == before and not (live.repository / "m-next").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--back"], "no way back"),
        ([], "--from"),
        (["--back", "--from", "x"], "--from"),
        (["--from", "nix"], "no model repository"),
    ],
)
def test_what_cannot_be_asked(live, arguments, words):
    """In one line, with exit code 2."""
    done = live.rollout(*arguments)
    assert done.returncode == 2 and words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_another_rollout_under_way(live):
    """Two at once would be in each other's way."""
    (live.repository / "m-next").mkdir()
    done = live.rollout("--from", live.new(times(2)))
    assert done.returncode == 2 and "another rollout" in done.stderr


def test_replicas(live, package, installed, tmp_path):
    """All servers of the repository are switched."""
    other = EmbeddedTriton(live.repository, log=tmp_path / "other", drain=False, options=RESTRICTED)
    with other:
        url = f"http://{other.endpoints.http}"
        assert live.rollout("--from", live.new(times(2)), "--replica", url).returncode == 0
        with Client(url) as client:
            assert client.infer("m", ROW)["y"][0, 0] == 2.0
