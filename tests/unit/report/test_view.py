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
        ("ort_baseline", "Keep the single ONNX Runtime session for file_type"),
        ("ort_batcher", "Serve file_type with ONNX Runtime and an asyncio batcher"),
        ("triton_unbatched", "Serve file_type with Triton, without batching"),
        ("triton_batched", "Serve file_type with Triton and dynamic batching"),
        ("none", "None of the arms serves file_type within the budget"),
        ("a_new_one", "Verdict for file_type: a_new_one"),
    ],
)
def test_each_verdict_has_its_headline(file_type: Result, choice: str, headline: str) -> None:
    """The headline says what to do, for every choice and for one that is not known."""
    file_type["verdict"]["choice"] = choice
    assert build_view(file_type).headline == headline


def test_the_headline_has_the_ratio_to_the_strongest_rival(ranker: Result) -> None:
    """The chosen arm is set beside the best of the others, not beside the weakest."""
    assert build_view(ranker).against == (
        "1.25× (95\N{NO-BREAK SPACE}%: 1.15\N{EN DASH}1.35×) the capacity of ONNX Runtime + "
        "asyncio batcher, the next best"
    )


def test_a_headline_without_a_difference_says_so(file_type: Result) -> None:
    """A ratio whose interval holds 1 is called no difference, and is turned round where needed."""
    assert build_view(file_type).against == (
        "1.01× (95\N{NO-BREAK SPACE}%: 0.95\N{EN DASH}1.07×) the capacity of Triton, dynamic "
        "batching, the next best: no difference"
    )


def test_a_chosen_arm_that_is_not_the_best_is_not_called_so(ranker: Result) -> None:
    """The simplest arm that holds a wanted rate may sustain less than another."""
    ranker["verdict"]["choice"] = "ort_batcher"
    assert build_view(ranker).against.endswith("Triton, dynamic batching, the best")


def test_no_headline_ratio_where_nothing_was_chosen(none: Result) -> None:
    """Without a choice there is no ratio to speak of."""
    assert build_view(none).against == ""


def test_capacities_have_their_intervals(ranker: Result) -> None:
    """A capacity stands with the ends of its interval, of which the upper may be open."""
    arms = build_view(ranker).arms
    assert (arms[0].capacity, arms[0].capacity_span) == ("785", "754\N{EN DASH}824")
    assert (arms[3].capacity, arms[3].capacity_span) == ("5,374", "5,159 or more")


def test_a_capacity_of_0_and_one_not_known_are_not_alike(none: Result) -> None:
    """An arm that held nothing differs from one of which nothing is known."""
    arms = build_view(none).arms
    assert (arms[0].capacity, arms[0].capacity_note) == ("0", "no rate held the budget")
    assert (arms[1].capacity, arms[1].capacity_note) == (
        "not known",
        "not measured: the generator was the limit",
    )


def test_latencies_are_of_the_level_nearest_below_capacity(ranker: Result) -> None:
    """An arm's p99 and mean batch are those of the fastest level that held below its capacity."""
    batched = build_view(ranker).arms[3]
    assert (batched.p99_at, batched.p99, batched.mean_batch) == ("5,267 rps", "42.5", "58.3")


def test_an_excluded_level_is_never_the_one_below_capacity(ranker: Result) -> None:
    """Where the generator was the limit of that level, the next lower one stands for the arm."""
    ranker["arms"][3]["levels"][7]["generator_bound"] = True
    assert build_view(ranker).arms[3].p99_at == "5,105 rps"


def test_ratios_to_the_baseline_have_intervals(ranker: Result) -> None:
    """Each arm's card has its ratio to the single session, which itself is the baseline."""
    words = [arm.versus_words for arm in build_view(ranker).arms]
    assert words[0] == "baseline"
    assert words[3] == "6.85× (6.30\N{EN DASH}7.39×) the single session"


def test_no_ratio_to_a_baseline_without_capacity(none: Result) -> None:
    """Where the baseline's capacity is 0 there is no ratio, never infinity."""
    assert [arm.versus_words for arm in build_view(none).arms] == ["baseline", "", "", ""]


def test_what_the_own_batcher_lacks_is_kept(ranker: Result) -> None:
    """The arm that a team writes itself carries what it lacks; the others lack nothing."""
    lacks = [len(arm.lacks) for arm in build_view(ranker).arms]
    assert lacks == [0, 2, 0, 0]


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
    histogram = {"16": 1, "2": 5, "x": 3, "4": 0, "1": 2, "9" * 5000: 1}
    file_type["arms"][2]["certificate"]["batch_histogram"] = histogram
    assert build_view(file_type).arms[2].histogram == ((1, 2), (2, 5), (16, 1))


def test_one_sessions_instances_are_runs_at_a_time(ranker: Result) -> None:
    """Outside Triton there are no instances: settings, card and certificate speak of runs."""
    ranker["verdict"] |= {"choice": "ort_batcher", "settings": {"threads": 1, "instances": 2}}
    view = build_view(ranker)
    assert view.settings == "1 thread per run, 2 runs at a time"
    assert [arm.setup for arm in view.arms[1:3]] == [
        "2 threads per run, 1 run at a time",
        "2 threads per instance, 1 instance",
    ]
    assert ("Runs at a time", "1") in view.arms[0].certificate.facts
    assert ("Instances", "1") in view.arms[3].certificate.facts


def test_unknown_settings_are_kept(ranker: Result) -> None:
    """A setting this version does not know is shown rather than dropped."""
    ranker["verdict"]["settings"] = {"threads": 1, "preferred_batch_size": "8"}
    assert build_view(ranker).settings == "1 thread per instance, preferred batch size 8"


def test_an_old_result_has_a_view(old: Result) -> None:
    """A result of schema 1 keeps its capacities and levels; what it lacks is empty."""
    view = build_view(old)
    assert [arm.capacity_note for arm in view.arms] == ["no interval"] * 3
    assert (view.ratios, view.overloads, view.demands, view.soak) == ((), (), (), None)
    assert [len(arm.levels) for arm in view.arms] == [9, 9, 9]


def test_an_empty_result_has_a_view() -> None:
    """Every key may be missing: the view is full of dashes and raises nothing."""
    view = build_view({})
    assert view.arms == () and view.headline == "Verdict for —: —"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "—"),
        (float("nan"), "—"),
        ("7", "—"),
        (True, "—"),
        (10**400, "—"),
        (1e308, "—"),
        (1234.56, "1,234.6"),
        (12e12, "12 trillion"),
    ],
)
def test_only_what_can_be_measured_is_a_number(value: Any, shown: str) -> None:
    """Null, NaN, text, booleans and absurd sizes are dashes where a number is due."""
    assert formats.fixed(value, 1) == shown


@pytest.mark.parametrize(
    ("interval", "shown"),
    [
        ([1.0, 2.0], "1\N{EN DASH}2"),
        ([1.0, None], "1 or more"),
        ([None, 2.0], ""),
        ([1.0], ""),
        (None, ""),
        ("12", ""),
    ],
)
def test_an_interval_needs_its_lower_end(interval: Any, shown: str) -> None:
    """An open upper end is said so; anything that is no interval is empty."""
    assert formats.span(interval, lambda v: f"{v:.0f}") == shown


def test_cpu_numbers_are_shown_as_ranges() -> None:
    """Neighbouring CPUs fold into a range, and none at all is a dash."""
    assert formats.cpu_list([0, 1, 2, 5]) == "0\N{EN DASH}2, 5"
    assert formats.cpu_list(None) == formats.DASH
