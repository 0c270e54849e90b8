"""`tritonkit compare --endpoint`: servers that are up already."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tritonkit.repository.layout import read_config, write_variant
from tritonkit.server.baseline import OrtBaseline
from tritonkit.server.embedded import EmbeddedTriton

SHORT = ("--level-s", "0.5", "--time-budget-s", "12", "--slo-p99-ms", "50")


@pytest.fixture(scope="module")
def repository(package, tmp_path_factory) -> Path:
    return package(tmp_path_factory.mktemp("endpoints") / "repository", "double", threads=1)


@pytest.fixture(scope="module")
def live(installed, repository) -> Iterator[Mapping[str, str]]:
    """URLs of the arms, each on a server that somebody else keeps."""
    folder = repository.parent
    config = read_config(repository, "double")
    write_variant(repository, "double", replace(config, dynamic_batching=None), folder / "plain")
    servers = {
        "ort_baseline": OrtBaseline(repository, "double", log=folder / "baseline.log"),
        "triton_unbatched": EmbeddedTriton(folder / "plain", log=folder / "plain.log", drain=False),
        "triton_batched": EmbeddedTriton(repository, log=folder / "batched.log", drain=False),
    }
    with ExitStack() as stack:
        yield {
            arm: f"http://{stack.enter_context(server).endpoints.http}"
            for arm, server in servers.items()
        }


def endpoints(urls: Mapping[str, str]) -> list[str]:
    return [word for arm, url in urls.items() for word in ("--endpoint", f"{arm}={url}")]


@pytest.mark.alone  # it measures
def test_servers_that_are_up(tritonkit, live, repository, tmp_path):
    """They are compared as they are: nothing is started, and nothing is tuned."""
    done = tritonkit(
        *("compare", "double", "--repository", repository, "--out", tmp_path / "out", "--json"),
        *(*SHORT, *endpoints(live)),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [arm["name"] for arm in result["arms"]] == list(live)
    for arm in result["arms"]:
        (only,) = arm["tuning"]
        assert only["chosen"] and arm["capacity_rps"] > 0
        # The work of a server that is not the kit's own is not taken for that of others.
        assert {level["others_cpu"] for level in arm["levels"]} == {None}
    assert result["method"]["server_cpus"] == []
    assert any(
        live["triton_batched"].removeprefix("http://") in n for n in result["method"]["notes"]
    )
    assert not list((tmp_path / "out" / "logs").glob("*"))


def test_an_arm_that_is_another(tritonkit, live, repository, tmp_path):
    """A server that batches is not taken for one that does not."""
    swapped = dict(zip(live, (live["ort_baseline"], *list(live.values())[:0:-1]), strict=True))
    done = tritonkit(
        *("compare", "double", "--repository", repository, "--out", tmp_path / "out"),
        *(*SHORT, *endpoints(swapped)),
    )
    assert done.returncode == 1
    assert "triton_unbatched: the server runs dynamic batching = True" in done.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--endpoint", "triton_batched=http://127.0.0.1:8000"], "twice or more"),
        (["--endpoint", "nix=http://127.0.0.1:8000"], "is not ARM=URL"),
        (["--endpoint", "triton_batched=grpc://127.0.0.1:8001"], "plain HTTP"),
        (["--endpoint", "triton_batched=https://127.0.0.1:8001"], "plain HTTP"),
        (
            [
                *("--endpoint", "triton_batched=http://127.0.0.1:8000"),
                *("--endpoint", "ort_baseline=http://127.0.0.1:8300", "--soak", "1"),
            ],
            "--soak",
        ),
        (
            [
                *("--endpoint", "triton_batched=http://127.0.0.1:8000"),
                *("--endpoint", "ort_baseline=http://127.0.0.1:8300"),
                *("--arms", "ort_baseline,triton_unbatched"),
            ],
            "leave --arms out",
        ),
        (["--runtime", "compose", "--soak", "1"], "--soak"),
        (["--runtime", "compose", "--arms", "ort_baseline,ort_batcher"], "ort_batcher"),
        (["--runtime", "compose", "--compose-file", "nix.yml"], "nix.yml"),
        (
            ["--runtime", "compose", "--endpoint", "triton_batched=http://127.0.0.1:8"],
            "give one of them",
        ),
    ],
)
def test_what_cannot_be_asked(tritonkit, repository, given, words):
    """In one line, with exit code 2."""
    done = tritonkit("compare", "double", "--repository", repository, *given)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_a_server_that_is_not_up(tritonkit, repository, tmp_path):
    """Is named."""
    where = ("--endpoint", "triton_batched=http://127.0.0.1:9")
    done = tritonkit(
        *("compare", "double", "--repository", repository, "--out", tmp_path / "out"),
        *(*where, "--endpoint", "ort_baseline=http://127.0.0.1:9"),
    )
    assert done.returncode == 1 and "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
