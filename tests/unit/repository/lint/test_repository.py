"""lint as a whole: which models, in which order, what a comment switches off, and the list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonkit.errors import RepositoryError
from tritonkit.repository.lint.repository import lint_repository
from tritonkit.repository.lint.rules import RULES
from tritonkit.repository.lint.sarif import to_sarif

HERE = Path(__file__).parent


def test_every_rule_has_a_name_and_a_summary():
    """Ids are unique, short and in kebab-case; every rule says what it looks for."""
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
    for rule in RULES:
        assert rule.id == rule.id.lower() and rule.id.replace("-", "").isalnum()
        assert rule.summary.endswith(".") and len(rule.summary) <= 100


@pytest.mark.parametrize("rule", [rule.id for rule in RULES])
def test_every_rule_is_tested(rule):
    """No rule without a test in this folder that names it."""
    assert any(f'"{rule}"' in path.read_text() for path in HERE.glob("test_*.py"))


def test_healthy_model(repository):
    """Nothing is wrong with a config that says all; that nobody proved the model is a note."""
    repository.add()
    assert [(p.rule, p.severity) for p in repository.lint()] == [("not-proved", "note")]


def test_all_models_or_some(repository):
    """Problems are told by model and line; `models` narrows them down."""
    broken = {"x": 'input { name: "x" data_type: TYPE_FP32 dims: 5 }', "more": 'name: "c"'}
    repository.add("b", **broken)
    repository.add("a", **broken)
    told = [(p.file.parent.name, p.line) for p in repository.lint() if p.severity == "error"]
    assert told == [("a", 4), ("a", 9), ("b", 4), ("b", 9)]
    assert {p.file.parent.name for p in repository.lint("b")} == {"b"}


def test_unknown_model(repository):
    """A model that is not there is told with those that are."""
    repository.add()
    with pytest.raises(RepositoryError, match=r"no model 'q' in .* \(it has m\)"):
        repository.lint("q")


def test_no_repository(tmp_path):
    """A path that is missing, and a folder without a model, are no repositories."""
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(RepositoryError, match="model repository"):
            lint_repository(path, cpus=1, slo_p99_ms=None)


X = 'input { name: "x" data_type: TYPE_FP32 dims: 5 }'


@pytest.mark.parametrize(
    "blocks",
    [{"x": f"{X}  # lint: ignore dims"}, {"x": f"# why  # lint: ignore q, dims\n{X}"}],
)
def test_comment_switches_a_rule_off(repository, blocks):
    """A comment at the end of the line, or alone on the line before it, among other rules."""
    repository.add(**blocks)
    assert repository.found("dims") == []


@pytest.mark.parametrize(
    "blocks",
    [{"x": f"{X}  # lint: ignore data-type"}, {"most": "max_batch_size: 8 # lint: ignore dims"}],
)
def test_comment_for_something_else(repository, blocks):
    """A comment that names another rule, or stands behind another line's field, changes nothing."""
    repository.add(**{"x": X, **blocks})
    assert repository.found("dims") == [4]


def test_comment_in_a_config_that_cannot_be_read(repository):
    """A comment works where nothing else does."""
    repository.add(most="max_batchsize: 8  # lint: ignore unknown-field")
    assert repository.lint() == []


def test_sarif(repository, tmp_path):
    """The essential structure of SARIF 2.1.0: version, driver, rules, results that refer to them,
    and files relative to the root."""
    repository.add("a b", x='input { name: "x" data_type: TYPE_FP32 dims: 5 }')
    problems = repository.lint()
    log = json.loads(json.dumps(to_sarif(problems, tmp_path)))
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "tritonkit" and driver["version"]
    assert [rule["id"] for rule in driver["rules"]] == [rule.id for rule in RULES]
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
    assert len(run["results"]) == len(problems) == 2
    for result, problem in zip(run["results"], problems, strict=True):
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == problem.rule
        assert result["level"] == problem.severity
        assert problem.message in result["message"]["text"]
        (location,) = result["locations"]
        where = location["physicalLocation"]
        assert where["artifactLocation"] == {"uri": "repository/a%20b/config.pbtxt"}
        assert where["region"] == {"startLine": problem.line}


def test_sarif_of_files_elsewhere(repository, tmp_path):
    """A file outside the root has an absolute URI."""
    repository.add()
    log = to_sarif(repository.lint(), tmp_path / "elsewhere")
    (result,) = log["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert place == (repository.path / "m" / "config.pbtxt").as_uri()


TEXT = """
input { } [ ] : < > , # 4 -1 99999999999999999999 TYPE_FP32 name dims shape reshape step key value
dynamic_batching ensemble_scheduling parameters model_warmup batch_size inputs version_policy all
specific versions platform max_batch_size "x" "ensemble"
"""
WORDS = st.sampled_from((*TEXT.split(), "\n"))


@settings(max_examples=300)
@given(st.lists(WORDS, max_size=30).map(" ".join) | st.text(max_size=30))
def test_any_text_is_judged(tmp_path_factory, text):
    """Whatever stands in a config, lint tells problems of it and raises nothing."""
    folder = tmp_path_factory.mktemp("any") / "m"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_bytes(text.encode("utf-8", "surrogatepass"))
    problems = lint_repository(folder.parent, cpus=1, slo_p99_ms=None)
    lines = text.count("\n") + 1
    assert all(1 <= p.line <= lines and p.message and p.why and p.remedy for p in problems)
