"""Facts about the view of a plan."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from tritonkit.planning.result import Notch, Outcome, Plan, Session, Tried
from tritonkit.report.plan_view import build_plan_view

Document = dict[str, Any]
MINUS, NBSP, TO = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}", "\N{EN DASH}"


def test_the_document_is_what_a_plan_writes(planned: Document) -> None:
    """These tests stand on the very keys of plan.json."""

    def keys(kind: Any) -> set[str]:
        return {field.name for field in fields(kind)}

    assert planned.keys() == keys(Plan) | {"schema"}
    assert planned["tried"][0].keys() == keys(Tried)
    assert planned["measured"].keys() == keys(Outcome)
    assert planned["sensitivity"][0].keys() == keys(Notch)
    assert planned["session"].keys() == keys(Session)


def test_a_prediction_within_its_limit_is_no_miss(planned: Document) -> None:
    """A capacity that is 4 % too low is told with its error, and not as a miss."""
    capacity = build_plan_view(planned).errors[0]
    assert (capacity.predicted, capacity.measured) == ("2,400", "2,500")
    assert capacity.error == f"{MINUS}4.0{NBSP}%"
    assert capacity.says == f"within 10{NBSP}%"
    assert capacity.missed == ""


@pytest.mark.parametrize(("predicted", "is_missed"), [(2751.0, True), (2749.0, False)])
def test_a_capacity_is_missed_beyond_a_tenth(
    planned: Document, predicted: float, is_missed: bool
) -> None:
    """The limit for a capacity is 10 % of what was measured."""
    planned["predicted"]["capacity_rps"] = predicted
    capacity = build_plan_view(planned).errors[0]
    assert bool(capacity.missed) is is_missed
    assert capacity.says.startswith("off by more" if is_missed else "within")


def test_a_miss_inside_the_interval_is_told_so(planned: Document) -> None:
    """Where the measured interval holds the prediction, the miss is not held against it alone."""
    planned["measured"]["capacity_interval_rps"] = [1200.0, 3900.0]
    planned["predicted"]["capacity_rps"] = 3500.0
    view = build_plan_view(planned)
    assert "inside the interval" in view.errors[0].says
    assert "still inside" in view.errors[0].missed
    assert "too wide" in view.weak[0]


def test_a_p99_is_missed_beyond_a_fifth(planned: Document) -> None:
    """20 ms beside 30 are a third too low, and said so in words with the way."""
    p99 = build_plan_view(planned).errors[1]
    assert p99.error == f"{MINUS}33{NBSP}%"
    assert p99.missed == (
        f"The p99 at 1,750 requests/s was predicted 33{NBSP}% too low: more than the 20{NBSP}% "
        "that a prediction may be off."
    )
    planned["predicted"]["p99_ms"] = 24.1
    assert build_plan_view(planned).errors[1].missed == ""


def test_p99s_of_its_levels_stand_beside_a_p99(planned: Document) -> None:
    """A p99 has no interval, so the reader sees what it was taken from; scatter is told."""
    view = build_plan_view(planned)
    assert view.errors[1].known_as == "its levels: 29.0, 30.0"
    assert view.weak == ()
    planned["tried"][0]["levels"][1]["p99_ms"] = 12.0
    assert "from 12.0 to 30.0 ms" in build_plan_view(planned).weak[0]


def test_a_level_that_does_not_count_is_no_p99_of_the_winner(planned: Document) -> None:
    """What the generator bound says nothing of the settings."""
    planned["tried"][0]["levels"][1]["generator_bound"] = True
    assert build_plan_view(planned).errors[1].known_as == "its levels: 30.0"


def test_an_error_beyond_measure_is_a_dash(planned: Document) -> None:
    """Beside a measured capacity of next to nothing no percentage has a meaning."""
    planned["measured"]["capacity_rps"] = 1e-300
    capacity = build_plan_view(planned).errors[0]
    assert (capacity.error, capacity.says) == ("—", "not known")


def test_a_capacity_of_no_level_is_not_known(planned: Document) -> None:
    """0 without an interval is a dash; 0 with one was measured."""
    assert build_plan_view(planned).tried[2].measured.capacity == "—"
    planned["tried"][2]["measured"]["capacity_interval_rps"] = [0.0, 20.0]
    found = build_plan_view(planned).tried[2].measured
    assert (found.capacity, found.span) == ("0", f"0{TO}20")


def test_the_error_of_what_was_tried_is_of_the_curve(planned: Document) -> None:
    """Recalibrated figures have seen the levels: their error would flatter."""
    assert build_plan_view(planned).tried[0].error == f"{MINUS}20.0{NBSP}%"


def test_winner_and_present_are_marked(planned: Document) -> None:
    """One row is the winner; present settings are marked if they were run."""
    planned["present"] = dict(planned["tried"][1]["settings"])
    tried = build_plan_view(planned).tried
    assert [t.is_winner for t in tried] == [True, False, False]
    assert [t.is_present for t in tried] == [False, True, False]


def test_notches_are_ratios_to_the_winner_predicted_alike(planned: Document) -> None:
    """The base is what the same simulation says of the winner, not what was measured."""
    same, slower, plain = build_plan_view(planned).notches
    assert (same.capacity_ratio, same.p99_ratio, same.says) == ("1.00×", "1.00×", "about the same")
    assert (slower.capacity_ratio, slower.p99_ratio) == ("0.90×", "1.50×")
    assert slower.says == "serves less, slower"
    assert (plain.p99, plain.p99_ratio) == ("> 150", "—")
    assert "over the budget" in plain.says


def test_notches_are_worded_as_changes(planned: Document) -> None:
    """A change names what it changes to and from; without settings the plan's words stand."""
    planned["sensitivity"][0]["settings"] = None
    changes = [notch.change.replace(NBSP, " ") for notch in build_plan_view(planned).notches]
    assert changes == ["max_batch_size 53", "delay 3 ms instead of 2 ms", "without batching"]


def test_a_better_notch_is_explained(planned: Document) -> None:
    """A change that is predicted to be better than the winner asks for a word."""
    assert not build_plan_view(planned).is_bettered
    planned["sensitivity"][0]["outcome"]["capacity_rps"] = 2600.0
    assert build_plan_view(planned).is_bettered


def test_at_a_rate_better_is_a_lower_p99(planned: Document) -> None:
    """With a wanted rate it is the p99 that a change may better."""
    planned["rate_rps"] = 1750.0
    planned["sensitivity"][0]["outcome"]["capacity_rps"] = 2600.0
    assert not build_plan_view(planned).is_bettered
    planned["sensitivity"][0]["outcome"]["p99_ms"] = 20.0
    assert build_plan_view(planned).is_bettered


@pytest.mark.parametrize(
    ("conclusion", "headline"),
    [
        ("ort_baseline", "Keep the single ONNX Runtime session for ranker"),
        ("triton_unbatched", "Serve ranker with Triton, without batching"),
        ("triton_batched", "Serve ranker with Triton and dynamic batching"),
        ("none", "No settings were found that serve ranker at 1,750 requests/s within the budget"),
        ("new", "Plan for ranker: new"),
    ],
)
def test_every_conclusion_has_a_headline(planned: Document, conclusion: str, headline: str) -> None:
    """One that is not known is shown as it is."""
    planned |= {"conclusion": conclusion, "rate_rps": 1750.0}
    assert build_plan_view(planned).headline == headline


def test_a_kept_session_is_shown_with_its_own_settings(planned: Document) -> None:
    """Below “keep the session” no settings of Triton stand as if they were the advice."""
    planned |= {"conclusion": "ort_baseline"}
    assert build_plan_view(planned).settings == "2 threads per run, 2 runs at a time"


def test_a_session_that_was_not_asked_is_not_said_to_fail(planned: Document) -> None:
    """Without a level at the rate it only reached too little."""
    assert "does not hold 2,083" in build_plan_view(planned).session
    planned["session"] |= {"levels": [], "most_rps": 1000.0}
    view = build_plan_view(planned)
    assert "hold" not in view.session + view.session_says


def test_only_lanes_that_ran_are_said_to_be_corrected(planned: Document) -> None:
    """The others got the mean of these, which no level showed."""
    other = {"threads": 2, "instances": 2, "batching": True, "pace": 1.23, "exponent": 1.0}
    planned["corrections"].append(other)
    said = build_plan_view(planned).recalibration.replace(NBSP, " ")
    assert "0.85× for 2 threads × 1 instance with batching" in said
    assert "1.23" not in said


def test_levels_have_numbers_and_no_rounds(planned: Document) -> None:
    """A plan has no rounds: its levels are numbered as they ran."""
    whys = [level.why for level in build_plan_view(planned).tried[0].levels]
    assert "search, level 1" in whys
    assert not any("round" in why for why in whys)


def test_a_busy_machine_is_told_first(planned: Document) -> None:
    """What other processes took of the CPUs leads what is held against the numbers."""
    for entry in planned["tried"]:
        for level in entry["levels"]:
            level["others_cpu"] = 0.4
    assert build_plan_view(planned).reservations[0].startswith("The machine was busy")
