"""Rounds of two real arms that need no Triton, after an interruption."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.bench import by_hand

from tritonkit.bench.progress import Progress, Step
from tritonkit.bench.result import TuningRun
from tritonkit.samples import read_samples
from tritonkit.stats.scrape import ServerCounters

ROOT = Path(__file__).parents[3]
ARMS = ("ort_baseline", "ort_batcher")

SCRIPT = """
from tritonkit.load import runner  # first: it prepares the standard library for gevent
import sys
from pathlib import Path
from tests.unit.bench.by_hand import *
from tritonkit.bench.measure import measure
work, nodes, slo_p99_ms = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
what, subject, progress = make(work, nodes, slo_p99_ms=slo_p99_ms)
measure(what, subject, progress.tuning, progress, work, lambda line: None)
"""


@pytest.fixture
def rounds(level, tmp_path):
    """Go on with rounds of which each arm has so many, at about its capacity of `rps`, until the
    time is up; the steps that are new.
    """

    def go_on(done, rps, nodes=by_hand.QUICK, slo_p99_ms=50.0):
        before = Progress(tmp_path / "progress.jsonl", by_hand.QUESTION)
        for arm in ARMS:
            before.keep_tuning(arm, (TuningRun(1, 1, 1.0, None, True),))
        for number in range(1, max(done) + 1):
            for arm in (arm for arm, most in zip(ARMS, done, strict=True) if number <= most):
                few = number <= 3
                purpose, held = "curve" if few else "search", bool(number % 2)
                rate = rps * (0.95 if held else 1.05)
                record = level(
                    "closed" if few else "open", rate, round=number, holds=held, purpose=purpose
                )
                before.keep_step(Step(arm, record, ServerCounters(), 100.0, True))
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path), nodes, str(slo_p99_ms)],
            cwd=ROOT,
            check=True,
            timeout=60,
        )
        return Progress(tmp_path / "progress.jsonl", by_hand.QUESTION).steps[len(before.steps) :]

    return go_on


def seen(steps):
    return [(step.level.round, step.arm, step.level.purpose) for step in steps]


def test_an_interrupted_round_is_not_gone_on_with(rounds):
    """All arms have a level in the round after the interruption, which is a new one."""
    assert seen(rounds((7, 6), 300))[:2] == [
        (8, "ort_batcher", "search"),
        (8, "ort_baseline", "search"),
    ]


def test_overload_after_an_interrupted_round(rounds):
    """Every arm is overloaded, where an interrupted round was the last that there was time for."""
    assert seen(rounds((8, 7), 300)) == [
        (9, "ort_baseline", "overload"),
        (9, "ort_batcher", "overload"),
    ]


def test_connections(rounds, tmp_path):
    """As many requests are in flight as a budget of seconds takes, not 128."""
    steps = rounds((8, 8), 1000, by_hand.SLOW, slo_p99_ms=10_000.0)
    (level,) = (step.level for step in steps if step.arm == "ort_baseline")
    assert most_in_flight(read_samples(tmp_path / level.samples)) > 150


def most_in_flight(samples):
    turns = sorted([(s.sent_ns, 1) for s in samples] + [(s.done_ns, -1) for s in samples])
    now, most = 0, 0
    for _, change in turns:
        now += change
        most = max(most, now)
    return most
