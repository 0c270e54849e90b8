"""The command as a user meets it: the installed script, its exit code, its one line, its traces."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import onnx
import onnx.parser
import pytest

from tritonkit.cli import cli, run

HEAVY = {
    *("torch", "onnxruntime", "onnx", "locust", "gevent", "numpy", "tritonclient"),
    *("matplotlib", "jinja2", "rich", "starlette", "uvicorn"),
}
VERBS = (
    *("setup", "examples", "export", "check", "package", "lint", "serve", "infer", "load"),
    *("doctor", "monitor", "compare", "plan"),
)

TEXT = '<ir_version: 8, opset_import: ["": 17]> g {}'
RELU = "(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }"
FIXED = "(float[1,4] x) => (float[1,4] y) { y = Relu(x) }"


@pytest.fixture
def saved(tmp_path):
    """`saved("m.onnx", RELU)` → an ONNX file in the folder `in`."""

    def save(name: str, graph: str) -> Path:
        model = onnx.parser.parse_model(TEXT.format(graph))
        (tmp_path / "in").mkdir(exist_ok=True)
        onnx.save(model, tmp_path / "in" / name)
        return tmp_path / "in" / name

    return save


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty current folder; a cache and a folder for temporary files of the test's own."""
    for name in ("work", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("TRITONKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path / "work"


@pytest.fixture(scope="module")
def packaged(tritonkit, tmp_path_factory):
    """A repository with the small model m, packaged once."""
    folder = tmp_path_factory.mktemp("packaged")
    onnx.save(onnx.parser.parse_model(TEXT.format(RELU)), folder / "m.onnx")
    made = folder / "repo"
    done = tritonkit("package", folder / "m.onnx", "--repository", made, "--threads", 1)
    assert (done.returncode, done.stderr) == (0, "")
    return made


@pytest.fixture
def repository(packaged, saved, work, tmp_path):
    """A copy of it beside the current folder, and the model that it comes from in `in`."""
    saved("m.onnx", RELU)
    return Path(shutil.copytree(packaged, tmp_path / "repo"))


@pytest.fixture
def refused(tritonkit, work, tmp_path):
    """`refused(2, "serve", …)` → the one line on stderr, with nothing on stdout or on disk."""

    def run(code: int, *arguments: object) -> str:
        before = traces(tmp_path)
        done = tritonkit(*arguments)
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        line, *more = done.stderr.splitlines()
        assert more == []
        assert line.startswith("error: ")
        assert traces(tmp_path) == before
        return line.removeprefix("error: ")

    return run


def traces(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, with the files' contents.

    But for `.ses`, which ONNX Runtime's own telemetry writes when it is imported.
    """
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
        if p.name != ".ses"
    }


@pytest.mark.parametrize("verb", [(), *((v,) for v in VERBS)], ids=lambda v: "".join(v))
def test_help_is_light(verb):
    """Help is answered without importing anything heavy."""
    code = (
        "import sys; from tritonkit.cli import cli\n"
        f"try: cli.main([*{verb!r}, '--help'])\n"
        f"finally: print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stderr == "[]\n"


def test_help_names_the_verbs(tritonkit):
    """The help lists every command."""
    done = tritonkit("-h")
    assert done.returncode == 0
    assert all(f"\n  {verb}" in done.stdout for verb in VERBS)


def test_version(tritonkit):
    """The version is that of the installed package."""
    from importlib.metadata import version

    assert tritonkit("--version").stdout == f"tritonkit, version {version('tritonkit')}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "No such command 'frobnicate'; see: tritonkit --help"),
        (["--frobnicate"], "No such option '--frobnicate'; see: tritonkit --help"),
        (["load", "u", "m", "--rate", "3"], "'--rate'. Did you mean '--rate-rps'?"),
        (["lint", "--json", "--sarif"], "give --json or --sarif; see: tritonkit lint --help"),
        (["compare"], "Missing argument 'MODEL'"),
        (["compare", "m", "--slo-p99-ms", "0"], "Invalid value for '--slo-p99-ms'"),
        (["compare", "m", "--slo-p99-ms", "-3"], "Invalid value for '--slo-p99-ms'"),
        (["compare", "m", "--rate-rps", "fast"], "Invalid value for '--rate-rps'"),
        (["compare", "m", "--rate-rps", "0"], "Invalid value for '--rate-rps'"),
        (["compare", "m", "--level-s", "0.1"], "Invalid value for '--level-s'"),
        (["export", "m.onnx"], "Missing option '-o'"),
        (["export"], "Missing argument 'SOURCE'"),
        (["package", "m", "--max-batch-size", "-1"], "Invalid value for '--max-batch-size'"),
        (["package", "m", "--max-batch-size", "many"], "Invalid value for '--max-batch-size'"),
        (["package", "m", "--max-queue-delay-us", "-1"], "Invalid value for '--max-queue-delay"),
        (["package", "m", "--threads", "0"], "Invalid value for '--threads'"),
        (["package", "m", "--instances", "0"], "Invalid value for '--instances'"),
        (["package", "m", "--version", "0"], "Invalid value for '--version'"),
        (["package", "m", "--preferred-batch-size", "0"], "Invalid value for '--preferred-batch"),
        (["serve", "--http-port", "65536"], "Invalid value for '--http-port'"),
        (["serve", "--grpc-port", "-1"], "Invalid value for '--grpc-port'"),
        (["serve", "--arm", "gpu"], "Invalid value for '--arm'"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_usage(tritonkit, work, arguments, words):
    """A wrong use of the command is answered in one line, with the option's name."""
    done = tritonkit(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and words in line
    assert list(work.iterdir()) == []


def test_usage_of_several_lines(capsys, monkeypatch):
    """What click says on several lines is said on one, and where to read more."""
    import click

    @click.command()
    @click.option("--colour", type=click.Choice(["red", "green"]), required=True)
    def paint(colour: str) -> None: ...

    monkeypatch.setitem(cli.commands, "paint", paint)
    with pytest.raises(SystemExit, match="2"):
        run(["paint"])
    assert capsys.readouterr().err == (
        "error: Missing option '--colour'. Choose from: red, green; see: tritonkit paint --help\n"
    )


def test_no_arguments(tritonkit):
    """Without any arguments there is help."""
    done = tritonkit()
    assert done.returncode == 2
    assert "Usage: tritonkit" in done.stdout + done.stderr


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("option", ["--slo-p99-ms", "--rate-rps", "--level-s"])
def test_usage_not_finite(tritonkit, work, option, value):
    """A budget, rate or time that is no finite number is answered with the option's name."""
    done = tritonkit("compare", "m", option, value)
    assert done.returncode == 2
    assert f"Invalid value for '{option}'" in done.stderr


def test_export(tritonkit, saved, work):
    """An export says what it made, and makes it."""
    done = tritonkit("export", saved("m.onnx", RELU), "-o", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "x:FP32[batch,4]" in done.stdout
    assert sorted(p.name for p in (work / "out").iterdir()) == [
        "model.onnx",
        "payloads.npz",
        "verification.json",
    ]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("missing.onnx", "missing.onnx"),
        ("missing.py:model", "missing.py"),
        ("no_such_module:model", "no_such_module"),
        ("nonsense", "nonsense"),
    ],
)
def test_export_missing(refused, source, words):
    """A source that is not there is named."""
    assert words in refused(2, "export", source, "-o", "deep/out")


def test_export_not_onnx(refused, work):
    """A file of something else is refused."""
    (work / "m.onnx").write_bytes(b"certainly not protobuf")
    assert refused(2, "export", "m.onnx", "-o", "out").startswith("m.onnx is not an ONNX file")


def test_export_no_batch_axis(refused, saved):
    """A model without a batch is refused with the reason: exit code 1."""
    graph = "(float[points,4] x) => (float[1,4] y) { y = ReduceMax<axes=[0]>(x) }"
    words = refused(1, "export", saved("points.onnx", graph), "-o", "out")
    assert "is not batchable" in words and "axis 0 is a set" in words


def test_export_fixed_batch(tritonkit, saved, work):
    """A fixed batch is made dynamic."""
    done = tritonkit("export", saved("fixed.onnx", FIXED), "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "x:FP32[batch,4]" in done.stdout and "its batch was fixed at 1" in done.stdout


def test_export_rows_that_feel_each_other(refused, saved):
    """A model whose rows feel each other fails the check: exit code 1."""
    graph = "(float[n,4] x) => (float[n,4] y) { m = ReduceMean<axes=[0]>(x) y = Sub(x, m) }"
    words = refused(1, "export", saved("mean.onnx", graph), "-o", "out")
    assert "is unsafe" in words and "(ReduceMean)" in words


def test_export_onto_a_file(tritonkit, saved, work):
    """A file where the folder should go is refused, and stays."""
    (work / "out").write_text("dear")
    done = tritonkit("export", saved("m.onnx", RELU), "-o", "out")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert (work / "out").read_text() == "dear"


def test_package(repository):
    """A packaged file has the file's name."""
    assert sorted(p.relative_to(repository).as_posix() for p in repository.rglob("*")) == [
        "m",
        "m/1",
        "m/1/model.onnx",
        "m/1/verification.json",
        "m/config.pbtxt",
        "m/configs",
        "m/configs/unbatched.pbtxt",
    ]


def test_package_missing(refused):
    """A missing export is named."""
    assert refused(2, "package", "missing") == "no such model file: missing"


def test_package_not_an_export(refused, work):
    """A folder that is no export is refused with the way to make one."""
    (work / "out").mkdir()
    assert refused(2, "package", "out").startswith("out has no model.onnx; make one with")


def test_package_not_onnx(refused, work):
    """A file of something else is refused."""
    (work / "m.onnx").write_bytes(b"certainly not protobuf")
    assert refused(2, "package", "m.onnx").startswith("m.onnx is not an ONNX file")


def test_package_no_batch_axis(refused, saved):
    """A model without a batch axis fails the check, by the tensor's name."""
    words = refused(1, "package", saved("fixed.onnx", FIXED))
    assert words.startswith("model 'fixed' is not batchable: the batch is fixed at 1: x:FP32[1,4]")


def test_package_more_than_was_proved(tritonkit, saved, work):
    """More rows than the export proved are proved by package, and go into its record."""
    tritonkit("export", saved("m.onnx", RELU), "-o", "out", "--max-batch-size", 4)
    done = tritonkit("package", "out", "--name", "m", "--max-batch-size", 16)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads((work / done.stdout.strip() / "verification.json").read_text())
    assert record["check"]["max_batch_size"] == 16


def test_package_without_batches(tritonkit, saved, work):
    """Such a model is packaged with a max_batch_size of 0."""
    done = tritonkit("package", saved("fixed.onnx", FIXED), "--max-batch-size", 0)
    assert (done.returncode, done.stdout) == (0, "model_repository/fixed/1\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-batch-size", "99999999999"], "max_batch_size is 99999999999; it must be 0 to"),
        (["--threads", "99999999999"], "intra_op_threads is 99999999999"),
        (["--instances", "99999999999"], "instances is 99999999999"),
        (["--max-queue-delay-us", "9" * 20], "max_queue_delay_us is 9999"),
        (["--preferred-batch-size", "64"], "preferred batch size 64 is not in 1..32"),
        (["--name", "../x"], "a model name must be a plain folder name"),
        (["--name", "a\nb"], "a model name must be printable"),
        (["--name", os.fsdecode(b"\xff")], "a model name must be printable"),
        (["--name", "n" * 300], "File name too long"),
    ],
    ids=lambda x: x[0] + x[1][:12] if isinstance(x, list) else "",
)
def test_package_bad_options(tritonkit, saved, work, options, words):
    """A value that no config can hold is refused in one line, and nothing is written."""
    done = tritonkit("package", saved("m.onnx", RELU), *options)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    "command", [["compare", "m"], ["serve"], ["serve", "--arm", "ort_baseline", "--model", "m"]]
)
def test_no_repository(refused, command):
    """A missing repository is named with the ways to make one."""
    assert refused(2, *command).startswith("no model repository at model_repository; make one")


def test_serve_baseline_with_a_cache(refused, work):
    """The baseline has no response cache, so one that is asked for is refused."""
    words = refused(2, "serve", "--arm", "ort_baseline", "--model", "m", "--response-cache-mb", 4)
    assert words == "ort_baseline has no response cache; leave out --response-cache-mb"


def test_compare_unknown(refused, repository):
    """An unknown model is answered with the known ones."""
    words = refused(2, "compare", "q", "--repository", repository)
    assert words == f"no model 'q' in {repository} (it has m)"


def test_serve_unknown(refused, repository):
    """An unknown model for the baseline is answered with the known ones."""
    words = refused(2, "serve", "--repository", repository, "--arm", "ort_baseline", "--model", "q")
    assert words == f"no model 'q' in {repository} (it has m)"


def test_serve_no_model(refused, repository):
    """The baseline, which serves one model, asks for its name."""
    words = refused(2, "serve", "--repository", repository, "--arm", "ort_baseline")
    assert words == "ort_baseline serves one model; give --model, of ['m']"


@pytest.mark.parametrize("command", [["compare", "m"], ["serve"]])
def test_no_weights(refused, repository, command):
    """A model whose weights were not generated is named with the command that does."""
    shutil.rmtree(repository / "m" / "1")
    words = refused(2, *command, "--repository", repository)
    assert words.startswith(f"{repository / 'm'} has a config but no model.onnx")


@pytest.mark.parametrize("command", [["compare", "m"], ["serve", "--arm", "triton_unbatched"]])
def test_bad_config(refused, repository, command):
    """A config of wrong text is refused by its path."""
    (repository / "m" / "config.pbtxt").write_text("max_batch_size: many")
    words = refused(2, *command, "--repository", repository)
    assert words.startswith(f"{repository / 'm' / 'config.pbtxt'}: not a valid config.pbtxt")


def test_compare_unbatched_package(refused, tritonkit, saved, repository):
    """A model that was packaged without batches cannot be compared."""
    tritonkit("package", saved("m.onnx", RELU), "--repository", repository, "--max-batch-size", 0)
    words = refused(2, "compare", "m", "--repository", repository)
    assert words.startswith("model 'm' has max_batch_size 0, so there is no batching to compare")


def test_compare_broken_weights(refused, repository):
    """Weights that are no ONNX file are named."""
    (repository / "m" / "1" / "model.onnx").write_bytes(b"certainly not protobuf")
    assert "m/1/model.onnx" in refused(2, "compare", "m", "--repository", repository)


def test_compare_broken_payloads(refused, repository):
    """Payloads that are none are named."""
    (repository / "m" / "payloads.npz").write_bytes(b"certainly no zip")
    words = refused(2, "compare", "m", "--repository", repository)
    assert "m/payloads.npz is not a payloads file" in words


def test_compare_onto_foreign_files(refused, repository, work):
    """A folder with files that are no result is refused, and is as it was."""
    (work / "thesis").mkdir()
    (work / "thesis" / "text").write_text("dear")
    words = refused(2, "compare", "m", "--repository", repository, "--out", "thesis")
    assert "has files that are no earlier result; choose another --out" in words


@pytest.mark.parametrize("resumable", [True, False])
def test_compare_after_an_interruption(refused, repository, work, resumable):
    """What an interrupted run measured stays as it is, and how to go on is said in a line."""
    (work / "out.partial" / "samples").mkdir(parents=True)
    (work / "out.partial" / "samples" / "001.csv.gz").write_text("dear")
    if resumable:
        (work / "out.partial" / "progress.jsonl").write_text("dear")
    words = refused(2, "compare", "m", "--repository", repository, "--out", "out")
    assert "has what an interrupted run measured; go on with it with --resume" in words


def test_compare_into_nowhere(refused, repository):
    """Where nothing can be written is said before anything is measured."""
    words = refused(2, "compare", "m", "--repository", repository, "--out", "/proc/xx")
    assert words.startswith("--out /proc/xx: nothing can be written in /proc (")


@pytest.mark.parametrize("verb", ["export", "package"])
def test_written_into_nowhere(refused, saved, verb):
    """Where nothing can be written is said by its name, without numbers of errors."""
    option = "-o" if verb == "export" else "--repository"
    words = refused(2, verb, saved("m.onnx", RELU), option, "/proc/xx")
    assert "/proc/xx: " in words and "choose another p" in words and "Errno" not in words


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (OSError(errno.ENOSPC, "No space left", "a"), "a: No space left", 1),
        (OSError(errno.EROFS, "Read-only", "a"), "a: Read-only; choose another path", 2),
        (OSError(errno.EIO, "Broken", "a\nb"), "a\ufffdb: Broken", 1),
        (OSError(errno.EIO, "Broken", b"a"), "a: Broken", 1),
        (OSError(errno.EBADF, "Broken", 7), "a file: Broken", 1),
        (OSError(errno.EMFILE, "Too many"), "OSError: [Errno 24] Too many", 1),
        (OSError("odd"), "OSError: odd", 1),
    ],
)
def test_words_of_the_system(capsys, monkeypatch, error, line, code):
    """What the system refuses is one line with the file's name; a wrong path is the user's."""
    import click

    @click.command()
    def fail() -> None:
        raise error

    monkeypatch.setitem(cli.commands, "fail", fail)
    with pytest.raises(SystemExit, match=str(code)):
        run(["fail"])
    assert capsys.readouterr().err == f"error: {line}\n"


def test_serve_taken_port(refused, repository):
    """A taken port is refused with the option that changes it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = refused(
            *(2, "serve", "--repository", repository, "--arm", "ort_baseline", "--model", "m"),
            *("--http-port", port),
        )
    assert words.startswith(f"http port {port} on 127.0.0.1 cannot be used (Address already in use")


@pytest.mark.parametrize("host", ["203.0.113.1", "é" * 70])
def test_serve_foreign_host(refused, repository, host):
    """An address that is not of this machine is refused."""
    words = refused(
        *(2, "serve", "--repository", repository, "--arm", "ort_baseline", "--model", "m"),
        *("--host", host, "--http-port", 0),
    )
    assert words.startswith(f"http port 0 on {host} cannot be used")


@pytest.mark.parametrize("arm", ["triton_batched", "triton_unbatched"])
def test_serve_before_setup(refused, repository, tmp_path, arm):
    """Before Triton was fetched, serving says how to fetch it."""
    words = refused(1, "serve", "--repository", repository, "--arm", arm)
    assert words == (
        f"the embedded Triton is not in {tmp_path / 'cache'}; fetch it once with: tritonkit setup"
    )


def test_setup_no_wheel(tritonkit, work):
    """A wheel that is not there is named."""
    done = tritonkit("setup", "--wheel", "missing.whl")
    assert (done.returncode, done.stderr) == (1, "error: no such wheel: missing.whl\n")


def test_unknown_example(tritonkit, work):
    """An unknown example is answered with the known ones, and nothing is written."""
    done = tritonkit("examples", "q")
    assert done.returncode == 2
    assert done.stderr == "error: no example 'q'; there are ranker, text_embedder, file_type\n"
    assert list(work.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("verb", ["export", "package"])
def test_unwritable(refused, saved, work, verb):
    """A folder that may not be written to is named in one line."""
    model = saved("m.onnx", RELU)
    (work / "locked").mkdir()
    (work / "locked").chmod(0o500)
    option = "-o" if verb == "export" else "--repository"
    assert "locked" in refused(2, verb, model, option, "locked/out")


def test_an_error_is_one_line(tritonkit):
    """Also where what it names has a line break."""
    done = tritonkit("compare", "a\nb")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
