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
from tritonkit.repository.scheduling import DynamicBatching, QueuePolicy, TimeoutAction
from tritonkit.samples import Sample
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.stats.scrape import read_counters

ALONE_S, ROW_S = 0.008, 0.0005
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

LEVEL_S = 5.0


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
    "plain": Case(Settings(8, None), 70),
    "plain_two": Case(Settings(8, None, 2), 150),
    "small_batches": Case(dynamic(4), 250),
    "no_delay_low": Case(dynamic(16), 60),
    "no_delay_high": Case(dynamic(16), 600),
    "short_delay": Case(dynamic(16, 3_000), 150),
    "long_delay": Case(dynamic(16, 20_000), 200),
    "delay_full": Case(dynamic(8, 20_000), 500),
    "two_instances": Case(dynamic(16, 0, 2), 600),
    "two_with_delay": Case(dynamic(16, 10_000, 2), 300),
    "preferred": Case(dynamic(16, 15_000, 1, (4,)), 250),
    "several_rows": Case(dynamic(8, 5_000), 150, rows=(1, 3, 2)),
    "two_shapes": Case(dynamic(8, 5_000), 120, widths=(1, 1, 1, 2)),
    "full_queue": Case(dynamic(4, 0, 1, max_queue_size=6), 600),
    "timeouts": Case(dynamic(4, 0, 1, default_timeout_us=25_000), 600),
    "put_behind": Case(
        dynamic(4, 0, 1, default_timeout_us=25_000, timeout_action=TimeoutAction.DELAY), 300
    ),
    # No request is refused here: but such a queue is looked at less often.
    "bound_not_reached": Case(dynamic(8, 0, 1, max_queue_size=1000), 60),
}
ANSWERS_ALL = [name for name in CASES if name not in ("full_queue", "timeouts")]


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
        yield f"http://{triton.endpoints.http}"


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


_SEEN: dict[str, tuple[Seen, object]] = {}


@pytest.fixture
def both(server, service):
    """What Triton did in a case, and what the model says that it does; each case is run once."""

    def run(name):
        if name not in _SEEN:
            case = CASES[name]
            seen = load(server, name, case, "open", case.rate_rps, LEVEL_S, 7)
            sent = sorted(seen.samples, key=lambda s: s.sent_ns)
            shapes = [(rows, width) for rows in case.rows for width in case.widths]
            said = simulate(
                [s.sent_ns / 1e9 for s in sent],
                case.settings,
                service,
                rows=[shapes[s.payload][0] for s in sent],
                shapes=[shapes[s.payload][1] for s in sent],
            )
            _SEEN[name] = seen, said
        return _SEEN[name]

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


@pytest.mark.parametrize("name", ["full_queue", "timeouts"])
def test_refusals(both, name):
    """As many are refused, within 5 % of all that came."""
    seen, said = both(name)
    refused = sum(1 for s in seen.samples if s.error == "unavailable")
    assert refused > 0.2 * len(seen.samples)
    found = int((said.outcome != ANSWERED).sum())
    assert found == pytest.approx(refused, abs=0.05 * len(seen.samples))


@pytest.mark.parametrize("name", ANSWERS_ALL)
def test_nothing_is_refused_without_a_bound(both, name):
    """Where the queue has no bound and no timeout that refuses, all are answered."""
    seen, said = both(name)
    assert {s.error for s in seen.samples} == {""}
    assert (said.outcome == ANSWERED).all()
