"""`tritonkit check` as a user meets it: its exit code, its words, its JSON, its one-line errors."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

HEALTHY = "(float[batch,4] x) => (float[batch,4] y) { y = Softmax<axis=1>(x) }"
LEAK = "(float[batch,4] x) => (float[batch,4] y) { [culprit] y = Softmax<axis=0>(x) }"
FIXED = "(float[1,4] x) => (float[1,4] y) { y = Relu(x) }"
TWO = "(float[batch,4] x, int64[batch] n) => (float[batch,4] y) { y = Relu(x) }"
NO_INPUTS = "() => (float[3] y) { y = Constant<value_floats=[1.0,2.0,3.0]>() }"


def save(path: Path, graph: str) -> Path:
    """An ONNX file."""
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {graph}'), path)
    return path


@pytest.fixture
def check(tritonkit, tmp_path, monkeypatch):
    """`check(graph, …)` runs the command on it, in an empty folder, with a small batch."""
    monkeypatch.chdir(tmp_path)

    def run(graph, *arguments):
        model = save(tmp_path / "m.onnx", graph) if isinstance(graph, str) else graph
        return tritonkit("check", model, "--max-batch-size", 3, *arguments)

    return run


@pytest.fixture
def refused(check):
    """`refused(graph, …)` → the one line on stderr, with exit code 2 and nothing on stdout."""

    def run(graph, *arguments):
        done = check(graph, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
        return done.stderr

    return run


@pytest.mark.parametrize(
    ("graph", "code", "verdict"),
    [(HEALTHY, 0, "safe"), (LEAK, 1, "unsafe"), (FIXED, 1, "not batchable")],
)
def test_exit_code(check, graph, code, verdict):
    """The exit code says whether strangers may share a batch, and the first line the verdict."""
    done = check(graph)
    assert (done.returncode, done.stderr) == (code, "")
    upto = "" if code else ", up to a batch of 3"
    assert done.stdout.splitlines()[0].endswith(f"m.onnx: {verdict}{upto}")


@pytest.mark.parametrize(("graph", "code"), [(HEALTHY, 0), (LEAK, 1), (FIXED, 1)])
def test_json(check, graph, code):
    """With --json there is one JSON object on stdout and nothing anywhere else."""
    done = check(graph, "--json")
    assert (done.returncode, done.stderr) == (code, "")
    record = json.loads(done.stdout)
    assert record.keys() >= {"model", "verdict", "batch_axis", "findings", "gain", "padding"}
    assert bool(record["findings"]) == bool(code) == (not record["gain"])


def test_finding(check):
    """A finding tells the node, the reason and the remedy."""
    out = " ".join(check(LEAK).stdout.split())
    assert "node 'culprit' (Softmax)" in out and "→ its axis is the batch" in out
    assert "tritonkit package --max-batch-size 0" in out


@pytest.mark.parametrize("graph", [HEALTHY, LEAK, FIXED])
def test_lines(check, graph):
    """Each finding, remedy and note is a line, for other programs to read."""
    for line in check(graph).stdout.splitlines()[1:]:
        assert line.startswith("  ")
        assert line[:17].strip() or line[17:].startswith("→ ")


def test_folder(check, tmp_path):
    """A folder from `tritonkit export` is checked by its model.onnx."""
    save(tmp_path / "model.onnx", HEALTHY)
    assert check(tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.onnx", None, "no such model file"),
        ("empty.onnx", b"", "not an ONNX model"),
        ("text.onnx", b"hello", "not an ONNX file"),
        ("a\nb\x1b[31m.onnx", None, "no such model file"),
    ],
)
def test_bad_file(tritonkit, tmp_path, name, content, words):
    """What is no model is refused in a line."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = tritonkit("check", tmp_path / name)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr and "Traceback" not in done.stderr


def test_empty_folder(refused, tmp_path):
    """A folder without a model is refused by the name of what is missing."""
    (tmp_path / "empty").mkdir()
    assert "empty/model.onnx" in refused(tmp_path / "empty")


def test_custom_operator(refused, tmp_path):
    """An operator that ONNX Runtime has not is named."""
    node = onnx.helper.make_node("Magic", ["x"], ["y"], domain="own")
    value = onnx.helper.make_tensor_value_info
    tensors = [value(name, onnx.TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", tensors[:1], tensors[1:])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, tmp_path / "magic.onnx")
    assert "own:Magic" in refused(tmp_path / "magic.onnx")


def test_no_inputs(check):
    """A model without inputs cannot be batched."""
    done = check(NO_INPUTS)
    assert done.returncode == 1 and "not batchable" in done.stdout


@pytest.mark.parametrize("most", ["1", "0", "-3", "many"])
def test_max_batch_size(tritonkit, tmp_path, most):
    """A batch of less than two is none."""
    done = tritonkit("check", save(tmp_path / "m.onnx", HEALTHY), "--max-batch-size", most)
    assert done.returncode == 2 and "--max-batch-size" in done.stderr


def test_real_rows(check, tmp_path):
    """Real rows may be given in a file: then a size that nobody guesses is no hindrance."""
    graph = """(float[batch,n] x) => (float[batch,m] y)
        { s = Constant<value_ints=[-1,1009]>() r = Reshape(x, s) y = Relu(r) }"""
    assert check(graph).returncode == 2
    rows = np.random.default_rng(0).standard_normal((4, 1009)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    assert check(graph, "--input", "x=rows.npy").returncode == 0


def test_described_rows(check):
    """What the rows are like may be given instead."""
    graph = """(float[batch,n] x) => (float[batch,m] y)
        { s = Constant<value_ints=[-1,1009]>() r = Reshape(x, s) y = Relu(r) }"""
    assert check(graph, "--input", "x:float32[batch,1009]").returncode == 0


BAD_ROWS = {
    "float64": np.zeros((3, 4)),
    "size": np.zeros((3, 5), np.float32),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_bad_rows(refused, tmp_path, what):
    """Rows that the model does not take are refused in a line."""
    np.save(tmp_path / "rows.npy", BAD_ROWS[what])
    assert refused(HEALTHY, "--input", "x=rows.npy")


@pytest.mark.parametrize(
    ("graph", "name", "shape"),
    [(HEALTHY, "z", (3, 4)), (HEALTHY, "x", (3, 4, 2)), (TWO, "x", (3, 4))],
)
def test_rows_of_another_model(refused, tmp_path, graph, name, shape):
    """Rows by another name, of another rank, or of some inputs only are refused in a line."""
    np.save(tmp_path / "rows.npy", np.zeros(shape, np.float32))
    assert refused(graph, "--input", f"{name}=rows.npy")


def test_against(check, tmp_path):
    """Against what it was made from, only a model that answers otherwise is unsafe."""
    other = save(tmp_path / "other.onnx", LEAK.replace("axis=0", "axis=1"))
    wrong = save(tmp_path / "wrong.onnx", HEALTHY.replace("Softmax", "LogSoftmax"))
    assert check(HEALTHY, "--against", other).returncode == 0
    done = check(HEALTHY, "--against", wrong, "--json")
    finding = json.loads(done.stdout)["findings"][0]
    assert done.returncode == 1 and (finding["kind"], finding["tensor"]) == ("parity", "y")
    assert "wrong.onnx" in finding["why"] and finding["batch"] == 1


@pytest.mark.parametrize("source", ["nothing.py:f", "nothing.onnx", ""])
def test_bad_source(refused, source):
    """A source that is not there is refused in a line."""
    assert refused(HEALTHY, "--against", source)


def test_odd_names(check, tmp_path):
    """Names of any characters are taken as they are."""
    odd = "in put/:.'\"é日本"
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", [odd], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info(odd, onnx.TensorProto.FLOAT, ["batch", 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 4])],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, tmp_path / "odd.onnx")
    done = check(tmp_path / "odd.onnx", "--json")
    assert json.loads(done.stdout)["batch_axis"] == {odd: 0, "y": 0}


def test_names_that_steer_a_terminal(check, tmp_path):
    """A node's name does not reach the terminal with its control characters."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {LEAK}')
    model.graph.node[0].name = "ring\x07\x08"
    onnx.save(model, tmp_path / "odd.onnx")
    done = check(tmp_path / "odd.onnx")
    assert done.returncode == 1 and not set("\x07\x08") & set(done.stdout)


def test_interrupted(tmp_path):
    """Ctrl-C ends it with exit code 130, one word and no trace."""
    graph = """(float[batch,512] x) => (float[batch,512] y)
        { n = Constant<value_int=20000>() t = Constant<value=bool {1}>()
          y = Loop(n, t, x) <body = b (int64 i, bool c, float[q,512] s) => (bool d, float[q,512] r)
            { d = Identity(c) r = Sin(s) }> }"""
    model = save(tmp_path / "slow.onnx", graph)
    script = Path(sys.executable).with_name("tritonkit")
    with subprocess.Popen(
        [str(script), "check", str(model)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        _wait_for_work(process.pid, 3.0)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, "", "interrupted")


def _wait_for_work(pid: int, cpu_s: float) -> None:
    """Wait until the process has computed for so long: then it is past its imports."""
    end = time.monotonic() + 60
    ticks = cpu_s * os.sysconf("SC_CLK_TCK")
    while time.monotonic() < end:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if int(fields[11]) + int(fields[12]) > ticks:
            return
