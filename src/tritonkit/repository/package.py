"""Package an exported model: its config and one version, ready to serve."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from tritonkit.errors import InputError, ModelError, RepositoryError
from tritonkit.payloads import PAYLOADS, misfit, read_payloads, write_payloads
from tritonkit.repository.config import ModelConfig, VersionPolicy, require_model_name
from tritonkit.repository.execution import Execution, execution_contradictions
from tritonkit.repository.fragment import read_fragment, require_kept
from tritonkit.repository.labels import with_labels
from tritonkit.repository.layout import (
    MODEL,
    is_ensemble,
    read_config,
    versions,
    write_model,
)
from tritonkit.repository.proved import (
    DEFAULT_MAX_BATCH_SIZE,
    allowed_batch_size,
    needs_proof,
    record,
)
from tritonkit.repository.scheduling import DynamicBatching, QueuePolicy, TimeoutAction
from tritonkit.repository.stateful import Sequences, stateful
from tritonkit.repository.tensors import ConfigTensor, config_tensors, to_wire
from tritonkit.repository.warmup import (
    WARMUP_FOLDER,
    WarmUp,
    default_sizes,
    real_warmup,
    synthetic_warmup,
)
from tritonkit.signature import ModelSignature, external_files, read_signature
from tritonkit.verification import VERIFICATION, Verification, read_verification


@dataclass(frozen=True)
class Settings:
    """How Triton is to run the model.

    max_batch_size: rows; 0 for a model that cannot be batched; None takes what was proved, up to
    32. scheduler: None for requests that run one by one. instances: on each device of `execution`.
    threads, inter_op_threads: of each instance.
    warmup_batch_sizes: None warms up with one row, half the most and the most; () not at all.
    warmup_payloads: a payloads.npz with real requests, of an export or a repository; without it
    floats are random, else zeros.
    labels: files by output; "" is the only output. version_policy: None is the newest version.
    extra: a file with more of a config, in protobuf text, for what the kit does not know.
    """

    max_batch_size: int | None = None
    scheduler: DynamicBatching | Sequences | None = field(default_factory=DynamicBatching)
    instances: int = 1
    threads: int = 1
    inter_op_threads: int = 1
    execution: Execution = field(default_factory=Execution)
    warmup_batch_sizes: tuple[int, ...] | None = None
    warmup_payloads: Path | None = None
    labels: Mapping[str, Path] = field(default_factory=dict)
    response_cache: bool = False
    version_policy: VersionPolicy | None = None
    extra: Path | None = None


class Proof(Protocol):
    """What a check of batch safety found."""

    @property
    def verification(self) -> Verification:
        """In short."""

    def to_json(self) -> Mapping[str, object]:
        """In full, for verification.json."""


Prove = Callable[[Path, int], Proof]
"""Checks an ONNX file for batches of up to so many rows."""


def package_model(
    exported: Path,
    name: str,
    repository: Path,
    settings: Settings,
    version: int | None = None,
    *,
    prove: Prove | None = None,
    force: bool = False,
) -> Path:
    """Write a repository entry; returns the version's folder.

    exported: the folder that `tritonkit export` wrote, or a bare .onnx file. Its external data
    goes with it. version: None takes the next free number; one that exists is replaced.
    prove: is asked what the export does not say, or says of fewer rows, unless the model is to be
    served unbatched; what it finds goes into the version's verification.json. Without it what is
    not known is not refused. force: package what must not be batched, and more rows than were
    proved.
    CheckFailedError, ModelError, RepositoryError; nothing is written then.
    """
    require_model_name(name)
    _require_versions(repository, name, settings.version_policy, version)
    if is_ensemble(repository, name):
        raise RepositoryError(f"{repository / name} is an ensemble; give the model another --name")
    model = exported_model(exported)
    beside = {file: exported / file for file in (VERIFICATION, PAYLOADS)}
    found = {file: path for file, path in beside.items() if path.is_file()}
    signature = read_signature(model)
    asked = settings.max_batch_size
    verification = read_verification(exported / VERIFICATION, model)
    proof = None
    if prove is not None and needs_proof(asked, verification, force=force):
        # Before that, which takes its time, what can be said at once.
        rows = DEFAULT_MAX_BATCH_SIZE if asked is None else asked
        if not signature.without_batch_axis():
            _planned(name, signature, rows, settings)
        proof = prove(model, rows)
        verification = proof.verification
    rows = allowed_batch_size(name, settings.max_batch_size, verification, force=force)
    config, more = _planned(name, signature, rows, settings)
    if not force:
        _require_same_tensors(repository, config, version)
    recorded = found.pop(PAYLOADS, None)
    files: dict[str, Path | bytes] = {**external_files(model), **found, MODEL: model}
    if proof is not None:
        files[VERIFICATION] = record(model, proof.to_json(), found.get(VERIFICATION))
    with tempfile.TemporaryDirectory(prefix="tritonkit-") as work:
        payloads = None
        if recorded is not None:
            payloads = _wire_payloads(recorded, signature, config, Path(work) / PAYLOADS)
        return write_model(
            repository,
            config,
            files,
            version=version,
            payloads=payloads,
            keep_payloads=_fits(repository / name / PAYLOADS, config),
            beside=more,
        )


def exported_model(exported: Path) -> Path:
    """The ONNX file of an export's folder, or the file itself. ModelError if there is none."""
    if not exported.is_dir():
        return exported
    model = exported / MODEL
    if not model.is_file():
        raise ModelError(f"{exported} has no {MODEL}; make one with: tritonkit export")
    return model


def _planned(
    name: str, signature: ModelSignature, rows: int, settings: Settings
) -> tuple[ModelConfig, dict[str, Path | bytes]]:
    """The config, and the files that it reads in the model's folder, by their place there."""
    for contradiction in _contradictions(settings, rows):
        raise RepositoryError(f"model '{name}': {contradiction}")
    if rows > 0:
        signature.require_batch_axis(f"model '{name}'")
    inputs = config_tensors(name, signature.inputs, rows > 0)
    outputs = config_tensors(name, signature.outputs, rows > 0)
    scheduler, sequences = settings.scheduler, None
    files: dict[str, Path | bytes] = {}
    if isinstance(scheduler, Sequences):
        part = stateful(name, inputs, outputs, scheduler)
        sequences, inputs, outputs = part.batching, part.inputs, part.outputs
        files |= part.files
    outputs, labels = with_labels(name, outputs, settings.labels)
    warmup, real = _warmup(name, inputs, rows, settings)
    config = ModelConfig(
        name=name,
        inputs=inputs,
        outputs=outputs,
        max_batch_size=rows,
        instances=settings.instances,
        intra_op_threads=settings.threads,
        inter_op_threads=settings.inter_op_threads,
        dynamic_batching=scheduler if rows > 0 and isinstance(scheduler, DynamicBatching) else None,
        sequence_batching=sequences,
        execution=settings.execution,
        warmup=warmup,
        response_cache=settings.response_cache,
        version_policy=settings.version_policy,
        base="" if settings.extra is None else read_fragment(settings.extra),
    )
    if settings.extra is not None:
        require_kept(settings.extra, config)
    files |= labels
    return config, {**files, **{f"{WARMUP_FOLDER}/{file}": data for file, data in real.items()}}


def _warmup(
    name: str, inputs: tuple[ConfigTensor, ...], rows: int, settings: Settings
) -> tuple[tuple[WarmUp, ...], dict[str, bytes]]:
    sizes = settings.warmup_batch_sizes
    if isinstance(settings.scheduler, Sequences):
        return (), {}  # a state belongs to a sequence, and a warm-up has none
    if sizes is None:
        sizes = default_sizes(rows)
    if settings.warmup_payloads is None:
        return synthetic_warmup(inputs, sizes), {}
    payloads = [to_wire(payload, inputs) for payload in read_payloads(settings.warmup_payloads)]
    wanted = [tensor.wire_spec(rows > 0) for tensor in inputs]
    for payload in payloads:
        if (why := misfit(payload, wanted)) is not None:
            raise RepositoryError(f"model '{name}': {settings.warmup_payloads}: {why}")
    if not payloads:
        raise RepositoryError(f"model '{name}': {settings.warmup_payloads} has no requests")
    return real_warmup(inputs, sizes, payloads, batched=rows > 0)


def _contradictions(settings: Settings, rows: int) -> Iterator[str]:
    """What the settings ask for in vain, or against each other; ModelConfig refuses the rest."""
    scheduler = settings.scheduler
    if isinstance(scheduler, DynamicBatching):
        if rows == 0 and scheduler != DynamicBatching():
            yield (
                "a queue delay, preferred sizes, a queue policy and priorities are those of the "
                "dynamic batcher, which a max_batch_size of 0 leaves out"
            )
        levels = scheduler.priorities.policies if scheduler.priorities is not None else {}
        for policy in (scheduler.queue, *levels.values()):
            yield from _policy_contradictions(policy)
    if isinstance(scheduler, Sequences) and (
        settings.warmup_batch_sizes or settings.warmup_payloads is not None
    ):
        yield "a stateful model cannot be warmed up: its states belong to sequences"
    if settings.warmup_payloads is not None and settings.warmup_batch_sizes == ():
        yield "there are payloads to warm up with, but the warm-up is off"
    if settings.inter_op_threads > 1 and not settings.execution.parallel:
        yield (
            f"{settings.inter_op_threads} inter-op threads do nothing unless the execution mode "
            "is parallel"
        )
    yield from execution_contradictions(settings.execution)


def _policy_contradictions(policy: QueuePolicy) -> Iterator[str]:
    """Source: PolicyQueue::Enqueue() in core, src/scheduler_utils.cc."""
    if policy.default_timeout_us == 0:
        if policy.timeout_action is TimeoutAction.DELAY:
            yield "the timeout action DELAY needs a timeout"
        if policy.allow_timeout_override:
            yield (
                "allow_timeout_override needs a default timeout: Triton takes only a shorter one "
                "from a request"
            )


def _require_same_tensors(repository: Path, config: ModelConfig, version: int | None) -> None:
    """RepositoryError if the model has other versions, whose inputs or outputs `config` has not:
    one config stands for all of them.
    """
    folder = repository / config.name
    others = {number for number in versions(repository, config.name)} if folder.is_dir() else set()
    if not others - {version}:
        return
    try:
        old = read_config(repository, config.name)
    except RepositoryError:
        return  # it is none that could be kept
    changed = _tensors(old) ^ _tensors(config)
    if changed:
        names = ", ".join(sorted({str(name) for name, *_ in changed}))
        raise RepositoryError(
            f"{folder} has versions with other inputs or outputs ({names}), and one config for "
            "all: give the model another --name, or --force"
        )


def _tensors(config: ModelConfig) -> set[tuple[object, ...]]:
    """Name, side, dtype and dims with the batch, of all inputs and outputs."""
    batch = (-1,) if config.max_batch_size > 0 else ()
    return {
        (tensor.name, side, tensor.dtype.name, (*batch, *tensor.dims))
        for side, tensors in (("input", config.inputs), ("output", config.outputs))
        for tensor in tensors
    }


def _require_versions(
    repository: Path, name: str, policy: VersionPolicy | None, version: int | None
) -> None:
    """RepositoryError for a version policy that names a version which is not there."""
    if not isinstance(policy, tuple):
        return
    folder = repository / name
    there = versions(repository, name) if folder.is_dir() else []
    there = sorted({*there, version or max(there, default=0) + 1})
    for number in policy:
        if number not in there:
            raise RepositoryError(
                f"model '{name}': the version policy serves version {number}, which is not there; "
                f"there will be {', '.join(map(str, there))}"
            )


def _wire_payloads(
    recorded: Path, signature: ModelSignature, config: ModelConfig, target: Path
) -> Path | None:
    """The file of an export's requests as a server takes them: `recorded` itself, or `target`.

    Without the inputs that a sequence scheduler fills in. RepositoryError for what are no rows of
    the model; None if they are none of a model without batches, of which an export records rows
    all the same.
    """
    given = read_payloads(recorded)
    inside = {t.name for t in signature.inputs} - {t.name for t in config.inputs}
    wire = [
        to_wire({n: a for n, a in payload.items() if n not in inside}, config.inputs)
        for payload in given
    ]
    for why in filter(None, (misfit(payload, config.wire_inputs) for payload in wire)):
        if config.max_batch_size == 0:
            return None
        raise RepositoryError(
            f"model '{config.name}': {recorded}: {why}; export the model again, or delete the file"
        )
    if [_shapes(payload) for payload in wire] == [_shapes(payload) for payload in given]:
        return recorded
    write_payloads(target, wire)
    return target


def _shapes(payload: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in payload.items()}


def _fits(path: Path, config: ModelConfig) -> bool:
    """Whether `path` holds requests that a server takes with this config."""
    try:
        return not any(misfit(payload, config.wire_inputs) for payload in read_payloads(path))
    except InputError:
        return False
