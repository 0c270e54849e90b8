"""The verdict: the simplest arm that does the job, in a sentence with the numbers."""

import pytest

from tritonkit.bench.verdict import capacity, decide, holds_budget
from tritonkit.stats.latency import LevelStats

NAMES = ("ort_baseline", "triton_unbatched", "triton_batched")


@pytest.fixture
def decided(arm):
    """The verdict on three arms that sustain so many requests/s."""
    return lambda *rps, slo=50.0: decide(
        [arm(name, r) for name, r in zip(NAMES, rps, strict=True)], slo, None
    )


@pytest.mark.parametrize(
    ("rps", "choice"),
    [
        ((100, 100, 100), "ort_baseline"),
        ((100, 119, 119), "ort_baseline"),
        ((300, 100, 100), "ort_baseline"),
        ((100, 120, 100), "triton_unbatched"),
        ((100, 200, 239), "triton_unbatched"),
        ((100, 100, 120), "triton_batched"),
        ((100, 200, 240), "triton_batched"),
        ((200, 100, 240), "triton_batched"),
        ((0, 0, 1), "triton_batched"),
        ((0, 1, 0), "triton_unbatched"),
        ((1, 0, 0), "ort_baseline"),
        ((0, 0, 0), "none"),
    ],
)
def test_choice(decided, rps, choice):
    """An arm is chosen if nothing more involved sustains 1.2× of it or more."""
    assert decided(*rps).choice == choice


def test_batched_sentence(decided):
    """Where batching pays, the sentence says how much it sustains, and against what."""
    assert decided(100, 200, 400).because == (
        "Triton with dynamic batching sustains 400 requests/s within p99 50 ms, "
        "4.0× one ONNX Runtime session (100) and 2.0× Triton without batching (200)."
    )


def test_baseline_sentence(decided):
    """Where it does not pay, the sentence says what each of the others reached."""
    assert decided(200, 100, 220).because == (
        "Batching does not pay: one ONNX Runtime session sustains 200 requests/s within p99 50 ms; "
        "Triton without batching reaches 100 (0.50×) and Triton with dynamic batching reaches 220 "
        "(1.10×), less than the 1.2× that it must gain."
    )


def test_unbatched_sentence(decided):
    """Where Triton pays but batching does not, the sentence says both."""
    assert decided(100, 300, 310).because == (
        "Batching does not pay: Triton without batching sustains 300 requests/s within p99 50 ms, "
        "3.0× one ONNX Runtime session (100); Triton with dynamic batching reaches 310 (1.03×), "
        "less than the 1.2× that it must gain."
    )


def test_arm_that_never_held(decided):
    """An arm that never kept the budget is said to, and nothing is divided by its 0."""
    assert "where one ONNX Runtime session never kept the budget" in decided(0, 200, 400).because


def test_none_sentence(decided, arm, level):
    """If no arm keeps the budget, the lowest p99 that was seen is named."""
    assert decided(0, 0, 0).because == (
        "No arm keeps p99 within 50 ms at any load tried; the lowest p99 was 90.0 ms."
    )


def test_no_answers(arm, level):
    """If no request succeeded the sentence says so."""
    dead = [arm(n, levels=[level("closed", 1, rps=0, p99=None, holds=False)]) for n in NAMES]
    verdict = decide(dead, 50, None)
    assert verdict.choice == "none"
    assert verdict.because.endswith("at any load tried; no request succeeded.")
    assert verdict.settings is None


def test_settings(decided):
    """The settings are those that the chosen arm really ran with."""
    assert decided(100, 100, 200).settings == {
        "threads": 2,
        "instances": 3,
        "max_batch_size": 32,
        "max_queue_delay_us": 500,
    }
    assert decided(100, 100, 100).settings == {"threads": 2, "instances": 3}


@pytest.fixture
def for_rate(arm, level):
    """The verdict for 80 requests/s on three arms that have these p99 there; None: not held."""

    def make(*p99s):
        arms = []
        for name, p99 in zip(NAMES, p99s, strict=True):
            at_rate = level("open", 80, rps=79, p99=p99 or 700, holds=p99 is not None)
            levels = [level("closed", 4, rps=60), level("open", 40, rps=40), at_rate]
            arms.append(arm(name, levels=levels))
        return decide(arms, 50, 80)

    return make


@pytest.mark.parametrize(
    ("p99s", "choice"),
    [
        ((10, 5, 1), "ort_baseline"),
        ((None, 40, 1), "triton_unbatched"),
        ((None, None, 30), "triton_batched"),
        ((10, None, None), "ort_baseline"),
        ((None, None, None), "none"),
    ],
)
def test_choice_for_rate(for_rate, p99s, choice):
    """With a rate the simplest arm that holds it is chosen, however good the others are."""
    assert for_rate(*p99s).choice == choice


def test_sentence_for_rate(for_rate):
    """The sentence has the rate, the p99 and the budget, and says what failed."""
    assert for_rate(12.34, 5, 1).because == (
        "One ONNX Runtime session holds 80 requests/s at p99 12.3 ms, within the budget of 50 ms, "
        "and it is the simplest to run."
    )
    assert for_rate(None, None, 30).because == (
        "Triton with dynamic batching holds 80 requests/s at p99 30.0 ms, within the budget of "
        "50 ms; one ONNX Runtime session, Triton without batching did not."
    )


def test_none_holds_the_rate(for_rate):
    """If no arm holds the rate, the most that was sustained is named with its arm."""
    verdict = for_rate(None, None, None)
    assert verdict.because == (
        "No arm holds 80 requests/s within p99 50 ms; the most that was sustained is "
        "60 requests/s, by one ONNX Runtime session."
    )
    assert verdict.settings is None


def test_closed_level_is_no_rate(arm, level):
    """A closed loop of as many users as the rate has requests says nothing about the rate."""
    arms = [arm(name, levels=[level("closed", 80, rps=500)]) for name in NAMES]
    assert decide(arms, 50, 80).choice == "none"


def test_capacity(level):
    """The capacity is the highest rate of a level that holds the budget; else 0."""
    levels = [
        level("closed", 1, rps=50),
        level("open", 90, rps=88),
        level("closed", 16, rps=300, holds=False),
    ]
    assert capacity(levels) == 88
    assert capacity(levels[2:]) == 0
    assert capacity([]) == 0


@pytest.mark.parametrize(
    ("p99", "errors", "holds"),
    [(50.0, 0, True), (50.1, 0, False), (1.0, 1, False), (None, 0, False)],
)
def test_budget(p99, errors, holds):
    """The budget holds if p99 is at most the budget and nothing failed."""
    stats = LevelStats(9, errors, {}, 1.0, 9.0, p99, p99, p99, p99, None)
    assert holds_budget(stats, 50) is holds
