"""Models in a repository, and plans of them as files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.deploy import plans

from tritonkit.load.level import LevelRecord
from tritonkit.plan.settings import Settings as Planned
from tritonkit.repository.package import Settings, package_model


@pytest.fixture
def repository(tmp_path: Path, onnx_file: Callable[..., Path]) -> Callable[..., Path]:
    """`repository("ranker", threads=2)` packages a model; returns the repository."""

    def put(name: str, *, max_batch_size: int = 8, **settings: Any) -> Path:
        model = onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }")
        package_model(model, name, tmp_path / "repo", Settings(max_batch_size, **settings))
        return tmp_path / "repo"

    return put


@pytest.fixture
def level() -> Callable[..., LevelRecord]:
    """`level(700, 4.0)`: an open loop at 700 requests/s, in which requests waited 4 ms."""
    return plans.level


@pytest.fixture
def plan_file(tmp_path: Path) -> Callable[..., Path]:
    """`plan_file("ranker", settings, levels=…)` writes a plan.json; returns its path."""

    def write(model: str, settings: Planned, **measured: Any) -> Path:
        folder = tmp_path / "plans" / model
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "plan.json"
        path.write_text(json.dumps(plans.plan_of(model, settings, **measured)), encoding="utf-8")
        return path

    return write
