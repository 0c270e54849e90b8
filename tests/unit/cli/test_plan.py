"""`tritonkit plan`: what is refused before any server is started, in one line."""

import json
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tritonkit.bench.machine import describe_machine
from tritonkit.cli.plan import _apply, _arrivals, _require_curve
from tritonkit.cli.plan_out import filling
from tritonkit.errors import CheckFailedError, InputError
from tritonkit.load.arrivals import POISSON
from tritonkit.plan.settings import Settings as Planned
from tritonkit.profile.curve import Kind, Lane, Point, Runs, ServiceCurve
from tritonkit.repository.config import DynamicBatching
from tritonkit.repository.layout import read_config, versions
from tritonkit.repository.package import Settings, package_model
from tritonkit.verification import file_sha256


def point(users, rows, run_s, took_s=1.0):
    runs = (Runs(rows, round(took_s / run_s), run_s),)
    return Point("closed", users, took_s, run_s + 0.001, 0.0, run_s, runs)


@pytest.fixture
def repository(tmp_path, onnx_file):
    """The model m, of which nothing was proved."""
    model = onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }")
    package_model(model, "m", tmp_path / "repo", Settings(8))
    return tmp_path / "repo"


@pytest.fixture
def curve(repository):
    """Of this model on this machine: a run takes 2 ms, and 0.1 ms more for each row."""
    points = tuple(point(2 * rows, rows, 0.002 + 0.0001 * rows) for rows in (1, 2, 4, 8))
    return ServiceCurve(
        model="m",
        model_sha256=file_sha256(repository / "m" / "1" / "model.onnx"),
        machine=describe_machine(),
        kit_version="0",
        max_rows=8,
        kinds=(Kind(4, 1.0),),
        kind_of=(0,),
        lanes=(Lane(1, 1, (point(1, 1, 0.0021), point(16, 1, 0.0021)), points, (1.0,)),),
    )


def said(done):
    """The one line of a command that was refused for its input."""
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "which MODEL?"),
        (("m", "--maximise", "--rate-rps", "5"), "give one of them"),
        (("m", "--slo-p99-ms", "0"), "--slo-p99-ms"),
        (("m", "--slo-p99-ms", "nan"), "not a finite number"),
        (("m", "--rate-rps", "-1"), "--rate-rps"),
        (("m", "--max-batch-size", "1"), "--max-batch-size"),
        (("m", "--seed", "-1"), "--seed"),
        (("m", "--arrivals", "bursts"), "poisson or for a trace"),
        (("m", "--arrivals", "ramp:1-2"), "poisson or for a trace"),
        (("m", "--arrivals", "nonsense"), "is no pattern of arrivals"),
        (("m", "--arrivals", "gone.jsonl"), "no trace file gone.jsonl"),
        (("m", "--curve", "."), "is a directory"),
        (("--what-if", "s=gone.json"), "gone.json cannot be read"),
        (("--what-if", "rate=3"), "which curve?"),
        (("--what-if", "s=c,speed=3"), "'speed=3' is none of s="),
        (("--what-if", "s=c", "--apply"), "no use for --apply"),
        (("--what-if", "s=c", "--rate-rps", "3"), "no use for --rate-rps"),
        (("--what-if", "s=c", "--curve", "c"), "no use for --curve"),
    ],
)
def test_bad_words(tritonkit, tmp_path, arguments, line):
    """What makes no sense on the command line is one line, exit 2, and nothing is written."""
    assert line in said(tritonkit("plan", *arguments, cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_no_model(tritonkit, repository, tmp_path):
    """A model that is not there is answered with those that are, and no folder is made."""
    done = tritonkit("plan", "n", "--repository", repository, cwd=tmp_path)
    assert "no model 'n'" in said(done) and "it has m" in said(done)
    assert not (tmp_path / "plans").exists()


def test_no_repository(tritonkit, tmp_path):
    """So is a repository."""
    assert "no model repository" in said(tritonkit("plan", "n", cwd=tmp_path))


def test_folder_of_something_else(tritonkit, repository, tmp_path):
    """A folder with other files is not filled."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    done = tritonkit("plan", "m", "--repository", repository, "--out", tmp_path / "mine")
    assert "no earlier plan; choose another --out" in said(done)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_bad_trace(tmp_path):
    """A line that is no arrival is named."""
    (tmp_path / "t.jsonl").write_text('{"t_s": 1}\nnot one\n')
    with pytest.raises(InputError, match="line 2 is not JSON"):
        _arrivals(str(tmp_path / "t.jsonl"))


def test_arrivals(tmp_path):
    """Poisson and a trace are what a plan is made for."""
    (tmp_path / "t.jsonl").write_text('{"t_s": 1}\n')
    assert _arrivals("poisson") is POISSON
    assert len(_arrivals(str(tmp_path / "t.jsonl")).arrivals) == 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model_sha256": "b" * 64}, "another model file"),
        ({"machine": {"cpu_model": "abacus", "cpus": 1}}, "another machine"),
    ],
)
def test_curve_of_something_else(repository, curve, tmp_path, changes, line):
    """A curve of another model or machine is refused before a server is looked for."""
    replace(curve, **changes).write(tmp_path / "c.json")
    with pytest.raises(InputError, match=line):
        _require_curve(repository, "m", tmp_path / "c.json")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is no curve.json"),
        ("[1]", "no whole curve.json"),
        ("{}", "no whole curve.json"),
        ('{"schema": 99}', "another version of the kit"),
    ],
)
def test_no_curve(repository, tmp_path, text, line):
    """Neither is a file of anything else taken."""
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match=line):
        _require_curve(repository, "m", tmp_path / "c.json")


def test_its_own_curve(repository, curve, tmp_path):
    """The curve of this model on this machine is taken."""
    curve.write(tmp_path / "c.json")
    _require_curve(repository, "m", tmp_path / "c.json")


def test_what_if(tritonkit, curve, tmp_path):
    """Each question is a line, with the model, its machine and what was asked; no MODEL is needed,
    and the machine may be another.
    """
    replace(curve, machine={"cpu_model": "abacus", "cpus": 7}).write(tmp_path / "c.json")
    questions = ("s=c.json", "s=c.json,rate=300,slo=20", "s=c.json,rate=9000,replicas=2")
    options = [word for text in questions for word in ("--what-if", text)]
    done = tritonkit("plan", *options, cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr
    most, at_rate, too_much = done.stdout.splitlines()
    assert most.startswith("m on abacus, 7 CPUs, p99 within 50 ms: 1 replica with ")
    assert "p99 within 20 ms: 300 requests/s on 1 replica with" in at_rate and ": p99 " in at_rate
    assert "9,000 requests/s on 2 replicas: too much" in too_much


def test_what_if_as_json(tritonkit, curve, tmp_path):
    """The same as a list of objects."""
    curve.write(tmp_path / "c.json")
    done = tritonkit("plan", "m", "--what-if", "s=c.json,rate=300", "--json", cwd=tmp_path)
    (found,) = json.loads(done.stdout)
    assert found["asked"] == {
        "curve": "c.json", "rate_rps": 300.0, "slo_p99_ms": 50.0, "replicas": 1,
    }  # fmt: skip
    assert {"max_batch_size", "max_queue_delay_us", "threads"} <= found["settings"].keys()
    assert found["p99_ms"] > 0 and found["replicas_needed"] == 1


def test_what_if_of_another_model(tritonkit, curve, tmp_path):
    """A MODEL that is not the curve's is refused."""
    curve.write(tmp_path / "c.json")
    done = tritonkit("plan", "n", "--what-if", "s=c.json", cwd=tmp_path)
    assert "curve of model 'm', not of 'n'" in said(done)


def test_what_if_without_a_budget(tritonkit, curve, tmp_path):
    """A budget below a single request is said with what that takes."""
    curve.write(tmp_path / "c.json")
    done = tritonkit("plan", "--what-if", "s=c.json,slo=1", cwd=tmp_path)
    assert "a p99 of 1 ms: requests that come one by one already take" in said(done)


def fill(folder, mark):
    (folder / "samples").mkdir()
    for name in ("plan.json", "report.html", "curve.json", f"samples/{mark}"):
        (folder / name).write_text(mark)


def test_filled(tmp_path):
    """What was filled is there when the block has ended, and nothing else."""
    with filling(tmp_path / "a" / "b", measuring=True) as folder:
        fill(folder, "one")
    found = sorted(p.name for p in (tmp_path / "a" / "b").iterdir())
    assert found == ["curve.json", "plan.json", "report.html", "samples"]


def test_filled_again(tmp_path):
    """A later plan takes the place of all of an earlier one, and of nothing else."""
    for mark in ("one", "two"):
        with filling(tmp_path, measuring=True) as folder:
            fill(folder, mark)
        (tmp_path / "mine").write_text("notes")
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["two"]
    assert {(tmp_path / name).read_text() for name in ("plan.json", "report.html")} == {"two"}
    assert (tmp_path / "mine").read_text() == "notes"


@pytest.mark.parametrize("error", [InputError("no"), KeyboardInterrupt()])
def test_the_curve_stays(tmp_path, capsys, error):
    """If the rest fails, the measured curve is there and is spoken of; the older plan stays."""
    with filling(tmp_path / "out", measuring=True) as folder:
        fill(folder, "one")
    with pytest.raises(type(error)), filling(tmp_path / "out", measuring=True) as folder:
        (folder / "curve.json").write_text("two")
        (folder / "report.html").write_text("two")
        raise error
    curve = tmp_path / "out" / "curve.json"
    assert capsys.readouterr().err == f"the curve is in {curve}; go on with --curve {curve}\n"
    assert curve.read_text() == "two" and (tmp_path / "out" / "plan.json").read_text() == "one"
    assert (tmp_path / "out" / "report.html").read_text() == "one"


def test_nothing_stays(tmp_path, capsys):
    """If nothing was measured by then, no folder is left, nor a word said."""
    with pytest.raises(InputError), filling(tmp_path / "a" / "b", measuring=True):
        raise InputError("no")
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().err == ""


def test_a_given_curve_is_not_spoken_of(tmp_path, capsys):
    """Whoever gave a curve knows where it is."""
    with pytest.raises(InputError), filling(tmp_path / "a", measuring=False) as folder:
        (folder / "curve.json").write_text("given")
        raise InputError("no")
    assert not (tmp_path / "a").exists() and capsys.readouterr().err == ""


def concluded(conclusion, winner=None):
    """Of a plan what applying it reads."""
    winner = winner or Planned(4, DynamicBatching(500), 1, 2)
    because = "Nothing holds it."
    return SimpleNamespace(model="m", conclusion=conclusion, because=because, winner=winner)


def test_apply(repository, capsys):
    """The winner is written, and two lines say what changed and how to go back."""
    before = read_config(repository, "m")
    _apply(repository, concluded("triton_batched"), to_stderr=False)
    now = read_config(repository, "m")
    assert (now.max_batch_size, now.intra_op_threads) == (4, 2)
    assert now.dynamic_batching == DynamicBatching(500)
    done, back = capsys.readouterr().out.splitlines()
    assert done.startswith(f"{repository / 'm' / '2'} is version 1 with the settings of the plan")
    command = back.removeprefix("to go back: ")
    assert subprocess.run(command, shell=True, check=True).returncode == 0
    assert read_config(repository, "m") == before and versions(repository, "m") == [1]


def test_apply_in_a_folder_with_blanks(repository, capsys):
    """The way back can be pasted into a shell whatever the folders are called."""
    odd = repository.rename(repository.with_name("my repo"))
    before = read_config(odd, "m")
    _apply(odd, concluded("triton_batched"), to_stderr=True)
    command = capsys.readouterr().err.splitlines()[1].removeprefix("to go back: ")
    subprocess.run(command, shell=True, check=True)
    assert read_config(odd, "m") == before


def test_apply_keep_the_session(repository, capsys):
    """Nothing is written where one session does the job, and a line says so."""
    _apply(repository, concluded("ort_baseline"), to_stderr=False)
    assert "the plan is to keep one ONNX Runtime session" in capsys.readouterr().out
    assert versions(repository, "m") == [1]


def test_apply_nothing(repository):
    """Nor where nothing does it: that is a failure."""
    with pytest.raises(CheckFailedError, match=r"nothing is applied to 'm': Nothing holds it\."):
        _apply(repository, concluded("none"), to_stderr=False)
    assert versions(repository, "m") == [1]


def test_apply_the_same(repository, capsys):
    """Nor where the model has the settings already."""
    present = read_config(repository, "m")
    same = Planned(8, present.dynamic_batching, present.instances, present.intra_op_threads)
    _apply(repository, concluded("triton_batched", same), to_stderr=False)
    assert "it has these settings already" in capsys.readouterr().out
    assert versions(repository, "m") == [1]
