"""The server's own counters, read from its statistics and metrics."""

import pytest

from tritonkit.stats.scrape import ServerCounters, read_counters, read_session_info

STATISTICS = {  # as Triton 2.51 answers, shortened; 64-bit numbers may be strings
    "name": "m",
    "inference_count": "40",
    "execution_count": 12,
    "inference_stats": {
        "success": {"count": 30, "ns": "100"},
        "fail": {"count": 5, "ns": 1},
        "queue": {"count": 30, "ns": 20},
        "compute_input": {"count": 30, "ns": 3},
        "compute_infer": {"count": 30, "ns": 70},
        "compute_output": {"count": 30, "ns": 4},
        "cache_hit": {"count": 2, "ns": 1},
        "cache_miss": {"count": "28", "ns": 1},
    },
    "batch_stats": [
        {"batch_size": 1, "compute_infer": {"count": 8, "ns": 1}},
        {"batch_size": 8, "compute_infer": {"count": "4", "ns": 1}},
    ],
}


def test_read():
    """Requests, rows, runs, batches, times and failures are read, each as its own."""
    assert read_counters(STATISTICS) == ServerCounters(
        *(30, 40, 12, {1: 8, 8: 4}, {1: 1, 8: 1}),
        **{"success_ns": 100, "queue_ns": 20, "input_ns": 3, "compute_ns": 70, "output_ns": 4},
        failures=5,
        failed_ns=1,
        cache_hits=2,
        cache_misses=28,
    )


@pytest.mark.parametrize(
    "statistics",
    [
        {},
        {"name": "m", "inference_stats": {"success": {}}},
        {"inference_stats": None},
        {"inference_stats": {"success": None, "queue": {"count": 1, "ns": None}}},
    ],
)
def test_read_nothing(statistics):
    """Counts of 0, which may be missing from the JSON, are 0."""
    assert read_counters(statistics) == ServerCounters(0, 0, 0, {})


def test_batch_that_never_ran():
    """A batch size without a count ran 0 times."""
    assert read_counters({"batch_stats": [{"batch_size": 4}]}).batches == {4: 0}


def test_since():
    """The difference of two scrapes has only the batches that ran between them, by size."""
    earlier = ServerCounters(10, 12, 8, {1: 8, 2: 2})
    later = ServerCounters(25, 60, 14, {8: 4, 1: 8, 2: 4})
    between = later.since(earlier)
    assert between == ServerCounters(15, 48, 6, {2: 2, 8: 4})
    assert list(between.batches) == [2, 8]


def test_times_are_subtracted_and_added():
    """Times and failures are of the window too, and windows add up again."""
    earlier = ServerCounters(1, 1, 1, {1: 1}, success_ns=10, queue_ns=4, failures=1)
    later = ServerCounters(3, 5, 2, {1: 1, 4: 1}, success_ns=50, queue_ns=5, failures=4)
    between = later.since(earlier)
    assert (between.success_ns, between.queue_ns, between.failures) == (40, 1, 3)
    assert earlier + between == later


def test_since_itself():
    """Between a scrape and itself nothing ran."""
    counters = read_counters(STATISTICS)
    assert counters.since(counters) == ServerCounters(0, 0, 0, {})


def test_mean_batch():
    """The mean batch is rows per run, and there is none where nothing ran."""
    assert read_counters(STATISTICS).mean_batch == pytest.approx(40 / 12)
    assert ServerCounters(3, 0, 0, {}).mean_batch is None


METRICS = """\
# HELP nv_inference_count Number of inferences performed
# TYPE nv_inference_count counter
nv_inference_count{model="m",version="1"} 40
# HELP tritonkit_onnxruntime_session_info The ONNX Runtime session of each instance, always 1
# TYPE tritonkit_onnxruntime_session_info gauge
tritonkit_onnxruntime_session_info{model="m",instance="m_0",intra_op_threads="2"} 1
tritonkit_onnxruntime_session_info{model="m",instance="m_1",intra_op_threads="2"} 1
tritonkit_onnxruntime_session_info{model="other",instance="other_0",intra_op_threads="9"} 1
"""


def test_session_info():
    """Each session of the model, and of no other, says what it runs with."""
    sessions = list(read_session_info(METRICS, "m"))
    assert [(s["instance"], s["intra_op_threads"]) for s in sessions] == [
        ("m_0", "2"),
        ("m_1", "2"),
    ]


@pytest.mark.parametrize("text", ["", METRICS.partition("# HELP tritonkit")[0]])
def test_no_session_info(text):
    """Metrics of a server without the kit's backend have no sessions."""
    assert list(read_session_info(text, "m")) == []
