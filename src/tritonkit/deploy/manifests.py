"""Decisions as patches of the shipped objects, which stay as they are: dicts, by file name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonkit.deploy.decide import SHM_MIB, Decision
from tritonkit.errors import InputError

Object = dict[str, Any]

# What a Service is called may have 63 characters, and `triton-headless-` goes before it.
NAME_MOST = 47
SECRET, SECRET_FILE = "triton-bucket", "credentials.json"
_CLAIM = "triton-models"
_INSTANCE = "app.kubernetes.io/instance"


@dataclass(frozen=True)
class Placement:
    """Where it runs. name: of its objects, after `triton-`. load: the models to load; none means
    all that are there. models: pvc, image, or the address of a bucket.
    """

    name: str
    load: tuple[str, ...]
    models: str = "pvc"
    image: str | None = None
    namespace: str | None = None

    def __post_init__(self) -> None:
        if self.namespace is not None and not _is_name(self.namespace, 63):
            raise InputError(
                f"--namespace {self.namespace}: Kubernetes takes up to 63 of a to z, 0 to 9 and -"
            )
        if not _is_name(self.name, NAME_MOST):
            raise InputError(
                f"--name {self.name}: Kubernetes takes a to z, 0 to 9 and -, and of them "
                f"{NAME_MOST} at most here"
            )
        if self.image is not None and re.fullmatch(_IMAGE, self.image, re.ASCII) is None:
            raise InputError(f"--image {self.image}: no name of an image; give REGISTRY/NAME:TAG")
        bucket = re.fullmatch(r"(s3|gs)://[\w.:/@+=,-]+", self.models, re.ASCII)
        if self.models not in ("pvc", "image") and bucket is None:
            raise InputError(
                f"--models {self.models}: expected pvc, image, s3://BUCKET/PATH or gs://BUCKET/PATH"
            )

    @property
    def bucket(self) -> str | None:
        """The address of the models, if they are in object storage."""
        return None if self.models in ("pvc", "image") else self.models

    @property
    def claim(self) -> str:
        """The name of the claim, of those that have one."""
        return f"{_CLAIM}-{self.name}"


_IMAGE = r"[\w.-]+(:\d+)?(/[\w.-]+)*(:[\w.-]{1,128})?(@sha256:[0-9a-f]{64})?"


def object_name(models: Sequence[str]) -> str:
    """What Kubernetes takes for them: of a to z, 0 to 9 and - alone. InputError if it is too long,
    or nothing is left.
    """
    name = "-".join(re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-") for model in models)
    if not _is_name(name, NAME_MOST):
        raise InputError(
            f"no name for objects of up to {NAME_MOST} characters comes of {', '.join(models)}; "
            "give --name"
        )
    return name


def triton(base: Mapping[str, Object], decision: Decision, place: Placement) -> dict[str, Object]:
    """The kustomization of a plain Deployment, and its patches of the base's objects (by file)."""
    container: Object = {"name": "triton"}
    pod: Object = {"containers": [container]}
    if place.image is not None:
        container["image"] = place.image
    source = place.bucket or "/models"
    of_base = base["deployment.yaml"]["spec"]["template"]["spec"]["containers"][0]["args"]
    own = ("--model-repository=", "--model-control-mode=")
    kept = [arg for arg in of_base if not arg.startswith(own)]
    container["args"] = [f"--model-repository={source}", *_control(place), *kept]
    container["resources"] = _resources(decision)
    files = {"deployment.yaml": _patch(base["deployment.yaml"], template={"spec": pod})}
    if place.models != "pvc":
        container["volumeMounts"] = [{"mountPath": "/models", "$patch": "delete"}]
        pod["volumes"] = [{"name": "models", "$patch": "delete"}]
        files["claim.yaml"] = {**_reference(base["claim.yaml"]), "$patch": "delete"}
    if place.bucket is not None:
        path = f"/bucket/{SECRET_FILE}"
        container["env"] = [{"name": "TRITON_CLOUD_CREDENTIAL_PATH", "value": path}]
        container["volumeMounts"] += [{"name": "bucket", "mountPath": "/bucket", "readOnly": True}]
        pod["volumes"] += [{"name": "bucket", "secret": {"secretName": SECRET}}]
    files["autoscaler.yaml"] = _patch(
        base["autoscaler.yaml"],
        minReplicas=decision.min_replicas,
        maxReplicas=decision.max_replicas,
        metrics=_metrics(decision),
    )
    # kustomize does not know the selectors of this kind.
    labels = base["service-monitor.yaml"]["spec"]["selector"]["matchLabels"]
    files["service-monitor.yaml"] = _patch(
        base["service-monitor.yaml"], selector={"matchLabels": {**labels, _INSTANCE: place.name}}
    )
    return {"kustomization.yaml": _kustomization(["base"], files, place), **files}


def kserve(base: Mapping[str, Object], decision: Decision, place: Placement) -> dict[str, Object]:
    """The kustomization of an InferenceService and its runtime, and the patch of it."""
    if place.models == "image":
        raise InputError(
            "--models image: KServe brings the models itself; give pvc, s3://… or gs://…"
        )
    of_base = base["inference-service.yaml"]["spec"]["predictor"]["model"]["args"]
    kept = [arg for arg in of_base if not arg.startswith("--model-control-mode=")]
    model: Object = {
        "runtime": f"{base['serving-runtime.yaml']['metadata']['name']}-{place.name}",
        "storageUri": place.bucket or f"pvc://{place.claim}",
        "args": [*_control(place), *kept],
        "resources": _resources(decision),
    }
    if place.image is not None:
        model["image"] = place.image
    patch = _patch(
        base["inference-service.yaml"],
        predictor={
            "minReplicas": decision.min_replicas,
            "maxReplicas": decision.max_replicas,
            "model": model,
        },
    )
    files = {"inference-service.yaml": patch}
    resources = ["base"] if place.bucket else ["base", "base/claim.yaml"]
    return {"kustomization.yaml": _kustomization(resources, files, place), **files}


def upload(pod: Object, place: Placement) -> Object:
    """The pod by which the claim is filled."""
    spec = pod["spec"]
    container = {**spec["containers"][0]}
    if place.image is not None:
        container["image"] = place.image
    claim = {"name": "models", "persistentVolumeClaim": {"claimName": place.claim}}
    metadata = {**pod["metadata"], "name": f"{pod['metadata']['name']}-{place.name}"}
    if place.namespace is not None:
        metadata["namespace"] = place.namespace
    return {
        **pod,
        "metadata": metadata,
        "spec": {**spec, "containers": [container], "volumes": [claim]},
    }


def _control(place: Placement) -> list[str]:
    if not place.load:
        return ["--model-control-mode=none"]
    return ["--model-control-mode=explicit", *(f"--load-model={name}" for name in place.load)]


def _resources(decision: Decision) -> Object:
    """Of both alike, each a dict of its own: YAML would write the second as a reference."""
    assert decision.memory_mib > SHM_MIB
    amount = {"cpu": str(decision.cpus), "memory": f"{decision.memory_mib}Mi"}
    if decision.gpus:
        amount["nvidia.com/gpu"] = str(decision.gpus)
    return {"requests": {**amount}, "limits": {**amount}}


def _metrics(decision: Decision) -> list[Object]:
    return [
        {
            "type": "Pods",
            "pods": {
                "metric": {
                    "name": "triton_queue_seconds",
                    "selector": {"matchLabels": {"model": target.model}},
                },
                # Of seconds, so u is a microsecond.
                "target": {"type": "AverageValue", "averageValue": f"{target.queue_us}u"},
            },
        }
        for target in decision.targets
    ]


def _kustomization(resources: list[str], patches: Mapping[str, Object], place: Placement) -> Object:
    namespace = {} if place.namespace is None else {"namespace": place.namespace}
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        **namespace,
        "resources": resources,
        "nameSuffix": f"-{place.name}",
        "labels": [{"pairs": {_INSTANCE: place.name}, "includeSelectors": True}],
        "patches": [{"path": file} for file in patches],
    }


def _reference(of: Object) -> Object:
    """What a patch says of the object that it changes."""
    return {
        "apiVersion": of["apiVersion"],
        "kind": of["kind"],
        "metadata": {"name": of["metadata"]["name"]},
    }


def _patch(of: Object, **spec: Any) -> Object:
    return {**_reference(of), "spec": spec}


def _is_name(text: str, most: int) -> bool:
    return len(text) <= most and re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", text) is not None
