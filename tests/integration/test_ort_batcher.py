"""The hand-rolled batcher behind its HTTP server, asked by the kit's own client."""

from __future__ import annotations

import json
import select
import signal
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from http.client import HTTPConnection

import numpy as np
import psutil
import pytest

from tritonkit import NO_RETRIES, Client
from tritonkit.errors import InputError, ServerFaultError, UnavailableError
from tritonkit.repository.config import DynamicBatching
from tritonkit.repository.layout import model_file, read_config, write_variant
from tritonkit.repository.scheduling import QueuePolicy, TimeoutAction
from tritonkit.server.baseline import OrtBaseline
from tritonkit.server.baseline_app import DrainingServer
from tritonkit.server.baseline_model import Baseline
from tritonkit.server.embedded import EmbeddedTriton

pytestmark = pytest.mark.alone  # what shares a batch depends on when it comes

# Longer than any test takes: a batch goes because it is full, or not at all.
LONG_US = 600_000_000
# Turns of the model `slow`: a second or two, and a hundredth of it.
LONG, SHORT = 4000, 40

WIDTHS = "(float[N,W] x) => (float[N,W] y) { y = Add(x, x) }"


@pytest.fixture(scope="module")
def repository(package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("batcher") / "repository"
    for name in ("double", "lookup", "many"):
        package(folder, name)
    package(folder, WIDTHS, name="widths")
    return package(folder, "slow", threads=1, instances=1)


@pytest.fixture
def start(repository, tmp_path):
    """`start("double", max_queue_delay_us=…, queue=…)`: the server with that dynamic batching."""

    @contextmanager
    def starting(model, *, max_batch_size=8, **batching):
        config = replace(
            read_config(repository, model),
            max_batch_size=max_batch_size,
            warmup=(),
            dynamic_batching=DynamicBatching(**batching),
        )
        write_variant(repository, model, config, tmp_path / "variant")
        log = tmp_path / "log"
        with OrtBaseline(tmp_path / "variant", model, log=log, batching=True) as server:
            yield server

    return starting


def client_of(server):
    return Client(f"http://{server.endpoints.http}", retries=NO_RETRIES)


def statistics(server, model):
    with client_of(server) as client:
        return client.statistics(model)[0]


def ask(server, value, model="slow", **parameters):
    """Send a request of one row, as JSON, and do not wait; for `answer`."""
    tensor = {"name": "steps", "datatype": "INT64", "shape": [1, 1], "data": [value]}
    body = json.dumps({"inputs": [tensor], "parameters": parameters})
    connection = HTTPConnection(server.endpoints.http, timeout=60)
    connection.request("POST", f"/v2/models/{model}/infer", body)
    return connection


def answer(connection):
    """Its status, and the value or the error in it."""
    with closing(connection):
        response = connection.getresponse()
        said = json.load(response)
    return response.status, said["outputs"][0]["data"][0] if "outputs" in said else said["error"]


def answered(connection):
    return bool(select.select([connection.sock], [], [], 0)[0])


@contextmanager
def busy(server, wait_for):
    """The model `slow` at a long run, for as long as the block takes, or longer."""
    process = psutil.Process(*server.pids())
    before = process.cpu_times().user
    long = ask(server, LONG)
    wait_for(lambda: process.cpu_times().user > before + 0.1)
    assert not answered(long)
    yield long
    assert answer(long) == (200, LONG)


def arrive(server):
    """Return when all that was sent before has arrived in the server."""
    statistics(server, "slow")


def test_everybody_gets_their_own_answer(start):
    """Many threads with requests of all sizes each get their own rows, out of shared batches."""

    def work(i):
        with client_of(server) as client:
            for j in range(30):
                rows = np.full((1 + (i + j) % 4, 4), 1000 * i + j, np.float32)
                if not np.array_equal(client.infer("double", rows)["y"], 2 * rows):
                    return False
        return True

    with start("double") as server, ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))
        stats = statistics(server, "double")
    assert stats["inference_stats"]["success"]["count"] == 16 * 30
    assert stats["inference_count"] == sum(1 + (i + j) % 4 for i in range(16) for j in range(30))
    assert stats["execution_count"] < 16 * 30
    assert max(b["batch_size"] for b in stats["batch_stats"]) <= 8


def test_a_full_batch_is_one_run(start):
    """Requests that together fill a batch are run once, and no warm-up run is counted."""
    with start("many", max_queue_delay_us=LONG_US) as server:

        def work(i):
            inputs = {
                "f": np.full((2, 2), i, np.float32),
                "i": np.full((2, 2), i, np.int64),
                "b": np.full((2, 2), i % 2, bool),
                "d": np.full((2, 2), i, np.float64),
            }
            with client_of(server) as client:
                answer = client.infer("many", inputs)
            return [answer[name].tolist() for name in ("F", "I", "B", "D")] == [
                *([[-i, -i]] * 2, [[-i, -i]] * 2, [[i % 2 == 0] * 2] * 2, [[-i, -i]] * 2)
            ]

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))
        stats = statistics(server, "many")
    assert (stats["inference_count"], stats["execution_count"]) == (8, 1)
    assert [b["batch_size"] for b in stats["batch_stats"]] == [8]


def test_mixed_shapes(start):
    """Requests of several widths fill a batch for each, although they came in turns."""

    def work(i):
        rows = np.full((1, 2 + i % 2), i, np.float32)
        with client_of(server) as client:
            return np.array_equal(client.infer("widths", rows)["y"], 2 * rows)

    with start("widths", max_batch_size=4, max_queue_delay_us=LONG_US) as server:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(8)))
        stats = statistics(server, "widths")
    assert (stats["inference_count"], stats["execution_count"]) == (8, 2)


def test_poison_reaches_only_its_own_caller(start):
    """In a batch with an index out of range three get their answers, the fourth the error."""

    def work(index):
        with client_of(server) as client:
            try:
                return client.infer("lookup", [[index]])["y"].item()
            except ServerFaultError as error:
                return str(error)

    with start("lookup", max_batch_size=4, max_queue_delay_us=LONG_US) as server:
        with ThreadPoolExecutor(4) as pool:
            *good, bad = pool.map(work, (0, 1, 2, 99))
        stats = statistics(server, "lookup")
    assert good == [10, 20, 30] and "out of data bounds, idx=99" in bad
    counted = stats["inference_stats"]
    assert (counted["success"]["count"], counted["fail"]["count"]) == (3, 1)
    assert stats["inference_count"] == 3


def test_a_full_queue(start, wait_for):
    """What the queue has no room for is refused at once, so that the client can tell."""
    with start("slow", max_batch_size=1, queue=QueuePolicy(max_queue_size=2)) as server:
        with busy(server, wait_for) as long:
            waiting = [ask(server, SHORT) for _ in range(2)]
            arrive(server)
            assert answer(ask(server, SHORT)) == (503, "Exceeds maximum queue size")
            with client_of(server) as client, pytest.raises(UnavailableError) as raised:
                client.infer("slow", [[SHORT]])
            assert raised.value.kind == "unavailable" and not answered(long)
        assert [answer(connection) for connection in waiting] == [(200, SHORT)] * 2
        stats = statistics(server, "slow")["inference_stats"]
    assert (stats["success"]["count"], stats["fail"]["count"]) == (3, 2)


def test_a_timeout_of_the_request(start, wait_for):
    """A request that waits longer than its timeout is answered meanwhile, and is not run."""
    with start("slow") as server:
        with busy(server, wait_for) as long:
            assert answer(ask(server, SHORT, timeout=2000)) == (503, "Request timeout expired")
            assert not answered(long)
        assert answer(ask(server, SHORT, timeout=60_000_000)) == (200, SHORT)
        stats = statistics(server, "slow")
    assert stats["inference_count"] == 2 and stats["inference_stats"]["fail"]["count"] == 1


def test_a_timeout_of_the_config(start, wait_for):
    """Without one of its own a request has the timeout of the config."""
    policy = QueuePolicy(default_timeout_us=2000)
    with start("slow", queue=policy) as server, busy(server, wait_for) as long:
        with client_of(server) as client, pytest.raises(UnavailableError, match="timeout expired"):
            client.infer("slow", [[SHORT]])
        assert not answered(long)


@pytest.mark.parametrize("timeout", [-1, 1.5, "1", True, None, [1], 2**63, 10**400])
def test_what_is_no_timeout(server, timeout):
    """A timeout that is no whole number of microseconds is refused."""
    status, reason = answer(ask(server, SHORT, timeout=timeout))
    assert status == 400 and reason.startswith(f"timeout is {timeout!r}; it must be")


def test_the_longest_timeout(server):
    """A timeout of thousands of years is none."""
    assert answer(ask(server, 1, timeout=2**63 - 1)) == (200, 1)


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory):
    """The model `slow`, with the defaults."""
    log = tmp_path_factory.mktemp("log") / "log"
    with OrtBaseline(repository, "slow", log=log, batching=True) as running:
        yield running


def test_a_caller_who_hangs_up(start, wait_for):
    """The request of a caller who hung up while it waited is not run; the others are."""

    def failures():
        return statistics(server, "slow")["inference_stats"]["fail"]["count"]

    with start("slow") as server:
        with busy(server, wait_for) as long:
            gone, stays = ask(server, SHORT), ask(server, SHORT)
            assert failures() == 0
            gone.close()
            wait_for(lambda: failures() == 1)
            assert not answered(long)
        assert answer(stays) == (200, SHORT)
        stats = statistics(server, "slow")
    assert (stats["inference_count"], stats["execution_count"]) == (2, 2)


def test_a_caller_who_hangs_up_in_a_run(start, wait_for):
    """Who hangs up while the batch runs does no harm to those who share it."""
    with start("slow", max_batch_size=2, max_queue_delay_us=LONG_US) as server:
        process = psutil.Process(*server.pids())
        before = process.cpu_times().user
        gone, stays = ask(server, LONG), ask(server, LONG)
        wait_for(lambda: process.cpu_times().user > before + 0.1)
        gone.close()
        assert answer(stays) == (200, LONG)
        wait_for(lambda: statistics(server, "slow")["inference_stats"]["fail"]["count"] == 1)
        stats = statistics(server, "slow")
    assert (stats["inference_count"], stats["execution_count"]) == (2, 1)
    assert stats["inference_stats"]["success"]["count"] == 1


def test_a_caller_who_hangs_up_within_the_request(start):
    """Half a request leaves nothing behind, and the next is served."""
    head = "POST /v2/models/double/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    with start("double") as server:
        host, port = server.endpoints.http.split(":")
        for _ in range(3):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(head.encode())
        with client_of(server) as client:
            assert client.infer("double", np.ones((1, 4), np.float32))["y"].tolist() == [[2] * 4]
        stats = statistics(server, "double")["inference_stats"]
    assert (stats["success"]["count"], stats["fail"]["count"]) == (1, 0)
    assert server.log.read_text() == ""


def test_stop_answers_all_that_wait(start, wait_for):
    """A server that is stopped first answers what runs and what waits."""
    with start("slow", max_batch_size=2) as server, busy(server, wait_for):
        waiting = [ask(server, SHORT) for _ in range(9)]
        arrive(server)
        psutil.Process(*server.pids()).send_signal(signal.SIGTERM)
        assert [answer(connection) for connection in waiting] == [(200, SHORT)] * 9
        assert server.wait() == -signal.SIGTERM  # in the end, not SIGKILL
    assert server.log.read_text() == ""


def test_stop_with_more_than_the_grace_allows(start):
    """What cannot be run within the grace is told so, and the process ends by itself within it."""
    with start("slow", max_batch_size=1) as server:
        waiting = [ask(server, LONG // 4) for _ in range(60)]
        arrive(server)
    assert server.wait() == -signal.SIGTERM
    answers = [answer(connection) for connection in waiting]
    assert set(answers) == {
        (200, LONG // 4),
        (503, "the server is stopping and takes no more requests"),
    }


def test_stop_under_load_loses_nothing(repository, free_port, wait_for):
    """When a server is stopped that many clients ask without a pause, all that it took gets its
    answer: it counts as many successes as there are right answers.
    """
    baseline = Baseline(
        model_file(repository, "double"),
        replace(read_config(repository, "double"), dynamic_batching=DynamicBatching()),
    )
    server = DrainingServer(baseline, host="127.0.0.1", port=free_port, drain_s=10)
    running = threading.Thread(target=server.run)
    running.start()
    wait_for(lambda: server.started)
    under_way = threading.Barrier(9)

    def work(i):
        with Client(f"http://127.0.0.1:{free_port}", retries=NO_RETRIES) as client:
            for j in range(100_000):
                rows = np.full((1 + i % 3, 4), 1000 * i + j, np.float32)
                try:
                    answer = client.infer("double", rows)["y"]
                except UnavailableError as error:
                    return j, error.kind
                assert np.array_equal(answer, 2 * rows)
                if j == 20:
                    under_way.wait()
        raise AssertionError("it was never stopped")

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(work, i) for i in range(8)]
        under_way.wait()
        server.should_exit = True
        answers, kinds = zip(*(future.result() for future in futures), strict=True)
    running.join()
    counted = baseline.statistics()["model_stats"][0]["inference_stats"]
    assert min(answers) > 20 and set(kinds) <= {"refused", "unavailable", "closed"}
    assert counted["success"]["count"] == sum(answers)
    assert counted["fail"]["count"] == kinds.count("unavailable")


def test_config_says_what_runs(start):
    """The config has the batcher's settings as they are, without what it does not do."""
    policy = QueuePolicy(max_queue_size=7, default_timeout_us=900)
    with (
        start(
            "double",
            max_queue_delay_us=1500,
            preferred_batch_sizes=(4,),
            preserve_ordering=True,
            queue=policy,
        ) as server,
        client_of(server) as client,
    ):
        config = client.config("double")
    batching = config["dynamic_batching"]
    assert config["max_batch_size"] == 8
    assert batching["max_queue_delay_microseconds"] == 1500
    assert batching["preferred_batch_size"] == [] and not batching["preserve_ordering"]
    assert batching["default_queue_policy"] == {
        "timeout_action": "REJECT",
        "default_timeout_microseconds": 900,
        "allow_timeout_override": True,
        "max_queue_size": 7,
    }


def test_config_of_the_defaults(server):
    """Without settings there is no delay and no timeout, but a bound of the queue."""
    with client_of(server) as client:
        batching = client.config("slow")["dynamic_batching"]
    assert batching["max_queue_delay_microseconds"] == 0
    assert batching["default_queue_policy"]["max_queue_size"] == 1024
    assert batching["default_queue_policy"]["default_timeout_microseconds"] == 0


def test_nobody_is_rejected_whom_triton_would_delay(start):
    """A timeout after which Triton would serve a request late is none here."""
    policy = QueuePolicy(default_timeout_us=900, timeout_action=TimeoutAction.DELAY)
    with start("double", queue=policy) as server, client_of(server) as client:
        policy = client.config("double")["dynamic_batching"]["default_queue_policy"]
    assert policy["default_timeout_microseconds"] == 0


def test_config_and_statistics_look_like_tritons(installed, start, repository, tmp_path):
    """What it says of its config and counters has the keys and the types of real Triton's."""
    config = replace(
        read_config(repository, "double"),
        dynamic_batching=DynamicBatching(100, queue=QueuePolicy(5, 10**9)),
    )
    write_variant(repository, "double", config, tmp_path / "triton")
    rows = np.ones((2, 4), np.float32)
    said = []
    with (
        start("double", max_queue_delay_us=100, queue=QueuePolicy(5, 10**9)) as ours,
        EmbeddedTriton(tmp_path / "triton", log=tmp_path / "triton.log", drain=False) as triton,
    ):
        for server in (ours, triton):
            with client_of(server) as client:
                client.infer("double", rows)
            urls = [
                f"http://{server.endpoints.http}/v2/models/double/{w}" for w in ("config", "stats")
            ]
            said.append([json.load(urllib.request.urlopen(url)) for url in urls])
    (our_config, our_stats), (triton_config, triton_stats) = said
    for ours_says, triton_says in ((our_config, triton_config), (our_stats, triton_stats)):
        assert list(differences(ours_says, triton_says)) == []
    assert our_config["dynamic_batching"].keys() == triton_config["dynamic_batching"].keys()
    assert our_stats["model_stats"][0].keys() == triton_stats["model_stats"][0].keys()


def differences(ours, triton, where=""):
    """Keys that only ours has, and values of another type."""
    if type(ours) is not type(triton):
        yield f"{where}: {ours!r} is {triton!r} in Triton"
    elif isinstance(ours, dict):
        for key in ours:
            if key in triton:
                yield from differences(ours[key], triton[key], f"{where}.{key}")
            elif where != ".parameters":  # those are of the session
                yield f"{where}.{key} is not in Triton's"
    elif isinstance(ours, list) and triton:
        for mine in ours:
            yield from differences(mine, triton[0], f"{where}[]")


@pytest.mark.parametrize("batching", [True, False])
def test_times_add_up(repository, tmp_path, batching):
    """The phases of all requests together are no longer than the requests, and each has a time."""
    with OrtBaseline(repository, "slow", log=tmp_path / "log", batching=batching) as server:
        with client_of(server) as client:
            for _ in range(5):
                client.infer("slow", [[SHORT]])
        stats = statistics(server, "slow")
    times = stats["inference_stats"]
    phases = ("queue", "compute_input", "compute_infer", "compute_output")
    assert {times[phase]["count"] for phase in ("success", *phases)} == {5}
    assert all(times[phase]["ns"] > 0 for phase in phases)
    assert sum(times[phase]["ns"] for phase in phases) < times["success"]["ns"]
    assert times["compute_infer"]["ns"] > times["success"]["ns"] / 2
    (batch,) = stats["batch_stats"]
    assert batch["compute_infer"] == times["compute_infer"]


def test_refused_requests_are_not_counted(start):
    """What the model does not take is answered with the reason, and is no failure of the server."""
    with start("double") as server, client_of(server) as client:
        refused = answer(ask(server, 1, "double"))
        assert refused == (400, "inputs are ['steps'], the model takes ['x']")
        client.infer("double", np.ones((8, 4), np.float32))
        stats = statistics(server, "double")["inference_stats"]
    assert (stats["success"]["count"], stats["fail"]["count"]) == (1, 0)


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_another_method(server, method):
    """Inference is a POST; anything else is answered with 405."""
    url = f"http://{server.endpoints.http}/v2/models/slow/infer"
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(urllib.request.Request(url, method=method))
    with raised.value as answer:
        assert answer.code == 405


def test_a_model_without_batches(package, tmp_path):
    """A model with max_batch_size 0 is refused with the remedy, before anything is started."""
    graph = "(float[4] x) => (float[4] y) { y = Add(x, x) }"
    repository = package(tmp_path / "repository", graph, name="single", max_batch_size=0)
    with pytest.raises(InputError, match="max_batch_size 0, so there is nothing to batch; package"):
        OrtBaseline(repository, "single", log=tmp_path / "log", batching=True).__enter__()
    assert not (tmp_path / "log").exists()


def test_serve(serving, repository):
    """`tritonkit serve --arm ort_batcher` serves the model in batches, and ends on Ctrl-C."""
    with serving(repository, "--arm", "ort_batcher", "--model", "double") as (kit, where):
        assert set(where) == {"http", "log"}
        with Client(f"http://{where['http']}") as client:
            assert client.infer("double", np.ones((1, 4), np.float32))["y"].tolist() == [[2] * 4]
            assert "dynamic_batching" in client.config("double")
        (server,) = kit.family()
        assert kit.end(signal.SIGINT) == 0
        assert not server.is_running()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "ort_batcher serves one model; give --model, of ['double', 'lookup'"),
        (("--model", "double", "--response-cache-mb", 1), "ort_batcher has no response cache"),
    ],
)
def test_serve_refuses(start_kit, repository, arguments, words):
    """It needs a model and has no cache, as the baseline."""
    with start_kit("serve", "--repository", repository, "--arm", "ort_batcher", *arguments) as kit:
        assert kit.process.wait(30) == 2
        (line,) = kit.complained().splitlines()
        assert words in line
