"""TorchScript files."""

from pathlib import Path

import pytest
import torch

from tritonkit.errors import ModelError
from tritonkit.export import torch_to_onnx as exporting
from tritonkit.export.source import load_source
from tritonkit.export.torch_to_onnx import torch_to_onnx
from tritonkit.signature import read_signature

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.jit says that it is old


class Minus(torch.nn.Module):
    """Two inputs whose order matters."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.dropout(x, 0.5, self.training) - y


class Loop(torch.nn.Module):
    """A loop on a value, which only a script can keep."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() > 0):
            return x * 2
        return x * 3


def scripted(folder: Path, module: torch.nn.Module, name: str = "model.pt") -> str:
    """`module` in a TorchScript file."""
    torch.jit.save(torch.jit.script(module), folder / name)
    return str(folder / name)


def test_script(tmp_path):
    """A script in train mode is exported in eval mode, and agrees with itself."""
    path = scripted(tmp_path, Minus())
    source = load_source(path, inputs=["y:float[batch,n]", "x:float[batch,n]"])
    (tmp_path / "out").mkdir()
    export = torch_to_onnx(source, tmp_path / "out" / "model.onnx")
    assert export.exporter == "torchscript"
    assert export.parity.against == "the TorchScript module"
    signature = read_signature(tmp_path / "out" / "model.onnx")
    assert [str(t) for t in (*signature.inputs, *signature.outputs)] == [
        "x:FP32[batch,n]",
        "y:FP32[batch,n]",
        "output:FP32[batch,n]",
    ]


def test_branch_is_kept(tmp_path):
    """A branch on a value stays a branch: nothing is said of the examples' way."""
    source = load_source(scripted(tmp_path, Loop()), inputs=["x:float[batch,4]"])
    (tmp_path / "out").mkdir()
    assert torch_to_onnx(source, tmp_path / "out" / "model.onnx").why == (
        "the exporter of TorchScript"
    )


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.torchscript", "model.pt2", "m"])
def test_content_decides(tmp_path, name):
    """It is TorchScript under whatever name."""
    path = scripted(tmp_path, Minus(), name)
    source = load_source(path, inputs=["x:float[batch]", "y:float[batch]"])
    assert source.against == "the TorchScript module"


def test_no_inputs(tmp_path):
    """Without --input its parameters are said."""
    with pytest.raises(ModelError, match=r"forward\(\) takes x, y.*--input 'x:float32\[batch,…\]'"):
        load_source(scripted(tmp_path, Minus()))


def test_wrong_inputs(tmp_path):
    """An input of another name is refused."""
    with pytest.raises(ModelError, match=r"no parameter 'z' .it has x, y."):
        load_source(scripted(tmp_path, Minus()), inputs=["x:float[batch]", "z:float[batch]"])


def test_nested_outputs(tmp_path):
    """A traced module that returns dicts in tuples is flattened."""

    class Nested(torch.nn.Module):
        def forward(self, x):
            return {"twice": x * 2}, x + 1

    traced = torch.jit.trace(Nested(), (torch.ones(2, 3),), strict=False)
    torch.jit.save(traced, tmp_path / "model.pt")
    source = load_source(str(tmp_path / "model.pt"), inputs=["x:float[batch,3]"])
    assert source.output_names == ("output_0_twice", "output_1")
    (tmp_path / "out").mkdir()
    assert torch_to_onnx(source, tmp_path / "out" / "model.onnx").parity.max_abs_diff == 0


def test_baked_batch(tmp_path):
    """A trace that has the example's batch in an output's shape is refused."""

    class Baked(torch.nn.Module):
        def forward(self, x):
            return x.reshape(2, -1)

    torch.jit.save(torch.jit.trace(Baked(), (torch.ones(2, 12),)), tmp_path / "model.pt")
    source = load_source(str(tmp_path / "model.pt"), inputs=["x:float[batch=3,12]"])
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"tensor output:FP32\[2,output_dim_1\] has no batch axis"):
        torch_to_onnx(source, tmp_path / "out" / "model.onnx")


def test_large_weights(tmp_path, monkeypatch):
    """Weights above the limit go to one file beside the model."""
    monkeypatch.setattr(exporting, "_ONE_FILE_BYTES", 10)
    path = scripted(tmp_path, torch.nn.Linear(64, 64))
    (tmp_path / "out").mkdir()
    torch_to_onnx(
        load_source(path, inputs=["input:float[batch,64]"]), tmp_path / "out" / "model.onnx"
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["model.onnx", "model.onnx.data"]
