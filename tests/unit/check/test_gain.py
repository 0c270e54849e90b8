"""What batching buys: from times to a line, and how the times are taken."""

from functools import partial

import numpy as np
import pytest

from tritonkit.check.gain import batches_up_to, gain_of, measure_gain
from tritonkit.check.onnx_model import OnnxModel
from tritonkit.errors import ModelError

SECOND = 1_000_000_000


class Machine:
    """A clock that moves only while a run lasts: batch size → seconds."""

    def __init__(self, seconds, *, fails_at=()):
        self.seconds, self.fails_at = seconds, fails_at
        self.now_ns = 0
        self.ran = []

    def clock_ns(self):
        return self.now_ns

    def prepare(self, batch):
        def run():
            if batch in self.fails_at:
                raise ModelError("Reshape fails")
            self.ran.append(batch)
            self.now_ns += int(self.seconds(batch) * SECOND)

        return run

    def gain(self, batches, budget_s):
        return measure_gain(self.prepare, batches, budget_s=budget_s, clock_ns=self.clock_ns)


def steady(*times, rounds=5):
    """The same times in each round: at batch 1, 2, 4, …"""
    return [{2**i: t for i, t in enumerate(times)}] * rounds


def test_line_names_the_gain():
    """A model whose run costs the same at any size gains as many times as the batch has rows."""
    gain = gain_of(steady(0.01, 0.01, 0.01))
    assert gain.ratios == {1: 1.0, 2: 2.0, 4: 4.0}
    assert gain.seconds == {1: 0.01, 2: 0.01, 4: 0.01}
    assert gain.helps and str(gain) == "4.0× at 4"


def test_smallest_batch_that_is_nearly_best():
    """Of 3.9× at 4 and 4.0× at 8, the batch of 4 is named."""
    gain = gain_of(steady(1.0, 1.0, 4 / 3.9, 8 / 4.0))
    assert gain.best == 4 and str(gain) == "3.9× at 4"


def test_clearly_better_batch():
    """Of 3.0× at 4 and 4.0× at 8, the batch of 8 is named."""
    assert gain_of(steady(1.0, 1.0, 4 / 3.0, 8 / 4.0)).best == 8


def test_no_gain():
    """A model whose time grows with its rows is said to gain nothing."""
    gain = gain_of(steady(1.0, 2.0, 4.0))
    assert not gain.helps
    assert str(gain) == "1.0×: batching will not help this model on this CPU"


def test_loss():
    """A model that is slower in batches says by how much at the best of them."""
    assert str(gain_of(steady(1.0, 2.5, 8.0))).startswith("0.8×: batching will not help")


def test_gain_below_a_tenth():
    """A gain of 1.08 is no help, one of 1.2 is."""
    assert not gain_of(steady(1.0, 2 / 1.08)).helps
    assert gain_of(steady(1.0, 2 / 1.2)).helps


def test_gain_that_may_be_none():
    """A gain that some rounds deny is called uncertain, with its range."""
    rounds = [{1: 1.0, 2: 2 / ratio} for ratio in (1.0, 1.6, 1.7, 1.4, 1.8)]
    gain = gain_of(rounds)
    assert not gain.helps
    assert str(gain).startswith("1.6× at 2, which is not certain: 1.0× to 1.8× as measured")


def test_one_disturbed_round():
    """One round of fifteen that goes astray changes neither the ratio nor the interval."""
    gain = gain_of([*steady(1.0, 1.0, rounds=14), {1: 1.0, 2: 9.0}])
    assert gain.ratios[2] == 2.0 and gain.intervals[2] == (2.0, 2.0)


@pytest.mark.parametrize(("rounds", "low"), [(3, 0), (5, 0), (7, 0), (8, 1), (15, 3)])
def test_interval(rounds, low):
    """The interval leaves out as many rounds at each end as 90 % confidence in a median allows."""
    ratios = [1 + i / 100 for i in range(rounds)]
    gain = gain_of([{1: 1.0, 2: 2 / ratio} for ratio in ratios])
    assert gain.intervals[2] == pytest.approx((ratios[low], ratios[-1 - low]))


def test_slowing_machine():
    """A machine that gets slower round by round does not change the ratio."""
    gain = gain_of([{1: s, 2: s} for s in (1.0, 1.5, 2.0, 3.0, 8.0)])
    assert gain.ratios[2] == 2.0 and gain.intervals[2] == (2.0, 2.0)


def test_batches():
    """Powers of two up to the largest size, and that size."""
    assert batches_up_to(1) == (1,)
    assert batches_up_to(16) == (1, 2, 4, 8, 16)
    assert batches_up_to(11) == (1, 2, 4, 8, 11)


def test_rounds_take_turns():
    """After a warm-up the sizes take turns, and no more rounds are run than are of use."""
    machine = Machine(lambda batch: 0.01)
    gain = machine.gain((1, 2, 4), budget_s=60)
    assert machine.ran == [1, 2, 4] * 16
    assert gain.ratios == {1: 1.0, 2: 2.0, 4: 4.0} and gain.left_out == {}


def test_short_runs_are_repeated():
    """A turn of a run of 1 ms is five runs, and its time is that of one."""
    machine = Machine(lambda batch: 0.001)
    assert machine.gain((1, 2), budget_s=60).seconds == {1: 0.001, 2: 0.001}
    assert machine.ran[:10] == [1] * 5 + [2] * 5


def test_batch_1_is_always_timed():
    """Batch 1 need not be asked for."""
    assert Machine(lambda batch: 0.01).gain((4,), budget_s=9).ratios == {1: 1.0, 4: 4.0}


def test_budget_leaves_large_batches_out():
    """Sizes that do not fit are left out and named, and the others get their five rounds."""
    machine = Machine(lambda batch: batch * 0.1)
    gain = machine.gain(batches_up_to(64), budget_s=5)
    assert machine.now_ns <= 5 * SECOND
    assert gain.left_out == dict.fromkeys((8, 16, 32, 64), "too slow for the 5 s given")
    assert machine.ran.count(4) >= 6


def test_batch_slower_than_foreseen():
    """A size whose time explodes is dropped after its warm-up."""
    machine = Machine(lambda batch: 2.0 if batch == 8 else 0.01)
    gain = machine.gain(batches_up_to(16), budget_s=5)
    assert gain.left_out == dict.fromkeys((8, 16), "too slow for the 5 s given")
    assert machine.ran.count(8) == 1 and gain.best == 4


def test_model_too_slow():
    """A model for which not even a batch of 2 fits is run once, and the line says so."""
    machine = Machine(lambda batch: 10.0)
    gain = machine.gain((1, 2), budget_s=5)
    assert machine.ran == [1] and gain.ratios == {1: 1.0} and gain.seconds == {1: 10.0}
    assert str(gain) == "not measured at any batch above 1 (2: too slow for the 5 s given)"
    assert not gain.helps


def test_batch_that_fails():
    """A size at which the model fails is left out with the reason; larger ones are still tried."""
    gain = Machine(lambda batch: 0.01, fails_at=(2,)).gain((1, 2, 4), budget_s=9)
    assert gain.left_out == {2: "Reshape fails"} and gain.ratios == {1: 1.0, 4: 4.0}


def test_batch_1_that_fails():
    """A model that fails at batch 1 cannot be measured at all."""
    with pytest.raises(ModelError, match="Reshape fails"):
        Machine(lambda batch: 0.01, fails_at=(1,)).gain((1, 2), budget_s=9)


def test_real_model(onnx_file):
    """A real model's runs are timed on the real clock."""
    graph = "(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }"
    model = OnnxModel(onnx_file(graph))
    gain = measure_gain(
        lambda batch: partial(model.run, {"x": np.zeros((batch, 4), np.float32)}),
        batches_up_to(4),
        budget_s=2,
    )
    assert set(gain.seconds) == {1, 2, 4} and all(s > 0 for s in gain.seconds.values())
