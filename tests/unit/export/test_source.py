"""What load_source takes, and what it says about the rest."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tritonkit.errors import ModelError, SetupError
from tritonkit.export.source import OnnxSource, TorchModel, TorchSource, load_source, torch_source


class TwoInOut(torch.nn.Module):
    """Two inputs, two outputs."""

    def forward(self, x, y):
        return x + y, x - y


def write(folder: Path, body: str) -> str:
    """A file with a factory `make`, as SOURCE text."""
    (folder / "factories.py").write_text("import torch\n" + body)
    return f"{folder / 'factories.py'}:make"


LINEAR = "def make():\n    return torch.nn.Linear(4, 2), {'input': torch.randn(3, 4)}\n"


def test_file_factory(tmp_path):
    """A factory in a file gives a module in eval mode, its inputs as arrays and output names."""
    source = load_source(write(tmp_path, LINEAR))
    assert isinstance(source, TorchSource)
    assert not source.module.training
    assert source.inputs["input"].shape == (3, 4)
    assert source.output_names == ("output",)


def test_module_factory_in_the_current_folder(tmp_path, monkeypatch):
    """`module:factory` finds a module in the current folder, and leaves sys.path as it was."""
    (tmp_path / "tk_here.py").write_text("import torch\n" + LINEAR)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert isinstance(load_source("tk_here:make"), TorchSource)
    assert sys.path == before
    del sys.modules["tk_here"]


def test_file_imports_its_neighbour(tmp_path):
    """A factory's file can import the file beside it."""
    (tmp_path / "tk_beside.py").write_text("WIDTH = 4\n")
    text = write(tmp_path, "from tk_beside import WIDTH\n" + LINEAR)
    assert load_source(text).inputs["input"].shape[1] == 4
    del sys.modules["tk_beside"]


def test_onnx(onnx_file):
    """A path that ends in .onnx is an ONNX source."""
    path = onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }")
    assert load_source(str(path)) == OnnxSource(str(path), path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing.onnx", "no such model file"),
        ("model.pt2", r"\.pt2 files are not read yet; give package.module:factory"),
        ("model", "is no model source; give package.module:factory"),
        ("no_such_module_xyz:make", "no Python module 'no_such_module_xyz'"),
        ("no_such_package_xyz.inner:make", "no Python module"),
        ("nothing.py:make", "no such Python file"),
        ("json:nothing", "has no factory called 'nothing'"),
        ("json:__name__", "not a function"),
        ("json:", "names no factory"),
    ],
)
def test_text_that_names_nothing(text, words):
    """A text that leads nowhere is answered with what is missing and what to do."""
    with pytest.raises(ModelError, match=words):
        load_source(text)


def test_not_onnx(tmp_path):
    """Bytes that are no ONNX file are refused."""
    (tmp_path / "x.onnx").write_bytes(b"hello, I am not a model" * 10)
    with pytest.raises(ModelError, match="is not an ONNX"):
        load_source(str(tmp_path / "x.onnx"))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def make(): return 1 / 0", "failed .ZeroDivisionError: division by zero."),
        ("import nothing_xyz", "importing .* failed .ModuleNotFoundError"),
        ("def make(:", "importing .* failed .SyntaxError"),
        ("def make(): return 5", "returned a int; return .module, example inputs."),
        ("def make(): return 5, {'x': torch.ones(2, 2)}", "gave a int as its module"),
        ("def make(): return torch.nn.ReLU(), {}", "no example inputs"),
        ("def make(): return torch.nn.ReLU(), {'x': [1.0]}", "input 'x' .*a list, not a tensor"),
        (
            "def make(): return torch.nn.ReLU(), {'x': torch.ones(2, dtype=torch.bfloat16)}",
            "input 'x' cannot be used",
        ),
        ("def make(): return torch.nn.ReLU(), {'x': torch.ones(1, 2)}", "needs 2 rows or more"),
        (
            "def make(): return torch.add, {'x': torch.ones(2), 'y': torch.ones(3)}",
            "as its module",
        ),
        (
            "def make(): return torch.nn.Bilinear(2, 2, 2), "
            "{'input1': torch.ones(2, 2), 'input2': torch.ones(3, 2)}",
            "differ in rows .'input1' 2, 'input2' 3.",
        ),
        (
            "def make(): return torch.nn.Linear(4, 2), {'input': torch.ones(2, 3)}",
            r"the module fails on input\[2, 3\] .RuntimeError",
        ),
        (
            "def make(): return torch.nn.Linear(4, 2), {'x': torch.ones(2, 4)}, ['y', 'z']",
            "give each output one name",
        ),
        (
            "def make(): return torch.nn.Linear(4, 2), {'x': torch.ones(2, 4)}, ['x']",
            "'x' is both an input and an output",
        ),
    ],
)
def test_bad_factory(tmp_path, body, words):
    """A factory that fails or returns something else is named on one line, with what was wrong."""
    with pytest.raises(ModelError, match=words) as caught:
        load_source(write(tmp_path, body + "\n"))
    assert "\n" not in str(caught.value)


def test_tritonkit_error_of_a_factory(tmp_path):
    """An error of tritonkit's own passes through a factory call."""
    body = (
        "def make():\n    from tritonkit.errors import SetupError\n    raise SetupError('mine')\n"
    )
    with pytest.raises(SetupError, match="mine"):
        load_source(write(tmp_path, body))


def test_inputs_by_name():
    """Inputs named after forward's parameters are passed by name, whatever their order."""
    one, two = np.ones((2, 1), np.float32), np.full((2, 1), 2, np.float32)
    source = torch_source(TorchModel(TwoInOut(), {"y": one, "x": two}), "t")
    assert source.run(source.inputs)["output_1"].tolist() == [[1], [1]]


def test_inputs_in_order():
    """Inputs with none of forward's names are passed in order."""
    one, two = np.ones((2, 1), np.float32), np.full((2, 1), 2, np.float32)
    source = torch_source(TorchModel(TwoInOut(), {"a": one, "b": two}), "t")
    assert source.run(source.inputs)["output_1"].tolist() == [[-1], [-1]]


def test_inputs_half_named():
    """Inputs of which only some are forward's parameters are refused: either way may be wrong."""
    one = np.ones((2, 1), np.float32)
    with pytest.raises(ModelError, match=r"no parameter 'b' .it has x, y."):
        torch_source(TorchModel(TwoInOut(), {"y": one, "b": one}), "t")


def test_dict_output():
    """The keys of a dict are the output names."""

    class Named(torch.nn.Module):
        def forward(self, x):
            return {"twice": 2 * x, "half": x / 2}

    source = torch_source(TorchModel(Named(), {"x": torch.ones(2, 1)}), "t")
    assert source.output_names == ("twice", "half")


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"q": {1: "sequence"}}, "'q', which is no input"),
        ({"x": {0: "rows"}}, "dynamic axis 0"),
        ({"x": {2: "sequence"}}, "further ones are 1 to 1"),
        ({"x": {1: "batch"}}, "the batch is axis 0"),
        ({"x": {1: "n"}, "y": {1: "n"}}, "has size 5; give examples of one size"),
    ],
)
def test_bad_dynamic_axes(axes, words):
    """dynamic_axes that do not fit the examples are refused with the axis."""
    inputs = {"x": torch.ones(2, 4), "y": torch.ones(2, 5)}
    with pytest.raises(ModelError, match=words):
        torch_source(TorchModel(TwoInOut(), inputs, dynamic_axes=axes), "t")
