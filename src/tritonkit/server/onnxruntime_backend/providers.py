"""The execution providers that a config asks for, first choice first.

Source of the names, keys and wording: triton-inference-server/onnxruntime_backend, LoadModel() in
src/onnxruntime.cc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime as ort

from tritonkit.errors import RepositoryError

Provider = tuple[str, dict[str, str]]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_OPENVINO, _TENSORRT = "OpenVINOExecutionProvider", "TensorrtExecutionProvider"

_PRECISIONS = {"FP16": "trt_fp16_enable", "BF16": "trt_bf16_enable", "INT8": "trt_int8_enable"}
_TENSORRT_NAMES = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
_CUDA_CHOICES = {
    "cudnn_conv_algo_search": {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"},
    "arena_extend_strategy": {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"},
}
_CUDA_VALUES = ("gpu_mem_limit", "do_copy_in_default_stream")


def provider_list(
    config: Mapping[str, Any], *, kind: str = "KIND_CPU", device_id: int = 0
) -> list[Provider]:
    """The providers and their options for one instance of `kind` on GPU `device_id`.

    A GPU accelerator must be there to be asked for, but (as in the C++ backend) only a KIND_GPU
    instance uses it. RepositoryError for an accelerator that is unknown, or that the installed
    onnxruntime does not have.
    """
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    device = {"device_id": str(device_id)}
    cuda = _cuda_options(config)
    on_gpu: list[Provider] = []
    for accelerator in accelerators.get("gpu_execution_accelerator", ()):
        parameters = accelerator.get("parameters", {})
        if accelerator["name"] == "tensorrt":
            _require(_TENSORRT, "execution accelerator 'tensorrt'", config)
            on_gpu.append((_TENSORRT, _tensorrt_options(parameters) | device))
        elif accelerator["name"] == "cuda":
            _require(_CUDA, "execution accelerator 'cuda'", config)
            cuda |= parameters
        else:
            raise _unknown(accelerator["name"])
    on_cpu: list[Provider] = []
    for accelerator in accelerators.get("cpu_execution_accelerator", ()):
        if accelerator["name"] != "openvino":
            raise _unknown(accelerator["name"])
        _require(_OPENVINO, "execution accelerator 'openvino'", config)
        on_cpu.append((_OPENVINO, {"device_type": "CPU"}))
    if kind == "KIND_GPU":
        _require(_CUDA, "instance_group kind KIND_GPU", config)
        on_gpu.append((_CUDA, cuda | device))
    else:
        on_gpu = []
    return [*on_gpu, *on_cpu, (_CPU, {})]


def _unknown(name: str) -> RepositoryError:
    return RepositoryError(f"unknown Execution Accelerator '{name}' is requested")


def _require(provider: str, what: str, config: Mapping[str, Any]) -> None:
    if provider not in ort.get_available_providers():
        raise RepositoryError(
            f"unable to load model '{config.get('name', '')}', {what} needs {provider}, which the "
            f"installed onnxruntime {ort.__version__} does not have; serve this repository with "
            "NVIDIA's container (docker), or take the setting out"
        )


def _tensorrt_options(parameters: Mapping[str, str]) -> dict[str, str]:
    """ORT's names for the config's; RepositoryError for a parameter that does not exist."""
    options = {}
    for key, value in parameters.items():
        if key == "precision_mode":
            if value in _PRECISIONS:
                options[_PRECISIONS[value]] = "True"
            elif value != "FP32":
                raise RepositoryError(f"unsupported precision mode '{value}' is requested")
        elif key in _TENSORRT_NAMES or key.startswith("trt_"):
            options[_TENSORRT_NAMES.get(key, key)] = value
        else:
            raise RepositoryError(
                f"unknown parameter '{key}' is provided for TensorRT Execution Accelerator"
            )
    return options


def _cuda_options(config: Mapping[str, Any]) -> dict[str, str]:
    """The CUDA options among the model's own `parameters`: the older place for them."""
    parameters = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
    options = {key: parameters[key] for key in _CUDA_VALUES if key in parameters}
    for key, choices in _CUDA_CHOICES.items():
        if key in parameters:
            if parameters[key] not in choices:
                raise RepositoryError(f"unsupported {key} value '{parameters[key]}' is requested")
            options[key] = choices[parameters[key]]
    return options
