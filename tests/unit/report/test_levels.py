"""Facts about single levels: what they are worth, and what is said of them."""

from __future__ import annotations

from typing import Any

from tritonkit.report import formats
from tritonkit.report.levels import LevelView
from tritonkit.report.view import build_view

Result = dict[str, Any]


def _level(result: Result, arm: int, **where: Any) -> LevelView:
    """The view of the one level of an arm that has these values."""
    views = build_view(result).arms[arm].levels
    found = [v for v in views if all(getattr(v, key) == value for key, value in where.items())]
    assert len(found) == 1
    return found[0]


def test_levels_are_ordered_by_purpose_and_load(ranker: Result) -> None:
    """Curve, search, wanted rate, overload, each by rising load, whatever the file's order."""
    ranker["arms"][0]["levels"].reverse()
    levels = build_view(ranker).arms[0].levels
    assert [v.purpose for v in levels] == ["curve"] * 5 + ["search"] * 6 + ["rate", "overload"]
    assert [v.offered for v in levels[:2]] == ["1 user", "4 users"]
    assert [v.offered for v in levels[5:7]] == ["730 rps", "746 rps"]


def test_a_searched_level_names_its_round(ranker: Result) -> None:
    """Why a level was run is told with the round, where rounds mean something."""
    levels = build_view(ranker).arms[0].levels
    assert [v.why for v in levels[4:7]] == ["closed loop", "search, round 1", "search, round 5"]


def test_a_level_that_held_says_so(ranker: Result) -> None:
    """A counted level within the budget is held."""
    level = _level(ranker, 0, offered="769 rps")
    assert (level.state, level.marks) == ("held", ("holds",))


def test_over_budget_is_said_in_words(ranker: Result) -> None:
    """Exactly the levels whose p99 exceeds the budget carry the words."""
    levels = build_view(ranker).arms[0].levels
    assert [v.over_budget for v in levels] == [False] * 8 + [True] * 5
    assert all(("over budget" in v.marks) == v.over_budget for v in levels)


def test_an_excluded_level_says_why(ranker: Result) -> None:
    """A generator-bound level decides nothing, and its two numbers say what bound it."""
    level = _level(ranker, 3, state="excluded")
    assert level.marks[0] == (
        "not counted: the generator was the limit (p99 of lateness 3.40 ms, "
        "97\N{NO-BREAK SPACE}% of a core)"
    )


def test_an_excluded_level_is_excluded_even_if_it_held(ranker: Result) -> None:
    """Whatever it showed, it was not the arm that was measured."""
    ranker["arms"][0]["levels"][5]["generator_bound"] = True
    assert _level(ranker, 0, offered="730 rps").state == "excluded"


def test_an_unsteady_level_says_why(ranker: Result) -> None:
    """A level that never settled is marked with what drifted, and did not hold."""
    level = _level(ranker, 0, unsteady=True)
    assert level.marks == ("unsteady: p99 rose by 61 % from the first third to the last",)
    assert level.state == "failed"


def test_a_level_with_errors_never_held(ranker: Result) -> None:
    """Errors outweigh what the result says of the budget."""
    ranker["arms"][2]["levels"][0]["errors"] = 1
    assert _level(ranker, 2, offered="1 user").state == "failed"


def test_error_kinds_are_counted_in_words(none: Result) -> None:
    """A level with errors names each kind and how often it happened."""
    level = _level(none, 0, errors="3")
    assert "errors: 2 timeout, 1 refused" in level.marks


def test_a_p99_of_too_few_requests_is_told_aside(ranker: Result) -> None:
    """A p99 that MLPerf's rule would not accept still shows, with how many it needs."""
    level = _level(ranker, 0, offered="730 rps")
    assert level.asides == ("p99 of too few requests, needs 4,601",)


def test_few_late_requests_are_no_matter(ranker: Result) -> None:
    """Lateness is told once more than one request of a hundred was sent late."""
    late = ranker["arms"][0]["levels"][5]
    late |= {"late": 29, "requests": 2911, "not_sent": 0, "p99_enough": True}
    assert _level(ranker, 0, offered="730 rps").asides == ()
    late |= {"late": 30, "not_sent": 2}
    assert _level(ranker, 0, offered="730 rps").asides == ("30 sent late", "2 not sent")


def test_other_arrivals_than_poisson_are_named(ranker: Result) -> None:
    """An open loop that was no Poisson process says what it was."""
    ranker["arms"][0]["levels"][7]["arrivals"] = "bursts:1,2"
    assert _level(ranker, 0, offered="769 rps").asides == ("bursts:1,2",)


def test_percentiles_have_their_intervals(ranker: Result) -> None:
    """p50 and p99 stand with their intervals, short where the numbers are long."""
    level = _level(ranker, 0, offered="848 rps")
    assert (level.p99, level.p99_span) == ("156.3", "145\N{EN DASH}175")
    ranker["arms"][0]["levels"][10]["p99_interval_ms"] = None
    assert _level(ranker, 0, offered="848 rps").p99_span == ""


def test_a_level_without_answers_is_not_drawn(none: Result) -> None:
    """Null percentiles become dashes, and the level has no point."""
    dead = next(v for v in build_view(none).arms[0].levels if v.point is None)
    assert (dead.p99, dead.marks[0]) == (formats.DASH, "nothing answered")


def test_an_open_level_is_drawn_at_the_rate_offered(ranker: Result) -> None:
    """What was asked of the server is the cause; a closed loop asks nothing but what it gets."""
    levels = build_view(ranker).arms[0].levels
    points = [levels[i].point for i in (0, 12)]
    assert [round(p.rate_rps) for p in points if p is not None] == [80, 1178]


def test_an_old_level_without_a_purpose_gets_one(old: Result) -> None:
    """Levels of schema 1 are told apart by their loop alone."""
    purposes = {(v.loop, v.purpose) for v in build_view(old).arms[0].levels}
    assert purposes == {("closed", "curve"), ("open", "search")}
