"""docker-compose.yml: each profile started for real, with the kit's images in NVIDIA's place.

Grafana's image cannot be made here and is not pulled: of its service only the text is looked at.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest
import yaml
from tests.docker.conftest import ROOT
from tests.docker.engine import COMMANDS, Compose, compose_command, wait_for, works

from tritonkit import Client

pytestmark = pytest.mark.docker

X = np.arange(8, dtype=np.float32).reshape(2, 4)
PROFILES = {
    "unbatched": {"triton-unbatched"},
    "baseline": {"baseline"},
    "gpu": {"triton-gpu"},
    "monitoring": {"prometheus", "grafana"},
    "load": {"locust", "locust-worker"},
}
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
# What is started; grafana and triton-gpu are not.
STARTED = ("triton", "triton-unbatched", "baseline", "locust", "locust-worker", "prometheus")
UP = ("unbatched", "baseline", "load", "monitoring")
PROMETHEUS = """
FROM {}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus wget \
    && mkdir /prometheus && chown 65534:65534 /prometheus
ENTRYPOINT ["prometheus"]
"""


@pytest.fixture(scope="module", params=COMMANDS, ids=" ".join)
def every_compose(engine, request):
    """`docker compose` and `docker-compose`, of which a machine may lack one; not started."""
    if not works(request.param):
        pytest.skip(f"there is no `{' '.join(request.param)}` here")
    return Compose(engine, request.param, {"BIND": "127.0.0.2"})


@pytest.fixture(scope="module")
def ports(free_port):
    names = ("HTTP", "GRPC", "METRICS", "UNBATCHED_HTTP", "UNBATCHED_GRPC", "UNBATCHED_METRICS")
    every = (*names, "BASELINE", "PROMETHEUS", "LOCUST")
    return {f"{name}_PORT": free_port() for name in every}


@pytest.fixture(scope="module")
def stack(engine, base, build, triton, package, ports, tmp_path_factory):
    """All that can be started, healthy."""
    repository = package(tmp_path_factory.mktemp("compose") / "repository", "double")
    recipe = PROMETHEUS.format(base)
    prometheus = engine.docker("build", "--quiet", "--network=host", "-", input=recipe)
    settings = {
        "TRITON_IMAGE": triton,
        "BASELINE_IMAGE": build("baseline", base),
        "LOAD_IMAGE": build("load", base),
        "PROMETHEUS_IMAGE": prometheus,
        "MODEL_REPOSITORY": repository,
        "MODEL": "double",
        "TRITON_CPUS": "1.5",
        **ports,
    }
    compose = Compose(engine, compose_command(), settings)
    try:
        compose("up", "--detach", "--no-build", *STARTED, profiles=UP)
        for service in STARTED:
            for container in compose.containers(service, *UP):
                if SERVICES[service].get("healthcheck"):
                    engine.wait_healthy(container)
        yield compose
    finally:
        compose("down", "--volumes", profiles=UP)


@pytest.fixture(scope="module")
def inspected(engine, stack):
    """What Docker knows of each service's first container."""
    return {service: engine.inspect(stack.containers(service, *UP)[0]) for service in STARTED}


def answer(port, path, data=None, **options):
    """The body of an HTTP answer."""
    body = None if data is None else urllib.parse.urlencode(data).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, **options)
    with urllib.request.urlopen(request, timeout=10) as said:
        return said.read().decode()


def test_config(every_compose):
    """Compose takes the file, with all of its profiles."""
    listed = every_compose("config", "--services", profiles=tuple(PROFILES)).split()
    assert set(listed) == set(SERVICES)


def test_profiles():
    """Without a profile it is one Triton; each profile adds its services."""
    found = {name: settings.get("profiles", []) for name, settings in SERVICES.items()}
    assert [name for name, profiles in found.items() if not profiles] == ["triton"]
    for profile, services in PROFILES.items():
        assert {name for name, profiles in found.items() if profile in profiles} == services


def test_gpu(every_compose):
    """Compose understands that the profile gpu reserves all GPUs, for that Triton alone."""
    services = yaml.safe_load(every_compose("config", profiles=("gpu",)))["services"]
    (device,) = services["triton-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"] and device["count"] in ("all", -1)
    assert "deploy" not in services["triton"]


def test_bind(every_compose):
    """BIND is the address of every published port."""
    said = every_compose("config", profiles=tuple(PROFILES))
    services = yaml.safe_load(said)["services"].values()
    published = [port for service in services for port in service.get("ports", ())]
    assert len(published) == 13
    for port in published:
        where = port["host_ip"] if isinstance(port, dict) else port.rsplit(":", 2)[0]
        assert where == "127.0.0.2"


@pytest.mark.parametrize("service", SERVICES)
def test_restart_and_limits(service):
    """Each service starts again, has limits, and time to end in order."""
    settings = SERVICES[service]
    assert {"restart", "mem_limit", "cpus", "stop_grace_period"} <= settings.keys()


@pytest.mark.parametrize("service", sorted(set(SERVICES) - {"locust-worker"}))
def test_healthcheck(service):
    """Each that is asked something has a health check."""
    assert SERVICES[service]["healthcheck"]["test"]


@pytest.mark.parametrize("service", [name for name in SERVICES if name.startswith("triton")])
def test_command(service):
    """Each Triton completes no config, is not controlled, and is given more time than it takes."""
    options = SERVICES[service]["command"]
    assert {"--disable-auto-complete-config", "--model-control-mode=none"} <= set(options)
    (drain,) = (o.partition("=")[2] for o in options if o.startswith("--exit-timeout-secs="))
    assert int(SERVICES[service]["stop_grace_period"].removesuffix("s")) > int(drain)


def test_unbatched_differs_in_that_alone():
    """The two Tritons that are compared have the same command line but for the config's name."""
    batched, unbatched = SERVICES["triton"]["command"], SERVICES["triton-unbatched"]["command"]
    assert set(unbatched) - set(batched) == {"--model-config-name=unbatched"}
    assert set(batched) < set(unbatched)


def test_secrets():
    """No password is in the file: Grafana's comes from a file that is not in the repository."""
    settings = SERVICES["grafana"]["environment"]
    named = {name for name in settings if "PASSWORD" in name}
    assert named == {"GF_SECURITY_ADMIN_PASSWORD__FILE"}
    assert settings["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"


@pytest.mark.parametrize("service", STARTED)
def test_hardened(inspected, service):
    """Its root is read-only, it has no capability and gains none, and it is not root."""
    host, user = inspected[service]["HostConfig"], inspected[service]["Config"]["User"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert int(user.partition(":")[0]) > 0


@pytest.mark.parametrize("service", ["grafana", "triton-gpu"])
def test_hardened_by_its_text(service):
    """The same of those that are not started."""
    settings = SERVICES[service]
    assert settings["read_only"] is True and settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert settings["user"] in ("472:0", "${TRITON_USER:-1000:1000}")


@pytest.mark.parametrize("service", sorted(set(STARTED) - {"locust-worker"}))
def test_loopback(inspected, service):
    """Unless told otherwise its ports are open on this machine alone."""
    bindings = [b for bs in inspected[service]["HostConfig"]["PortBindings"].values() for b in bs]
    assert bindings and {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}


def test_limits(inspected):
    """Triton's limits are those of the file and of its variables."""
    host = inspected["triton"]["HostConfig"]
    assert (host["Memory"], host["ShmSize"]) == (8 << 30, 1 << 30)
    assert host["NanoCpus"] == 1_500_000_000
    assert host["RestartPolicy"]["Name"] == "unless-stopped"


def test_two_arms(stack, ports):
    """Both Tritons give the right answer; one has the batcher and the other has none."""
    has = {}
    for name in ("HTTP_PORT", "UNBATCHED_HTTP_PORT"):
        with Client(f"http://127.0.0.1:{ports[name]}") as client:
            np.testing.assert_array_equal(client.infer("double", X)["y"], X + X)
        config = json.loads(answer(ports[name], "/v2/models/double/config"))
        assert config["max_batch_size"] == 8
        has[name] = "dynamic_batching" in config
    assert has == {"HTTP_PORT": True, "UNBATCHED_HTTP_PORT": False}


def test_grpc(stack, ports):
    """It serves gRPC too."""
    with Client(f"grpc://127.0.0.1:{ports['GRPC_PORT']}") as client:
        np.testing.assert_array_equal(client.infer("double", X)["y"], X + X)


def test_no_model_control(stack, ports):
    """Nobody can unload a model."""
    with pytest.raises(urllib.error.HTTPError):
        answer(ports["HTTP_PORT"], "/v2/repository/models/double/unload", {})


def test_summaries(stack, ports):
    """Triton's own percentiles are there."""
    said = answer(ports["METRICS_PORT"], "/metrics")
    assert 'nv_inference_request_summary_us{model="double",version="1",quantile="0.99"}' in said


def test_baseline(stack, ports):
    """The ONNX Runtime baseline gives the same answer, and does not batch."""
    port = ports["BASELINE_PORT"]
    with Client(f"http://127.0.0.1:{port}") as client:
        np.testing.assert_array_equal(client.infer("double", X)["y"], X + X)
    assert "dynamic_batching" not in json.loads(answer(port, "/v2/models/double/config"))


def test_load(stack, ports):
    """Locust's two workers, started from its web UI, load Triton without a failure."""
    port = ports["LOCUST_PORT"]
    assert "<html" in answer(port, "/")

    def stats():
        return json.loads(answer(port, "/stats/requests"))

    wait_for(lambda: len(stats()["workers"]) == 2)
    answer(port, "/swarm", {"user_count": 2, "spawn_rate": 2, "host": "http://triton:8000"})
    try:
        wait_for(lambda: any(one["num_requests"] > 20 for one in stats()["stats"]))
    finally:
        answer(port, "/stop", {})
    assert [one["num_failures"] for one in stats()["stats"]] == [0, 0]


def test_prometheus(stack, ports):
    """Prometheus scrapes both Tritons, and tells one arm from the other."""

    def up():
        said = json.loads(answer(ports["PROMETHEUS_PORT"], "/api/v1/query?query=up"))
        return {one["metric"]["arm"]: one["value"][1] for one in said["data"]["result"]}

    wait_for(lambda: up() == {"batched": "1", "unbatched": "1"})
