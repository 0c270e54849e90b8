"""What can be compared, before anything is started."""

import onnx
import onnx.parser
import pytest

from tritonkit.bench.subject import prepare
from tritonkit.errors import InputError
from tritonkit.repository.package import Settings, package_model
from tritonkit.repository.stateful import Sequences


def test_stateful(tmp_path):
    """A stateful model, whose requests belong to sequences, is refused in one line."""
    graph = """(float[N,2] x, float[N,2] h) => (float[N,2] y, float[N,2] g)
    { y = Add(x, h) g = Identity(y) }"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {graph}')
    onnx.save(model, tmp_path / "m.onnx")
    settings = Settings(8, Sequences(states={"h": "g"}))
    package_model(tmp_path / "m.onnx", "m", tmp_path / "repo", settings)
    with pytest.raises(InputError, match="model 'm' is stateful: its requests belong to sequences"):
        prepare(tmp_path / "repo", "m")
