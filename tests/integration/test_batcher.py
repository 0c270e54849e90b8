"""The model of the batcher against the real Triton, with a model that sleeps for a known time.

Both get the same arrivals: those that were really sent. What is compared is what the batcher made
of them, without the noise of other draws and of a busy CPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from itertools import chain
from statistics import median

import numpy as np
import pytest

from tritonkit import Client
from tritonkit.plan.batcher import ANSWERED
from tritonkit.plan.settings import Settings
from tritonkit.plan.simulate import Service, Simulated, simulate
from tritonkit.repository.scheduling import DynamicBatching, QueuePolicy
from tritonkit.samples import Sample
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.stats.scrape import read_counters

pytestmark = pytest.mark.alone  # it times every answer

ALONE_S, ROW_S = 0.016, 0.001
"""A run of b rows takes ALONE_S + b ROW_S."""

# Sleeps until a time that it reckons from its call, so that the sleeps' own overshoot is small.
SLEEPING = f"""
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        began = time.perf_counter()
        tensors = [pb_utils.get_input_tensor_by_name(r, "x") for r in requests]
        rows = [t.shape()[0] for t in tensors]
        answers = [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor.from_dlpack("y", np.zeros((n, 1), np.float32))]
            )
            for n in rows
        ]
        until = began + {ALONE_S} + {ROW_S} * sum(rows)
        time.sleep(max(0.0, until - time.perf_counter() - 1e-4))
        while time.perf_counter() < until:
            pass
        return answers
"""

# The kit's load generator, in a process of its own, one level after the other.
SCRIPT = """
import json, sys
import numpy as np
from tritonkit.client.transport import infer_request
from tritonkit.load.runner import Level, run_level
address, levels = json.loads(sys.argv[1])
runs = []
for model, shapes, level in levels:
    requests = [infer_request(model, {"x": np.ones(shape, np.float32)}) for shape in shapes]
    runs.append(run_level(address, requests, Level(*level)).samples)
json.dump(runs, sys.stdout)
"""

LEVEL_S, BARE_S = 3.0, 0.6

TIMES = 3
"""Levels of each case, some seconds apart: what disturbs the machine meanwhile disturbs one."""


@dataclass(frozen=True)
class Case:
    """Settings, and the load on them: rows and width of the requests, which come in turn."""

    settings: Settings
    rate_rps: float
    rows: tuple[int, ...] = (1,)
    widths: tuple[int, ...] = (1,)


def dynamic(rows, delay_us=0, instances=1, preferred=(), **queue):
    batching = DynamicBatching(delay_us, preferred, queue=QueuePolicy(**queue))
    return Settings(rows, batching, instances)


CASES = {
    "plain": Case(Settings(8, None), 35),
    "plain_two": Case(Settings(8, None, 2), 75),
    "small_batches": Case(dynamic(4), 125),
    "no_delay_low": Case(dynamic(16), 30),
    "no_delay_high": Case(dynamic(16), 300),
    "short_delay": Case(dynamic(16, 6_000), 75),
    "long_delay": Case(dynamic(16, 40_000), 100),
    "delay_full": Case(dynamic(8, 40_000), 250),
    "two_instances": Case(dynamic(16, 0, 2), 300),
    "two_with_delay": Case(dynamic(16, 20_000, 2), 150),
    "preferred": Case(dynamic(16, 30_000, 1, (4,)), 125),
    "several_rows": Case(dynamic(8, 10_000), 75, rows=(1, 3, 2)),
    "two_shapes": Case(dynamic(8, 10_000), 60, widths=(1, 1, 1, 2)),
    "timeouts": Case(dynamic(4, 0, 1, default_timeout_us=50_000), 300),
}
"""No bounded queue and no timeout at low load: there Triton 2.51 loses wake-ups, by chance."""


def config(name: str, settings: Settings) -> str:
    """Its config.pbtxt."""
    text = f"""
        name: "{name}" backend: "python" max_batch_size: {settings.max_batch_size}
        input [{{ name: "x" data_type: TYPE_FP32 dims: [-1] }}]
        output [{{ name: "y" data_type: TYPE_FP32 dims: [1] }}]
        instance_group [{{ kind: KIND_CPU count: {settings.instances} }}]
    """
    if (rules := settings.dynamic_batching) is not None:
        text += f"""dynamic_batching {{
            max_queue_delay_microseconds: {rules.max_queue_delay_us}
            preferred_batch_size: {list(rules.preferred_batch_sizes)}
            default_queue_policy {{
                max_queue_size: {rules.queue.max_queue_size}
                default_timeout_microseconds: {rules.queue.default_timeout_us}
                timeout_action: {rules.queue.timeout_action}
            }}
        }}"""
    return text


@dataclass(frozen=True)
class Seen:
    """What a server did with a case, level by level. batch: rows of a run, in the mean over all."""

    levels: list[list[Sample]]
    batch: float


@dataclass(frozen=True)
class Levels:
    """By case, and those of the bare model."""

    cases: dict[str, Seen]
    alone: list[list[Sample]]
    pressed: list[list[Sample]]


def config_of(name):
    """The settings that a model of the server has."""
    return CASES[name].settings if name in CASES else Settings(8, None)


@pytest.fixture(scope="module")
def levels(installed, tmp_path_factory):
    """What a Triton that has a model for each case did with all of them, and before each with
    requests to a bare model, one by one (`alone`) and four at a time (`pressed`).
    """
    folder = tmp_path_factory.mktemp("sleeping")
    for name in (*CASES, "bare"):
        version = folder / "repository" / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(SLEEPING)
        (version.parent / "config.pbtxt").write_text(config(name, config_of(name)))
    wanted = []
    for seed in range(TIMES):
        for name, case in CASES.items():
            wanted += [("bare", [(1, 1)], ("closed", users, BARE_S)) for users in (1, 4)]
            wanted.append((name, shapes(case), ("open", case.rate_rps, LEVEL_S, seed)))
    with EmbeddedTriton(folder / "repository", log=folder / "log", drain=False) as triton:
        address = f"http://{triton.endpoints.http}"
        with Client(address) as client:
            for name in CASES:
                warm_up(client, name)
            before = {name: counters(client, name) for name in CASES}
            done = subprocess.run(
                [sys.executable, "-c", SCRIPT, json.dumps([address, wanted])],
                **{"capture_output": True, "text": True, "timeout": 600},
            )
            assert done.returncode == 0, done.stderr
            after = {name: counters(client, name) for name in CASES}
    runs = [[Sample(*sample) for sample in run] for run in json.loads(done.stdout)]
    batches = {name: after[name].since(before[name]).mean_batch or 0.0 for name in CASES}
    of_cases, count = runs[2::3], len(CASES)
    seen = {name: Seen(of_cases[i::count], batches[name]) for i, name in enumerate(CASES)}
    return Levels(seen, alone=runs[::3], pressed=runs[1::3])


def shapes(case):
    """Of the requests, in turn."""
    return [(rows, width) for rows in case.rows for width in case.widths]


def counters(client, model):
    return read_counters(client.statistics(model)[-1])


def warm_up(client, model):
    """The first run of an instance takes 50 ms."""
    x = {"x": np.ones((1, 1), np.float32)}
    for _ in range(3):
        for pending in [client.submit(model, x) for _ in range(2 * config_of(model).instances)]:
            pending.result()


@pytest.fixture(scope="module")
def service(levels):
    """What the server takes: the model's own time is known; what is around it shows in requests
    one by one, and in more than are served at once, whose answers come a run and a gap apart.
    """
    one_by_one = [s.done_ns - s.sent_ns for run in levels.alone for s in run]
    around_s = float(np.median(one_by_one)) / 1e9 - ALONE_S - ROW_S
    apart = [np.diff(sorted(s.done_ns for s in run)) for run in levels.pressed]
    gap_s = max(0.0, float(np.median(np.concatenate(apart))) / 1e9 - ALONE_S - ROW_S)
    return Service(
        run_s=tuple(ALONE_S + ROW_S * rows for rows in range(1, 17)),
        gap_s=(gap_s,) * 16,
        slowdown=(1.0, 1.0),
        before_s=around_s / 2,
        after_s=around_s / 2,
    )


@pytest.fixture
def both(levels, service):
    """What Triton did in a case, and what the model says that it does with the same arrivals."""

    def run(name):
        seen = levels.cases[name]
        return seen, [said_of(samples, CASES[name], service) for samples in seen.levels]

    return run


def said_of(samples, case, service):
    """What the model says of a level."""
    sent = sorted(samples, key=lambda s: s.sent_ns)
    of = [shapes(case)[s.payload] for s in sent]
    return simulate(
        [s.sent_ns / 1e9 for s in sent],
        case.settings,
        service,
        rows=[rows for rows, _ in of],
        shapes=[width for _, width in of],
    )


def ratio(seen: Seen, said: list[Simulated], q: float) -> float:
    """Of a percentile of what was answered, said to seen, in the median over the levels."""
    return median(
        np.percentile(one.latency_s, q)
        / np.percentile([(s.done_ns - s.sent_ns) / 1e9 for s in level if not s.error], q)
        for level, one in zip(seen.levels, said, strict=True)
    )


@pytest.mark.parametrize("name", CASES)
def test_mean_batch(both, name):
    """Rows of a run, in the mean, within 5 %."""
    seen, said = both(name)
    found = sum(one.rows for one in said) / sum(one.runs for one in said)
    assert found == pytest.approx(seen.batch, rel=0.05)


@pytest.mark.parametrize("name", CASES)
def test_p50(both, name):
    """The median latency of what was answered, within 5 %."""
    assert ratio(*both(name), 50) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("name", CASES)
def test_p99(both, name):
    """The p99 latency of what was answered, within 10 %."""
    assert ratio(*both(name), 99) == pytest.approx(1.0, rel=0.1)


def test_refusals(both):
    """As many are refused for their timeout, within 5 % of all that came."""
    seen, said = both("timeouts")
    samples = list(chain.from_iterable(seen.levels))
    refused = sum(1 for s in samples if s.error == "unavailable")
    assert refused > 0.2 * len(samples)
    found = sum(int((one.outcome != ANSWERED).sum()) for one in said)
    assert found == pytest.approx(refused, abs=0.05 * len(samples))


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"timeouts"}))
def test_nothing_is_refused_without_a_timeout(both, name):
    """Where nothing times out, all are answered."""
    seen, said = both(name)
    assert {s.error for level in seen.levels for s in level} == {""}
    assert all((one.outcome == ANSWERED).all() for one in said)
