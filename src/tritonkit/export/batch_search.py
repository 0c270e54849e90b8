"""Find the nodes that hold a fixed batch, and a mend for each.

Each node is run by itself on what it would read in a larger batch. It holds the batch if it fails,
or gives anything but what it gave for the small batches, joined in some way. What decides is what
nodes do, never what they are called.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tritonkit.errors import ModelError, describe
from tritonkit.export.batch_join import AT_FRONT, Join, find_join
from tritonkit.export.batch_mends import Mend, NumberRows, Read, Repeat, repeats, scales
from tritonkit.export.batch_node import Slot, label, rewired, run_node, slots
from tritonkit.export.batch_oracle import Oracle

if TYPE_CHECKING:
    import onnx

Mends = Mapping[Slot, Mend]
"""What a node is to read otherwise."""

_MAX_REPEATS = 5
"""How often all nodes may be run again, in other ways, once none of the plainest ways led on."""

_MAX_TOGETHER = 3
"""Slots of one node that are mended together: an LSTM's two states and its lengths."""

_MAX_COMBINATIONS = 300

_MAX_COLUMNS = 8
"""Indices into more dimensions than these are not looked at."""


class HeldBatchError(ModelError):
    """A node holds the batch, and no mend was found. holder: the node; why: what it does."""

    def __init__(self, holder: str, why: str) -> None:
        super().__init__(f"{holder} {why}")
        self.holder = holder
        self.why = why


@dataclass(frozen=True)
class _Step:
    """One way to go on behind a node. joins: how each output that depends on the rows is made of
    those for the small batches; values: the other outputs."""

    mends: Mends = field(default_factory=dict)
    joins: Mapping[str, Join] = field(default_factory=dict)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)


class Search:
    """One search over a model's nodes, in order; behind them each output counts as one more.

    If several ways are open at a node the plainest is taken, and the others later, if a node
    behind it then fails.
    """

    def __init__(self, model: onnx.ModelProto, oracle: Oracle) -> None:
        """model: whose graph is the oracle's."""
        self._model = model
        self._oracle = oracle
        self._nodes = list(model.graph.node)
        self._outputs = [value.name for value in model.graph.output]
        self._slots = [slots(node) for node in self._nodes]
        self._slots += [[Slot(name, 0)] for name in self._outputs]
        self._used = {slot.name for read in self._slots for slot in read}
        self._maker = {n: i for i, node in enumerate(self._nodes) for n in node.output if n}
        self._behind = self._ancestors()
        inputs = [v.name for v in model.graph.input]
        rows = [n for n in inputs if oracle.kind(n) == "rows"]
        self._joins: dict[str, Join] = dict.fromkeys(rows, AT_FRONT)
        self._values: dict[str, np.ndarray] = {}
        self._moved: dict[str, str] = {}
        self._why: dict[int, str] = {}
        self._runs = 0

    def mends(self) -> dict[int, Mends]:
        """By the index of the node, or behind them of the output, what it is to read otherwise.

        HeldBatchError if there is no way to the outputs, with the node that the plainest ended at.
        """
        steps: dict[int, _Step] = {}
        open_ways: dict[int, Iterator[_Step]] = {}
        blamed: dict[int, int] = {}
        held: HeldBatchError | None = None
        most_runs = 0
        index = 0
        while index < len(self._slots):
            if index in steps:
                index += 1
                continue
            ways = open_ways.setdefault(index, self._ways(index))
            step = next(ways, None)
            if step is not None:
                steps[index] = step
                self._take(index, step)
                continue
            if held is None:
                held = self._held(index)
                most_runs = self._runs + _MAX_REPEATS * len(self._slots) + _MAX_COMBINATIONS
            # Back to the last node before this one that could be done otherwise.
            del open_ways[index]
            earlier = (blamed.pop(index, 0) | self._behind[index]) & ((1 << index) - 1)
            choices = sum(1 << i for i in open_ways if earlier >> i & 1)
            if not choices or self._runs > most_runs:
                raise held
            back = choices.bit_length() - 1
            blamed[back] = blamed.get(back, 0) | earlier & ~(1 << back)
            for later in [i for i in steps if i == back or self._behind[i] >> back & 1]:
                del steps[later]
                if later != back:
                    open_ways.pop(later, None)
            index = back
        return {i: step.mends for i, step in steps.items() if step.mends}

    def _ancestors(self) -> list[int]:
        """By node, those that it depends on, as bits."""
        behind: list[int] = []
        for read in self._slots:
            bits = 0
            for slot in read:
                maker = self._maker.get(slot.name)
                if maker is not None:
                    bits |= 1 << maker | behind[maker]
            behind.append(bits)
        return behind

    def _take(self, index: int, step: _Step) -> None:
        self._joins.update(step.joins)
        self._values.update(step.values)
        if index >= len(self._nodes):
            return
        node = self._nodes[index]
        came = [self._moved[s.name] for s in self._slots[index] if s.name in self._moved]
        for name, join in step.joins.items():
            self._moved.pop(name, None)
            if join.axis or not join.is_whole_axis(self._oracle.parts(name)[0], self._oracle.batch):
                self._moved[name] = came[0] if came else label(node)

    def _now(self, name: str) -> np.ndarray:
        """A tensor as it is for the larger batch, with the steps taken so far."""
        if name in self._joins:
            return self._joins[name].of(self._oracle.parts(name))
        return self._values[name] if name in self._values else self._oracle.constant(name)

    def _read(self, name: str) -> Read:
        before, constant = self._oracle.parts(name)[0], self._oracle.kind(name) == "constant"
        return Read(name, before, self._now(name), constant)

    # The ways to go on behind a node, the plainest first.

    def _ways(self, index: int) -> Iterator[_Step]:
        if index >= len(self._nodes):
            yield from self._output_ways(index)
            return
        node = self._nodes[index]
        kind = self._oracle.kind(next(filter(None, node.output)))
        if kind == "constant":
            yield _Step()
            return
        natural = self._try(index, {})
        self._why[index] = natural if isinstance(natural, str) else ""
        if isinstance(natural, _Step):
            yield natural
            if kind == "shape":
                return
        seen = [natural.joins] if isinstance(natural, _Step) else []
        single = self._candidates(index, everything=not seen)
        found = self._tried(index, [{slot: mend} for slot, mend in single])
        if not seen and not found:
            several = (
                dict(chosen)
                for count in range(2, _MAX_TOGETHER + 1)
                for chosen in itertools.combinations(single, count)
                if len({slot for slot, _ in chosen}) == count
            )
            found = self._tried(index, itertools.islice(several, _MAX_COMBINATIONS), first=True)
        for step in found:
            if step.joins not in seen:
                seen.append(step.joins)
                yield step

    def _tried(self, index: int, ways: Iterable[Mends], first: bool = False) -> list[_Step]:
        """Those that work, with the least merged batch first; with `first`, just one."""
        found = []
        for mends in ways:
            step = self._try(index, mends)
            if isinstance(step, _Step):
                found.append(step)
                if first:
                    break
        return sorted(found, key=self._mergedness)

    def _mergedness(self, step: _Step) -> int:
        batch = self._oracle.batch
        return sum(
            0 if j.is_whole_axis(self._oracle.parts(n)[0], batch) else 1 if j.outer == 1 else 2
            for n, j in step.joins.items()
        )

    def _candidates(self, index: int, *, everything: bool) -> list[tuple[Slot, Mend]]:
        """What may be changed about what a node reads; without `everything` only sizes."""
        batch = self._oracle.batch
        sizes, tiles, numbers = [], [], []
        for slot in self._slots[index]:
            if self._oracle.may_be_sizes(slot.name):
                sizes += [(slot, mend) for mend in scales(self._read(slot.name), batch)]
            if everything and self._oracle.kind(slot.name) != "rows":
                tiles += [(slot, mend) for mend in repeats(self._read(slot.name), batch)]
            if everything:
                numbers += [(slot, mend) for mend in self._numbers(index, slot)]
        return [*sizes, *tiles, *numbers]

    def _numbers(self, index: int, slot: Slot) -> Iterator[NumberRows]:
        """The ways to add the number of the row to what may be indices."""
        read, batch = self._read(slot.name), self._oracle.batch
        if read.before.dtype not in (np.int64, np.int32):
            return
        shape, last = read.before.shape, read.before.ndim - 1
        join = self._joins.get(slot.name)
        if join is None:
            axes = [n for n, size in enumerate(shape) if size == batch and read.now.shape == shape]
        else:
            # In a batch of several these would have the number of the row in that batch already.
            axes = [join.axis] if batch == 1 and join.outer == 1 else []
        for axis in axes:
            ways = []
            if axis != last:
                columns = range(min(shape[last], _MAX_COLUMNS))
                ways += [NumberRows(axis, join is not None, column) for column in columns]
            for other in self._slots[index]:
                placed = self._joins.get(other.name)
                if other != slot and placed is not None and placed.outer == 1:
                    size = self._oracle.parts(other.name)[0].shape[placed.axis] // batch
                    grown = join is not None
                    ways.append(NumberRows(axis, grown, None, other.name, placed.axis, size))
            for way in ways:
                if join is not None or np.array_equal(way.value(read, batch, 1), read.before):
                    yield way

    def _try(self, index: int, mends: Mends) -> _Step | str:
        """The step behind a node that is mended so, or why it cannot be taken."""
        self._runs += 1
        node, oracle = self._nodes[index], self._oracle
        fed, constants = {}, {}
        changes: dict[Slot, str] = {}
        for slot in self._slots[index]:
            if slot in mends:
                changes[slot] = f"mended:{len(changes)}"
                read = self._read(slot.name)
                fed[changes[slot]] = mends[slot].value(read, oracle.batch, oracle.count)
            elif oracle.kind(slot.name) == "constant":
                constants[slot.name] = oracle.constant(slot.name)
            else:
                fed[slot.name] = self._now(slot.name)
        rows = oracle.batch * oracle.count
        try:
            got = run_node(self._model, rewired(node, changes), fed, constants)
        except Exception as error:
            return f"fails for {rows} rows ({_plain(error)})"
        shape_only = oracle.kind(next(iter(got))) == "shape"
        if shape_only and not mends:
            return _Step(values=got)  # with the batch in it or not: who reads it will show that
        joins = {}
        for name in (name for name in got if name in self._used):
            if not isinstance(got[name], np.ndarray):
                return "makes a sequence of tensors"
            parts = oracle.parts(name)
            join = find_join(parts, got[name], oracle.batch)
            if join is None:
                one, many = list(parts[0].shape), list(got[name].shape)
                return (
                    f"gives {rows} rows not what it gives {oracle.batch} at a time "
                    f"(shape {many} for {rows}, {one} for {oracle.batch})"
                )
            joins[name] = join
        return _Step(mends, values=got) if shape_only else _Step(mends, joins)

    def _output_ways(self, index: int) -> Iterator[_Step]:
        name, batch = self._slots[index][0].name, self._oracle.batch
        read = self._read(name)
        if self._oracle.kind(name) == "rows":
            join = self._joins[name]
            if not join.axis and join.is_whole_axis(read.before, batch):
                yield _Step()
            elif join.is_whole_axis(read.before, batch):
                self._why[index] = f"has the batch on axis {join.axis}, not on axis 0"
            else:
                self._why[index] = f"has the batch merged into axis {join.axis}"
        elif read.now.shape[:1] == (batch * self._oracle.count,):
            yield _Step()
        elif Repeat(0) in repeats(read, batch) and read.before.shape[0] == batch:
            yield _Step({self._slots[index][0]: Repeat(0)})
        else:
            self._why[index] = "does not depend on the inputs"

    def _held(self, index: int) -> HeldBatchError:
        """What is said about a node, or an output, behind which there is no way."""
        moved = [self._moved[s.name] for s in self._slots[index] if s.name in self._moved]
        why = self._why[index]
        if index < len(self._nodes):
            where = f"; {moved[0]} has moved the batch from axis 0 before it" if moved else ""
            return HeldBatchError(label(self._nodes[index]), why + where)
        name = self._slots[index][0].name
        if not moved and name not in self._maker:
            return HeldBatchError(f"output '{name}'", why)
        maker = moved[0] if moved else label(self._nodes[self._maker[name]])
        return HeldBatchError(maker, f"is why output '{name}' {why}")


def _plain(error: Exception) -> str:
    """ONNX Runtime's reason, without the places in its source."""
    text = describe(error)
    for before in ("Status Message: ", " was false. ", "[ShapeInferenceError] "):
        text = text.split(before)[-1]
    return text.strip()
