"""Three models to try tritonkit with: one that batching makes for, one in between, one it hurts.

| name | what | weights |
|---|---|---|
| ranker | wide MLP, 512 features → score | random, and says so |
| text_embedder | all-MiniLM-L6-v2, token ids → sentence embedding | Apache-2.0 |
| file_type | magika, first and last bytes of a file → file type | Apache-2.0 |

Importing this package loads none of torch, transformers, onnx or onnxruntime.
"""

from __future__ import annotations

from pathlib import Path

from tritonkit.errors import ModelError
from tritonkit.examples import file_type, ranker, text_embedder
from tritonkit.examples.example import Example
from tritonkit.export.export import Exported, export_model

EXAMPLES: dict[str, Example] = {
    example.name: example for example in (ranker.EXAMPLE, text_embedder.EXAMPLE, file_type.EXAMPLE)
}


def build_example(name: str, out_dir: Path) -> Exported:
    """Export the example called `name` to `out_dir`, with its real payloads.

    ModelError if there is no such example; SetupError if the package with its weights is missing.
    """
    if name not in EXAMPLES:
        raise ModelError(f"no example '{name}'; there are {', '.join(EXAMPLES)}")
    example = EXAMPLES[name]
    return export_model(
        example.source(),
        out_dir,
        payloads=example.payloads(),
        notes=[example.weights],
        max_batch_size=example.max_batch_size,
    )
