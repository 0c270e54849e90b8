"""magika's model as it is: the first and last bytes of a file → what kind of file it is.

Weights: Google's magika 1.0.3, model standard_v3_3, Apache-2.0, from the package `magika`. The
ONNX file is taken byte for byte. It is the counter-example: on a CPU a batch of it takes as long
as its rows one after another, and tritonkit should say so.

Its answers are a warning, too: its layer norm takes E[x²] - E[x]², which blows rounding up, so that
a file's probabilities alone and in a batch of 2 or more can differ by 0.02 (neighbours.py).

Input `bytes` INT32[batch,2048], output `target_label` FP32[batch,214] (probabilities).
"""

from __future__ import annotations

import json
import os
import sysconfig
from pathlib import Path

import numpy as np

from tritonkit.errors import SetupError
from tritonkit.examples.example import Example, package_folder
from tritonkit.export.source import Source, load_source
from tritonkit.payloads import Payload

_END_BYTES = 1024
_BLOCK_BYTES = 4096
_PAD = 256
_LEAST_BYTES = 8
_PER_SUFFIX = 24
_SUFFIXES = (
    *(".py", ".so", ".json", ".txt", ".html", ".png", ".h", ".md", ".pyi", ".css", ".js", ".toml"),
    *(".svg", ".yaml", ".xml", ".csv", ".npy", ".npz", ".gz", ".zip", ".exe", ".bat", ".sh"),
)


def source() -> Source:
    """The ONNX file inside the installed package."""
    return load_source(str(_model_folder() / "model.onnx"))


def features(content: bytes) -> np.ndarray | None:
    """A file's content as the model takes it, INT32[1,2048]; None if there is too little of it.

    Of the first 4096 bytes without leading white space the first 1024, of the last 4096 without
    trailing white space the last 1024; what is missing is 256, at the far ends. magika asks its
    model about nothing that has fewer than 8 bytes left.
    """
    start = content[:_BLOCK_BYTES].lstrip()[:_END_BYTES]
    end = content[-_BLOCK_BYTES:].rstrip()[-_END_BYTES:]
    if len(start) < _LEAST_BYTES:
        return None
    row = np.full((1, 2 * _END_BYTES), _PAD, dtype=np.int32)
    row[0, : len(start)] = list(start)
    row[0, 2 * _END_BYTES - len(end) :] = list(end)
    return row


def labels() -> list[str]:
    """The names of the model's 214 outputs, in order."""
    config = json.loads((_model_folder() / "config.min.json").read_text(encoding="utf-8"))
    return [str(label) for label in config["target_labels_space"]]


def files() -> list[Path]:
    """Files of this Python and the packages installed in it, up to 24 of each kind.

    The same ones on the same installation; taken evenly from all in alphabetical order.
    """
    by_suffix: dict[str, set[Path]] = {suffix: set() for suffix in _SUFFIXES}
    for place in ("stdlib", "purelib"):
        for folder, inner, names in os.walk(sysconfig.get_path(place)):
            inner[:] = [name for name in inner if name != "__pycache__"]
            for name in names:
                if (suffix := Path(name).suffix) in by_suffix:
                    by_suffix[suffix].add(Path(folder, name))
    chosen = []
    for paths in map(sorted, by_suffix.values()):
        chosen += paths[:: max(1, len(paths) // _PER_SUFFIX)][:_PER_SUFFIX]
    return chosen


def payloads() -> list[Payload]:
    """One request for each of `files` that the model would be asked about."""
    rows = [features(path.read_bytes()) for path in files()]
    return [{"bytes": row} for row in rows if row is not None]


def _model_folder() -> Path:
    folder = package_folder("magika", "file_type", "magika") / "models" / "standard_v3_3"
    if not folder.is_dir():
        raise SetupError(
            "the example file_type needs magika 1.0.3, but another version is installed; "
            "pip install 'tritonkit[examples]'"
        )
    return folder


EXAMPLE = Example(
    name="file_type",
    summary="magika file type detection: batching does not pay on a CPU",
    weights="real weights: Google magika 1.0.3 standard_v3_3, Apache-2.0, from the package magika",
    max_batch_size=32,
    source=source,
    payloads=payloads,
)
