"""Export a model, prove that it may be batched, and write down the proof.

The folder that results holds

    model.onnx          the model (with its external data files, if it has any)
    verification.json   what it is, where it comes from, and what its check found
    payloads.npz        single requests to send to it
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tritonkit.check.check import DEFAULT_MAX_BATCH, Question, check_model
from tritonkit.check.onnx_model import Arrays, OnnxModel
from tritonkit.check.parity import Parity, Reference
from tritonkit.check.proof import Proof
from tritonkit.check.reasons import UNBATCHED
from tritonkit.check.rows import Rows
from tritonkit.errors import CheckFailedError, ModelError
from tritonkit.export.batch_axis import Rewrite, make_batch_dynamic
from tritonkit.export.folder import filled_folder
from tritonkit.export.reference import row_by_row
from tritonkit.export.source import OnnxSource, Source
from tritonkit.export.torch_model import TorchSource
from tritonkit.export.torch_to_onnx import check_export, torch_to_onnx
from tritonkit.payloads import (
    PAYLOADS,
    RANDOM_PAYLOADS,
    Payload,
    random_payloads,
    write_payloads,
)
from tritonkit.signature import (
    ModelSignature,
    data_type_of,
    external_files,
    load_onnx,
    read_signature,
)
from tritonkit.verification import VERIFICATION, file_sha256

MODEL = "model.onnx"

_CHECKED_REQUESTS = 512
"""So many of the requests are rows for the check, which takes those of the commonest shapes."""

_BLOCKS = 4
"""So many different inputs show where rows are in the tensors of a model to be rewritten."""


class UnsafeModelError(CheckFailedError):
    """A model that must not be batched; `proof` says why."""

    def __init__(self, message: str, proof: Proof) -> None:
        super().__init__(message)
        self.proof = proof


@dataclass(frozen=True)
class Exported:
    """What was written to `folder`.

    exporter: `dynamo`, `torchscript`, `…, fixed batch` or `copy`; why that one. parity: against
    PyTorch, if that is what it was. rewrite: what made a fixed batch dynamic, if one was. proof:
    whether it may be batched; only with `force` may it not.
    """

    folder: Path
    signature: ModelSignature
    exporter: str
    why: str
    parity: Parity | None
    rewrite: Rewrite | None
    proof: Proof

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.folder / MODEL


def export_model(
    source: Source,
    out_dir: Path,
    *,
    payloads: Sequence[Mapping[str, np.ndarray]] | None = None,
    notes: Sequence[str] = (),
    max_batch_size: int = DEFAULT_MAX_BATCH,
    force: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Write `source` to `out_dir` as an ONNX file that was proved to run in batches.

    payloads: real single requests; left out, those that the source brings, or random ones. notes:
    what a reader of verification.json should know. max_batch_size: the largest batch to prove.
    force: write it too if it must not be batched. progress: told each step's name.
    Nothing is left behind on any failure. ModelError if the model cannot be exported or run;
    CheckFailedError if it answers something else than its source, or must not be batched.
    """
    with filled_folder(out_dir, last=VERIFICATION) as folder:
        progress("exporting")
        made = _write_onnx(source, folder / MODEL, payloads)
        question = Question(
            max_batch_size=max_batch_size,
            examples=made.requests[:_CHECKED_REQUESTS] if made.origin != "random" else (),
            sizes=_sizes(made.signature, made.requests[0]),
            reference=made.reference,
            against=made.against,
        )
        proof = check_model(folder / MODEL, question, lambda step: progress(f"checking: {step}"))
        if not proof.passed and not force:
            raise UnsafeModelError(_refusal(source.text, proof), proof)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        write_payloads(folder / PAYLOADS, made.requests)
        record = {
            "source": source.text,
            "notes": list(notes),
            "signature": made.signature.to_json(),
            "exporter": {"name": made.exporter, "why": made.why},
            "rewrite": None if made.rewrite is None else asdict(made.rewrite),
            "versions": _versions(source),
            **_format(folder / MODEL),
            "sha256": {path.relative_to(folder).as_posix(): file_sha256(path) for path in files},
            "payloads": {"count": len(made.requests), "origin": made.origin},
            "parity": None if made.parity is None else asdict(made.parity),
            "check": proof.to_json(),
        }
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / VERIFICATION).write_text(text + "\n", encoding="utf-8")
    return Exported(
        out_dir, made.signature, made.exporter, made.why, made.parity, made.rewrite, proof
    )


@dataclass(frozen=True)
class _Written:
    """A model file, how it came about, and requests for it.

    reference: what it should answer, if anything else knows; against: what that is.
    """

    signature: ModelSignature
    exporter: str
    why: str
    parity: Parity | None
    rewrite: Rewrite | None
    requests: Sequence[Payload]
    origin: str
    reference: Reference | None
    against: str


def _write_onnx(
    source: Source, model: Path, payloads: Sequence[Mapping[str, np.ndarray]] | None
) -> _Written:
    """Write the model file: exported or copied, and with a batch that may change if it had not."""
    if isinstance(source, TorchSource):
        return _export_torch(source, model, payloads)
    OnnxModel(source.path)  # what is wrong with it is said of the user's file, not of a copy
    signature, rewrite, reference = read_signature(source.path), None, None
    requests, origin = _requests(source, signature, payloads)
    if signature.fixed_batch is not None:
        rewrite = make_batch_dynamic(source.path, model, _blocks(signature, requests))
        reference = row_by_row(source.path, rewrite.batch)
        signature = read_signature(model)
    else:
        _copy_onnx(source, model)
    why = "the model is ONNX already"
    return _Written(
        signature, "copy", why, None, rewrite, requests, origin, reference, "the original"
    )


def _export_torch(
    source: TorchSource, model: Path, payloads: Sequence[Mapping[str, np.ndarray]] | None
) -> _Written:
    made, rewrite = torch_to_onnx(source, model), None
    signature, parity = read_signature(model), made.parity
    requests, origin = _requests(source, signature, payloads)
    if made.fixed_batch is not None:
        try:
            rewrite = make_batch_dynamic(model, model, _blocks(signature, requests))
        except ModelError as error:
            words = str(error).removeprefix(f"{model}: ")
            raise ModelError(f"{source.text}: {words} ({made.exporter}: {made.why})") from error
        signature, parity = read_signature(model), check_export(source, model)
    return _Written(
        *(signature, made.exporter, made.why, parity, rewrite, requests, origin),
        reference=source.run,
        against=source.against,
    )


def _copy_onnx(source: OnnxSource, target: Path) -> None:
    """Copy the file, and its external data files to the same places beside it."""
    shutil.copyfile(source.path, target)
    for location, data in external_files(source.path).items():
        copy = target.parent / location
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data, copy)


def _blocks(signature: ModelSignature, requests: Sequence[Payload]) -> list[Arrays]:
    """Different inputs for a model that takes just so many rows, made of requests and by chance."""
    size = signature.fixed_batch
    assert size is not None
    first = requests[0]
    sizes = _sizes(signature, first)
    axes = dict.fromkeys((spec.name for spec in signature.inputs), 0)
    alike = [r for r in requests if all(r[name].shape == a.shape for name, a in first.items())]
    chance = (Rows(signature, axes, sizes).row(seed=seed) for seed in range(64))
    rows = [*_different(alike), *chance]
    blocks = [[rows[(i * size + j) % len(rows)] for j in range(size)] for i in range(_BLOCKS)]
    return [
        {name: np.concatenate([row[name] for row in block]) for name in axes} for block in blocks
    ]


def _sizes(signature: ModelSignature, request: Payload) -> dict[str, int]:
    """The sizes of the dynamic dimensions in a request, where a scalar has a row of its own."""
    return {
        dim: size
        for spec in signature.inputs
        for dim, size in zip(spec.shape, request[spec.name].shape, strict=False)
        if isinstance(dim, str)
    }


def _different(requests: Sequence[Payload]) -> list[Payload]:
    """Each request once."""
    seen = {tuple(array.tobytes() for array in request.values()): request for request in requests}
    return list(seen.values())


def _refusal(text: str, proof: Proof) -> str:
    first, *others = proof.findings
    more = f" (and {len(others)} more: tritonkit check)" if others else ""
    remedy = first.remedy.removesuffix(UNBATCHED).removesuffix("; or ")
    return (
        f"{text} is {proof.headline}: {first.why}{more}; {remedy or 'mend it'}; or export it with "
        f"--force, and {UNBATCHED}"
    )


def _requests(
    source: Source,
    signature: ModelSignature,
    payloads: Sequence[Mapping[str, np.ndarray]] | None,
) -> tuple[list[Payload], str]:
    """The requests to keep, and where they are from: those given, the source's own, or chance."""
    if payloads is not None:
        if not payloads:
            raise ModelError("an empty list of payloads was given; give one request or more")
        for index, payload in enumerate(payloads):
            _check_payload(f"{source.text}: payload {index}", signature, payload)
        return [dict(payload) for payload in payloads], "given"
    if source.requests:
        return list(source.requests), source.origin
    return random_payloads(signature, RANDOM_PAYLOADS), "random"


def _check_payload(what: str, signature: ModelSignature, payload: Mapping[str, np.ndarray]) -> None:
    """ModelError unless it has just the model's inputs, in its dtypes and shapes, of one row."""
    names = [spec.name for spec in signature.inputs]
    if set(payload) != set(names):
        raise ModelError(f"{what} has inputs {sorted(payload)}, the model {names}; name them alike")
    for spec in signature.inputs:
        array = payload[spec.name]
        wanted = (1, *spec.shape[1:])
        fits = len(wanted) == array.ndim and all(
            isinstance(want, str) or want == size
            for want, size in zip(wanted, array.shape, strict=True)
        )
        if not fits or data_type_of(array) != spec.dtype:
            raise ModelError(
                f"{what}: '{spec.name}' is {array.dtype}{list(array.shape)}, but one row of "
                f"{spec} is wanted; convert it"
            )


def _versions(source: Source) -> dict[str, str]:
    torch = ("torch",) if isinstance(source, TorchSource) else ()
    return {name: version(name) for name in (*torch, "onnx", "onnxruntime")}


def _format(path: Path) -> dict[str, object]:
    model = load_onnx(path)
    opset = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    return {"opset": opset, "ir_version": model.ir_version}
