"""The result of a check, for people."""

from __future__ import annotations

import shutil
import sys
from textwrap import wrap

import click

from tritonkit.check.proof import Proof

_INDENT = 17
_WIDTH = 100 + _INDENT


def print_proof(model: str, proof: Proof) -> None:
    """The verdict, its reasons, and what is known besides, for people."""
    upto = f", up to a batch of {proof.max_batch_size}" if proof.passed else ""
    click.echo(f"{model}: {proof.headline}{upto}")
    for finding in proof.findings:
        _line(finding.kind, finding.why)
        _line("", f"→ {finding.remedy}")
    if any(axis is not None for axis in proof.batch_axis.values()):
        axes = [f"{name} {_axis(axis)}" for name, axis in proof.batch_axis.items()]
        _line("batch axis", ", ".join(axes))
    if proof.tried:
        sizes = ", ".join(map(str, proof.batches[1:]))
        _line("neighbours", f"{len(proof.tried)} kinds, in batches of {sizes}")
    for effect in proof.padding:
        _line("padding", f"{effect.dim}: {effect.why}")
    if proof.gain is not None:
        sizes = ", ".join(f"{name} = {size}" for name, size in (proof.sizes or {}).items())
        _line("gain", f"{proof.gain}" + (f" (with {sizes})" if sizes else ""))
    for note in proof.notes:
        _line("note", note)


def _axis(axis: int | None) -> str:
    return "has none" if axis is None else str(axis)


def _line(label: str, text: str) -> None:
    text = "".join(c if c.isprintable() else "�" for c in text)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
    width = max(40, min(columns, _WIDTH) - _INDENT)
    for i, part in enumerate(wrap(text, width, break_long_words=False, break_on_hyphens=False)):
        click.echo(f"  {label if not i else '':<15}{part}")
