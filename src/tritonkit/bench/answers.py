"""Whether a server answers as it should."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tritonkit.client.client import Client
from tritonkit.payloads import Payload
from tritonkit.repository import pbtxt
from tritonkit.repository.config import ModelConfig
from tritonkit.repository.tensors import to_model, to_wire
from tritonkit.server.onnxruntime_backend.session import open_session
from tritonkit.signature import read_signature

CHECKED = 8
"""So many of a model's payloads are sent, and their answers looked at."""

RTOL, ATOL = 1e-3, 1e-4
"""Batches, threads and devices add in another order."""


def session_answers(
    file: Path, config: ModelConfig, payloads: Sequence[Payload]
) -> list[Mapping[str, np.ndarray]]:
    """What one ONNX Runtime session answers to each, as it would go over the wire."""
    outputs = [tensor.name for tensor in config.outputs]
    session, takes = open_session(file, pbtxt.as_json(config)), read_signature(file).inputs
    return [
        to_wire(
            dict(zip(outputs, session.run(outputs, to_model(p, takes)), strict=True)),
            config.outputs,
        )
        for p in payloads
    ]


def first_difference(
    client: Client,
    model: str,
    payloads: Sequence[Payload],
    answers: Sequence[Mapping[str, np.ndarray]],
    version: str = "",
) -> str:
    """The output that the server answers with other values than these, shape included; "" if all
    are the same. Floats may be off by RTOL and ATOL.
    """
    for payload, answer in zip(payloads, answers, strict=False):
        given = client.infer(model, payload, outputs=list(answer), version=version)
        for name, expected in answer.items():
            if given[name].shape != expected.shape:  # which numpy would make fit
                return name
            if expected.dtype.kind == "f":
                same = np.allclose(given[name], expected, RTOL, ATOL, equal_nan=True)
            else:
                same = np.array_equal(given[name], expected)
            if not same:
                return name
    return ""
