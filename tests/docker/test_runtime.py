"""`tritonkit compare --runtime compose`: the arms as services of docker-compose.yml."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.docker.conftest import ROOT

pytestmark = pytest.mark.docker

PROJECT = "tritonkit-runtime"
SHORT = ("--level-s", "0.5", "--time-budget-s", "12", "--slo-p99-ms", "100")


@pytest.fixture(scope="module")
def compared(engine, base, build, triton, package, free_port, tmp_path_factory):
    """The result of a whole run, and the containers that are left."""
    folder = tmp_path_factory.mktemp("runtime")
    package(folder / "repository", "double")
    names = ("HTTP", "GRPC", "METRICS", "UNBATCHED_HTTP", "UNBATCHED_GRPC", "UNBATCHED_METRICS")
    settings = {
        **{f"{name}_PORT": str(free_port()) for name in (*names, "BASELINE")},
        "TRITON_IMAGE": triton,
        "BASELINE_IMAGE": build("baseline", base),
        "COMPOSE_PROJECT_NAME": PROJECT,
    }
    words = [
        *(sys.executable, "-m", "tritonkit.cli", "compare", "double", "--runtime", "compose"),
        *("--repository", str(folder / "repository"), "--out", str(folder / "out"), "--json"),
    ]
    done = subprocess.run(
        [*words, *SHORT],
        env={**engine.env, **settings},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    own = ("--filter", f"label=com.docker.compose.project={PROJECT}")
    return json.loads(done.stdout), engine.docker("ps", "--all", "--quiet", *own).split()


def test_arms_are_services(compared):
    """All three are measured, each as its container says that it runs."""
    result, _ = compared
    batches = {
        arm["name"]: "dynamic_batching" in arm["certificate"]["effective_config"]
        for arm in result["arms"]
    }
    assert batches == {"ort_baseline": False, "triton_unbatched": False, "triton_batched": True}
    assert all(arm["capacity_rps"] > 0 for arm in result["arms"])


def test_nothing_is_left(compared):
    """What was started for the comparison is gone."""
    _, containers = compared
    assert containers == []
