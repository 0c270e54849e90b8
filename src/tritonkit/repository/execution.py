"""Where and how ONNX Runtime runs a model, as a frozen value.

The keys and their meaning are those of NVIDIA's onnxruntime_backend, src/onnxruntime.cc.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class InstanceKind(StrEnum):
    """What the instances of a model run on. AUTO: a GPU where the server has one."""

    CPU = "KIND_CPU"
    GPU = "KIND_GPU"
    MODEL = "KIND_MODEL"
    AUTO = "KIND_AUTO"


class GraphLevel(StrEnum):
    """How far ONNX Runtime rewrites the graph; ALL is its default."""

    ALL = "all"
    EXTENDED = "extended"
    BASIC = "basic"
    OFF = "off"


GPU_ACCELERATORS = ("tensorrt", "cuda")
CPU_ACCELERATORS = ("openvino",)

TENSORRT_PRECISIONS = ("FP32", "FP16", "BF16", "INT8")
_TENSORRT_KEYS = (
    "precision_mode",
    "max_workspace_size_bytes",
    "int8_calibration_table_name",
    "int8_use_native_calibration_table",
)


@dataclass(frozen=True)
class Accelerator:
    """An execution provider beside ONNX Runtime's own: tensorrt, cuda or openvino."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Execution:
    """What each instance of the model runs on, and its session's options. None and "": what ONNX
    Runtime does by itself.

    gpus: ids; none means all, each with as many instances. parallel: branches of the graph run
    beside each other, on the inter-op threads. arena_shrinkage: devices whose memory arena is
    given back after each run, as `cpu:0;gpu:0`.
    """

    kind: InstanceKind = InstanceKind.CPU
    gpus: tuple[int, ...] = ()
    parallel: bool | None = None
    graph_level: GraphLevel = GraphLevel.ALL
    mem_arena: bool | None = None
    mem_pattern: bool | None = None
    arena_shrinkage: str = ""
    accelerators: tuple[Accelerator, ...] = ()


def execution_refusals(execution: Execution) -> Iterator[str]:
    """What Triton or its ONNX Runtime backend would not load."""
    if execution.gpus and execution.kind in (InstanceKind.CPU, InstanceKind.MODEL):
        yield f"instances of {execution.kind} have no gpus, but {list(execution.gpus)} are given"
    for gpu in execution.gpus:
        if not 0 <= gpu < 2**31:
            yield f"{gpu} is no id of a GPU"
    names = [accelerator.name for accelerator in execution.accelerators]
    for accelerator in execution.accelerators:
        name = accelerator.name
        if name not in GPU_ACCELERATORS + CPU_ACCELERATORS:
            known = ", ".join(GPU_ACCELERATORS + CPU_ACCELERATORS)
            yield f"there is no execution accelerator '{name}' for ONNX models; there are {known}"
        if names.count(name) > 1:
            yield f"the execution accelerator '{name}' is there twice"
        if name == "tensorrt":
            yield from _tensorrt_refusals(accelerator.parameters)


def execution_contradictions(execution: Execution) -> Iterator[str]:
    """What Triton takes and does not do: it would be asked for in vain."""
    names = {accelerator.name for accelerator in execution.accelerators}
    if names & set(CPU_ACCELERATORS) and names & set(GPU_ACCELERATORS):
        yield "openvino runs on the CPU, tensorrt and cuda on a GPU; ask for one of the two"
    for accelerator in execution.accelerators:
        if accelerator.name in GPU_ACCELERATORS and execution.kind is InstanceKind.CPU:
            yield f"{accelerator.name} needs instances on a GPU; ask for --instance-kind gpu"
        if accelerator.name in CPU_ACCELERATORS and execution.kind is InstanceKind.GPU:
            yield f"{accelerator.name} needs instances on the CPU; ask for --instance-kind cpu"
        if accelerator.name == "openvino" and accelerator.parameters:
            yield "openvino takes no parameters; Triton would ignore them"
    if execution.mem_arena is False and execution.arena_shrinkage:
        yield "there is no arena to shrink where the memory arena is off"


def _tensorrt_refusals(parameters: Mapping[str, str]) -> Iterator[str]:
    for key, value in parameters.items():
        if key not in _TENSORRT_KEYS and not key.startswith("trt_"):
            known = ", ".join(_TENSORRT_KEYS)
            yield f"tensorrt has no parameter '{key}'; it has {known} and ONNX Runtime's own trt_…"
        if key == "precision_mode" and value not in TENSORRT_PRECISIONS:
            yield f"precision_mode is '{value}'; it must be one of {', '.join(TENSORRT_PRECISIONS)}"
