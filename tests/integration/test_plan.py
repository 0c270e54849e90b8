"""`tritonkit plan` of a small model, for real: one whole run, and what it leaves."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritonkit.client.client import Client
from tritonkit.plan.settings import Settings
from tritonkit.planning.result import settings_json
from tritonkit.planning.variants import with_settings
from tritonkit.repository.apply import apply_config
from tritonkit.repository.config import DynamicBatching
from tritonkit.repository.layout import read_config
from tritonkit.samples import read_samples
from tritonkit.server.embedded import EmbeddedTriton

# A perceptron, whose weights are read from memory once for a whole batch.
MLP = """(float[N,256] x) => (float[N,1] y) {
    a = Constant <value_ints = [256, 2048]> () b = Constant <value_ints = [2048, 2048]> ()
    c = Constant <value_ints = [2048, 1]> ()
    u = ConstantOfShape (a) v = ConstantOfShape (b) w = ConstantOfShape (c)
    d = MatMul (x, u) e = Tanh (d) f = MatMul (e, v) g = Tanh (f) y = MatMul (g, w) }"""
MOST_ROWS = 16
KIT = (sys.executable, "-m", "tritonkit.cli", "plan", "mlp")


@dataclass(frozen=True)
class Planned:
    """One whole run."""

    repository: Path
    out: Path
    output: str
    errors: str
    left: list[str]

    @property
    def plan(self) -> dict[str, Any]:
        return json.loads((self.out / "plan.json").read_text())

    @property
    def levels(self) -> list[dict[str, Any]]:
        """All live levels, of the settings and of the session."""
        found = [level for tried in self.plan["tried"] for level in tried["levels"]]
        return found + self.plan["session"]["levels"]


@pytest.fixture(scope="session")
def planned(installed, package, tmp_path_factory):
    """The plan of `mlp`, made once."""
    work = tmp_path_factory.mktemp("plan")
    (work / "tmp").mkdir()
    repository = package(work / "repository", MLP, name="mlp")
    out = work / "plans" / "mlp"
    options = ("--repository", repository, "--out", out, "--max-batch-size", MOST_ROWS, "--json")
    done = subprocess.run(
        [*KIT, *map(str, options)],
        env={**os.environ, "TMPDIR": str(work / "tmp")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    left = [p.name for p in (work / "tmp").glob("tritonkit-*")]
    return Planned(repository, out, done.stdout, done.stderr, left)


@pytest.fixture
def curve(planned):
    """The options of a plan with the curve that was measured."""
    return ("--repository", planned.repository, "--curve", planned.out / "curve.json")


def numbers(value):
    """Every number in a document."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [n for each in value for n in numbers(each)]
    return [value] if isinstance(value, int | float) else []


def settings_of(found):
    batching = DynamicBatching(found["max_queue_delay_us"]) if found["dynamic_batching"] else None
    return Settings(found["max_batch_size"], batching, found["instances"], found["threads"])


def test_output_is_the_plan(planned):
    """With --json standard output is plan.json and nothing else."""
    assert json.loads(planned.output) == planned.plan


def test_nothing_is_left(planned):
    """The folder has the plan, its report, the curve, samples and logs; nothing else is left."""
    found = sorted(p.name for p in planned.out.iterdir())
    assert found == ["curve.json", "logs", "plan.json", "report.html", "samples"]
    assert planned.left == []


def test_progress(planned):
    """Every step is told on standard error as it is done, with no traceback or warning."""
    assert "simulated " in planned.errors and "one session " in planned.errors
    assert planned.errors.count(" req/s, p99 ") == sum(
        len(tried["levels"]) for tried in planned.plan["tried"]
    )
    assert "Traceback" not in planned.errors and "Warning" not in planned.errors


def test_keys(planned):
    """plan.json has what its readers rely on."""
    plan = planned.plan
    assert plan["model"] == "mlp" and plan["slo_p99_ms"] == 50 and plan["rate_rps"] is None
    winner = {"max_batch_size", "max_queue_delay_us", "instances", "threads"}
    assert winner <= plan["winner"].keys()
    assert {"capacity_rps", "p99_ms"} <= plan["predicted"].keys() & plan["measured"].keys()
    assert {"simulated_settings", "live_runs", "wall_s"} <= plan.keys()
    assert {"tried", "sensitivity", "diff", "because", "machine"} <= plan.keys()
    assert plan["conclusion"] in ("ort_baseline", "triton_unbatched", "triton_batched", "none")


def test_finite(planned):
    """Every number is finite, and what was predicted is above 0."""
    plan = planned.plan
    assert all(math.isfinite(number) for number in numbers(plan))
    for found in (plan, *plan["tried"]):
        assert found["predicted"]["capacity_rps"] > 0 and found["predicted"]["p99_ms"] > 0
        assert (found["measured"]["capacity_rps"] or 0) >= 0  # none, if the machine is busy


def test_within_what_was_asked(planned):
    """No settings go beyond the largest batch that was asked for."""
    plan = planned.plan
    tried = [*(each["settings"] for each in plan["tried"]), plan["winner"]]
    assert all(1 <= settings["max_batch_size"] <= MOST_ROWS for settings in tried)
    assert plan["winner"] in [each["settings"] for each in plan["tried"]]


def test_live_runs(planned):
    """live_runs counts the levels that are in the plan, and there is a sample file for each."""
    names = {level["samples"] for level in planned.levels}
    assert planned.plan["live_runs"] == len(planned.levels) == len(names)
    there = {f"samples/{path.name}" for path in (planned.out / "samples").iterdir()}
    assert names == there


def test_samples(planned):
    """The p99 of each level is that of its samples, from when each request was due, after the
    warm-up.
    """
    for level in planned.levels:
        samples = list(read_samples(planned.out / level["samples"]))
        counted = [s for s in samples if s.intended_ns >= round(level["warmup_s"] * 1e9)]
        assert len(counted) == level["requests"], level["samples"]
        latencies_ms = [(s.done_ns - s.intended_ns) / 1e6 for s in counted if not s.error]
        p99_ms = np.percentile(latencies_ms, 99, method="inverted_cdf")
        assert level["p99_ms"] == pytest.approx(p99_ms, rel=1e-6), level["samples"]


def test_diff(planned):
    """The diff is from the present config to the winner's."""
    diff = planned.plan["diff"]
    present = read_config(planned.repository, "mlp")
    changed = with_settings(present, settings_of(planned.plan["winner"]))
    assert bool(diff) == (changed != present)
    if changed.max_batch_size != present.max_batch_size:
        assert f"+max_batch_size: {changed.max_batch_size}" in diff


def test_applied(planned, package, tmp_path):
    """The winner as a new version is loaded by a real Triton, which has read it as it was meant;
    the config of before can be served by its name.
    """
    repository = package(tmp_path / "repository", MLP, name="mlp")
    winner = settings_of(planned.plan["winner"])
    apply_config(repository, with_settings(read_config(repository, "mlp"), winner))
    found = {}
    for name in ("", "version-1"):
        options = (f"--model-config-name={name}",) if name else ()
        server = EmbeddedTriton(repository, log=tmp_path / "log", options=options, drain=False)
        with server, Client(f"http://{server.endpoints.http}") as client:
            found[name] = client.config("mlp")
            assert client.spec("mlp").versions == ("2",)
    (now, before) = found.values()
    delay_us = now.get("dynamic_batching", {}).get("max_queue_delay_microseconds")
    assert settings_json(winner) == {
        "max_batch_size": now["max_batch_size"],
        "dynamic_batching": "dynamic_batching" in now,
        "max_queue_delay_us": None if delay_us is None else int(delay_us),
        "instances": now["instance_group"][0]["count"],
        "threads": int(now["parameters"]["intra_op_thread_count"]["string_value"]),
    }
    assert before["max_batch_size"] == 8


def test_curve_again(planned, tritonkit, curve, tmp_path):
    """With its curve another plan is made without measuring it, and applied if it is for Triton."""
    out = tmp_path / "out"
    before = read_config(planned.repository, "mlp")
    rate_rps = round(0.6 * planned.plan["predicted"]["capacity_rps"])
    done = tritonkit("plan", "mlp", *curve, "--rate-rps", rate_rps, "--out", out, "--apply")
    assert done.returncode in (0, 1), done.stderr
    plan = json.loads((out / "plan.json").read_text())
    assert plan["rate_rps"] == rate_rps and " a run takes " not in done.stderr
    assert json.loads((out / "curve.json").read_text()) == json.loads(curve[-1].read_text())
    if plan["conclusion"] == "ort_baseline":
        assert "nothing is applied to 'mlp': the plan is to keep one ONNX" in done.stdout
        assert read_config(planned.repository, "mlp") == before
    elif plan["conclusion"] != "none":
        applied = with_settings(before, settings_of(plan["winner"]))
        assert read_config(planned.repository, "mlp").max_batch_size == applied.max_batch_size


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--slo-p99-ms", "0.01"), "a p99 of 0.01 ms: requests that come one by one already take"),
        (("--rate-rps", "1e7"), "10,000,000 requests/s: no settings serve more than about"),
    ],
)
def test_impossible(tritonkit, curve, tmp_path, options, line):
    """What no settings can do is one line with the nearest that is possible, and no folder."""
    done = tritonkit("plan", "mlp", *curve, *options, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert line in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1 and done.stderr.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_what_if(planned, tritonkit):
    """The measured curve answers what it is asked."""
    curve = planned.out / "curve.json"
    done = tritonkit("plan", "--what-if", f"s={curve},rate=100,replicas=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mlp on ") and "100 requests/s on 2 replicas" in done.stdout


def test_interrupted(planned, start_kit, wait_for, tmp_path):
    """Ctrl-C leaves the curve, says where it is, and ends all that was started."""
    out = tmp_path / "out"
    options = ("--repository", planned.repository, "--out", out, "--max-batch-size", 4)
    with start_kit("plan", "mlp", *options) as running:
        wait_for(lambda: "simulated " in running.complained() or running.process.poll() is not None)
        family = running.family()
        assert running.end(signal.SIGINT) == 130
        assert f"the curve is in {out / 'curve.json'}; go on with --curve" in running.complained()
        assert running.complained().splitlines()[-1] == "interrupted"
        assert not any(process.is_running() for process in family)
        assert [p.name for p in out.iterdir()] == ["curve.json"]
        assert not list(running.tmp.glob("tritonkit-*"))
