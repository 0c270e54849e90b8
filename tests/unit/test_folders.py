"""Folders that are made for something, or take the place of others, and the way back."""

import pytest

from tritonkit.folders import made, put


def test_what_is_in_use_stays(tmp_path):
    """A folder that got a file stays, and so do those above it."""
    with made(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert (tmp_path / "a" / "b" / "file").exists()


def test_what_is_empty_goes(tmp_path):
    """After a failure nothing is left of folders that got nothing."""
    with pytest.raises(ValueError), made(tmp_path / "a" / "b"):
        raise ValueError
    assert not (tmp_path / "a").exists()


def test_what_was_there_stays(tmp_path):
    """An empty folder that somebody else made is none of ours."""
    (tmp_path / "a").mkdir()
    with made(tmp_path / "a" / "b"):
        pass
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "a" / "b").exists()


def test_a_folder_takes_the_place_of_another(tmp_path):
    """What was there is still to be had."""
    for name in ("new", "place"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    put(tmp_path / "new", tmp_path / "place", tmp_path / "old")
    assert (tmp_path / "place" / "new").exists()
    assert (tmp_path / "old" / "place").exists()


def test_what_cannot_be_put_leaves_what_was_there(tmp_path):
    """Without a new folder the old one is in its place again."""
    (tmp_path / "place").mkdir()
    with pytest.raises(FileNotFoundError):
        put(tmp_path / "new", tmp_path / "place", tmp_path / "old")
    assert (tmp_path / "place").exists()
    assert not (tmp_path / "old").exists()
