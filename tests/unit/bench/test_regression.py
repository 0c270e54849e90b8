"""The gate: worse than before, by the interval and not by a point."""

import json

import pytest

from tritonkit.bench.regression import judge, parse_rule, read_result, require_same_question
from tritonkit.errors import InputError


def result(capacity=100.0, within=0.02, ratio=2.0, p99s=(), **more):
    """A result of two arms; the second sustains so much, known within so much."""
    interval = [capacity * (1 - within), capacity * (1 + within)]
    levels = [
        {"purpose": "rate", "offered": 50, "generator_bound": False, "p99_ms": p99} for p99 in p99s
    ]
    return {
        "schema": 2,
        "model": "m",
        "slo_p99_ms": 50.0,
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


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", json.dumps(result(schema=1))])
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
