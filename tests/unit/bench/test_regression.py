"""The gate: worse than before, by the interval and not by a point."""

import json

import pytest

from tritonkit.bench.regression import (
    judge,
    parse_rule,
    read_result,
    require_comparable,
    require_same_question,
)
from tritonkit.errors import InputError


def result(capacity=100.0, within=0.02, ratio=2.0, p99s=(), **more):
    """A result of two arms; the second sustains so much, known within so much."""
    interval = [capacity * (1 - within), capacity * (1 + within)]
    levels = [
        {"purpose": "rate", "offered": 50, "generator_bound": False, "errors": 0, "p99_ms": p99}
        for p99 in p99s
    ]
    return {
        "schema": 2,
        "model": "m",
        "slo_p99_ms": 50.0,
        "rate_rps": 50.0 if p99s else None,
        "arms": [
            {"name": "ort_baseline", "capacity_rps": 50, "capacity_interval_rps": [49, 51]}
            | {"levels": []},
            {"name": "triton_batched", "capacity_rps": capacity, "capacity_interval_rps": interval}
            | {"levels": levels},
        ],
        "ratios": [
            {"arm": "triton_batched", "than": "ort_baseline", "ratio": ratio}
            | {"low": ratio * (1 - within), "high": ratio * (1 + within)}
        ],
        **more,
    }


def sustaining(rps, low, high):
    """A result of which the second arm's capacity and interval are these."""
    made = result()
    made["arms"][1] |= {"capacity_rps": rps, "capacity_interval_rps": [low, high]}
    return made


def without(made, arm):
    """A result without one of its arms."""
    return made | {"arms": [x for x in made["arms"] if x["name"] != arm], "ratios": []}


def failing(made, levels):
    """A result whose second arm had errors in so many of its levels at the rate."""
    for level in made["arms"][1]["levels"][:levels]:
        level["errors"] = 40
    return made


def judged(rule, now, before):
    """The rule's judgement of the second arm."""
    (found,) = judge([parse_rule(f"triton_batched.{rule}")], now, before)
    return found


@pytest.mark.parametrize(
    ("now", "failed", "is_open"),
    [
        (100, False, False),
        (150, False, False),
        (95, False, False),
        (91, False, True),
        (88, False, True),
        (84, True, False),
        (10, True, False),
    ],
)
def test_capacity(now, failed, is_open):
    """It fails once the whole interval is beyond the limit, and is open while a part is."""
    found = judged("capacity -10%", result(now), result(100))
    assert (found.failed, found.open) == (failed, is_open)


def test_wide_intervals_fail_nothing():
    """Where nothing is sure nothing fails, and the line says that it may."""
    found = judged("capacity -10%", result(60, within=0.5), result(100, within=0.5))
    assert not found.failed and "may be beyond -10%" in found.line


@pytest.mark.parametrize(("now", "failed"), [(2.0, False), (1.2, True), (3.0, False)])
def test_ratio(now, failed):
    """The ratio to the first arm, which a slower machine leaves as it is."""
    assert judged("ratio -20%", result(50, ratio=now), result(100)).failed is failed


@pytest.mark.parametrize(
    ("now", "failed"), [((10, 10.1, 9.9), False), ((15, 15.2, 14.9), True), ((5, 5.1, 4.9), False)]
)
def test_p99(now, failed):
    """p99 at the rate that was asked for; lower is better."""
    before = result(p99s=(10, 10.1, 9.9))
    assert judged("p99 +20%", result(p99s=now), before).failed is failed


def test_p99_needs_repeats():
    """One level has no interval, so it is not compared."""
    found = judged("p99 +20%", result(p99s=(30,)), result(p99s=(10, 11)))
    assert found.ratio is None and "cannot be compared" in found.line


def test_generator_bound_levels_do_not_count():
    """A p99 that the generator made is nobody's."""
    now = result(p99s=(30, 30, 30))
    for level in now["arms"][1]["levels"]:
        level["generator_bound"] = True
    assert judged("p99 +20%", now, result(p99s=(10, 10.1, 9.9))).ratio is None


def test_failed_requests_are_no_better_p99():
    """A server that rejects answers the rest sooner; if most levels had errors, p99 has failed."""
    before, quick = result(p99s=(10, 10.1, 9.9)), (5, 5.1, 4.9)
    found = judged("p99 +20%", failing(result(p99s=quick), 2), before)
    assert found.failed and "failed requests in this run, unlike before" in found.line
    assert not judged("p99 +20%", failing(result(p99s=quick), 1), before).failed


def test_levels_without_an_answer_are_no_better_p99():
    """A level in which nothing was answered has no p99, and counts as failed."""
    now = result(p99s=(None, None, 10))
    assert judged("p99 +20%", now, result(p99s=(10, 10.1, 9.9))).failed


def test_failed_requests_in_both_runs():
    """What failed before as well is unchanged."""
    both = failing(result(p99s=(10, 10.1, 9.9)), 3)
    assert not judged("p99 +20%", both, both).failed


@pytest.mark.parametrize(
    ("now", "before", "words"),
    [
        (50.0, None, "the baseline has no p99 of a rate; measure it with --rate-rps"),
        (None, 50.0, "the baseline's rate is 50 requests/s, this run's none; give --rate-rps 50"),
        (50.0, 200.0, "rate is 200 requests/s, this run's 50; give --rate-rps 200"),
    ],
)
def test_p99_of_another_rate(now, before, words):
    """p99 at one rate says nothing of p99 at another."""
    p99s = (10, 10.1, 9.9)
    with pytest.raises(InputError, match=words):
        judged("p99 +20%", result(p99s=p99s, rate_rps=now), result(p99s=p99s, rate_rps=before))


def test_ratio_to_another_arm():
    """A ratio to one arm is not compared with a ratio to another."""
    now = without(result(), "ort_baseline")
    with pytest.raises(InputError, match="ort_baseline in the baseline and triton_batched in this"):
        judge([parse_rule("ratio -5%")], now, result())


def test_ratio_of_the_arm_that_ratios_are_to():
    """The first arm has no ratio to itself, so a rule on it would judge nothing."""
    with pytest.raises(InputError, match="ratios are to ort_baseline itself; name another arm"):
        judge([parse_rule("ort_baseline.ratio -5%")], result(), result())


def test_rule_on_an_arm_that_is_not_there():
    """A rule on an arm that either run lacks is refused, not passed."""
    rule, both = parse_rule("triton_batched.capacity -10%"), result()
    lacking = without(both, "triton_batched")
    with pytest.raises(InputError, match="triton_batched is not in this run; name it in --arms"):
        judge([rule], lacking, both)
    with pytest.raises(InputError, match="triton_batched is not in the baseline; measure"):
        judge([rule], both, lacking)


def test_arm_of_one_run_only():
    """A rule on all arms says of each that it could not compare it, and judges the others."""
    lacking = without(result(), "triton_batched")
    for now, before, run in ((lacking, result(), "this run"), (result(), lacking, "the baseline")):
        same, other = judge([parse_rule("capacity -10%")], now, before)
        assert not same.because and not other.failed
        assert other.line.endswith(f"because {run} did not measure it")


@pytest.mark.parametrize(("rule", "arm"), [("capacity -10%", ""), ("p99 +20%", "triton_batched.")])
def test_rule_that_judges_nothing(rule, arm):
    """If no arm has a figure in both runs, the gate must not pass."""
    made = result(p99s=(10,))
    for one in made["arms"]:
        one |= {"capacity_rps": None, "capacity_interval_rps": None}
    with pytest.raises(InputError, match=r"judges nothing .*neither run has a figure") as refused:
        judge([parse_rule(arm + rule)], made, made)
    assert "\n" not in str(refused.value)


def test_rule_on_two_open_ends_judges_nothing():
    """1000 or more before and 2000 or more now: anything may be true."""
    now, before = sustaining(2000, 1900, None), sustaining(1000, 950, None)
    with pytest.raises(InputError, match="nothing that was tried failed"):
        judged("capacity -10%", now, before)


def test_comparable_before_anything_is_measured():
    """What cannot be compared is known from the baseline and the options alone."""
    rules, arms = [parse_rule("p99 +20%")], ["ort_baseline", "triton_batched"]
    require_comparable(rules, result(p99s=(10, 11)), arms, 50.0)
    with pytest.raises(InputError, match="give --rate-rps 50"):
        require_comparable(rules, result(p99s=(10, 11)), arms, None)


def test_all_arms():
    """Without an arm a rule is of every arm; of a ratio all but the first, which it is to."""
    assert [x.arm for x in judge([parse_rule("capacity -5%")], result(), result())] == [
        "ort_baseline",
        "triton_batched",
    ]
    assert [x.arm for x in judge([parse_rule("ratio -5%")], result(), result())] == [
        "triton_batched"
    ]


def test_capacity_that_is_gone():
    """What sustained something before and nothing now has failed."""
    now = result()
    now["arms"][1] |= {"capacity_rps": 0.0, "capacity_interval_rps": [0.0, 0.0]}
    assert judged("capacity -10%", now, result()).failed


def test_capacity_of_which_the_upper_end_was_not_known():
    """Where nothing failed before, what is surely lower now has failed: 1000 or more, now 100."""
    found = judged("capacity -10%", sustaining(100, 90, 110), sustaining(1000, 950, None))
    assert found.failed and found.line.endswith("capacity at most -88.4%: beyond -10%")


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ((1000, 950, None), "at least +763.6%: within -10%"),
        ((105, 100, None), "at least -9.1%: within -10%"),
        ((95, 90, None), "at least -18.2%: may be beyond -10%"),
    ],
)
def test_capacity_without_an_upper_end_now(now, said):
    """Where nothing fails now, it is at least so much, and that is no failure."""
    found = judged("capacity -10%", sustaining(*now), sustaining(100, 90, 110))
    assert said in found.line and not found.failed


def test_open_capacity_may_have_risen_or_not():
    """Where nothing failed before, a capacity that is no lower for sure has not failed."""
    found = judged("capacity -10%", sustaining(940, 900, 980), sustaining(1000, 950, None))
    assert not found.failed and found.open


def test_no_capacity_in_either_run():
    """An arm that sustained nothing before and nothing now is unchanged."""
    found = judged("capacity -10%", sustaining(0.0, 0.0, 9.0), sustaining(0.0, 0.0, 9.0))
    assert not found.failed and "no rate kept the budget in both runs" in found.line


def test_capacity_that_is_new():
    """An arm that sustains something for the first time has not failed."""
    found = judged("capacity -10%", sustaining(50, 45, 55), sustaining(0.0, 0.0, 9.0))
    assert not found.failed


def test_ratio_that_is_known_at_its_ends_only():
    """A ratio without a number but with an end is judged by that end."""
    now, before = result(), result(ratio=4.0)
    now["ratios"][0] |= {"ratio": None, "low": 4.5, "high": None}
    assert not judged("ratio -10%", now, before).failed
    now["ratios"][0] |= {"ratio": None, "low": 0.0, "high": 1.5}
    assert judged("ratio -10%", now, before).failed


def test_capacity_that_was_not_measured():
    """What was measured before and not now does not pass in silence."""
    now = result()
    now["arms"][1] |= {"capacity_rps": None, "capacity_interval_rps": None}
    found = judged("capacity -10%", now, result())
    assert found.failed and "cannot be compared" in found.line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "is no rule"),
        ("capacity 10", "is no rule"),
        ("capacity +10%", "must be between -100% and 0"),
        ("capacity -100%", "must be between -100% and 0"),
        ("p99 -10%", "must be above 0"),
        ("speed -10%", "no metric 'speed'"),
        ("gpu.capacity -10%", "no arm 'gpu'"),
    ],
)
def test_no_rule(text, words):
    """What is no rule is refused in one line that says what one is."""
    with pytest.raises(InputError, match=words):
        parse_rule(text)


def test_rule():
    """An arm, a metric, a change; spaces do not matter."""
    rule = parse_rule(" triton_batched.capacity  -7.5 % ")
    assert (rule.arm, rule.metric, rule.change) == ("triton_batched", "capacity", -0.075)


def test_read(tmp_path):
    """An earlier result is read back."""
    (tmp_path / "result.json").write_text(json.dumps(result()))
    assert read_result(tmp_path / "result.json") == result()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "{", json.dumps(result(schema=1)), json.dumps(result(arms=[]))],
)
def test_no_result(tmp_path, text):
    """Any other file is refused in one line."""
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(InputError) as refused:
        read_result(tmp_path / "result.json")
    assert "\n" not in str(refused.value)


def test_missing_file(tmp_path):
    """A file that is not there is named."""
    with pytest.raises(InputError, match=r"old.json cannot be read: No such file"):
        read_result(tmp_path / "old.json")


def test_another_question(tmp_path):
    """Another model or budget is no comparison."""
    path = tmp_path / "old.json"
    require_same_question(result(), path, "m", 50.0)
    with pytest.raises(InputError, match="model m, this run n"):
        require_same_question(result(), path, "n", 50.0)
    with pytest.raises(InputError, match=r"slo_p99_ms 50.0, this run 20"):
        require_same_question(result(), path, "m", 20.0)


def beside(others, made=None):
    """A result of a machine of which other processes used so much."""
    made = made or result()
    made["arms"][1]["levels"] = [{"others_cpu": others, "stolen_cpu": None} for _ in range(3)]
    return made


def test_a_busy_baseline_is_refused_at_once():
    """Before anything is measured for minutes, the gate says that the baseline decides nothing."""
    with pytest.raises(InputError) as refused:
        arms = ["ort_baseline", "triton_batched"]
        require_comparable([parse_rule("capacity -10%")], beside(0.3), arms, None)
    assert str(refused.value) == (
        "--fail-if cannot be judged, because the machine was busy in the baseline: other processes "
        "used 30 % of the CPUs (30 % in the worst level); measure it again on an idle machine"
    )


@pytest.mark.parametrize("capacity", [10, 100])
def test_a_busy_run_neither_passes_nor_fails(capacity):
    """Whatever came out of this run, something else may have made it."""
    with pytest.raises(InputError, match=r"busy in this run: .* run it again on an idle machine"):
        judged("capacity -10%", beside(0.3, result(capacity)), result(100))


def test_idle_runs_are_judged():
    """A machine that does a little beside is no reason to hesitate."""
    assert judged("capacity -10%", beside(0.02, result(10)), beside(0.03)).failed


def test_results_that_know_nothing_of_others():
    """A baseline of an older version, whose levels do not say, is judged as ever."""
    before = result(100)
    before["arms"][1]["levels"] = [{"purpose": "search"}]
    assert judged("capacity -10%", beside(0.02, result(10)), before).failed


def test_a_busy_machine_without_rules():
    """Where nothing is asked, nothing is refused."""
    assert judge([], beside(0.5), result()) == ()


@pytest.mark.parametrize("levels", [None, "x", [1], [None]])
def test_levels_that_are_none(tmp_path, levels):
    """A baseline whose levels are something else is no whole result."""
    made = result()
    made["arms"][0]["levels"] = levels
    (tmp_path / "result.json").write_text(json.dumps(made))
    with pytest.raises(InputError, match="no whole result"):
        read_result(tmp_path / "result.json")
