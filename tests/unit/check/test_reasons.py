"""Findings in words: a model without a batch, or with it elsewhere than on axis 0."""

import numpy as np
import pytest

from tritonkit.check import reasons
from tritonkit.check.axes import Behaviour, Found
from tritonkit.signature import KSERVE_TYPES, ModelSignature, TensorSpec

ALL = np.ones((5, 5), dtype=bool)
BEFORE = np.tril(ALL)
NEAREST = np.eye(5, dtype=bool) | np.eye(5, k=1, dtype=bool) | np.eye(5, k=-1, dtype=bool)


def spec(name, *shape, dtype="FP32"):
    """One tensor."""
    return TensorSpec(name, KSERVE_TYPES[dtype], shape)


def signature(*inputs, outputs=()):
    """These inputs and outputs."""
    return ModelSignature(inputs, tuple(outputs))


def found(inputs, outputs=None, shapes=None, influence=None, behaviour=Behaviour.COUPLED):
    """What came of the supposed axes."""
    return Found(behaviour, inputs, outputs or {}, None, shapes or {}, influence=influence)


@pytest.mark.parametrize(
    ("inputs", "outputs", "size"),
    [
        ([spec("x", 1, 4)], [spec("y", 1, 2)], 1),
        ([spec("x", 8, 4), spec("z", 8)], [spec("y", 8)], 8),
        ([spec("x", "n", 4)], [spec("y", 1)], None),
        ([spec("x", 3, 4)], [spec("y", 4)], 3),
        ([spec("x", 1, 4), spec("k")], [spec("y", 1)], None),
    ],
)
def test_fixed_batch(inputs, outputs, size):
    """Only where all inputs begin with one and the same size is that the batch."""
    finding = reasons.fixed_batch(signature(*inputs, outputs=outputs))
    assert (finding is not None) == (size is not None)
    if finding:
        assert f"fixed at {size}" in finding.why and "tritonkit export" in finding.remedy


def test_no_inputs():
    """A model without inputs has no fixed batch, and is no reason for a crash."""
    assert reasons.fixed_batch(signature(outputs=[spec("y", 3)])) is None


def test_nothing_dynamic():
    """The inputs are shown as they are declared; where there are none, that is said."""
    assert "x:FP32[3,4]" in reasons.nothing_dynamic(signature(spec("x", 3, 4))).why
    assert "no inputs" in reasons.nothing_dynamic(signature(outputs=[spec("y")])).why


def test_batch_where_triton_wants_it():
    """Nothing speaks against a batch on axis 0 of everything."""
    assert reasons.elsewhere(found({"x": 0}, {"y": 0}), None, signature(), set()) == []


def test_batch_elsewhere():
    """Each input without the batch, and each tensor with it on another axis, is told."""
    findings = reasons.elsewhere(
        found({"x": 1, "k": None, "z": 0}, {"y": 2}), None, signature(), set()
    )
    assert [(f.kind, f.tensor) for f in findings] == [
        ("no_batch_axis", "k"),
        ("batch_axis", "x"),
        ("batch_axis", "y"),
    ]
    assert "axis 0 is time" not in findings[1].why


def test_time_on_axis_0():
    """Where rows on axis 0 are moved by those before them only, it is called time."""
    first = found({"x": 0}, influence=BEFORE)
    assert "axis 0 is time" in reasons.elsewhere(found({"x": 1}), first, signature(), set())[0].why


@pytest.mark.parametrize(
    ("shapes", "constant", "influence", "kind"),
    [
        ([(2,)] * 4, ["y"], None, "no_batch_axis"),
        ([(1, 4)] * 4, [], ALL, "set"),
        ([(1, 4)] * 4, [], BEFORE, "time"),
        ([(4,), (8,), (12,), (20,)], [], None, "merged"),
        ([(1, 1), (2, 2), (3, 3), (5, 5)], [], ALL, "no_batch_axis"),
    ],
)
def test_output_without_rows(shapes, constant, influence, kind):
    """What an output is instead of rows is read from its shapes, its values, and who moves whom."""
    shapes = {"y": tuple(shapes)}
    lost = found({"x": 0}, {"y": None}, shapes, influence, Behaviour.NO_ROWS)
    findings = list(reasons.no_rows(lost, signature(spec("x", "n", 4)), set(), constant))
    assert [(f.kind, f.tensor) for f in findings] == [(kind, "y")]


def test_only_outputs_without_rows():
    """An output that has its rows is not told."""
    lost = found({"x": 0}, {"y": 0, "z": None}, {"z": ((2,),) * 4}, None, Behaviour.NO_ROWS)
    findings = reasons.no_rows(lost, signature(spec("x", "n", 4)), set(), ["z"])
    assert [f.tensor for f in findings] == ["z"]


@pytest.mark.parametrize(
    ("dim", "influence", "op_type", "kind"),
    [
        ("batch", ALL, "Softmax", None),
        ("batch_size", BEFORE, "CumSum", None),
        ("N", ALL, None, None),
        ("x_dim_0", ALL, None, None),
        ("s77", ALL, None, None),
        ("rows", ALL, "Softmax", "set"),
        ("points", None, None, "set"),
        ("points", BEFORE, "CumSum", "time"),
        ("points", NEAREST, "Conv", "time"),
        ("seq_len", ALL, None, "time"),
        ("frames", ALL, None, "time"),
        ("points", ALL, "LSTM", "time"),
    ],
)
def test_what_axis_0_is(dim, influence, op_type, kind):
    """Rows that leak are told from time and sets by the dimension's name and who moves whom."""
    shown = reasons.not_a_batch(
        found({"x": 0}, influence=influence), signature(spec("x", dim, 4)), set(), op_type
    )
    assert (shown and shown[0]) == kind


def test_graph():
    """Nodes and edges are a graph where the edges pick from the nodes, and not else."""
    nodes, edges = spec("x", "nodes", 4), spec("e", 2, "edges", dtype="INT64")
    found_axes = found({"x": 0, "e": None}, influence=ALL)
    two = signature(nodes, edges)
    assert reasons.not_a_batch(found_axes, two, {"Gather"}, None)[0] == "graph"
    assert reasons.not_a_batch(found_axes, two, {"Add"}, None)[0] == "set"


def test_pairs_of_a_batch_are_no_graph():
    """Two ids for each row of a batch are no edges: the rows leak."""
    pairs = signature(spec("x", "batch", 4), spec("ids", "batch", 2, dtype="INT64"))
    leaks = found({"x": 0, "ids": 0}, influence=ALL)
    assert reasons.not_a_batch(leaks, pairs, {"Gather"}, None) is None


@pytest.mark.parametrize(
    ("shape", "batch"),
    [
        (("b", 4), None),
        (("b", "m"), None),
        ((1, 4), 2),
        (("b", 5), 1),
        (("b",), 1),
        (("b", 4, 1), 1),
    ],
)
def test_declared(shape, batch):
    """An output that does not come out as declared is told once, with the batch that shows it."""
    shapes = {"y": ((1, 4), (2, 4), (3, 4), (5, 4))}
    made = list(reasons.declared(found({}, shapes=shapes), signature(outputs=[spec("y", *shape)])))
    assert [finding.batch for finding in made] == ([batch] if batch else [])
