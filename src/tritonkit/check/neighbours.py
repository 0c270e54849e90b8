"""Does a row's answer stay the same whoever shares its batch?

Triton puts requests of strangers in one batch. Two questions, because they have two answers:

* Do rows feel each other? A row is compared with itself among copies of itself, at the same place
  of a batch of the same size. The arithmetic is the same, so nothing but another row can make a
  difference, and the tolerance is narrow. Its neighbours are the worst that one can send: very
  loud and very quiet rows, NaN, the extremes of integer ranges, zeros, padded rows.
* Does the size of the batch matter? A row among copies is compared with itself alone. Kernels may
  sum in another order at another size, and a model whose arithmetic cancels blows that rounding
  up: magika's layer norm takes E[x²] - E[x]², and a row's probabilities move by up to 0.02 between
  a batch of 1 and any larger one, while its neighbours move them by exactly 0. So the tolerance is
  wide, and catches only what is plainly another answer, such as a division by the batch size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tritonkit.check.domain import usable_rows
from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.check.rows import Axes, Kind, Rows
from tritonkit.check.tolerance import NARROW_TOLERANCES, TOLERANCES, WIDE_TOLERANCES, compare
from tritonkit.errors import ModelError

SMALL_BATCHES = (2, 3, 7)

_VICTIMS = (
    *((Kind.USUAL, 1), (Kind.PADDED, 2), (Kind.ENDED, 3), (Kind.SPREAD, 4), (Kind.ONES, 5)),
    *((Kind.USUAL, 6), (Kind.QUIET, 7), (Kind.ZEROS, 8), (Kind.LOUD, 9)),
)
"""Rows to look at, those that tell the most first."""
_MOST_VICTIMS = 5
_STRANGERS = 32

_ORDER = ("random", "neighbour", "shape", "batch_size", "fails")
"""Of findings: what explains the others comes first."""


@dataclass(frozen=True)
class Trial:
    """A batch of `size` rows with `row` at `places`, beside neighbours of `kinds` (none: it is
    the row everywhere).
    """

    row: Arrays
    batch: Arrays
    size: int
    places: tuple[int, ...]
    kinds: tuple[Kind, ...] = ()


@dataclass(frozen=True)
class Felt:
    """A row that was answered differently.

    what: `neighbour` (beside these neighbours), `batch_size` (at this size of the batch, however
    it is made up), `random` (at another run of the same batch), `shape` (an answer of another
    shape, or without rows) or `fails` (the batch does not run, though each row does).
    max_abs_diff: infinity where only one is a number. is_number: the tensor holds floats.
    """

    what: str
    tensor: str
    trial: Trial
    max_abs_diff: float
    worst: str
    is_number: bool = True


@dataclass(frozen=True)
class Neighbourhood:
    """What came of the trials.

    felt: for each output that is in trouble the trial that shows it best. blown_up: the same for
    outputs that differ between a row alone and in a batch by more than the rounding of their dtype
    explains, though not plainly. tried: kind of neighbour → how many batches had one. batches: the
    sizes that ran. constant: outputs that were the same for every row: little is known of them.
    """

    felt: tuple[Felt, ...]
    blown_up: tuple[Felt, ...]
    tried: Mapping[str, int]
    batches: tuple[int, ...]
    constant: tuple[str, ...]


def meet_neighbours(
    model: OnnxModel, rows: Rows, outputs: Axes, max_batch: int, budget_s: float
) -> Neighbourhood:
    """Put rows beside neighbours of every kind, at batches of 2, 3, 7 and `max_batch`.

    outputs: tensor → its batch axis, all of them known. The trials that matter most come first;
    after `budget_s` seconds no further ones begin, but for each size at least one with each kind
    is made. ModelError if the model answers no row with numbers.
    """
    kinds = rows.kinds()
    victims = usable_rows(model, rows, [(k, seed) for k, seed in _VICTIMS if k in kinds])
    victims = victims[:_MOST_VICTIMS]
    if not victims:
        raise ModelError(
            "the model answers none of the rows tried with numbers; give real rows with --input"
        )
    sizes = tuple(sorted({*(n for n in SMALL_BATCHES if n <= max_batch), max_batch} - {1}))
    return _Meeting(model, rows, outputs, victims).hold(sizes, budget_s)


@dataclass(frozen=True)
class _Meet:
    """The row number `victim` in batches of `size`, at the places whose number has the bit `bit`
    (and at those whose number has it not), beside rows of `kinds` in turn.
    """

    victim: int
    size: int
    kinds: tuple[Kind, ...]
    bit: int


class _Meeting:
    def __init__(
        self, model: OnnxModel, rows: Rows, outputs: Axes, victims: Sequence[Arrays]
    ) -> None:
        self._model, self._rows, self._outputs, self._victims = model, rows, outputs, victims
        self._alone = [model.run(row) for row in victims]
        self._copies: dict[tuple[int, int], Arrays | None] = {}
        self._felt: dict[tuple[str, str], Felt] = {}
        self._blown_up: dict[str, Felt] = {}
        self._tried: dict[str, int] = {}
        self._kinds = [
            k for k in rows.kinds() if k is Kind.REPEATED or self._runs(rows.row(k, 100))
        ]

    def hold(self, sizes: Sequence[int], budget_s: float) -> Neighbourhood:
        end = time.perf_counter() + budget_s
        done = [size for size in sizes if self._among_copies(0, size) is not None]
        for meet, needed in self._plan(done):
            if needed or (time.perf_counter() < end and not self._felt):
                self._meet(meet)
        if not self._felt:
            self._meet_strangers(done, time.perf_counter() + budget_s / 2)
        felt = sorted(self._felt.values(), key=lambda f: _ORDER.index(f.what))
        explained: dict[str, str] = {}
        for one in felt:
            explained.setdefault(one.tensor, one.what)
        return Neighbourhood(
            tuple(f for f in felt if f.what == explained[f.tensor]),
            tuple(self._blown_up.values()),
            self._tried,
            (1, *done),
            self._constant(),
        )

    def _plan(self, sizes: Sequence[int]) -> Iterator[tuple[_Meet, bool]]:
        """What to try, and whether it may not be left out, the most telling first.

        Every kind on its own at the smallest batch with room for two neighbours; a mixture of kinds
        at every size, so divided that any two places of a small batch are once a row and its
        neighbour; every further row beside a usual one; NaN at the largest size; then the rest.
        NaN is in no mixture: it would hide the others.
        """
        if not sizes:
            return
        plain = tuple(kind for kind in self._kinds if kind is not Kind.NAN)
        first = 3 if 3 in sizes else sizes[0]
        for kind in self._kinds:
            yield _Meet(0, first, (kind,), 0), True
        for size in sizes:
            bits = (size - 1).bit_length()
            for bit in reversed(range(bits)):
                turned = plain[bit % len(plain) :] + plain[: bit % len(plain)]
                needed = size <= max(SMALL_BATCHES) or bit == bits - 1
                yield _Meet(0, size, turned, bit), needed
        for victim in range(1, len(self._victims)):
            yield _Meet(victim, first, (Kind.USUAL,), 0), True
        if Kind.NAN in self._kinds:
            yield _Meet(0, sizes[-1], (Kind.NAN,), 0), True
        for victim in range(len(self._victims)):
            for size in sizes:
                for start in range(0, len(plain), max(1, size // 2)):
                    yield _Meet(victim, size, plain[start:] + plain[:start], 0), False
                for kind in self._kinds:
                    if (size, victim) != (first, 0):
                        yield _Meet(victim, size, (kind,), 0), False

    def _among_copies(self, victim: int, size: int) -> Arrays | None:
        """What the row is answered among copies of itself; None if such a batch does not run.

        When it is asked for first, it is judged by the row alone and, if small, by another run.
        """
        if (victim, size) not in self._copies:
            self._copies[victim, size] = self._meet_copies(victim, size)
        return self._copies[victim, size]

    def _meet_copies(self, victim: int, size: int) -> Arrays | None:
        row = self._victims[victim]
        batch = self._rows.batch([row] * size)
        everywhere = tuple(range(size))
        trial = Trial(row, batch, size, everywhere)
        try:
            copies = self._model.run(batch)
            again = self._model.run(batch) if size <= max(SMALL_BATCHES) else copies
        except ModelError as error:
            self._note(Felt("fails", next(iter(self._outputs)), trial, np.inf, str(error)))
            return None
        for name, axis in self._outputs.items():
            got = copies[name]
            if axis is None or got.ndim <= axis or got.shape[axis] != size:
                shape = f"its shape is {list(got.shape)} for {size} rows"
                self._note(Felt("shape", name, trial, np.inf, shape))
                continue
            repeat = compare(got, again[name], NARROW_TOLERANCES)
            if repeat.differs:
                self._note(Felt("random", name, trial, repeat.max_abs, repeat.worst))
        for place in everywhere:
            self._compare_alone(row, self._alone[victim], copies, size, place)
        return copies

    def _meet_strangers(self, sizes: Sequence[int], end: float) -> None:
        """Many usual rows together, each against itself alone: how far rounding goes differs from
        row to row, and a few would not show it. All examples if there is time, some in any case;
        the first ones at all sizes, the others at one, as no size is much worse than another.
        """
        most, count = max(sizes, default=1), max(_STRANGERS, len(self._rows.examples))
        for first in range(0, count, most):
            wanted = [(Kind.USUAL, first + i) for i in range(most)]
            drawn = usable_rows(self._model, self._rows, wanted)
            alone = [self._model.run(row) for row in drawn]
            for size in sizes if not first else sizes[-2:-1]:
                for start in range(0, len(drawn) - size + 1, size):
                    batch = drawn[start : start + size]
                    try:
                        answers = self._model.run(self._rows.batch(batch))
                    except ModelError:
                        continue  # said elsewhere
                    for place, row in enumerate(batch):
                        self._compare_alone(row, alone[start + place], answers, size, place)
            if time.perf_counter() > end:
                return

    def _compare_alone(
        self, row: Arrays, alone: Arrays, answers: Arrays, size: int, place: int
    ) -> None:
        """Judge the row at `place` of a batch by itself alone."""
        for name, axis in self._outputs.items():
            if axis is None or answers[name].shape[axis : axis + 1] != (size,):
                continue  # said elsewhere
            one = answers[name].take([place], axis=axis)
            difference = compare(alone[name], one, TOLERANCES)
            if not difference.differs:
                continue
            copies = Trial(row, self._rows.batch([row] * size), size, tuple(range(size)))
            felt = Felt(
                *("batch_size", name, copies, difference.max_abs, difference.worst),
                is_number=one.dtype.kind == "f",
            )
            known = self._blown_up.get(name)
            if known is None or known.max_abs_diff < felt.max_abs_diff:
                self._blown_up[name] = felt
            if compare(alone[name], one, WIDE_TOLERANCES).differs:
                self._note(felt)

    def _meet(self, meet: _Meet) -> None:
        """The row at the places whose number has the bit, and then at the others."""
        copies = self._among_copies(meet.victim, meet.size)
        if copies is None:
            return
        row, size, kinds = self._victims[meet.victim], meet.size, meet.kinds
        for turn in (0, 1):
            mine = [i for i in range(size) if (i >> meet.bit) & 1 == turn]
            between = [i for i in range(size) if i not in mine]
            members: list[Arrays] = [row] * size
            for index, place in enumerate(between):
                members[place] = self._neighbour(row, kinds[index % len(kinds)], place)
            batch = self._rows.batch(members)
            used = kinds[: len(between)]
            trial = Trial(row, batch, size, tuple(mine), used)
            try:
                answers = self._model.run(batch)
            except ModelError as error:
                if all(map(self._runs, members)):
                    self._note(Felt("fails", next(iter(self._outputs)), trial, np.inf, str(error)))
                continue
            for kind in used:
                self._tried[kind.value] = self._tried.get(kind.value, 0) + 1
            for name, axis in self._outputs.items():
                self._judge(name, axis, trial, copies[name], answers[name])

    def _judge(
        self, name: str, axis: int | None, trial: Trial, copies: np.ndarray, got: np.ndarray
    ) -> None:
        if copies.shape != got.shape:
            worst = f"its shape is {list(got.shape)}, among copies {list(copies.shape)}"
            self._note(Felt("shape", name, trial, np.inf, worst))
            return
        for place in trial.places:
            expected, one = (a.take([place], axis=axis) for a in (copies, got))
            difference = compare(expected, one, NARROW_TOLERANCES)
            if difference.differs:
                self._note(Felt("neighbour", name, trial, difference.max_abs, difference.worst))

    def _note(self, felt: Felt) -> None:
        """Keep the trial that shows a trouble most plainly: by the largest number, which says more
        than that something is none.
        """
        key = (felt.what, felt.tensor)
        known = self._felt.get(key)
        if known is None or _plainness(felt) > _plainness(known):
            self._felt[key] = felt

    def _neighbour(self, row: Arrays, kind: Kind, seed: int) -> Arrays:
        if kind is Kind.REPEATED:
            return self._rows.repeated(row)
        return self._rows.row(kind, 100 + seed)

    def _runs(self, row: Arrays) -> bool:
        """Whether the model takes a row alone: one that it refuses is no neighbour."""
        try:
            self._model.run(row)
        except ModelError:
            return False
        return True

    def _constant(self) -> tuple[str, ...]:
        """Outputs that no row tried could move."""
        others = [*self._alone]
        for kind in self._kinds:
            if kind not in (Kind.REPEATED, Kind.NAN):
                others.append(self._model.run(self._rows.batch([self._rows.row(kind, 100)])))
        first = others[0]
        return tuple(
            name
            for name in self._outputs
            if all(
                not compare(first[name], other[name], {}).differs
                for other in others[1:]
                if other[name].dtype.kind != "f" or np.isfinite(other[name]).all()
            )
        )


def _plainness(felt: Felt) -> tuple[bool, bool, bool, float]:
    """Numbers say more than that something is none, one kind of neighbour more than a mixture, and
    a small batch more than a large one.
    """
    trial = felt.trial
    small = trial.size <= max(SMALL_BATCHES)
    return np.isfinite(felt.max_abs_diff), small, len(trial.kinds) <= 1, felt.max_abs_diff
