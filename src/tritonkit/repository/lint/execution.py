"""Rules about instances, threads, parameters and execution accelerators."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.repository.backend_rules import BOOLEANS, INTEGERS, TEXTS, parameter_refusals
from tritonkit.repository.lint.entry import Entry
from tritonkit.repository.lint.problem import Finding

_REFUSED = "Triton does not load the model"
_THREADS = "intra_op_thread_count"
_STRATEGY = "TRITON_BATCH_STRATEGY_PATH"
_PARAMETERS = (*INTEGERS, *BOOLEANS, *TEXTS, _STRATEGY)
_ACCELERATORS = {"gpu": ("tensorrt", "cuda"), "cpu": ("openvino",)}
_Group = schema.ModelInstanceGroup


def instances_not_written(entry: Entry) -> Iterator[Finding]:
    """No instance_group, or one without a count: an ONNX model on the CPU gets 2 instances."""
    groups = entry.message.instance_group
    if not entry.is_onnx or (entry.limits.gpu and not groups):
        return
    for i, _ in entry.cpu_instances():
        if i == -1 or (groups[i].count < 1 and groups[i].kind != _Group.KIND_MODEL):
            yield Finding(
                entry.line("instance_group", i),
                "there is no instance_group" if i == -1 else "this instance group has no count",
                "Triton starts 2 instances of an ONNX model on a CPU, which share the CPUs",
                "write instance_group [ { kind: KIND_CPU count: 1 } ]",
            )


def threads_not_written(entry: Entry) -> Iterator[Finding]:
    """No intra_op_thread_count: every instance starts a thread for each core."""
    if entry.is_onnx and any(entry.cpu_instances()) and _threads(entry) == 0:
        yield Finding(
            entry.line("parameters", _THREADS, "key"),
            f"there is no {_THREADS}",
            "ONNX Runtime starts a thread for each core of the machine, for each instance, "
            "whatever CPUs a container is given",
            f'write parameters {{ key: "{_THREADS}" value {{ string_value: "N" }} }}',
        )


def threads_over_cpus(entry: Entry) -> Iterator[Finding]:
    """Instances × threads over the CPUs that the server may use."""
    if not entry.is_onnx:
        return
    groups = list(entry.cpu_instances())
    instances, threads = sum(count for _, count in groups), _threads(entry) or 0
    if threads and instances * threads > entry.limits.cpus:
        yield Finding(
            entry.line("instance_group", groups[0][0]),
            f"{instances} instances × {threads} threads = {instances * threads} for "
            f"{entry.limits.cpus} CPUs",
            "they take turns on the CPUs, and each run waits for its slowest thread",
            f"write {_THREADS} and count so that their product is {entry.limits.cpus} or less",
        )


def instance_gpus(entry: Entry) -> Iterator[Finding]:
    """GPUs, or TensorRT's profiles, for instances that have none."""
    config = entry.message
    for i, group in enumerate(config.instance_group):
        kind = _Group.Kind.Name(group.kind)
        if group.kind in (_Group.KIND_CPU, _Group.KIND_MODEL) and group.gpus:
            at = entry.line("instance_group", i, "gpus")
            yield Finding(at, f"{kind} with gpus", _REFUSED, "take gpus out, or write KIND_GPU")
        tensorrt = config.platform == "tensorrt_plan" or config.backend == "tensorrt"
        if group.profile and not tensorrt:
            at = entry.line("instance_group", i, "profile")
            yield Finding(at, "profile, which only TensorRT has", _REFUSED, "take profile out")


def gpu_needed(entry: Entry) -> Iterator[Finding]:
    """KIND_GPU, and this machine has no GPU."""
    for i, group in enumerate(entry.message.instance_group):
        if group.kind == _Group.KIND_GPU and not entry.limits.gpu:
            yield Finding(
                entry.line("instance_group", i, "kind"),
                "KIND_GPU, and this machine has no GPU",
                f"{_REFUSED} where there is no GPU",
                "serve it where there is one, or write KIND_CPU",
            )


def parameter_value(entry: Entry) -> Iterator[Finding]:
    """A parameter whose value is not the number, or the truth value, that it must be."""
    if entry.is_onnx:
        for refusal in parameter_refusals(entry.as_json(0)):
            remedy = "write true or false" if refusal.where[1] in BOOLEANS else "write a number"
            at = entry.line(*refusal.where, "value", "string_value")
            yield Finding(at, refusal.message, _REFUSED, remedy)


def unknown_parameter(entry: Entry) -> Iterator[Finding]:
    """A parameter that the ONNX Runtime backend does not know."""
    if not entry.is_onnx or _STRATEGY in entry.message.parameters:  # its library has its own
        return
    for key in entry.message.parameters:
        if key in _PARAMETERS:
            continue
        close = get_close_matches(key.lower(), _PARAMETERS, n=1)
        yield Finding(
            entry.line("parameters", key, "key"),
            f"the ONNX Runtime backend knows no parameter '{key}'",
            "it is ignored in silence",
            f"did you mean '{close[0]}'?" if close else "take it out",
        )


def duplicate_parameter(entry: Entry) -> Iterator[Finding]:
    """A parameter, or another entry of a map, that is written twice."""
    for where, line in entry.text.positions.repeated:
        yield Finding(
            line,
            f"'{where[-1]}' is there a second time in {where[-2]}",
            "the last one counts, and Triton says nothing",
            "keep one of them",
        )


def unknown_accelerator(entry: Entry) -> Iterator[Finding]:
    """An execution accelerator that the ONNX Runtime backend does not know."""
    for side, i, name in _accelerators(entry):
        if name not in _ACCELERATORS[side]:
            yield Finding(
                _accelerator_line(entry, side, i),
                f"'{name}' is no execution accelerator for the {side.upper()}",
                _REFUSED,
                f"write {' or '.join(_ACCELERATORS[side])}, or take it out",
            )


def accelerator_unused(entry: Entry) -> Iterator[Finding]:
    """An accelerator for GPU instances of a model that has none."""
    groups = entry.message.instance_group
    kinds = {group.kind for group in groups}
    if kinds and kinds <= {_Group.KIND_CPU, _Group.KIND_MODEL}:
        for side, i, name in _accelerators(entry):
            if side == "gpu":
                yield Finding(
                    _accelerator_line(entry, side, i),
                    f"the accelerator '{name}' is for GPUs and all instances are on the CPU",
                    "it is ignored in silence",
                    "write KIND_GPU, or take the accelerator out",
                )


def _accelerators(entry: Entry) -> Iterator[tuple[str, int, str]]:
    if entry.is_onnx:
        block = entry.message.optimization.execution_accelerators
        for side in _ACCELERATORS:
            for i, accelerator in enumerate(getattr(block, f"{side}_execution_accelerator")):
                yield side, i, accelerator.name


def _accelerator_line(entry: Entry, side: str, i: int) -> int:
    block = f"{side}_execution_accelerator"
    return entry.line("optimization", "execution_accelerators", block, i, "name")


def _threads(entry: Entry) -> int | None:
    """The threads of each instance; 0 where that is left to ONNX Runtime; None if it is no number,
    which parameter-value tells.
    """
    text = entry.parameter(_THREADS).strip()
    if not text:
        return 0 if _THREADS not in entry.message.parameters else None
    try:
        return max(0, int(text))
    except ValueError:
        return None
