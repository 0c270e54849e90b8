"""Service times brought in line with live levels, against a truth that is known."""

from dataclasses import replace

import numpy as np
import pytest

from tritonkit.plan.predict import predict, predict_again
from tritonkit.plan.recalibrate import Correction, Seen, corrections
from tritonkit.plan.settings import Settings, Way
from tritonkit.plan.simulate import Service
from tritonkit.plan.stream import Poisson, Requests
from tritonkit.repository.scheduling import DynamicBatching

STREAM = Poisson()
BATCHED = Settings(32, DynamicBatching(), 1, 1)
WAY = BATCHED.way
SERVICE = Service(
    run_s=tuple(0.002 + 0.0001 * rows for rows in range(1, 33)),
    gap_s=(0.0002,) * 32,
    scatter=tuple(np.exp(np.random.default_rng(0).normal(0, 0.1, 99))),
    before_s=0.0002,
    after_s=0.0002,
)
LIVE = replace(SERVICE, scatter=SERVICE.scatter[::-1])
"""The same, but that its runs have other luck."""


def seen(truth: Correction):
    """Live levels of a server of which that correction is true."""
    for seed, rate in enumerate((1_000, 2_500, 4_000)):
        requests = STREAM.draw(rate, 2_000, seed)
        level = predict_again(BATCHED, truth.applied(LIVE), requests)
        yield Seen(BATCHED, requests, level.p50_ms, level.p99_ms)


@pytest.mark.parametrize("pace", [0.85, 1.0, 1.3])
def test_the_pace_is_found(pace):
    """Runs that take longer or less than in the curve, to a notch."""
    lanes = {WAY: SERVICE}
    found = corrections(lanes, list(seen(Correction(pace))), 50.0)[WAY]
    assert found.pace == pytest.approx(pace, abs=0.051)


def test_the_scatter_is_found():
    """Runs that scatter more than an idle server's raise the p99 of what is predicted."""
    lanes = {WAY: SERVICE}
    truth = Correction(1.0, 4.0)
    found = corrections(lanes, list(seen(truth)), 50.0)[WAY]
    wanted, plain, corrected = (
        predict(BATCHED, c.applied(SERVICE), STREAM, 1_000.0, 9).p99_ms
        for c in (truth, Correction(), found)
    )
    assert abs(corrected - wanted) < 0.5 * abs(plain - wanted)


def test_nothing_seen_changes_nothing():
    """Without live levels the curve is all there is."""
    assert corrections({WAY: SERVICE}, [], 50.0) == {WAY: Correction()}


def test_other_lanes_get_the_mean():
    """A lane without live levels is taken to be off as the others are."""
    other = Way(2, 1, True)
    lanes = {WAY: SERVICE, other: SERVICE}
    found = corrections(lanes, list(seen(Correction(1.3))), 50.0)
    assert found[other] == pytest.approx(found[WAY])


def test_a_crowd_is_no_sign_of_slow_runs():
    """Requests that happen to come all at once have to wait, and say nothing of the curve."""
    calm = STREAM.draw(500.0, 500, 1)
    starts_s = np.sort(np.append(calm.starts_s, 0.5 + 1e-5 * np.arange(500)))
    crowd = Requests(starts_s, *(np.tile(of, 2) for of in (calm.rows, calm.shapes, calm.costs)))
    level = predict_again(BATCHED, LIVE, crowd)
    assert level.p99_ms > 5 * predict(BATCHED, LIVE, STREAM, 500.0).p99_ms
    found = corrections({WAY: SERVICE}, [Seen(BATCHED, crowd, level.p50_ms, level.p99_ms)], 50.0)
    assert found[WAY] == Correction()


def test_overload_says_only_that():
    """How far beyond the budget a level was plays no part."""
    lanes = {WAY: SERVICE}
    levels = list(seen(Correction(1.2)))
    requests = STREAM.draw(20_000.0, 2_000, 9)
    two = [Seen(BATCHED, requests, p50, p99) for p50, p99 in ((900.0, 2_000.0), (9e3, 2e4))]
    first, second = (corrections(lanes, [*levels, over], 50.0) for over in two)
    assert first == second


def test_a_correction_keeps_the_mean_of_the_scatter():
    """The exponent spreads runs out and leaves their mean as it is."""
    assert np.mean(Correction(1.0, 3.0).applied(SERVICE).scatter) == pytest.approx(1.0)
