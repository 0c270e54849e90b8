"""What may be packaged of a model: never more than was proved of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tritonkit.errors import CheckFailedError, RepositoryError
from tritonkit.verification import Verification, file_sha256

DEFAULT_MAX_BATCH_SIZE = 32
"""The rows of a model of which more were proved, and nothing else was asked for."""


def needs_proof(asked: int | None, verification: Verification | None, *, force: bool) -> bool:
    """Whether so many rows have to be proved yet: nothing is known, or less than is asked for.

    What was found unsafe stays so, and by force what is known is enough.
    """
    if asked == 0:
        return False
    if verification is None:
        return True
    more = asked is not None and asked > verification.max_batch_size
    return more and verification.verdict.batchable and not force


def allowed_batch_size(
    model: str, asked: int | None, verification: Verification | None, *, force: bool
) -> int:
    """The max_batch_size to package with; 0 is unbatched, which needs no proof.

    asked: None takes what was proved, up to DEFAULT_MAX_BATCH_SIZE. verification: None means that
    nothing was looked into, and nothing is refused. CheckFailedError for a model that must not be
    batched, RepositoryError for more rows than were proved; force turns both off.
    """
    if asked == 0:
        return 0
    if verification is None or force:
        proved = verification.max_batch_size if verification is not None else 0
        return asked or min(DEFAULT_MAX_BATCH_SIZE, proved or DEFAULT_MAX_BATCH_SIZE)
    if not verification.verdict.batchable:
        why = "; ".join(verification.reasons) or "see the check"
        raise CheckFailedError(
            f"model '{model}' is {verification.verdict}: {why}. Serve it unbatched with "
            "--max-batch-size 0, or package it all the same with --force"
        )
    if asked is not None and asked > verification.max_batch_size:
        raise RepositoryError(
            f"model '{model}': max_batch_size {asked} is more than the "
            f"{verification.max_batch_size} that were proved; export it again with tritonkit "
            f"export … --max-batch-size {asked}, ask for {verification.max_batch_size} or less, or "
            "--force"
        )
    return asked or min(DEFAULT_MAX_BATCH_SIZE, verification.max_batch_size)


def record(model: Path, check: Mapping[str, object], exported: Path | None) -> bytes:
    """The verification.json of a model that was checked just now, as the check tells it.

    exported: the export's own, whose other findings stay if they are about this very file.
    """
    sha256 = file_sha256(model)
    known: dict[str, object] = {}
    hashes: dict[str, object] = {}
    if exported is not None:
        try:
            known = dict(json.loads(exported.read_text(encoding="utf-8")))
            hashes = dict(known.get("sha256", {}))  # type: ignore[call-overload]
        except (ValueError, TypeError, AttributeError):
            known = hashes = {}
        if hashes.get("model.onnx") != sha256:
            known = hashes = {}
    document = {**known, "sha256": {**hashes, "model.onnx": sha256}, "check": dict(check)}
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
