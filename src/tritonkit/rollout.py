"""A new version beside the old one, checked, switched to, and taken back: while requests come.

Triton sends a request that names no version to the highest one that is loaded, and keeps a version
whose files have not changed loaded when it loads a model again. So a switch is one load, and with a
policy of the two latest the version of before stays loaded, and the way back is one load as well.
What is new runs first under a name of its own, where no request goes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tritonkit.bench.answers import CHECKED, first_difference, session_answers
from tritonkit.client.client import Client
from tritonkit.errors import (
    CheckFailedError,
    InputError,
    RepositoryError,
    TritonkitError,
)
from tritonkit.payloads import PAYLOADS, Payload, load_payloads
from tritonkit.repository.config import ModelConfig, VersionPolicy
from tritonkit.repository.layout import (
    CONFIG,
    CONFIGS,
    files_in,
    model_file,
    read_config,
    replace_if_other,
    version_folder,
    versions,
    write_model,
)

LOAD_TIMEOUT_S = 600.0

REST_S = 0.5
"""Between a model's last answer and its unloading: see `Client.unload`."""

KEPT = "rollout"
"""The folder of a model that has what lay beside its versions before version N came (`before-N`),
and the versions that were taken back (`withdrawn-N`)."""

_BEFORE, _WITHDRAWN = f"{KEPT}/before-", f"{KEPT}/withdrawn-"


@dataclass(frozen=True)
class Server:
    """One server of the live repository. url: for messages."""

    url: str
    client: Client


@dataclass(frozen=True)
class Rolled:
    """What serves now, and what did before."""

    model: str
    version: int
    before: int


def roll_out(
    servers: Sequence[Server],
    source: Path,
    repository: Path,
    model: str,
    recorded: Mapping[str, np.ndarray] | None,
    tell: Callable[[str], None],
) -> Rolled:
    """Bring the model of the repository `source` into the live one as its next version, and switch
    each of its servers, one after the other, to it.

    recorded: rows by output, in the order of the model's payloads; None is what one ONNX Runtime
    session answers. CheckFailedError if a server answers otherwise, RequestError if it does not
    load it: then all serve what they did, and the live repository is as it was.
    """
    new, live = read_config(source, model), read_config(repository, model)
    file = model_file(source, model)
    if source.resolve() == repository.resolve():
        raise InputError(
            f"{source} is the live repository itself; package the new version into another one"
        )
    _require_same_interface(live, new)
    payloads, _ = load_payloads(source / model, new.wire_inputs)
    payloads = payloads[:CHECKED]
    answers = (
        session_answers(file, new, payloads) if recorded is None else _rows(recorded, new, payloads)
    )
    before = versions(repository, model)[-1]
    number = _next_number(repository / model)
    with _staged(repository, source, new, number) as name:
        for server in servers:
            server.client.load(name, timeout_s=LOAD_TIMEOUT_S)
            try:
                _require_same(server, name, "", payloads, answers)
            finally:
                time.sleep(REST_S)
                server.client.unload(name)
            tell(f"{server.url}: version {number} loads, and its answers are right")
    policy = _with_both(live.version_policy, before, number)
    with _undone_on_failure(servers, repository / model, number):
        _write(source, model, repository, replace(new, version_policy=policy), number)
        for server in servers:
            server.client.load(model, timeout_s=LOAD_TIMEOUT_S)
            _require_same(server, model, str(number), payloads, answers)
            _require_same(server, model, "", payloads, answers)
            tell(f"{server.url}: version {number} serves")
    return Rolled(model, number, before)


def roll_back(
    servers: Sequence[Server], repository: Path, model: str, tell: Callable[[str], None]
) -> Rolled:
    """Take the newest version out of the live repository and its servers. Its files stay in the
    model's folder, as `rollout/withdrawn-N`.

    RepositoryError if it did not come by `roll_out`.
    """
    read_config(repository, model)
    folder = repository / model
    *others, number = versions(repository, model)
    if not (folder / f"{_BEFORE}{number}").is_dir() or not others:
        raise RepositoryError(
            f"{folder}: version {number} was not rolled out here, so there is no way back from it; "
            "package the version that you want, and roll that out"
        )
    _take_back(folder, number, keep=True)
    for server in servers:
        server.client.load(model, timeout_s=LOAD_TIMEOUT_S)
        tell(f"{server.url}: version {others[-1]} serves")
    return Rolled(model, others[-1], number)


def _require_same_interface(live: ModelConfig, new: ModelConfig) -> None:
    """InputError if requests that the live version takes are none for the new one."""
    for what in ("wire_inputs", "wire_outputs"):
        was, now = ({t.name: t for t in getattr(config, what)} for config in (live, new))
        for name in sorted({*was, *now}):
            if was.get(name) != now.get(name):
                raise InputError(
                    f"model '{live.name}': '{name}' is {was.get(name) or 'not there'} in the live "
                    f"version and {now.get(name) or 'not there'} in the new one, so its callers "
                    "would fail; give the new one another name"
                )
    if new.max_batch_size < live.max_batch_size:
        raise InputError(
            f"model '{live.name}': the live version takes {live.max_batch_size} rows at once and "
            f"the new one {new.max_batch_size}, so its callers might fail; package it with "
            f"--max-batch-size {live.max_batch_size}, or give it another name"
        )


def _rows(
    recorded: Mapping[str, np.ndarray], config: ModelConfig, payloads: Sequence[Payload]
) -> list[Mapping[str, np.ndarray]]:
    """The recorded answer to each payload. InputError if they do not fit."""
    outputs = {tensor.name for tensor in config.outputs}
    if not recorded or set(recorded) - outputs:
        raise InputError(
            f"the answers are of {sorted(recorded)}, the model has {sorted(outputs)}; record them "
            "with: tritonkit infer … --save answers.npz"
        )
    few = [name for name, rows in recorded.items() if rows.ndim < 1 or len(rows) < len(payloads)]
    if few:
        raise InputError(
            f"the answers of '{few[0]}' are fewer than {len(payloads)}; give one for each request "
            f"of {PAYLOADS}"
        )
    batched = config.max_batch_size > 0
    return [
        {name: rows[i : i + 1] if batched else rows[i] for name, rows in recorded.items()}
        for i in range(len(payloads))
    ]


def _require_same(
    server: Server,
    model: str,
    version: str,
    payloads: Sequence[Payload],
    answers: Sequence[Mapping[str, np.ndarray]],
) -> None:
    name = first_difference(server.client, model, payloads, answers, version)
    if name:
        raise CheckFailedError(
            f"{server.url}: the new version's output '{name}' is not what was recorded; the old "
            "one serves on"
        )


def _next_number(folder: Path) -> int:
    """Above those of all versions that there were."""
    gone = (path.name.rpartition("-")[2] for path in folder.glob(f"{_WITHDRAWN}*"))
    known = [*versions(folder.parent, folder.name), *(int(n) for n in gone if n.isdecimal())]
    return max(known) + 1


def _with_both(policy: VersionPolicy | None, before: int, number: int) -> VersionPolicy:
    """A policy that serves the new version, and keeps the one of before loaded."""
    if policy == "all":
        return "all"
    if isinstance(policy, tuple):
        return (before, number)
    return max(policy or 1, 2)


@contextmanager
def _staged(repository: Path, source: Path, config: ModelConfig, number: int) -> Iterator[str]:
    """The new version as a model of its own in the live repository; its name."""
    name = f"{config.name}-next"
    if (repository / name).exists():
        raise RepositoryError(
            f"{repository / name} is there already: another rollout is under way, or one was "
            "killed; then remove it"
        )
    try:
        alone = replace(config, name=name, version_policy=None)
        _write(source, config.name, repository, alone, number)
        yield name
    finally:
        shutil.rmtree(repository / name, ignore_errors=True)


@contextmanager
def _undone_on_failure(servers: Sequence[Server], folder: Path, number: int) -> Iterator[None]:
    """Keeps what lies beside the versions; if the block fails, all is as it was."""
    before = folder / f"{_BEFORE}{number}"
    before.mkdir(parents=True)
    for place, path in _beside(folder).items():
        (before / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, before / place)
    try:
        yield
    except BaseException:
        _take_back(folder, number, keep=False)
        for server in servers:
            with suppress(TritonkitError):
                server.client.load(folder.name, timeout_s=LOAD_TIMEOUT_S)
        raise


def _take_back(folder: Path, number: int, *, keep: bool) -> None:
    """Put back what lay beside the versions before this one came, and take the version away."""
    before, version = folder / f"{_BEFORE}{number}", folder / str(number)
    was = files_in(before)
    for place, path in _beside(folder).items():
        if place not in was:
            path.unlink()
    for place, path in was.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        replace_if_other(path, folder / place)
    if keep:
        version.rename(folder / f"{_WITHDRAWN}{number}")
    elif version.exists():
        shutil.rmtree(version)
    shutil.rmtree(before)
    with suppress(OSError):  # it has others
        (folder / KEPT).rmdir()


def _write(source: Path, model: str, repository: Path, config: ModelConfig, number: int) -> None:
    """The newest version of a model of `source`, and what lies beside it, under this config."""
    beside = _beside(source / model)
    payloads = beside.pop(PAYLOADS, None)
    write_model(
        repository,
        config,
        files_in(version_folder(model_file(source, model))),
        version=number,
        payloads=payloads,
        beside={
            place: path
            for place, path in beside.items()
            if place != CONFIG and not place.startswith(f"{CONFIGS}/")
        },
    )


def _beside(folder: Path) -> dict[str, Path]:
    """The files of a model that are of no version, by place; what is kept of others left out."""
    return {
        path.relative_to(folder).as_posix(): path
        for entry in folder.iterdir()
        if not entry.name.isdigit() and entry.name != KEPT
        for path in (entry, *entry.rglob("*"))
        if path.is_file()
    }
