"""What one example model is made of, and how its package is found."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tritonkit.errors import SetupError
from tritonkit.export.source import Source
from tritonkit.payloads import Payload


@dataclass(frozen=True)
class Example:
    """A model to try tritonkit with.

    summary: one line. weights: where they come from and under which licence; goes into
    verification.json. max_batch_size: rows, as packaged. source and payloads are functions
    because both load heavy packages; they raise SetupError if one is missing.
    """

    name: str
    summary: str
    weights: str
    max_batch_size: int
    source: Callable[[], Source]
    payloads: Callable[[], list[Payload]]


def package_folder(package: str, example: str, distribution: str) -> Path:
    """The folder of an installed package, found without importing it. SetupError if missing."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SetupError(
            f"the example {example} needs the package {distribution}; "
            "pip install 'tritonkit[examples]'"
        )
    return Path(spec.submodule_search_locations[0])
