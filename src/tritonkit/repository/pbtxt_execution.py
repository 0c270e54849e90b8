"""Execution ⇄ the schema's instance_group, optimization and parameters."""

from __future__ import annotations

from typing import Any

from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.errors import RepositoryError
from tritonkit.repository.execution import (
    CPU_ACCELERATORS,
    Accelerator,
    Execution,
    GraphLevel,
    InstanceKind,
)

_KIND = schema.ModelInstanceGroup.Kind

# Every other number means all optimizations.
_LEVELS = {GraphLevel.BASIC: -1, GraphLevel.EXTENDED: 1, GraphLevel.OFF: 2}

_MODE = "execution_mode"
_ARENA = "enable_mem_arena"
_PATTERN = "enable_mem_pattern"
_SHRINKAGE = "memory.enable_memory_arena_shrinkage"


def read_execution(message: Any) -> Execution:
    """RepositoryError for a parameter whose value the backend would not load."""
    group = message.instance_group[0] if message.instance_group else schema.ModelInstanceGroup()
    level = message.optimization.graph.level
    accelerators = message.optimization.execution_accelerators
    return Execution(
        kind=InstanceKind(_KIND.Name(group.kind)),
        gpus=tuple(group.gpus),
        parallel=_switch(message, _MODE, ("0",), ("1",)),
        graph_level=next((name for name, n in _LEVELS.items() if n == level), GraphLevel.ALL),
        mem_arena=_switch(message, _ARENA, ("false", "off", "0"), ("true", "on", "1")),
        mem_pattern=_switch(message, _PATTERN, ("false", "off", "0"), ("true", "on", "1")),
        arena_shrinkage=_parameter(message, _SHRINKAGE) or "",
        accelerators=tuple(
            Accelerator(accelerator.name, dict(accelerator.parameters))
            for accelerator in (
                *accelerators.gpu_execution_accelerator,
                *accelerators.cpu_execution_accelerator,
            )
        ),
    )


def write_execution(message: Any, execution: Execution) -> None:
    """Bring the first instance group, the graph level, the accelerators and ONNX Runtime's
    parameters in line."""
    (group, *_) = message.instance_group or (message.instance_group.add(),)
    group.kind = _KIND.Value(execution.kind)
    group.gpus[:] = execution.gpus
    _set_parameter(message, _MODE, execution.parallel, ("0", "1"))
    _set_parameter(message, _ARENA, execution.mem_arena, ("false", "true"))
    _set_parameter(message, _PATTERN, execution.mem_pattern, ("false", "true"))
    if execution.arena_shrinkage:
        message.parameters[_SHRINKAGE].string_value = execution.arena_shrinkage
    else:
        message.parameters.pop(_SHRINKAGE, None)
    if execution.graph_level is not read_execution(message).graph_level:
        message.optimization.graph.level = _LEVELS.get(execution.graph_level, 0)
    _set_accelerators(message, execution.accelerators)


def _set_accelerators(message: Any, wanted: tuple[Accelerator, ...]) -> None:
    if message.HasField("optimization"):
        message.optimization.ClearField("execution_accelerators")
    for accelerator in wanted:
        lists = message.optimization.execution_accelerators
        on_cpu = accelerator.name in CPU_ACCELERATORS
        place = lists.cpu_execution_accelerator if on_cpu else lists.gpu_execution_accelerator
        place.add(name=accelerator.name, parameters=dict(accelerator.parameters))


def _switch(message: Any, key: str, no: tuple[str, ...], yes: tuple[str, ...]) -> bool | None:
    value = _parameter(message, key)
    if value is None:
        return None
    if value.lower() not in no + yes:
        known = ", ".join(no + yes)
        raise RepositoryError(f"{key} is '{value}'; it must be one of {known}")
    return value.lower() in yes


def _parameter(message: Any, key: str) -> str | None:
    return message.parameters[key].string_value if key in message.parameters else None


def _set_parameter(message: Any, key: str, value: bool | None, words: tuple[str, str]) -> None:
    if value is None:
        message.parameters.pop(key, None)
    else:
        message.parameters[key].string_value = words[value]
