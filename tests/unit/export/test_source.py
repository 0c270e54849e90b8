"""What load_source takes, and what it says about the rest."""

import io
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from tritonkit.errors import InputError, ModelError, SetupError
from tritonkit.export.inputs import read_examples
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
        ("model.pt2", "no such model file: model.pt2"),
        ("x" * 5000, "is no model source"),
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
        ("def make(): return 1 / 0", "ZeroDivisionError: division by zero, factories.py line 2"),
        ("import nothing_xyz", "importing .* failed .ModuleNotFoundError.*install the package"),
        ("raise SystemExit(3)", "importing .* failed: it ended the program; put what"),
        ("def make(): raise SystemExit", "it ended the program"),
        ("def make(width, depth=1): ...", r"needs arguments .width.; give .*make.width=…."),
        ("def mke(): ...", "no factory called 'make'; it has mke"),
        (
            "def make(): return torch.nn.Linear(4, 2)",
            "has no example inputs .forward.. takes input.",
        ),
        (
            "def make(): return torch.nn.Linear(4, 2).bfloat16()",
            "has bfloat16 weights, .*return module.float",
        ),
        (
            "def make(): return torch.nn.Linear(4, 2, device='meta'), torch.ones(2, 4)",
            "cannot be moved to the CPU",
        ),
        (
            "class Net(torch.nn.Module):\n  def forward(self, x):\n    return x, 3\n"
            "make = (Net(), torch.ones(2, 4))",
            "has a int as '1'; return a tensor",
        ),
        (
            "class Net(torch.nn.Module):\n  def forward(self, x):\n    return None\n"
            "make = (Net(), torch.ones(2, 4))",
            "NoneType without any tensor",
        ),
        (
            "class Net(torch.nn.Module):\n  def forward(self, x):\n"
            "    assert len(x) > 1, 'too few'\n    return x\nmake = (Net(), torch.ones(2, 4))",
            "takes 2 rows, but fails on a single one .AssertionError: too few.",
        ),
        ("def make(:", "importing .* failed .SyntaxError"),
        ("def make(): return 5", "returned a int; return .module, example inputs."),
        ("def make(): return 5, {'x': torch.ones(2, 2)}", "gave a int as its module"),
        ("def make(): return torch.nn.ReLU(), {}", "no example inputs"),
        ("def make(): return torch.nn.ReLU(), {'x': [1.0]}", "input 'x' .*a list, not a tensor"),
        (
            "def make(): return torch.nn.ReLU(), {'x': torch.ones(2, dtype=torch.bfloat16)}",
            "input 'x' cannot be used",
        ),
        ("def make(): return torch.nn.ReLU(), {'x': torch.ones(0, 2)}", "needs a row or more"),
        ("def make(): return torch.nn.ReLU(), {'x': torch.tensor(1.0)}", "needs a row or more"),
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
            r"the module fails on input:FP32\[2, 3\] .RuntimeError",
        ),
        (
            "def make(): return torch.nn.Linear(4, 2), {'x': torch.ones(2, 4)}, ['y', 'z']",
            "give each output one name",
        ),
        (
            "def make(): return torch.nn.Linear(4, 2), {'x': torch.ones(2, 4)}, ['y', 'y']",
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


@pytest.mark.parametrize(
    "body",
    [
        "make = torch.nn.Linear(4, 2)",
        "def make(): return torch.nn.Linear(4, 2)",
        "class make(torch.nn.Module):\n  def forward(self, input): return input",
        "make = torch.compile(torch.nn.Linear(4, 2))",
    ],
)
def test_bare_module(tmp_path, body):
    """A module, a class or a function that gives one, is taken with the inputs that are given."""
    source = load_source(write(tmp_path, body + "\n"), inputs=["input:float[batch,4]"])
    assert list(source.inputs) == ["input"]
    assert source.origin == "random"
    assert len(source.requests) == 64


def test_examples_by_place(tmp_path):
    """A tensor, or a tuple of them, gets the names of forward's parameters."""
    body = "def make(): return torch.nn.Linear(4, 2), (torch.ones(2, 4),)\n"
    assert list(load_source(write(tmp_path, body)).inputs) == ["input"]


def test_one_row_is_repeated(tmp_path):
    """A single example row is doubled for the exporter, but is one request."""
    source = load_source(write(tmp_path, LINEAR.replace("3, 4", "1, 4")))
    assert source.inputs["input"].shape == (2, 4)
    assert [r["input"].shape for r in source.requests] == [(1, 4)]


def test_given_inputs_replace_the_examples(tmp_path):
    """--input replaces what the factory brings, and --output-name its names."""
    source = load_source(
        write(tmp_path, LINEAR), inputs=["input:float[batch=5,4]"], output_names=["y"]
    )
    assert source.inputs["input"].shape == (5, 4)
    assert source.output_names == ("y",)


def test_factory_prints_to_stderr(tmp_path, capsys):
    """What a factory prints does not get between the command's own lines."""
    load_source(write(tmp_path, LINEAR + "print('hello')\n"))
    assert capsys.readouterr() == ("", "hello\n")


def test_python_file_without_a_name(tmp_path):
    """A file without a factory's name is answered with what it has."""
    write(tmp_path, "def net(): ...\n")
    with pytest.raises(ModelError, match=r"name the function in it .*factories.py:net"):
        load_source(str(tmp_path / "factories.py"))


def test_inputs_in_forwards_order():
    """Inputs come in the order of forward's parameters, in which exporters number them."""
    one = torch.ones(2, 1)
    assert list(torch_source(TorchModel(TwoInOut(), {"y": one, "x": one}), "t").inputs) == [
        "x",
        "y",
    ]


class Pair(NamedTuple):
    """A named tuple of outputs."""

    left: torch.Tensor
    right: tuple


@dataclass
class Answer:
    """A dataclass of outputs."""

    score: torch.Tensor
    pair: Pair
    loss: torch.Tensor | None = None


def test_nested_outputs():
    """Outputs in dataclasses, tuples and dicts are named by the way to them; None is left out."""

    class Nested(torch.nn.Module):
        def forward(self, x):
            return {"answer": Answer(x, Pair(x + 1, (x + 2, None))), "plain": [x + 3]}

    source = torch_source(TorchModel(Nested(), {"x": torch.ones(2, 1)}), "t")
    values = {name: float(a[0, 0]) for name, a in source.run(source.inputs).items()}
    assert values == {
        "answer_score": 1.0,
        "answer_pair_left": 2.0,
        "answer_pair_right_0": 3.0,
        "plain_0": 4.0,
    }


def test_outputs_of_one_name():
    """Two outputs to which the way has the same name are refused."""

    class Twice(torch.nn.Module):
        def forward(self, x):
            return {"a": (x,), "a_0": x}

    with pytest.raises(ModelError, match="two outputs called 'a_0'"):
        torch_source(TorchModel(Twice(), {"x": torch.ones(2, 1)}), "t")


def test_module_for_one_row():
    """A module that takes a single row only is run row by row."""

    class Flat(torch.nn.Module):
        def forward(self, x):
            return x.reshape(1, 4) * 2

    source = torch_source(TorchModel(Flat(), {"x": torch.randn(3, 4)}), "t")
    assert source.fixed_batch == 1
    assert np.array_equal(source.run(source.inputs)["output"], source.inputs["x"] * 2)


def test_module_for_three_rows():
    """A module that takes just as many rows as its examples is run on as many always."""

    class Three(torch.nn.Module):
        def forward(self, x):
            return x.reshape(3, 4) * 2

    source = torch_source(TorchModel(Three(), {"x": torch.randn(3, 4)}), "t")
    assert source.fixed_batch == 3
    rows = np.ones((4, 4), np.float32)
    assert np.array_equal(source.run({"x": rows})["output"], rows * 2)


def test_half_of_a_dimension_fails():
    """A named dimension of which the module does not take half the example's size is refused."""

    class Tiles(torch.nn.Module):
        def forward(self, x):
            return x.reshape(len(x), -1, 8)

    model = TorchModel(Tiles(), {"x": torch.randn(2, 8)}, {"x": {1: "n"}})
    with pytest.raises(ModelError, match="it takes 'n' at 8 but not 4: leave the dimension fixed"):
        torch_source(model, "t")
    assert torch_source(TorchModel(Tiles(), {"x": torch.randn(2, 16)}, {"x": {1: "n"}}), "t")


def test_random_values_that_fail():
    """If the module fails on random values, the way to give real ones is said."""
    model = TorchModel(torch.nn.Linear(4, 2), None)
    with pytest.raises(ModelError, match=r"give real ones: --input NAME=FILE.npy"):
        torch_source(model, "t", read_examples(["input:float[batch,5]"]))


class Touches:
    """What a hostile pickle would do: make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def checkpoint(folder: Path, kind: str) -> Path:
    """A file with weights, or worse, but no model."""
    path = folder / "saved.pt"
    net = torch.nn.Linear(2, 2)
    if kind == "state dict":
        torch.save(net.state_dict(), path)
    elif kind == "old state dict":
        torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
    elif kind == "module":
        torch.save(net, path)
    elif kind == "hostile":
        torch.save(Touches(folder / "touched"), path)
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps(Touches(folder / "touched"), protocol=4))
    elif kind == "safetensors":
        path.write_bytes((20).to_bytes(8, "little") + b'{"a": 1}'.ljust(20))
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("state dict", "is a checkpoint: weights without .*saved.pt', weights_only=True"),
        ("old state dict", "is a checkpoint: weights without .*saved.pt', weights_only=True"),
        ("module", "holds a pickled torch.nn.modules.linear.Linear, .*weights_only=True"),
        ("hostile", "holds a pickled pathlib.Path.*, which may run any code"),
        ("plain pickle", "holds a pickled pathlib.Path.*, which may run any code"),
        ("safetensors", "is a checkpoint: .*load_model"),
    ],
)
def test_checkpoint(tmp_path, kind, words):
    """Weights and pickles are refused with the factory to write, and nothing is unpickled."""
    with pytest.raises(ModelError, match=words) as caught:
        load_source(str(checkpoint(tmp_path, kind)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1", "only a Git LFS pointer"),
        (b"\x89HDF\r\n", "convert it to ONNX with tf2onnx"),
        (b"PK\x03\x04" + b"0" * 99, "a zip archive that is cut short"),
        (b"hello", "is no model: not of torch.export"),
        (b"\x80", "checkpoint"),
    ],
)
def test_other_content(tmp_path, content, words):
    """Files that are something else, or only a part, are named for what they are."""
    (tmp_path / "model.pt2").write_bytes(content)
    with pytest.raises(ModelError, match=words):
        load_source(str(tmp_path / "model.pt2"))


def test_zip_of_arrays(tmp_path):
    """An archive that torch did not save is no model."""
    buffer = io.BytesIO()
    np.savez(buffer, x=np.ones(3))
    (tmp_path / "model.pt").write_bytes(buffer.getvalue())
    with pytest.raises(ModelError, match="a zip archive, but no model"):
        load_source(str(tmp_path / "model.pt"))


def test_content_decides(onnx_file, tmp_path):
    """An ONNX file is one under whatever name."""
    path = onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }", "model.pth")
    assert load_source(str(path)) == OnnxSource(str(path), path)


def test_onnx_with_examples(onnx_file, tmp_path):
    """Examples for an ONNX file become its requests."""
    path = onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }")
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    source = load_source(str(path), inputs=[f"x={tmp_path / 'x.npy'}"])
    assert len(source.requests) == 3
    assert source.origin == str(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("z:float[batch,4]", r"takes x:FP32\[batch,4\], but --input gives z"),
        ("x:float[batch,5]", r"'x' is float32\[batch, 5\], but the model takes x:FP32"),
        ("x:double[batch,4]", "'x' is float64"),
        ("x:float[batch]", r"'x' is float32\[batch, \]"),
    ],
)
def test_onnx_with_other_examples(onnx_file, given, words):
    """Examples that the ONNX file does not take are refused."""
    path = onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }")
    with pytest.raises(ModelError, match=words):
        load_source(str(path), inputs=[given])


def test_onnx_is_not_renamed(onnx_file):
    """Options of an exporter are refused for what is not exported."""
    path = onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }")
    with pytest.raises(InputError, match=r"is ONNX already .*leave out --opset"):
        load_source(str(path), opset=17)
    with pytest.raises(InputError, match="leave out --output-name"):
        load_source(str(path), output_names=["z"])
