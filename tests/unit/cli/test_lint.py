"""tritonkit lint: what it takes, what it prints, and its exit codes."""

from __future__ import annotations

import json
import re

import onnx
import pytest
from click.testing import CliRunner
from onnx.parser import parse_model

from tritonkit.cli.lint import lint
from tritonkit.errors import RepositoryError
from tritonkit.repository.lint.rules import RULES

CONFIG = """\
backend: "onnxruntime"
max_batch_size: 1
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
instance_group { count: 1 kind: KIND_CPU }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A current folder with the repository `repo` of the models `good`, `wrong` and `poor`."""
    monkeypatch.chdir(tmp_path)
    graph = "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
    model = parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {graph}')
    configs = {
        "good": CONFIG,
        "wrong": CONFIG.replace("dims: 4", "dims: 5", 1),
        "poor": f"{CONFIG}dynamic_batching {{ }}\n",
    }
    for name, config in configs.items():
        (tmp_path / "repo" / name / "1").mkdir(parents=True)
        onnx.save(model, tmp_path / "repo" / name / "1" / "model.onnx")
        (tmp_path / "repo" / name / "config.pbtxt").write_text(config)
    return tmp_path / "repo"


def run(*arguments: str):
    return CliRunner().invoke(lint, arguments)


def test_lines_like_a_compilers(repository):
    """A problem is one line: file, line, severity, rule, what, why and remedy; then the counts."""
    done = run("repo")
    poor, wrong = done.stdout.splitlines()
    assert re.fullmatch(r"repo/poor/config\.pbtxt:7: warning unbounded-queue: .+: .+; .+", poor)
    assert wrong.startswith("repo/wrong/config.pbtxt:3: error dims: model 'wrong', tensor 'x': ")
    assert done.stderr == "1 error, 1 warning, 0 notes\n"
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("repo/good",), 0),
        (("repo/poor",), 0),
        (("repo/poor", "--strict"), 1),
        (("repo/good", "--strict"), 0),
        (("repo/wrong",), 1),
    ],
)
def test_exit_code(repository, arguments, code):
    """Errors fail; warnings fail with --strict."""
    assert run(*arguments).exit_code == code


@pytest.mark.parametrize(
    "paths",
    [
        ("repo/wrong",),
        ("repo/wrong/",),
        ("repo/wrong/config.pbtxt",),
        ("repo/good/../wrong/config.pbtxt", "repo/good/config.pbtxt"),
        ("repo/wrong", "repo/wrong/config.pbtxt"),
        ("repo", "repo/wrong"),
        ("repo/wrong", "repo"),
    ],
)
def test_what_it_takes(repository, paths):
    """A repository, a model's folder, a config, and several of them; each problem once."""
    lines = run(*paths).stdout.splitlines()
    assert [line for line in lines if ": error " in line] == [lines[-1]]
    assert lines[-1].startswith("repo/wrong/config.pbtxt:3: error dims")


def test_from_inside_the_model(repository, monkeypatch):
    """`tritonkit lint .` and `tritonkit lint config.pbtxt` work in the model's own folder."""
    monkeypatch.chdir(repository / "wrong")
    for path in (".", "config.pbtxt"):
        assert ": error dims: model 'wrong'" in run(path).stdout


def test_default_repository(repository):
    """Without a path it is model_repository."""
    repository.rename("model_repository")
    assert "model_repository/wrong/config.pbtxt:3: error dims" in run().stdout


@pytest.mark.parametrize("path", ["absent", "absent/config.pbtxt", "empty", "empty/notes.txt"])
def test_no_repository(repository, tmp_path, path):
    """A path that is no repository is one line and exit code 2."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    error = run(path).exception
    assert isinstance(error, RepositoryError) and error.exit_code == 2
    assert path in str(error) and "\n" not in str(error)


def test_json(repository):
    """--json is one object: the problems with all that is known of them, and the counts."""
    done = run("repo", "--json")
    told = json.loads(done.stdout)
    assert (told["errors"], told["warnings"], told["notes"]) == (1, 1, 0)
    assert done.exit_code == 1
    poor, wrong = told["problems"]
    assert set(wrong) == {"file", "line", "rule", "severity", "message", "why", "remedy"}
    assert (wrong["file"], wrong["line"]) == ("repo/wrong/config.pbtxt", 3)
    assert (wrong["rule"], wrong["severity"]) == ("dims", "error")
    assert poor["rule"] == "unbounded-queue"


def test_sarif(repository):
    """--sarif is one run with the same problems, and fails as well."""
    done = run("repo", "--sarif")
    results = json.loads(done.stdout)["runs"][0]["results"]
    assert [r["ruleId"] for r in results] == ["unbounded-queue", "dims"]
    assert done.exit_code == 1


def test_json_and_sarif(repository):
    """One format at a time."""
    assert run("repo", "--json", "--sarif").exit_code == 2


def test_rules():
    """--rules lists every rule with its severity and what it looks for."""
    lines = run("--rules").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[str(r.severity), r.id] for r in RULES]
    assert all(line.endswith(rule.summary) for line, rule in zip(lines, RULES, strict=True))


def test_limits(repository):
    """--cpus and --slo-p99-ms are what the rules measure by."""
    config = repository / "good" / "config.pbtxt"
    more = "dynamic_batching { max_queue_delay_microseconds: 9000 }\n"
    config.write_text(config.read_text().replace("count: 1", "count: 3") + more)
    strict = run("repo/good", "--cpus", "2", "--slo-p99-ms", "9").stdout
    assert "threads-over-cpus" in strict and "for 2 CPUs" in strict and "queue-delay" in strict
    loose = run("repo/good", "--cpus", "3", "--slo-p99-ms", "10").stdout
    assert "threads-over-cpus" not in loose and "queue-delay" not in loose


def test_odd_values_stay_on_one_line(repository):
    """A value with a line's end or an escape sequence in it does not break the output."""
    config = repository / "good" / "config.pbtxt"
    config.write_text(config.read_text() + 'name: "a\\n\\033[2J"\n')
    (line,) = run("repo/good").stdout.splitlines()
    assert r"name is 'a\n\x1b[2J'" in line


def test_link_keeps_the_name_of_the_model(repository):
    """A model's folder that is a link is judged by the link's name, as Triton does."""
    (repository / "other").symlink_to("good")
    config = repository / "good" / "config.pbtxt"
    config.write_text(config.read_text() + 'name: "good"\n')
    assert run("repo/good").stdout == ""
    assert "error name-mismatch" in run("repo/other").stdout


def test_pre_commit_hook(pytestconfig):
    """The hook that pre-commit reads runs this command on configs, and on nothing else."""
    hook = (pytestconfig.rootpath / ".pre-commit-hooks.yaml").read_text()
    given = dict(re.findall(r"^(?:- |  )(\w+): (.*)$", hook, re.MULTILINE))
    assert given["entry"] == "tritonkit lint"
    assert re.search(given["files"], "models/m/config.pbtxt")
    assert not re.search(given["files"], "models/m/old-config.pbtxt.txt")
