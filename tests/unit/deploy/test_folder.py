"""The folder is written whole or not at all, and never over something else."""

import pytest
import yaml

from tritonkit.deploy.folder import shipped, write_folder
from tritonkit.errors import InputError

FILES = {"kustomization.yaml": {"resources": ["base"]}}


@pytest.fixture
def write(tmp_path):
    def call(out="out", files=FILES, comments=None, *, force=False):
        write_folder(tmp_path / out, [shipped() / "base"], files, comments or {}, force=force)
        return tmp_path / out

    return call


def test_base(write):
    """The shipped files lie beside what was decided, as they are."""
    found = {path.name: path.read_text() for path in (write() / "base").iterdir()}
    assert found == {path.name: path.read_text() for path in (shipped() / "base").iterdir()}


def test_comments(write):
    """Comments stand above, each on one line, whatever is in it."""
    out = write(comments={"kustomization.yaml": ["a\nresources: [evil]", "b\x1b[2J", ""]})
    text = (out / "kustomization.yaml").read_text()
    assert text.splitlines()[:3] == ["# a�resources: [evil]", "# b�[2J", "#"]
    assert yaml.safe_load(text) == FILES["kustomization.yaml"]


def test_again(write):
    """An earlier deployment is named, and replaced only with force."""
    before = write()
    with pytest.raises(InputError, match="out has a deployment; replace it with --force"):
        write(files={"kustomization.yaml": {"resources": []}})
    assert yaml.safe_load((before / "kustomization.yaml").read_text()) == {"resources": ["base"]}
    write(files={"kustomization.yaml": {"resources": []}}, force=True)
    assert yaml.safe_load((before / "kustomization.yaml").read_text()) == {"resources": []}


def test_nothing_old_is_left(write):
    """Of the deployment that is replaced nothing stays."""
    write(files={**FILES, "claim.yaml": {}})
    assert not (write(force=True) / "claim.yaml").exists()


def test_foreign_files(write, tmp_path):
    """A folder with other files is refused, even with force."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"of no deployment \(thesis\.tex\)"):
        write(force=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_file(write, tmp_path):
    """A file is no folder."""
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file; give a folder"):
        write(force=True)
    assert (tmp_path / "out").read_text() == "mine"


def test_empty_folder(write, tmp_path):
    """An empty folder is filled."""
    (tmp_path / "out").mkdir()
    assert (write() / "base").is_dir()


def test_where_we_are(write, tmp_path, monkeypatch):
    """The current folder is not taken away from under the shell."""
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    with pytest.raises(InputError, match="is where you are"):
        write()


def test_failure(write, tmp_path):
    """What cannot be written leaves the earlier deployment, and nothing beside it."""
    out = write()
    with pytest.raises(yaml.YAMLError):
        write(files={**FILES, "deployment.yaml": {"x": object()}}, force=True)
    assert list(tmp_path.iterdir()) == [out] and not (out / "deployment.yaml").exists()


def test_failure_makes_nothing(write, tmp_path):
    """Nor are folders left that were made for it."""
    with pytest.raises(yaml.YAMLError):
        write("a/b/out", files={"deployment.yaml": {"x": object()}})
    assert list(tmp_path.iterdir()) == []
