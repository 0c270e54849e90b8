"""The Settings that the options of `tritonkit package` make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritonkit.errors import InputError

if TYPE_CHECKING:
    from tritonkit.repository.config import VersionPolicy
    from tritonkit.repository.execution import Accelerator, Execution
    from tritonkit.repository.package import Settings
    from tritonkit.repository.scheduling import (
        ControlKind,
        Direct,
        DynamicBatching,
        Oldest,
        Priorities,
        QueuePolicy,
    )
    from tritonkit.repository.stateful import Sequences

# Options of the dynamic batcher alone, and of the sequence batcher alone.
_QUEUE = (
    *("max_queue_size", "queue_timeout_us", "queue_timeout_action", "allow_timeout_override"),
    *("priority_levels", "default_priority", "priority_queue"),
)
_BATCHER = ("max_queue_delay_us", "preferred_batch_size", "preserve_ordering")
_SEQUENCE = (
    *("sequence", "control", "state", "initial_state"),
    *("max_sequence_idle_us", "max_candidate_sequences", "minimum_slot_utilization"),
)
_ENSEMBLE = {"step", "map", "name", "repository", "max_batch_size"}


def given_options(context: click.Context) -> frozenset[str]:
    """The names of the parameters that the command line gives a value to."""
    source = click.core.ParameterSource.COMMANDLINE
    return frozenset(n for n in context.params if context.get_parameter_source(n) is source)


def require_ensemble_only(given: AbstractSet[str]) -> None:
    """InputError for an option that an ensemble has no use for."""
    for name in sorted(given - _ENSEMBLE):
        what = "EXPORTED" if name == "exported" else _flag(name)
        raise InputError(f"an ensemble is made of --step alone; give {what} to its steps")


def read_settings(options: Mapping[str, Any], given: AbstractSet[str], threads: int) -> Settings:
    """The Settings of the command line. InputError for what is no value or contradicts itself.

    options: by parameter name; given: which of them the user gave; threads: if none are given.
    """
    from tritonkit.repository.package import Settings

    return Settings(
        max_batch_size=options["max_batch_size"],
        scheduler=_scheduler(options, given),
        instances=options["instances"],
        threads=options["threads"] or threads,
        inter_op_threads=options["inter_op_threads"],
        execution=_execution(options),
        warmup_batch_sizes=_warmup_sizes(options),
        warmup_payloads=options["warm_up_payloads"],
        labels=_labels(options["labels"]),
        response_cache=options["response_cache"],
        version_policy=_version_policy(options["version_policy"]),
        extra=options["config"],
    )


def read_maps(texts: Sequence[str]) -> list[tuple[str, str]]:
    """The two sides of each --map."""
    return [_pair("--map", text) for text in texts]


def _scheduler(
    options: Mapping[str, Any], given: AbstractSet[str]
) -> DynamicBatching | Sequences | None:
    if given & set(_SEQUENCE):
        _refuse_with(given, (*_QUEUE, "no_batching"), "a stateful model has a sequence batcher")
        return _sequences(options, given)
    if options["no_batching"]:
        _refuse_with(given, (*_QUEUE, *_BATCHER), "--no-batching leaves the batcher out")
        return None
    from tritonkit.repository.scheduling import DynamicBatching

    return DynamicBatching(
        max_queue_delay_us=options["max_queue_delay_us"],
        preferred_batch_sizes=options["preferred_batch_size"],
        preserve_ordering=options["preserve_ordering"],
        queue=_queue_policy(
            options["max_queue_size"],
            options["queue_timeout_us"],
            options["queue_timeout_action"],
            options["allow_timeout_override"],
        ),
        priorities=_priorities(options, given),
    )


def _queue_policy(size: int, timeout_us: int, action: str, override: bool) -> QueuePolicy:
    from tritonkit.repository.scheduling import QueuePolicy, TimeoutAction

    return QueuePolicy(size, timeout_us, TimeoutAction(action.upper()), override)


def _priorities(options: Mapping[str, Any], given: AbstractSet[str]) -> Priorities | None:
    from tritonkit.repository.scheduling import Priorities

    levels = options["priority_levels"]
    if levels is None:
        _refuse_with(
            given, ("default_priority", "priority_queue"), "there are no --priority-levels"
        )
        return None
    policies: dict[int, QueuePolicy] = {}
    for text in options["priority_queue"]:
        level, _, settings = text.partition(":")
        number = _number("--priority-queue", level)
        if number in policies:
            raise InputError(f"--priority-queue {number} is there twice; write all in one")
        policies[number] = _priority_policy(settings)
    return Priorities(levels, options["default_priority"] or levels, policies)


def _priority_policy(text: str) -> QueuePolicy:
    """`size=8,timeout_us=1000,action=delay,override=yes`, or part of it."""
    known = ("size", "timeout_us", "action", "override")
    settings = dict(_pair("--priority-queue", setting) for setting in text.split(","))
    for key, value in settings.items():
        if key not in known:
            raise InputError(f"--priority-queue: no setting '{key}'; there are {', '.join(known)}")
        allowed = {"action": ("reject", "delay"), "override": ("yes", "no")}.get(key, (value,))
        if value not in allowed:
            raise InputError(f"--priority-queue: {key} is {' or '.join(allowed)}, not '{value}'")
    return _queue_policy(
        _number("--priority-queue size", settings.get("size", "0")),
        _number("--priority-queue timeout_us", settings.get("timeout_us", "0")),
        settings.get("action", "reject"),
        settings.get("override") == "yes",
    )


def _sequences(options: Mapping[str, Any], given: AbstractSet[str]) -> Sequences:
    from tritonkit.repository.stateful import Sequences

    return Sequences(
        strategy=_strategy(options, given),
        max_idle_us=options["max_sequence_idle_us"],
        controls=_controls(options["control"]),
        states=_pairs("--state", options["state"]),
        initial={
            n: Path(f) for n, f in _pairs("--initial-state", options["initial_state"]).items()
        },
    )


def _strategy(options: Mapping[str, Any], given: AbstractSet[str]) -> Direct | Oldest:
    from tritonkit.repository.scheduling import Direct, Oldest

    delay = options["max_queue_delay_us"]
    if options["sequence"] == "oldest":
        _refuse_with(given, ("minimum_slot_utilization",), "only the strategy direct has slots")
        return Oldest(
            max_candidate_sequences=options["max_candidate_sequences"] or 0,
            preferred_batch_sizes=options["preferred_batch_size"],
            max_queue_delay_us=delay,
            preserve_ordering=options["preserve_ordering"],
        )
    only = ("max_candidate_sequences", "preferred_batch_size", "preserve_ordering")
    _refuse_with(given, only, "only the strategy oldest does that: --sequence oldest")
    utilization = options["minimum_slot_utilization"] or 0.0
    if delay and not utilization:
        raise InputError(
            "a queue delay does nothing to direct sequences without --minimum-slot-utilization"
        )
    return Direct(max_queue_delay_us=delay, minimum_slot_utilization=utilization)


def _controls(texts: Sequence[str]) -> dict[ControlKind, str]:
    from tritonkit.repository.scheduling import ControlKind

    controls = _pairs("--control", texts)
    known = [kind.value for kind in ControlKind]
    for kind in controls:
        if kind not in known:
            raise InputError(f"--control: no kind '{kind}'; there are {', '.join(known)}")
    return {ControlKind(kind): name for kind, name in controls.items()}


def _execution(options: Mapping[str, Any]) -> Execution:
    from tritonkit.repository.execution import Execution, GraphLevel, InstanceKind

    kind = options["instance_kind"] or ("gpu" if options["gpu"] else "cpu")
    mode = options["execution_mode"]
    return Execution(
        kind=InstanceKind.GPU if kind == "gpu" else InstanceKind.CPU,
        gpus=options["gpu"],
        parallel=None if mode is None else mode == "parallel",
        graph_level=GraphLevel(options["graph_level"]),
        mem_arena=options["mem_arena"],
        mem_pattern=options["mem_pattern"],
        arena_shrinkage=options["arena_shrinkage"] or "",
        accelerators=_accelerators(options["accelerator"]),
    )


def _accelerators(texts: Sequence[str]) -> tuple[Accelerator, ...]:
    from tritonkit.repository.execution import Accelerator

    found: dict[str, dict[str, str]] = {}
    for text in texts:
        name, colon, parameter = text.partition(":")
        parameters = found.setdefault(name, {})
        if colon:
            key, value = _pair("--accelerator", parameter)
            if key in parameters:
                raise InputError(f"--accelerator {name}: '{key}' is there twice; give it once")
            parameters[key] = value
    return tuple(Accelerator(name, parameters) for name, parameters in found.items())


def _warmup_sizes(options: Mapping[str, Any]) -> tuple[int, ...] | None:
    sizes: tuple[int, ...] = options["warm_up_batch_size"]
    if options["no_warm_up"]:
        if sizes:
            raise InputError("--no-warm-up and --warm-up-batch-size exclude each other")
        return ()
    return sizes or None


def _labels(texts: Sequence[str]) -> dict[str, Path]:
    labels: dict[str, Path] = {}
    for text in texts:
        output, equals, file = text.rpartition("=")
        if output in labels or (labels and not equals):
            raise InputError(f"--labels {text}: say of which output each file is, and once each")
        labels[output] = Path(file)
    return labels


def _version_policy(text: str | None) -> VersionPolicy | None:
    if text is None:
        return None
    if text == "all":
        return "all"
    word, _, count = text.partition(":")
    if word == "latest":
        return _number("--version-policy latest", count or "1")
    return tuple(_number("--version-policy", number) for number in text.split(","))


def _refuse_with(given: AbstractSet[str], names: Sequence[str], why: str) -> None:
    for name in names:
        if name in given:
            raise InputError(f"{_flag(name)} does not go with that: {why}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _pair(option: str, text: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not text.isprintable():
        raise InputError(f"{option} {text!a}: a name must be printable")
    if not (left and equals and right):
        raise InputError(f"{option} '{text}': expected NAME=VALUE")
    return left, right


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        left, right = _pair(option, text)
        if left in pairs:
            raise InputError(f"{option} {left} is there twice; give it once")
        pairs[left] = right
    return pairs


def _number(option: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise InputError(f"{option}: '{text}' is no whole number")
    return int(text)
