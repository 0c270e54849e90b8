"""The folders of a repository: written whole or not at all, read with plain words."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tritonkit.errors import RepositoryError
from tritonkit.repository import layout, pbtxt
from tritonkit.repository.config import (
    ConfigTensor,
    DynamicBatching,
    ModelConfig,
    SequenceBatching,
)
from tritonkit.repository.layout import (
    is_ensemble,
    model_file,
    model_names,
    read_config,
    versions,
    write_model,
    write_variant,
)
from tritonkit.signature import data_type

CONFIG = ModelConfig(
    name="m",
    inputs=(ConfigTensor("x", data_type("FP32"), (4,)),),
    outputs=(ConfigTensor("y", data_type("FP32"), (4,)),),
    max_batch_size=8,
)

# Of a model folder with one version.
ENTRIES = ["1", "config.pbtxt", "configs"]


def given(folder: Path, **contents: str) -> dict[str, Path]:
    """Files to put into a version: `model` becomes model.onnx."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, content in contents.items():
        place = "model.onnx" if name == "model" else name
        path = folder / f"source-of-{name}"
        path.write_text(content)
        files[place] = path
    return files


def tree(folder: Path) -> dict[str, str]:
    """All files under a folder, by relative path."""
    return {
        p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture
def repository(tmp_path):
    """A repository with version 1 of the model m."""
    write_model(tmp_path / "repo", CONFIG, given(tmp_path / "in", model="one"))
    return tmp_path / "repo"


def test_write(tmp_path):
    """A new model has its configs, its payloads, and version 1 with its files, and nothing else."""
    payloads = tmp_path / "p"
    payloads.write_text("payloads")
    written = write_model(
        tmp_path / "deep" / "repo",
        CONFIG,
        given(tmp_path / "in", model="one", extra="more"),
        payloads=payloads,
    )
    assert written == tmp_path / "deep" / "repo" / "m" / "1"
    found = tree(tmp_path / "deep" / "repo")
    assert found.pop("m/config.pbtxt").startswith('name: "m"')
    assert found.pop("m/configs/unbatched.pbtxt").startswith('name: "m"')
    assert found == {"m/1/model.onnx": "one", "m/1/extra": "more", "m/payloads.npz": "payloads"}


def test_unbatched(tmp_path, repository):
    """Beside the config lies the same without its scheduler, for --model-config-name=unbatched."""
    batched = replace(CONFIG, instances=3, dynamic_batching=DynamicBatching(77))
    write_model(repository, batched, given(tmp_path / "in", model="two"))
    text = (repository / "m" / "configs" / "unbatched.pbtxt").read_text()
    assert replace(pbtxt.decode(text, "it", "m"), base="") == replace(CONFIG, instances=3)


def test_unbatched_of_a_stateful_model(tmp_path):
    """Sequences keep their scheduler, without which nothing would keep their states."""
    sequences = replace(CONFIG, sequence_batching=SequenceBatching())
    write_model(tmp_path / "repo", sequences, given(tmp_path / "in", model="one"))
    folder = tmp_path / "repo" / "m"
    text = (folder / "config.pbtxt").read_text()
    assert (folder / "configs" / "unbatched.pbtxt").read_text() == text
    assert "sequence_batching" in text


def test_unbatched_is_replaced(tmp_path, repository):
    """A model that loses its scheduler leaves no older settings behind for the other server."""
    batched = replace(CONFIG, instances=3, dynamic_batching=DynamicBatching(77))
    for config in (batched, CONFIG):
        write_model(repository, config, given(tmp_path / "in", model="two"))
    folder = repository / "m"
    without = (folder / "configs" / "unbatched.pbtxt").read_text()
    assert without == (folder / "config.pbtxt").read_text()


def test_subfolders(tmp_path):
    """A file's place in the version may be in a subfolder."""
    files = given(tmp_path / "in", model="one", weights="w")
    files["deep/er/weights.bin"] = files.pop("weights")
    written = write_model(tmp_path / "repo", CONFIG, files)
    assert tree(written) == {"model.onnx": "one", "deep/er/weights.bin": "w"}


def test_readable_by_others(tmp_path):
    """Another user, such as a container's, can read what was written."""
    written = write_model(tmp_path / "repo", CONFIG, given(tmp_path / "in", model="one"))
    model = written.parent
    configs = (model / "config.pbtxt", model / "configs", model / "configs" / "unbatched.pbtxt")
    for path in (written, written / "model.onnx", model, *configs):
        assert path.stat().st_mode & 0o044 == 0o044, path


def test_next_version(tmp_path, repository):
    """Without a number a version is the next after the highest."""
    files = given(tmp_path / "in", model="x")
    assert write_model(repository, CONFIG, files, version=7).name == "7"
    assert write_model(repository, CONFIG, files).name == "8"
    assert versions(repository, "m") == [1, 7, 8]


def test_versions_are_numbers(tmp_path, repository):
    """Versions are ordered as numbers; folders of other names are none."""
    files = given(tmp_path / "in", model="x")
    for version in (10, 9):
        write_model(repository, CONFIG, files, version=version)
    (repository / "m" / "notes").mkdir()
    (repository / "m" / "12").write_text("a file")
    assert versions(repository, "m") == [1, 9, 10]


def test_replace(tmp_path, repository):
    """A version that exists is replaced whole, and the config with it."""
    write_model(repository, CONFIG, given(tmp_path / "in", model="x", old="old"), version=1)
    changed = replace(CONFIG, dynamic_batching=DynamicBatching(77))
    write_model(repository, changed, given(tmp_path / "in", model="two"), version=1)
    assert tree(repository / "m" / "1") == {"model.onnx": "two"}
    assert sorted(p.name for p in (repository / "m").iterdir()) == ENTRIES
    assert read_config(repository, "m").dynamic_batching == DynamicBatching(77)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("version", [None, 1])
def test_copy_fails(tmp_path, repository, monkeypatch, error, version):
    """If a copy fails half way, by an error or Ctrl-C, the model is as it was before."""
    before = tree(repository)
    copy = shutil.copyfile

    def copy_first(source, target):
        if "extra" in str(source):
            Path(target).write_text("hal")
            raise error
        return copy(source, target)

    monkeypatch.setattr(layout.shutil, "copyfile", copy_first)
    files = given(tmp_path / "in", model="two", extra="half")
    with pytest.raises(type(error)):
        write_model(repository, CONFIG, files, version=version)
    assert tree(repository) == before
    assert sorted(p.name for p in (repository / "m").iterdir()) == ENTRIES


@pytest.mark.parametrize("error", [OSError("no"), KeyboardInterrupt()])
def test_rename_fails(tmp_path, repository, monkeypatch, error):
    """If a new version cannot be put in place, the one that it replaces comes back."""
    before = tree(repository)
    rename = Path.rename

    def rename_old(self, target):
        if self.name == "version":
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_old)
    with pytest.raises(type(error)):
        write_model(repository, CONFIG, given(tmp_path / "in", model="two"), version=1)
    assert tree(repository) == before


def test_first_write_fails(tmp_path):
    """If the first model of a new repository fails, there is no repository."""
    with pytest.raises(FileNotFoundError):
        write_model(tmp_path / "repo", CONFIG, {"model.onnx": tmp_path / "missing"})
    assert list(tmp_path.iterdir()) == []


def test_first_write_of_a_model_fails(tmp_path, repository):
    """If a new model fails, its folder is not there and the other models are."""
    with pytest.raises(FileNotFoundError):
        write_model(repository, replace(CONFIG, name="n"), {"model.onnx": tmp_path / "missing"})
    assert model_names(repository) == ["m"]
    assert [p.name for p in repository.iterdir()] == ["m"]


def test_model_names(tmp_path, repository):
    """The models are the folders that have a config, by name."""
    write_model(repository, replace(CONFIG, name="a"), given(tmp_path / "in", model="x"))
    (repository / "no config").mkdir()
    assert model_names(repository) == ["a", "m"]


def test_no_repository(tmp_path):
    """A missing repository is named with the ways to make one."""
    for ask in (model_names, lambda path: read_config(path, "m")):
        with pytest.raises(RepositoryError, match=r"^no model repository at .*/none; make one"):
            ask(tmp_path / "none")


def test_unknown_model(repository):
    """An unknown model is answered with the known ones."""
    with pytest.raises(RepositoryError, match=r"^no model 'q' in .* \(it has m\)$"):
        read_config(repository, "q")


def test_empty_repository(tmp_path):
    """In an empty repository there are no models to name."""
    with pytest.raises(RepositoryError, match=r"no model 'q' in .* \(it has no models\)$"):
        read_config(tmp_path, "q")


def test_read_back(repository):
    """A config is read as it was written."""
    assert replace(read_config(repository, "m"), base="") == CONFIG


def test_name_is_not_the_folder(repository):
    """A config that names another model than its folder is refused with both names."""
    (repository / "m").rename(repository / "n")
    with pytest.raises(RepositoryError, match="the name is 'm' but the folder is 'n'"):
        read_config(repository, "n")


def test_config_without_name(repository):
    """A config without a name, which Triton allows, has its folder's."""
    path = repository / "m" / "config.pbtxt"
    path.write_text(path.read_text().replace('name: "m"\n', "", 1))
    (repository / "m").rename(repository / "n")
    assert read_config(repository, "n").name == "n"


def test_config_is_no_text(repository):
    """A binary config is refused by its path."""
    (repository / "m" / "config.pbtxt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RepositoryError, match=r"m/config\.pbtxt: not a text file"):
        read_config(repository, "m")


def test_config_is_wrong(repository):
    """A config of wrong text is refused by its path."""
    (repository / "m" / "config.pbtxt").write_text("nonsense: 1")
    with pytest.raises(RepositoryError, match=r"^/.*/m/config\.pbtxt: not a valid config"):
        read_config(repository, "m")


def test_newest_file(tmp_path, repository):
    """The model's file is that of the newest version that has one."""
    write_model(repository, CONFIG, given(tmp_path / "in", model="two"), version=10)
    (repository / "m" / "11").mkdir()
    assert model_file(repository, "m") == repository / "m" / "10" / "model.onnx"


def test_folder_as_model(repository):
    """A folder called model.onnx, Triton's form for external data, has the file inside."""
    version = repository / "m" / "1"
    (version / "model.onnx").rename(version / "kept")
    (version / "model.onnx").mkdir()
    (version / "kept").rename(version / "model.onnx" / "model.onnx")
    assert model_file(repository, "m") == version / "model.onnx" / "model.onnx"


def test_no_weights(repository):
    """A model whose weights were not generated is named with the command that does."""
    shutil.rmtree(repository / "m" / "1")
    with pytest.raises(RepositoryError, match=r"m has a config but no model\.onnx; .* make them"):
        model_file(repository, "m")


def test_variant(tmp_path, repository):
    """A variant has the newest version, under its number, with the other config."""
    write_model(repository, CONFIG, given(tmp_path / "in", model="seven"), version=7)
    changed = replace(CONFIG, intra_op_threads=5)
    write_variant(repository, "m", changed, tmp_path / "variant")
    assert versions(tmp_path / "variant", "m") == [7]
    assert model_file(tmp_path / "variant", "m").read_text() == "seven"
    assert replace(read_config(tmp_path / "variant", "m"), base="") == changed
    assert replace(read_config(repository, "m"), base="") == CONFIG


def test_variant_is_linked(tmp_path, repository):
    """A variant's weights are the same file, not a copy."""
    write_variant(repository, "m", CONFIG, tmp_path / "variant")
    assert model_file(tmp_path / "variant", "m").samefile(model_file(repository, "m"))


def test_variant_of_relative_repository(tmp_path, repository, monkeypatch):
    """The links of a variant hold wherever the repository was named from."""
    monkeypatch.chdir(repository.parent)
    write_variant(Path("repo"), "m", CONFIG, tmp_path / "else" / "variant")
    assert model_file(tmp_path / "else" / "variant", "m").read_text() == "one"


def test_variant_of_folder_model(tmp_path, repository):
    """A variant of a model in a folder called model.onnx serves its version too."""
    version = repository / "m" / "1"
    (version / "model.onnx").rename(version / "kept")
    (version / "model.onnx").mkdir()
    (version / "kept").rename(version / "model.onnx" / "model.onnx")
    write_variant(repository, "m", CONFIG, tmp_path / "variant")
    assert versions(tmp_path / "variant", "m") == [1]
    assert model_file(tmp_path / "variant", "m").read_text() == "one"


def test_variant_keeps_labels(tmp_path, repository):
    """What else lies in the model's folder, such as label files, is in the variant too."""
    (repository / "m" / "labels.txt").write_text("cat\ndog\n")
    write_variant(repository, "m", CONFIG, tmp_path / "variant")
    assert (tmp_path / "variant" / "m" / "labels.txt").read_text() == "cat\ndog\n"
    assert not (tmp_path / "variant" / "m" / "config.pbtxt").is_symlink()


def with_versions(tmp_path, repository, *numbers, **changed):
    """The model m with these versions too, each file saying its number, and a changed config."""
    for number in numbers:
        files = given(tmp_path / "in", model=f"number {number}")
        write_model(repository, replace(CONFIG, **changed), files, version=number)
    return read_config(repository, "m")


def test_file_of_a_served_version(tmp_path, repository):
    """Where the policy names versions, the model's file is that of the newest of them."""
    with_versions(tmp_path, repository, 3, 7, version_policy=(1, 3))
    assert model_file(repository, "m").read_text() == "number 3"


def test_no_served_version(tmp_path, repository):
    """A policy that names no version that is there is refused with those that are."""
    with_versions(tmp_path, repository, 3, version_policy=(5,))
    with pytest.raises(
        RepositoryError, match=r"m: its version policy serves \(5,\), but there are"
    ):
        model_file(repository, "m")


def test_variant_of_a_specific_version(tmp_path, repository):
    """A variant has the newest version that is served, and a policy that serves it."""
    config = with_versions(tmp_path, repository, 3, 7, version_policy=(1, 3))
    write_variant(repository, "m", config, tmp_path / "variant")
    assert versions(tmp_path / "variant", "m") == [3]
    assert read_config(tmp_path / "variant", "m").version_policy is None


@pytest.mark.parametrize(
    ("policy", "served"), [("all", [1, 3, 7]), (2, [3, 7]), (None, [7]), ((1, 3, 9), [1, 3])]
)
def test_variant_of_every_version(tmp_path, repository, policy, served):
    """On request a variant has all versions that are served, and serves them all."""
    config = with_versions(tmp_path, repository, 3, 7, version_policy=policy)
    write_variant(repository, "m", config, tmp_path / "variant", every_version=True)
    assert versions(tmp_path / "variant", "m") == served
    wanted = "all" if len(served) > 1 else None
    assert read_config(tmp_path / "variant", "m").version_policy == wanted


def test_beside(tmp_path, repository):
    """What lies beside the versions is written to its place, and what else is there stays."""
    (repository / "m" / "notes.txt").write_text("ours")
    write_model(
        repository,
        CONFIG,
        given(tmp_path / "in", model="two"),
        beside={"warmup/x": b"new", "labels.txt": b"cat"},
    )
    found = tree(repository / "m")
    for config in ("config.pbtxt", "configs/unbatched.pbtxt"):
        found.pop(config)
    assert found == {
        "1/model.onnx": "one",
        "2/model.onnx": "two",
        "warmup/x": "new",
        "labels.txt": "cat",
        "notes.txt": "ours",
    }


@pytest.mark.parametrize(("keep", "left"), [(True, ["p"]), (False, [])])
def test_old_payloads(tmp_path, repository, keep, left):
    """Without new payloads the old ones stay or go, as is said."""
    payloads = repository / "m" / "payloads.npz"
    payloads.write_text("p")
    files = given(tmp_path / "in", model="two")
    write_model(repository, CONFIG, files, keep_payloads=keep)
    assert [p.read_text() for p in (repository / "m").glob("payloads.npz")] == left


def test_is_ensemble(repository):
    """A model is no ensemble, and neither is what is not there."""
    assert not is_ensemble(repository, "m")
    assert not is_ensemble(repository, "q")
    (repository / "e").mkdir()
    (repository / "e" / "config.pbtxt").write_text('platform: "ensemble"')
    assert is_ensemble(repository, "e")


def test_config_of_an_ensemble(repository):
    """An ensemble, which has no model of its own, is refused with its steps."""
    (repository / "e").mkdir()
    (repository / "e" / "config.pbtxt").write_text(
        'platform: "ensemble" ensemble_scheduling { step { model_name: "m" } }'
    )
    with pytest.raises(
        RepositoryError, match="an ensemble has no model of its own; give a step: m"
    ):
        read_config(repository, "e")
