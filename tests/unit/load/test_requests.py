"""What a run sends: as many rows, lengths and different requests as asked, and told as it is."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonkit.binary import from_bytes
from tritonkit.client.client import Client
from tritonkit.client.fake import FakeModel, FakeTransport
from tritonkit.client.spec import ModelSpec
from tritonkit.client.transport import InferRequest
from tritonkit.errors import InputError
from tritonkit.load.requests import RANDOM_VALUES, RequestMix, Spread, describe, make_requests
from tritonkit.load.shares import Shares, parse_shares
from tritonkit.payloads import write_payloads
from tritonkit.signature import KSERVE_TYPES, ModelSignature, TensorSpec, data_type


def model(
    *inputs: tuple[str, str, tuple[int | str, ...]], batch: int = 8, optional: tuple[str, ...] = ()
) -> ModelSpec:
    """A model with these inputs: (name, dtype, shape with the batch)."""
    specs = tuple(TensorSpec(name, data_type(dtype), shape) for name, dtype, shape in inputs)
    outputs = tuple(TensorSpec(y, data_type("FP32"), ("n", 1)) for y in ("y", "z"))
    return ModelSpec(
        "ranker",
        "2",
        "",
        (),
        ModelSignature(specs, outputs),
        batch,
        optional=frozenset(optional),
    )


ROWS = model(("x", "FP32", ("n", 2)))
LONG = model(("ids", "INT64", ("n", "length")), ("mask", "BOOL", ("n", "length")))


def shares(text: str) -> Shares:
    """A distribution."""
    return parse_shares(text, "--rows")


def arrays(request: InferRequest) -> dict[str, np.ndarray]:
    """The inputs of a request as a server reads them."""
    return {t.name: from_bytes(t.data, KSERVE_TYPES[t.datatype], t.shape) for t in request.inputs}


def values(requests: list[InferRequest], name: str = "x") -> list[list]:
    """One input of each request, as lists."""
    return [arrays(request)[name].tolist() for request in requests]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Ten different rows, [0, 0] to [9, 9]."""
    path = tmp_path / "x.npy"
    np.save(path, np.repeat(np.arange(10, dtype=np.float32)[:, None], 2, axis=1))
    return path


def test_real_inputs_in_their_order(inputs):
    """Real inputs are sent one row a request, in their order, so that a trace can name them."""
    requests, mix = make_requests(ROWS, inputs)
    assert values(requests) == [[[float(i), float(i)]] for i in range(10)]
    assert mix == RequestMix(
        source=str(inputs),
        count=10,
        distinct=10,
        rows={"1": 10},
        lengths=None,
        bytes_per_request=Spread(8, 8, 8),
    )


def test_what_is_asked_for():
    """A request names the model, its version, and all outputs."""
    (request, *_), _ = make_requests(ROWS)
    assert (request.model, request.version) == ("ranker", "2")
    assert [wanted.name for wanted in request.outputs] == ["y", "z"]


def test_random_values():
    """Without inputs there are 64 different random requests of one row, of length 16."""
    requests, mix = make_requests(LONG)
    assert {arrays(request)["ids"].shape for request in requests} == {(1, 16)}
    assert {arrays(request)["mask"].dtype for request in requests} == {np.dtype(bool)}
    assert (mix.source, mix.count, mix.distinct) == (RANDOM_VALUES, 64, 64)
    assert mix.warnings == ()


@pytest.mark.parametrize("real", [True, False])
def test_seeded(inputs, real):
    """The same seed makes the same requests, another one others."""
    how = {"path": inputs if real else None, "rows": shares("1-4"), "distinct": 20}
    first, again, other = (make_requests(ROWS, **how, seed=seed)[0] for seed in (1, 1, 2))
    assert values(first) == values(again) != values(other)


@pytest.mark.parametrize("real", [True, False])
def test_rows(inputs, real):
    """Requests have as many rows as the shares say."""
    requests, mix = make_requests(
        ROWS, inputs if real else None, rows=shares("1:0.8,8:0.2"), distinct=50
    )
    assert Counter(len(arrays(r)["x"]) for r in requests) == {1: 40, 8: 10}
    assert mix.rows == {"1": 40, "8": 10}
    assert mix.bytes_per_request == Spread(8, 8, 64)


def test_rows_are_put_together_from_real_ones(inputs):
    """Every row of a larger request is one of the real ones, and all have their turn."""
    requests, _ = make_requests(ROWS, inputs, rows=shares("5"), distinct=10)
    rows = Counter(row[0] for request in values(requests) for row in request)
    assert rows == {float(i): 5 for i in range(10)}


def test_single_rows_beside_larger_ones_are_different(inputs):
    """As long as there are enough real inputs no request of one row is sent twice."""
    requests, _ = make_requests(ROWS, inputs, rows=shares("1,2"), distinct=20)
    ones = [request[0][0] for request in values(requests) if len(request) == 1]
    assert sorted(ones) == [float(i) for i in range(10)]


def test_inputs_of_one_file_stay_together(tmp_path):
    """In a larger request each row has the inputs that belonged together."""
    np.savez(tmp_path / "p.npz", a=np.arange(9.0)[:, None], b=np.arange(9)[:, None])
    spec = model(("a", "FP64", ("n", 1)), ("b", "INT64", ("n", 1)))
    requests, _ = make_requests(spec, tmp_path, rows=shares("3"))
    found = map(arrays, requests)
    assert all((inputs["a"] == inputs["b"]).all() for inputs in found)


def test_only_like_shapes_share_a_request(tmp_path):
    """Rows of different lengths are never put together."""
    payloads = [{"x": np.full((1, n), n, np.float32)} for n in (2, 3, 2, 3, 5)]
    write_payloads(tmp_path / "p.npz", payloads)
    spec = model(("x", "FP32", ("n", "length")))
    requests, mix = make_requests(spec, tmp_path, rows=shares("4"), distinct=30)
    found = [arrays(request)["x"] for request in requests]
    assert all((array == array.shape[1]).all() and len(array) == 4 for array in found)
    assert Counter(array.shape[1] for array in found) == {2: 12, 3: 12, 5: 6}
    assert mix.lengths == Spread(2, 3, 5)


def test_only_like_inputs_share_a_request(tmp_path):
    """Rows of different inputs, of which some are optional, are never put together."""
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", **{name: np.ones((2, 2), np.float32)})
    np.savez(tmp_path / "c.npz", a=np.ones((2, 2), np.float32), b=np.ones((2, 2), np.float32))
    spec = model(("a", "FP32", ("n", 2)), ("b", "FP32", ("n", 2)), optional=("a", "b"))
    requests, _ = make_requests(spec, tmp_path, rows=shares("2"))
    assert {tuple(arrays(request)) for request in requests} == {("a",), ("b",), ("a", "b")}
    assert all(len(array) == 2 for request in requests for array in arrays(request).values())


def test_text(tmp_path):
    """Text is sent in requests of several rows, too."""
    np.save(tmp_path / "t.npy", np.array([["a"], ["é"]]))
    spec = model(("t", "BYTES", ("n", 1)))
    requests, mix = make_requests(spec, tmp_path, rows=shares("2"), distinct=4)
    assert {tuple(sorted(t for row in r for t in row)) for r in values(requests, "t")} == {
        (b"a", "é".encode())
    }
    assert mix.bytes_per_request == Spread(11, 11, 11)


def test_random_text():
    """Random text comes in as many rows as asked."""
    requests, _ = make_requests(model(("t", "BYTES", ("n", 3))), rows=shares("2"))
    assert set(np.ravel(values(requests, "t"))) == {b"yes", b"no"}
    assert {np.shape(rows) for rows in values(requests, "t")} == {(2, 3)}


def test_lengths():
    """All dynamic dimensions of a random request have the length that was drawn for it."""
    requests, mix = make_requests(LONG, lengths=shares("8:0.75,128:0.25"), distinct=40)
    shapes = [(inputs["ids"].shape, inputs["mask"].shape) for inputs in map(arrays, requests)]
    assert Counter(shapes) == {((1, 8), (1, 8)): 30, ((1, 128), (1, 128)): 10}
    assert mix.lengths == Spread(8, 8, 128)


def test_lengths_of_a_model_that_does_not_batch():
    """Without a batch the first dimension has a length like any other."""
    spec = model(("x", "FP32", ("n", 2, "m")), batch=0)
    requests, mix = make_requests(spec, lengths=shares("5"), distinct=3)
    assert {arrays(request)["x"].shape for request in requests} == {(5, 2, 5)}
    assert (mix.rows, mix.lengths) == ({"1": 3}, Spread(5, 5, 5))


def test_real_inputs_of_a_model_that_does_not_batch(tmp_path):
    """Without a batch a file is a request, whatever its shape."""
    np.save(tmp_path / "1.npy", np.ones((4, 2), np.float32))
    np.save(tmp_path / "2.npy", np.ones((7, 2), np.float32))
    requests, mix = make_requests(model(("x", "FP32", ("n", 2)), batch=0), tmp_path)
    assert [arrays(request)["x"].shape for request in requests] == [(4, 2), (7, 2)]
    assert (mix.rows, mix.lengths) == ({"1": 2}, Spread(4, 5.5, 7))


def test_scalar_inputs():
    """An input without dimensions is drawn like any other."""
    requests, mix = make_requests(model(("s", "FP32", ()), batch=0), distinct=5)
    assert {arrays(request)["s"].shape for request in requests} == {()}
    assert (mix.distinct, mix.lengths) == (5, None)


def test_no_inputs():
    """A model without inputs has one request."""
    requests, mix = make_requests(model(batch=0), distinct=1)
    assert (requests[0].inputs, mix.bytes_per_request) == ((), Spread(0, 0, 0))


def test_fewer_of_the_real_inputs(inputs):
    """Of many real inputs as many as asked are sent, in their order, drawn by the seed."""
    drawn = [values(make_requests(ROWS, inputs, distinct=4, seed=seed)[0]) for seed in range(9)]
    assert all(rows == sorted(rows) and len(rows) == 4 for rows in drawn)
    assert len({str(rows) for rows in drawn}) > 1


def test_more_than_there_are(inputs):
    """Asked for more different requests than there are inputs it says so, and sends those."""
    requests, mix = make_requests(ROWS, inputs, distinct=11)
    assert (len(requests), mix.distinct) == (10, 10)
    assert mix.warnings == ("11 different requests were asked for, and there are only 10",)


def test_random_values_that_repeat():
    """Where random values have few possibilities the different ones are counted, not assumed."""
    mix = make_requests(model(("flag", "BOOL", ("n", 1))), distinct=20)[1]
    assert (mix.count, mix.distinct) == (20, 2)
    assert "20 different requests were asked for, and there are only 2" in mix.warnings


@pytest.mark.parametrize("count", [1, 3])
def test_all_the_same(tmp_path, count):
    """It warns when every request is the same, in however many files."""
    for i in range(count):
        np.save(tmp_path / f"{i}.npy", np.ones((1, 2), np.float32))
    mix = make_requests(ROWS, tmp_path)[1]
    assert (mix.count, mix.distinct) == (count, 1)
    assert [w.split(":")[0] for w in mix.warnings] == ["every request is the same"]


def test_same_bytes_in_another_shape(tmp_path):
    """Requests of the same bytes in different shapes are different."""
    spec = model(("x", "FP32", ("n", "h", "w")))
    np.save(tmp_path / "1.npy", np.ones((1, 2, 3), np.float32))
    np.save(tmp_path / "2.npy", np.ones((1, 3, 2), np.float32))
    assert make_requests(spec, tmp_path)[1].distinct == 2


def test_a_size_that_no_request_has():
    """A share too small for so few requests is told, with how many it takes."""
    mix = make_requests(ROWS, rows=shares("1:0.99,8:0.01"), distinct=2)[1]
    assert mix.warnings == (
        "no request has 8 rows, because there are only 2; it takes 100 distinct ones",
    )


def test_rare_sizes_by_default():
    """Unless told otherwise there are enough requests for the rarest size."""
    mix = make_requests(ROWS, rows=shares("1:0.995,8:0.005"))[1]
    assert mix.rows == {"1": 199, "8": 1}
    assert mix.warnings == ()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"distinct": 0}, "0 distinct requests: there must be at least 1"),
        ({"distinct": 10**12}, "more than 2 GiB of memory; make fewer distinct ones"),
        ({"rows": "9"}, "9 rows: ranker/2 takes at most 8 in one request"),
        ({"rows": "1:0.9,4-9:0.1"}, "9 rows: ranker/2 takes at most 8 in one request"),
        ({"lengths": "5"}, r"no inputs of a dynamic length; its inputs are x:FP32\[n,2\]"),
    ],
)
def test_refused(how, words):
    """What the model cannot take, and what would not fit into memory, is refused."""
    how = {name: shares(v) if isinstance(v, str) else v for name, v in how.items()}
    with pytest.raises(InputError, match=words):
        make_requests(ROWS, **how)


def test_rows_of_a_model_that_does_not_batch():
    """A model that does not batch takes no requests of several rows."""
    with pytest.raises(InputError, match=r"2 rows: ranker/2 does not batch; leave the rows out"):
        make_requests(model(("x", "FP32", (3,)), batch=0), rows=shares("1:0.5,2:0.5"))


def test_lengths_of_real_inputs(inputs):
    """Real inputs have the lengths that they have."""
    with pytest.raises(InputError, match=r"x\.npy: real inputs have their own lengths; leave"):
        make_requests(LONG, inputs, lengths=shares("5"))


def test_lengths_beyond_memory():
    """Random values that would not fit into memory are refused before they are drawn."""
    with pytest.raises(InputError, match="more than 2 GiB of memory"):
        make_requests(LONG, lengths=shares("900000000"))


def test_rows_beyond_memory(tmp_path):
    """Real rows that would not fit into memory together are refused."""
    np.save(tmp_path / "x.npy", np.zeros((1, 2**20), np.float32))
    spec = model(("x", "FP32", ("n", 2**20)), batch=1024)
    with pytest.raises(InputError, match="more than 2 GiB of memory"):
        make_requests(spec, tmp_path, rows=shares("1024"), distinct=1)


def test_describe_counts_requests_made_elsewhere():
    """Requests that were made elsewhere are described alike."""
    requests, mix = make_requests(ROWS, distinct=6)
    assert describe(ROWS, [*requests, requests[0]], mix.source).distinct == 6


def test_mix_is_plain_data(inputs):
    """What is in the requests can be kept as JSON, and comes back equal."""
    mix = make_requests(ROWS, inputs, rows=shares("1,4"))[1]
    plain = asdict(mix)
    assert json.loads(json.dumps(plain)) == {**plain, "warnings": list(plain["warnings"])}


def test_mix_in_one_line(inputs):
    """What is in the requests is shown in a line."""
    mix = make_requests(ROWS, inputs, rows=shares("1:0.75,4:0.25"), distinct=8)[1]
    assert str(mix) == (
        f"8 requests of {inputs}, all different: 6 of 1 row, 2 of 4 rows; 8 to 32, median 8 bytes "
        "each"
    )
    mix = make_requests(LONG, lengths=shares("7"), distinct=1)[1]
    assert str(mix) == (
        f"1 request of {RANDOM_VALUES}, all different: 1 of 1 row; lengths 7; 63 bytes each"
    )


@pytest.mark.parametrize("real", [True, False])
def test_a_server_takes_them(tmp_path, real):
    """A server that checks requests as Triton does takes every one of them, as it was meant."""
    inputs = ["t:BYTES[-1,1]", "ids:INT64[-1,-1]", "flag:BOOL[-1,1]"]
    fake = FakeTransport({"m": FakeModel(inputs, ["y:FP32[-1,1]"], max_batch_size=4)})
    spec = Client(transport=fake).spec("m")
    for i, length in enumerate((2, 2, 7)):
        texts, ids = np.array([["é"], ["b"]]), np.full((2, length), i)
        np.savez(tmp_path / f"{i}.npz", t=texts, ids=ids, flag=np.array([[True], [False]]))
    requests, _ = make_requests(spec, tmp_path if real else None, rows=shares("1-4"), distinct=12)
    for request in requests:
        fake.send(fake.encode(request), timeout_s=None)
    rows = Counter(request.request.inputs[0].shape[0] for request in fake.requests)
    assert rows == {1: 3, 2: 3, 3: 3, 4: 3}


@given(
    rows=st.integers(1, 8),
    distinct=st.integers(1, 12),
    seed=st.integers(0, 5),
    dtype=st.sampled_from([*KSERVE_TYPES]),
    shape=st.lists(st.sampled_from([0, 1, 3, "a", "b"]), max_size=3),
    batch=st.sampled_from([0, 8]),
)
def test_any_model(rows, distinct, seed, dtype, shape, batch):
    """Random requests have the rows, dtype and sizes of any model, fixed, dynamic or empty."""
    dims = ("n", *shape) if batch else tuple(shape)
    spec = model(("x", dtype, dims), batch=batch)
    wanted = Shares(((rows if batch else 1, rows if batch else 1, 1.0),))
    requests, mix = make_requests(spec, rows=wanted, distinct=distinct, seed=seed)
    expected = tuple(16 if isinstance(size, str) else size for size in shape)
    assert len(requests) == distinct
    for request in requests:
        (tensor,) = request.inputs
        assert (tensor.datatype, tensor.shape[-len(shape) :] if shape else ()) == (dtype, expected)
        assert tensor.shape[: len(dims) - len(shape)] == ((rows,) if batch else ())
        assert arrays(request)["x"].shape == tensor.shape
    assert 1 <= mix.distinct <= distinct


@pytest.mark.parametrize(
    ("spread", "said"),
    [
        (Spread(8, 8, 8), "8"),
        (Spread(8, 16, 64), "8 to 64, median 16"),
        (Spread(8, 16.5, 64), "8 to 64, median 16.5"),
        (Spread(8, 12345678.5, 20000000), "8 to 20000000, median 12345678.5"),
    ],
)
def test_spread_for_people(spread, said):
    """A spread is written without powers of ten."""
    assert str(spread) == said
