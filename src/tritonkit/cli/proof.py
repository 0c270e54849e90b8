"""The result of a check, for people."""

from __future__ import annotations

import click

from tritonkit.check.proof import Proof
from tritonkit.cli.lines import print_line


def print_proof(model: str, proof: Proof) -> None:
    """The verdict, its reasons, and what is known besides, for people."""
    upto = f", up to a batch of {proof.max_batch_size}" if proof.passed else ""
    click.echo(f"{model}: {proof.headline}{upto}")
    for finding in proof.findings:
        print_line(finding.kind, finding.why)
        print_line("", f"→ {finding.remedy}")
    if any(axis is not None for axis in proof.batch_axis.values()):
        axes = [f"{name} {_axis(axis)}" for name, axis in proof.batch_axis.items()]
        print_line("batch axis", ", ".join(axes))
    if proof.tried:
        sizes = ", ".join(map(str, proof.batches[1:]))
        print_line("neighbours", f"{len(proof.tried)} kinds, in batches of {sizes}")
    for effect in proof.padding:
        print_line("padding", f"{effect.dim}: {effect.why}")
    if proof.gain is not None:
        sizes = ", ".join(f"{name} = {size}" for name, size in (proof.sizes or {}).items())
        print_line("gain", f"{proof.gain}" + (f" (with {sizes})" if sizes else ""))
    for note in proof.notes:
        print_line("note", note)


def _axis(axis: int | None) -> str:
    return "has none" if axis is None else str(axis)
