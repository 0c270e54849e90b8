"""payloads.npz: what is written comes back."""

import numpy as np
import pytest

from tritonkit.errors import InputError
from tritonkit.payloads import (
    load_payloads,
    misfit,
    random_payloads,
    read_payloads,
    require_fit,
    write_payloads,
)
from tritonkit.signature import ModelSignature, TensorSpec, data_type


def test_round_trip(tmp_path):
    """Requests come back in order, each with its own shapes and dtypes."""
    payloads = [
        {"ids": np.full((1, n), n), "deep/x": np.ones((1, 2), np.float16)} for n in range(1, 12)
    ]
    write_payloads(tmp_path / "p.npz", payloads)
    back = read_payloads(tmp_path / "p.npz")
    assert [{n: (a.dtype, a.tolist()) for n, a in p.items()} for p in back] == [
        {n: (a.dtype, a.tolist()) for n, a in p.items()} for p in payloads
    ]


def test_keys(tmp_path):
    """The keys are the request's number in four digits and the input's name."""
    write_payloads(tmp_path / "p.npz", [{"x": np.ones((1, 2))}, {"x": np.ones((1, 2))}])
    with np.load(tmp_path / "p.npz") as file:
        assert file.files == ["0000/x", "0001/x"]


def test_strings(tmp_path):
    """Text, of str or bytes and of any length, comes back as an object array of bytes."""
    texts = np.array([["é", b"\xff\x00\x01", "", "longer"]], dtype=object)
    write_payloads(tmp_path / "p.npz", [{"t": texts}])
    back = read_payloads(tmp_path / "p.npz")[0]["t"]
    assert back.dtype == object
    assert back.tolist() == [["é".encode(), b"\xff\x00\x01", b"", b"longer"]]


@pytest.mark.parametrize(
    ("payloads", "words"),
    [
        ([], "no payloads to write"),
        ([{"x": np.ones((2, 3))}], r"payload 0: 'x' has shape \[2, 3\]; one request has 1 row"),
        ([{"x": np.float32(1)}], "one request has 1 row"),
        ([{"x": np.array([b"a\0"], dtype=object)}], "ends in NUL"),
    ],
)
def test_refused(tmp_path, payloads, words):
    """What could not come back as it was is not written."""
    with pytest.raises(InputError, match=words):
        write_payloads(tmp_path / "p.npz", payloads)


def test_missing(tmp_path):
    """A missing file is named."""
    with pytest.raises(InputError, match=r"no payloads file .*p.npz"):
        read_payloads(tmp_path / "p.npz")


@pytest.mark.parametrize("content", [b"", b"hello there", b"PK\x03\x04broken"])
def test_not_payloads(tmp_path, content):
    """A file of something else is refused."""
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(InputError, match="is not a payloads file"):
        read_payloads(tmp_path / "p.npz")


def test_other_arrays(tmp_path):
    """An npz without our keys is refused, and so is a single array."""
    np.savez(tmp_path / "p.npz", x=np.ones(2))
    np.save(tmp_path / "p.npy", np.ones(2))
    for name in ("p.npz", "p.npy"):
        with pytest.raises(InputError, match="is not a payloads file"):
            read_payloads(tmp_path / name)


def test_pickles_are_not_loaded(tmp_path):
    """A pickled array is refused, not run."""
    np.savez(tmp_path / "p.npz", **{"0000/x": np.array([{}], dtype=object)})
    with pytest.raises(InputError, match="is not a payloads file"):
        read_payloads(tmp_path / "p.npz")


def test_random():
    """Random requests have the signature's dtypes and one row; other dynamic dimensions are 16."""
    kinds = ("FP16", "FP64", "INT32", "UINT8", "BOOL", "BYTES")
    specs = tuple(TensorSpec(k, data_type(k), ("batch", 3, "sequence")) for k in kinds)
    (payload,) = random_payloads(ModelSignature(specs, ()), 1)
    assert {n: (a.dtype, a.shape) for n, a in payload.items()} == {
        k: (data_type(k).numpy, (1, 3, 16)) for k in kinds
    }
    assert set(payload["INT32"].ravel()) == {0, 1}
    assert set(payload["BYTES"].ravel()) == {b"yes", b"no"}


def test_random_is_seeded():
    """The same seed gives the same requests, another one others."""
    signature = ModelSignature((TensorSpec("x", data_type("FP32"), ("batch", 4)),), ())
    first, again, other = (random_payloads(signature, 2, seed)[1]["x"] for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).all()


def test_random_without_batches():
    """For a model without batches the first dimension is drawn like any other."""
    shapes = {"a": (2, 3), "b": ("n", 3), "c": (1,)}
    specs = tuple(TensorSpec(n, data_type("FP32"), shape) for n, shape in shapes.items())
    (payload,) = random_payloads(ModelSignature(specs, ()), 1, batched=False)
    assert {n: a.shape for n, a in payload.items()} == {"a": (2, 3), "b": (16, 3), "c": (1,)}


WIRE = (
    TensorSpec("x", data_type("FP32"), ("batch", 4)),
    TensorSpec("n", data_type("INT64"), ("batch", 1)),
)


def test_load_random(tmp_path):
    """Where nothing is recorded requests are drawn in the shapes that a server takes."""
    payloads, source = load_payloads(tmp_path, WIRE)
    assert len(payloads) == 64 and "random" in source
    assert {n: a.shape for n, a in payloads[0].items()} == {"x": (1, 4), "n": (1, 1)}


def test_load_recorded(tmp_path):
    """Where requests are recorded they are read."""
    payload = {"x": np.ones((1, 4), np.float32), "n": np.array([[7]])}
    write_payloads(tmp_path / "payloads.npz", [payload])
    payloads, source = load_payloads(tmp_path, WIRE)
    assert (payloads[0]["n"].tolist(), source) == ([[7]], "payloads.npz")


def test_load_in_the_models_shapes(tmp_path):
    """What a server would not take, as of an older kit, is refused with the remedy."""
    payload = {"x": np.ones((1, 4), np.float32), "n": np.array([7])}
    write_payloads(tmp_path / "payloads.npz", [payload])
    with pytest.raises(
        InputError,
        match=r"payloads\.npz: a request has n:int64\[1\]; the model takes n:INT64\[batch,1\]; "
        r"send the payloads\.npz of a model repository, .* package the model again$",
    ):
        load_payloads(tmp_path, WIRE)


def test_misfit_of_inputs():
    """A request has all inputs but the optional ones, and no others."""
    request = {"x": np.ones((1, 4), np.float32)}
    assert misfit(request, WIRE) == "a request has the inputs ['x']; the model takes ['n', 'x']"
    assert misfit(request, WIRE, optional={"n"}) is None
    assert misfit(request, WIRE[1:], optional={"n"}) is not None  # x is not one of them


def test_one_that_does_not_fit(tmp_path):
    """One request that does not fit is enough to refuse the file."""
    rows = [{"x": np.ones((1, size), np.float32)} for size in (4, 4, 5)]
    assert require_fit(tmp_path / "p", rows[:2], WIRE[:1]) == rows[:2]
    with pytest.raises(InputError, match=r"x:float32\[1, 5\]"):
        require_fit(tmp_path / "p", rows, WIRE[:1])
