"""Problems in SARIF 2.1.0, which code hosts show beside the lines of a change."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tritonkit.repository.lint.problem import Problem
from tritonkit.repository.lint.rules import RULES

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def to_sarif(problems: Sequence[Problem], root: Path) -> dict[str, Any]:
    """A SARIF log, ready for `json.dumps`. Files are told relative to `root`, if they lie in it."""
    rules = [
        {
            "id": rule.id,
            "shortDescription": {"text": rule.summary},
            "defaultConfiguration": {"level": rule.severity.value},
        }
        for rule in RULES
    ]
    index = {rule.id: i for i, rule in enumerate(RULES)}
    results = [
        {
            "ruleId": problem.rule,
            "ruleIndex": index[problem.rule],
            "level": problem.severity.value,
            "message": {"text": f"{problem.message}: {problem.why}; {problem.remedy}"},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _uri(problem.file, root)},
                        "region": {"startLine": problem.line},
                    }
                }
            ],
        }
        for problem in problems
    ]
    driver = {"name": "tritonkit", "version": version("tritonkit"), "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _uri(file: Path, root: Path) -> str:
    """Relative with forward slashes below `root`; else absolute, `file:///…`."""
    file = file.absolute()
    if file.is_relative_to(root):
        return quote(file.relative_to(root).as_posix())
    return file.as_uri()
