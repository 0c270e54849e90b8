"""When what else ran makes a comparison's figures doubtful."""

import pytest

from tritonkit.stats.disturbance import disturbance


def levels(*others, stolen=0.0):
    """An arm's levels, of each of which others used so much."""
    return [{"others_cpu": x, "stolen_cpu": stolen} for x in others]


def test_a_result_that_does_not_say():
    """Results of older versions, and of systems that count nothing, are not judged."""
    assert disturbance({"a": [{}], "b": levels(None, stolen=None), "c": []}) is None


def test_an_idle_machine():
    """A machine that does a little beside is not busy."""
    assert not disturbance({"a": levels(0.01, 0.03), "b": levels(0.02, 0.0)}).is_busy


@pytest.mark.parametrize(
    "arm",
    [levels(*[0.08] * 14), levels(*[0.2] * 4, *[0.0] * 10), levels(0.8, *[0.0] * 13)],
    ids=["always", "a third of the time", "one terrible level"],
)
def test_a_busy_machine(arm):
    """It is busy whether others take a little always, or much now and then."""
    assert disturbance({"a": levels(0.0), "b": arm}).is_busy


def test_one_bad_level():
    """One level of fourteen that others took half a CPU of four from only widens an interval."""
    assert not disturbance({"a": levels(0.15, *[0.02] * 13)}).is_busy


def test_stolen_time_counts():
    """What the hypervisor took is gone as well."""
    found = disturbance({"a": levels(0.03, stolen=0.04)})
    assert found.is_busy and found.by_arm == {"a": pytest.approx(0.07)}


def test_unequal():
    """Arms are unequal where others took much more from one of them."""
    assert disturbance({"a": levels(0.3), "b": levels(0.1)}).is_unequal
    assert not disturbance({"a": levels(0.3), "b": levels(0.28)}).is_unequal


def test_in_words():
    """The words have the means over all levels, and the worst level."""
    found = disturbance({"a": levels(0.1, 0.3, stolen=0.02), "b": levels(0.2, stolen=0.02)})
    assert found.told == (
        "other processes used 20 % of the CPUs and 2 % was stolen (32 % in the worst level)"
    )


def test_in_words_where_stolen_is_not_known():
    """Nothing is said of what the system does not count."""
    found = disturbance({"a": levels(0.2, stolen=None)})
    assert found.told == "other processes used 20 % of the CPUs (20 % in the worst level)"


@pytest.mark.parametrize("value", ["0.5", True, float("nan"), float("inf"), [], {}])
def test_what_is_no_share(value):
    """A result of another program may hold anything."""
    assert disturbance({"a": [{"others_cpu": value, "stolen_cpu": value}]}) is None
