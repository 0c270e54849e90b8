"""The verdict: the simplest arm that does the job, in a sentence with the numbers."""

from dataclasses import replace
from itertools import combinations

import pytest
from tests.unit.stats.test_ratio import found as equal_arms

from tritonkit.bench.result import ArmRatio, Demand
from tritonkit.bench.verdict import decide
from tritonkit.stats.capacity import Capacity
from tritonkit.stats.ratio import ratio_of, says_no_difference

NAMES = ("ort_baseline", "triton_unbatched", "triton_batched")


@pytest.fixture
def decided(arm, ratios):
    """The verdict on three arms that sustain so many requests/s, known within so much."""

    def make(*rps, within=0.02, slo=50.0):
        arms = [arm(name, r) for name, r in zip(NAMES, rps, strict=True)]
        return decide(arms, ratios(arms, within), slo, None)

    return make


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
        ((100, 110, 130), "triton_batched"),
        ((0, 0, 1), "triton_batched"),
        ((0, 1, 0), "triton_unbatched"),
        ((1, 0, 0), "ort_baseline"),
        ((0, 0, 0), "none"),
        ((None, 100, 100), "triton_unbatched"),
        ((100, None, 300), "triton_batched"),
        ((None, None, None), "none"),
    ],
)
def test_choice(decided, rps, choice):
    """Each arm in turn must clearly sustain 1.2× of what would be kept otherwise."""
    assert decided(*rps).choice == choice


def test_interval_that_holds_one(decided):
    """However good the ratio looks, an interval that holds 1 keeps the simplest arm."""
    assert decided(100, 100, 180, within=0.5).choice == "ort_baseline"
    assert decided(100, 100, 180, within=0.4).choice == "triton_batched"


def test_no_difference(decided):
    """If no pair differs the verdict says that there is no difference, and keeps the simplest."""
    verdict = decided(100, 104, 110, within=0.2)
    assert verdict.no_difference and verdict.choice == "ort_baseline"
    assert verdict.because.startswith("No difference was found, so the simplest is kept: one ONNX")
    assert not decided(100, 104, 130, within=0.2).no_difference


def test_batched_sentence(decided):
    """Where batching pays, the sentence says how much it sustains, against what, how surely."""
    assert decided(100, 200, 400).because == (
        "Triton with dynamic batching sustains 400 (360–440) requests/s within p99 50 ms, "
        "4.00× (3.92–4.08) one ONNX Runtime session (100), "
        "2.00× (1.96–2.04) Triton without batching (200)."
    )


def test_baseline_sentence(decided):
    """Where it does not pay, the sentence says what each of the others reached."""
    assert decided(200, 100, 220).because == (
        "Batching does not pay: one ONNX Runtime session sustains 200 (180–220) requests/s within "
        "p99 50 ms; Triton without batching reaches 100, 0.50× (0.49–0.51) and Triton with dynamic "
        "batching reaches 220, 1.10× (1.08–1.12): not the 1.2×, with an interval above 1, that it "
        "must gain."
    )


def test_unbatched_sentence(decided):
    """Where Triton pays but batching does not, the sentence says both."""
    because = decided(100, 300, 310).because
    assert because.startswith("Batching does not pay: Triton without batching sustains 300 ")
    assert "3.00× (2.94–3.06) one ONNX Runtime session (100)" in because
    assert "Triton with dynamic batching reaches 310, 1.03× (1.01–1.05)" in because


def test_batcher_of_ones_own(arm, ratios):
    """A session with a batcher does batch: where it wins, nothing says that it does not pay."""
    names = ("ort_baseline", "ort_batcher", "triton_batched")
    arms = [arm(name, rps) for name, rps in zip(names, (100, 400, 420), strict=True)]
    verdict = decide(arms, ratios(arms, 0.02), 50, None)
    assert verdict.choice == "ort_batcher"
    assert verdict.because.startswith("One ONNX Runtime session with an asyncio batcher")
    assert verdict.settings["max_queue_delay_us"] == 500


def test_arm_that_never_held(decided):
    """An arm that never kept the budget is said to, and nothing is divided by its 0."""
    assert "where one ONNX Runtime session never kept the budget" in decided(0, 200, 400).because


def test_arm_that_was_not_judged(decided):
    """An arm at which the generator was always the limit is left out, and that is said."""
    because = decided(100, None, 300).because
    assert because.endswith("Triton without batching was not judged: the generator was the limit.")


def test_batching_that_was_not_judged(decided):
    """Where the arm that batches was not judged, nothing says that batching does not pay."""
    verdict = decided(100, 100, None)
    assert verdict.choice == "ort_baseline" and not verdict.no_difference
    assert verdict.because.startswith("Whether batching pays was not decided: one ONNX")


def test_nothing_batched(arm, ratios):
    """Where no arm batches, nothing is said of batching."""
    arms = [arm(name, rps) for name, rps in zip(NAMES[:2], (200, 100), strict=True)]
    verdict = decide(arms, ratios(arms, 0.02), 50, None)
    assert verdict.because.startswith("One ONNX Runtime session sustains 200 (180–220)")


@pytest.fixture
def open_ended(arm):
    """The verdict on three arms of these capacities: (rps, low, high), high None if none failed."""

    def make(*capacities):
        arms = []
        for name, (rps, low, high) in zip(NAMES, capacities, strict=True):
            arms.append(replace(arm(name, rps), capacity_interval_rps=(low, high)))
        ratios = []
        for than, one in combinations(arms, 2):
            ours, theirs = (Capacity(a.capacity_rps, *a.capacity_interval_rps) for a in (one, than))
            found = ratio_of(ours, theirs)
            ratios.append(
                ArmRatio(one.name, than.name, found.ratio, found.low, found.high, found.differs)
            )
        return decide(arms, ratios, 50, None)

    return make


def test_all_open_ends_are_no_finding(open_ended):
    """Where nothing failed on any arm nothing was decided, which is not "no difference"."""
    verdict = open_ended((3000, 2500, None), (3100, 2600, None), (4500, 3200, None))
    assert verdict.choice == "ort_baseline" and not verdict.no_difference
    assert verdict.because == (
        "Whether batching pays was not decided: one ONNX Runtime session sustains 3,000 (at least "
        "2,500) requests/s within p99 50 ms; Triton without batching (at least 2,600) and Triton "
        "with dynamic batching (at least 3,200) were not decided: nothing that was tried on one "
        "ONNX Runtime session, Triton without batching and Triton with dynamic batching failed, so "
        "the load generator, or the time, was the limit."
    )


def test_open_end_of_batching_is_not_decided(open_ended):
    """An arm that may sustain more than it was asked for has not lost."""
    verdict = open_ended((3000, 2500, 3600), (2000, 1900, 2100), (4500, 3200, None))
    assert verdict.choice == "ort_baseline"
    assert verdict.because.startswith("Whether batching pays was not decided: one ONNX")
    assert "Triton without batching reaches 2,000, 0.67×" in verdict.because
    assert "reaches 4,500" not in verdict.because


def test_open_end_that_is_high_enough(open_ended):
    """An arm of which it is sure that it gains enough is chosen, however much more it sustains."""
    verdict = open_ended((1000, 950, 1050), (1000, 950, 1050), (4500, 3200, None))
    assert verdict.choice == "triton_batched"
    assert "at least 3.05× one ONNX Runtime session (1,000)" in verdict.because
    assert "not decided" not in verdict.because


def test_open_end_of_the_simplest(open_ended):
    """If the simplest arm may sustain more, one that is slower for sure has lost all the same."""
    verdict = open_ended((3000, 2500, None), (1000, 900, 1100), (2000, 1900, 2100))
    assert verdict.because.startswith("Batching does not pay: one ONNX Runtime session")
    assert "Triton with dynamic batching reaches 2,000, at most 0.84×" in verdict.because


def test_simpler_arm_with_an_open_end(open_ended):
    """A simpler arm that may sustain as much is named with what is not known of it."""
    verdict = open_ended((100, 95, 105), (110, 105, None), (400, 380, 420))
    assert verdict.choice == "triton_batched"
    assert "Triton without batching (at least 105) was not decided" in verdict.because
    assert verdict.because.startswith("Triton with dynamic batching sustains 400 (380–420)")


def test_arm_that_never_held_beside_an_open_end(open_ended):
    """What sustains nothing has lost to an arm of which the most is not known."""
    verdict = open_ended((100, 95, None), (0, 0, 5), (0, 0, 5))
    assert verdict.because.startswith("Batching does not pay")


def test_none_was_judged(decided):
    """If the generator was always the limit there is no verdict, and the remedy is named."""
    assert decided(None, None, None).because == (
        "No verdict: the load generator was the limit at every level; give it CPUs of its own, "
        "or more time with --thorough."
    )


def test_none_sentence(decided):
    """If no arm keeps the budget, the lowest p99 that was seen is named."""
    assert decided(0, 0, 0).because == (
        "No arm keeps p99 within 50 ms at any load tried; the lowest p99 was 90.0 ms."
    )


def test_no_answers(arm, level, ratios):
    """If no request succeeded the sentence says so."""
    levels = [level("closed", 1, rps=0, p99=None, holds=False)]
    dead = [arm(name, levels=levels) for name in NAMES]
    verdict = decide(dead, ratios(dead), 50, None)
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
def for_rate(arm, level, ratios):
    """The verdict for 80 requests/s on three arms that have these p99 there.

    False: not held; None: the generator was the limit.
    """

    def make(*p99s):
        arms = []
        for name, p99 in zip(NAMES, p99s, strict=True):
            found = {"purpose": "rate", "p99": p99 or 700, "holds": bool(p99)}
            at_rate = level("open", 80, generator_bound=p99 is None, **found)
            holds = None if p99 is None else bool(p99)
            demand = Demand(80, holds, None, None, None)
            arms.append(arm(name, 60, levels=[level("closed", 4), at_rate], demand=demand))
        return decide(arms, ratios(arms), 50, 80)

    return make


@pytest.mark.parametrize(
    ("p99s", "choice"),
    [
        ((10, 5, 1), "ort_baseline"),
        ((False, 40, 1), "triton_unbatched"),
        ((False, False, 30), "triton_batched"),
        ((10, False, False), "ort_baseline"),
        ((None, 5, 1), "triton_unbatched"),
        ((False, False, False), "none"),
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
    assert for_rate(False, None, 30).because == (
        "Triton with dynamic batching holds 80 requests/s at p99 30.0 ms, within the budget of "
        "50 ms; one ONNX Runtime session did not; Triton without batching was not judged: the "
        "generator was the limit."
    )


def test_none_holds_the_rate(for_rate):
    """If no arm holds the rate, the most that was sustained is named with its arm."""
    verdict = for_rate(False, False, False)
    assert verdict.because == (
        "No arm holds 80 requests/s within p99 50 ms; the most that was sustained is "
        "60 (54–66) requests/s, by one ONNX Runtime session."
    )
    assert verdict.settings is None


def test_rate_just_below_a_capacity(arm, level, ratios):
    """About half of the levels hold near a capacity, so a rate below one is not held for sure."""
    levels = [level("open", 100, purpose="rate", holds=i < 4) for i in range(7)]
    arms = [
        arm("ort_baseline", 90, levels=levels, demand=Demand(100, False, None, None, None)),
        arm("triton_batched", 110, levels=levels, demand=Demand(100, False, None, None, None)),
    ]
    assert decide(arms, ratios(arms), 50, 100).because == (
        "No arm holds 100 requests/s within p99 50 ms; that takes two of three levels at it, and "
        "Triton with dynamic batching came nearest with 4 of 7: its capacity, 110 (99–121), is "
        "where about half of them hold."
    )


def test_rate_at_which_some_were_not_judged(for_rate):
    """An arm that was not judged at the rate is not said to fail it, nor is its capacity used."""
    because = for_rate(None, False, False).because
    assert "60 (54–66) requests/s, by Triton without batching" in because
    assert because.endswith("one ONNX Runtime session was not judged: the generator was the limit.")


def test_rate_that_the_generator_cannot_send(for_rate):
    """If the generator was the limit at the rate for every arm, there is no verdict."""
    assert for_rate(None, None, None).because.startswith("No verdict: the load generator")


def test_equal_arms_of_a_default_run():
    """Of 20 comparisons of equal arms, 12 levels each, at least 19 say "no difference" aloud."""
    found = [equal_arms(1, 12, scatter=0.1, seed=s) for s in range(20)]
    assert sum(says_no_difference(x.low, x.high) for x in found) >= 19


@pytest.fixture
def of_ratio(arm):
    """The verdict on a session and Triton with batching, of which only the ratio is known: its
    middle and its ends.
    """

    def make(ratio, low, high):
        arms = [arm("ort_baseline", 100), arm("triton_batched", 100 * ratio)]
        differs = not low <= 1 <= high
        pair = ArmRatio("triton_batched", "ort_baseline", ratio, low, high, differs)
        return decide(arms, [pair], 50, None)

    return make


def test_too_wide_for_no_difference(of_ratio):
    """An interval that holds 1 and nearly everything else is no finding, and that is said."""
    verdict = of_ratio(0.9, 0.07, 1.35)
    assert verdict.choice == "ort_baseline" and not verdict.no_difference
    assert verdict.undecided == ("triton_batched",)
    assert verdict.because == (
        "Whether batching pays was not decided: one ONNX Runtime session sustains 100 (90–110) "
        "requests/s within p99 50 ms; Triton with dynamic batching (90) was not decided: the "
        "interval of the ratio is too wide (0.07–1.35); run again with --thorough, or with a "
        "larger --time-budget-s."
    )


def test_wide_but_surely_no_gain(of_ratio):
    """Where even the upper end is no gain worth having, the simplest is kept for good."""
    verdict = of_ratio(0.5, 0.05, 1.15)
    assert not verdict.no_difference and not verdict.undecided
    assert verdict.because.startswith("Batching does not pay: one ONNX Runtime session")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.41, 2.4, True), (0.39, 2.4, False), (0.41, 2.6, False), (1.01, 2.4, False)],
)
def test_how_wide_no_difference_may_be(of_ratio, low, high, said):
    """To be "no difference" it holds 1 and lies within 2.5 times on both sides."""
    assert of_ratio((low * high) ** 0.5, low, high).no_difference is said


def test_two_that_are_too_wide(arm, ratios):
    """Several are told of in one go, each with its interval."""
    arms = [arm(name, 100) for name in NAMES]
    verdict = decide(arms, ratios(arms, 0.9), 50, None)
    assert verdict.undecided == ("triton_unbatched", "triton_batched")
    assert (
        "Triton without batching (100) and Triton with dynamic batching (100) were not decided: "
        "the intervals of the ratios are too wide (0.10–1.90 and 0.10–1.90); run again"
    ) in verdict.because


def test_a_simpler_arm_that_may_do_as_well(arm):
    """The interval of a simpler arm is told as its ratio to the one that is kept."""
    arms = [arm(name, rps) for name, rps in zip(NAMES, (100, 300, 400), strict=True)]
    one, two, three = ((n, t) for t, n in combinations(NAMES, 2))
    pairs = [
        ArmRatio(*one, 3.0, 0.3, 5.0, False),
        ArmRatio(*two, 4.0, 3.0, 5.0, True),
        ArmRatio(*three, 1.33, 0.5, 4.0, False),
    ]
    verdict = decide(arms, pairs, 50, None)
    assert verdict.choice == "triton_batched" and verdict.undecided == ("triton_unbatched",)
    assert "Triton without batching (300) was not decided" in verdict.because
    assert "too wide (0.25–2.00)" in verdict.because


@pytest.fixture
def beside(arm, level, ratios):
    """The verdict on two arms beside which others used so much of the CPUs."""

    def make(*others, **more):
        arms = [
            arm(name, rps, [level("open", 100, others_cpu=share, stolen_cpu=0.01)], **more)
            for name, rps, share in zip((NAMES[0], NAMES[2]), (100, 600), others, strict=True)
        ]
        return decide(arms, ratios(arms, 0.02), 50, None)

    return make


def test_a_busy_machine_is_said(beside):
    """The verdict stays as it is, with a plain warning and its remedy."""
    verdict, idle = beside(0.3, 0.32), beside(0.0, 0.0)
    assert verdict.choice == idle.choice == "triton_batched"
    assert verdict.because == (
        f"{idle.because} The machine was busy: other processes used 31 % of the CPUs and 1 % was "
        "stolen (33 % in the worst level); the figures say little, so run it again on an idle "
        "machine."
    )


def test_an_idle_machine_is_not_mentioned(beside):
    """Where little else ran, nothing is said of it."""
    assert "busy" not in beside(0.02, 0.03).because


def test_a_neighbour_of_one_arm(beside):
    """Where others took much more from one arm, it is said which, as the ratio is off too."""
    assert (
        ", 61 % while one ONNX Runtime session was measured but 11 % while Triton with dynamic "
        "batching was, so ratios are off too;"
    ) in beside(0.6, 0.1).because


def test_a_busy_machine_and_a_rate(arm, level, ratios):
    """A rate that is held, or not, is told with the same warning."""
    levels = [level("open", 80, purpose="rate", others_cpu=0.4)]
    arms = [arm("ort_baseline", 90, levels, demand=Demand(80, True, None, None, None))]
    assert "The machine was busy: other processes used 40 %" in decide(arms, [], 50, 80).because
