"""DynamicBatching and SequenceBatching ⇄ the schema's two blocks of that name."""

from __future__ import annotations

from typing import Any

from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.errors import RepositoryError
from tritonkit.repository.scheduling import (
    Control,
    ControlKind,
    Direct,
    DynamicBatching,
    InitialState,
    Oldest,
    Priorities,
    QueuePolicy,
    SequenceBatching,
    StateTensor,
    TimeoutAction,
)
from tritonkit.signature import DataType, data_type

_ACTION = schema.ModelQueuePolicy.TimeoutAction
_KIND = schema.ModelSequenceBatching.Control.Kind
# The field that says what is false and what is true, by the type of the control's input.
_FLAG_FIELDS = {
    "INT32": "int32_false_true",
    "FP32": "fp32_false_true",
    "BOOL": "bool_false_true",
}


def read_dynamic_batching(message: Any) -> DynamicBatching | None:
    """None where there is no such block. Without levels, priorities mean nothing and are None."""
    if not message.HasField("dynamic_batching"):
        return None
    block = message.dynamic_batching
    return DynamicBatching(
        max_queue_delay_us=block.max_queue_delay_microseconds,
        preferred_batch_sizes=tuple(block.preferred_batch_size),
        preserve_ordering=block.preserve_ordering,
        queue=_read_policy(block.default_queue_policy),
        priorities=Priorities(
            levels=block.priority_levels,
            default=block.default_priority_level,
            policies={n: _read_policy(p) for n, p in block.priority_queue_policy.items()},
        )
        if block.priority_levels
        else None,
    )


def write_dynamic_batching(message: Any, batching: DynamicBatching | None) -> None:
    """Replace the block, or take it out."""
    message.ClearField("dynamic_batching")
    if batching is None:
        return
    block = message.dynamic_batching
    block.SetInParent()
    block.max_queue_delay_microseconds = batching.max_queue_delay_us
    block.preferred_batch_size[:] = batching.preferred_batch_sizes
    block.preserve_ordering = batching.preserve_ordering
    if batching.queue != QueuePolicy():
        _write_policy(block.default_queue_policy, batching.queue)
    if batching.priorities is not None:
        block.priority_levels = batching.priorities.levels
        block.default_priority_level = batching.priorities.default
        for level, policy in batching.priorities.policies.items():
            _write_policy(block.priority_queue_policy[level], policy)


def read_sequence_batching(message: Any) -> SequenceBatching | None:
    """None where there is no such block. RepositoryError for what Triton would not load."""
    if not message.HasField("sequence_batching"):
        return None
    block = message.sequence_batching
    if block.iterative_sequence:
        raise RepositoryError("iterative_sequence is nothing that ONNX models can do")
    return SequenceBatching(
        strategy=_read_strategy(block),
        max_idle_us=block.max_sequence_idle_microseconds,
        controls=tuple(_read_control(c.name, k) for c in block.control_input for k in c.control),
        states=tuple(_read_state(state) for state in block.state),
    )


def write_sequence_batching(message: Any, batching: SequenceBatching | None) -> None:
    """Replace the block, or take it out."""
    message.ClearField("sequence_batching")
    if batching is None:
        return
    block = message.sequence_batching
    block.SetInParent()
    block.max_sequence_idle_microseconds = batching.max_idle_us
    strategy = batching.strategy
    if isinstance(strategy, Oldest):
        block.oldest.SetInParent()
        block.oldest.max_candidate_sequences = strategy.max_candidate_sequences
        block.oldest.preferred_batch_size[:] = strategy.preferred_batch_sizes
        block.oldest.max_queue_delay_microseconds = strategy.max_queue_delay_us
        block.oldest.preserve_ordering = strategy.preserve_ordering
    else:
        block.direct.SetInParent()
        block.direct.max_queue_delay_microseconds = strategy.max_queue_delay_us
        block.direct.minimum_slot_utilization = strategy.minimum_slot_utilization
    for control in batching.controls:
        _write_control(block.control_input.add(name=control.input).control.add(), control)
    for state in batching.states:
        _write_state(block.state.add(), state)


def _read_policy(policy: Any) -> QueuePolicy:
    return QueuePolicy(
        max_queue_size=policy.max_queue_size,
        default_timeout_us=policy.default_timeout_microseconds,
        timeout_action=TimeoutAction(_ACTION.Name(policy.timeout_action)),
        allow_timeout_override=policy.allow_timeout_override,
    )


def _write_policy(message: Any, policy: QueuePolicy) -> None:
    message.SetInParent()
    message.max_queue_size = policy.max_queue_size
    message.default_timeout_microseconds = policy.default_timeout_us
    message.timeout_action = _ACTION.Value(policy.timeout_action)
    message.allow_timeout_override = policy.allow_timeout_override


def _read_strategy(block: Any) -> Direct | Oldest:
    if block.HasField("oldest"):
        return Oldest(
            max_candidate_sequences=block.oldest.max_candidate_sequences,
            preferred_batch_sizes=tuple(block.oldest.preferred_batch_size),
            max_queue_delay_us=block.oldest.max_queue_delay_microseconds,
            preserve_ordering=block.oldest.preserve_ordering,
        )
    return Direct(
        max_queue_delay_us=block.direct.max_queue_delay_microseconds,
        minimum_slot_utilization=block.direct.minimum_slot_utilization,
    )


def _read_control(name: str, message: Any) -> Control:
    kind = ControlKind(_KIND.Name(message.kind).removeprefix("CONTROL_SEQUENCE_").lower())
    if kind is ControlKind.CORRID:
        return Control(kind, name, _dtype(message.data_type))
    given = {t: tuple(getattr(message, f)) for t, f in _FLAG_FIELDS.items() if getattr(message, f)}
    if len(given) != 1:
        raise RepositoryError(
            f"control '{kind}' ({name}) has {len(given)} of {', '.join(_FLAG_FIELDS.values())}; "
            "it must have one"
        )
    ((dtype, values),) = given.items()
    if len(values) != 2:
        raise RepositoryError(f"control '{kind}' ({name}): {_FLAG_FIELDS[dtype]} has two entries")
    return Control(kind, name, data_type(dtype), (values[0], values[1]))


def _write_control(message: Any, control: Control) -> None:
    message.kind = _KIND.Value(f"CONTROL_SEQUENCE_{control.kind.upper()}")
    if control.kind is ControlKind.CORRID:
        message.data_type = schema.DataType.Value(control.dtype.triton)
        return
    number = {"INT32": int, "FP32": float, "BOOL": bool}[control.dtype.name]
    getattr(message, _FLAG_FIELDS[control.dtype.name])[:] = map(number, control.false_true)


def _read_state(message: Any) -> StateTensor:
    if len(message.initial_state) > 1:
        raise RepositoryError(f"state '{message.input_name}' has several initial states; give one")
    initial = None
    for first in message.initial_state:
        if first.data_type != message.data_type:
            raise RepositoryError(
                f"state '{message.input_name}' and its initial state differ in data_type"
            )
        if first.WhichOneof("state_data") is None:
            raise RepositoryError(
                f"the initial state of '{message.input_name}' has no data; "
                "set zero_data, or name a data_file"
            )
        initial = InitialState(first.name, tuple(first.dims), first.data_file)
    return StateTensor(
        input=message.input_name,
        output=message.output_name,
        dtype=_dtype(message.data_type),
        dims=tuple(message.dims),
        initial=initial,
        same_buffer=message.use_same_buffer_for_input_output,
        growable=message.use_growable_memory,
    )


def _write_state(message: Any, state: StateTensor) -> None:
    message.input_name = state.input
    message.output_name = state.output
    message.data_type = schema.DataType.Value(state.dtype.triton)
    message.dims[:] = state.dims
    message.use_same_buffer_for_input_output = state.same_buffer
    message.use_growable_memory = state.growable
    if state.initial is not None:
        first = message.initial_state.add(name=state.initial.name, data_type=message.data_type)
        first.dims[:] = state.initial.dims
        if state.initial.file:
            first.data_file = state.initial.file
        else:
            first.zero_data = True


def _dtype(number: int) -> DataType:
    return data_type(schema.DataType.Name(number))
