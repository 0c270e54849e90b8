"""Samples on disk: what is written comes back, and a file is there whole or not at all."""

import csv
import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonkit.samples import NOT_SENT, Sample, read_samples, write_samples

SAMPLES = [Sample(0, 1_000, 2_000_000, 0, ""), Sample(5, 6, 7, 3, "http_503")]

times = st.integers(-(2**63), 2**63)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
errors = st.sampled_from(["", "timeout", NOT_SENT]) | texts


SAMPLE = st.builds(Sample, times, times, times, st.integers(0, 10**6), errors, st.none() | times)


@given(st.lists(SAMPLE))
def test_round_trip(samples):
    """Every sample comes back as it was, in order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.csv.gz"
        write_samples(path, samples)
        assert read_samples(path) == samples


def test_format(tmp_path):
    """The file is a gzipped CSV with a header line, for anybody's tools."""
    write_samples(tmp_path / "s.csv.gz", SAMPLES)
    with gzip.open(tmp_path / "s.csv.gz", "rt", newline="") as file:
        assert list(csv.DictReader(file))[1] == {
            "intended_ns": "5",
            "sent_ns": "6",
            "done_ns": "7",
            "payload": "3",
            "error": "http_503",
            "put_off_ns": "",
        }


def test_folders_are_made(tmp_path):
    """The folders above the file are made."""
    write_samples(tmp_path / "a" / "b" / "s.csv.gz", SAMPLES)
    assert read_samples(tmp_path / "a" / "b" / "s.csv.gz") == SAMPLES


def test_generator(tmp_path):
    """Samples may come from a generator, which is read once."""
    write_samples(tmp_path / "s.csv.gz", iter(SAMPLES))
    assert read_samples(tmp_path / "s.csv.gz") == SAMPLES


def test_replaced(tmp_path):
    """An older file is replaced."""
    for samples in (SAMPLES, SAMPLES[:1]):
        write_samples(tmp_path / "s.csv.gz", samples)
    assert read_samples(tmp_path / "s.csv.gz") == SAMPLES[:1]


@pytest.mark.parametrize("error", [RuntimeError(), KeyboardInterrupt()])
def test_atomic(tmp_path, error):
    """If writing ends half way the older file is as it was, and nothing else is left."""

    def half():
        yield from SAMPLES * 1000
        raise error

    write_samples(tmp_path / "s.csv.gz", SAMPLES)
    with pytest.raises(type(error)):
        write_samples(tmp_path / "s.csv.gz", half())
    assert read_samples(tmp_path / "s.csv.gz") == SAMPLES
    assert [p.name for p in tmp_path.iterdir()] == ["s.csv.gz"]
