"""Facts about the view model: what a result says, as text."""

from __future__ import annotations

from typing import Any

import pytest

from tritonkit.report import formats
from tritonkit.report.view import build_view

Result = dict[str, Any]


@pytest.mark.parametrize(
    ("choice", "headline"),
    [
        ("ort_baseline", "Keep the single ONNX Runtime session for ranker"),
        ("triton_unbatched", "Serve ranker with Triton, without batching"),
        ("triton_batched", "Serve ranker with Triton and dynamic batching"),
        ("none", "None of the three ways serves ranker within the budget"),
        ("a_new_one", "Verdict for ranker: a_new_one"),
    ],
)
def test_each_verdict_has_its_headline(ranker: Result, choice: str, headline: str) -> None:
    """The headline says what to do, for every choice and for one that is not known."""
    ranker["verdict"]["choice"] = choice
    assert build_view(ranker).headline == headline


def test_capacity_level_is_the_one_the_capacity_came_from(ranker: Result) -> None:
    """An arm's p50, p99 and mean batch are those of the level that set its capacity."""
    batched = build_view(ranker).arms[2]
    assert (batched.capacity, batched.p99, batched.mean_batch) == ("3,204", "38.7", "28.8")
    assert [v.offered for v in batched.levels if v.is_capacity] == ["64 users"]


def test_a_level_with_errors_never_sets_the_capacity(ranker: Result) -> None:
    """A level with errors is not shown as the capacity's level, nor drawn as one that counts."""
    ranker["arms"][2]["levels"][6]["errors"] = 1
    levels = build_view(ranker).arms[2].levels
    assert not any(v.is_capacity for v in levels)
    assert levels[6].point is not None and not levels[6].point.counts


def test_a_generator_bound_capacity_is_admitted(ranker: Result) -> None:
    """A generator-bound level may set the capacity, and both its row and its arm say so."""
    ranker["arms"][2]["levels"][6]["generator_bound"] = True
    arm = build_view(ranker).arms[2]
    assert arm.generator_bound
    assert (arm.levels[6].marks, arm.levels[6].asides) == (
        ("sets the capacity",),
        ("generator-bound",),
    )


def test_a_late_generator_is_an_aside_with_its_lateness(ranker: Result) -> None:
    """A generator-bound open level says how late it sent, beside what the level is worth."""
    ranker["arms"][0]["levels"][7] |= {"generator_bound": True, "lateness_p99_ms": 2.345}
    level = next(v for v in build_view(ranker).arms[0].levels if v.loop == "open")
    assert (level.marks, level.asides) == (("holds",), ("sent late (2.35 ms)",))


def test_a_repeat_stands_directly_after_its_first_run(ranker: Result) -> None:
    """The level that was measured again, last in the file, follows its first run and says so."""
    levels = build_view(ranker).arms[0].levels
    assert [v.offered for v in levels[4:6]] == ["16 users", "16 users"]
    assert [v.asides for v in levels[4:6]] == [(), ("again",)]
    assert sum("again" in v.asides for v in levels) == 1


def test_a_repeat_may_set_the_capacity(ranker: Result) -> None:
    """Where the second run is the better one, the arm's latencies are the second run's."""
    ranker["arms"][0]["levels"][-1] |= {"achieved_rps": 710.0, "p50_ms": 20.0, "p99_ms": 35.5}
    ranker["arms"][0]["capacity_rps"] = 710.0
    arm = build_view(ranker).arms[0]
    assert (arm.p50, arm.p99) == ("20.0", "35.5")
    assert [v.asides for v in arm.levels if v.is_capacity] == [("again",)]


def test_ratio_is_to_the_baselines_capacity(ranker: Result) -> None:
    """Each arm's ratio divides its capacity by the plain session's."""
    assert [a.versus_baseline for a in build_view(ranker).arms] == ["1.00×", "0.87×", "4.62×"]


def test_no_ratio_to_a_baseline_without_capacity(none: Result) -> None:
    """Where the baseline's capacity is 0 the ratio is a dash, never infinity."""
    assert {a.versus_baseline for a in build_view(none).arms} == {formats.DASH}


def test_over_budget_is_said_in_words(ranker: Result) -> None:
    """Exactly the levels whose p99 exceeds the budget carry the words."""
    arm = build_view(ranker).arms[0]
    assert [v.over_budget for v in arm.levels] == [False] * 6 + [True] * 2 + [False] * 2
    assert all(("over budget" in v.marks) == v.over_budget for v in arm.levels)


def test_error_kinds_are_counted_in_words(none: Result) -> None:
    """A level with errors names each kind and how often it happened."""
    assert "errors: 2 timeout, 1 refused" in build_view(none).arms[0].levels[-2].marks


def test_a_level_without_answers_is_not_drawn(none: Result) -> None:
    """Null percentiles become dashes, and the level has no point."""
    dead = build_view(none).arms[0].levels[-1]
    assert (dead.p99, dead.point, dead.marks[0]) == (formats.DASH, None, "nothing answered")


def test_levels_are_ordered_by_loop_and_load(ranker: Result) -> None:
    """Closed loop comes first, each loop by rising load, whatever order the file has."""
    ranker["arms"][0]["levels"].reverse()
    offered = [v.offered for v in build_view(ranker).arms[0].levels]
    assert offered[:2] == ["1 user", "2 users"]
    assert offered[-2:] == ["350 rps", "560 rps"]


def test_an_arm_above_the_ceiling_is_admitted(ranker: Result) -> None:
    """The view knows when an arm exceeds the ceiling, as noise can make it."""
    assert not build_view(ranker).ceiling.above
    ranker["ceiling"]["best_ips"] = 3000.0
    assert build_view(ranker).ceiling.above


def test_each_ceiling_curve_is_named_by_threads_and_sessions(ranker: Result) -> None:
    """There is one curve for each number of threads and of bare sessions at a time."""
    ceiling = build_view(ranker).ceiling
    names = [name for name, _ in ceiling.curves]
    assert names == ["1 thread", "1 thread × 2 sessions", "2 threads"]
    assert ceiling.best_at == "batch 64, 2 threads"


def test_a_ceiling_without_instances_is_that_of_one_session(ranker: Result) -> None:
    """Results from before `instances` were recorded still have their curves."""
    del ranker["ceiling"]["best_instances"]
    points = [p for p in ranker["ceiling"]["points"] if p.pop("instances") == 1]
    ranker["ceiling"]["points"] = points
    ceiling = build_view(ranker).ceiling
    assert [name for name, _ in ceiling.curves] == ["1 thread", "2 threads"]
    assert ceiling.best_at == "batch 64, 2 threads"


def test_a_model_that_gains_nothing_is_said_so(file_type: Result) -> None:
    """Where batch 1 is the best batch, the page does not speak of a factor of 1."""
    file_type["ceiling"]["best_batch"] = 1
    assert "nothing for batching to gain" in build_view(file_type).ceiling.summary


def test_histogram_is_ordered_by_size(file_type: Result) -> None:
    """Batch sizes, text in JSON, are ordered as numbers; nonsense and zeros are left out."""
    histogram = {"16": 1, "2": 5, "x": 3, "4": 0, "1": 2}
    file_type["arms"][2]["certificate"]["batch_histogram"] = histogram
    assert build_view(file_type).arms[2].histogram == ((1, 2), (2, 5), (16, 1))


def test_the_baselines_instances_are_runs_at_a_time(file_type: Result) -> None:
    """One session has no instances: settings, card and certificate speak of its runs."""
    file_type["verdict"]["settings"] = {"threads": 1, "instances": 2}
    view = build_view(file_type)
    assert view.settings == "1 thread per run, 2 runs at a time"
    assert [arm.setup for arm in view.arms[:2]] == [
        "2 threads per run, 1 run at a time",
        "2 threads per instance, 1 instance",
    ]
    assert ("Runs at a time", "1") in view.arms[0].certificate.facts
    assert ("Instances", "1") in view.arms[1].certificate.facts


def test_unknown_settings_are_kept(ranker: Result) -> None:
    """A setting this version does not know is shown rather than dropped."""
    ranker["verdict"]["settings"] = {"threads": 1, "preferred_batch_size": "8"}
    assert build_view(ranker).settings == "1 thread per instance, preferred batch size 8"


def test_shared_cpus_are_admitted(ranker: Result) -> None:
    """The page says that generator and server share CPUs exactly where they do."""
    assert "share CPUs" in dict(build_view(ranker).method.paragraphs)["Machine"]
    ranker["method"]["generator_cpus"] = [2, 3]
    assert "share CPUs" not in dict(build_view(ranker).method.paragraphs)["Machine"]


def test_rule_is_stated_with_its_number(ranker: Result) -> None:
    """How the verdict was decided names the gain that batching had to make."""
    assert "at least 1.2 times" in dict(build_view(ranker).method.paragraphs)["Verdict"]


def test_rule_follows_the_rate_where_one_was_given(none: Result) -> None:
    """With a needed rate the headline and the rule are about holding that rate."""
    view = build_view(none)
    assert "at 400 requests/s within the budget" in view.headline
    assert "holds exactly this rate" in dict(view.method.paragraphs)["Verdict"]


def test_an_empty_result_has_a_view() -> None:
    """Every key may be missing: the view is full of dashes and raises nothing."""
    view = build_view({})
    assert view.arms == () and view.headline == "Verdict for —: —"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "—"), (float("nan"), "—"), ("7", "—"), (True, "—"), (1234.56, "1,234.6")],
)
def test_only_finite_numbers_are_numbers(value: Any, shown: str) -> None:
    """Null, NaN, text and booleans are dashes where a number is due."""
    assert formats.fixed(value, 1) == shown


def test_cpu_numbers_are_shown_as_ranges() -> None:
    """Neighbouring CPUs fold into a range, and none at all is a dash."""
    assert formats.cpu_list([0, 1, 2, 5]) == "0\N{EN DASH}2, 5"
    assert formats.cpu_list(None) == formats.DASH
