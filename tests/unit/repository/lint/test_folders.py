"""Rules about reading the config and about the files around it."""

from __future__ import annotations

import shutil

import onnx
import onnx.external_data_helper
import pytest
from onnx import TensorProto, helper, numpy_helper

SCHEMA = "Triton does not load the model"

CASES = [
    ("config-syntax", {"most": "max_batch_size: eight #!"}, {}),
    ("config-syntax", {"x": 'input { name: "x"\ndata_type: TYPE_FLOAT #!\ndims: 4 }'}, {}),
    ("config-syntax", {"x": 'input { name: "x" data_type: TYPE_FP32\ndims [ 4 ] #!\n}'}, {}),
    ("config-syntax", {"most": "max_batch_size: 8\nmax_batch_size: 8 #!"}, {}),
    ("config-syntax", {"more": "optimization { #!"}, {}),
    ("config-syntax", {"most": "max_batch_size: ${MOST} #!"}, {}),
    ("config-syntax", {"first": "\ufeff# a byte order mark #!"}, {"first": "# none"}),
    ("unknown-field", {"most": "max_batchsize: 8 #!"}, {}),
    ("unknown-field", {"more": 'parameters { key: "k"\nvalue { int64_value: 1 } #!\n}'}, {}),
    ("conflicting-fields", {"more": "sequence_batching { } #!"}, {}),
    ("name-mismatch", {"more": 'name: "other" #!'}, {"more": 'name: "m"'}),
    (
        "backend-platform",
        {"more": 'platform: "tensorrt_plan" #!'},
        {"more": 'platform: "onnxruntime_onnx"'},
    ),
    (
        "backend-platform",
        {"backend": 'platform: "onnxruntime" #!'},
        {"backend": 'platform: "onnxruntime_onnx"'},
    ),
    ("backend-platform", {"first": "#!", "backend": "", "graph": None}, {"backend": ""}),
    (
        "backend-misspelt",
        {"backend": 'backend: "onnxruntime_onnx" #!'},
        {"backend": 'backend: "ours"'},
    ),
    (
        "no-version",
        {"more": "version_policy { latest { num_versions: 0 } } #!"},
        {"more": "version_policy { latest { num_versions: 1 } }"},
    ),
    (
        "no-version",
        {"more": "version_policy { specific { versions: 3 } } #!"},
        {"more": "version_policy { all { } }"},
    ),
    (
        "version-missing",
        {"more": "version_policy { specific {\nversions: [ 1, 3 ] #!\n} }"},
        {"more": "version_policy { specific { versions: [ 1 ] } }"},
    ),
    (
        "model-file-missing",
        {"more": 'default_model_filename: "other.onnx" #!'},
        {"more": 'default_model_filename: "model.onnx"'},
    ),
    ("model-file-missing", {"first": "#!", "graph": None}, {}),
    (
        "label-file",
        {"y": 'output { name: "y" data_type: TYPE_FP32 dims: 4\nlabel_filename: "l.txt" #!\n}'},
        {"y": 'output { name: "y" data_type: TYPE_FP32 dims: 4 label_filename: "config.pbtxt" }'},
    ),
    (
        "label-file",
        {"y": 'output { name: "y" data_type: TYPE_FP32 dims: 4\nlabel_filename: "../../x" #!\n}'},
        {},
    ),
]


@pytest.mark.parametrize(("rule", "broken", "twin"), CASES)
def test_caught_and_twin_passes(check, rule, broken, twin):
    """The rule finds just what is marked, at its line, and nothing in the twin."""
    check(rule, broken, twin)


def only(repository, rule):
    """The one problem that a rule tells of `m`."""
    (problem,) = [p for p in repository.lint("m") if p.rule == rule]
    return problem


@pytest.mark.parametrize(
    ("broken", "remedy"),
    [
        ({"most": "max_batchsize: 8"}, "did you mean max_batch_size?"),
        ({"x": 'input { data_type: TYPE_FLOAT32 }'}, "did you mean TYPE_FP32?"),
        ({"x": 'input { data_type: "TYPE_FP32" }'}, "write it without quotes"),
        ({"most": "max_batch_size: $MOST"}, "fill in what the template leaves open"),
        ({"first": "\ufeff"}, "save the file without a byte order mark"),
        ({"more": 'backend: "python"'}, "write it once"),
        ({"more": "optimization {"}, "close the block that begins here"),
        ({"threads": 'parameters { value { int: 1 } }'}, 'value: { string_value: "…" }'),
    ],
)  # fmt: skip
def test_remedy_of_a_syntax_error(repository, broken, remedy):
    """What protobuf only refuses, lint knows how to mend."""
    repository.add(**broken)
    (problem,) = repository.lint("m")
    assert remedy in problem.remedy


def test_not_utf8(repository):
    """Latin-1 is read as Triton reads it, told, and the other rules go on."""
    config = repository.add(x='input { name: "x" data_type: TYPE_FP32 dims: 5 }') / "config.pbtxt"
    assert repository.found("not-utf8") == []
    config.write_bytes(b"# caf\xe9\n" + config.read_bytes())
    assert repository.found("not-utf8") == [1]
    assert repository.found("dims") == [5]


def test_config_that_is_a_folder(repository):
    """A folder in the place of the config ends the whole server."""
    config = repository.add() / "config.pbtxt"
    assert repository.found("config-unreadable") == []
    config.unlink()
    config.mkdir()
    assert only(repository, "config-unreadable").message == "Is a directory"


def test_config_behind_a_broken_link(repository):
    """A config that is a link to nothing is not one that is missing."""
    config = repository.add() / "config.pbtxt"
    config.unlink()
    config.symlink_to("nowhere")
    assert [p.rule for p in repository.lint("m")] == ["config-unreadable"]


def test_model_without_a_config(repository):
    """Triton makes up a config for it."""
    config = repository.add() / "config.pbtxt"
    assert repository.found("no-config") == []
    config.unlink()
    assert [(p.rule, p.severity) for p in repository.lint("m")] == [("no-config", "warning")]


def test_stray_folder(repository):
    """A folder without a model keeps Triton from starting; files beside the models do not."""
    repository.add()
    (repository.path / "README.md").touch()
    assert {p.rule for p in repository.lint()} == {"not-proved"}
    (repository.path / "docs").mkdir()
    assert [p.rule for p in repository.lint("docs")] == ["stray-folder"]


@pytest.mark.parametrize(
    ("folder", "rule"),
    [
        ("007", "version-ignored"),
        ("v2", "version-ignored"),
        ("2x", "version-folder"),
        ("-2", "version-folder"),
        ("9" * 20, "version-folder"),
    ],
)
def test_names_of_version_folders(repository, folder, rule):
    """A version is a plain number; what else looks like one is ignored, or worse."""
    model = repository.add(more="version_policy { all { } }")
    assert repository.found(rule) == []
    shutil.copytree(model / "1", model / folder)
    assert repository.found(rule) == [1]


@pytest.mark.parametrize("folder", ["warmup", "initial_state", "configs", "assets", "1x"])
def test_folders_that_are_no_versions(repository, folder):
    """Folders of Triton's own, and any that does not look like a version, are let be. `1x` stands
    behind the version 1 that is there.
    """
    (repository.add() / folder).mkdir()
    assert {p.rule for p in repository.lint("m")} == {"not-proved"}


def test_no_version_folder(repository):
    """A model needs a version, and the remedy says where."""
    shutil.rmtree(repository.add() / "1")
    assert only(repository, "no-version").remedy.endswith("m/1")


def test_newest_version_alone_is_served(repository):
    """Of several versions only the newest is looked at, unless the policy serves more."""
    model = repository.add()
    shutil.copytree(model / "1", model / "10")
    (model / "1" / "model.onnx").write_bytes(b"")
    assert repository.found("model-not-onnx") == []
    config = model / "config.pbtxt"
    config.write_text(f"{config.read_text()}\nversion_policy {{ latest {{ num_versions: 2 }} }}")
    assert repository.found("model-not-onnx") == [1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        (b"no model", "is not an ONNX"),
    ],
)
def test_model_that_is_not_onnx(repository, content, words):
    """An empty file, a Git LFS pointer and other bytes are told apart."""
    file = repository.add() / "1" / "model.onnx"
    assert repository.found("model-not-onnx") == []
    file.write_bytes(content)
    assert words in only(repository, "model-not-onnx").message


def test_model_behind_a_broken_link(repository):
    """The message says where the link leads."""
    file = repository.add() / "1" / "model.onnx"
    file.unlink()
    file.symlink_to("/nowhere/model.onnx")
    assert (
        "a symbolic link to /nowhere/model.onnx" in only(repository, "model-file-missing").message
    )


def test_model_in_a_folder_of_its_name(repository):
    """`model.onnx/model.onnx` is a model with its external data beside it."""
    version = repository.add() / "1"
    (version / "model.onnx").rename(version / "file")
    (version / "model.onnx").mkdir()
    assert repository.found("model-file-missing") == [1]
    (version / "file").rename(version / "model.onnx" / "model.onnx")
    assert {p.rule for p in repository.lint("m")} == {"not-proved"}


@pytest.fixture
def weighted(repository):
    """A model with its weights in the file `weights` beside it."""
    folder = repository.add()
    model = onnx.load(folder / "1" / "model.onnx")
    weights = numpy_helper.from_array(helper.np.ones((4, 1024), "float32"), "w")
    model.graph.initializer.append(weights)
    model.graph.node[0].CopyFrom(helper.make_node("MatMul", ["x", "w"], ["y"]))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1024])
    )
    config = (folder / "config.pbtxt").read_text()
    y = 'output { name: "y" data_type: TYPE_FP32 dims: '
    (folder / "config.pbtxt").write_text(config.replace(f"{y}4", f"{y}1024"))
    onnx.save(model, folder / "1" / "model.onnx", save_as_external_data=True, location="weights")
    return folder / "1"


def test_external_data(repository, weighted):
    """External data lies beside the model, and is told by name where it does not."""
    assert {p.rule for p in repository.lint("m")} == {"not-proved"}
    (weighted / "weights").unlink()
    assert f"{weighted / 'weights'} is missing" in only(repository, "external-data").message


def test_model_that_cannot_be_loaded(repository):
    """What ONNX Runtime itself refuses is told in its words."""
    file = repository.add() / "1" / "model.onnx"
    assert repository.found("model-not-loadable") == []
    model = onnx.load(file)
    model.graph.node[0].op_type = "Nonsense"
    onnx.save(model, file)
    assert "Nonsense" in only(repository, "model-not-loadable").message


def test_model_with_operations_of_its_own(repository):
    """A model that needs the server's own libraries is not loaded here."""
    file = repository.add(more='model_operations { op_library_filename: "/opt/ours.so" }') / "1"
    model = onnx.load(file / "model.onnx")
    model.graph.node[0].op_type = "Ours"
    onnx.save(model, file / "model.onnx")
    assert repository.lint("m") == []


def test_name_that_no_file_can_have(repository):
    """A name beyond what the system takes is told, and is no crash."""
    repository.add(more=f'default_model_filename: "{"x" * 300}"')
    assert "File name too long" in only(repository, "unreadable").message


@pytest.mark.parametrize("name", ["a\\000b", "../../../etc/passwd", "/etc/passwd", "\\n"])
def test_hostile_names(repository, name):
    """Names with NUL, a line's end, or leading elsewhere are findings and no crash."""
    repository.add(
        more=f'default_model_filename: "{name}"',
        y=f'output {{ name: "{name}" data_type: TYPE_FP32 dims: 4 label_filename: "{name}" }}',
    )
    rules = {p.rule for p in repository.lint("m")}
    assert {"label-file"} <= rules and rules & {"model-file-missing", "model-not-onnx"}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (None, []),
        ('backend: "onnxruntime" max_batch_size: 8', [1]),
        ("max_batch_size: eight", [1]),
    ],
)
def test_unbatched_differs(repository, text, lines):
    """The config of the unbatched server is this one without its batcher, if there is one."""
    folder = repository.add()
    (folder / "configs").mkdir()
    if text is not None:
        (folder / "configs/unbatched.pbtxt").write_text(text)
    assert repository.found("unbatched-differs") == lines


def test_unbatched_is_the_same(repository):
    """In other words and another order."""
    folder = repository.add(first="# with words", batching="")
    (folder / "configs").mkdir()
    config = (folder / "config.pbtxt").read_text()
    (folder / "configs/unbatched.pbtxt").write_text("\n".join(reversed(config.splitlines())))
    (folder / "config.pbtxt").write_text(f"{config}\ndynamic_batching {{ }}")
    assert repository.found("unbatched-differs") == []
