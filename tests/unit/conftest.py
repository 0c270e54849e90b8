"""Small ONNX files for the export tests, written in ONNX's own text form."""

from collections.abc import Callable
from pathlib import Path

import onnx.parser
import pytest


@pytest.fixture
def onnx_file(tmp_path: Path) -> Callable[..., Path]:
    """`onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }")` → its path."""

    def write(graph: str, name: str = "small.onnx") -> Path:
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {graph}')
        onnx.checker.check_model(model)
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return write
