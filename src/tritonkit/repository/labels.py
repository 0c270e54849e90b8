"""Labels: names for the elements of an output, which Triton's classification answers with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tritonkit.errors import RepositoryError
from tritonkit.repository.tensors import ConfigTensor

# Source: TopkClassifications() in triton-inference-server/server, src/classification.cc.
_UNRANKED = ("BOOL", "FP16", "BYTES")


def with_labels(
    model: str, outputs: tuple[ConfigTensor, ...], labels: Mapping[str, Path]
) -> tuple[tuple[ConfigTensor, ...], dict[str, bytes]]:
    """The outputs with their label files, and those files by their place in the model's folder.

    labels: a file for each output, one label a line; the name "" is the only output. Triton finds
    a label by the index of the element, so there must be as many as elements.
    RepositoryError for an output that is not there or cannot be ranked, and for a file that does
    not fit it.
    """
    names = [t.name for t in outputs]
    if "" in labels:
        if len(outputs) > 1:
            raise RepositoryError(
                f"model '{model}' has {len(outputs)} outputs; say whose labels {labels['']} has: "
                f"--labels {names[0]}={labels['']}"
            )
        labels = {names[0]: labels[""]}
    for name in labels:
        if name not in names:
            raise RepositoryError(
                f"model '{model}' has no output '{name}' to label; it has {', '.join(names)}"
            )
    places = {name: f"labels_{names.index(name)}.txt" for name in labels}
    files = {places[t.name]: _read(model, t, labels[t.name]) for t in outputs if t.name in labels}
    return tuple(replace(t, labels=places.get(t.name, "")) for t in outputs), files


def _read(model: str, output: ConfigTensor, path: Path) -> bytes:
    if output.dtype.name in _UNRANKED:
        raise RepositoryError(
            f"model '{model}': output '{output.name}' is {output.dtype.name}, which Triton does "
            "not classify by; label an output of another type"
        )
    if not path.is_file():
        raise RepositoryError(f"no such file of labels: {path}")
    try:
        content = path.read_bytes()
        lines = content.decode().removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RepositoryError(f"labels {path}: {error}; give a text file") from error
    if not all(line.strip() for line in lines):
        raise RepositoryError(f"labels {path}: a line is empty; write one label a line")
    elements = math.prod(output.dims)
    if -1 not in output.dims and len(lines) != elements:
        raise RepositoryError(
            f"labels {path}: {len(lines)} labels, but output '{output.name}' has {elements} "
            "elements; write one for each"
        )
    return content
