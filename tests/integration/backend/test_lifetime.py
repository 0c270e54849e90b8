"""From load to unload: warm-up, the certificate in the metrics, and leaving."""

from __future__ import annotations

import re

import numpy as np
import onnxruntime
import pytest

METRIC = "tritonkit_onnxruntime_session_info"
X, Y = ({"name": name, "data_type": "TYPE_FP32", "dims": [3]} for name in "xy")
DOUBLE = "(float[N,3] x) => (float[N,3] y) { y = Add(x, x) }"


@pytest.fixture(scope="module")
def triton(serve, repository, graph):
    whole = {"max_batch_size": 8, "input": [X], "output": [Y]}
    data = {"x": {"data_type": "TYPE_FP32", "dims": [3], "random_data": True}}
    repository.add(
        "warmed",
        graph(DOUBLE),
        **whole,
        model_warmup=[
            {"name": f"batch_{n}", "batch_size": n, "count": 1, "inputs": data} for n in (1, 3, 8)
        ],
    )
    repository.add(
        "tuned",
        graph(DOUBLE),
        **whole,
        instance_group=[{"kind": "KIND_CPU", "count": 2}],
        optimization={"graph": {"level": 1}},
        parameters={
            key: {"string_value": value}
            for key, value in {
                "execution_mode": "1",
                "intra_op_thread_count": "2",
                "inter_op_thread_count": "3",
                "share_session_between_instances": "true",
                "memory.enable_memory_arena_shrinkage": "cpu:0",
            }.items()
        },
    )
    repository.add("leaving", graph(DOUBLE), **whole)
    flags = ["--model-control-mode=explicit", "--load-model=*", "--log-verbose=1"]
    with serve(repository.path, *flags) as served:
        yield served


def labels(metrics):
    """The labels of every session that is published, by instance."""
    found = {}
    for line in re.findall(rf"^{METRIC}{{(.*)}} 1$", metrics, re.MULTILINE):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', line))
        found[pairs["instance"]] = pairs
    return found


def test_warm_up_runs_each_batch_size(triton):
    """Every warm-up sample of model_warmup runs before the model is ready."""
    assert (triton.infer("warmed", {"x": np.ones((1, 3), np.float32)})["y"] == 2).all()
    for size in (1, 3, 8):
        assert f"warmed_0_0 is running warmup sample 'batch_{size}'" in triton.log


def test_each_instance_publishes_its_session(triton):
    """Two instances of one model are two lines of one metric, each with what it runs."""
    published = labels(triton.metrics())
    assert published["tuned_0_0"] == {
        "model": "tuned",
        "version": "1",
        "instance": "tuned_0_0",
        "onnxruntime": onnxruntime.__version__,
        "intra_op_threads": "2",
        "inter_op_threads": "3",
        "graph_level": "ORT_ENABLE_EXTENDED",
        "execution_mode": "ORT_PARALLEL",
        "providers": "CPUExecutionProvider",
    }
    assert published["tuned_0_1"] == {**published["tuned_0_0"], "instance": "tuned_0_1"}


def test_run_options_are_honoured(triton):
    """A model whose config sets a run option is served."""
    assert (triton.infer("tuned", {"x": np.ones((1, 3), np.float32)})["y"] == 2).all()


def test_shared_session_is_said_to_have_no_effect(triton):
    """A key that only the C++ backend can honour is named in the log."""
    assert "tuned_0_0: share_session_between_instances has no effect" in triton.log


def test_unloading_takes_the_metric_away(triton, wait_for):
    """After an unload the model's session is published no more, and the others still are."""
    with triton.client() as client:
        assert "leaving_0_0" in labels(triton.metrics())
        client.unload_model("leaving")
        wait_for(lambda: "successfully unloaded 'leaving'" in triton.log)
    assert set(labels(triton.metrics())) == {"warmed_0_0", "tuned_0_0", "tuned_0_1"}


def test_without_metrics_the_model_is_served(serve, graph, empty_repository):
    """Where the server has no metrics the model works as ever."""
    empty_repository.add("double", graph(DOUBLE), max_batch_size=8, input=[X], output=[Y])
    with serve(empty_repository.path, "--allow-metrics=false") as served:
        assert (served.infer("double", {"x": np.ones((1, 3), np.float32)})["y"] == 2).all()
        assert f"no {METRIC} metric" not in served.log
