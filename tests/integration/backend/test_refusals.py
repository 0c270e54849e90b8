"""Configs that a model must not be loaded with, against real Triton."""

from __future__ import annotations

import json
import urllib.request

import pytest

FP32_1, FP32_4 = ({"data_type": "TYPE_FP32", "dims": [n]} for n in (1, 4))
X, Y = {"name": "x", **FP32_4}, {"name": "y", **FP32_1}
SCALED = "(float[N,4] x) => (float[N,1] y) <int64[1] a = {1}> { y = ReduceSum(x, a) }"
FIXED = "(float[1,4] x) => (float[1,4] y) { y = Relu(x) }"
ECHO = "(string[N,4] x) => (string[N,4] y) { y = Identity(x) }"

REFUSALS = {
    "more_inputs": (
        SCALED,
        {"input": [X, {"name": "q", **FP32_4}]},
        "unable to load model 'more_inputs', configuration expects 2 inputs, model provides 1",
    ),
    "other_input": (
        SCALED,
        {"input": [{"name": "q", **FP32_4}]},
        "unexpected inference input 'q', allowed inputs are: x",
    ),
    "other_output": (
        SCALED,
        {"output": [{"name": "q", **FP32_1}]},
        "unexpected inference output 'q', allowed outputs are: y",
    ),
    "other_type": (
        SCALED,
        {"input": [{**X, "data_type": "TYPE_INT64"}]},
        "unable to load model 'other_type', configuration expects datatype TYPE_INT64 for input "
        "'x', model provides TYPE_FP32",
    ),
    "no_batch_axis": (
        FIXED,
        {"output": [{"name": "y", **FP32_4}]},
        "model 'no_batch_axis', tensor 'x': for the model to support batching the shape should "
        "have at least 1 dimension and the first dimension must be -1; but shape expected by the "
        "model is [1,4]",
    ),
    "other_dims": (
        SCALED,
        {"input": [{**X, "dims": [5]}]},
        "model 'other_dims', tensor 'x': the model expects 2 dimensions (shape [-1,4]) but the "
        "model configuration specifies 2 dimensions (an initial batch dimension because "
        "max_batch_size > 0 followed by the explicit tensor shape, making complete shape [-1,5])",
    ),
    "optional_in_a_batch": (
        "(float[N,4] x, float[1] w = {2.0}) => (float[N,4] y) { y = Mul(x, w) }",
        {
            "input": [X, {"name": "w", **FP32_1, "optional": True}],
            "output": [{"name": "y", **FP32_4}],
        },
        "unable to load model 'optional_in_a_batch', optional input 'w' is not supported for "
        "models that support batching",
    ),
    "threads_in_words": (
        SCALED,
        {"parameters": {"intra_op_thread_count": {"string_value": "two"}}},
        "failed to convert 'two' to integral number",
    ),
    "unknown_accelerator": (
        SCALED,
        {
            "optimization": {
                "execution_accelerators": {"cpu_execution_accelerator": [{"name": "abacus"}]}
            }
        },
        "unknown Execution Accelerator 'abacus' is requested",
    ),
    "openvino": (
        SCALED,
        {
            "optimization": {
                "execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}
            }
        },
        "execution accelerator 'openvino' needs OpenVINOExecutionProvider, which the installed",
    ),
    "text": (
        ECHO,
        {
            "input": [{**X, "data_type": "TYPE_STRING"}],
            "output": [{**X, "name": "y", "data_type": "TYPE_STRING"}],
        },
        "the embedded onnxruntime backend does not do text (TYPE_STRING tensor 'x'); "
        "serve this repository with NVIDIA's container (docker)",
    ),
    "no_file": (None, {}, "no_file/1/model.onnx' for model instance 'no_file'"),
    "no_model": (b"no ONNX", {}, "no_model/1/model.onnx': "),
}


@pytest.fixture(scope="module")
def reasons(serve, repository, graph):
    """Why Triton says that each model is not there."""
    for name, (model, config, _) in REFUSALS.items():
        folder = repository.add(
            name,
            graph(model) if isinstance(model, str) else None,
            **{"max_batch_size": 8, "input": [X], "output": [Y], **config},
        )
        if isinstance(model, bytes):
            (folder / "model.onnx").write_bytes(model)
    with serve(repository.path) as served:
        index = urllib.request.Request(f"http://{served.url}/v2/repository/index", method="POST")
        with urllib.request.urlopen(index) as response:
            states = json.load(response)
        yield {state["name"]: state["reason"] for state in states}, served.log


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_in_the_words_of_the_cpp_backend(reasons, name):
    """A config that does not fit its model, or this backend, stops the load and says why."""
    by_model, log = reasons
    words = REFUSALS[name][2]
    assert words in by_model[name]
    assert f"failed to load '{name}'" in log and words in log
