"""Requests that Triton's dynamic batcher joined, against real Triton."""

from __future__ import annotations

from collections import Counter
from itertools import repeat

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

DELAY_US = 5_000_000
"""Longer than any test waits: a batch leaves because it is full, never because time is up."""


@pytest.fixture(scope="module")
def triton(serve, repository, graph):
    def fp32(name, *dims):
        return {"name": name, "data_type": "TYPE_FP32", "dims": dims}

    def joining(rows):
        delayed = {"max_queue_delay_microseconds": DELAY_US}
        return {"max_batch_size": rows, "dynamic_batching": delayed}

    repository.add(
        "double",
        graph(
            "(float[N,3] x, float[N,1] z) => (float[N,3] y, float[N,3] w)"
            "{ y = Add(x, z) w = Sub(x, z) }"
        ),
        input=[fp32("x", 3), fp32("z", 1)],
        output=[fp32("y", 3), fp32("w", 3)],
        **joining(12),
    )
    repository.add(
        "lookup",
        graph(
            "(int64[N,1] x) => (float[N,1] y) <float[3] table = {10.0, 20.0, 30.0}>"
            "{ y = Gather(table, x) }"
        ),
        input=[{"name": "x", "data_type": "TYPE_INT64", "dims": [1]}],
        output=[fp32("y", 1)],
        **joining(3),
    )
    repository.add(
        "one_row",
        graph(
            "(float[N,2] x) => (float[N,2] y)"
            "<int64[1] start = {0}, int64[1] stop = {1}> { y = Slice(x, start, stop, start) }"
        ),
        input=[fp32("x", 2)],
        output=[fp32("y", 2)],
        **joining(3),
    )
    repository.add(
        "alone",
        graph("(float[2] x) => (float[2] y) { y = Add(x, x) }"),
        input=[fp32("x", 2)],
        output=[fp32("y", 2)],
    )
    with serve(repository.path) as served:
        yield served


@pytest.fixture
def together(triton, wait_for):
    """Send requests all at once: what came of each, and the sizes of the (at `least` so
    many) batches that it took.
    """

    def send(model, requests, outputs=None, least=1):
        with triton.client(concurrency=len(requests)) as client:
            before = batches(client, model)
            pending = [
                triton.send(client, model, request, names)
                for request, names in zip(requests, outputs or repeat(None), strict=False)
            ]
            results = []
            for answer in pending:
                try:
                    results.append(answer.get_result())
                except InferenceServerException as error:
                    results.append(error.message())
            # Triton counts a batch just after it has answered it, and a failed one never.
            if not any(isinstance(result, str) for result in results):
                wait_for(lambda: (batches(client, model) - before).total() >= least)
            return results, batches(client, model) - before

    return send


def batches(client, model):
    """How many batches of each size the model has served."""
    (statistics,) = client.get_inference_statistics(model)["model_stats"]
    sizes = statistics.get("batch_stats", ())
    return Counter({size["batch_size"]: size["compute_infer"]["count"] for size in sizes})


def test_joined_requests_each_get_their_own_rows(together):
    """Six requests of one to three rows run as one batch, and each gets its own rows back."""
    random = np.random.default_rng(0)
    requests = [
        {"x": random.random((n, 3), np.float32), "z": random.random((n, 1), np.float32)}
        for n in (1, 2, 3, 1, 2, 3)
    ]
    results, sizes = together("double", requests)
    assert sizes == {12: 1}
    for request, result in zip(requests, results, strict=True):
        assert (result.as_numpy("y") == request["x"] + request["z"]).all()
        assert (result.as_numpy("w") == request["x"] - request["z"]).all()


def test_joined_requests_each_get_the_outputs_they_asked_for(together):
    """Requests of one batch that name different outputs each get just those."""
    requests = [
        {"x": np.full((4, 3), i, np.float32), "z": np.ones((4, 1), np.float32)} for i in range(3)
    ]
    results, sizes = together("double", requests, [["y"], ["w"], ["w", "y"]])
    assert sizes == {12: 1}
    named = [[o["name"] for o in result.get_response()["outputs"]] for result in results]
    assert [sorted(names) for names in named] == [["y"], ["w"], ["w", "y"]]
    assert (results[0].as_numpy("y") == 1).all() and (results[1].as_numpy("w") == 0).all()


def test_run_time_error_fails_each_request_of_its_batch(together):
    """When ONNX Runtime fails, every request of the batch gets its words."""
    results, _ = together("lookup", [{"x": np.array([[i]])} for i in (0, 1, 99)])
    assert len(results) == 3
    assert all("indices element out of data bounds, idx=99" in result for result in results)


def test_run_time_error_leaves_the_model_up(together):
    """After a batch that failed, the next one is served."""
    together("lookup", [{"x": np.array([[99]])} for _ in range(3)])
    results, _ = together("lookup", [{"x": np.array([[i]])} for i in range(3)])
    assert [result.as_numpy("y").item() for result in results] == [10, 20, 30]


def test_output_without_a_row_for_each_request(together):
    """A model that gives another number of rows than it got fails its batch, and says so."""
    results, _ = together("one_row", [{"x": np.zeros((1, 2), np.float32)}] * 3)
    words = "output 'y' has 1 rows for a batch of 3 rows: the model cannot be batched"
    assert results == [words] * 3


def test_without_a_batch_axis_each_request_runs_alone(together):
    """With max_batch_size 0, requests sent at once each get their own values."""
    requests = [{"x": np.full(2, i, np.float32)} for i in range(5)]
    results, sizes = together("alone", requests, least=5)
    assert [result.as_numpy("y").tolist() for result in results] == [[2 * i] * 2 for i in range(5)]
    assert sizes == {1: 5}
