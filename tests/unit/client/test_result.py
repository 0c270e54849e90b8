"""Answers as arrays: read, shown, and refused if malformed."""

import contextlib
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonkit.client.result import Classification, InferResult, read_classes
from tritonkit.client.transport import InferResponse, Region, Tensor
from tritonkit.errors import InputError, ProtocolError

SCORE = Tensor("score", "FP32", (3, 1), np.arange(3, dtype=np.float32).tobytes())
TEXT = Tensor("text", "BYTES", (3,), b"\1\0\0\0a\0\0\0\0\2\0\0\0\xc3\xa9")


def result(*outputs: Tensor, version: str = "1") -> InferResult:
    """The result of an answer of ranker."""
    return InferResult(InferResponse("ranker", version, outputs, "id 7", {"cached": True}))


def test_mapping():
    """Outputs are found by name, in the server's order."""
    answer = result(SCORE, TEXT)
    assert list(answer) == ["score", "text"]
    assert answer["score"].tolist() == [[0], [1], [2]]
    assert answer["text"].tolist() == [b"a", b"", "é".encode()]
    assert len(answer) == 2
    assert "other" not in answer
    assert answer.get("other") is None


def test_what_else_was_said():
    """Model, version, id and parameters are kept."""
    answer = result(SCORE)
    assert (answer.model, answer.version, answer.id) == ("ranker", "1", "id 7")
    assert answer.parameters == {"cached": True}


def test_wrong_name():
    """An output that is not there is a KeyError that names those that are."""
    with pytest.raises(KeyError, match=r"no output 'scores' of ranker/1; it has score, text"):
        result(SCORE, TEXT)["scores"]


def test_only():
    """The single output has a short way to it; of several one must be chosen."""
    assert result(SCORE).only.shape == (3, 1)
    for outputs in ((), (SCORE, TEXT)):
        with pytest.raises(InputError, match=rf"^ranker/1 answered with {len(outputs)} outputs"):
            _ = result(*outputs).only


def test_shown():
    """A result is shown in one line, without its values."""
    assert repr(result(SCORE)) == "<InferResult ranker/1: score FP32[3,1]>"
    assert repr(result(SCORE, TEXT, version="")) == (
        "<InferResult ranker: score FP32[3,1], text BYTES[3]>"
    )


def test_unchangeable():
    """Neither a result nor its arrays can be changed; a copy of an array can."""
    answer = result(SCORE, TEXT)
    with pytest.raises(AttributeError):
        answer.model = "other"
    with pytest.raises(TypeError):
        answer["score"] = SCORE
    for array in (*answer.values(), *answer.replaced({"y": np.zeros(2)}).values()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert answer["score"].copy().flags.writeable


def test_reading_copies_nothing():
    """Arrays are views of the answer, wherever in it they begin."""
    body = b"{}" + SCORE.data
    array = result(SCORE._replace(data=memoryview(body)[2:])).only
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))


def test_identity():
    """Results are compared by identity and can be keys, for arrays have no single truth."""
    one, other = result(SCORE), result(SCORE)
    assert one == one
    assert one != other
    assert len({one, other}) == 2


def test_pickle():
    """A result can be sent to another process."""
    back = pickle.loads(pickle.dumps(result(SCORE, TEXT)))
    assert repr(back) == repr(result(SCORE, TEXT))
    assert np.array_equal(back["score"], result(SCORE).only)


def test_single_row():
    """Without the batch axis a row of numbers is a number, and everything else is kept."""
    one = Tensor("score", "FP32", (1,), b"\0\0\x80?")
    answer = result(one, Tensor("y", "BYTES", (1, 1), b"\0\0\0\0")).single_row()
    assert repr(answer) == "<InferResult ranker/1: score FP32[], y BYTES[1]>"
    assert answer["score"] == 1
    assert answer.id == "id 7"


@pytest.mark.parametrize("shape", [(), (2,), (0, 2)])
def test_no_single_row(shape):
    """An output that has not one row for one row is refused, with a way to have it."""
    output = Tensor("y", "INT8", shape, bytes(int(np.prod(shape))))
    with pytest.raises(
        ProtocolError, match=r"ranker/1: output 'y' has shape .* batch axis to have"
    ):
        result(output).single_row()


def test_replaced():
    """Other outputs of the same answer; the first result keeps its own."""
    answer = result(SCORE)
    assert repr(answer.replaced({"y": np.zeros(2, bool)})) == "<InferResult ranker/1: y BOOL[2]>"
    assert list(answer) == ["score"]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (SCORE._replace(data=b"\0" * 11), r"is not FP32\[3, 1\], as the server says"),
        (SCORE._replace(data=b"\0" * 16), "is not FP32"),
        (SCORE._replace(shape=(-1, 1)), r"is not FP32\[-1, 1\]"),
        (TEXT._replace(shape=(2,)), r"is not BYTES\[2\], as .* do not end where"),
        (TEXT._replace(data=TEXT.data[:-1]), "is not BYTES"),
        (SCORE._replace(datatype="BF16"), "cannot be read: dtype 'BF16' is not carried"),
        (SCORE._replace(data=Region("r", 12)), "is in shared memory, unasked"),
    ],
)
def test_malformed(output, words):
    """An output that is not what the server says is a ProtocolError."""
    with pytest.raises(ProtocolError, match=rf"^ranker: output 'y' {words}") as error:
        result(output._replace(name="y"))
    assert error.value.kind == "protocol"


def test_output_that_came_twice():
    """Two outputs of one name are a ProtocolError."""
    with pytest.raises(ProtocolError, match="came twice"):
        result(SCORE, SCORE)


@given(
    st.binary(max_size=30),
    st.sampled_from(["FP32", "BOOL", "BYTES", "BF16", ""]),
    st.lists(st.integers(-2, 9), max_size=3).map(tuple),
)
def test_random_bytes(data, datatype, shape):
    """Whatever bytes come, they are an array of the promised shape or a ProtocolError."""
    with contextlib.suppress(ProtocolError):
        assert result(Tensor("y", datatype, shape, data)).only.shape == shape


def test_classes():
    """Triton's texts are read into score, index and label, in the same shape."""
    texts = [[b"0.900000:3:cat: a pet", b"-1.5e3:0"], ["nan:7:é".encode(), b"inf:1:"]]
    classes = read_classes(np.array(texts, object))
    assert classes.shape == (2, 2)
    assert classes[0, 0] == Classification(0.9, 3, "cat: a pet")
    assert classes[0, 1] == (-1500.0, 0, "")
    assert classes[1, 0][1:] == (7, "é")
    assert classes[1, 1] == (float("inf"), 1, "")


def test_no_classes():
    """Of nothing there are no classes."""
    assert read_classes(np.empty((0, 2), object)).shape == (0, 2)


@pytest.mark.parametrize("text", [b"", b"0.5", b"x:1", b"0.5:x", b"1:2.5:a", 0.5])
def test_no_classification(text):
    """What is no classification is a ProtocolError that shows it."""
    with pytest.raises(ProtocolError, match=r"'score:index:label', but .* came"):
        read_classes(np.array([text], object))
