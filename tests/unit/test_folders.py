"""Folders that are made for something, and go again if nothing came of it."""

import pytest

from tritonkit.folders import made


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
