"""Why batching does or does not happen, from made-up statistics of known behaviour."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tritonkit.stats.batching import Diagnosis, diagnose
from tritonkit.stats.traffic import Look, has_traffic, read_batching, read_traffic, row_gain

WATCHED_S = 10


@dataclass(frozen=True)
class Load:
    """What a model did. batches: rows of a run → runs. run_ms: of each size, or of all.

    queue_ms, other_ms: of each request, waiting for its run and neither waiting nor running.
    """

    batches: Mapping[int, int]
    rows: int = 1
    run_ms: Mapping[int, float] | float = 1.0
    queue_ms: float = 0.05
    other_ms: float = 0.0
    failed: int = 0
    failed_ms: float = 1.0
    hits: int = 0
    extra: int = 0  # requests without a run

    def of_run(self, rows: int) -> float:
        return self.run_ms[rows] if isinstance(self.run_ms, Mapping) else self.run_ms


# One row alone takes 1 ms, eight take 2 ms: 8,500 requests in 1,500 runs.
HEALTHY = Load({1: 500, 8: 1000}, run_ms={1: 1.0, 8: 2.0}, queue_ms=1.0)
ALONE = Load({1: 1000})
WARM_UP = Load({1: 1, 16: 1, 32: 1}, run_ms=200.0)
NOTHING = Load({})


def record(*loads: Load, version: str = "1") -> dict[str, Any]:
    """The counters after all these loads, as Triton answers them."""
    stats = {name: {"count": 0, "ns": 0} for name in ("success", "fail", "queue", "cache_hit")}
    batches: dict[int, dict[str, int]] = {}

    def add(name: str, count: int, ms: float) -> None:
        stats[name]["count"] += count
        stats[name]["ns"] += round(ms * 1e6)

    for load in loads:
        in_runs_ms = requests = 0.0
        for rows, runs in load.batches.items():
            each = batches.setdefault(rows, {"count": 0, "ns": 0})
            each["count"] += runs
            each["ns"] += round(runs * load.of_run(rows) * 1e6)
            requests += runs * rows / load.rows
            in_runs_ms += runs * rows / load.rows * load.of_run(rows)
        answered = round(requests) + load.hits + load.extra
        others_ms = answered * (load.queue_ms + load.other_ms)
        add("success", answered, in_runs_ms + others_ms)
        add("fail", load.failed, load.failed * load.failed_ms)
        add("queue", answered, answered * load.queue_ms)
        add("cache_hit", load.hits, 0.0)
    return {
        "name": "m",
        "version": version,
        "inference_count": sum(rows * b["count"] for rows, b in batches.items()),
        "execution_count": sum(b["count"] for b in batches.values()),
        "inference_stats": stats,
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": {"count": b["count"], "ns": b["ns"] // 4},
                "compute_infer": {"count": b["count"], "ns": b["ns"] // 2},
                "compute_output": {"count": b["count"], "ns": b["ns"] // 4},
            }
            for rows, b in sorted(batches.items())
        ],
    }


def look(at_s: float, *records: Mapping[str, Any]) -> Look:
    return Look(round(at_s * 1e9), records)


def config(**changes: Any) -> dict[str, Any]:
    """A config that batches, as a server answers it; None takes a field away."""
    written = {
        "name": "m",
        "max_batch_size": 32,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
        "dynamic_batching": {"preferred_batch_size": [32], "max_queue_delay_microseconds": 0},
        "instance_group": [{"kind": "KIND_CPU", "count": 1, "gpus": []}],
    }
    return {k: v for k, v in (written | changes).items() if v is not None}


def dynamic(**fields: Any) -> dict[str, Any]:
    return config(dynamic_batching=fields)


def queue(**policy: Any) -> dict[str, Any]:
    return dynamic(default_queue_policy=policy)


def inputs(**fields: Any) -> dict[str, Any]:
    return config(input=[{"name": "x", "dims": [4]} | fields])


def instances(n: int) -> dict[str, Any]:
    return config(instance_group=[{"count": n}])


def diagnosed(written: Mapping[str, Any], load: Load) -> Diagnosis:
    """What is found where a warmed-up server had this load for WATCHED_S."""
    looks = [look(5, record(WARM_UP)), look(5 + WATCHED_S, record(WARM_UP, load))]
    return diagnose("m", written, looks)


# Ten requests wait in the mean, though runs are small.
CROWD = Load({1: 1000}, queue_ms=100.0)
PAIRS = Load({2: 1000}, queue_ms=50.0)
# Little's law: 3 in flight, all of them running.
OVERLAPPING = Load({1: 10_000}, run_ms=3.0)
# A request each ms, each run a tenth of that; now and then two meet.
FAST = Load({1: 9_000, 2: 500}, run_ms=0.1)
OLDEST = {"oldest": {"max_candidate_sequences": 8}}

CASES = [
    # cause, config, load; then the healthy twin: what has the cause taken away
    ("max_batch_size", config(max_batch_size=0, dynamic_batching=None), ALONE),
    ("max_batch_size", config(max_batch_size=1), ALONE),
    ("low_concurrency", config(max_batch_size=2), ALONE),
    #
    ("no_scheduler", config(dynamic_batching=None), ALONE),
    ("no_scheduler", config(dynamic_batching=None), NOTHING),
    ("healthy", config(dynamic_batching=None), HEALTHY),  # no Triton, which batches all the same
    ("low_concurrency", config(dynamic_batching={}), ALONE),
    ("low_concurrency", config(dynamic_batching=None, sequence_batching=OLDEST), ALONE),
    #
    ("full_requests", config(), Load({32: 1000}, rows=32)),
    ("full_requests", config(dynamic_batching=None), Load({32: 1000}, rows=32)),
    ("healthy", config(), Load({1: 9, 32: 1000})),
    #
    ("no_traffic", config(), NOTHING),
    ("healthy", config(), HEALTHY),
    #
    ("failures", config(), replace(HEALTHY, failed=1000)),
    ("failures", config(), Load({}, failed=5)),
    ("healthy", config(), replace(HEALTHY, failed=500)),
    #
    (
        "timeouts",
        queue(default_timeout_microseconds=5000),
        replace(HEALTHY, failed=1000, failed_ms=6.0),
    ),
    (
        "failures",
        queue(default_timeout_microseconds=5000),
        replace(HEALTHY, failed=1000, failed_ms=4.0),
    ),
    (
        "failures",
        queue(default_timeout_microseconds=5000, timeout_action="DELAY"),
        replace(HEALTHY, failed=1000, failed_ms=6.0),
    ),
    ("healthy", queue(default_timeout_microseconds=5000), HEALTHY),
    #
    ("queue_full", queue(max_queue_size=4), replace(HEALTHY, queue_ms=4.0)),
    ("healthy", queue(max_queue_size=5), replace(HEALTHY, queue_ms=4.0)),
    ("healthy", queue(max_queue_size=4), replace(HEALTHY, queue_ms=1.0)),
    #
    ("cache", config(), replace(HEALTHY, hits=9_000)),
    ("cache", config(), Load({}, hits=9_000)),
    ("healthy", config(), replace(HEALTHY, hits=8_000)),
    #
    ("unreported", config(), Load({}, extra=50)),
    #
    ("rows_do_not_fit", config(max_batch_size=8), Load({5: 1000}, rows=5)),
    ("client_batches", config(max_batch_size=10), Load({5: 1000}, rows=5)),
    #
    ("preferred_batch_size", dynamic(preferred_batch_size=[2]), PAIRS),
    ("preferred_batch_size", dynamic(preferred_batch_size=[1, 2]), PAIRS),
    ("unexplained", dynamic(preferred_batch_size=[2, 32]), PAIRS),
    ("unexplained", dynamic(preferred_batch_size=[16]), PAIRS),
    ("happens", dynamic(preferred_batch_size=[2]), replace(PAIRS, queue_ms=1.0)),
    #
    ("shapes", inputs(dims=[-1]), CROWD),
    ("shapes", inputs(dims=[4, -1]), PAIRS),
    ("shapes", inputs(optional=True), CROWD),
    ("unexplained", inputs(), CROWD),
    ("unexplained", inputs(dims=[-1], allow_ragged_batch=True), CROWD),
    ("low_concurrency", inputs(dims=[-1]), ALONE),
    ("healthy", inputs(dims=[-1]), HEALTHY),
    #
    ("sequences", config(dynamic_batching=None, sequence_batching=OLDEST), CROWD),
    ("healthy", config(dynamic_batching=None, sequence_batching=OLDEST), HEALTHY),
    #
    ("does_not_pay", config(), replace(HEALTHY, run_ms={1: 1.0, 8: 8.0})),
    ("does_not_pay", config(), replace(HEALTHY, run_ms={1: 1.0, 8: 12.0})),
    ("healthy", config(), replace(HEALTHY, run_ms={1: 1.0, 8: 6.0})),
    #
    ("happens", config(), Load({8: 1000})),
    ("happens", config(), Load({1: 2, 8: 1000})),
    ("happens", config(), Load({5: 500, 8: 500})),
    #
    ("client_batches", config(), Load({8: 1000}, rows=8)),
    ("healthy", config(), Load({8: 50, 32: 1000}, rows=8)),
    #
    ("delay_in_vain", dynamic(max_queue_delay_microseconds=5000), Load({1: 1000}, queue_ms=5.1)),
    ("low_concurrency", dynamic(max_queue_delay_microseconds=5000), ALONE),
    ("healthy", dynamic(max_queue_delay_microseconds=1000), HEALTHY),
    #
    ("instances", instances(4), OVERLAPPING),
    ("no_delay", instances(4), replace(OVERLAPPING, run_ms=0.3)),
    ("low_concurrency", instances(4), replace(OVERLAPPING, run_ms=1.0)),
    ("low_concurrency", instances(1), OVERLAPPING),
    ("healthy", instances(4), HEALTHY),
    #
    ("no_delay", config(), FAST),
    ("low_concurrency", dynamic(max_queue_delay_microseconds=100), FAST),
    ("low_concurrency", config(), Load({1: 10_000}, run_ms=0.1)),  # nobody ever meets: one caller
    ("low_concurrency", config(), Load({1: 1_000}, run_ms=0.1)),  # too slow for any delay
    ("low_concurrency", config(), replace(FAST, run_ms=0.8)),  # the instance works, it is no wait
    #
    ("low_concurrency", config(), Load({1: 20})),
    ("unexplained", config(), Load({1: 1000}, other_ms=100.0)),
]


@pytest.mark.parametrize(("cause", "written", "load"), CASES)
def test_cause(cause, written, load):
    """Each cause is found where it is, and not where it has been taken away."""
    assert diagnosed(written, load).finding.cause == cause


@pytest.mark.parametrize(("_", "written", "load"), CASES)
def test_json(_, written, load):
    """Every diagnosis can be said in strict JSON, and has a reason and a remedy."""
    said = diagnosed(written, load).to_json()
    assert json.loads(json.dumps(said, allow_nan=False)).keys() == said.keys()
    assert all(said[name] for name in ("model", "cause", "headline", "why", "remedy"))
    assert not any(text in f"{said}" for text in ("None of", "inf", "nan "))


# What is said


def test_numbers():
    """Rates, times and what is in flight are of the time between the looks, not of the warm-up."""
    numbers = diagnosed(config(), HEALTHY).to_json()["numbers"]
    expected = {
        "watched_s": 10.0,
        "requests": 8500,
        "failures": 0,
        "rows": 8500,
        "runs": 1500,
        "batches": {1: 500, 8: 1000},
        "run_ms": {1: 1.0, 8: 2.0},
        "row_ms": {1: 1.0, 8: 0.25},
        "rate_rps": 850.0,
        "rows_per_request": 1.0,
        "requests_per_run": pytest.approx(8500 / 1500),
        "mean_batch": pytest.approx(8500 / 1500),
        "queue_ms": pytest.approx(1.0),
        # 500 requests take 2 ms and 8,000 take 3 ms, waiting included: 25 s in 10.
        "server_ms": pytest.approx(25_000 / 8500),
        "in_flight": pytest.approx(2.5),
        "waiting": pytest.approx(0.85),
        "running": pytest.approx(0.25),
        "busy": pytest.approx(0.25),
    }
    assert {name: numbers[name] for name in expected} == expected


def test_failures_are_in_flight_too():
    """Requests that fail are in the server until they do, and are part of the rate."""
    traffic = diagnosed(config(), Load({1: 1000}, failed=1000, failed_ms=20.0)).traffic
    assert traffic.in_flight == pytest.approx((1.05 + 20.0) / 10)
    assert traffic.rate_rps == 200.0


def test_busy_instances():
    """The instances' share of the time is of all of them."""
    looks = [look(0, record()), look(10, record(OVERLAPPING))]
    traffic = read_traffic(looks, "1", 4)
    assert (traffic.running, traffic.busy) == (pytest.approx(3.0), pytest.approx(0.75))


def test_rows_of_a_request():
    """Rows and requests of a run are told apart, and cached answers are no run."""
    traffic = diagnosed(config(), Load({16: 100}, rows=4, hits=40)).traffic
    assert (traffic.requests, traffic.rows_per_request) == (440, 4.0)
    assert (traffic.requests_per_run, traffic.mean_batch) == (4.0, 16.0)


def test_gain():
    """What a row costs alone is compared with what it costs in all runs of twice the rows or more,
    each row counting once."""
    load = Load({1: 100, 2: 100, 10: 100}, run_ms={1: 4.0, 2: 4.0, 10: 8.0})
    gain = row_gain(diagnosed(config(), load).traffic)
    assert (gain.alone, gain.alone_ms, gain.shared_ms) == (1, 4.0, pytest.approx(1.0))
    assert gain.ratio == pytest.approx(4.0)


def test_gain_in_words():
    """That it pays is said with the cost of a row in small and in large runs."""
    finding = diagnosed(config(), HEALTHY).finding
    assert finding.headline == "batching happens and pays: 4.0× per row"
    assert finding.why == (
        "5.67 requests a run; a row costs 1 ms in a run of 1 and 0.25 ms in runs of 2 or more"
    )
    assert finding.remedy == "nothing to do"


def test_full_runs():
    """Where runs are full and requests wait, a larger batch is the remedy; where none do, none."""
    full = Load({1: 9, 32: 1000}, queue_ms=20.0)
    assert "larger max_batch_size" in diagnosed(config(), full).finding.remedy
    calm = replace(full, queue_ms=1.0)
    assert diagnosed(config(), calm).finding.remedy == "nothing to do"


def test_one_caller():
    """One caller that waits for each answer is told from callers that are few."""
    one = diagnosed(config(), Load({1: 10_000}, run_ms=0.5)).finding
    assert "consistent with one caller" in one.why
    assert "several callers" in one.remedy
    few = diagnosed(config(), Load({1: 950, 2: 25}, run_ms=5.0)).finding
    assert "one caller" not in few.why
    assert few.why == (
        "0.51 requests are in flight at once (100 a second, 5.05 ms each); batches of 2 need about "
        "4 with 1 instance"
    )


def test_idle():
    """Too little concurrency needs no remedy where the instances are idle."""
    idle = diagnosed(config(), Load({1: 20})).finding
    assert idle.remedy.startswith("nothing to do: the instances are busy 0 %")
    busy = diagnosed(config(), Load({1: 1000, 2: 500}, run_ms=5.0)).finding
    assert busy.remedy == "send more at once; the instances are busy 75 % already"


def test_delay_is_weighed():
    """Where a delay could make batches, its price is said beside what it might bring."""
    remedy = diagnosed(config(), FAST).finding.remedy
    assert "busy 10 %" in remedy
    assert "A delay of 3 ms might bring 4 requests a run and adds as much" in remedy
    assert "rarely gain" in remedy


def test_hardly():
    """Batching that happens now and then is said to hardly happen."""
    assert "hardly" in diagnosed(config(), Load({1: 80, 2: 20})).finding.headline
    assert "hardly" not in diagnosed(config(), Load({1: 95, 2: 5})).finding.headline


def test_uneven_load_is_no_hindrance():
    """A few large runs among many small ones leave more waiting than a mean run takes; a backlog
    does not mean that requests cannot share (as measured with 48 callers that lack CPU)."""
    runs = {1: 1543, 2: 218, 4: 104, 7: 43, 12: 29, 25: 30}
    cost = {1: 0.31, 2: 0.4, 4: 0.7, 7: 1.3, 12: 2.2, 25: 4.8}
    load = Load(runs, run_ms=cost, queue_ms=9.6)
    found = diagnosed(inputs(dims=[-1]), load)
    assert found.traffic.waiting > 1.8 * found.traffic.requests_per_run
    assert found.finding.cause == "healthy"


def test_no_room_is_no_hindrance():
    """Runs that are full leave any number of requests waiting."""
    load = Load({8: 1000, 1: 5}, run_ms={8: 2.0, 1: 1.0}, queue_ms=100.0)
    assert diagnosed(config(max_batch_size=8), load).finding.cause == "healthy"


def test_tight_queue():
    """A queue shorter than a batch is to be made longer; a long one that is full means overload."""
    load = replace(HEALTHY, queue_ms=40.0)
    tight = diagnosed(queue(max_queue_size=31), load).finding
    assert "nor can 32 rows come together" in tight.why
    assert tight.remedy.startswith("raise max_queue_size")
    loose = diagnosed(queue(max_queue_size=32), load).finding
    assert "add capacity" in loose.remedy


def test_little_to_batch():
    """A model without a scheduler is told whether one would find anything to batch."""
    unbatched = config(dynamic_batching=None)
    assert "it would change little" in diagnosed(unbatched, ALONE).finding.remedy
    assert "it would change little" not in diagnosed(unbatched, CROWD).finding.remedy


# What is known besides


@pytest.mark.parametrize(
    ("written", "load", "note"),
    [
        (config(), Load({1: 7}), "only 7 requests ended"),
        (config(), replace(HEALTHY, failed=85), "85 of 8,585 requests failed"),
        (config(), replace(HEALTHY, hits=500), "500 of 9,000 requests were answered from the"),
        (queue(max_queue_size=99), HEALTHY, "the queue takes 99 requests; refused ones"),
        (config(max_batch_size=0), NOTHING, "no request ended within 10 s"),
    ],
)
def test_note(written, load, note):
    """What does not decide is a note."""
    (said,) = diagnosed(written, load).notes
    assert note in said


def test_no_notes():
    """There is nothing to note of what is healthy."""
    assert diagnosed(config(), HEALTHY).notes == ()


# Looks


def test_traffic_for_a_while():
    """Silence before and after the traffic thins no rate out, and is noted."""
    idle, done = record(WARM_UP), record(WARM_UP, HEALTHY)
    half = record(WARM_UP, Load({1: 250, 8: 500}, run_ms=HEALTHY.run_ms, queue_ms=1.0))
    looks = [look(at, r) for at, r in enumerate([idle, idle, half, done, done, done])]
    found = diagnose("m", config(), looks)
    assert (found.traffic.watched_s, found.traffic.traffic_s) == (5.0, 2.0)
    assert found.traffic.rate_rps == 4250.0
    assert found.notes == ("there was traffic for 2 of 5 s; rates are of those",)


def test_silence_in_between():
    """A pause within the traffic is part of it: seldom requests are no fast ones."""
    idle, one, two = (record(WARM_UP, Load({1: n})) for n in (0, 1, 2))
    looks = [look(at, r) for at, r in enumerate([idle, one, one, one, two])]
    assert diagnose("m", config(), looks).traffic.rate_rps == 0.5


@pytest.mark.parametrize(
    "looks",
    [
        [look(0, record(WARM_UP, HEALTHY)), look(10, record(WARM_UP))],
        [look(0, record(WARM_UP)), look(5, record()), look(10, record(WARM_UP, HEALTHY))],
        [look(0, record(WARM_UP)), look(10, record(HEALTHY, version="2"))],
        [look(0, record(WARM_UP)), look(10)],
        [look(0, record(Load({4: 2}))), look(10, record(Load({1: 30})))],
        [look(0, record(Load({}, failed=3))), look(10, record(Load({}, failed=2)))],
    ],
    ids=["fewer", "in between", "another version", "unloaded", "other batches", "failures"],
)
def test_restarted(looks):
    """Counters that go backwards are no numbers: it is said, and none are given."""
    found = diagnose("m", config(), looks)
    assert found.finding.cause == "restarted"
    assert found.to_json()["numbers"] is None


def test_a_version_more():
    """A version that is loaded while watching is no restart."""
    looks = [look(0, record(WARM_UP)), look(10, record(WARM_UP, HEALTHY), record(version="2"))]
    assert diagnose("m", config(), looks).finding.cause == "healthy"


def test_versions():
    """Of several versions the busiest is looked at, and the others that are called are named."""
    before = [record(WARM_UP, version=v) for v in "123"]
    after = [
        record(WARM_UP, Load({1: 100}), version="1"),
        record(WARM_UP, HEALTHY, version="2"),
        record(WARM_UP, version="3"),
    ]
    found = diagnose("m", config(), [look(0, *before), look(10, *after)])
    assert (found.version, found.traffic.requests) == ("2", 8500)
    assert found.notes == ("version 1 is called too; each version has batches of its own",)


def test_ensemble():
    """An ensemble needs no look: its steps are named."""
    steps = [{"model_name": "tokenizer"}, {"model_name": "ranker"}]
    written = config(dynamic_batching=None, ensemble_scheduling={"step": steps})
    found = diagnose("m", written, [])
    assert found.finding.cause == "ensemble"
    assert "tokenizer, ranker" in found.finding.why
    assert found.to_json()["numbers"] is None


def test_missing_counts():
    """Counts of 0, which may be missing from the JSON, are 0; 64-bit numbers may be text."""
    bare = {"name": "m", "version": "1"}
    some = {
        **bare,
        "inference_count": "40",
        "execution_count": "40",
        "inference_stats": {"success": {"count": "40", "ns": "80000000"}},
        "batch_stats": [{"batch_size": "1", "compute_infer": {"count": "40", "ns": "40000000"}}],
    }
    found = diagnose("m", config(), [look(0, bare), look(10, some)])
    assert (found.traffic.requests, found.traffic.run_ms) == (40, {1: 1.0})
    assert found.finding.cause == "low_concurrency"


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (record(WARM_UP), False),
        (record(WARM_UP, ALONE), True),
        (record(WARM_UP, Load({}, failed=1)), True),
    ],
)
def test_has_traffic(later, expected):
    """A request that ended, well or not, is traffic; the warm-up is not."""
    assert has_traffic([look(0, record(WARM_UP)), look(1, later)]) is expected
    assert not has_traffic([look(1, later)])


# The config


def test_read_batching():
    """What decides over batches is read from the config as a server answers it."""
    written = config(
        input=[
            {"name": "a", "dims": [4]},
            {"name": "b", "dims": [-1]},
            {"name": "c", "dims": [4], "optional": True},
            {"name": "d", "dims": [-1], "allow_ragged_batch": True},
        ],
        dynamic_batching={
            "preferred_batch_size": [8, 4],
            "max_queue_delay_microseconds": "500",
            "default_queue_policy": {"max_queue_size": 9, "default_timeout_microseconds": 70},
        },
        instance_group=[{"count": 2, "gpus": [0, 1]}, {"count": 1}],
        response_cache={"enable": True},
    )
    b = read_batching(written)
    assert (b.max_batch_size, b.scheduler, b.delay_us, b.preferred) == (32, "dynamic", 500, (4, 8))
    assert (b.max_queue_size, b.timeout_us, b.instances) == (9, 70, 5)
    assert (b.must_agree, b.response_cache, b.steps) == (("b", "c"), True, ())


def test_read_batching_of_little():
    """What a config does not say is Triton's default."""
    b = read_batching({"name": "m"})
    assert (b.max_batch_size, b.scheduler, b.instances, b.must_agree) == (0, "none", 1, ())


def test_read_batching_of_sequences():
    """The strategy `oldest` has a delay and preferred sizes of its own."""
    oldest = {"max_queue_delay_microseconds": 7, "preferred_batch_size": [2]}
    b = read_batching(config(dynamic_batching=None, sequence_batching={"oldest": oldest}))
    assert (b.scheduler, b.delay_us, b.preferred) == ("sequence", 7, (2,))
    direct = read_batching(config(dynamic_batching=None, sequence_batching={"direct": {}}))
    assert (direct.scheduler, direct.delay_us) == ("sequence", 0)
