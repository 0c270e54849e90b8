"""Export a model, prove that it may be batched, and write down the proof.

The folder that results holds

    model.onnx          the model (with its external data files, if it has any)
    verification.json   what it is, where it comes from, and by how much it differed
    payloads.npz        single requests to send to it
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tritonkit.check.neighbours import check_neighbours
from tritonkit.check.onnx_model import OnnxModel
from tritonkit.check.parity import Parity
from tritonkit.errors import ModelError
from tritonkit.export.folder import filled_folder
from tritonkit.export.source import OnnxSource, Source, TorchSource
from tritonkit.export.torch_to_onnx import torch_to_onnx
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


@dataclass(frozen=True)
class Exported:
    """What was written to `folder`.

    exporter: `dynamo`, `torchscript` or `copy`; why that one. checks: all passed; against PyTorch
    (if that is what it was), each row among copies of itself, and each row alone.
    """

    folder: Path
    signature: ModelSignature
    exporter: str
    why: str
    checks: tuple[Parity, ...]

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
) -> Exported:
    """Write `source` to `out_dir` as an ONNX file that was proved to run in batches.

    payloads: real single requests; left out, the rows of a PyTorch model's example inputs, or
    random ones for an ONNX file. notes: what a reader of verification.json should know.
    Nothing is left behind on any failure. ModelError if the model cannot be exported, run or
    batched; CheckFailedError if its batched answers are wrong.
    """
    with filled_folder(out_dir, last=VERIFICATION) as folder:
        model = folder / MODEL
        if isinstance(source, TorchSource):
            made = torch_to_onnx(source, model)
            exporter, why, checks = made.exporter, made.why, [made.parity]
            signature = read_signature(model)
            requests, origin = _requests(source.text, signature, payloads, source.inputs)
            opened, examples = OnnxModel(model), source.inputs
        else:
            _copy_onnx(source, model)
            exporter, why, checks = "copy", "the model is ONNX already", []
            signature = read_signature(model)
            requests, origin = _requests(source.text, signature, payloads, None)
            opened, examples = OnnxModel(source.path), _stack_alike(requests)
        checks += check_neighbours(opened, examples)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        write_payloads(folder / PAYLOADS, requests)
        record = {
            "source": source.text,
            "notes": list(notes),
            "signature": signature.to_json(),
            "exporter": {"name": exporter, "why": why},
            "versions": _versions(source),
            **_format(model),
            "sha256": {path.relative_to(folder).as_posix(): file_sha256(path) for path in files},
            "payloads": {"count": len(requests), "origin": origin},
            "checks": [asdict(check) for check in checks],
        }
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / VERIFICATION).write_text(text + "\n", encoding="utf-8")
    return Exported(out_dir, signature, exporter, why, tuple(checks))


def _copy_onnx(source: OnnxSource, target: Path) -> None:
    """Copy the file, and its external data files to the same places beside it."""
    read_signature(source.path).require_batch_axis(source.text)
    shutil.copyfile(source.path, target)
    for location, data in external_files(source.path).items():
        copy = target.parent / location
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data, copy)


def _requests(
    text: str,
    signature: ModelSignature,
    payloads: Sequence[Mapping[str, np.ndarray]] | None,
    examples: Mapping[str, np.ndarray] | None,
) -> tuple[list[Payload], str]:
    """The requests to keep, and where they are from: those given, the example rows, or chance."""
    if payloads is not None:
        for index, payload in enumerate(payloads):
            _check_payload(f"{text}: payload {index}", signature, payload)
        return [dict(payload) for payload in payloads], "given"
    if examples is not None:
        count = len(next(iter(examples.values())))
        rows = [{name: a[i : i + 1] for name, a in examples.items()} for i in range(count)]
        return rows, "the example inputs"
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


def _stack_alike(payloads: list[Payload]) -> Payload:
    """Those payloads that have the commonest shapes, as one batch."""
    if not payloads:
        raise ModelError("an empty list of payloads was given; give one request or more, or none")
    shapes = [tuple(sorted((n, a.shape) for n, a in payload.items())) for payload in payloads]
    commonest = Counter(shapes).most_common(1)[0][0]
    alike = [payload for payload, shape in zip(payloads, shapes, strict=True) if shape == commonest]
    return {name: np.concatenate([p[name] for p in alike]) for name in alike[0]}


def _versions(source: Source) -> dict[str, str]:
    torch = ("torch",) if isinstance(source, TorchSource) else ()
    return {name: version(name) for name in (*torch, "onnx", "onnxruntime")}


def _format(path: Path) -> dict[str, object]:
    model = load_onnx(path)
    opset = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    return {"opset": opset, "ir_version": model.ir_version}
