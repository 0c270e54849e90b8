"""What a check found out, as values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from tritonkit.check.gain import Gain
from tritonkit.check.padding import PaddingEffect
from tritonkit.verification import Verdict, Verification


@dataclass(frozen=True)
class Finding:
    """One thing that speaks against batching.

    kind: `neighbour`, `batch_size`, `random`, `shape`, `fails`, `parity`, `signature`, or, where
    there is no batch at all, `fixed_batch`, `batch_axis`, `no_batch_axis`, `time`, `set`, `graph`,
    `merged`.
    tensor: the input or output that shows it. node: the first node of the graph at which the row
    diverges, where one was found; its operator is op_type. max_abs_diff: None where the difference
    is no number (another shape; NaN against a number). batch: rows of the batch that showed it.
    """

    kind: str
    tensor: str
    why: str
    remedy: str
    node: str | None = None
    op_type: str | None = None
    max_abs_diff: float | None = None
    batch: int | None = None

    def to_json(self) -> dict[str, object]:
        """Its fields, ready for `json.dumps`."""
        record = asdict(self)
        if self.max_abs_diff is not None and not math.isfinite(self.max_abs_diff):
            record["max_abs_diff"] = None
        return record


@dataclass(frozen=True)
class Proof:
    """The result of a check.

    tolerance: with SAFE_WITHIN, by how much an answer changes with the size of the batch.
    max_batch_size: the largest batch that was proved; 0 where none may be made. batch_axis: of
    each input and output; None where it has none. tried: kind of neighbour → batches that had
    one. sizes: of the other dynamic dimensions, as tried and timed. notes: what a reader should
    know that speaks neither for nor against.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    batch_axis: Mapping[str, int | None]
    tolerance: float | None = None
    max_batch_size: int = 0
    batches: tuple[int, ...] = ()
    tried: Mapping[str, int] | None = None
    padding: tuple[PaddingEffect, ...] = ()
    gain: Gain | None = None
    sizes: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether strangers' rows may share a batch."""
        return self.verdict.batchable

    @property
    def headline(self) -> str:
        """The verdict in words: `safe`, `safe within tolerance 0.017`, `unsafe`, …"""
        return str(self.verdict) + (f" {self.tolerance:.2g}" if self.tolerance is not None else "")

    @property
    def verification(self) -> Verification:
        """The part that `package` and `lint` go by."""
        reasons = tuple(finding.why for finding in self.findings)
        return Verification(self.verdict, self.max_batch_size, reasons)

    def to_json(self) -> dict[str, object]:
        """As it stands in verification.json and is printed by `tritonkit check --json`."""
        return {
            "verdict": str(self.verdict),
            "tolerance": self.tolerance if math.isfinite(self.tolerance or 0) else None,
            "max_batch_size": self.max_batch_size,
            "batch_axis": dict(self.batch_axis),
            "findings": [finding.to_json() for finding in self.findings],
            "gain": {str(batch): ratio for batch, ratio in self.gain.ratios.items()}
            if self.gain
            else {},
            "padding": [_padding_json(effect) for effect in self.padding],
            "batches": list(self.batches),
            "neighbours": dict(self.tried or {}),
            "sizes": dict(self.sizes or {}),
            "notes": list(self.notes),
        }


def _padding_json(effect: PaddingEffect) -> dict[str, object]:
    record = asdict(effect)
    if not math.isfinite(effect.max_abs_diff):
        record["max_abs_diff"] = None
    record["pad_values"] = {
        name: value if not isinstance(value, float) or math.isfinite(value) else str(value)
        for name, value in effect.pad_values.items()
    }
    return record
