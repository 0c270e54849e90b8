"""The schedulers of a model: dynamic batching and sequence batching, as frozen values.

What is refused here Triton refuses as well, most of it in ValidateModelConfig() of
triton-inference-server/core, src/model_config_utils.cc.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tritonkit.signature import DataType

INT32_MOST = 2**31 - 1
_UINT32_MOST = 2**32 - 1
_INT64_MOST = 2**63 - 1


class TimeoutAction(StrEnum):
    """What becomes of a request that has waited too long."""

    REJECT = "REJECT"
    DELAY = "DELAY"


@dataclass(frozen=True)
class QueuePolicy:
    """How long a queue may get, and how long a request may wait in it.

    max_queue_size: requests; one more is rejected at once; 0 is no bound.
    default_timeout_us: 0 is none. timeout_action: REJECT it, or DELAY it behind all the others.
    allow_timeout_override: a request may ask for less than the default timeout, never for more.
    """

    max_queue_size: int = 0
    default_timeout_us: int = 0
    timeout_action: TimeoutAction = TimeoutAction.REJECT
    allow_timeout_override: bool = False


@dataclass(frozen=True)
class Priorities:
    """Queues that are served one before the other; level 1 is the first.

    default: the level of a request that names none. policies: by level; a level that is not here
    has the policy of the whole model.
    """

    levels: int
    default: int
    policies: Mapping[int, QueuePolicy] = field(default_factory=dict)


@dataclass(frozen=True)
class DynamicBatching:
    """The dynamic_batching block.

    max_queue_delay_us: how long the oldest request may wait for company; 0 sends at once what
    is queued. preferred_batch_sizes: NVIDIA advises none for ONNX models, so none by default.
    preserve_ordering: answers go out in the order in which the requests came in.
    """

    max_queue_delay_us: int = 0
    preferred_batch_sizes: tuple[int, ...] = ()
    preserve_ordering: bool = False
    queue: QueuePolicy = QueuePolicy()
    priorities: Priorities | None = None


@dataclass(frozen=True)
class Direct:
    """Every sequence keeps one slot of the batch of one instance.

    minimum_slot_utilization: 0 to 1, the part of the slots that must be ready before the delay is
    over; with 0 the delay is not waited for at all.
    """

    max_queue_delay_us: int = 0
    minimum_slot_utilization: float = 0.0


@dataclass(frozen=True)
class Oldest:
    """Batches are formed of the oldest requests of up to max_candidate_sequences sequences.

    max_candidate_sequences: for each instance; 0 is as many as the model's max_batch_size.
    """

    max_candidate_sequences: int = 0
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    preserve_ordering: bool = False


class ControlKind(StrEnum):
    """What a control input tells the model of each row."""

    START = "start"
    READY = "ready"
    END = "end"
    CORRID = "corrid"


FLAG_TYPES = ("INT32", "FP32", "BOOL")
CORRID_TYPES = ("UINT64", "INT64", "UINT32", "INT32", "BYTES")


@dataclass(frozen=True)
class Control:
    """An input that Triton fills in: a flag, or the number of the sequence (corrid).

    dtype: one of FLAG_TYPES, for a corrid one of CORRID_TYPES. false_true: what says no and what
    says yes; not used for a corrid.
    """

    kind: ControlKind
    input: str
    dtype: DataType
    false_true: tuple[float, float] = (0, 1)


@dataclass(frozen=True)
class InitialState:
    """The state that a sequence begins with. dims: without the batch, none of them dynamic.

    file: raw bytes in the model's folder `initial_state`; none means zeros.
    """

    name: str
    dims: tuple[int, ...]
    file: str = ""


@dataclass(frozen=True)
class StateTensor:
    """An output that becomes an input of the next request of its sequence, kept by Triton.

    initial: None leaves the input of a first request to chance (the schema's own words are
    "garbage data"), which only a model with a start control can bear. same_buffer and growable
    are Triton's `use_same_buffer_for_input_output` and `use_growable_memory` (GPU only).
    """

    input: str
    output: str
    dtype: DataType
    dims: tuple[int, ...]
    initial: InitialState | None = None
    same_buffer: bool = False
    growable: bool = False


@dataclass(frozen=True)
class SequenceBatching:
    """The sequence_batching block. max_idle_us: 0 is Triton's default, a second."""

    strategy: Direct | Oldest = Direct()
    max_idle_us: int = 0
    controls: tuple[Control, ...] = ()
    states: tuple[StateTensor, ...] = ()


def dynamic_refusals(batching: DynamicBatching, max_batch_size: int) -> Iterator[str]:
    """What Triton would not take, or the schema cannot hold."""
    if max_batch_size < 1:
        yield "dynamic batching needs a max_batch_size of 1 or more"
    yield from _delay_and_sizes(
        batching.max_queue_delay_us, batching.preferred_batch_sizes, max_batch_size
    )
    policies = {"": batching.queue}
    if batching.priorities is not None:
        yield from _priority_refusals(batching.priorities, batching.preserve_ordering)
        policies |= {f" of priority {n}": p for n, p in batching.priorities.policies.items()}
    for whose, policy in policies.items():
        yield from _within(f"max_queue_size{whose}", policy.max_queue_size, 0, _UINT32_MOST)
        yield from _within(f"default_timeout_us{whose}", policy.default_timeout_us, 0, _INT64_MOST)
        if (
            batching.preserve_ordering
            and policy.default_timeout_us
            and policy.timeout_action is TimeoutAction.DELAY
        ):
            yield "preserve_ordering and the timeout action DELAY exclude each other"


def sequence_refusals(batching: SequenceBatching, max_batch_size: int) -> Iterator[str]:
    """What Triton would not take, or the schema cannot hold."""
    strategy = batching.strategy
    yield from _within("max_sequence_idle_us", batching.max_idle_us, 0, _INT64_MOST)
    if isinstance(strategy, Oldest):
        yield from _delay_and_sizes(
            strategy.max_queue_delay_us, strategy.preferred_batch_sizes, max_batch_size
        )
        yield from _within(
            "max_candidate_sequences", strategy.max_candidate_sequences, 0, INT32_MOST
        )
    else:
        yield from _delay_and_sizes(strategy.max_queue_delay_us, (), max_batch_size)
        if not 0 <= strategy.minimum_slot_utilization <= 1:
            yield (
                f"minimum_slot_utilization is {strategy.minimum_slot_utilization}; "
                "it must be 0 to 1"
            )
    yield from _repeated("control", [c.kind for c in batching.controls])
    yield from _repeated(
        "input of a control or state",
        [c.input for c in batching.controls] + [s.input for s in batching.states],
    )
    yield from _repeated("output of a state", [s.output for s in batching.states])
    for control in batching.controls:
        allowed = CORRID_TYPES if control.kind is ControlKind.CORRID else FLAG_TYPES
        if control.dtype.name not in allowed:
            yield (
                f"control '{control.kind}' ({control.input}) is {control.dtype.name}; "
                f"it must be one of {', '.join(allowed)}"
            )
    for state in batching.states:
        yield from _state_refusals(state)


def _priority_refusals(priorities: Priorities, preserve_ordering: bool) -> Iterator[str]:
    levels = priorities.levels
    yield from _within("priority levels", levels, 1, _INT64_MOST)
    if not 1 <= priorities.default <= levels:
        yield f"the default priority is {priorities.default}; it must be 1 to {levels}"
    for level in priorities.policies:
        if not 1 <= level <= levels:
            yield f"there is a queue policy for priority {level}; it must be 1 to {levels}"
    if preserve_ordering and levels > 1:
        yield "preserve_ordering and several priority levels exclude each other"


def _state_refusals(state: StateTensor) -> Iterator[str]:
    """Source: GenerateInitialStateData() in core, src/sequence_batch_scheduler."""
    if state.growable and not state.same_buffer:
        yield f"state '{state.input}': growable memory needs one buffer for input and output"
    initial = state.initial
    if initial is None:
        return
    if not initial.name:
        yield f"the initial state of '{state.input}' must have a name"
    if len(initial.dims) != len(state.dims) or any(
        have < 0 or want not in (-1, have)
        for have, want in zip(initial.dims, state.dims, strict=False)
    ):
        yield (
            f"the initial state of '{state.input}' has dims {list(initial.dims)}; "
            f"the state has {list(state.dims)}"
        )


def _delay_and_sizes(delay: int, sizes: tuple[int, ...], max_batch_size: int) -> Iterator[str]:
    yield from _within("max_queue_delay_us", delay, 0, INT32_MOST)
    for size in sizes:
        if not 1 <= size <= max_batch_size:
            yield f"preferred batch size {size} is not in 1..{max_batch_size}"


def _repeated(what: str, names: list[str]) -> Iterator[str]:
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"'{name}' is there twice as {what}"


def _within(what: str, value: int, least: int, most: int) -> Iterator[str]:
    if not least <= value <= most:
        yield f"{what} is {value}; it must be {least} to {most}"
