"""What a check found out, as JSON and as headline."""

import json
import math

import pytest

from tritonkit.check.gain import Gain
from tritonkit.check.padding import PaddingEffect
from tritonkit.check.proof import Finding, Proof
from tritonkit.verification import Verdict

LEAK = Finding("neighbour", "y", "rows leak", "mend it", "node", "Softmax", math.inf, 3)


def written(proof):
    """The proof as strict JSON, read again."""
    return json.loads(json.dumps(proof.to_json(), allow_nan=False))


def test_finding():
    """A finding is written with all its fields."""
    text = written(Proof(Verdict.UNSAFE, (LEAK,), {"y": 0}))["findings"]
    assert text == [
        {
            **{"kind": "neighbour", "tensor": "y", "why": "rows leak", "remedy": "mend it"},
            **{"node": "node", "op_type": "Softmax", "max_abs_diff": None, "batch": 3},
        }
    ]


@pytest.mark.parametrize("value", [math.inf, math.nan, None])
def test_difference_that_is_no_number(value):
    """JSON has no infinity: such a difference is null."""
    finding = Finding("neighbour", "y", "why", "remedy", max_abs_diff=value)
    assert finding.to_json()["max_abs_diff"] is None


def test_padding_values():
    """Pad values and differences that are no numbers are written as text, or null."""
    effect = PaddingEffect("seq", ("x",), False, {"x": -math.inf, "m": 0}, math.inf, "y", "why")
    text = written(Proof(Verdict.SAFE, (), {"y": 0}, padding=(effect,)))["padding"][0]
    assert (text["pad_values"], text["max_abs_diff"]) == ({"x": "-inf", "m": 0}, None)


def test_gain():
    """The gain is written by batch size."""
    gain = Gain({1: 1.0, 4: 2.5}, {}, {}, {})
    assert written(Proof(Verdict.SAFE, (), {"y": 0}, gain=gain))["gain"] == {"1": 1.0, "4": 2.5}


@pytest.mark.parametrize(
    ("verdict", "tolerance", "headline", "passed"),
    [
        (Verdict.SAFE, None, "safe", True),
        (Verdict.SAFE_WITHIN, 0.01745, "safe within tolerance 0.017", True),
        (Verdict.UNSAFE, None, "unsafe", False),
        (Verdict.NOT_BATCHABLE, None, "not batchable", False),
    ],
)
def test_headline(verdict, tolerance, headline, passed):
    """Each verdict has its words, and only two let strangers share a batch."""
    proof = Proof(verdict, (), {}, tolerance=tolerance)
    assert (proof.headline, proof.passed) == (headline, passed)


def test_verification():
    """What packaging goes by has the verdict, the largest proved batch and the reasons."""
    made = Proof(Verdict.UNSAFE, (LEAK,), {"y": 0}).verification
    assert (made.verdict, made.max_batch_size, made.reasons) == (Verdict.UNSAFE, 0, ("rows leak",))


def test_tolerance_that_is_no_number():
    """A tolerance without end is no reason for a crash."""
    assert written(Proof(Verdict.SAFE_WITHIN, (), {}, tolerance=math.inf))["tolerance"] is None
