"""What is compared: the question, and the model under test, ready to send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tritonkit.bench.answers import CHECKED, first_difference, session_answers
from tritonkit.bench.arms import USUAL_ARMS, require_comparable
from tritonkit.bench.cpus import CpuSets, divide
from tritonkit.bench.machine import cpu_limit, usable_cpus
from tritonkit.bench.result import ArmName
from tritonkit.client.client import Client
from tritonkit.client.transport import InferRequest, infer_request
from tritonkit.errors import CheckFailedError, InputError
from tritonkit.payloads import Payload, load_payloads
from tritonkit.repository.config import ModelConfig
from tritonkit.repository.layout import model_file, read_config
from tritonkit.server.triton_wheel import installed_triton


@dataclass(frozen=True)
class Comparison:
    """What to compare. level_s: the seconds of each level; seed: of the arrivals.

    time_budget_s: for the levels of all arms; what comes before them takes about a minute more.
    endpoints: host:port of the arms where servers are up already; where there are none, they are
    started and tuned.
    soak_minutes: how long the chosen arm is loaded at last; 0: not at all.
    """

    repository: Path
    model: str
    slo_p99_ms: float
    rate_rps: float | None
    level_s: float
    time_budget_s: float
    arms: tuple[ArmName, ...] = USUAL_ARMS
    endpoints: Mapping[ArmName, str] = field(default_factory=dict)
    soak_minutes: float = 0.0
    cost_per_hour: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Subject:
    """The model under test, ready to send: what every arm shares.

    payloads, answers: as they go over the wire.
    """

    config: ModelConfig
    file: Path
    payloads: Sequence[Payload]
    payload_source: str
    requests: Sequence[InferRequest]
    answers: Sequence[Mapping[str, np.ndarray]]
    cpus: CpuSets


def prepare(repository: Path, model: str, seed: int = 0) -> Subject:
    """Read the model and its requests, and ask the bare session for the right answers.

    RepositoryError, ModelError, InputError or SetupError for what cannot be compared.
    """
    config = read_config(repository, model)
    require_comparable(config)
    if config.sequence_batching is not None:
        raise InputError(
            f"model '{model}' is stateful: its requests belong to sequences, and the load is "
            "single requests; compare a model without sequence batching"
        )
    file = model_file(repository, model)
    payloads, source = load_payloads(repository / model, config.wire_inputs, seed)
    answers = session_answers(file, config, payloads[:CHECKED])
    installed_triton()  # rather now than after the baseline was measured
    return Subject(
        config=config,
        file=file,
        payloads=payloads,
        payload_source=source,
        requests=[infer_request(model, p, [t.name for t in config.outputs]) for p in payloads],
        answers=answers,
        # Of the CPUs that it may run on a quota may grant less; more would be throttled.
        cpus=divide(usable_cpus()[: cpu_limit()]),
    )


def check_answers(arm: str, model: str, client: Client, subject: Subject) -> None:
    """CheckFailedError unless the arm answers as the bare session does: same work, same result."""
    if name := first_difference(client, model, subject.payloads, subject.answers):
        raise CheckFailedError(
            f"{arm}: output '{name}' is not what the ONNX Runtime session gives for the same "
            "input; the comparison is not published"
        )
