"""torch.export programs: .pt2 files."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.export import Dim

from tritonkit.errors import ModelError
from tritonkit.export import torch_to_onnx as exporting
from tritonkit.export.source import TorchSource, load_source
from tritonkit.export.torch_to_onnx import torch_to_onnx
from tritonkit.signature import read_signature


class Nested(torch.nn.Module):
    """Inputs and outputs in dicts and tuples, and a None."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x, more):
        return {"a": self.linear(x), "b": (more["p"] * 2, None)}


def examples(rows: int) -> tuple:
    """Inputs of Nested."""
    return torch.randn(rows, 4), {"p": torch.randn(rows, 6)}


def saved(path: Path, module: torch.nn.Module, args: tuple, shapes: object = None) -> Path:
    """`module` as a .pt2 file."""
    program = torch.export.export(module.eval(), args, dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory) -> Path:
    """Nested with a dynamic batch and another dynamic dimension."""
    batch, width = Dim("b"), Dim("w")
    shapes = ({0: batch}, {"p": {0: batch, 1: width}})
    return saved(tmp_path_factory.mktemp("pt2") / "dynamic.pt2", Nested(), examples(2), shapes)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory) -> Path:
    """Nested with a batch of 3, under a name that says nothing."""
    return saved(tmp_path_factory.mktemp("pt2") / "model.pt2", Nested(), examples(3)).rename(
        tmp_path_factory.mktemp("other") / "model.pth"
    )


def names(path: Path) -> list[str]:
    """The signature of the ONNX file."""
    signature = read_signature(path)
    return [str(t) for t in (*signature.inputs, *signature.outputs)]


def test_dynamic_program(dynamic, tmp_path):
    """A program with a dynamic batch becomes a file with one, and agrees with the program."""
    source = load_source(str(dynamic))
    export = torch_to_onnx(source, tmp_path / "model.onnx")
    assert names(tmp_path / "model.onnx") == [
        "x:FP32[batch,4]",
        "more_p:FP32[batch,more_p_dim_1]",
        "a:FP32[batch,3]",
        "b_0:FP32[batch,more_p_dim_1]",
    ]
    assert (export.exporter, export.fixed_batch) == ("dynamo", None)
    assert export.parity.against == "the exported program"
    assert {b.sizes["more_p_dim_1"] for b in export.parity.batches} == {6, 3}


def test_stored_examples(dynamic):
    """The examples in the file are its inputs and its requests."""
    source = load_source(str(dynamic))
    assert (len(source.requests), source.origin) == (2, "the example inputs")


def test_named_inputs_and_outputs(dynamic, tmp_path):
    """--input names dynamic axes and replaces the examples, --output-name the outputs."""
    inputs = ["x:float[batch,4]", "more_p:float[batch,time=8]"]
    source = load_source(str(dynamic), inputs=inputs, output_names=["one", "two"])
    torch_to_onnx(source, tmp_path / "model.onnx")
    assert names(tmp_path / "model.onnx")[1::2] == [
        "more_p:FP32[batch,time]",
        "two:FP32[batch,time]",
    ]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (["x:float[batch,4]"], "takes x, more_p, but --input gives x"),
        (["x:float[batch,n]", "more_p:float[batch,6]"], r"axis 1 .'n'. of 'x' is fixed"),
        (["x:float[batch,5]", "more_p:float[batch,6]"], "the module fails on x:FP32"),
    ],
)
def test_inputs_that_do_not_fit(dynamic, inputs, words):
    """Inputs that the program does not take are refused."""
    with pytest.raises(ModelError, match=words):
        load_source(str(dynamic), inputs=inputs)


def test_fixed_program(fixed, tmp_path):
    """A program with a fixed batch gives a file with one, said so for the rewrite."""
    source = load_source(str(fixed))
    export = torch_to_onnx(source, tmp_path / "model.onnx")
    assert (export.exporter, export.fixed_batch, export.parity) == ("dynamo, fixed batch", 3, None)
    assert names(tmp_path / "model.onnx")[0] == "x:FP32[3,4]"


@pytest.mark.parametrize("rows", [1, 3, 4, 7])
def test_fixed_program_runs_any_batch(fixed, rows):
    """The reference of a program fixed at 3 rows answers any number of rows."""
    source = load_source(str(fixed))
    inputs = {"x": np.ones((rows, 4), np.float32), "more_p": np.ones((rows, 6), np.float32)}
    inputs["more_p"] *= np.arange(rows)[:, None]
    answers = source.run(inputs)
    assert np.array_equal(answers["b_0"], inputs["more_p"] * 2)
    assert answers["a"].shape == (rows, 3)


def test_limited_batch(tmp_path):
    """A program for 2 to 8 rows is compared at 1 and 16 rows all the same."""
    shapes = ({0: Dim("b", min=2, max=8)},)
    path = saved(tmp_path / "m.pt2", torch.nn.Linear(4, 2), (torch.randn(4, 4),), shapes)
    (tmp_path / "out").mkdir()
    export = torch_to_onnx(load_source(str(path)), tmp_path / "out" / "model.onnx")
    assert {b.batch for b in export.parity.batches} >= {1, 16}


def test_first_sizes_that_differ(tmp_path):
    """A program whose inputs have no batch in common is refused."""

    class Lookup(torch.nn.Module):
        def forward(self, x, table):
            return x @ table

    path = saved(tmp_path / "m.pt2", Lookup(), (torch.randn(2, 4), torch.randn(4, 3)))
    with pytest.raises(ModelError, match=r"differ in their first size .'x' 2, 'table' 4."):
        load_source(str(path))


def test_without_examples(tmp_path):
    """A program without examples is answered with the option to add."""
    program = torch.export.export(torch.nn.Linear(4, 2), (torch.randn(2, 4),))
    program.example_inputs = None
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(ModelError, match=r"holds no example inputs .*--input 'input:float32"):
        load_source(str(tmp_path / "m.pt2"))


def test_large_weights(tmp_path, monkeypatch):
    """A program's weights above the limit go to a file beside the model, checked by its path."""
    checked = []
    check = onnx.checker.check_model
    monkeypatch.setattr(onnx.checker, "check_model", lambda m: (checked.append(m), check(m)))
    monkeypatch.setattr(exporting, "_ONE_FILE_BYTES", 10)
    path = saved(tmp_path / "m.pt2", torch.nn.Linear(64, 64), (torch.randn(3, 64),))
    (tmp_path / "out").mkdir()
    torch_to_onnx(load_source(str(path)), tmp_path / "out" / "model.onnx")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["model.onnx", "model.onnx.data"]
    assert checked == [tmp_path / "out" / "model.onnx"]


def changed(path: Path, target: Path, change: Callable[[str, bytes], bytes]) -> str:
    """A copy of the archive with its members changed."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return str(target)


class Touches:
    """What a hostile pickle would do: make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_hostile_pickle(fixed, tmp_path):
    """A pickle where tensors should be is not unpickled, though torch.export would."""
    buffer = io.BytesIO()
    torch.save(Touches(tmp_path / "touched"), buffer)

    def change(name: str, data: bytes) -> bytes:
        return buffer.getvalue() if name.endswith("sample_inputs/model.pt") else data

    with pytest.raises(ModelError, match="pickled objects that are not tensors"):
        load_source(changed(fixed, tmp_path / "m.pt2", change))
    assert not (tmp_path / "touched").exists()


def replaced(key: str, text: str) -> Callable[[str, bytes], bytes]:
    """A change that puts `text` wherever the model's JSON has `key`."""

    def put(value: object) -> object:
        if isinstance(value, dict):
            return {k: _text(v, text) if k == key else put(v) for k, v in value.items()}
        return [put(v) for v in value] if isinstance(value, list) else value

    def change(name: str, data: bytes) -> bytes:
        return json.dumps(put(json.loads(data))).encode() if name.endswith("model.json") else data

    return change


def _text(value: object, text: str) -> object:
    return [text] if isinstance(value, list) else text


@pytest.mark.parametrize(
    "code",
    [
        "__import__('pathlib').Path({!r}).touch()",
        "Symbol('s', x=open({!r}, 'w'))",
        "S('open({!r}, \"w\")')",
    ],
)
def test_hostile_expression(dynamic, tmp_path, code):
    """An expression that is no arithmetic is not evaluated, though torch.export would."""
    change = replaced("expr_str", code.format(str(tmp_path / "touched")))
    with pytest.raises(ModelError, match="which is no arithmetic"):
        load_source(changed(dynamic, tmp_path / "m.pt2", change))
    assert not (tmp_path / "touched").exists()


def test_hostile_guard(dynamic, tmp_path):
    """Guards in the file, which torch would run as Python, are left out."""
    code = f"__import__('pathlib').Path({str(tmp_path / 'touched')!r}).touch() or True"
    path = changed(dynamic, tmp_path / "m.pt2", replaced("guards_code", code))
    assert isinstance(load_source(path), TorchSource)
    assert not (tmp_path / "touched").exists()


def test_damaged_program(fixed, tmp_path):
    """A program whose JSON is cut short is refused."""

    def change(name: str, data: bytes) -> bytes:
        return data[:10] if name.endswith("model.json") else data

    with pytest.raises(ModelError, match=r"is a damaged .pt2 file"):
        load_source(changed(fixed, tmp_path / "m.pt2", change))


def test_compiled_package(tmp_path):
    """A package of compiled code, which is no program, is refused."""
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/data/aotinductor/model/x.so", "")
    with pytest.raises(ModelError, match="compiled by AOTInductor"):
        load_source(str(tmp_path / "m.pt2"))
