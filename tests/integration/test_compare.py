"""`tritonkit compare` of a small model, for real: one whole run, one interrupted and gone on with,
one refused.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from tritonkit.repository.package import Settings, package_model
from tritonkit.samples import read_samples
from tritonkit.stats.steady import got_better

pytestmark = pytest.mark.alone  # it measures

WIDTHS = (256, 1024, 1024, 1)
MAX_BATCH = 8
ARMS = ["ort_baseline", "ort_batcher", "triton_unbatched", "triton_batched"]
SHORT = ("--level-s", "0.5", "--time-budget-s", "20")
COMMAND = (sys.executable, "-m", "tritonkit.cli", "compare", "mlp", "--json", *SHORT)


def mlp():
    """A small perceptron: one whose weights are read from memory once for a whole batch."""
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for i, shape in enumerate(pairwise(WIDTHS)):
        values = random.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0]))
        weights.append(numpy_helper.from_array(values, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("Tanh", [f"m{i}"], [f"h{i}"]))
        last = f"h{i}"
    nodes[-1].output[0] = "y"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTHS[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDTHS[-1]])
    graph = helper.make_graph(nodes, "mlp", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@dataclass(frozen=True)
class Compared:
    """One whole run."""

    repository: Path
    out: Path
    output: str
    errors: str
    left: list[str]

    @property
    def result(self):
        return json.loads((self.out / "result.json").read_text())

    def arm(self, name):
        (found,) = (arm for arm in self.result["arms"] if arm["name"] == name)
        return found


@pytest.fixture(scope="session")
def compared(installed, tmp_path_factory):
    """The comparison of `mlp`, made once."""
    work = tmp_path_factory.mktemp("compare")
    (work / "tmp").mkdir()
    onnx.save(mlp(), work / "model.onnx")
    repository = work / "repository"
    package_model(work / "model.onnx", "mlp", repository, Settings(MAX_BATCH))
    out = work / "results" / "mlp"
    done = subprocess.run(
        [
            *(*COMMAND, "--slo-p99-ms", "30", "--arms", ",".join(ARMS), "--soak", "0.05"),
            *("--repository", str(repository), "--out", str(out)),
        ],
        env={**os.environ, "TMPDIR": str(work / "tmp")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    left = [p.name for p in (work / "tmp").glob("tritonkit-*")]
    return Compared(repository, out, done.stdout, done.stderr, left)


def test_output_is_the_result(compared):
    """With --json standard output is result.json and nothing else."""
    assert json.loads(compared.output) == compared.result


def test_progress(compared):
    """Every step is told on standard error as it is done, with no traceback or warning."""
    assert "in process: " in compared.errors
    for arm in ARMS:
        assert re.search(rf"^{arm}: best with \d+ threads? × \d", compared.errors, re.M)
        assert re.search(rf"^{arm}: 1 users: \d+ req/s, p99 ", compared.errors, re.M)
    assert "Traceback" not in compared.errors and "Warning" not in compared.errors


def test_keys(compared):
    """result.json has what its readers rely on."""
    result = compared.result
    assert result["model"] == "mlp" and result["slo_p99_ms"] == 30 and result["rate_rps"] is None
    assert {"kit_version", "created_at", "machine", "method", "schema"} <= result.keys()
    assert {"batch1_ips", "best_ips", "best_batch"} <= result["ceiling"].keys()
    assert [arm["name"] for arm in result["arms"]] == ARMS
    certificate = {"effective_config", "ort_version", "threads", "instances", "mean_batch"}
    level = {"mode", "offered", "achieved_rps", "p50_ms", "p90_ms", "p99_ms", "errors"}
    assert {"ratios", "soak", "cost_per_hour"} <= result.keys()
    for arm in result["arms"]:
        assert {"certificate", "levels", "capacity_rps", "capacity_interval_rps"} <= arm.keys()
        assert certificate | {"batch_histogram"} <= arm["certificate"].keys()
        assert all(level <= found.keys() for found in arm["levels"])
    assert result["verdict"]["choice"] in (*ARMS, "none")
    assert result["verdict"]["because"].endswith(".")


def test_ceiling(compared):
    """The bare session gains from a batch, up to the largest that is packaged."""
    ceiling = compared.result["ceiling"]
    assert 0 < ceiling["batch1_ips"] < ceiling["best_ips"]
    assert 1 < ceiling["best_batch"] <= MAX_BATCH


@pytest.mark.parametrize("arm", ARMS)
def test_levels(compared, arm):
    """Each arm is measured in closed loops, in a search of four levels or more, and is overloaded
    once if it sustains anything.
    """
    found = compared.arm(arm)
    levels = found["levels"]
    purposes = [level["purpose"] for level in levels]
    assert purposes[0] == "curve" and levels[0]["offered"] == 1
    assert purposes.count("search") >= 4
    assert purposes.count("overload") == (1 if found["capacity_rps"] else 0)
    for level in levels:
        assert (level["mode"] == "closed") == (level["purpose"] == "curve")
        assert level["requests"] > 0 and level["errors"] == 0 and level["error_kinds"] == {}
        assert 0 < level["p50_ms"] <= level["p90_ms"] <= level["p99_ms"] <= level["max_ms"]
        stays = level["steady"] or got_better(level["unsteady_because"])
        assert level["holds_slo"] == (level["p99_ms"] <= 30 and stays)


def test_rounds(compared):
    """All arms have one level a round, forwards in the odd ones and backwards in the even."""
    order = sorted((compared.out / "samples").glob("0*"), key=lambda p: p.stat().st_mtime_ns)
    rounds = {}
    for file in order:
        number, arm = re.match(rf"(\d+)-({'|'.join(ARMS)})-", file.name).groups()
        rounds.setdefault(int(number), []).append(arm)
    assert list(rounds) == sorted(rounds)
    for number, arms in rounds.items():
        assert arms == [arm for arm in ARMS[:: 1 if number % 2 else -1] if arm in arms]
    assert sum(arms == ARMS[::-1] for arms in rounds.values()) >= 2


@pytest.mark.parametrize("arm", ARMS)
def test_capacity(compared, arm):
    """What an arm sustains lies in its interval, and rests on the levels that count."""
    found = compared.arm(arm)
    counted = [x for x in found["levels"] if x["mode"] == "open" and not x["generator_bound"]]
    assert found["counted_levels"] == len(counted)
    if not counted:
        assert found["capacity_rps"] is None
        return
    low, high = found["capacity_interval_rps"]
    assert low <= found["capacity_rps"] and (high is None or found["capacity_rps"] <= high)


def test_ratios(compared):
    """Every pair of arms has a ratio with its interval, the more involved arm over the simpler."""
    pairs = [(ratio["arm"], ratio["than"]) for ratio in compared.result["ratios"]]
    assert sorted(pairs) == sorted((more, less) for less, more in combinations(ARMS, 2))
    for ratio in compared.result["ratios"]:
        if ratio["ratio"] is not None and None not in (ratio["low"], ratio["high"]):
            assert ratio["low"] <= ratio["ratio"] <= ratio["high"]
            assert ratio["differs"] == (not ratio["low"] <= 1 <= ratio["high"])


def test_soak(compared):
    """The chosen arm was soaked, and its memory seen."""
    soak = compared.result["soak"]
    assert soak["arm"] == compared.result["verdict"]["choice"]
    series = [soak[name] for name in ("at_s", "achieved_rps", "p99_ms", "rss_bytes", "shm_bytes")]
    assert len({len(values) for values in series}) == 1 < len(series[0])
    assert min(soak["rss_bytes"]) > 1e7 and soak["errors"] == 0
    assert (min(soak["shm_bytes"]) > 0) == soak["arm"].startswith("triton")


@pytest.mark.parametrize("arm", ARMS)
def test_time_split(compared, arm):
    """The parts of each level's time come to what its samples took, or it says that they do not."""
    parts = ("client", "connection", "wire", "queue", "input", "compute", "output")
    levels = compared.arm(arm)["levels"]
    for level in levels:
        split, samples = level["time_split"], read_samples(compared.out / level["samples"])
        mean_ms = np.mean([s.done_ns - s.intended_ns for s in samples if not s.error]) / 1e6
        values = [split[f"{part}_ms"] for part in parts]
        assert split["compute_ms"] > 0
        if split["adds_up"]:
            assert sum(values) == pytest.approx(mean_ms, rel=0.1)
            assert min(values) >= -0.1 * mean_ms
        else:
            assert split["remark"]
    assert any(level["time_split"]["adds_up"] for level in levels)


@pytest.mark.parametrize("arm", ARMS)
def test_certificate(compared, arm):
    """The certificate names the installed ONNX Runtime, and what the tuning chose."""
    found = compared.arm(arm)
    certificate = found["certificate"]
    (chosen,) = (run for run in found["tuning"] if run["chosen"])
    assert certificate["ort_version"] == onnxruntime.__version__
    assert certificate["threads"] == chosen["threads"]
    assert certificate["instances"] == chosen["instances"]
    assert certificate["cpu_set"] == sorted(os.sched_getaffinity(0))
    config = certificate["effective_config"]
    assert config["max_batch_size"] == MAX_BATCH
    assert config["parameters"]["intra_op_thread_count"]["string_value"] == str(chosen["threads"])


@pytest.mark.parametrize("arm", ARMS)
def test_server_counted_what_was_sent(compared, arm):
    """The server's own count is that of the samples, warm-up included."""
    found = compared.arm(arm)
    certificate = found["certificate"]
    sent = sum(len(read_samples(compared.out / level["samples"])) for level in found["levels"])
    assert certificate["requests"] == sent
    histogram = certificate["batch_histogram"]
    assert sum(histogram.values()) == certificate["executions"]
    assert sum(int(rows) * runs for rows, runs in histogram.items()) == sent


@pytest.mark.parametrize("arm", ["ort_baseline", "triton_unbatched"])
def test_unbatched(compared, arm):
    """Without batching no two requests shared a run, and the config has no scheduler."""
    certificate = compared.arm(arm)["certificate"]
    assert list(certificate["batch_histogram"]) == ["1"] and certificate["mean_batch"] == 1
    assert "dynamic_batching" not in certificate["effective_config"]


@pytest.mark.parametrize("arm", ["ort_batcher", "triton_batched"])
def test_batched(compared, arm):
    """With batching requests did share runs, of no more rows than were allowed."""
    certificate = compared.arm(arm)["certificate"]
    assert certificate["mean_batch"] > 1
    rows = [int(rows) for rows in certificate["batch_histogram"]]
    assert 1 < max(rows) <= MAX_BATCH
    assert "dynamic_batching" in certificate["effective_config"]


@pytest.mark.parametrize("arm", ARMS)
def test_percentiles_are_those_of_the_samples(compared, arm):
    """Each level's count, rate and percentiles come out of its sample file again."""
    files = set()
    for level in compared.arm(arm)["levels"]:
        files.add(level["samples"])
        samples = read_samples(compared.out / level["samples"])
        intended, sent, done = np.array([s[:3] for s in samples]).T
        moment = intended if level["mode"] == "open" else done
        start = level["warmup_s"] * 1e9
        counted = (moment >= start - 1) & (moment < start + level["duration_s"] * 1e9)
        if level["mode"] == "open":
            counted = moment >= start - 1
        latency_ms = (done - intended)[counted] / 1e6
        assert level["requests"] == len(latency_ms)
        assert level["achieved_rps"] == pytest.approx(len(latency_ms) / level["duration_s"])
        for q in (50, 90, 99):
            expected = np.percentile(latency_ms, q, method="inverted_cdf")
            assert level[f"p{q}_ms"] == pytest.approx(expected, rel=1e-12)
        service_ms = (done - sent)[counted] / 1e6
        expected = np.percentile(service_ms, 99, method="inverted_cdf")
        assert level["service_p99_ms"] == pytest.approx(expected, rel=1e-12)
    assert len(files) == len(compared.arm(arm)["levels"])


def test_files(compared):
    """There is a report, a file of samples for each level, a log for each arm; no leftovers."""
    names = {p.name for p in compared.out.iterdir()}
    assert names == {"result.json", "report.html", "progress.jsonl", "samples", "logs"}
    named = {level["samples"] for arm in compared.result["arms"] for level in arm["levels"]}
    written = {f"samples/{p.name}" for p in (compared.out / "samples").iterdir()}
    assert {name for name in written if "/soak-" not in name} == named < written
    assert {f"{arm}.log" for arm in ARMS} <= {p.name for p in (compared.out / "logs").iterdir()}
    assert [p.name for p in compared.out.parent.iterdir()] == ["mlp"]
    assert compared.left == []


def test_report_needs_no_network(compared):
    """The report has its verdict in it, and nothing that a browser would fetch."""
    page = (compared.out / "report.html").read_text()
    assert compared.result["verdict"]["because"].split(" ")[0] in page
    fetched = r"""(?:src|href|action)\s*=\s*["']?\s*(?:https?:)?//|url\(\s*["']?https?:|@import"""
    assert not re.search(fetched, page)
    assert "<script src" not in page and "<link" not in page


@pytest.fixture
def again(compared, tmp_path):
    """Run the comparison into a folder that has an older result; the folder, the arguments."""
    out = tmp_path / "mlp"
    shutil.copytree(compared.out, out)
    return out, ("compare", "mlp", *SHORT, "--out", out)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@dataclass(frozen=True)
class GoneOn:
    """A run that was interrupted, refused, and gone on with, against a baseline out of reach."""

    out: Path
    kept: dict[Path, bytes]
    refused: tuple[int, str]
    status: int
    said: str
    complained: str


@pytest.fixture(scope="module")
def far_better(compared, tmp_path_factory):
    """A result of the same model, in which every arm sustains far more."""
    before = compared.result
    before["slo_p99_ms"] = 50.0
    for arm in before["arms"]:
        arm |= {"capacity_rps": 1e6, "capacity_interval_rps": [0.9e6, 1.1e6]}
    path = tmp_path_factory.mktemp("before") / "old.json"
    path.write_text(json.dumps(before))
    return path


@pytest.fixture(scope="module")
def gone_on(compared, far_better, start_kit, wait_for, tmp_path_factory):
    """Ctrl-C in the middle of a comparison, which is checked at once, and then --resume."""
    out = tmp_path_factory.mktemp("again") / "mlp"
    shutil.copytree(compared.out, out)
    arguments = ("compare", "mlp", *SHORT, "--out", out, "--repository", compared.repository)
    before = contents(out)
    partial = out.with_name("mlp.partial")
    with start_kit(*arguments) as kit:
        wait_for(
            lambda: kit.process.poll() is not None or len(list(partial.glob("samples/*.gz"))) > 1
        )
        family = kit.family()
        assert [p.name() for p in family].count("tritonserver") == 2
        os.killpg(kit.process.pid, signal.SIGINT)
        assert kit.process.wait(30) == 130
        said = [line for line in kit.complained().splitlines() if line]
        where = f"what was measured is in {partial}; --resume goes on with it"
        assert said[-2:] == [where, "interrupted"]
        assert "Traceback" not in kit.complained() and "Keyboard" not in kit.complained()
        assert not [p for p in family if running(p)]
        assert not list(kit.tmp.glob("tritonkit-*"))
        assert not list(Path("/dev/shm").glob(f"tritonkit-{kit.process.pid}-*"))
    assert not (partial / "result.json").exists()
    assert contents(out) == before
    kept = {name: data for name, data in contents(partial).items() if name.suffix == ".gz"}
    with start_kit(*arguments, "--slo-p99-ms", "20", "--resume") as kit:
        refused = kit.process.wait(60), kit.complained()
    rules = ("--baseline", far_better, "--fail-if", "triton_batched.capacity -10%")
    with start_kit(*arguments, *rules, "--resume") as kit:
        status = kit.process.wait(150)
        return GoneOn(out, kept, refused, status, kit.said(), kit.complained())


def test_interrupted(gone_on):
    """Ctrl-C ends every server, and keeps each request that was measured, and the older result."""
    assert len(gone_on.kept) > 1
    for name in gone_on.kept:
        assert read_samples(gone_on.out / name)


def test_not_gone_on_with(gone_on):
    """What was measured for another budget is not gone on with, and that is said in a line."""
    status, complained = gone_on.refused
    assert status == 2
    assert "slo_p99_ms 50.0, this one has 20.0; choose another --out" in complained


def test_gone_on_with(gone_on):
    """What was measured before is in the result as it was, and nothing of it is measured again. All
    arms go on in a new round.
    """
    assert gone_on.kept.items() <= contents(gone_on.out).items()
    assert "best with" not in gone_on.complained
    result = json.loads((gone_on.out / "result.json").read_text())
    named = {level["samples"] for arm in result["arms"] for level in arm["levels"]}
    assert {str(name) for name in gone_on.kept} < named
    assert result["method"]["resumed"] == 1
    assert not gone_on.out.with_name("mlp.partial").exists()
    old = {int(name.name.partition("-")[0]) for name in gone_on.kept}
    for arm in result["arms"]:
        new = [x for x in arm["levels"] if Path(x["samples"]) not in gone_on.kept]
        assert new and old.isdisjoint(level["round"] for level in new)
        assert min(level["round"] for level in new) == max(old) + 1
        purposes = [level["purpose"] for level in arm["levels"]]
        assert purposes.count("overload") == (1 if arm["capacity_rps"] else 0)
        sent = sum(len(read_samples(gone_on.out / level["samples"])) for level in arm["levels"])
        assert arm["certificate"]["requests"] == sent


def test_gate(gone_on, far_better):
    """A result that is far worse than an earlier one ends with exit code 1, after it is written."""
    assert gone_on.status == 1
    assert gone_on.complained.splitlines()[-1] == f"error: worse than {far_better}"
    gone = r"^triton_batched capacity -9\d\.\d% .*: beyond -10%$"
    assert re.search(gone, gone_on.said, re.M)
    assert (gone_on.out / "report.html").exists()


def running(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_failed(compared, again, start_kit, tmp_path):
    """A run that fails says why in one line, and the older result stays as it was."""
    out, arguments = again
    before = contents(out)
    repository = tmp_path / "repository"
    shutil.copytree(compared.repository, repository)
    (repository / "mlp" / "1" / "model.onnx").write_bytes(b"no ONNX")
    with start_kit(*arguments, "--repository", repository) as kit:
        assert kit.process.wait(60) in (1, 2)
        errors = [x for x in kit.complained().splitlines() if x.startswith("error: ")]
        assert len(errors) == 1 and "model.onnx" in errors[0]
        assert "Traceback" not in kit.complained()
        assert kit.said() == ""
    assert contents(out) == before
    assert not out.with_name("mlp.partial").exists()


def test_nothing_to_resume(compared, start_kit, tmp_path):
    """Without an interrupted run there is nothing to go on with, and no folder is made."""
    options = ("--repository", compared.repository, "--out", tmp_path / "new", "--resume")
    with start_kit("compare", "mlp", *options) as kit:
        assert kit.process.wait(60) == 2
        (line,) = kit.complained().splitlines()
        assert "nothing to resume" in line
    assert not list(tmp_path.glob("new*"))


def test_unknown_model(compared, start_kit, tmp_path):
    """A model that is not there is the user's mistake: one line, and no folder is made."""
    options = ("--repository", compared.repository, "--out", tmp_path / "out")
    with start_kit("compare", "other", *options) as kit:
        assert kit.process.wait(60) == 2
        (line,) = kit.complained().splitlines()
        assert "no model 'other'" in line and "mlp" in line
    assert not list(tmp_path.glob("out"))
