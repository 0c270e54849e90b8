"""Which lanes are measured."""

import pytest

from tritonkit.planning.profiling import lanes


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [
        (1, {(1, 1)}),
        (2, {(2, 1), (1, 1), (1, 2)}),
        (4, {(4, 1), (2, 1), (2, 2), (1, 1), (1, 4)}),
        (12, {(12, 1), (6, 1), (6, 2), (3, 1), (3, 4), (1, 1), (1, 12)}),
    ],
)
def test_lanes(cpus, expected):
    """All CPUs for one run, a thread for each of many, and steps between."""
    found = lanes(cpus)
    assert set(found) == expected and len(found) == len(expected)


@pytest.mark.parametrize("cpus", range(1, 65))
def test_no_lane_has_more_threads_than_cpus(cpus):
    """And every number of threads is measured with one instance too."""
    found = lanes(cpus)
    assert all(threads * instances <= cpus for threads, instances in found)
    assert {(threads, 1) for threads, _ in found} <= set(found)
