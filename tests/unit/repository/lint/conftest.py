"""A repository to spoil, block by block, and lint on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from onnx.parser import parse_model

from tritonkit.repository.lint.problem import Problem
from tritonkit.repository.lint.repository import lint_repository

GRAPH = "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"

# Nothing is wrong with this config, but nobody proved the model.
BLOCKS = {
    "first": "",
    "backend": 'backend: "onnxruntime"',
    "most": "max_batch_size: 8",
    "x": 'input { name: "x" data_type: TYPE_FP32 dims: 4 }',
    "y": 'output { name: "y" data_type: TYPE_FP32 dims: 4 }',
    "group": "instance_group { count: 1 kind: KIND_CPU }",
    "batching": "dynamic_batching { default_queue_policy { max_queue_size: 64 } }",
    "threads": 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }',
    "more": "",
}


@dataclass(frozen=True)
class Repository:
    path: Path

    def add(self, name: str = "m", graph: str | None = GRAPH, **blocks: str) -> Path:
        """Write a model (none for graph=None) and its config; returns the model's folder."""
        folder = self.path / name
        (folder / "1").mkdir(parents=True)
        if graph is not None:
            model = parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {graph}')
            onnx.save(model, folder / "1" / "model.onnx")
        config = "\n".join({**BLOCKS, **blocks}.values())
        (folder / "config.pbtxt").write_text(config, encoding="utf-8")
        return folder

    def lint(self, *models: str, **limits: object) -> list[Problem]:
        given = {"cpus": 2, "slo_p99_ms": None, **limits}
        return lint_repository(self.path, models=models, **given)  # type: ignore[arg-type]

    def found(self, rule: str, model: str = "m", **limits: object) -> list[int]:
        """The lines at which one rule finds something in one model's config."""
        problems = [problem for problem in self.lint(model, **limits) if problem.rule == rule]
        assert {p.file for p in problems} <= {self.path / model / "config.pbtxt"}
        return [problem.line for problem in problems]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    path = tmp_path / "repository"
    path.mkdir()
    return Repository(path)


@pytest.fixture
def check(tmp_path: Path) -> Callable[[str, Mapping[str, object], Mapping[str, object]], None]:
    """`check(rule, broken, twin)`: the rule finds what `broken` marks with `#!`, and nothing else,
    and in `twin` nothing. Both are blocks in place of the healthy ones, a graph, limits.
    """

    def found(rule: str, given: Mapping[str, object], name: str) -> tuple[list[int], str]:
        (tmp_path / name).mkdir()
        repository = Repository(tmp_path / name)
        limits = {key: given[key] for key in given if key in ("cpus", "slo_p99_ms", "gpu")}
        blocks = {key: given[key] for key in given if key not in limits}
        folder = repository.add(**blocks)  # type: ignore[arg-type]
        return repository.found(rule, **limits), (folder / "config.pbtxt").read_text()

    def both(rule: str, broken: Mapping[str, object], twin: Mapping[str, object]) -> None:
        lines, text = found(rule, broken, "broken")
        marked = [n for n, line in enumerate(text.split("\n"), start=1) if "#!" in line]
        assert marked and lines == marked
        lines, text = found(rule, twin, "twin")
        assert "#!" not in text and lines == []

    return both
