"""Rules about verification.json: whether batches of this model were proved to be safe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tritonkit.errors import ModelError
from tritonkit.repository.layout import MODEL
from tritonkit.repository.lint.entry import Entry
from tritonkit.repository.lint.problem import Finding
from tritonkit.verification import VERIFICATION, Verification, read_verification


def unsafe_batching(entry: Entry) -> Iterator[Finding]:
    """A model whose rows feel each other, or that has none, in batches."""
    for file, most, proof in _proofs(entry):
        if isinstance(proof, Verification) and not proof.verdict.batchable:
            reasons = f" ({'; '.join(proof.reasons)})" if proof.reasons else ""
            yield Finding(
                entry.line("max_batch_size"),
                f"max_batch_size is {most}, and {file} was found {proof.verdict}{reasons}",
                "requests get answers that depend on what else is in the batch",
                "write max_batch_size: 1 or less, or mend the model: tritonkit check tells where",
            )


def batch_over_proof(entry: Entry) -> Iterator[Finding]:
    """max_batch_size beyond the largest batch that was proved."""
    for file, most, proof in _proofs(entry):
        if not isinstance(proof, Verification) or not proof.verdict.batchable:
            continue
        if most > proof.max_batch_size:
            yield Finding(
                entry.line("max_batch_size"),
                f"max_batch_size is {most}, and {file} was proved up to {proof.max_batch_size}",
                "nobody knows whether rows keep their own answers in larger batches",
                f"write max_batch_size: {proof.max_batch_size}, or check larger batches",
            )


def not_proved(entry: Entry) -> Iterator[Finding]:
    """A model that is batched and was never checked."""
    for file, most, proof in _proofs(entry):
        if proof is None:
            yield Finding(
                entry.line("max_batch_size"),
                f"max_batch_size is {most}, and no check of {file} is beside it",
                "a batch of a model whose rows feel each other gives wrong answers in silence",
                f"run tritonkit check {file}; tritonkit package writes the check too",
            )


def proof_unreadable(entry: Entry) -> Iterator[Finding]:
    """A verification.json that cannot be read."""
    for _, _, proof in _proofs(entry):
        if isinstance(proof, ModelError):
            what, _, remedy = str(proof).rpartition("; ")
            yield Finding(entry.line("max_batch_size"), what, "it proves nothing", remedy)


def _proofs(entry: Entry) -> Iterator[tuple[Path, int, Verification | ModelError | None]]:
    """Each version that is batched: its file, its most rows, and what was proved of it."""
    for version, model in entry.loadable():
        most = entry.max_batch_size(model)
        if most > 1:
            folder = entry.folder / str(version)
            file = folder / (entry.message.default_model_filename or MODEL)
            file = file / MODEL if file.is_dir() else file
            try:
                yield file, most, read_verification(folder / VERIFICATION, file)
            except ModelError as error:
                yield file, most, error
