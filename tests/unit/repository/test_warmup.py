"""A warm-up for another max_batch_size."""

from tritonkit.repository.warmup import WarmUp, resized


def runs(*sizes):
    return tuple(WarmUp(f"batch_{size}", size, {}) for size in sizes)


def test_the_largest_run_becomes_the_new_most():
    """Whether that is more or less than before."""
    assert resized(runs(1, 32, 64), 128) == runs(1, 32, 128)
    assert resized(runs(1, 32, 64), 48) == runs(1, 32, 48)


def test_what_is_larger_goes():
    """A run of more rows than the model takes would fail its load."""
    assert resized(runs(1, 32, 64), 16) == runs(1, 16)


def test_one_run_stays_one():
    """At its new size."""
    assert resized(runs(1), 8) == runs(8)


def test_no_warm_up_stays_none():
    """Nothing is made up."""
    assert resized((), 8) == ()


def test_a_name_of_ones_own_stays():
    """Only a size in the name follows."""
    own = (WarmUp("mine", 64, {}),)
    assert [run.name for run in resized(own, 8)] == ["mine"]
