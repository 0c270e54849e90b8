"""The model of the batcher against the real Triton, with a model that sleeps for a known time.

Both get the same arrivals: those that were really sent. What is compared is what the batcher made
of them, without the noise of other draws and of a busy CPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from tritonkit import Client
from tritonkit.plan.batcher import ANSWERED
from tritonkit.plan.simulate import Service, Settings, simulate
from tritonkit.repository.scheduling import DynamicBatching, QueuePolicy
from tritonkit.samples import Sample
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.stats.scrape import read_counters

pytestmark = pytest.mark.alone

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

SCRIPT = """
import json, sys
import numpy as np
from tritonkit.client.transport import infer_request
from tritonkit.load.runner import Level, run_level
address, model, shapes, level = json.loads(sys.argv[1])
requests = [infer_request(model, {"x": np.ones(shape, np.float32)}) for shape in shapes]
run = run_level(address, requests, Level(*level))
json.dump(run.samples, sys.stdout)
"""

LEVEL_S = 6.0


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
    """What a server did with a case. batch: rows of a run, in the mean."""

    samples: list[Sample]
    batch: float


@pytest.fixture(scope="module")
def server(installed, tmp_path_factory):
    """The address of a Triton that has a model for each case, and one to take its overhead from."""
    folder = tmp_path_factory.mktemp("sleeping")
    for name, case in {**CASES, "bare": Case(Settings(8, None), 0)}.items():
        version = folder / "repository" / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(SLEEPING)
        (version.parent / "config.pbtxt").write_text(config(name, case.settings))
    with EmbeddedTriton(folder / "repository", log=folder / "log", drain=False) as triton:
        address = f"http://{triton.endpoints.http}"
        for name, case in CASES.items():
            warm_up(address, name, case.settings.instances)
        yield address


def load(address, model, case, *level) -> Seen:
    """One level, sent by a process of its own."""
    shapes = [(rows, width) for rows in case.rows for width in case.widths]
    with Client(address) as client:
        before = read_counters(client.statistics(model)[-1])
        what = json.dumps([address, model, shapes, level])
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, what], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        counted = read_counters(client.statistics(model)[-1]).since(before)
    samples = [Sample(*sample) for sample in json.loads(done.stdout)]
    return Seen(samples, counted.mean_batch or 0.0)


def warm_up(address, model, instances):
    """The first run of an instance takes 50 ms."""
    x = {"x": np.ones((1, 1), np.float32)}
    with Client(address) as client:
        for _ in range(3):
            for pending in [client.submit(model, x) for _ in range(2 * instances)]:
                pending.result()


@pytest.fixture(scope="module")
def service(server):
    """What the server takes: the model's own time is known, what is around it is measured with
    requests one by one, and with more than are served, whose answers come a run and a gap apart.
    """
    case = Case(Settings(8, None), 0)
    alone = load(server, "bare", case, "closed", 1, 2.0).samples
    around_s = float(np.median([s.done_ns - s.sent_ns for s in alone])) / 1e9 - ALONE_S - ROW_S
    pressed = load(server, "bare", case, "closed", 4, 2.0).samples
    apart_s = np.diff(sorted(s.done_ns for s in pressed)) / 1e9
    gap_s = max(0.0, float(np.median(apart_s)) - ALONE_S - ROW_S)
    return Service(
        run_s=tuple(ALONE_S + ROW_S * rows for rows in range(1, 17)),
        gap_s=(gap_s,) * 16,
        slowdown=(1.0, 1.0),
        before_s=around_s / 2,
        after_s=around_s / 2,
    )


@pytest.fixture(scope="module")
def both(server, service):
    """What Triton did in a case, and what the model says that it does; each case is run once."""
    known = {}

    def run(name):
        if name not in known:
            case = CASES[name]
            seen = load(server, name, case, "open", case.rate_rps, LEVEL_S, 7)
            sent = sorted(seen.samples, key=lambda s: s.sent_ns)
            shapes = [(rows, width) for rows in case.rows for width in case.widths]
            known[name] = (
                seen,
                simulate(
                    [s.sent_ns / 1e9 for s in sent],
                    case.settings,
                    service,
                    rows=[shapes[s.payload][0] for s in sent],
                    shapes=[shapes[s.payload][1] for s in sent],
                ),
            )
        return known[name]

    return run


def latencies_s(seen: Seen) -> np.ndarray:
    return np.array([(s.done_ns - s.sent_ns) / 1e9 for s in seen.samples if not s.error])


@pytest.mark.parametrize("name", CASES)
def test_mean_batch(both, name):
    """Rows of a run, in the mean, within 5 %."""
    seen, said = both(name)
    assert said.mean_batch == pytest.approx(seen.batch, rel=0.05)


@pytest.mark.parametrize("name", CASES)
def test_p50(both, name):
    """The median latency of what was answered, within 5 %."""
    seen, said = both(name)
    assert np.median(said.latency_s) == pytest.approx(np.median(latencies_s(seen)), rel=0.05)


@pytest.mark.parametrize("name", CASES)
def test_p99(both, name):
    """The p99 latency of what was answered, within 10 %."""
    seen, said = both(name)
    expected = np.quantile(latencies_s(seen), 0.99)
    assert np.quantile(said.latency_s, 0.99) == pytest.approx(expected, rel=0.1)


def test_refusals(both):
    """As many are refused for their timeout, within 5 % of all that came."""
    seen, said = both("timeouts")
    refused = sum(1 for s in seen.samples if s.error == "unavailable")
    assert refused > 0.2 * len(seen.samples)
    found = int((said.outcome != ANSWERED).sum())
    assert found == pytest.approx(refused, abs=0.05 * len(seen.samples))


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"timeouts"}))
def test_nothing_is_refused_without_a_timeout(both, name):
    """Where nothing times out, all are answered."""
    seen, said = both(name)
    assert {s.error for s in seen.samples} == {""}
    assert (said.outcome == ANSWERED).all()
