"""Is this model safe to batch? All checks, from the cheapest to the dearest, and the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tritonkit.check import reasons, trouble
from tritonkit.check.axes import Behaviour, Found, find_batch_axes, guesses
from tritonkit.check.divergence import Run, first_divergence, rows_end
from tritonkit.check.domain import find_ranges, usable_rows
from tritonkit.check.gain import Gain, batches_up_to, measure_gain
from tritonkit.check.neighbours import SMALL_BATCHES, Felt, meet_neighbours
from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.check.padding import PaddingEffect, check_padding
from tritonkit.check.parity import Reference, find_parity
from tritonkit.check.proof import Finding, Proof
from tritonkit.check.rows import Kind, Rows
from tritonkit.check.tolerance import (
    NARROW_TOLERANCES,
    TOLERANCES,
    WIDE_TOLERANCES,
    Tolerances,
)
from tritonkit.errors import ModelError
from tritonkit.signature import ModelSignature, data_type_of, load_onnx, read_signature
from tritonkit.verification import Verdict

if TYPE_CHECKING:
    import onnx

DEFAULT_MAX_BATCH = 32


@dataclass(frozen=True)
class Question:
    """What to ask besides the model itself.

    max_batch_size: the largest batch to prove. examples: real single rows (axis 0 is 1). sizes:
    of dynamic dimensions, by name. reference: what the model should answer, and against: what
    that is, in words. budget_s: seconds for the neighbours, and for padding and gain a part of
    it; what must be tried is tried all the same.
    """

    max_batch_size: int = DEFAULT_MAX_BATCH
    examples: Sequence[Arrays] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    reference: Reference | None = None
    against: str = ""
    budget_s: float = 10.0


def check_model(
    path: Path, question: Question, progress: Callable[[str], None] = lambda step: None
) -> Proof:
    """Prove, by running it, that the ONNX file `path` may or may not be batched.

    progress: told each step's name as it begins. ModelError if the file cannot be read or run.
    """
    progress("signature")
    signature = read_signature(path)
    model = OnnxModel(path)
    axis = dict.fromkeys(t.name for t in (*signature.inputs, *signature.outputs))
    fixed = reasons.fixed_batch(signature)
    if fixed is None and next(guesses(signature), None) is None:
        fixed = reasons.nothing_dynamic(signature)
    if fixed is not None:
        return Proof(Verdict.NOT_BATCHABLE, (fixed,), axis)
    progress("batch axis")
    for row in question.examples:
        _require_fits(path, signature, row)
    examples = _alike(question.examples)
    found, first = find_batch_axes(
        model, signature, _sizes(signature, examples, question), examples
    )
    if (
        found.behaviour is Behaviour.APART
        and first is not None
        and first.behaviour is Behaviour.COUPLED
        and reasons.is_named_batch(first, signature)
    ):
        found, first = first, None  # it means its batch to be there, and leaks
    if found.rows is None:
        raise ModelError(
            f"{path}: no input was found that it runs on ({found.failure}); give one with --input"
        )
    graph = load_onnx(path).graph
    return _Check(path, graph, signature, model, question, found, first, progress).proof()


@dataclass(frozen=True)
class _Check:
    path: Path
    graph: onnx.GraphProto
    signature: ModelSignature
    model: OnnxModel
    question: Question
    found: Found
    first: Found | None
    progress: Callable[[str], None]

    def proof(self) -> Proof:
        """The verdict, for a model that runs on `found.rows`."""
        found, rows = self.found, self.found.rows
        assert rows is not None
        declared = list(reasons.declared(found, self.signature))
        if found.behaviour is Behaviour.COUPLED:
            return self._coupled(rows, declared)
        axis: dict[str, int | None] = {**found.inputs, **found.outputs}
        if found.behaviour is Behaviour.APART:
            refused = reasons.elsewhere(found, self.first, self.signature, self._operators())
            refused += [f for f in declared if self._hides_the_batch(f.tensor)]
            if not refused:
                return self._judged(rows, declared)
        elif found.behaviour is Behaviour.NO_ROWS:
            axis = dict.fromkeys(axis)
            constant = self._constant(rows)
            lost = reasons.no_rows(found, self.signature, self._operators(), constant)
            refused = [self._with_node(rows, finding) for finding in lost]
        else:
            axis = dict.fromkeys(axis)
            tensor = next(n for n, axis in found.inputs.items() if axis is not None)
            failing = 1 if found.only else 2
            words = self._words(rows.batch([rows.row()] * failing)) or found.failure
            refused = [trouble.fails(tensor, words, found.only)]
        return Proof(Verdict.NOT_BATCHABLE, _once([*refused, *declared]), axis)

    def _hides_the_batch(self, output: str) -> bool:
        """Whether an output is declared with a first dimension that is not dynamic."""
        spec = next(t for t in self.signature.outputs if t.name == output)
        return not spec.shape or isinstance(spec.shape[0], int)

    def _with_node(self, rows: Rows, finding: Finding) -> Finding:
        """The finding, with the node at which rows cease to be rows."""
        row = rows.row()
        batch, larger = (Run(rows.batch([row] * n), n) for n in (3, 4))
        place = rows_end(self.path, finding.tensor, batch, larger)
        if place is None:
            return finding
        why = f"{finding.why}; rows end at node '{place[0]}' ({place[1]})"
        return replace(finding, node=place[0], op_type=place[1], why=why)

    def _words(self, batch: Arrays) -> str:
        """What ONNX Runtime says of a batch that it fails on, of nodes as they are in the file:
        its optimisations rename some. Empty if it does not fail without them.
        """
        try:
            OnnxModel(self.path, optimise=False).run(batch)
        except ModelError as error:
            return str(error)
        return ""

    def _operators(self) -> set[str]:
        return {node.op_type for node in self.graph.node}

    def _constant(self, rows: Rows) -> list[str]:
        """The outputs that are the same for different rows."""
        drawn = [rows.row(Kind.USUAL, seed) for seed in range(6)]
        one, other = (self.model.run(rows.batch(part)) for part in (drawn[:3], drawn[3:]))
        return [name for name in one if np.array_equal(one[name], other[name])]

    def _coupled(self, rows: Rows, declared: list[Finding]) -> Proof:
        """Rows change each other's answers at once: find out where, and what that means."""
        met = meet_neighbours(
            self.model, rows, self.found.outputs, max(SMALL_BATCHES), self.question.budget_s
        )
        findings = [self._finding(rows, felt) for felt in met.felt]
        op_type = next((f.op_type for f in findings if f.op_type), None)
        other = reasons.not_a_batch(self.found, self.signature, self._operators(), op_type)
        axis: dict[str, int | None] = {**self.found.inputs, **self.found.outputs}
        if other is None:
            return Proof(Verdict.UNSAFE, (*findings, *declared), axis, batches=met.batches)
        kind, words = other
        findings = [
            replace(f, kind=kind, why=f"{words}; {f.why}", remedy=reasons.NO_BATCH)
            for f in findings
        ]
        return Proof(Verdict.NOT_BATCHABLE, (*findings, *declared), dict.fromkeys(axis))

    def _judged(self, rows: Rows, declared: list[Finding]) -> Proof:
        """The verdict on a model that has its batch where Triton wants it."""
        question = self.question
        self.progress("values")
        rows = find_ranges(self.model, self.graph, rows)
        against = []
        if question.reference is not None:
            self.progress("parity")
            against += self._parity(rows, question.reference)
        self.progress("neighbours")
        most, budget_s = question.max_batch_size, question.budget_s
        met = meet_neighbours(self.model, rows, self.found.outputs, most, budget_s)
        felt = [self._finding(rows, felt) for felt in met.felt]
        rounded = [finding for finding in felt if finding.kind == "rounding"]
        against += [finding for finding in felt if finding.kind != "rounding"]
        verdict, tolerance = Verdict.UNSAFE if against else Verdict.SAFE, None
        if not against and met.blown_up:
            known = {finding.tensor for finding in rounded}
            small = [self._small(rows, felt) for felt in met.blown_up if felt.tensor not in known]
            against += [finding for finding in small if finding.node is not None]
            rounded += [finding for finding in small if finding.node is None]
            verdict = Verdict.UNSAFE if against else Verdict.SAFE_WITHIN
            tolerance = None if against else max(felt.max_abs_diff for felt in met.blown_up)
        self.progress("padding")
        padding = self._padding(rows)
        gain = None
        if not against:
            self.progress("gain")
            gain = self._gain(rows)
        return Proof(
            verdict,
            (*against, *rounded, *declared),
            {**self.found.inputs, **self.found.outputs},
            tolerance=tolerance,
            max_batch_size=0 if against else max(met.batches),
            batches=met.batches,
            tried=met.tried,
            padding=tuple(padding),
            gain=gain,
            sizes=_named_sizes(self.signature, rows),
            notes=(
                *map(trouble.unmoved, met.constant),
                *trouble.limits(self.signature, rows),
                *(() if question.examples else (trouble.CHANCE,)),
            ),
        )

    def _parity(self, rows: Rows, reference: Reference) -> list[Finding]:
        drawn = rows.batch([rows.row(Kind.USUAL, seed) for seed in range(8)])
        batches = tuple(sorted({1, *SMALL_BATCHES, self.question.max_batch_size}))
        parity = find_parity(
            self.model, drawn, reference, against=self.question.against, batches=batches
        )
        wrong = parity.mismatch
        if wrong is None:
            return []
        why = f"output '{wrong.output}' {wrong.where} is not that of {parity.against}: {wrong.what}"
        return [
            Finding(
                "parity",
                wrong.output,
                why,
                f"make the file from {parity.against} again: tritonkit export",
                max_abs_diff=wrong.max_abs_diff,
                batch=wrong.batch,
            )
        ]

    def _finding(self, rows: Rows, felt: Felt) -> Finding:
        """A trouble, with the node where it begins."""
        if felt.what == "fails":
            return trouble.failed_batch(felt, self._words(felt.trial.batch) or felt.worst)
        row, size = felt.trial.row, felt.trial.size
        alone, copies, larger = _copies(rows, felt)
        got = Run(felt.trial.batch, size)
        beside = [*[row] * (size - 1), rows.row(Kind.USUAL, 101)]
        # What a size alone brings about may be seen better beside another row.
        attempts: dict[str, list[tuple[Run, Run, Sequence[int], Tolerances]]] = {
            "random": [(got, got, felt.trial.places, NARROW_TOLERANCES)],
            "batch_size": [
                (alone, copies, range(size), WIDE_TOLERANCES),
                (copies, Run(rows.batch(beside), size), range(size - 1), NARROW_TOLERANCES),
            ],
        }
        usual = [(copies, got, felt.trial.places, NARROW_TOLERANCES)]
        for expected, other, places, tolerances in attempts.get(felt.what, usual):
            found = first_divergence(
                self.path, felt.tensor, expected, other, larger, places, tolerances
            )
            if found is not None:
                return trouble.felt(felt, found)
        return trouble.felt(felt, None)

    def _small(self, rows: Rows, felt: Felt) -> Finding:
        """A small difference that comes with the size of the batch. It is rounding, unless a node
        that sums nothing makes it of what is the same to the last bit: then the node is named.
        """
        alone, copies, larger = _copies(rows, felt)
        places = range(copies.size)
        found = first_divergence(self.path, felt.tensor, alone, copies, larger, places, TOLERANCES)
        if found is not None and found.exact and found.op_type in trouble.SUM_NOTHING:
            return trouble.felt(felt, found)
        return trouble.blown_up(felt.tensor, felt.max_abs_diff)

    def _padding(self, rows: Rows) -> list[PaddingEffect]:
        dims: dict[str, dict[str, tuple[int, ...]]] = {}
        for spec in self.signature.inputs:
            for axis, dim in enumerate(spec.shape):
                if axis and isinstance(dim, str):
                    before = dims.setdefault(dim, {}).get(spec.name, ())
                    dims[dim][spec.name] = (*before, axis)
        if not dims:
            return []
        drawn = usable_rows(self.model, rows, [(Kind.USUAL, seed) for seed in range(4)])
        return check_padding(self.model, drawn, dims, budget_s=self.question.budget_s / 2)

    def _gain(self, rows: Rows) -> Gain:
        drawn = [rows.row(Kind.USUAL, seed) for seed in range(8)]

        def prepare(batch: int) -> Callable[[], object]:
            inputs = rows.batch([drawn[i % len(drawn)] for i in range(batch)])
            return lambda: self.model.run(inputs)

        most, budget_s = self.question.max_batch_size, self.question.budget_s / 2
        return measure_gain(prepare, batches_up_to(most), budget_s=budget_s)


def _copies(rows: Rows, felt: Felt) -> tuple[Run, Run, Run]:
    """The row of a trial alone, among copies of itself, and among one more."""
    row, size = felt.trial.row, felt.trial.size
    alone, copies, larger = (Run(rows.batch([row] * n), n) for n in (1, size, size + 1))
    return alone, copies, larger


def _require_fits(path: Path, signature: ModelSignature, row: Arrays) -> None:
    """ModelError unless `row` has just the model's inputs, in its dtypes and ranks."""
    wanted = {spec.name: spec for spec in signature.inputs}
    if row.keys() != wanted.keys():
        raise ModelError(
            f"{path}: the inputs given are {', '.join(row) or 'none'}, the model takes "
            f"{', '.join(wanted)}; name them alike"
        )
    for name, spec in wanted.items():
        array = row[name]
        fits = array.ndim == len(spec.shape) and all(
            isinstance(dim, str) or axis == 0 or dim == size
            for axis, (dim, size) in enumerate(zip(spec.shape, array.shape, strict=True))
        )
        if not fits or data_type_of(array) != spec.dtype:
            raise ModelError(
                f"{path}: input '{name}' is given as {array.dtype}{list(array.shape)}, but the "
                f"model takes {spec}; convert it"
            )


def _alike(examples: Sequence[Arrays]) -> list[Arrays]:
    """Those examples that have the commonest shapes, so that they fit in one batch."""
    shapes = [tuple(sorted((name, a.shape) for name, a in row.items())) for row in examples]
    if not shapes:
        return []
    commonest = Counter(shapes).most_common(1)[0][0]
    return [row for row, shape in zip(examples, shapes, strict=True) if shape == commonest]


def _sizes(
    signature: ModelSignature, examples: Sequence[Arrays], question: Question
) -> dict[str, int]:
    """The sizes of dynamic dimensions that are given, or that the examples have."""
    sizes = dict(question.sizes)
    for spec in signature.inputs if examples else ():
        for dim, size in zip(spec.shape, examples[0][spec.name].shape, strict=True):
            if isinstance(dim, str):
                sizes[dim] = size
    return sizes


def _named_sizes(signature: ModelSignature, rows: Rows) -> dict[str, int]:
    """The sizes of the inputs' dynamic dimensions in a row, but for the batch."""
    row = rows.row()
    return {
        dim: size
        for spec in signature.inputs
        for axis, (dim, size) in enumerate(zip(spec.shape, row[spec.name].shape, strict=True))
        if isinstance(dim, str) and axis != rows.axes[spec.name]
    }


def _once(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Each finding once, in order."""
    return tuple(dict.fromkeys(findings))
