"""`tritonkit infer`: what it reads, sends, prints, saves and refuses, without a server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tritonkit.cli import cli
from tritonkit.client.fake import FakeModel, FakeTransport
from tritonkit.errors import InputError, NotFoundError, TensorError
from tritonkit.payloads import write_payloads

HEAVY = {"numpy", "grpc", "tritonclient", "urllib3", "tritonkit.client"}


def stories(x):
    for k in range(int(x[0])):
        yield {"k": np.array([k], np.int32)}


def root(x):
    return {"y": np.where(x < 0, np.nan, np.sqrt(np.abs(x)))}


def models() -> dict[str, FakeModel]:
    return {
        "double": FakeModel(["x:FP32[-1,2]"], ["y:FP32[-1,2]"], 4, lambda x: {"y": x + x}),
        "add": FakeModel(
            ["a:INT64[-1,1]", "b:INT64[-1,1]"],
            ["sum:INT64[-1,1]", "less:BOOL[-1,1]"],
            4,
            lambda a, b: {"sum": a + b, "less": a < b},
        ),
        "echo": FakeModel(["s:BYTES[-1,1]"], ["S:BYTES[-1,1]"], 4, lambda s: {"S": s}),
        "root": FakeModel(["x:FP32[1]"], ["y:FP32[1]"], 0, root),
        "wide": FakeModel(["n:INT32[1]"], ["y:INT32[-1]"], 0, lambda n: {"y": np.arange(n[0])}),
        "stories": FakeModel(["x:INT32[1]"], ["k:INT32[1]"], 0, stories),
    }


@pytest.fixture
def fake(monkeypatch, tmp_path) -> FakeTransport:
    """A server with small models, behind whatever URL is given; the current folder is empty."""
    transport = FakeTransport(models())
    monkeypatch.setattr("tritonkit.client.client.blocking_transport", lambda *_: transport)
    monkeypatch.chdir(tmp_path)
    return transport


@pytest.fixture
def infer(fake) -> Callable[..., Result]:
    """Run `tritonkit infer localhost ARGUMENTS` in this process."""

    def run(*arguments: object, stdin: str | bytes = "") -> Result:
        words = ["infer", "localhost", *map(str, arguments)]
        return CliRunner().invoke(cli, words, input=stdin, standalone_mode=False)

    return run


@pytest.fixture
def answer(infer) -> Callable[..., dict]:
    """The data of each output of the answer."""

    def run(*arguments: object, stdin: str | bytes = "") -> dict:
        done = infer(*arguments, "--json", stdin=stdin)
        if done.exception is not None:
            raise done.exception
        return {n: o["data"] for n, o in json.loads(done.stdout)["outputs"].items()}

    return run


@pytest.fixture
def refused(infer, fake) -> Callable[..., str]:
    """The words of the InputError, before any inference."""

    def run(*arguments: object, stdin: str | bytes = "") -> str:
        done = infer(*arguments, stdin=stdin)
        assert isinstance(done.exception, InputError), done.output
        assert "\n" not in str(done.exception)
        assert fake.requests == []
        return str(done.exception)

    return run


# What is sent


@pytest.mark.parametrize("value", ["x=[[1, 2]]", "[[1, 2]]", "x=[[1.0, 2]]"])
def test_json_on_the_command_line(answer, value):
    """JSON is an input's value, with or without the name of the only input."""
    assert answer("double", "--input", value) == {"y": [[2, 4]]}


def test_one_row(answer):
    """A value without the batch axis is a row, and so is the answer."""
    assert answer("double", "--input", "[1, 2]") == {"y": [2, 4]}


def test_npy(answer):
    """A .npy is an array."""
    np.save("x.npy", np.ones((2, 2), np.float32))
    assert answer("double", "--input", "@x.npy") == {"y": [[2, 2], [2, 2]]}


def test_npz_by_name(answer):
    """Of a .npz that is given to an input the array of that name is taken."""
    np.savez("x.npz", a=np.array([[1]]), b=np.array([[5]]))
    assert answer("add", "--input", "a=@x.npz", "--input", "b=[[2]]")["sum"] == [[3]]


def test_npz_without_a_name(answer):
    """Each array of a .npz that is given without a name is an input."""
    np.savez("x.npz", a=np.array([[1]]), b=np.array([[5]]))
    assert answer("add", "--input", "@x.npz")["sum"] == [[6]]


def test_json_file(answer, tmp_path):
    """A .json holds nested lists."""
    (tmp_path / "x.json").write_text("[[1, 2], [3, 4]]")
    assert answer("double", "--input", "x=@x.json") == {"y": [[2, 4], [6, 8]]}


def test_stdin(answer):
    """@- is JSON from stdin."""
    assert answer("double", "--input", "@-", stdin="[[1, 2]]") == {"y": [[2, 4]]}


def test_object_of_inputs(answer):
    """A JSON object without a name is inputs by name."""
    assert answer("add", "--input", "@-", stdin='{"a": [[1]], "b": [[5]]}')["sum"] == [[6]]


def test_payloads(answer, tmp_path):
    """The requests of a payloads.npz are rows, more than one request takes if need be."""
    payloads = [{"x": np.array([[i, -i]], np.float32)} for i in range(5)]
    write_payloads(tmp_path / "payloads.npz", payloads)
    assert answer("double", "--input", "@payloads.npz")["y"] == [[2 * i, -2 * i] for i in range(5)]


def test_payloads_of_text(answer, tmp_path):
    """So are those of text."""
    write_payloads(tmp_path / "payloads.npz", [{"s": np.array([["é"]])}, {"s": np.array([["b"]])}])
    assert answer("echo", "--input", "@payloads.npz") == {"S": [["é"], ["b"]]}


def test_different_payloads(refused, tmp_path):
    """Payloads that have not the same inputs are no rows."""
    one = np.ones((1, 1), np.int64)
    write_payloads(tmp_path / "p.npz", [{"a": one}, {"b": one}])
    assert "its requests have different inputs" in refused("add", "--input", "@p.npz")


def test_payloads_of_different_shapes(refused, tmp_path):
    """Payloads of different shapes cannot be sent together."""
    write_payloads(tmp_path / "p.npz", [{"x": np.ones((1, n))} for n in (1, 2)])
    words = "input 'x' has rows of different shapes; send one with --row"
    assert refused("double", "--input", "@p.npz") == words


@pytest.mark.parametrize("value", ["[[1, 2], [3, 4]]", "@x.npy", "@payloads.npz"])
def test_row(answer, tmp_path, value):
    """--row sends one row of whatever there is."""
    rows = np.array([[1, 2], [3, 4]], np.float32)
    np.save("x.npy", rows)
    write_payloads(tmp_path / "payloads.npz", [{"x": rows[:1]}, {"x": rows[1:]}])
    assert answer("double", "--input", value, "--row", 1) == {"y": [[6, 8]]}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        *[("hello", "hello"), ('"hello"', "hello"), ("42", "42"), ("true", "true"), ("", "")],
        *[('{"a": 1}', '{"a": 1}'), ("a=b", "a=b"), ("[a", "[a"), ('["é"]', "é"), ("ü", "ü")],
    ],
)
def test_text(answer, text, seen):
    """Text for an input of BYTES that is not JSON text or a list is taken as it is."""
    assert answer("echo", "--input", f"s={text}")["S"] == [seen]


def test_a_number(answer):
    """A single number is the only element of a row that has one."""
    assert answer("root", "--input", "4") == {"y": [2.0]}


def test_what_is_asked_for(infer, fake):
    """Outputs, id and headers are sent."""
    done = infer(
        *("add", "--input", "a=1", "--input", "b=2", "--output", "less", "--id", "7"),
        *("--header", "X-Tenant: acme"),
    )
    assert done.exception is None
    (sent,) = fake.requests
    assert [w.name for w in sent.request.outputs] == ["less"]
    assert (sent.request.id, sent.headers) == ("7", {"X-Tenant": "acme"})


def test_token(infer, fake, tmp_path):
    """A token comes out of its file, without the end of the line."""
    (tmp_path / "token").write_text("abc\n")
    infer("double", "--input", "[1, 2]", "--token-file", "token")
    assert fake.requests[0].headers["authorization"] == "Bearer abc"


def test_timeout(infer, fake):
    """The timeout is for the metadata and the inference together."""
    infer("double", "--input", "[1, 2]", "--timeout-s", 5)
    assert 0 < fake.requests[0].timeout_s < 5


# What is refused


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("@nope.npy", "nope.npy cannot be read: No such file or directory"),
        ("@nope.json", "nope.json cannot be read: No such file or directory"),
        ("@folder.npz", "folder.npz cannot be read: Is a directory"),
        ("@x", "@x: the name must end in .npy, .npz or .json, or be @- for stdin"),
        ("@text.npy", "text.npy is no .npy file, or a damaged one"),
        ("@text.npz", "text.npz is no .npz file, or a damaged one"),
        ("@cut.npy", "cut.npy is no .npy file, or a damaged one"),
        ("@cut.npz", "cut.npz is no .npz file, or a damaged one"),
        ("@array.npz", "array.npz is no .npz file, though it is named so"),
        ("@objects.npy", "objects.npy holds Python objects; save text as array.astype(bytes)"),
        ("x=@good.npz", "good.npz has no array 'x'; it has z"),
        ("@text.json", "text.json is not JSON: Expecting value at line 2, column 2"),
        ("@-", "stdin is not JSON: it is empty"),
        ("x=[[1, 2", "input 'x' is not JSON: Expecting ',' delimiter at line 1, column 7"),
        ("x=[1e999, 2]", "input 'x' is not JSON: 1e999 is too large for a number"),
        ("x=" + "[" * 100_000, "input 'x' is not JSON: maximum recursion depth"),
        ("x=text.npy", "line 1, column 1; for the file give '@text.npy'"),
        ("q=[[1, 2]]", "double: the model has no input 'q'; it has x:FP32[dim_0,2]"),
        ("[[1, 2, 3]]", "double: input 'x' has shape [1, 3]; dimension 1 must be 2"),
        ("x=3.5", "double: input 'x' has shape []"),
        ("\udcff", "is no valid text"),
    ],
    ids=lambda x: x[:16].encode(errors="replace").decode(),
)
def test_bad_input(refused, tmp_path, argument, words):
    """An input that cannot be used is refused in one line that says why."""
    np.save("whole.npy", np.ones(1000))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:500])
    np.savez("good.npz", z=np.ones(1000))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:500])
    (tmp_path / "array.npz").write_bytes((tmp_path / "whole.npy").read_bytes())
    np.save("objects.npy", np.array(["a", None], object))
    (tmp_path / "folder.npz").mkdir()
    for name in ("text.npy", "text.npz", "text.json"):
        (tmp_path / name).write_text("[1,\n ,")
    assert words in refused("double", "--input", argument)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "double: no inputs are given; the model needs x:FP32[dim_0,2]"),
        (["--input", "x=1", "--input", "x=2"], "input 'x' is given twice"),
        (["--input", "[1]", "--input", "x=2"], "input 'x' is given twice"),
        (["--input", "@-", "--input", "x=@-"], "stdin can be read only once"),
        (["--input", "[[1, 2]]", "--row", 1], "no row 1: input 'x' has 1 rows, 0 to 0"),
        (["--input", "7", "--row", 0], "no row 0: input 'x' has no rows"),
        (["--input", "[1, 2]", "--output", "z"], "double: the model has no output 'z'"),
        (["--header", "secret"], "'secret' is not a header; give 'NAME: VALUE'"),
        (["--token-file", "nope"], "nope cannot be read"),
        (["--token-file", "blank"], "blank holds no bearer token"),
        (["--save", "out.txt"], "--save out.txt: the name must end in .npz, .npy, .json"),
        (["--save", "folder.npz"], "--save folder.npz: it is a directory"),
        (["--save", "blank/out.npz"], "nothing can be written in"),
    ],
    ids=lambda x: " ".join(map(str, x)) if isinstance(x, list) else "",
)
def test_bad_options(refused, tmp_path, arguments, words):
    """An option that cannot be used is refused in one line that says why."""
    (tmp_path / "blank").write_text(" \n")
    (tmp_path / "folder.npz").mkdir()
    assert words in refused("double", *arguments)


def test_no_name_for_two_inputs(refused):
    """A model of two inputs needs their names."""
    words = "add: an input without a name, but the model has a:INT64[dim_0,1], b:INT64[dim_0,1]"
    assert refused("add", "--input", "[[1]]") == words


def test_npy_of_two_outputs(refused):
    """A .npy for two outputs is refused before anything is sent."""
    words = refused("add", "--input", "a=1", "--input", "b=2", "--save", "out.npy")
    assert "give --output, one of sum, less, or save a .npz" in words


@pytest.mark.parametrize("option", [["--save", "k.json"], ["--classes", "1"]])
def test_not_of_a_stream(refused, option):
    """Streamed answers are neither saved nor classes."""
    assert "stories streams its answers" in refused("stories", "--input", "2", *option)


@pytest.mark.parametrize("value", ["0", "nan", "inf", "-1", "soon"])
def test_bad_timeout(tritonkit, value):
    """A timeout that is no finite positive number is a wrong use."""
    done = tritonkit("infer", "localhost", "m", "--timeout-s", value)
    assert done.returncode == 2
    assert "Invalid value for '--timeout-s'" in done.stderr


def test_bad_address(tritonkit):
    """An address of no known protocol is refused."""
    done = tritonkit("infer", "ftp://localhost", "m", "--input", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: 'ftp://localhost' is not a server's address")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_no_server(tritonkit, protocol):
    """Where nothing listens the request fails in one line that names the address."""
    url = f"{protocol}://127.0.0.1:1"
    done = tritonkit("infer", url, "m", "--input", "1")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {url}: ")


def test_bad_input_before_no_server(tritonkit):
    """A file that cannot be read is told before any server is asked."""
    done = tritonkit("infer", "127.0.0.1:1", "m", "--input", "@nope.npy")
    assert done.returncode == 2
    assert done.stderr == "error: nope.npy cannot be read: No such file or directory\n"


# What is printed


def test_printed(infer):
    """Each output has its name, datatype and shape, and its values below."""
    done = infer("add", "--input", "a=[[1], [3]]", "--input", "b=[[2], [2]]")
    assert done.stdout == (
        "sum INT64[2,1]\n  [[3]\n   [5]]\nless BOOL[2,1]\n  [[ True]\n   [False]]\n"
    )


def test_printed_long(infer):
    """A long array is shortened."""
    assert infer("wide", "--input", "1000").stdout == (
        "y INT32[1000]\n  [  0   1   2 ... 997 998 999]\n"
    )


def test_printed_text(infer):
    """Text stands in quotes, without what a terminal would obey."""
    done = infer("echo", "--input", 's=["é\\u001b[31m\\n"]')
    assert done.stdout == "S BYTES[1]\n  ['é\\x1b[31m\\n']\n"


def test_printed_bytes(infer):
    """Bytes that are not UTF-8 are shown as bytes."""
    np.save("s.npy", np.array([[b"\xff"]]))
    assert infer("echo", "--input", "@s.npy").stdout == "S BYTES[1,1]\n  [[b'\\xff']]\n"


def test_printed_classes(infer):
    """Classes are a table."""
    done = infer("double", "--input", "[[1, 2], [4, 3]]", "--classes", 2)
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["y", "CLASSES[2,2]"],
        ["row", "score", "index"],
        *(["0", "4", "1"], ["0", "2", "0"], ["1", "8", "0"], ["1", "6", "1"]),
    ]


def test_printed_stream(infer):
    """Streamed answers are blocks."""
    assert infer("stories", "--input", "2").stdout == "k INT32[1]\n  [0]\n\nk INT32[1]\n  [1]\n"


def test_json(infer):
    """--json prints the answer as one object on one line."""
    done = infer("double", "--input", "[[0.1, 1]]", "--id", "7", "--json")
    assert done.stdout == (
        '{"model": "double", "version": "1", "id": "7", "outputs": '
        '{"y": {"datatype": "FP32", "shape": [1, 2], "data": [[0.2, 2.0]]}}}\n'
    )


@pytest.mark.parametrize("value", ["-1", "Infinity"])
def test_json_not_finite(answer, value):
    """NaN and infinity, which JSON does not have, are null."""
    assert answer("root", "--input", value) == {"y": [None]}


def test_json_bytes(answer):
    """Bytes that are not UTF-8 are escaped."""
    np.save("s.npy", np.array([["é".encode() + b"\xff"]]))
    assert answer("echo", "--input", "@s.npy") == {"S": [["é\\xff"]]}


def test_json_classes(answer):
    """Classes are objects."""
    data = answer("double", "--input", "[1, 2]", "--classes", 1)
    assert data == {"y": [{"score": 4.0, "index": 1, "label": ""}]}


def test_json_stream(infer):
    """Each streamed answer is one line of JSON."""
    done = infer("stories", "--input", "3", "--json")
    lines = map(json.loads, done.stdout.splitlines())
    assert [line["outputs"]["k"]["data"] for line in lines] == [[0], [1], [2]]


@pytest.mark.parametrize("target", ["o.npz", "deep/er/o.npz", "a.npz"])
def test_save_npz(infer, tmp_path, target):
    """A .npz has all outputs, in a folder that is made, in place of what was there."""
    (tmp_path / "a.npz").write_text("old")
    done = infer("add", "--input", "a=1", "--input", "b=2", "--save", target)
    assert done.stdout.endswith(f"\n\n{target}\n")
    with np.load(target) as saved:
        assert {n: saved[n].tolist() for n in saved.files} == {"sum": [3], "less": [True]}


def test_save_npy(infer):
    """A .npy is the one output."""
    infer("add", "--input", "a=1", "--input", "b=2", "--output", "sum", "--save", "o.npy")
    assert np.load("o.npy").tolist() == [3]


def test_save_json(infer, tmp_path):
    """A .json is what --json prints."""
    done = infer("double", "--input", "[1, 2]", "--json", "--save", "o.json")
    assert (tmp_path / "o.json").read_text() == done.stdout


def test_save_text(infer):
    """Text is saved as bytes of a fixed width, which need no pickle."""
    infer("echo", "--input", 's=["é"]', "--save", "o.npy")
    assert np.load("o.npy").tolist() == ["é".encode()]


def test_save_classes(infer):
    """Classes are saved as records."""
    infer("double", "--input", "[1, 2]", "--classes", 1, "--save", "o.npy")
    assert np.load("o.npy").tolist() == [(4.0, 1, "")]


def test_save_in_vain(infer, tmp_path):
    """Text that numpy cannot save leaves nothing behind, not even a part."""
    done = infer("echo", "--input", 's=["a\\u0000"]', "--save", "o.npz")
    assert isinstance(done.exception, InputError)
    assert list(tmp_path.iterdir()) == []


def test_failed_request_saves_nothing(infer, fake, tmp_path):
    """A request that fails makes no file and no folder."""
    done = infer("unknown", "--input", "[1, 2]", "--save", "deep/o.npz")
    assert done.exception is not None and not isinstance(done.exception, TensorError)
    assert list(tmp_path.iterdir()) == []


def test_unknown_model(infer):
    """The error of an unknown model says which models the server has."""
    done = infer("unknown", "--input", "[1, 2]")
    assert isinstance(done.exception, NotFoundError)
    assert f"{done.exception}".endswith(f"; the server has {', '.join(sorted(models()))}")


def test_save_into_nowhere(refused):
    """Where nothing can be saved is said before anything is sent."""
    words = refused("double", "--input", "[1, 2]", "--save", "/proc/o.npz")
    assert words.startswith("--save /proc/o.npz: nothing can be written in /proc (")


def test_help_is_light():
    """Help is answered without importing numpy, gRPC, or the client."""
    code = (
        "import sys; from tritonkit.cli import cli\n"
        "try: cli.main(['infer', '--help'])\n"
        f"finally: print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stderr == "[]\n"
