"""Packaging: an export or a bare ONNX file becomes a repository entry."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from tritonkit.errors import ModelError, RepositoryError
from tritonkit.repository.config import DynamicBatching
from tritonkit.repository.layout import model_file, read_config
from tritonkit.repository.package import Settings, package_model

SCALE = """(float[batch,2] x) => (float[batch,2] y)
<float[2] w = {2.0, 3.0}> { y = Mul(x, w) }"""


def saved(path: Path, graph: str = SCALE, data: str | None = None) -> Path:
    """An ONNX file from its text form, with its weight in the file `data` if given."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {graph}')
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        onnx.save(model, path)
        return path
    (weight,) = model.graph.initializer
    raw = onnx.numpy_helper.to_array(weight).tobytes()
    weight.ClearField("float_data")
    weight.raw_data = raw
    onnx.external_data_helper.set_external_data(weight, data)
    (path.parent / data).parent.mkdir(parents=True, exist_ok=True)
    (path.parent / data).write_bytes(raw)
    weight.ClearField("raw_data")
    onnx.save(model, path)
    return path


def exported(folder: Path, data: str | None = None) -> Path:
    """An export folder as `tritonkit export` leaves it."""
    saved(folder / "model.onnx", data=data)
    (folder / "verification.json").write_text(json.dumps({"source": "here"}))
    (folder / "payloads.npz").write_bytes(b"payloads")
    return folder


def files(folder: Path) -> list[str]:
    """All files under a folder, by relative path."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def answers(repository: Path) -> list:
    """What the packaged model makes of [[1, 1]], in a session on its own file."""
    session = onnxruntime.InferenceSession(model_file(repository, "m"))
    return session.run(None, {"x": np.ones((1, 2), np.float32)})[0].tolist()


def test_export_folder(tmp_path):
    """From an export folder come the model and its proof; the payloads lie beside the version."""
    written = package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", Settings(8))
    assert written == tmp_path / "repo" / "m" / "1"
    assert files(tmp_path / "repo" / "m") == [
        "1/model.onnx",
        "1/verification.json",
        "config.pbtxt",
        "payloads.npz",
    ]


def test_only_the_export(tmp_path):
    """Files that are not of the export are left where they are."""
    folder = exported(tmp_path / "out")
    (folder / "old.data").write_text("of an earlier export")
    assert files(package_model(folder, "m", tmp_path / "repo", Settings(8))) == [
        "model.onnx",
        "verification.json",
    ]


def test_bare_file(tmp_path):
    """A bare .onnx file of any name becomes model.onnx, which runs as before."""
    path = saved(tmp_path / "in" / "scale.onnx")
    (path.parent / "payloads.npz").write_bytes(b"not its own")
    written = package_model(path, "m", tmp_path / "repo", Settings(8))
    assert files(written.parent) == ["1/model.onnx", "config.pbtxt"]
    assert answers(tmp_path / "repo") == [[2.0, 3.0]]


@pytest.mark.parametrize("data", ["weights.bin", "deep/er/weights.bin"])
@pytest.mark.parametrize("bare", [True, False])
def test_external_data(tmp_path, data, bare):
    """External data travels along to the same place, also into subfolders, and is found there."""
    folder = exported(tmp_path / "out", data)
    source = folder / "model.onnx" if bare else folder
    written = package_model(source, "m", tmp_path / "repo", Settings(8))
    assert data in files(written)
    for path in sorted(folder.rglob("*"), reverse=True):  # so that it cannot be what is read
        path.rmdir() if path.is_dir() else path.unlink()
    assert answers(tmp_path / "repo") == [[2.0, 3.0]]


def test_external_data_missing(tmp_path):
    """External data that is missing is named, and nothing is written."""
    folder = exported(tmp_path / "out", "weights.bin")
    (folder / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"external data file .*weights\.bin is missing"):
        package_model(folder, "m", tmp_path / "repo", Settings(8))
    assert not (tmp_path / "repo").exists()


def test_external_data_outside(tmp_path):
    """External data outside the model's folder is refused, and nothing is written."""
    folder = exported(tmp_path / "out", "../weights.bin")
    with pytest.raises(ModelError, match=r"'\.\./weights\.bin' lies outside the model's folder"):
        package_model(folder, "m", tmp_path / "repo", Settings(8))
    assert not (tmp_path / "repo").exists()


def test_settings(tmp_path):
    """What was asked for is what the config says."""
    settings = Settings(8, 250, (2, 4), instances=3, threads=5)
    package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", settings)
    config = read_config(tmp_path / "repo", "m")
    assert config.dynamic_batching == DynamicBatching(250, (2, 4))
    assert (config.max_batch_size, config.instances, config.intra_op_threads) == (8, 3, 5)
    assert config.warmup_batch_sizes == (1, 4, 8)


def test_defaults(tmp_path):
    """By default batches form without waiting and without preferred sizes."""
    package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", Settings(8))
    assert read_config(tmp_path / "repo", "m").dynamic_batching == DynamicBatching(0, ())


@pytest.mark.parametrize("settings", [Settings(8, None), Settings(0, 100)])
def test_no_scheduler(tmp_path, settings):
    """Without a delay, or without batches, there is no scheduler."""
    package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", settings)
    assert read_config(tmp_path / "repo", "m").dynamic_batching is None
    assert "dynamic_batching" not in (tmp_path / "repo/m/config.pbtxt").read_text()


FIXED = "(float[batch,2] x) => (float[1,2] total) { total = ReduceMean<axes=[0]>(x) }"


def test_no_batch_axis(tmp_path):
    """A model without a batch axis is refused by the tensor's name, and nothing is written."""
    path = saved(tmp_path / "fixed.onnx", FIXED)
    with pytest.raises(ModelError, match=re.escape("tensor total:FP32[1,2] has no batch axis")):
        package_model(path, "m", tmp_path / "repo", Settings(8))
    assert files(tmp_path) == ["fixed.onnx"]
    assert not (tmp_path / "repo").exists()


def test_no_batch_axis_unbatched(tmp_path):
    """With a max_batch_size of 0 such a model is packaged, with all its dimensions."""
    package_model(saved(tmp_path / "f.onnx", FIXED), "m", tmp_path / "repo", Settings(0))
    config = read_config(tmp_path / "repo", "m")
    assert config.max_batch_size == 0
    assert [t.dims for t in (*config.inputs, *config.outputs)] == [(-1, 2), (1, 2)]


def test_not_an_export(tmp_path):
    """A folder without model.onnx is refused with the way to make one."""
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"out has no model\.onnx; make one with: tritonkit ex"):
        package_model(tmp_path / "out", "m", tmp_path / "repo", Settings(8))
    assert not (tmp_path / "repo").exists()


def test_missing(tmp_path):
    """A source that is not there is named."""
    with pytest.raises(ModelError, match=r"no such model file: .*/out"):
        package_model(tmp_path / "out", "m", tmp_path / "repo", Settings(8))
    assert not (tmp_path / "repo").exists()


def test_bad_name(tmp_path):
    """A name that is no folder name is refused, and nothing is written."""
    with pytest.raises(RepositoryError, match="must be a plain folder name"):
        package_model(exported(tmp_path / "out"), "../m", tmp_path / "repo", Settings(8))
    assert not (tmp_path / "repo").exists()
    assert not (tmp_path / "m").exists()


def test_version(tmp_path):
    """The version that was asked for is written."""
    source = exported(tmp_path / "out")
    assert package_model(source, "m", tmp_path / "repo", Settings(8), version=4).name == "4"
    assert package_model(source, "m", tmp_path / "repo", Settings(8)).name == "5"
