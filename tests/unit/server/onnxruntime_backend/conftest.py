"""A small ONNX file for the tests of this folder."""

from __future__ import annotations

import onnx
import pytest
from onnx.parser import parse_model

DOUBLE = "(float[N,3] x) => (float[N,3] y) { y = Add(x, x) }"


@pytest.fixture
def version(tmp_path):
    """A version's folder with a model.onnx that doubles `x` `[N, 3]`."""
    model = parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {DOUBLE}')
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path
