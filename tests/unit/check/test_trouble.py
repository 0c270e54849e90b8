"""Findings in words: the tensor, the node, the reason, and the line that mends it."""

import numpy as np
import pytest

from tritonkit.check import trouble
from tritonkit.check.divergence import Divergence
from tritonkit.check.neighbours import Felt, Trial
from tritonkit.check.rows import Kind


def felt(what, kinds=(), difference=0.5, size=3):
    """A trouble with the output y."""
    return Felt(
        what, "y", Trial({}, {}, size, (0,), kinds), difference, "[0, 1]: got 1, expected 2"
    )


@pytest.mark.parametrize(
    ("words", "node", "op_type"),
    [
        ("while running Reshape node. Name:'/a/Reshape_4' Status", "/a/Reshape_4", "Reshape"),
        ("while running Gather node. Name:'' Status", None, "Gather"),
        ("out of memory", None, None),
    ],
)
def test_node_that_fails(words, node, op_type):
    """The node is read from ONNX Runtime's words, if they name one."""
    finding = trouble.fails("x", words)
    assert (finding.node, finding.op_type, finding.kind) == (node, op_type, "fails")
    other = trouble.failed_batch(felt("fails", (Kind.LOUD,)), words)
    assert (other.node, other.batch) == (node, 3) and str(Kind.LOUD) in other.why


def test_neighbour():
    """A leak tells its node, its neighbours, its size and what mends the node."""
    at = Divergence("/bn", "BatchNormalization", 0.1, exact=True, rounds=False)
    finding = trouble.felt(felt("neighbour", (Kind.LOUD,)), at)
    assert (finding.kind, finding.node, finding.op_type, finding.batch) == (
        *("neighbour", "/bn", "BatchNormalization", 3),
    )
    assert "10,000 times as loud" in finding.why and "'/bn'" in finding.why
    assert "model.eval()" in finding.remedy and "--max-batch-size 0" in finding.remedy


def test_without_a_node():
    """Where no node was found the finding says nothing of one, and still has a remedy."""
    finding = trouble.felt(felt("batch_size"), None)
    assert finding.node is None and "node" not in finding.why and finding.remedy


def test_difference_that_is_no_number():
    """A difference that is no number is not written as one."""
    finding = trouble.felt(felt("neighbour", (Kind.NAN,), np.inf), None)
    assert "beyond all numbers" in finding.why and "inf" not in finding.why


@pytest.mark.parametrize(("rounds", "kind"), [(True, "rounding"), (False, "batch_size")])
def test_rounding(rounds, kind):
    """A decision that rounding turned is told apart from an answer that depends on the size."""
    at = Divergence("top", "ArgMax", 1.0, exact=not rounds, rounds=rounds)
    assert trouble.felt(felt("batch_size"), at).kind == kind


def test_rounding_excuses_no_neighbour():
    """What a neighbour did is no rounding, at whatever node."""
    at = Divergence("top", "ArgMax", 1.0, exact=False, rounds=True)
    assert trouble.felt(felt("neighbour", (Kind.LOUD,)), at).kind == "neighbour"


@pytest.mark.parametrize(("kinds", "kind"), [((), "shape"), ((Kind.LOUD,), "neighbour")])
def test_shape(kinds, kind):
    """An answer of another shape is the neighbours' doing only where there were some."""
    assert trouble.felt(felt("shape", kinds, np.inf), None).kind == kind
