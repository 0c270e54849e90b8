"""Other settings as a new version of a model, and the way back."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tritonkit.errors import RepositoryError
from tritonkit.repository import layout
from tritonkit.repository.apply import apply_config
from tritonkit.repository.config import DynamicBatching
from tritonkit.repository.layout import model_file, read_config, versions, write_model
from tritonkit.repository.lint.repository import lint_repository
from tritonkit.repository.package import Settings, package_model
from tritonkit.verification import Verdict, file_sha256, read_verification


@pytest.fixture
def exported(tmp_path, onnx_file):
    """An export with a check of up to 16 rows."""
    folder = tmp_path / "export"
    folder.mkdir()
    model = onnx_file("(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }")
    model.rename(folder / "model.onnx")
    check = {"verdict": str(Verdict.SAFE), "max_batch_size": 16, "findings": []}
    sha256 = {"model.onnx": file_sha256(folder / "model.onnx")}
    (folder / "verification.json").write_text(json.dumps({"sha256": sha256, "check": check}))
    return folder


@pytest.fixture
def repository(tmp_path, exported):
    """A repository with version 1 of the model m."""
    package_model(exported, "m", tmp_path / "repo", Settings(8))
    return tmp_path / "repo"


def planned(repository, **changes):
    usual = {"instances": 2, "dynamic_batching": DynamicBatching(500)}
    return replace(read_config(repository, "m"), **{**usual, **changes})


def tree(folder):
    """All files under a folder, by relative path."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_next_version(repository):
    """The settings come with the next version, which has the files of the one before."""
    done = apply_config(repository, planned(repository))
    assert (done.version, done.before) == (2, 1)
    assert tree(repository / "m" / "2") == tree(repository / "m" / "1")
    config = read_config(repository, "m")
    assert (config.instances, config.dynamic_batching) == (2, DynamicBatching(500))


def test_all_else_stays(repository):
    """Nothing that was there is changed but the configs, and config.pbtxt is kept."""
    before = tree(repository)
    done = apply_config(repository, planned(repository))
    after = tree(repository)
    config = before.pop("m/config.pbtxt")
    del before["m/configs/unbatched.pbtxt"]
    assert before.items() <= after.items()
    assert done.kept == repository / "m" / "configs" / "version-1.pbtxt"
    assert done.kept.read_bytes() == config


def test_unbatched(repository):
    """The config without a scheduler has the new settings too."""
    apply_config(repository, planned(repository))
    text = (repository / "m" / "configs" / "unbatched.pbtxt").read_text()
    assert "count: 2" in text and "dynamic_batching" not in text


def test_way_back(repository):
    """The kept config over config.pbtxt and the new version gone is what was there before, but for
    the config without a scheduler.
    """
    before = tree(repository)
    done = apply_config(repository, planned(repository))
    done.kept.replace(repository / "m" / "config.pbtxt")
    for path in (repository / "m" / "2").iterdir():
        path.unlink()
    after = tree(repository)
    for files in (before, after):
        del files["m/configs/unbatched.pbtxt"]
    assert after == before


def test_proof_stays(repository):
    """What was proved of the model holds for the new version."""
    apply_config(repository, planned(repository))
    file = model_file(repository, "m")
    assert file.parent.name == "2"
    assert read_verification(file.with_name("verification.json"), file).max_batch_size == 16


def test_lint(repository):
    """Lint finds nothing that it did not find before."""
    before = [str(found.rule) for found in lint_repository(repository, cpus=2, slo_p99_ms=50)]
    apply_config(repository, planned(repository))
    after = lint_repository(repository, cpus=2, slo_p99_ms=50)
    assert [str(found.rule) for found in after] == before


def test_external_data(tmp_path):
    """Weights beside the model, also in a folder, go with it."""
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [weights],
    )
    (tmp_path / "in" / "deep").mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    external = {"save_as_external_data": True, "location": "deep/w.bin", "size_threshold": 0}
    onnx.save(model, tmp_path / "in" / "model.onnx", **external)
    package_model(tmp_path / "in", "m", tmp_path / "repo", Settings(8))
    apply_config(tmp_path / "repo", planned(tmp_path / "repo"))
    assert (tmp_path / "repo" / "m" / "2" / "deep" / "w.bin").stat().st_size == 64


def test_a_folder_as_the_model_file(repository):
    """A folder called model.onnx, with the model and its data in it, goes whole."""
    version = repository / "m" / "1"
    (version / "model.onnx").rename(version / "plain")
    (version / "model.onnx").mkdir()
    (version / "plain").rename(version / "model.onnx" / "model.onnx")
    (version / "model.onnx" / "data").write_text("w")
    apply_config(repository, planned(repository))
    assert tree(repository / "m" / "2") == tree(version)


def test_again(repository):
    """A second time it is version 3, and both configs of before are kept."""
    first = apply_config(repository, planned(repository))
    second = apply_config(repository, planned(repository, instances=3))
    assert (second.version, second.before) == (3, 2)
    assert first.kept.name == "version-1.pbtxt" and second.kept.name == "version-2.pbtxt"
    assert "count: 2" in second.kept.read_text()


def test_a_kept_config_is_not_overwritten(repository):
    """Another file in the place of the kept config stays, and the config goes beside it."""
    (repository / "m" / "configs" / "version-1.pbtxt").write_text("mine")
    done = apply_config(repository, planned(repository))
    assert (repository / "m" / "configs" / "version-1.pbtxt").read_text() == "mine"
    assert done.kept.name == "version-1-2.pbtxt"


def test_versions_by_name(repository):
    """A policy that names the served version names the new one in its place."""
    apply_config(repository, planned(repository, version_policy=(1,)))
    assert read_config(repository, "m").version_policy == (2,)
    assert model_file(repository, "m").parent.name == "2"


def test_all_versions(repository):
    """A policy that does not name versions stays."""
    apply_config(repository, planned(repository, version_policy="all"))
    assert read_config(repository, "m").version_policy == "all"


def test_served_version(tmp_path, repository):
    """The files are those of the version that is served, and the number is above all."""
    config = read_config(repository, "m")
    files = {"model.onnx": b"another"}
    write_model(repository, replace(config, version_policy=(1,)), files, version=7)
    done = apply_config(repository, planned(repository))
    assert (done.version, done.before) == (8, 1)
    assert tree(repository / "m" / "8") == tree(repository / "m" / "1")


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", ["model.onnx", "config.pbtxt", "version-1.pbtxt", "unbatched.pbtxt"])
@pytest.mark.parametrize("older", [True, False])
def test_it_fails(repository, monkeypatch, error, at, older):
    """If a copy or a rename fails, or Ctrl-C comes, the model is as it was before; also one of a
    time when nothing lay in configs/.
    """
    if older:
        shutil.rmtree(repository / "m" / "configs")
    before = tree(repository)
    folders = sorted(p for p in repository.rglob("*") if p.is_dir())
    copy, move = layout.shutil.copyfile, layout.Path.replace

    def fail_copy(source, target):
        if at == "model.onnx" and str(source).endswith(at):
            raise error
        return copy(source, target)

    def fail_move(self, target):
        if self.name == at and ".writing-" in str(self):
            raise error
        return move(self, target)

    monkeypatch.setattr(layout.shutil, "copyfile", fail_copy)
    monkeypatch.setattr(layout.Path, "replace", fail_move)
    with pytest.raises(type(error)):
        apply_config(repository, planned(repository))
    assert tree(repository) == before
    assert sorted(p for p in repository.rglob("*") if p.is_dir()) == folders


def test_no_model(repository):
    """A model that is not there has no version to begin with."""
    with pytest.raises(RepositoryError, match="no model 'n'"):
        apply_config(repository, replace(planned(repository), name="n"))
    assert versions(repository, "m") == [1]
