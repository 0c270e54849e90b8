"""Packaging: an export or a bare ONNX file becomes a repository entry."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from tritonkit.errors import InputError, ModelError, RepositoryError
from tritonkit.payloads import read_payloads, write_payloads
from tritonkit.repository.config import DynamicBatching
from tritonkit.repository.ensemble import package_ensemble
from tritonkit.repository.execution import Accelerator, Execution, GraphLevel, InstanceKind
from tritonkit.repository.layout import model_file, read_config
from tritonkit.repository.package import Settings, package_model
from tritonkit.repository.scheduling import (
    Priorities,
    QueuePolicy,
    TimeoutAction,
)
from tritonkit.repository.stateful import Sequences

SCALE = """(float[batch,2] x) => (float[batch,2] y)
<float[2] w = {2.0, 3.0}> { y = Mul(x, w) }"""
ROW = {"x": np.array([[1.0, 2.0]], np.float32)}


def saved(path: Path, graph: str = SCALE, data: str | None = None) -> Path:
    """An ONNX file from its text form, with its weight in the file `data` if given."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {graph}')
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        onnx.save(model, path)
        return path
    (weight,) = model.graph.initializer
    raw = onnx.numpy_helper.to_array(weight).tobytes()
    weight.ClearField("float_data")
    weight.raw_data = raw
    onnx.external_data_helper.set_external_data(weight, data)
    (path.parent / data).parent.mkdir(parents=True, exist_ok=True)
    (path.parent / data).write_bytes(raw)
    weight.ClearField("raw_data")
    onnx.save(model, path)
    return path


def exported(folder: Path, data: str | None = None) -> Path:
    """An export folder as `tritonkit export` leaves it."""
    saved(folder / "model.onnx", data=data)
    (folder / "verification.json").write_text(json.dumps({"source": "here"}))
    write_payloads(folder / "payloads.npz", [ROW])
    return folder


def files(folder: Path) -> list[str]:
    """All files under a folder, by relative path."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def answers(repository: Path) -> list:
    """What the packaged model makes of [[1, 1]], in a session on its own file."""
    session = onnxruntime.InferenceSession(model_file(repository, "m"))
    return session.run(None, {"x": np.ones((1, 2), np.float32)})[0].tolist()


def test_export_folder(tmp_path):
    """From an export folder come the model and its proof; the payloads lie beside the version."""
    written = package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", Settings(8))
    assert written == tmp_path / "repo" / "m" / "1"
    assert files(tmp_path / "repo" / "m") == [
        "1/model.onnx",
        "1/verification.json",
        "config.pbtxt",
        "configs/unbatched.pbtxt",
        "payloads.npz",
    ]


def test_only_the_export(tmp_path):
    """Files that are not of the export are left where they are."""
    folder = exported(tmp_path / "out")
    (folder / "old.data").write_text("of an earlier export")
    assert files(package_model(folder, "m", tmp_path / "repo", Settings(8))) == [
        "model.onnx",
        "verification.json",
    ]


def test_bare_file(tmp_path):
    """A bare .onnx file of any name becomes model.onnx, which runs as before."""
    path = saved(tmp_path / "in" / "scale.onnx")
    (path.parent / "payloads.npz").write_bytes(b"not its own")
    written = package_model(path, "m", tmp_path / "repo", Settings(8))
    assert files(written.parent) == ["1/model.onnx", "config.pbtxt", "configs/unbatched.pbtxt"]
    assert answers(tmp_path / "repo") == [[2.0, 3.0]]


@pytest.mark.parametrize("data", ["weights.bin", "deep/er/weights.bin"])
@pytest.mark.parametrize("bare", [True, False])
def test_external_data(tmp_path, data, bare):
    """External data travels along to the same place, also into subfolders, and is found there."""
    folder = exported(tmp_path / "out", data)
    source = folder / "model.onnx" if bare else folder
    written = package_model(source, "m", tmp_path / "repo", Settings(8))
    assert data in files(written)
    for path in sorted(folder.rglob("*"), reverse=True):  # so that it cannot be what is read
        path.rmdir() if path.is_dir() else path.unlink()
    assert answers(tmp_path / "repo") == [[2.0, 3.0]]


def test_external_data_missing(tmp_path):
    """External data that is missing is named, and nothing is written."""
    folder = exported(tmp_path / "out", "weights.bin")
    (folder / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"external data file .*weights\.bin is missing"):
        package_model(folder, "m", tmp_path / "repo", Settings(8))
    assert not (tmp_path / "repo").exists()


def test_external_data_outside(tmp_path):
    """External data outside the model's folder is refused, and nothing is written."""
    folder = exported(tmp_path / "out", "../weights.bin")
    with pytest.raises(ModelError, match=r"'\.\./weights\.bin' lies outside the model's folder"):
        package_model(folder, "m", tmp_path / "repo", Settings(8))
    assert not (tmp_path / "repo").exists()


def test_settings(tmp_path):
    """What was asked for is what the config says."""
    settings = Settings(8, DynamicBatching(250, (2, 4)), instances=3, threads=5)
    package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", settings)
    config = read_config(tmp_path / "repo", "m")
    assert config.dynamic_batching == DynamicBatching(250, (2, 4))
    assert (config.max_batch_size, config.instances, config.intra_op_threads) == (8, 3, 5)
    assert [run.batch_size for run in config.warmup] == [1, 4, 8]


def test_defaults(tmp_path):
    """By default batches form without waiting and without preferred sizes."""
    package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", Settings(8))
    assert read_config(tmp_path / "repo", "m").dynamic_batching == DynamicBatching(0, ())


@pytest.mark.parametrize("settings", [Settings(8, None), Settings(0)])
def test_no_scheduler(tmp_path, settings):
    """Without a delay, or without batches, there is no scheduler."""
    package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", settings)
    assert read_config(tmp_path / "repo", "m").dynamic_batching is None
    assert "dynamic_batching" not in (tmp_path / "repo/m/config.pbtxt").read_text()


FIXED = "(float[batch,2] x) => (float[1,2] total) { total = ReduceMean<axes=[0]>(x) }"


def test_no_batch_axis(tmp_path):
    """A model without a batch axis is refused by the tensor's name, and nothing is written."""
    path = saved(tmp_path / "fixed.onnx", FIXED)
    with pytest.raises(ModelError, match=re.escape("tensor total:FP32[1,2] has no batch axis")):
        package_model(path, "m", tmp_path / "repo", Settings(8))
    assert files(tmp_path) == ["fixed.onnx"]
    assert not (tmp_path / "repo").exists()


def test_no_batch_axis_unbatched(tmp_path):
    """With a max_batch_size of 0 such a model is packaged, with all its dimensions."""
    package_model(saved(tmp_path / "f.onnx", FIXED), "m", tmp_path / "repo", Settings(0))
    config = read_config(tmp_path / "repo", "m")
    assert config.max_batch_size == 0
    assert [t.dims for t in (*config.inputs, *config.outputs)] == [(-1, 2), (1, 2)]


def test_not_an_export(tmp_path):
    """A folder without model.onnx is refused with the way to make one."""
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"out has no model\.onnx; make one with: tritonkit ex"):
        package_model(tmp_path / "out", "m", tmp_path / "repo", Settings(8))
    assert not (tmp_path / "repo").exists()


def test_missing(tmp_path):
    """A source that is not there is named."""
    with pytest.raises(ModelError, match=r"no such model file: .*/out"):
        package_model(tmp_path / "out", "m", tmp_path / "repo", Settings(8))
    assert not (tmp_path / "repo").exists()


def test_bad_name(tmp_path):
    """A name that is no folder name is refused, and nothing is written."""
    with pytest.raises(RepositoryError, match="must be a plain folder name"):
        package_model(exported(tmp_path / "out"), "../m", tmp_path / "repo", Settings(8))
    assert not (tmp_path / "repo").exists()
    assert not (tmp_path / "m").exists()


def test_version(tmp_path):
    """The version that was asked for is written."""
    source = exported(tmp_path / "out")
    assert package_model(source, "m", tmp_path / "repo", Settings(8), version=4).name == "4"
    assert package_model(source, "m", tmp_path / "repo", Settings(8)).name == "5"


@pytest.mark.parametrize(
    ("most", "sizes"), [(0, [1]), (1, [1]), (2, [1, 2]), (3, [1, 3]), (32, [1, 16, 32])]
)
def test_warmup_sizes(tmp_path, most, sizes):
    """A model is warmed up with one row, half the most and the most."""
    package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", Settings(most))
    assert [run.batch_size for run in read_config(tmp_path / "repo", "m").warmup] == sizes


def test_all_options(tmp_path):
    """What else was asked for is what the config says."""
    execution = Execution(
        InstanceKind.GPU,
        (1,),
        parallel=True,
        graph_level=GraphLevel.BASIC,
        mem_arena=True,
        mem_pattern=False,
        arena_shrinkage="cpu:0",
        accelerators=(Accelerator("cuda"),),
    )
    batching = DynamicBatching(
        queue=QueuePolicy(9, 1000, TimeoutAction.DELAY, allow_timeout_override=True),
        priorities=Priorities(3, 2, {1: QueuePolicy(4)}),
    )
    settings = Settings(
        8,
        batching,
        inter_op_threads=2,
        execution=execution,
        warmup_batch_sizes=(3,),
        response_cache=True,
        version_policy="all",
    )
    package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", settings)
    config = read_config(tmp_path / "repo", "m")
    assert (config.execution, config.dynamic_batching) == (execution, batching)
    assert [run.batch_size for run in config.warmup] == [3]
    assert (config.inter_op_threads, config.response_cache) == (2, True)
    assert config.version_policy == "all"


def test_no_warmup(tmp_path):
    """A warm-up can be left out."""
    settings = Settings(8, warmup_batch_sizes=())
    package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", settings)
    assert read_config(tmp_path / "repo", "m").warmup == ()


GPU = Execution(InstanceKind.GPU)

CONTRADICTIONS = {
    "delay unbatched": (Settings(0, DynamicBatching(5)), "which a max_batch_size of 0 leaves out"),
    "preferred unbatched": (
        Settings(0, DynamicBatching(0, (1,))),
        "which a max_batch_size of 0 leaves out",
    ),
    "queue unbatched": (
        Settings(0, DynamicBatching(queue=QueuePolicy(5))),
        "which a max_batch_size of 0 leaves out",
    ),
    "priorities unbatched": (
        Settings(0, DynamicBatching(priorities=Priorities(1, 1))),
        "which a max_batch_size of 0 leaves out",
    ),
    "delayed after no time": (
        Settings(8, DynamicBatching(queue=QueuePolicy(timeout_action=TimeoutAction.DELAY))),
        "the timeout action DELAY needs a timeout",
    ),
    "override of nothing": (
        Settings(8, DynamicBatching(queue=QueuePolicy(allow_timeout_override=True))),
        "allow_timeout_override needs a default timeout",
    ),
    "a level's override of nothing": (
        Settings(
            8,
            DynamicBatching(
                priorities=Priorities(1, 1, {1: QueuePolicy(allow_timeout_override=True)})
            ),
        ),
        "allow_timeout_override needs a default timeout",
    ),
    "preferred too large": (
        Settings(8, DynamicBatching(0, (9,))),
        "preferred batch size 9 is not in 1..8",
    ),
    "gpus without one": (
        Settings(8, execution=Execution(gpus=(0,))),
        "instances of KIND_CPU have no gpus",
    ),
    "tensorrt on the cpu": (
        Settings(8, execution=Execution(accelerators=(Accelerator("tensorrt"),))),
        "tensorrt needs instances on a GPU",
    ),
    "openvino on a gpu": (
        Settings(8, execution=replace(GPU, accelerators=(Accelerator("openvino"),))),
        "openvino needs instances on the CPU",
    ),
    "openvino and tensorrt": (
        Settings(
            8,
            execution=replace(GPU, accelerators=(Accelerator("openvino"), Accelerator("tensorrt"))),
        ),
        "openvino runs on the CPU, tensorrt and cuda on a GPU",
    ),
    "openvino's parameters": (
        Settings(8, execution=Execution(accelerators=(Accelerator("openvino", {"a": "b"}),))),
        "openvino takes no parameters",
    ),
    "no arena to shrink": (
        Settings(8, execution=Execution(mem_arena=False, arena_shrinkage="cpu:0")),
        "there is no arena to shrink",
    ),
    "idle threads": (
        Settings(8, inter_op_threads=2),
        "2 inter-op threads do nothing unless the execution mode is parallel",
    ),
    "warm-up too large": (
        Settings(8, warmup_batch_sizes=(9,)),
        "warm-up batch size 9 is not in 1..8",
    ),
    "payloads and no warm-up": (
        Settings(8, warmup_batch_sizes=(), warmup_payloads=Path("p.npz")),
        "there are payloads to warm up with, but the warm-up is off",
    ),
    "warm-up of a state": (
        Settings(8, Sequences(), warmup_batch_sizes=(1,)),
        "a stateful model cannot be warmed up",
    ),
    "cached sequences": (
        Settings(8, Sequences(), response_cache=True),
        "the response cache does not work with sequence batching",
    ),
    "no such version": (
        Settings(8, version_policy=(1, 2)),
        "the version policy serves version 2, which is not there; there will be 1",
    ),
    "no such output": (
        Settings(8, labels={"q": Path("labels.txt")}),
        "has no output 'q' to label; it has y",
    ),
}


@pytest.mark.parametrize(("settings", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradiction(tmp_path, settings, words):
    """What contradicts itself is refused in one line before anything is written."""
    with pytest.raises(RepositoryError, match=re.escape(words)) as caught:
        package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", settings)
    assert str(caught.value).startswith("model 'm'")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "repo").exists()


def test_version_policy_of_what_is_there(tmp_path):
    """A policy may name versions that are there and the one that is written."""
    source = exported(tmp_path / "out")
    package_model(source, "m", tmp_path / "repo", Settings(8))
    package_model(source, "m", tmp_path / "repo", Settings(8, version_policy=(1, 2)))
    assert read_config(tmp_path / "repo", "m").version_policy == (1, 2)


def test_batch_and_no_more(tmp_path):
    """A tensor that has only its batch axis is one number a row."""
    graph = "(float[N] x) => (float[N] y) { y = Neg(x) }"
    package_model(saved(tmp_path / "v.onnx", graph), "m", tmp_path / "repo", Settings(8))
    config = read_config(tmp_path / "repo", "m")
    assert config.outputs[0].dims == ()
    assert config.warmup[0].inputs["x"].dims == (1,)


def test_scalar(tmp_path):
    """Without batches a scalar has dims [1], the only ones that Triton takes for it."""
    graph = "(float[2] x, float k) => (float[2] y) { y = Mul(x, k) }"
    package_model(saved(tmp_path / "s.onnx", graph), "m", tmp_path / "repo", Settings(0))
    assert [t.dims for t in read_config(tmp_path / "repo", "m").inputs] == [(2,), (1,)]


def test_dimension_of_0(tmp_path):
    """A dimension of 0, which Triton has not, is named with the remedy."""
    graph = "(float[N,0] x) => (float[N,0] y) { y = Neg(x) }"
    with pytest.raises(ModelError, match=r"tensor x:FP32\[N,0\] has a dimension of 0"):
        package_model(saved(tmp_path / "z.onnx", graph), "m", tmp_path / "repo", Settings(8))
    assert not (tmp_path / "repo").exists()


def test_old_payloads_that_fit(tmp_path):
    """A new version without payloads keeps those of the old that its inputs still take."""
    folder = exported(tmp_path / "out")
    package_model(folder, "m", tmp_path / "repo", Settings(8))
    package_model(saved(tmp_path / "new.onnx"), "m", tmp_path / "repo", Settings(8))
    assert "payloads.npz" in files(tmp_path / "repo" / "m")


@pytest.mark.parametrize(
    "graph",
    [
        "(float[batch,3] x) => (float[batch,3] y) { y = Neg(x) }",
        "(double[batch,2] x) => (double[batch,2] y) { y = Neg(x) }",
        "(float[batch,2] other) => (float[batch,2] y) { y = Neg(other) }",
        "(float[batch,2] x, float[batch,2] z) => (float[batch,2] y) { y = Add(x, z) }",
        "(float[batch,2,1] x) => (float[batch,2,1] y) { y = Neg(x) }",
    ],
)
def test_old_payloads_that_do_not_fit(tmp_path, graph):
    """Payloads that the new version's inputs do not take are gone with it."""
    folder = exported(tmp_path / "out")
    package_model(folder, "m", tmp_path / "repo", Settings(8))
    new = saved(tmp_path / "new.onnx", graph)
    package_model(new, "m", tmp_path / "repo", Settings(8), force=True)
    assert "payloads.npz" not in files(tmp_path / "repo" / "m")


def test_version_with_other_tensors(tmp_path):
    """One config stands for all versions: another model under the same name is refused."""
    package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", Settings(8))
    before = files(tmp_path / "repo" / "m")
    new = saved(tmp_path / "new.onnx", "(float[batch,3] x) => (float[batch,3] y) { y = Neg(x) }")
    with pytest.raises(RepositoryError, match=r"other inputs or outputs \(x, y\)"):
        package_model(new, "m", tmp_path / "repo", Settings(8))
    assert files(tmp_path / "repo" / "m") == before


def test_only_version_is_replaced(tmp_path):
    """The only version may become another model: no other is left to fit the config."""
    package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", Settings(8))
    new = saved(tmp_path / "new.onnx", "(float[batch,3] x) => (float[batch,3] y) { y = Neg(x) }")
    package_model(new, "m", tmp_path / "repo", Settings(8), 1)
    assert read_config(tmp_path / "repo", "m").inputs[0].dims == (3,)


def test_new_version_unbatched(tmp_path):
    """The same model without batching has the same inputs and outputs."""
    folder = exported(tmp_path / "out")
    package_model(folder, "m", tmp_path / "repo", Settings(8))
    package_model(folder, "m", tmp_path / "repo", Settings(0))
    assert read_config(tmp_path / "repo", "m").max_batch_size == 0


def test_real_warmup(tmp_path):
    """Warm-up with real requests: the largest of them, in files that Triton reads."""
    graph = "(int64[batch,n] ids, float[batch,2] x) => (int64[batch,n] y, float[batch,2] z)"
    path = saved(tmp_path / "m.onnx", graph + " { y = Identity(ids) z = Neg(x) }")
    rows = [{"ids": np.arange(n)[None], **ROW} for n in (2, 5, 3)]
    write_payloads(tmp_path / "p.npz", rows)
    settings = Settings(8, warmup_payloads=tmp_path / "p.npz", warmup_batch_sizes=(1, 8))
    package_model(path, "m", tmp_path / "repo", settings)
    runs = read_config(tmp_path / "repo", "m").warmup
    assert [run.batch_size for run in runs] == [1, 8]
    folder = tmp_path / "repo" / "m" / "warmup"
    for run in runs:
        assert (run.inputs["ids"].dims, run.inputs["x"].dims) == ((5,), (2,))
        ids = (folder / run.inputs["ids"].file).read_bytes()
        assert np.frombuffer(ids, np.int64).tolist() == [0, 1, 2, 3, 4]
        x = (folder / run.inputs["x"].file).read_bytes()
        assert np.frombuffer(x, np.float32).tolist() == [1.0, 2.0]


def test_real_warmup_with_text(tmp_path):
    """Text lies in a warm-up file with its length before it, as Triton reads it."""
    path = saved(tmp_path / "m.onnx", "(string[N,1] s) => (string[N,1] t) { t = Identity(s) }")
    write_payloads(tmp_path / "p.npz", [{"s": np.array([["hello"]], dtype=object)}])
    settings = Settings(8, warmup_payloads=tmp_path / "p.npz")
    package_model(path, "m", tmp_path / "repo", settings)
    (file,) = (tmp_path / "repo" / "m" / "warmup").iterdir()
    assert file.read_bytes() == b"\x05\0\0\0hello"


def test_real_warmup_that_does_not_fit(tmp_path):
    """Requests that the model does not take are refused, and nothing is written."""
    write_payloads(tmp_path / "p.npz", [{"x": np.zeros((1, 3), np.float32)}])
    settings = Settings(8, warmup_payloads=tmp_path / "p.npz")
    with pytest.raises(
        RepositoryError, match=r"a request has x:float32\[1, 3\]; the model takes x:FP32\[batch,2\]"
    ):
        package_model(exported(tmp_path / "out"), "m", tmp_path / "repo", settings)
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize("content", [None, b"", b"not an archive"])
def test_real_warmup_of_nothing(tmp_path, content):
    """A file of requests that is none is refused, and nothing is written."""
    if content is not None:
        (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"p\.npz"):
        package_model(
            exported(tmp_path / "out"),
            "m",
            tmp_path / "repo",
            Settings(8, warmup_payloads=tmp_path / "p.npz"),
        )
    assert not (tmp_path / "repo").exists()


def test_name_of_an_ensemble(tmp_path):
    """A model does not take the place of an ensemble."""
    repository = tmp_path / "repo"
    for name in "ab":
        package_model(saved(tmp_path / f"{name}.onnx"), name, repository, Settings(8))
    package_ensemble(repository, "m", ["a", "b"], [("a.y", "b.x")])
    with pytest.raises(RepositoryError, match="is an ensemble; give the model another --name"):
        package_model(saved(tmp_path / "m.onnx"), "m", repository, Settings(8))


NAMES = "(float[N,2] x, int64[N] n, string[N] s) => (float[N,2] y, int64[N] m)"
BARE = NAMES + " { y = Neg(x) m = Neg(n) }"
BARE_ROW = {**ROW, "n": np.array([7]), "s": np.array(["hi"], dtype=object)}


def bare(folder: Path) -> Path:
    """The export of a model that has tensors with nothing but their batch axis."""
    saved(folder / "model.onnx", BARE)
    write_payloads(folder / "payloads.npz", [BARE_ROW])
    return folder


def shapes(path: Path) -> dict:
    """Those of the first request in a payloads.npz."""
    return {name: array.shape for name, array in read_payloads(path)[0].items()}


def test_payloads_in_wire_shapes(tmp_path):
    """In a repository the payloads are what a server takes: [1] becomes [1,1], values stay."""
    package_model(bare(tmp_path / "out"), "m", tmp_path / "repo", Settings(8))
    written = tmp_path / "repo" / "m" / "payloads.npz"
    assert shapes(written) == {"x": (1, 2), "n": (1, 1), "s": (1, 1)}
    (payload,) = read_payloads(written)
    assert (payload["n"].item(), payload["s"].item()) == (7, b"hi")
    assert shapes(tmp_path / "out" / "payloads.npz")["n"] == (1,)


def test_payloads_without_batches(tmp_path):
    """Unbatched, a dynamic dimension is none of the batch: [1] stays what it is."""
    package_model(bare(tmp_path / "out"), "m", tmp_path / "repo", Settings(0))
    assert shapes(tmp_path / "repo" / "m" / "payloads.npz") == {"x": (1, 2), "n": (1,), "s": (1,)}


def test_payloads_as_they_were(tmp_path):
    """Payloads whose shapes are those of the wire are copied, byte for byte."""
    folder = exported(tmp_path / "out")
    package_model(folder, "m", tmp_path / "repo", Settings(8))
    copy = tmp_path / "repo" / "m" / "payloads.npz"
    assert copy.read_bytes() == (folder / "payloads.npz").read_bytes()


def test_wire_payloads_are_kept(tmp_path):
    """A new version without payloads keeps those of the old, which are in wire shapes."""
    package_model(bare(tmp_path / "out"), "m", tmp_path / "repo", Settings(8))
    package_model(saved(tmp_path / "new.onnx", BARE), "m", tmp_path / "repo", Settings(8))
    assert shapes(tmp_path / "repo" / "m" / "payloads.npz")["n"] == (1, 1)


def test_payloads_in_the_models_shapes_are_not_kept(tmp_path):
    """Payloads that an older kit left there in the model's shapes are gone with a new version."""
    package_model(bare(tmp_path / "out"), "m", tmp_path / "repo", Settings(8))
    write_payloads(tmp_path / "repo" / "m" / "payloads.npz", [BARE_ROW])
    package_model(saved(tmp_path / "new.onnx", BARE), "m", tmp_path / "repo", Settings(8))
    assert "payloads.npz" not in files(tmp_path / "repo" / "m")


def test_exported_payloads_that_do_not_fit(tmp_path):
    """Payloads that are no rows of the model are refused with the remedy; nothing is written."""
    folder = exported(tmp_path / "out")
    write_payloads(folder / "payloads.npz", [{"x": np.zeros((1, 3), np.float32)}])
    with pytest.raises(
        RepositoryError,
        match=r"^model 'm': .*payloads\.npz: a request has x:float32\[1, 3\]; the model takes "
        r"x:FP32\[batch,2\]; export the model again, or delete the file$",
    ):
        package_model(folder, "m", tmp_path / "repo", Settings(8))
    assert not (tmp_path / "repo").exists()


def test_rows_of_a_model_without_batches(tmp_path):
    """What an export draws as rows for a model that takes none is not taken along."""
    graph = "(float[2] x, float k) => (float[2] y) { y = Mul(x, k) }"
    folder = tmp_path / "out"
    saved(folder / "model.onnx", graph)
    one = np.ones(1, np.float32)
    write_payloads(folder / "payloads.npz", [{"x": one, "k": one}])
    package_model(folder, "m", tmp_path / "repo", Settings(0))
    assert "payloads.npz" not in files(tmp_path / "repo" / "m")


@pytest.mark.parametrize("source", ["out", "repo/m"])
def test_real_warmup_of_bare_tensors(tmp_path, source):
    """Warm-up takes the requests of an export as well as those of a repository."""
    package_model(bare(tmp_path / "out"), "m", tmp_path / "repo", Settings(8))
    settings = Settings(8, warmup_payloads=tmp_path / source / "payloads.npz")
    package_model(tmp_path / "out", "warm", tmp_path / "repo", settings)
    (*_, run) = read_config(tmp_path / "repo", "warm").warmup
    assert {name: given.dims for name, given in run.inputs.items()} == {
        "x": (2,),
        "n": (1,),
        "s": (1,),
    }
    n = (tmp_path / "repo" / "warm" / "warmup" / run.inputs["n"].file).read_bytes()
    assert np.frombuffer(n, np.int64).tolist() == [7]


def test_payloads_of_a_stateful_model(tmp_path):
    """What a sequence scheduler fills in is no part of a request, nor of a recorded one."""
    graph = """(float[N,2] x, float[N,2] h) => (float[N,2] y, float[N,2] g)
    { y = Add(x, h) g = Identity(y) }"""
    folder = tmp_path / "out"
    saved(folder / "model.onnx", graph)
    write_payloads(folder / "payloads.npz", [{**ROW, "h": ROW["x"]}])
    settings = Settings(8, Sequences(states={"h": "g"}))
    package_model(folder, "m", tmp_path / "repo", settings)
    assert shapes(tmp_path / "repo" / "m" / "payloads.npz") == {"x": (1, 2)}
