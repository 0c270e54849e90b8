"""The certificate: what the live server says that it runs, and what must not be published."""

import json
import os
import threading
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tritonkit.bench.certificate import certify
from tritonkit.errors import CheckFailedError, RequestError
from tritonkit.repository.config import ConfigTensor, DynamicBatching, ModelConfig
from tritonkit.repository.pbtxt import as_json
from tritonkit.server.interface import Endpoints
from tritonkit.signature import data_type
from tritonkit.stats.scrape import ServerCounters

ASKED = ModelConfig(
    name="m",
    inputs=(ConfigTensor("x", data_type("FP32"), (4,)),),
    outputs=(ConfigTensor("y", data_type("FP32"), (4,)),),
    max_batch_size=8,
    instances=2,
    intra_op_threads=3,
)
BATCHED = replace(ASKED, dynamic_batching=DynamicBatching(500))

ONE_EACH = ServerCounters(requests=10, inferences=10, executions=10, batches={1: 10})
SHARED = ServerCounters(requests=10, inferences=20, executions=5, batches={2: 2, 4: 3})


@dataclass
class Running:
    """A server as the rest of the kit sees one."""

    endpoints: Endpoints
    processes: list[int]

    def pids(self) -> list[int]:
        return self.processes


@pytest.fixture
def running():
    """`running(config, sessions)` answers over HTTP as a server of that config does.

    sessions: the labels of its sessions in the metrics; None for a server without metrics.
    """
    servers = []

    def run(config, sessions=None, version="1.30", pids=None) -> Running:
        document = as_json(config)
        document["parameters"]["onnxruntime_version"] = {"string_value": version}
        lines = ["# TYPE tritonkit_onnxruntime_session_info gauge"]
        for labels in sessions or []:
            text = ",".join(f'{k}="{v}"' for k, v in labels.items())
            lines.append(f"tritonkit_onnxruntime_session_info{{{text}}} 1")
        bodies = {
            "/v2/models/m/config": json.dumps(document).encode(),
            "/metrics": ("\n".join(lines) + "\n").encode(),
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = bodies[self.path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing to stderr."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        address = f"127.0.0.1:{server.server_address[1]}"
        metrics = None if sessions is None else address
        return Running(Endpoints(address, metrics=metrics), pids or [os.getpid()])

    yield run
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def session(instance: int, threads: int = 3, version: str = "1.30", model: str = "m") -> dict:
    """The labels of one session."""
    return {
        "model": model,
        "instance": f"{model}_0_{instance}",
        "intra_op_threads": threads,
        "onnxruntime": version,
    }


SESSIONS = [session(0), session(1)]


def test_unbatched(running):
    """An unbatched arm whose requests all ran alone is certified, with the counts."""
    made = certify("triton_unbatched", running(ASKED, SESSIONS), ASKED, ONE_EACH)
    assert (made.threads, made.instances, made.ort_version) == (3, 2, "1.30")
    assert (made.requests, made.executions, made.mean_batch) == (10, 10, 1)
    assert made.batch_histogram == {"1": 10}
    assert made.statements == (
        "2 session(s) report 3 thread(s) each",
        "no multi-request batch ran: 10 executions for 10 requests",
    )


def test_batched(running):
    """The batched arm is certified with its scheduler and the batches that really ran."""
    made = certify("triton_batched", running(BATCHED, SESSIONS), BATCHED, SHARED)
    assert made.mean_batch == 4
    assert made.batch_histogram == {"2": 2, "4": 3}
    assert made.statements[-1] == (
        "dynamic batching is on: max_batch_size 8, max_queue_delay 500 µs; "
        "10 requests in 5 executions"
    )
    assert made.effective_config["dynamic_batching"] == {"max_queue_delay_microseconds": "500"}


def test_baseline(running):
    """A server without metrics, as the baseline, is certified by its config."""
    made = certify("ort_baseline", running(ASKED), ASKED, ONE_EACH)
    assert (made.threads, made.ort_version) == (3, "1.30")
    assert len(made.statements) == 1


def test_cpus(running):
    """The CPUs are those that the server's processes may really use."""
    made = certify("ort_baseline", running(ASKED), ASKED, ONE_EACH)
    assert made.cpu_set == tuple(sorted(os.sched_getaffinity(0)))


def test_process_that_ended(running):
    """A process that ended meanwhile has no CPUs, and is no error."""
    made = certify("ort_baseline", running(ASKED, pids=[2**22 + 1]), ASKED, ONE_EACH)
    assert made.cpu_set == ()


def test_different_runtimes(running):
    """Sessions of different ONNX Runtimes have no one version."""
    server = running(ASKED, [session(0), session(1, version="1.20")])
    assert certify("triton_unbatched", server, ASKED, ONE_EACH).ort_version is None


def test_other_models_sessions(running):
    """Sessions of other models on the same server are not counted."""
    server = running(ASKED, [*SESSIONS, session(0, threads=9, model="other")])
    assert certify("triton_unbatched", server, ASKED, ONE_EACH).threads == 3


def refused(*arguments) -> str:
    """The one line of the refusal, which always ends alike."""
    with pytest.raises(CheckFailedError) as caught:
        certify(*arguments)
    message, end = str(caught.value).split("; ", 1)
    assert end == "the comparison is not published"
    return message


@pytest.mark.parametrize("arm", ["ort_baseline", "triton_unbatched"])
def test_shared_batch(running, arm):
    """An unbatched arm with fewer executions than requests is refused, with the counts."""
    assert refused(arm, running(ASKED), ASKED, SHARED) == (
        f"{arm}: 10 requests ran in 5 executions, so some shared a batch and the arm is not "
        "unbatched"
    )


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (replace(ASKED, intra_op_threads=1), "threads = 1, asked was 3"),
        (replace(ASKED, instances=1), "instances = 1, asked was 2"),
        (BATCHED, "dynamic batching = True, asked was False"),
    ],
)
def test_not_what_was_asked(running, runs, words):
    """Other threads, instances or scheduler than asked are refused, with both values."""
    assert refused("triton_unbatched", running(runs), ASKED, ONE_EACH) == (
        f"triton_unbatched: the server runs {words}"
    )


def test_scheduler_missing(running):
    """A batched arm whose server has no scheduler is refused."""
    assert refused("triton_batched", running(ASKED), BATCHED, SHARED) == (
        "triton_batched: the server runs dynamic batching = False, asked was True"
    )


def test_session_with_other_threads(running):
    """A session that runs other threads than its config says is refused."""
    server = running(ASKED, [session(0), session(1, threads=1)])
    assert refused("triton_unbatched", server, ASKED, ONE_EACH) == (
        "triton_unbatched: the server runs threads of a session = 1, asked was 3"
    )


def test_sessions_missing(running):
    """Fewer sessions than instances are refused."""
    server = running(ASKED, [session(0)])
    assert refused("triton_unbatched", server, ASKED, ONE_EACH) == (
        "triton_unbatched: the server runs sessions = 1, asked was 2"
    )


def test_dead_server(running):
    """A server that does not answer certifies nothing."""
    server = Running(Endpoints("127.0.0.1:9"), [])
    with pytest.raises(RequestError, match="nothing listens there"):
        certify("ort_baseline", server, ASKED, ONE_EACH)
