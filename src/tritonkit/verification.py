"""verification.json: what `export` and `check` found out about a model, for those who serve it.

`export` writes it beside model.onnx; `package` copies both into the repository's version folder,
where `lint` reads it again. It counts only for the very file whose sha256 it names.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tritonkit.errors import ModelError

VERIFICATION = "verification.json"


class Verdict(StrEnum):
    """May strangers' requests share a batch of this model?"""

    SAFE = "safe"
    SAFE_WITHIN = "safe within tolerance"
    UNSAFE = "unsafe"
    NOT_BATCHABLE = "not batchable"

    @property
    def batchable(self) -> bool:
        """Whether a batch gives each row its own answer."""
        return self in (Verdict.SAFE, Verdict.SAFE_WITHIN)


@dataclass(frozen=True)
class Verification:
    """What was proved of one model file.

    max_batch_size: the largest batch that was proved; 0 where none may be made.
    reasons: why, one line each; empty for a model that is safe.
    """

    verdict: Verdict
    max_batch_size: int
    reasons: tuple[str, ...]


def read_verification(path: Path, model: Path) -> Verification | None:
    """What the file `path` says about the model file `model`; None if it is not there, tells of
    another file, or holds no check of batch safety. ModelError if it cannot be read.
    """
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        check = record.get("check")
        if check is None or record["sha256"].get("model.onnx") != file_sha256(model):
            return None
        reasons = tuple(str(finding["why"]) for finding in check["findings"])
        return Verification(Verdict(check["verdict"]), int(check["max_batch_size"]), reasons)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{path} is no verification of tritonkit's ({type(error).__name__}: {error}); "
            "export or check the model again"
        ) from error


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
