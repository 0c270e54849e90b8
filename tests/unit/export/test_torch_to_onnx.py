"""Which exporter is used, and that what it writes is right."""

import warnings

import pytest
import torch

from tritonkit.errors import CheckFailedError, ModelError
from tritonkit.export import torch_to_onnx as exporting
from tritonkit.export.source import TorchModel, torch_source
from tritonkit.export.torch_to_onnx import torch_to_onnx
from tritonkit.signature import read_signature


class Clashing(torch.nn.Module):
    """Two inputs of two dynamic axes, dropout, and outputs named like what is inside."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((4,), 2.0))
        self.linear = torch.nn.Linear(4, 3)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x, y):
        return self.dropout(x * self.scale), self.linear(y)


class Branching(torch.nn.Module):
    """A branch on a value: torch.export refuses it, tracing follows one side. Here always the same.

    The output's second axis is the input's; its third never changes.
    """

    def forward(self, x):
        return torch.cat([x, x], dim=2) if x.abs().sum() >= 0 else x


@pytest.fixture(scope="module")
def clashing(tmp_path_factory):
    """(the export, the file) of Clashing."""
    inputs = {"x": torch.randn(3, 6, 4), "y": torch.randn(3, 4)}
    model = TorchModel(Clashing(), inputs, {"x": {1: "sequence"}}, ["scale", "linear"])
    path = tmp_path_factory.mktemp("clashing") / "model.onnx"
    return torch_to_onnx(torch_source(model, "t"), path), path


def test_dynamo_first(clashing):
    """A plain module goes through the dynamo exporter, into one file."""
    export, path = clashing
    assert export.exporter == "dynamo"
    assert list(path.parent.iterdir()) == [path]


def test_signature(clashing):
    """Names, dtypes and dynamic axes are those that the source gave."""
    signature = read_signature(clashing[1])
    assert [str(t) for t in (*signature.inputs, *signature.outputs)] == [
        "x:FP32[batch,sequence,4]",
        "y:FP32[batch,4]",
        "scale:FP32[batch,sequence,4]",
        "linear:FP32[batch,3]",
    ]


def test_train_mode_is_left(clashing):
    """Dropout of a module handed over in train mode does nothing: the answers agree."""
    assert clashing[0].parity.max_abs_diff < 1e-5


def test_further_sizes_are_tried(clashing):
    """A named dimension is also run at half its size."""
    assert {b.sizes["sequence"] for b in clashing[0].parity.batches} == {6, 3}


def test_torchscript_where_dynamo_fails(tmp_path, capfd):
    """The older exporter takes what dynamo refuses, says why, and writes true output shapes.

    Neither says a word on stdout or stderr, or warns.
    """
    model = TorchModel(Branching(), {"x": torch.randn(2, 6, 4)}, {"x": {1: "sequence"}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export = torch_to_onnx(torch_source(model, "t"), tmp_path / "model.onnx")
    assert export.exporter == "torchscript"
    assert export.why.startswith("the dynamo exporter failed: GuardOnDataDependentSymNode")
    (output,) = read_signature(tmp_path / "model.onnx").outputs
    assert str(output) == "output:FP32[batch,sequence,8]"
    assert capfd.readouterr() == ("", "")


by_torchscript = exporting._by_torchscript


def write_wrong(source, path):
    """An exporter that exports another module."""
    by_torchscript(torch_source(TorchModel(torch.nn.Tanh(), source.inputs), "wrong"), path)


def test_torchscript_where_dynamo_is_wrong(tmp_path, monkeypatch):
    """A dynamo file that answers something else is thrown away for the older exporter's."""
    monkeypatch.setattr(exporting, "_by_dynamo", write_wrong)
    source = torch_source(TorchModel(torch.nn.ReLU(), {"x": torch.randn(2, 4)}), "t")
    export = torch_to_onnx(source, tmp_path / "model.onnx")
    assert export.exporter == "torchscript"
    assert export.why.startswith("the dynamo exporter was wrong: output 'output' at a batch of 1")


def test_both_wrong(tmp_path, monkeypatch):
    """If no exporter gets it right the numbers are raised."""
    monkeypatch.setattr(exporting, "_by_dynamo", write_wrong)
    monkeypatch.setattr(exporting, "_by_torchscript", write_wrong)
    source = torch_source(TorchModel(torch.nn.ReLU(), {"x": torch.randn(2, 4)}), "t")
    with pytest.raises(CheckFailedError, match=r"is not that of PyTorch: .*both exporters tried"):
        torch_to_onnx(source, tmp_path / "model.onnx")


def test_neither_takes_it(tmp_path, monkeypatch):
    """If both exporters fail, both reasons are told on one line."""

    def refuse(source, path):
        raise RuntimeError("no\nfurther advice")

    monkeypatch.setattr(exporting, "_by_dynamo", refuse)
    monkeypatch.setattr(exporting, "_by_torchscript", refuse)
    source = torch_source(TorchModel(torch.nn.ReLU(), {"x": torch.randn(2, 4)}), "t")
    words = "t: no exporter takes the module; dynamo: RuntimeError: no; torchscript: Runtime"
    with pytest.raises(ModelError, match=words):
        torch_to_onnx(source, tmp_path / "model.onnx")


def test_output_without_rows(tmp_path):
    """A module that sums over the batch is refused: its output has no batch axis."""

    class Total(torch.nn.Module):
        def forward(self, x):
            return x.sum()

    source = torch_source(TorchModel(Total(), {"x": torch.randn(2, 4)}), "t")
    with pytest.raises(ModelError, match=r"tensor output:FP32\[\] has no batch axis"):
        torch_to_onnx(source, tmp_path / "model.onnx")


def test_large_weights(tmp_path, monkeypatch):
    """Weights above the limit of one file go into another beside it, and the pair runs."""
    monkeypatch.setattr(exporting, "_ONE_FILE_BYTES", 10)
    source = torch_source(TorchModel(torch.nn.Linear(64, 64), {"x": torch.randn(2, 64)}), "t")
    assert torch_to_onnx(source, tmp_path / "model.onnx").exporter == "dynamo"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


@pytest.mark.filterwarnings("ignore")  # torch.jit.script says that it is old
def test_script_module(tmp_path):
    """A scripted module, which dynamo refuses, goes through the older exporter."""
    module = torch.jit.script(torch.nn.Linear(4, 2))
    source = torch_source(TorchModel(module, {"input": torch.randn(2, 4)}), "t")
    assert torch_to_onnx(source, tmp_path / "model.onnx").exporter == "torchscript"
