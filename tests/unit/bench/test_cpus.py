"""Server and load generator get CPUs of their own where there are enough."""

import os

import pytest

from tritonkit.bench.cpus import divide, staying_on


@pytest.mark.parametrize(
    ("cpus", "server", "generator"),
    [
        ((0,), (0,), (0,)),
        ((0, 1), (0, 1), (0, 1)),
        ((0, 1, 2), (0, 1, 2), (0, 1, 2)),
        ((0, 1, 2, 3), (0, 1, 2), (3,)),
        ((2, 3, 5, 8, 9, 11, 12, 13), (2, 3, 5, 8, 9, 11), (12, 13)),
    ],
)
def test_sets(cpus, server, generator):
    """From four CPUs on a quarter is the generator's; with fewer they share them all."""
    found = divide(cpus)
    assert (found.server, found.generator) == (server, generator)
    assert found.are_disjoint == (len(cpus) >= 4)


def test_stays_and_returns():
    """The thread has the CPUs that it is told until the block ends, and then its old ones."""
    before = os.sched_getaffinity(0)
    one = {min(before)}
    with staying_on(sorted(one)):
        assert os.sched_getaffinity(0) == one
    assert os.sched_getaffinity(0) == before


def test_returns_after_a_failure():
    """The old CPUs come back when the block fails, too."""
    before = os.sched_getaffinity(0)
    with pytest.raises(RuntimeError), staying_on([min(before)]):
        raise RuntimeError
    assert os.sched_getaffinity(0) == before
