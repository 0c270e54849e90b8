"""The folder that an export leaves, or does not leave."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tritonkit.errors import CheckFailedError, InputError, ModelError
from tritonkit.export import export as exporting
from tritonkit.export.export import export_model
from tritonkit.export.source import OnnxSource, TorchModel, torch_source
from tritonkit.payloads import read_payloads
from tritonkit.verification import Verdict, read_verification

RELU = "(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }"


def source_of(path: Path) -> OnnxSource:
    """The file as a source."""
    return OnnxSource(str(path), path)


def test_onnx_is_copied(onnx_file, tmp_path):
    """An ONNX file is copied byte for byte."""
    path = onnx_file(RELU)
    exported = export_model(source_of(path), tmp_path / "out")
    assert exported.model.read_bytes() == path.read_bytes()
    assert exported.exporter == "copy"


def test_verification(onnx_file, tmp_path):
    """verification.json says what was exported, with what, and what was checked."""
    path = onnx_file(RELU)
    exported = export_model(source_of(path), tmp_path / "out", notes=["made up"])
    record = json.loads((exported.folder / "verification.json").read_text())
    assert record["source"] == str(path)
    assert record["notes"] == ["made up"]
    assert record["signature"]["inputs"] == [{"name": "x", "dtype": "FP32", "shape": ["batch", 4]}]
    assert record["sha256"] == {"model.onnx": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert record["opset"] == {"ai.onnx": 17}
    assert set(record["versions"]) == {"onnx", "onnxruntime"}
    assert record["parity"] is None and record["rewrite"] is None
    assert record["check"] == json.loads(json.dumps(exported.proof.to_json()))
    assert record["check"]["verdict"] == "safe" and record["check"]["max_batch_size"] == 32


def test_verification_of_a_torch_model(tmp_path):
    """What PyTorch answers is compared at several batches, and the numbers are kept."""
    source = torch_source(TorchModel(torch.nn.Linear(4, 2), {"x": torch.randn(3, 4)}), "t")
    exported = export_model(source, tmp_path / "out", max_batch_size=4)
    record = json.loads((exported.folder / "verification.json").read_text())
    assert record["parity"]["against"] == "PyTorch"
    assert record["parity"]["tolerances"]["output"]["relative"] == 1e-3
    assert [b["batch"] for b in record["parity"]["batches"]][:4] == [1, 2, 3, 7]
    assert record["check"]["batches"] == [1, 2, 3, 4]


def test_random_payloads_are_kept(onnx_file, tmp_path):
    """An ONNX file without payloads gets random ones, and says so."""
    exported = export_model(source_of(onnx_file(RELU)), tmp_path / "out")
    record = json.loads((exported.folder / "verification.json").read_text())
    assert record["payloads"] == {"count": 64, "origin": "random"}
    assert len(read_payloads(exported.folder / "payloads.npz")) == 64


def test_torch_payloads_are_the_examples(tmp_path):
    """A PyTorch model without payloads gets the rows of its example inputs."""
    examples = torch.randn(3, 4)
    source = torch_source(TorchModel(torch.nn.ReLU(), {"x": examples}), "t")
    exported = export_model(source, tmp_path / "out")
    payloads = read_payloads(exported.folder / "payloads.npz")
    assert np.concatenate([p["x"] for p in payloads]).tolist() == examples.tolist()
    assert exported.parity.against == "PyTorch"


def test_torch_rows_that_feel_each_other(tmp_path):
    """A PyTorch module that mixes rows is refused, though its ONNX file is faithful."""

    class Centred(torch.nn.Module):
        def forward(self, x):
            return x - x.mean(0, keepdim=True)

    source = torch_source(TorchModel(Centred(), {"x": torch.randn(3, 4)}), "t")
    with pytest.raises(CheckFailedError, match=r"^t is unsafe: .* node .node_mean"):
        export_model(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_left_after_a_mismatch(onnx_file, tmp_path):
    """A model whose rows feel each other leaves no folder, not even a temporary one."""
    graph = """(float[batch,4] x) => (float[batch,4] y)
        { m = ReduceMean<axes=[0], keepdims=1>(x)  y = Sub(x, m) }"""
    path = onnx_file(graph)
    with pytest.raises(CheckFailedError):
        export_model(source_of(path), tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_left_after_an_interrupt(onnx_file, tmp_path, monkeypatch):
    """Ctrl-C just before the end leaves nothing either."""

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "_versions", interrupt)
    path = onnx_file(RELU)
    with pytest.raises(KeyboardInterrupt):
        export_model(source_of(path), tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_failure_keeps_the_old_folder(onnx_file, tmp_path, monkeypatch):
    """A failed export over an earlier one leaves that as it was."""
    source = source_of(onnx_file(RELU))
    folder = export_model(source, tmp_path / "out").folder
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(exporting, "check_model", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_model(source, tmp_path / "out")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_export_over_an_old_folder(onnx_file, tmp_path):
    """A second export replaces the first and leaves other files alone."""
    export_model(source_of(onnx_file(RELU)), tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("mine")
    other = onnx_file(RELU.replace("Relu", "Tanh"), "other.onnx")
    exported = export_model(source_of(other), tmp_path / "out")
    assert exported.model.read_bytes() == other.read_bytes()
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_out_dir_is_a_file(onnx_file, tmp_path):
    """A file where the folder should be is refused."""
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file; give a folder"):
        export_model(source_of(onnx_file(RELU)), tmp_path / "out")


def test_folder_is_readable_by_others(onnx_file, tmp_path):
    """The folder has the permissions that any new folder has, so that a container can read it."""
    (tmp_path / "plain").mkdir()
    exported = export_model(source_of(onnx_file(RELU)), tmp_path / "out")
    assert exported.folder.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("size", [1, 4])
def test_fixed_batch(onnx_file, tmp_path, size):
    """A batch that is fixed is made dynamic, and what was changed is written down."""
    graph = f"""(float[{size},4] pixels) => (float[{size},2,2] y)
        {{ s = Constant<value_ints=[{size},2,2]>() [shaped] y = Reshape(pixels, s) }}"""
    exported = export_model(source_of(onnx_file(graph)), tmp_path / "out")
    assert [str(t) for t in exported.signature.inputs] == ["pixels:FP32[batch,4]"]
    assert exported.proof.passed and exported.proof.max_batch_size == 32
    record = json.loads((exported.folder / "verification.json").read_text())
    assert record["rewrite"]["batch"] == size and "shaped" in record["rewrite"]["changed"][0]


def test_no_batch_is_refused(onnx_file, tmp_path):
    """A model that pools over its first dimension is refused, and nothing is left."""
    path = onnx_file("(float[points,4] x) => (float[1,4] y) { y = ReduceMax<axes=[0]>(x) }")
    with pytest.raises(CheckFailedError, match=r"is not batchable: .* is a set"):
        export_model(source_of(path), tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_scalar_input(onnx_file, tmp_path):
    """A model with a scalar input is not batchable, and is written with force."""
    path = onnx_file("(float[batch,4] x, float k) => (float[batch,4] y) { y = Mul(x, k) }")
    exported = export_model(source_of(path), tmp_path / "out", force=True)
    assert [f.tensor for f in exported.proof.findings] == ["k"]


def test_force(onnx_file, tmp_path):
    """With force it is written all the same, and its verification says what it is."""
    path = onnx_file("(float[points,4] x) => (float[1,4] y) { y = ReduceMax<axes=[0]>(x) }")
    exported = export_model(source_of(path), tmp_path / "out", force=True)
    read = read_verification(exported.folder / "verification.json", exported.model)
    assert (read.verdict, read.max_batch_size) == (Verdict.NOT_BATCHABLE, 0)
    assert "is a set" in read.reasons[0]


def test_unloadable_file_is_named(onnx_file, tmp_path):
    """What ONNX Runtime cannot load is named by the user's path, not a temporary one."""
    path = onnx_file(RELU)
    path.write_bytes(path.read_bytes().replace(b"Relu", b"Rely"))
    with pytest.raises(ModelError, match=f"^{path}: ONNX Runtime cannot load it"):
        export_model(source_of(path), tmp_path / "out")


def external(folder: Path, location: str) -> Path:
    """A model whose one weight lies in `location`."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[batch,4] x) => (float[batch,4] y)
        <float[4] w = {1.0, 2.0, 3.0, 4.0}> { y = Mul(x, w) }"""
    )
    weight = model.graph.initializer[0]
    weight.raw_data = onnx.numpy_helper.to_array(weight).tobytes()
    del weight.float_data[:]
    onnx.external_data_helper.set_external_data(weight, location)
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    path = folder / "big.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path):
    """External data goes along to the same place, and is hashed too."""
    path = external(tmp_path, "weights/w.bin")
    exported = export_model(source_of(path), tmp_path / "out")
    assert (exported.folder / "weights" / "w.bin").stat().st_size == 16
    record = json.loads((exported.folder / "verification.json").read_text())
    assert set(record["sha256"]) == {"model.onnx", "weights/w.bin"}


def test_external_data_missing(tmp_path):
    """External data that is not there is named."""
    path = external(tmp_path, "w.bin")
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"external data file .*w.bin is missing"):
        export_model(source_of(path), tmp_path / "out")


def test_external_data_outside(tmp_path):
    """External data outside the model's folder is refused."""
    (tmp_path / "inner").mkdir()
    path = external(tmp_path / "inner", "../w.bin")
    with pytest.raises(ModelError, match="lies outside the model's folder"):
        export_model(source_of(path), tmp_path / "out")


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"z": np.ones((1, 4), np.float32)}, r"payload 0 has inputs \['z'\], the model \['x'\]"),
        ({"x": np.ones((1, 5), np.float32)}, r"'x' is float32\[1, 5\], but one row of x:FP32"),
        ({"x": np.ones((2, 4), np.float32)}, "one row of"),
        ({"x": np.ones((1, 4))}, "'x' is float64"),
    ],
)
def test_payload_that_does_not_fit(onnx_file, tmp_path, payload, words):
    """A payload with another name, shape, number of rows or dtype is refused."""
    with pytest.raises(ModelError, match=words):
        export_model(source_of(onnx_file(RELU)), tmp_path / "out", payloads=[payload])


def test_no_payload(onnx_file, tmp_path):
    """An empty list of payloads is refused: it is a mistake."""
    with pytest.raises(ModelError, match="an empty list of payloads"):
        export_model(source_of(onnx_file(RELU)), tmp_path / "out", payloads=[])
