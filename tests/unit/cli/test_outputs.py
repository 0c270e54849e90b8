"""A folder of results is there whole or not at all, and nobody's files get lost."""

from pathlib import Path

import pytest

from tritonkit.cli.outputs import publish, require_place
from tritonkit.errors import CheckFailedError, InputError, ServerError


def fill(folder, text="new"):
    """Write what a finished run writes."""
    (folder / "samples").mkdir()
    (folder / "samples" / "a.csv.gz").write_text(text)
    (folder / "result.json").write_text(text)


def names(folder):
    """What lies in a folder, by name."""
    return sorted(p.name for p in folder.iterdir())


def test_new(tmp_path):
    """A new result is there once the block ended, with the folders above it."""
    out = tmp_path / "deep" / "out"
    with publish(out) as folder:
        fill(folder)
        assert not out.exists()
    assert names(out) == ["result.json", "samples"]
    assert names(tmp_path / "deep") == ["out"]


def test_replaced(tmp_path):
    """An older result is whole until the block ended, and then gone."""
    out = tmp_path / "out"
    with publish(out) as folder:
        fill(folder, "old")
        (folder / "report.html").write_text("old")
    with publish(out) as folder:
        fill(folder)
        assert (out / "result.json").read_text() == "old"
    assert names(out) == ["result.json", "samples"]
    assert (out / "result.json").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_empty_folder(tmp_path):
    """An empty folder is filled."""
    (tmp_path / "out").mkdir()
    with publish(tmp_path / "out") as folder:
        fill(folder)
    assert names(tmp_path / "out") == ["result.json", "samples"]


def test_current_folder(tmp_path, monkeypatch):
    """The current folder, which has no name of its own, can be filled."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with publish(Path()) as folder:
        fill(folder)
    assert names(tmp_path / "here") == ["result.json", "samples"]


def test_foreign_files(tmp_path):
    """A folder with files that are no result is refused, and is as it was."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("dear")
    with (
        pytest.raises(InputError, match=r"out has files that are no earlier result; choose anot"),
        publish(tmp_path / "out"),
    ):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["thesis.txt"]


def test_neighbours(tmp_path):
    """An older result that the user put aside as `out.old` stays."""
    (tmp_path / "out.old").mkdir()
    (tmp_path / "out.old" / "result.json").write_text("kept")
    for _ in range(2):
        with publish(tmp_path / "out") as folder:
            fill(folder)
    assert (tmp_path / "out.old" / "result.json").read_text() == "kept"
    assert names(tmp_path) == ["out", "out.old"]


@pytest.mark.parametrize("error", [CheckFailedError("no"), OSError("disk"), KeyboardInterrupt()])
def test_failed_before_samples(tmp_path, error):
    """A failure before anything was measured leaves nothing, nor the folders made for it."""
    with pytest.raises(type(error)), publish(tmp_path / "deep" / "er" / "out") as folder:
        (folder / "logs").mkdir()
        raise error
    assert list(tmp_path.iterdir()) == []


def test_failed_check(tmp_path):
    """A failed check leaves nothing of what was measured: nobody shall publish it."""
    with pytest.raises(CheckFailedError), publish(tmp_path / "out") as folder:
        fill(folder)
        raise CheckFailedError("no")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [OSError("disk"), ServerError("it died"), KeyboardInterrupt(), SystemExit(143)]
)
def test_interrupted(tmp_path, capsys, error):
    """What an interrupted run measured stays, and its place is said on stderr."""
    with pytest.raises(type(error)), publish(tmp_path / "out") as folder:
        fill(folder)
        raise error
    assert names(tmp_path) == ["out.partial"]
    output = capsys.readouterr()
    partial = tmp_path / "out.partial"
    assert output.err == f"what was measured is in {partial}; --resume goes on with it\n"
    assert output.out == ""


def test_resumed(tmp_path):
    """What an interrupted run measured is there when it is gone on with, and in the result."""
    with pytest.raises(KeyboardInterrupt), publish(tmp_path / "out") as folder:
        fill(folder, "old")
        (folder / "progress.jsonl").write_text("one level")
        raise KeyboardInterrupt
    with publish(tmp_path / "out", resume=True) as folder:
        assert (folder / "progress.jsonl").read_text() == "one level"
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["progress.jsonl", "result.json", "samples"]


def test_nothing_to_resume(tmp_path):
    """Where nothing was interrupted there is nothing to go on with, and no folder is made."""
    with pytest.raises(InputError, match="nothing to resume"), publish(tmp_path / "o", resume=True):
        pass
    assert names(tmp_path) == []


def test_after_an_interruption(tmp_path):
    """What an interrupted run measured is not dropped by the next, which says how to go on."""
    with pytest.raises(KeyboardInterrupt), publish(tmp_path / "out") as folder:
        fill(folder, "dear")
        raise KeyboardInterrupt
    with (
        pytest.raises(InputError, match=r"out\.partial has what an interrupted .* --resume, ch"),
        publish(tmp_path / "out"),
    ):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["out.partial"]
    assert (tmp_path / "out.partial" / "samples" / "a.csv.gz").read_text() == "dear"


def test_after_a_death_before_samples(tmp_path):
    """A run that was killed before it measured anything is not in the way of the next."""
    (tmp_path / "out.partial" / "logs").mkdir(parents=True)
    (tmp_path / "out.partial" / "progress.jsonl").write_text("a question")
    with publish(tmp_path / "out") as folder:
        assert names(folder) == []
        fill(folder)
    assert names(tmp_path) == ["out"]


def test_foreign_files_beside(tmp_path):
    """A folder called as that of an interrupted run, with other files in it, is left alone."""
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.txt").write_text("dear")
    with (
        pytest.raises(InputError, match=r"partial has files of something else; choose another --o"),
        publish(tmp_path / "out"),
    ):
        pytest.fail("the block must not run")
    assert names(tmp_path / "out.partial") == ["thesis.txt"]


@pytest.mark.parametrize("resume", [False, True])
def test_two_at_once(tmp_path, resume):
    """A folder that one run fills is not taken by another, which leaves it as it is."""
    with publish(tmp_path / "out") as folder:
        (folder / "progress.jsonl").write_text("a question")
        with (
            pytest.raises(InputError, match=r"another run is writing to .*out\.partial; wait"),
            publish(tmp_path / "out", resume=resume),
        ):
            pytest.fail("the block must not run")
        assert names(folder) == ["progress.jsonl"]
        fill(folder)
    assert names(tmp_path) == ["out"]


UNWRITABLE = ["/proc/out", "/proc/deep/out", "file/out", "n" * 300]


@pytest.mark.parametrize("place", UNWRITABLE)
def test_unwritable_result(tmp_path, monkeypatch, place):
    """Where no result can be written that is said at once."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("dear")
    with (
        pytest.raises(InputError, match=r"--out .*: nothing can be written in .*; choose another"),
        publish(Path(place)),
    ):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("place", UNWRITABLE)
def test_unwritable_place(tmp_path, monkeypatch, place):
    """Where no file can be written that is said with the option that named it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("dear")
    with pytest.raises(InputError, match=r"^--save .*: nothing can be written in .*; choose anoth"):
        require_place(Path(place), "--save")
    assert names(tmp_path) == ["file"]


def test_device():
    """A device is not replaced by a file."""
    with pytest.raises(InputError, match="--save /dev/null: it is a device or a pipe; give a file"):
        require_place(Path("/dev/null"), "--save")


@pytest.mark.parametrize("place", ["new", "deep/er/new", "file", "folder"])
def test_writable_place(tmp_path, place):
    """Where something can be written nothing is left of the attempt."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    require_place(tmp_path / place, "--save")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("error", [CheckFailedError("no"), KeyboardInterrupt()])
def test_older_result_survives(tmp_path, error):
    """A run that fails leaves the older result as it was."""
    with publish(tmp_path / "out") as folder:
        fill(folder, "old")
    with pytest.raises(type(error)), publish(tmp_path / "out") as folder:
        fill(folder)
        raise error
    assert (tmp_path / "out" / "result.json").read_text() == "old"
    assert (tmp_path / "out" / "samples" / "a.csv.gz").read_text() == "old"
