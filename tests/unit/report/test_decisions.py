"""Facts about ratios, overload, demand, the time split, the soak, and the reservations."""

from __future__ import annotations

from typing import Any

import pytest

from tritonkit.report.decisions import between, ratio_views
from tritonkit.report.times import PARTS
from tritonkit.report.view import build_view

Result = dict[str, Any]


def test_every_pair_has_a_ratio_with_its_interval(ranker: Result) -> None:
    """All six pairs of four arms are there, each with the interval of the ratio itself."""
    ratios = build_view(ranker).ratios
    assert len(ratios) == 6
    assert (ratios[-1].ratio, ratios[-1].span) == ("6.23×", "5.74\N{EN DASH}6.73×")


def test_more_less_and_no_difference_are_words(ranker: Result) -> None:
    """A finding is a word for each of the three cases, for a ratio that is not known, and for an
    interval that holds 1 and is too wide to say anything.
    """
    first = ranker["ratios"][0]
    said = []
    for change in (
        {},
        {"ratio": 0.2, "low": 0.1, "high": 0.3},
        {"ratio": 1.4, "low": 0.9, "high": 1.9, "differs": False},
        {"ratio": 0.9, "low": 0.07, "high": 1.35, "differs": False},
        {"ratio": None, "low": None, "high": None, "differs": False},
        {"ratio": None, "low": 3.05, "high": None, "differs": True},
        {"ratio": None, "low": 0.0, "high": 0.4, "differs": True},
    ):
        first |= change
        said.append(ratio_views(ranker)[0].says)
    assert said == [
        *("more", "less", "no difference", "not decided"),
        *("not known", "more", "less"),
    ]


@pytest.mark.parametrize(
    ("low", "high", "span"),
    [
        (4.12, 5.2, "4.12–5.20×"),
        (3.05, None, "3.05× or more"),
        (0.0, 0.4, "0.40× or less"),
        (0.0, None, ""),
        (None, None, ""),
    ],
)
def test_a_ratio_with_one_end_shows_it(
    ranker: Result, low: float | None, high: float | None, span: str
) -> None:
    """Where nothing failed on one of two arms, the end that is known is shown."""
    ranker["ratios"][0] |= {"ratio": None, "low": low, "high": high, "differs": False}
    assert ratio_views(ranker)[0].span == span


def test_a_ratio_can_be_turned_round(ranker: Result) -> None:
    """Asked the other way, the ratio and its two ends are inverted and change places."""
    turned = between(ratio_views(ranker), "triton_unbatched", "triton_batched")
    assert turned is not None
    assert (turned.ratio, turned.span, turned.says) == ("0.16×", "0.15\N{EN DASH}0.17×", "less")


def test_overload_tells_what_was_answered_and_what_failed(ranker: Result) -> None:
    """Each arm's level above capacity shows the share answered, and errors with their kinds."""
    overloads = build_view(ranker).overloads
    assert [over.arm for over in overloads] == [arm["name"] for arm in ranker["arms"]]
    assert overloads[1].answered == "70\N{NO-BREAK SPACE}%"
    assert overloads[1].failed == "35\N{NO-BREAK SPACE}% (9,100 unavailable)"
    assert overloads[0].failed == "none"


def test_demand_is_in_replicas_headroom_and_cost(ranker: Result) -> None:
    """A wanted rate shows for each arm whether it is held, the room left, machines and cost."""
    demand = build_view(ranker).demands[0]
    assert (demand.holds, demand.headroom) == ("no", "\N{MINUS SIGN}62\N{NO-BREAK SPACE}%")
    assert (demand.replicas, demand.cost) == ("4", "0.22")
    assert build_view(ranker).demands[3].headroom == "+158\N{NO-BREAK SPACE}%"


def test_a_demand_that_was_not_judged_is_not_a_no(ranker: Result) -> None:
    """Where no level at the wanted rate counts, it is not known whether the arm holds it."""
    ranker["arms"][0]["demand"]["holds"] = None
    assert build_view(ranker).demands[0].holds == "not known"


def test_no_demand_without_a_rate(file_type: Result) -> None:
    """Where no rate was asked for, nothing is said of replicas."""
    assert build_view(file_type).demands == ()


def test_time_is_split_at_one_user_and_below_capacity(ranker: Result) -> None:
    """Each arm has its parts at the lightest load and at the level nearest below capacity."""
    low, near = build_view(ranker).times
    assert [row.at for row in low.rows] == ["1 user"] * 4
    assert [row.at for row in near.rows] == ["769 rps", "4,224 rps", "845 rps", "5,267 rps"]
    assert near.rows[0].total == "21.18"
    assert near.rows[0].sum_ms == pytest.approx(21.18, abs=0.01)


def test_a_split_that_does_not_add_up_says_so(ranker: Result) -> None:
    """The remark of the split is kept, and one without words gets them."""
    low = build_view(ranker).times[0]
    assert [row.remark for row in low.rows][1:3] == ["", "adds up to 78 % of what the client saw"]
    ranker["arms"][2]["levels"][0]["time_split"]["remark"] = ""
    assert build_view(ranker).times[0].rows[2].remark == "does not add up"


@pytest.mark.parametrize(
    ("wire_ms", "says"),
    [(-0.1, "wire below 0 by 5.6"), (-0.5, "wire below 0 by 28"), (-0.004, ""), (0.1, "")],
)
def test_a_negative_part_is_explained(ranker: Result, wire_ms: float, says: str) -> None:
    """A part that is shown below 0 has words for it; one that rounds to 0 needs none."""
    ranker["arms"][0]["levels"][0]["time_split"]["wire_ms"] = wire_ms
    row = build_view(ranker).times[0].rows[0]
    assert row.remark.startswith(says) and bool(row.remark) is bool(says)
    assert ("read it as 0" in row.remark) is (wire_ms == -0.1)
    assert "-0.00" not in row.shown


def test_an_arm_without_a_split_is_told(ranker: Result) -> None:
    """A level whose split was not recorded has dashes and a remark, not zeros."""
    ranker["arms"][0]["levels"][0]["time_split"] = None
    row = build_view(ranker).times[0].rows[0]
    assert (row.total, row.remark) == ("—", "not recorded")


def test_no_split_at_all_is_left_out(old: Result) -> None:
    """A result without any split has no such part."""
    assert build_view(old).times == ()


def test_a_soak_has_its_series_and_findings(ranker: Result) -> None:
    """Each series goes by minutes, in MiB where it is memory, with what was found in it."""
    soak = build_view(ranker).soak
    assert soak is not None
    rss = soak.series[2]
    assert (rss.points[0], len(rss.points)) == ((0.25, 410.0), 20)
    assert rss.caption == "RSS grew by 3.1 MiB a minute, 31 MiB over the soak"
    assert soak.series[0].caption.startswith("no trend found")
    assert len(soak.series[1].points) == 19  # the level that was never answered is a gap


def test_a_soaks_errors_are_told(ranker: Result) -> None:
    """The summary counts the errors of the soak, or says that there were none."""
    soak = build_view(ranker).soak
    assert soak is not None and soak.summary.endswith("for 10 minutes, no errors.")
    ranker["soak"]["errors"] = 1
    soak = build_view(ranker).soak
    assert soak is not None and soak.summary.endswith("for 10 minutes, 1 error.")


def test_an_excluded_level_is_a_reservation(ranker: Result) -> None:
    """How many levels do not count, and of one of them why, is said up front."""
    said = " ".join(build_view(ranker).reservations)
    assert "Triton, dynamic batching: 1 of 13 levels is not counted, the generator was" in said


def test_an_unsteady_level_is_a_reservation(ranker: Result) -> None:
    """A level that never settled is named with its reason."""
    said = build_view(ranker).reservations[0]
    assert said.startswith("Single ONNX Runtime session: 1 of 13 levels is not steady: p99 rose")


def test_too_few_requests_are_a_reservation(ranker: Result) -> None:
    """How many levels have too few requests for a p99 of their own is said once for all arms."""
    (said,) = (text for text in build_view(ranker).reservations if "short of" in text)
    assert said.startswith("1 of 52 levels is short of the requests that a p99 of its own needs;")


def test_an_open_interval_is_a_reservation(ranker: Result) -> None:
    """Where nothing that was tried failed, the capacity may be higher."""
    said = build_view(ranker).reservations
    assert any(text.endswith("nothing that was tried failed.") for text in said)


def test_waiting_for_a_connection_is_a_reservation(file_type: Result) -> None:
    """Of the levels that held, the one in which most waited for a connection is named."""
    levels = file_type["arms"][1]["levels"]
    held = [v for v in levels if v["mode"] == "open" and v["holds_slo"]]
    held[0] |= {"requests": 400, "no_connection": 21}
    held[1] |= {"requests": 400, "no_connection": 40, "offered": 104.0}
    assert build_view(file_type).reservations == (
        "Triton, no batching: 40 of 400 requests at 104 req/s waited for one of the generator's "
        "connections, and more than 1 in 20 in 1 more that held; the server saw no more at a time "
        "than there are connections.",
    )


@pytest.mark.parametrize(
    "change", [{"no_connection": 20}, {"holds_slo": False}, {"generator_bound": True}]
)
def test_waiting_that_decided_nothing_is_no_reservation(file_type: Result, change: Result) -> None:
    """One in 20 is no matter, nor is a wait in a level that did not hold or does not count."""
    levels = file_type["arms"][1]["levels"]
    held = next(v for v in levels if v["mode"] == "open" and v["holds_slo"])
    held |= {"requests": 400, "no_connection": 100} | change
    assert not any("connections" in text for text in build_view(file_type).reservations)


def test_growth_beyond_the_budget_is_no_reservation(ranker: Result) -> None:
    """A level that was too much for the arm is bound to be unsteady, and that is no news."""
    levels = ranker["arms"][0]["levels"]
    (found,) = (level for level in levels if level["steady"] is False)
    found["p99_ms"] = 2 * ranker["slo_p99_ms"]
    assert not any("not steady" in text for text in build_view(ranker).reservations)


def test_shared_cpus_payloads_and_resumes_are_reservations(none: Result) -> None:
    """What the whole run suffers from follows what single arms do."""
    assert build_view(none).reservations[-4:] == (
        "Payloads: every payload is identical",
        "Generator and server shared CPUs 0\N{EN DASH}1, so the generator's own work lowers every "
        "capacity.",
        "The generator had no priority over the servers, so it may have sent late where it shared "
        "a CPU with them.",
        "The run was interrupted and taken up again twice.",
    )


def test_a_clean_result_has_no_reservations(file_type: Result) -> None:
    """Where there is nothing to hold against a result, nothing is said."""
    assert build_view(file_type).reservations == ()


def test_shared_cpus_are_admitted_in_the_method(none: Result, ranker: Result) -> None:
    """The method says that generator and server share CPUs exactly where they do."""
    assert "share CPUs" in dict(build_view(none).method.paragraphs)["Machine"]
    assert "share CPUs" not in dict(build_view(ranker).method.paragraphs)["Machine"]


def test_the_rule_is_stated_with_its_number(file_type: Result) -> None:
    """How the verdict was decided names the gain that batching had to make."""
    assert "at least 1.2 times" in dict(build_view(file_type).method.paragraphs)["Verdict"]


def test_the_rule_follows_the_rate_where_one_was_given(none: Result) -> None:
    """With a needed rate the headline and the rule are about holding that rate."""
    view = build_view(none)
    assert "at 400 requests/s within the budget" in view.headline
    assert "holds exactly this rate" in dict(view.method.paragraphs)["Verdict"]


def _load(result: Result) -> str:
    return dict(build_view(result).method.paragraphs)["Load"]


def test_what_the_levels_took_is_what_was_spent(ranker: Result, old: Result) -> None:
    """The time of the levels is the measured one, beside its budget; older results have neither."""
    assert _load(ranker).endswith(
        "The comparison took 204 s; its levels took 187 s, of a budget of 240 s."
    )
    assert _load(old).endswith("The comparison took 204 s.")


def test_a_resumed_run_tells_its_sessions_apart(ranker: Result) -> None:
    """After an interruption the clock is of the last session, and the levels are of all."""
    ranker["method"] |= {"resumed": 1, "wall_s": 20.0}
    assert _load(ranker).endswith(
        "The levels took 187 s in all, of a budget of 240 s. The session that ended the comparison "
        "took 20 s."
    )


def test_a_wait_for_a_connection_is_not_the_clients(ranker: Result) -> None:
    """It is a part of its own in the split, and the method says what it is."""
    (row,) = (r for r in build_view(ranker).times[0].rows if r.arm == "ort_baseline")
    assert row.ms[PARTS.index("connection")] == pytest.approx(0.01 * float(row.total), rel=0.05)
    split = dict(build_view(ranker).method.paragraphs)["Time split"]
    assert "Client is how late the generator itself was" in split


def test_the_requests_are_described(ranker: Result) -> None:
    """Source, number, rows, lengths and bytes of the payloads are in the method."""
    assert dict(build_view(ranker).method.paragraphs)["Requests"].startswith(
        "Requests went over HTTP: 256 payloads from payloads.npz; 256 of them distinct; 204 of 1 "
        "row, 52 of 8 rows; lengths 16 to 128, median 64; bytes 2,048."
    )


def test_all_say_that_nothing_was_decided(file_type: Result) -> None:
    """The headline, the line below it and the arm's card say it, where an interval is too wide."""
    for ratio in file_type["ratios"]:
        ratio |= {"ratio": 0.9, "low": 0.07, "high": 1.35, "differs": False}
    file_type["verdict"] |= {"no_difference": False, "undecided": ["triton_batched"]}
    view = build_view(file_type)
    assert view.headline == (
        "Keep the single ONNX Runtime session for file_type for now: not decided"
    )
    assert view.against.endswith(": not decided, the interval is too wide")
    assert view.arms[1].versus_words.endswith("the single session, not decided")


def _beside(result: Result, *others: float) -> Result:
    """The result, where others used so much beside each of its arms in turn."""
    for arm, share in zip(result["arms"], others, strict=True):
        for level in arm["levels"]:
            level |= {"others_cpu": share, "stolen_cpu": 0.01}
    return result


def test_what_else_ran_is_in_the_method(file_type: Result) -> None:
    """An idle machine's shares are told, for each arm, and held against nothing."""
    view = build_view(_beside(file_type, 0.01, 0.02, 0.03))
    told = dict(view.method.paragraphs)["Other processes"].replace("\N{NO-BREAK SPACE}", " ")
    assert told.startswith(
        "Other processes used 2 % of the CPUs and 1 % was stolen (4 % in the worst level); both "
        "together for each arm: ONNX Runtime 2 %, Triton plain 3 %, Triton batched 4 %."
    )
    assert not view.reservations


def test_a_busy_machine_is_held_against_the_numbers(file_type: Result) -> None:
    """It is the first of the reservations."""
    first = build_view(_beside(file_type, 0.01, 0.02, 0.3)).reservations[0]
    assert first == (
        "The machine was busy: other processes used 11 % of the CPUs and 1 % was stolen (31 % in "
        "the worst level)."
    )


def test_a_result_that_does_not_say_what_else_ran(file_type: Result) -> None:
    """Nothing is said of other processes where the result is of an older version."""
    assert "Other processes" not in dict(build_view(file_type).method.paragraphs)
