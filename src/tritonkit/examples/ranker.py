"""A wide MLP, 512 → 2048 → 2048 → 2048 → 1: the shape of a ranking model's dense tower.

**Its weights are random** (torch's own initialisation from seed 0): its scores mean nothing. It
is here because its work is real: at batch 1 the time goes into reading 38 MB of weights, so a
batch of 32 costs hardly more than a batch of 1, and batching pays as it seldom does on a CPU.

Input `features` FP32[batch,512], output `score` FP32[batch,1].
"""

from __future__ import annotations

import numpy as np

from tritonkit.examples.example import Example
from tritonkit.export.source import Source, TorchModel, load_source
from tritonkit.payloads import Payload

_FEATURES, _WIDTH, _PAYLOADS = 512, 2048, 256


def model() -> TorchModel:
    """The module, the same at every call; the caller's torch random state is left as it was."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Linear(_FEATURES, _WIDTH),
            nn.ReLU(),
            nn.Linear(_WIDTH, _WIDTH),
            nn.ReLU(),
            nn.Linear(_WIDTH, _WIDTH),
            nn.ReLU(),
            nn.Linear(_WIDTH, 1),
        )
    examples = np.concatenate([payload["features"] for payload in payloads()[:16]])
    return TorchModel(module, {"features": examples}, output_names=["score"])


def payloads() -> list[Payload]:
    """256 rows of seeded standard normal features, FP32[1,512]."""
    rows = np.random.default_rng(0).standard_normal((_PAYLOADS, 1, _FEATURES), np.float32)
    return [{"features": row} for row in rows]


def source() -> Source:
    """The model, as `tritonkit.examples.ranker:model`."""
    return load_source("tritonkit.examples.ranker:model")


EXAMPLE = Example(
    name="ranker",
    summary="wide MLP 512-2048-2048-2048-1: where batching pays most",
    weights="random weights (torch.manual_seed(0)), not trained: the scores mean nothing",
    max_batch_size=64,
    source=source,
    payloads=payloads,
)
