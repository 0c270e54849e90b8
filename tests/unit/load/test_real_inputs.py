"""Files of real inputs: each kind is read, and what a model cannot take is refused by its name."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonkit.client.spec import ModelSpec
from tritonkit.errors import InputError
from tritonkit.load.real_inputs import read_payloads_from
from tritonkit.payloads import write_payloads
from tritonkit.signature import ModelSignature, TensorSpec, data_type


def model(
    *inputs: tuple[str, str, tuple[int | str, ...]], batch: int = 8, optional: tuple[str, ...] = ()
) -> ModelSpec:
    """A model with these inputs: (name, dtype, shape with the batch)."""
    specs = tuple(TensorSpec(name, data_type(dtype), shape) for name, dtype, shape in inputs)
    outputs = (TensorSpec("y", data_type("FP32"), ("batch", 1)),)
    return ModelSpec(
        "ranker",
        "",
        "",
        (),
        ModelSignature(specs, outputs),
        batch,
        optional=frozenset(optional),
    )


ROWS = model(("x", "FP32", ("n", 2)))
WHOLE = model(("x", "FP32", (3, 2)), batch=0)
TEXTS = model(("t", "BYTES", ("n", 1)))
LONG = model(("ids", "INT64", ("n", "length")))
TWO = model(("a", "FP32", ("n", 2)), ("b", "INT32", ("n", 1)))
MASKED = model(("a", "FP32", ("n", 2)), ("b", "INT32", ("n", 1)), optional=("b",))

SIX = np.arange(6, dtype=np.float32).reshape(3, 2)


def read(path: Path, spec: ModelSpec) -> list[dict[str, Any]]:
    """What is read, as lists."""
    return [{n: a.tolist() for n, a in p.items()} for p in read_payloads_from(path, spec)]


def save(path: Path, array: np.ndarray) -> Path:
    """A .npy file."""
    np.save(path, array)
    return path


def write(path: Path, content: Any) -> Path:
    """A file of bytes, or of JSON."""
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def refused(path: Path, spec: ModelSpec, words: str) -> None:
    """It is refused in one line that names the file."""
    with pytest.raises(InputError, match=words) as error:
        read_payloads_from(path, spec)
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)


def test_npy_of_rows(tmp_path):
    """Each row of an array is a request of its own."""
    assert read(save(tmp_path / "x.npy", SIX), ROWS) == [
        {"x": [[0, 1]]},
        {"x": [[2, 3]]},
        {"x": [[4, 5]]},
    ]


def test_npy_of_one_row(tmp_path):
    """An array without the batch axis is one request."""
    assert read(save(tmp_path / "x.npy", SIX[1]), ROWS) == [{"x": [[2, 3]]}]


def test_npy_without_batches(tmp_path):
    """What a model that does not batch takes is one request, whatever its first axis."""
    assert read(save(tmp_path / "x.npy", SIX), WHOLE) == [{"x": SIX.tolist()}]


def test_npy_of_text(tmp_path):
    """Text is sent as bytes."""
    texts = np.array([["é"], ["longer"]])
    assert read(save(tmp_path / "t.npy", texts), TEXTS) == [
        {"t": [["é".encode()]]},
        {"t": [[b"longer"]]},
    ]


def test_npz_by_name(tmp_path):
    """Arrays of a .npz are inputs by name, and their rows belong together."""
    np.savez(tmp_path / "p.npz", b=np.array([[7], [8]], np.int32), a=SIX[:2])
    assert read(tmp_path / "p.npz", TWO) == [
        {"a": [[0, 1]], "b": [[7]]},
        {"a": [[2, 3]], "b": [[8]]},
    ]


def test_payloads_npz(tmp_path):
    """A payloads.npz is its requests, each with its own length."""
    requests = [{"ids": np.ones((1, n), np.int64)} for n in (2, 5, 3)]
    write_payloads(tmp_path / "payloads.npz", requests)
    found = read_payloads_from(tmp_path / "payloads.npz", LONG)
    assert [p["ids"].shape for p in found] == [(1, 2), (1, 5), (1, 3)]


def test_payloads_that_do_not_fit(tmp_path):
    """A payloads.npz of another model is refused with its remedy."""
    write_payloads(tmp_path / "payloads.npz", [{"x": np.ones((1, 3), np.float32)}])
    refused(tmp_path / "payloads.npz", ROWS, r"a request has x:float32\[1, 3\]; the model takes x:")


def test_optional_inputs(tmp_path):
    """An optional input may be missing, in one file and not in the other."""
    np.savez(tmp_path / "1.npz", a=SIX[:1])
    np.savez(tmp_path / "2.npz", a=SIX[:1], b=np.array([[7]], np.int32))
    assert read(tmp_path, MASKED) == [{"a": [[0, 1]]}, {"a": [[0, 1]], "b": [[7]]}]


def test_only_required_input(tmp_path):
    """An array without a name is for the one input that must be there."""
    assert read(save(tmp_path / "x.npy", SIX[:1]), MASKED) == [{"a": [[0, 1]]}]


@pytest.mark.parametrize(
    ("content", "spec", "expected"),
    [
        ([[1, 2], [3, 4.5]], ROWS, [{"x": [[1, 2]]}, {"x": [[3, 4.5]]}]),
        ([1, 2], ROWS, [{"x": [[1, 2]]}]),
        ({"x": [[1, 2]]}, ROWS, [{"x": [[1, 2]]}]),
        ([["a"], ["b"]], TEXTS, [{"t": [[b"a"]]}, {"t": [[b"b"]]}]),
        ({"b": [[7]], "a": [[1, 2]]}, TWO, [{"a": [[1, 2]], "b": [[7]]}]),
        ({"inputs": [{"name": "x", "data": [[1, 2]]}]}, ROWS, [{"x": [[1, 2]]}]),
        (
            {
                "id": "7",
                "inputs": [
                    {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]},
                ],
            },
            ROWS,
            [{"x": [[1, 2]]}, {"x": [[3, 4]]}],
        ),
        (
            {"inputs": [{"name": "t", "datatype": "BYTES", "shape": [1, 1], "data": ["é"]}]},
            TEXTS,
            [{"t": [["é".encode()]]}],
        ),
        ({"inputs": [[1, 2]]}, model(("inputs", "FP32", ("n", 2))), [{"inputs": [[1, 2]]}]),
    ],
)
def test_json(tmp_path, content, spec, expected):
    """JSON is a KServe request, values by name, or the value of the only input."""
    assert read(write(tmp_path / "x.json", content), spec) == expected


def test_scalar_input(tmp_path):
    """An input without dimensions takes a flat list of one, as KServe writes it."""
    spec = model(("s", "FP32", ()), batch=0)
    entry = {"name": "s", "datatype": "FP32", "shape": [], "data": [3]}
    assert read(write(tmp_path / "s.json", {"inputs": [entry]}), spec) == [{"s": 3.0}]


@pytest.mark.parametrize("suffix", [".raw", ".bin", ".RAW"])
def test_raw_rows(tmp_path, suffix):
    """Raw bytes of a fixed row are as many rows as there are."""
    found = read(write(tmp_path / f"x{suffix}", SIX.astype("<f4").tobytes()), ROWS)
    assert found == [{"x": [row]} for row in SIX.tolist()]


def test_raw_of_one_unknown_size(tmp_path):
    """Where the row has an unknown size, raw bytes are one row, and tell it."""
    ids = np.arange(5, dtype="<i8")
    assert read(write(tmp_path / "i.raw", ids.tobytes()), LONG) == [{"ids": [[0, 1, 2, 3, 4]]}]


def test_raw_without_batches(tmp_path):
    """Raw bytes of a fixed tensor are the tensor."""
    assert read(write(tmp_path / "x.bin", SIX.tobytes()), WHOLE) == [{"x": SIX.tolist()}]


@pytest.mark.parametrize(
    ("content", "spec", "words"),
    [
        (b"12345", ROWS, r"has 5 bytes; x:FP32\[n,2\] takes a multiple of 8$"),
        (b"", ROWS, "has 0 bytes"),
        (b"", model(("x", "FP32", ("n", 0))), "has 0 bytes"),
        (b"1" * 8, model(("x", "FP32", ("n", 0))), "has 8 bytes"),
        (b"1" * 20, WHOLE, r"has 20 bytes; x:FP32\[3,2\] takes 24$"),
        (b"1" * 8, model(("x", "FP32", ("n", "h", "w"))), "do not tell the 2 unknown sizes of x:"),
        (b"1" * 8, TWO, "raw bytes are of one input, and ranker has 2; give an .npz"),
        (b"1" * 8, TEXTS, "raw bytes cannot be text"),
    ],
)
def test_raw_refused(tmp_path, content, spec, words):
    """Raw bytes that are not a whole number of tensors, or not of one alone, are refused."""
    refused(write(tmp_path / "x.raw", content), spec, words)


def test_folder(tmp_path):
    """The files of a folder are read by name, whatever their kinds, without hidden ones."""
    save(tmp_path / "b.npy", SIX[:1])
    write(tmp_path / "a.json", [[7, 8]])
    write(tmp_path / "c.raw", SIX[1].tobytes())
    write(tmp_path / ".DS_Store", b"junk")
    assert read(tmp_path, ROWS) == [{"x": [[7, 8]]}, {"x": [[0, 1]]}, {"x": [[2, 3]]}]


def test_folder_with_one_that_does_not_fit(tmp_path):
    """The file that a model cannot take is named, with what the model expects."""
    save(tmp_path / "a.npy", SIX)
    save(tmp_path / "b.npy", SIX.T.copy())
    words = r"b\.npy: ranker: input 'x' has shape \[2, 3\]; dimension 1 must be 2 \(the model exp"
    with pytest.raises(InputError, match=words):
        read_payloads_from(tmp_path, ROWS)


@pytest.mark.parametrize("name", ["notes.txt", "image.jpg", "README", "x.npy.gz"])
def test_folder_with_something_else(tmp_path, name):
    """A file that is no input is not passed over in silence."""
    save(tmp_path / "a.npy", SIX)
    write(tmp_path / name, b"text")
    with pytest.raises(InputError, match=rf"{name} is no file of inputs; they end in .npy, .npz"):
        read_payloads_from(tmp_path, ROWS)


def test_folder_with_a_pipe_or_folder(tmp_path):
    """What would block, or is a folder, is refused by its name."""
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "sub.npy").mkdir()
    for folder, name in ((tmp_path, "deep"), (tmp_path / "deep", "sub.npy")):
        with pytest.raises(InputError, match=f"{name} is no file of inputs"):
            read_payloads_from(folder, ROWS)
    (tmp_path / "deep" / "sub.npy").rmdir()
    (tmp_path / "deep").rmdir()
    with pytest.raises(InputError, match=r"pipe\.npy is no file of inputs"):
        read_payloads_from(tmp_path, ROWS)


def test_empty_folder(tmp_path):
    """A folder without inputs is refused."""
    write(tmp_path / ".hidden.npy", b"")
    refused(tmp_path, ROWS, r"has no files of inputs; put some there, ending in \.npy, ")


@pytest.mark.parametrize("name", ["missing.npy", "missing", "nul\0.npy"])
def test_no_such_file(tmp_path, name):
    """A path that leads nowhere is refused."""
    with pytest.raises(InputError, match=r"^no such file or folder of inputs: "):
        read_payloads_from(tmp_path / name, ROWS)


def test_unreadable(tmp_path):
    """A path that the system refuses is refused with its reason."""
    refused(tmp_path / ("x" * 300), ROWS, "cannot be read: File name too long")


def test_too_much_to_hold(tmp_path):
    """More inputs than go into memory are refused before they are read."""
    with (tmp_path / "huge.npy").open("wb") as file:
        file.truncate(3 << 30)  # takes no room on the disk
    refused(tmp_path, ROWS, "more than 2 GiB of inputs, which are held in memory; give fewer")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.npy", b"", "is no .npy file, or a damaged one"),
        ("x.npy", b"hello", "is no .npy file, or a damaged one"),
        ("x.npz", b"PK\x03\x04broken", "is no .npz file, or a damaged one"),
        ("x.json", b"", "is not JSON: "),
        ("x.json", b"{", "is not JSON: .* at line 1, column 2$"),
        ("x.json", b"\xff", "is not JSON: byte 0 is not UTF-8"),
        ("x.json", b"[" * 100_000, "is not JSON: "),
        ("x.json", b"[1e999, 1]", "1e999 is too large for a number"),
        ("x.json", b"null", "no inputs are given; the model needs x:FP32"),
        ("x.json", b"{}", "no inputs are given; the model needs x:FP32"),
        ("x.json", b"3", r"input 'x' has shape \[\]"),
        ("x.json", b'[["a", "b"]]', "input 'x' has an element .*type str"),
        ("x.json", b"[[1, 2], [3]]", "input 'x' is ragged"),
        ("x.json", b"[]", r"has shape \[0\]"),
        ("x.json", b'{"y": [[1, 2]]}', "the model has no input 'y'; it has x:FP32"),
        ("x.json", b'{"x": {"a": 1}}', "input 'x' is of type dict"),
        ("x.json", b'{"inputs": [{"data": 1}]}', "must have a name and data"),
        ("x.json", b'{"inputs": [{"name": "x"}]}', "must have a name and data"),
        ("x.json", b'{"inputs": [{"name": "x", "data": [1]}, 3]}', "must have a name and data"),
        ("x.json", b'{"inputs": [{"name": "y", "data": [1]}]}', "has no input 'y'"),
    ],
)
def test_damaged(tmp_path, name, content, words):
    """A file that is not what its name says, or not of this model, is refused by its name."""
    refused(write(tmp_path / name, content), ROWS, words)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"datatype": "FP64"}, r"has datatype 'FP64' \(the model expects x:FP32\[n,2\]\)"),
        ({"datatype": ["FP32"]}, "has datatype "),
        ({"shape": [2, 2]}, r"has 2 values for a tensor of shape \[2, 2\]"),
        ({"shape": [1, -2]}, "has a shape that is no list of sizes"),
        ({"shape": [1, True]}, "has a shape that is no list of sizes"),
        ({"shape": "12"}, "has a shape that is no list of sizes"),
        ({"shape": [2]}, None),
        ({"shape": [2, 1]}, r"dimension 1 must be 2"),
        ({"shape": [1, 2], "data": ["a", "b"]}, "type str"),
        ({"shape": [1, 2], "data": None}, "is of type NoneType"),
        ({"shape": [1, 2], "data": [[[[1, 2]]]]}, "is nested more than 2 deep"),
    ],
)
def test_kserve_entries(tmp_path, entry, words):
    """An entry that contradicts itself or the model is refused with the model's own."""
    request = {"inputs": [{"name": "x", "data": [1, 2], **entry}]}
    path = write(tmp_path / "x.json", request)
    if words is None:
        assert read(path, ROWS) == [{"x": [[1, 2]]}]
    else:
        refused(path, ROWS, words)


def test_input_twice(tmp_path):
    """An input that a request has twice is refused."""
    entry = {"name": "x", "data": [1, 2]}
    path = write(tmp_path / "x.json", {"inputs": [entry, entry]})
    refused(path, ROWS, "input 'x' is there twice")


def test_wrong_dtype(tmp_path):
    """Doubles are not made floats in silence."""
    path = save(tmp_path / "x.npy", SIX.astype(np.float64))
    refused(path, ROWS, "has dtype float64, which does not fit into float32 without loss")


def test_array_for_two_inputs(tmp_path):
    """An array without a name cannot be for a model of two inputs."""
    refused(save(tmp_path / "x.npy", SIX), TWO, "one value for 2 inputs; give them by name")


def test_missing_input(tmp_path):
    """A request without an input that must be there is refused."""
    np.savez(tmp_path / "p.npz", a=SIX)
    refused(tmp_path / "p.npz", TWO, "input 'b' is missing")


def test_unequal_rows(tmp_path):
    """Inputs of one file have equally many rows."""
    np.savez(tmp_path / "p.npz", a=SIX, b=np.ones((2, 1), np.int32))
    refused(tmp_path / "p.npz", TWO, "both must have the same number of rows")


def test_no_rows(tmp_path):
    """An array of no rows is refused."""
    refused(save(tmp_path / "x.npy", SIX[:0]), ROWS, "the inputs have no rows")


class Sentinel:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_nothing_is_unpickled(tmp_path, kind):
    """Python objects are refused, not made."""
    objects = np.array([[Sentinel(tmp_path / "run")]], dtype=object)
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, objects, allow_pickle=True)
    else:
        np.savez(path, x=objects)
    refused(path, ROWS, "holds Python objects")
    assert not (tmp_path / "run").exists()


def test_foreign_byte_order(tmp_path):
    """Numbers of another byte order are the same numbers."""
    assert read(save(tmp_path / "x.npy", SIX[:1].astype(">f4")), ROWS) == [{"x": [[0, 1]]}]


@given(content=st.binary(max_size=200), kind=st.sampled_from(["npy", "npz", "json", "raw"]))
def test_any_bytes(tmp_path_factory, content, kind):
    """Whatever is in a file, what is raised is of the error tree."""
    path = tmp_path_factory.getbasetemp() / f"any.{kind}"
    path.write_bytes(content)
    try:
        read_payloads_from(path, ROWS)
    except InputError as error:
        assert "any." in str(error)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["inputs", "name", "data", "shape", "datatype", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(content=anything, spec=st.sampled_from([ROWS, WHOLE, TEXTS, LONG, TWO, MASKED]))
def test_any_json(tmp_path_factory, content, spec):
    """Whatever JSON there is, what is raised is of the error tree, and names the file."""
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        read_payloads_from(path, spec)
    except InputError as error:
        assert "any.json" in str(error)
