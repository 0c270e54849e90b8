"""Which exporter is used, and that what it writes is right."""

import warnings

import onnx
import pytest
import torch

from tritonkit.errors import CheckFailedError, ModelError
from tritonkit.export import torch_to_onnx as exporting
from tritonkit.export.inputs import read_examples
from tritonkit.export.source import TorchModel, torch_source
from tritonkit.export.torch_to_onnx import check_export, torch_to_onnx
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


def test_large_weights_by_torchscript(tmp_path, monkeypatch):
    """The older exporter's weights go into one other file too, whatever it made of them."""
    monkeypatch.setattr(exporting, "_ONE_FILE_BYTES", 10)
    monkeypatch.setattr(exporting, "_by_dynamo", refuse)
    source = torch_source(TorchModel(torch.nn.Linear(64, 64), {"x": torch.randn(2, 64)}), "t")
    assert torch_to_onnx(source, tmp_path / "model.onnx").exporter == "torchscript"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


def refuse(source, path):
    """An exporter that takes nothing."""
    raise RuntimeError("no\nfurther advice")


class EachRow(torch.nn.Module):
    """Unrolls the batch: dynamo fixes it, and tracing follows the examples' number of rows."""

    def forward(self, x):
        return torch.cat([x[i : i + 1] * 2 for i in range(int(x.shape[0]))])


def test_fixed_batch_where_dynamic_fails(tmp_path):
    """Where neither exporter can do a dynamic batch, a file for one row is written, and said so."""
    source = torch_source(TorchModel(EachRow(), {"x": torch.randn(3, 4)}), "t")
    export = torch_to_onnx(source, tmp_path / "model.onnx")
    assert (export.exporter, export.fixed_batch, export.parity) == ("dynamo, fixed batch", 1, None)
    assert export.why.startswith("the dynamo exporter failed: it fixed the batch: x:FP32[3,4]")
    assert "the torchscript exporter was wrong" in export.why
    assert str(read_signature(tmp_path / "model.onnx").inputs[0]) == "x:FP32[1,4]"


def test_no_fixed_batch_where_the_answers_are_wrong(tmp_path):
    """A module that answers at random is not tried once more with a fixed batch."""

    class Noisy(torch.nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    source = torch_source(TorchModel(Noisy(), {"x": torch.randn(3, 4)}), "t")
    with pytest.raises(CheckFailedError, match="both exporters tried"):
        torch_to_onnx(source, tmp_path / "model.onnx")


def test_module_of_a_fixed_batch(tmp_path):
    """A module that takes one row only is exported for one row."""

    class Flat(torch.nn.Module):
        def forward(self, x):
            return x.reshape(1, 2, 2) * 2

    source = torch_source(TorchModel(Flat(), {"x": torch.randn(3, 4)}), "t")
    export = torch_to_onnx(source, tmp_path / "model.onnx")
    assert (export.exporter, export.fixed_batch) == ("dynamo, fixed batch", 1)
    assert export.why == "it takes batches of 1 only"


def test_check_export(tmp_path):
    """The check of a rewritten file passes the right one and refuses another module's."""
    inputs = {"x": torch.randn(3, 4)}
    relu = torch_source(TorchModel(torch.nn.ReLU(), inputs), "t")
    torch_to_onnx(relu, tmp_path / "model.onnx")
    assert check_export(relu, tmp_path / "model.onnx").max_abs_diff == 0
    tanh = torch_source(TorchModel(torch.nn.Tanh(), inputs), "t")
    with pytest.raises(CheckFailedError, match="is not that of PyTorch"):
        check_export(tanh, tmp_path / "model.onnx")


class Types(torch.nn.Module):
    """Every kind of number, in and out, and None."""

    def forward(self, flag, small, byte, half, double, ids):
        return {"flag2": ~flag, "rest": (small + 1, byte, None, half * 2, double * 2), "ids2": ids}


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_types_and_nested_outputs(tmp_path, monkeypatch, exporter):
    """All dtypes and nested outputs go through either exporter under the names of the source."""
    if exporter == "torchscript":
        monkeypatch.setattr(exporting, "_by_dynamo", refuse)
    specs = ["flag:bool[batch,2]", "small:int8[batch]", "byte:uint8[batch,2]"]
    specs += ["half:half[batch,2]", "double:double[batch,n]", "ids:INT64[batch,n]"]
    source = torch_source(TorchModel(Types(), None), "t", read_examples(specs))
    export = torch_to_onnx(source, tmp_path / "model.onnx")
    assert export.exporter == exporter
    assert [str(t) for t in read_signature(tmp_path / "model.onnx").outputs] == [
        "flag2:BOOL[batch,2]",
        "rest_0:INT8[batch]",
        "rest_1:UINT8[batch,2]",
        "rest_3:FP16[batch,2]",
        "rest_4:FP64[batch,n]",
        "ids2:INT64[batch,n]",
    ]


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_order_of_inputs(tmp_path, monkeypatch, exporter):
    """Inputs given in another order than forward's keep their names."""

    class Minus(torch.nn.Module):
        def forward(self, x, y):
            return x - y

    if exporter == "torchscript":
        monkeypatch.setattr(exporting, "_by_dynamo", refuse)
    inputs = {"y": torch.randn(2, 3), "x": torch.randn(2, 3)}
    source = torch_source(TorchModel(Minus(), inputs), "t")
    assert torch_to_onnx(source, tmp_path / "model.onnx").exporter == exporter


def test_branch_is_told(tmp_path):
    """A file that follows one side of a branch on values says so."""
    source = torch_source(TorchModel(Branching(), {"x": torch.randn(2, 6, 4)}), "t")
    why = torch_to_onnx(source, tmp_path / "model.onnx").why
    assert why.endswith("branches on values or sizes: the file always goes the examples' way")


def test_opset(tmp_path):
    """The opset that was asked for is written."""
    model = TorchModel(torch.nn.ReLU(), {"x": torch.randn(2, 4)})
    torch_to_onnx(torch_source(model, "t", opset=17), tmp_path / "model.onnx")
    assert onnx.load(tmp_path / "model.onnx").opset_import[0].version == 17


def test_opset_that_nobody_writes(tmp_path, capfd):
    """An opset that cannot be written is refused, without a word of the exporters' own."""
    model = TorchModel(torch.nn.ReLU(), {"x": torch.randn(2, 4)})
    with pytest.raises(ModelError, match=r"cannot write 99; .*choose another opset than 99"):
        torch_to_onnx(torch_source(model, "t", opset=99), tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore")  # torch.jit.script says that it is old
def test_script_module(tmp_path):
    """A scripted module, which dynamo refuses, goes through the older exporter."""
    module = torch.jit.script(torch.nn.Linear(4, 2))
    source = torch_source(TorchModel(module, {"input": torch.randn(2, 4)}), "t")
    assert torch_to_onnx(source, tmp_path / "model.onnx").exporter == "torchscript"
