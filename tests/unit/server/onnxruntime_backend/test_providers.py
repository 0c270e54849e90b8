"""The execution providers that a config asks for."""

from __future__ import annotations

import onnxruntime as ort
import pytest

from tritonkit.errors import RepositoryError
from tritonkit.server.onnxruntime_backend.providers import provider_list

CPU = ("CPUExecutionProvider", {})


def accelerated(side, name, **parameters):
    entry = {"name": name, "parameters": parameters}
    return {"optimization": {"execution_accelerators": {f"{side}_execution_accelerator": [entry]}}}


@pytest.fixture
def everything(monkeypatch):
    """An onnxruntime that has every provider."""
    names = [f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "OpenVINO", "CPU")]
    monkeypatch.setattr(ort, "get_available_providers", lambda: names)


def refusal(config, **instance):
    with pytest.raises(RepositoryError) as error:
        provider_list(config, **instance)
    return str(error.value)


def test_cpu_alone():
    """A config that asks for nothing runs on the CPU provider."""
    assert provider_list({}) == [CPU]


@pytest.mark.parametrize(
    ("side", "name", "provider"),
    [
        ("cpu", "openvino", "OpenVINOExecutionProvider"),
        ("gpu", "tensorrt", "TensorrtExecutionProvider"),
        ("gpu", "cuda", "CUDAExecutionProvider"),
    ],
)
def test_accelerator_that_is_not_installed(side, name, provider):
    """An accelerator that this onnxruntime lacks is refused, with where to find it."""
    assert refusal({"name": "m"} | accelerated(side, name)) == (
        f"unable to load model 'm', execution accelerator '{name}' needs {provider}, which the "
        f"installed onnxruntime {ort.__version__} does not have; serve this repository with "
        "NVIDIA's container (docker), or take the setting out"
    )


def test_gpu_that_is_not_installed():
    """A KIND_GPU instance needs an onnxruntime with CUDA."""
    assert "instance_group kind KIND_GPU needs CUDAExecutionProvider" in refusal(
        {}, kind="KIND_GPU"
    )


@pytest.mark.parametrize("side", ["cpu", "gpu"])
def test_unknown_accelerator(side):
    """An accelerator that nobody has is refused as such."""
    words = "unknown Execution Accelerator 'abacus' is requested"
    assert refusal(accelerated(side, "abacus")) == words


@pytest.mark.usefixtures("everything")
def test_openvino():
    """OpenVINO comes before the CPU provider."""
    openvino = ("OpenVINOExecutionProvider", {"device_type": "CPU"})
    assert provider_list(accelerated("cpu", "openvino")) == [openvino, CPU]


@pytest.mark.usefixtures("everything")
def test_gpu_instance():
    """A KIND_GPU instance runs on its own device, and on the CPU what CUDA lacks."""
    cuda = ("CUDAExecutionProvider", {"device_id": "1"})
    assert provider_list({}, kind="KIND_GPU", device_id=1) == [cuda, CPU]


@pytest.mark.usefixtures("everything")
def test_gpu_accelerator_is_for_gpu_instances():
    """A CPU instance leaves a GPU accelerator be, as the C++ backend does."""
    assert provider_list(accelerated("gpu", "tensorrt")) == [CPU]


@pytest.mark.usefixtures("everything")
def test_tensorrt_parameters():
    """TensorRT's parameters reach ONNX Runtime under its own names, before CUDA."""
    config = accelerated(
        "gpu",
        "tensorrt",
        precision_mode="FP16",
        max_workspace_size_bytes="1024",
        trt_engine_cache_enable="true",
    )
    tensorrt, cuda, cpu = provider_list(config, kind="KIND_GPU")
    assert tensorrt == (
        "TensorrtExecutionProvider",
        {
            "trt_fp16_enable": "True",
            "trt_max_workspace_size": "1024",
            "trt_engine_cache_enable": "true",
            "device_id": "0",
        },
    )
    assert (cuda[0], cpu) == ("CUDAExecutionProvider", CPU)


@pytest.mark.usefixtures("everything")
def test_tensorrt_parameter_that_does_not_exist():
    """A parameter that TensorRT does not have is refused."""
    words = "unknown parameter 'speed' is provided for TensorRT Execution Accelerator"
    assert refusal(accelerated("gpu", "tensorrt", speed="11")) == words


@pytest.mark.usefixtures("everything")
def test_tensorrt_precision_that_does_not_exist():
    """A precision that TensorRT does not have is refused."""
    words = "unsupported precision mode 'FP3' is requested"
    assert refusal(accelerated("gpu", "tensorrt", precision_mode="FP3")) == words


@pytest.mark.usefixtures("everything")
def test_cuda_parameters_old_and_new():
    """CUDA's options come from the model's parameters and, above them, the accelerator's."""
    config = accelerated("gpu", "cuda", gpu_mem_limit="2") | {
        "parameters": {
            "gpu_mem_limit": {"string_value": "1"},
            "cudnn_conv_algo_search": {"string_value": "1"},
        }
    }
    cuda, _ = provider_list(config, kind="KIND_GPU")
    expected = {"gpu_mem_limit": "2", "cudnn_conv_algo_search": "HEURISTIC", "device_id": "0"}
    assert cuda[1] == expected


def test_cuda_choice_that_does_not_exist():
    """A number that stands for none of CUDA's choices is refused."""
    config = {"parameters": {"arena_extend_strategy": {"string_value": "7"}}}
    assert refusal(config) == "unsupported arena_extend_strategy value '7' is requested"
