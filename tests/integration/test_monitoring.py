"""deploy/prometheus and deploy/grafana, on a real Prometheus that scrapes two real Tritons."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from prometheus_client import CollectorRegistry, start_http_server
from tests.integration.traffic import calling

from tritonkit.client.hooks import prometheus_hook
from tritonkit.repository.config import DynamicBatching
from tritonkit.server.embedded import EmbeddedTriton

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus"
DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
TESTS = sorted((RULES / "tests").glob("*.yml"))

DOUBLE = "(float[N,4] x) => (float[N,4] y) { y = Add(x, x) }"
ROW = np.ones((1, 4), np.float32)
SUMMARIES = (
    "--metrics-config=summary_latencies=true",
    "--metrics-config=summary_quantiles=0.5:0.05,0.99:0.001",
)


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """The path of one of Prometheus's programs. `.ci/run` installs them on Debian."""

    def find(name: str) -> str:
        if (path := shutil.which(name)) is None:
            pytest.skip(f"{name} is not installed: apt-get install prometheus")
        return path

    return find


def promtool(program: Callable[[str], str], *arguments: object) -> None:
    words = [program("promtool"), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_config(program):
    """Prometheus takes the config and its rules."""
    promtool(program, "check", "config", RULES / "prometheus.yml")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_rules(program, path):
    """Every rule says what it should, of series that were made up."""
    promtool(program, "test", "rules", path)


def test_each_alert_is_tried():
    """Each is seen to fire, and seen not to."""
    (group,) = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    tried: dict[str, set[bool]] = {rule["alert"]: set() for rule in group["rules"]}
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test.get("alert_rule_test", ()):
                tried[case["alertname"]].add(bool(case.get("exp_alerts")))
    assert {name: {True, False} for name in tried} == tried


def test_each_record_is_tried():
    """Each recording rule has a value that is known."""
    groups = yaml.safe_load((RULES / "rules.yml").read_text())["groups"]
    records = [rule["record"] for group in groups for rule in group["rules"]]
    said = (RULES / "tests/rules.test.yml").read_text()
    assert [record for record in records if record not in said] == []


class Prometheus:
    """A Prometheus that scrapes the Tritons."""

    def __init__(self, url: str):
        self._url = url

    def ask(self, path: str, **query: str) -> Any:
        """What its API answers."""
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[float]:
        """Those of a query now."""
        found = self.ask("query", query=expression)["result"]
        return [float(series["value"][1]) for series in found]


@pytest.fixture(scope="module")
def tritons(installed, package, tmp_path_factory) -> Iterator[dict[str, EmbeddedTriton]]:
    """One with a scheduler and one without, under load."""
    folder = tmp_path_factory.mktemp("monitoring")
    servers = {}
    with ExitStack() as stack:
        for arm, batching in (("batched", DynamicBatching(2_000)), ("unbatched", None)):
            package(folder / arm, DOUBLE, name="double", scheduler=batching)
            log = folder / f"{arm}.log"
            server = EmbeddedTriton(folder / arm, log=log, drain=False, options=SUMMARIES)
            servers[arm] = stack.enter_context(server)
            url = f"grpc://{server.endpoints.grpc}"
            stack.enter_context(calling(url, "double", ROW, callers=4, pause_s=0.002))
        yield servers


@pytest.fixture(scope="module")
def clients(tritons) -> Iterator[str]:
    """HOST:PORT of a process that calls a Triton and publishes what it sees: this one."""
    registry = CollectorRegistry()
    server, thread = start_http_server(0, "127.0.0.1", registry)
    url = f"grpc://{tritons['batched'].endpoints.grpc}"
    with calling(url, "double", ROW, pause_s=0.02, hooks=[prometheus_hook(registry)]):
        yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def prometheus(program, tritons, clients, tmp_path_factory) -> Iterator[Prometheus]:
    """With the project's own rules; it scrapes more often, and finds the servers by address."""
    folder = tmp_path_factory.mktemp("prometheus")
    for path in RULES.glob("*.yml"):
        shutil.copy(path, folder)
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    *arms, own = config["scrape_configs"]
    own["static_configs"] = [{"targets": [clients]}]
    for job in arms:
        del job["dns_sd_configs"]
        (arm,) = (rule["replacement"] for rule in job["relabel_configs"])
        job["static_configs"] = [{"targets": [tritons[arm].endpoints.metrics]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    words = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, stderr=log)
    try:
        yield Prometheus(f"http://127.0.0.1:{_port(process, folder / 'log')}")
    finally:
        process.terminate()
        process.wait(timeout=30)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """The one that it listens on."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for connection in psutil.Process(process.pid).net_connections():
            if connection.status == psutil.CONN_LISTEN:
                return int(connection.laddr.port)
        time.sleep(0.05)
    pytest.fail(f"Prometheus did not start: {log.read_text()}")


def queries() -> Iterator[Any]:
    """Each query of each panel, with all variables set to all."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$instance", ".*").replace("$model", ".*")
                name = f"{path.stem}: {panel['title']} {target['refId']}"
                yield pytest.param(expression, id=name)


@pytest.mark.parametrize("expression", queries())
def test_panels_have_data(prometheus, wait_for, expression):
    """No panel of a dashboard is empty."""
    wait_for(lambda: bool(prometheus.values(expression)))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_use_rules_that_are_there(path):
    """A recording rule that was renamed is not asked for."""
    said = path.read_text()
    names = {
        rule["record"]
        for file in ("rules.yml", "budgets.yml")
        for group in yaml.safe_load((RULES / file).read_text())["groups"]
        for rule in group["rules"]
    }
    used = set(re.findall(r"(?:triton|client):\w+:?\w*", said))
    assert used and used <= names


def test_batching_shows(prometheus, wait_for):
    """The batched Triton has larger runs than the other, of which each has one row."""

    def rows(arm: str) -> float:
        found = prometheus.values(f'triton:batch_rows:mean1m{{arm="{arm}"}}')
        return found[0] if found else 0.0

    wait_for(lambda: rows("batched") > 1.2 and rows("unbatched") == 1.0)


def test_time_adds_up(prometheus, wait_for):
    """Queue, run and the rest are the whole of a request."""
    parts = " + ".join(f"triton:{part}_seconds:mean1m" for part in ("queue", "compute", "overhead"))
    ratio = f"({parts}) / triton:request_seconds:mean1m"
    wait_for(lambda: len(prometheus.values(ratio)) == 2)
    assert prometheus.values(ratio) == pytest.approx([1.0, 1.0])


def test_nothing_is_alarmed(prometheus, wait_for):
    """All alerts are known, and under a light load none fires."""
    wait_for(lambda: bool(prometheus.values("triton:request_seconds:p99")))
    groups = prometheus.ask("rules", type="alert")["groups"]
    states = {rule["name"]: rule["state"] for group in groups for rule in group["rules"]}
    assert len(states) >= 8 and set(states.values()) == {"inactive"}


def test_clients_see_more_than_the_server(prometheus, wait_for):
    """A client's p99 is above p50, and both are there."""
    wait_for(lambda: bool(prometheus.values("client:request_seconds:p99")))
    (p50,), (p99,) = (prometheus.values(f"client:request_seconds:p{q}") for q in (50, 99))
    assert 0 < p50 < p99
