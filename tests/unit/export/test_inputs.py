"""What --input means, and what it says about the rest."""

from pathlib import Path

import numpy as np
import pytest

from tritonkit.errors import InputError
from tritonkit.export.inputs import read_examples
from tritonkit.payloads import write_payloads


@pytest.fixture
def saved(tmp_path):
    """`saved("x.npy", array)` or `saved("x.npz", a=…, b=…)` → its path as text."""

    def save(name: str, array: np.ndarray | None = None, **arrays: np.ndarray) -> str:
        path = tmp_path / name
        with path.open("wb") as file:
            if array is None:
                np.savez(file, **arrays)
            else:
                np.save(file, array, allow_pickle=True)
        return str(path)

    return save


def test_spec():
    """A described input has its dtype, fixed sizes, and the size to try of a named dimension."""
    examples = read_examples(["ids:int64[batch=4,seq=32,2]"])
    assert examples.inputs["ids"].dtype == np.int64
    assert examples.inputs["ids"].shape == (4, 32, 2)
    assert examples.dynamic_axes == {"ids": {1: "seq"}}


def test_whole_numbers_are_0_and_1():
    """Whole numbers are drawn from 0 and 1, which most models take as ids, masks and flags."""
    values = read_examples(["ids:int64[batch,seq]"]).inputs["ids"]
    assert set(values.ravel().tolist()) == {0, 1}


def test_sizes_differ():
    """Sizes that the kit chooses differ from each other, the batch and the fixed ones."""
    (array,) = read_examples(["x:float[batch,a,b,3,16]"]).inputs.values()
    assert len(set(array.shape)) == 5
    assert min(array.shape) >= 2


def test_one_name_one_size():
    """A dimension named twice has one size, wherever that is given."""
    examples = read_examples(["ids:int64[batch,seq]", "mask:bool[batch,seq=10]"])
    assert [a.shape[1] for a in examples.inputs.values()] == [10, 10]


def test_random_requests():
    """A described input also gives single requests, which are all different."""
    examples = read_examples(["x:float[batch,4]"])
    assert examples.origin == "random"
    assert len({r["x"].tobytes() for r in examples.requests}) == 64
    assert {r["x"].shape for r in examples.requests} == {(1, 4)}


def test_large_requests_are_fewer():
    """Of large inputs fewer requests are drawn."""
    assert len(read_examples(["x:float[batch,2000,2000]"]).requests) == 16


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        *[(name, "float32") for name in ("float", "FLOAT", "fp32", "FP32", "f32", "torch.float32")],
        *[(name, "float32") for name in ("TYPE_FP32", "tensor(float)", "np.float32")],
        *[(name, "float64") for name in ("double", "FP64", "float64", "DOUBLE")],
        *[(name, "float16") for name in ("half", "FLOAT16", "fp16")],
        *[(name, "int64") for name in ("long", "INT64", "int64", "torch.long")],
        *[(name, "bool") for name in ("bool", "BOOL")],
        *[(name, "uint8") for name in ("byte", "uint8", "UINT8")],
        *[(name, "object") for name in ("string", "BYTES", "str")],
    ],
)
def test_dtype_spellings(text, dtype):
    """Numpy's, torch's, KServe's, Triton's and ONNX's names of a dtype are all known."""
    assert read_examples([f"x:{text}[batch,2]"]).inputs["x"].dtype == dtype


def test_name_with_colon():
    """A name may hold a colon, as TensorFlow's do."""
    assert list(read_examples(["input:0:float[ batch , 2 ]"]).inputs) == ["input:0"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "cannot be read; give NAME:DTYPE"),
        ("", "cannot be read"),
        ("x:float", "cannot be read"),
        ("x:float[batch,4", "cannot be read"),
        ("x=values.csv", "cannot be read"),
        (":float[batch]", "cannot be read"),
        ("\n:float[batch]", "no proper name"),
        ("x:float[]", r"the first dimension, .* give 'x:float\[batch\]'"),
        ("x:float[1,3]", r"give 'x:float\[batch,3\]'"),
        ("x:float[N,3]", r"give 'x:float\[batch,3\]'"),
        ("x:float[batch,batch]", r"give 'x:float\[batch\]'"),
        ("x:float[batch,0]", "'0' is no dimension"),
        ("x:float[batch,-1]", "'-1' is no dimension"),
        ("x:float[batch,²]", "is no dimension"),
        ("x:float[batch,]", "'' is no dimension"),
        (f"x:float[batch,{'1' * 5000}]", "is no dimension"),
        ("x:float[batch,99999999999]", "larger than 2 GiB"),
        ("x:float[batch,a=1]", "give a number, 2 or more"),
        ("x:float[batch,a=b]", "give a number, 2 or more"),
        ("x:float[batch,a=3,a=4]", "'a' two sizes"),
        ("x:flaot[batch]", "'flaot' is no dtype; use BOOL"),
        ("x:bfloat16[batch]", "no bfloat16 arrays; use float32"),
    ],
)
def test_bad_spec(text, words):
    """What cannot be meant is refused on one line that says what can."""
    with pytest.raises(InputError, match=words) as caught:
        read_examples([text])
    assert "\n" not in str(caught.value)


def test_sizes_that_disagree():
    """Two inputs cannot give one dimension two sizes."""
    with pytest.raises(InputError, match="'n' is 4 here and 3 elsewhere"):
        read_examples(["x:float[batch,n=3]", "y:float[batch,n=4]"])


def test_given_twice():
    """An input is described once."""
    with pytest.raises(InputError, match="'x' is given twice"):
        read_examples(["x:float[batch]", "x:float[batch]"])


def test_npy(saved):
    """An example file gives the values, and its rows the requests."""
    array = np.arange(6, dtype=np.float32).reshape(3, 2)
    path = saved("x.npy", array)
    examples = read_examples([f"x={path}"])
    assert np.array_equal(examples.inputs["x"], array)
    assert [r["x"].tolist() for r in examples.requests] == [[[0, 1]], [[2, 3]], [[4, 5]]]
    assert (examples.origin, examples.dynamic_axes) == (path, {})


def test_one_row(saved):
    """A file of one row is one request, and two rows for the exporter."""
    examples = read_examples([f"x={saved('x.npy', np.ones((1, 2), np.float32))}"])
    assert examples.inputs["x"].shape == (2, 2)
    assert len(examples.requests) == 1


def test_npz(saved):
    """The arrays of an .npz are inputs under their own names, or one of them is picked."""
    path = saved("all.npz", a=np.ones((2, 1)), b=np.zeros((2, 3), np.int64))
    assert list(read_examples([path]).inputs) == ["a", "b"]
    assert list(read_examples([f"b={path}"]).inputs) == ["b"]


def test_file_and_spec(saved):
    """A file gives values to an input that a spec gives named dimensions, in the spec's size."""
    path = saved("ids.npy", np.full((3, 12), 7))
    examples = read_examples(["ids:int64[batch,seq]", "mask:bool[batch,seq]", f"ids={path}"])
    assert examples.inputs["ids"].max() == 7
    assert examples.inputs["mask"].shape == (3, 12)
    assert examples.dynamic_axes == {"ids": {1: "seq"}, "mask": {1: "seq"}}
    assert examples.origin == f"{path} and random values"
    assert len(examples.requests) == 3


@pytest.mark.parametrize("spec", ["x:float[batch,5]", "x:float[batch]", "x:int32[batch,4]"])
def test_file_against_spec(saved, spec):
    """A file that is not what the spec says is refused."""
    path = saved("x.npy", np.ones((2, 4), np.float32))
    with pytest.raises(InputError, match=r"rows of its file are float32\[4\], which is not"):
        read_examples([spec, f"x={path}"])


def test_payloads_file(tmp_path):
    """A payloads.npz is taken as requests; the commonest shape makes the examples."""
    rows = [{"x": np.ones((1, size), np.float32)} for size in (3, 5, 5)]
    write_payloads(tmp_path / "payloads.npz", rows)
    examples = read_examples([str(tmp_path / "payloads.npz")])
    assert examples.inputs["x"].shape == (2, 5)
    assert [r["x"].shape[1] for r in examples.requests] == [3, 5, 5]


def test_strings(saved):
    """Text in files comes as bytes objects, as BYTES tensors are everywhere."""
    array = read_examples([f"x={saved('x.npy', np.array(['a', 'ü']))}"]).inputs["x"]
    assert array.tolist() == [b"a", "ü".encode()]


def test_byte_order(saved):
    """Numbers in another byte order are turned round."""
    array = read_examples([f"x={saved('x.npy', np.ones((2, 2), '>f4'))}"]).inputs["x"]
    assert array.dtype == np.float32
    assert array.tolist() == [[1, 1], [1, 1]]


class Touches:
    """What a hostile pickle would do: make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_refused(saved, tmp_path):
    """A numpy file with pickled objects is refused, and not unpickled."""
    path = saved("x.npy", np.array([Touches(tmp_path / "touched")], dtype=object))
    with pytest.raises(InputError, match="holds Python objects"):
        read_examples([f"x={path}"])
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.float32(3), r"has shape \[\]; its first axis is the batch"),
        (np.zeros((0, 4)), "needs a row or more"),
        (np.ones((2, 4), np.complex64), "complex64 is not carried"),
    ],
)
def test_bad_file(saved, array, words):
    """Arrays without rows, or of a dtype that Triton does not carry, are refused."""
    path = saved("x.npy", array)
    with pytest.raises(InputError, match=words):
        read_examples([f"x={path}"])


def test_file_without_a_name(saved):
    """A .npy is nobody's without a name."""
    with pytest.raises(InputError, match="does not say which input it is; give NAME="):
        read_examples([saved("x.npy", np.ones((2, 2)))])


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_damaged_file(tmp_path, content):
    """Bytes that are no numpy file are refused."""
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"is no .npy file, or a damaged one"):
        read_examples([f"x={tmp_path / 'x.npy'}"])


def test_missing_file(tmp_path):
    """A file that is not there is named."""
    with pytest.raises(InputError, match=r"no.npy cannot be read: No such file"):
        read_examples([f"x={tmp_path / 'no.npy'}"])


def test_files_differ_in_rows(saved):
    """Files of different numbers of rows cannot be one batch."""
    with pytest.raises(InputError, match=r"differ in rows .'a' 2, 'b' 3."):
        read_examples([saved("x.npz", a=np.ones((2, 1)), b=np.ones((3, 1)))])


def test_npz_without_that_array(saved):
    """An array that the .npz has not is answered with those that it has."""
    with pytest.raises(InputError, match="has no array 'c'; it has a"):
        read_examples([f"c={saved('x.npz', a=np.ones((2, 1)))}"])
