"""Names, addresses and patches, before kustomize puts them together."""

import pytest

from tritonkit.deploy.decide import Decision, Target
from tritonkit.deploy.folder import read_objects, shipped
from tritonkit.deploy.manifests import NAME_MOST, Placement, kserve, object_name, triton
from tritonkit.errors import InputError

DECISION = Decision(4, 2304, 0, 3, 12, (Target("a", 2500, ""), Target("b", 10_000, "")), ())


def patches(place, *, decision=DECISION):
    return triton(read_objects(shipped() / "base"), decision, place)


def container(place, *, decision=DECISION):
    deployment = patches(place, decision=decision)["deployment.yaml"]
    return deployment["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("models", "name"),
    [
        (["ranker"], "ranker"),
        (["file_type"], "file-type"),
        (["A.b", "c=+d"], "a-b-c-d"),
        (["_x_"], "x"),
        (["3d"], "3d"),
        (["m" * NAME_MOST], "m" * NAME_MOST),
    ],
)
def test_object_name(models, name):
    """Names of models become what Kubernetes takes."""
    assert object_name(models) == name


@pytest.mark.parametrize("models", [["m" * 48], ["m" * 24, "n" * 24], ["_"], ["a", "+"]])
def test_no_object_name(models):
    """Where no name comes of them, --name is asked for."""
    with pytest.raises(InputError, match="give --name"):
        object_name(models)


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a\n", "é", "m" * 48])
def test_bad_name(name):
    """A name that Kubernetes refuses is refused."""
    with pytest.raises(InputError, match="--name"):
        Placement(name, ())


@pytest.mark.parametrize("namespace", ["", "A", "a/b", "a.b", "m" * 64])
def test_bad_namespace(namespace):
    """So is a namespace."""
    with pytest.raises(InputError, match="--namespace"):
        Placement("m", (), namespace=namespace)


@pytest.mark.parametrize("image", ["", "a b", "a:b:c", "http://a/b", "-", "a/b:", "a@sha256:12"])
def test_bad_image(image):
    """So is what is no image."""
    if image == "-":
        image = "a\n- b"
    with pytest.raises(InputError, match="--image"):
        Placement("m", (), image=image)


@pytest.mark.parametrize(
    "image", ["triton", "r.io:5000/a/b:1.0-x", f"r.io/a@sha256:{'a' * 64}", "localhost/a_b:1"]
)
def test_image(image):
    """An image replaces that of the base."""
    assert container(Placement("m", (), image=image))["image"] == image


@pytest.mark.parametrize(
    "models", ["", "PVC", "s3:/b", "s3://", "ftp://b", "gs://b/$(X)", "s3://b c"]
)
def test_bad_models(models):
    """What is no place for models is refused."""
    with pytest.raises(InputError, match="--models"):
        Placement("m", (), models)


def test_load():
    """Those that are named are loaded, under explicit control."""
    args = container(Placement("m", ("a", "b")))["args"]
    assert "--model-control-mode=explicit" in args and "--model-control-mode=none" not in args
    assert [arg for arg in args if arg.startswith("--load-model")] == [
        "--load-model=a",
        "--load-model=b",
    ]


def test_load_all():
    """All that are there are loaded without it."""
    args = container(Placement("m", ()))["args"]
    assert "--model-control-mode=none" in args
    assert not [arg for arg in args if arg.startswith("--load-model")]


def test_other_args():
    """The base's other arguments stay, in their order."""
    of_base = read_objects(shipped() / "base")["deployment.yaml"]
    (base,) = of_base["spec"]["template"]["spec"]["containers"]
    kept = [arg for arg in base["args"] if not arg.startswith(("--model-r", "--model-c"))]
    assert len(kept) > 4
    assert container(Placement("m", ("a",)))["args"][-len(kept) :] == kept


def test_requests_equal_limits():
    """Requests are the limits: whole CPUs, and the memory."""
    resources = container(Placement("m", ()))["resources"]
    assert resources["requests"] == resources["limits"] == {"cpu": "4", "memory": "2304Mi"}


def test_gpu():
    """A model on a GPU asks for one."""
    decision = Decision(1, 2048, 2, 2, 10, (), ())
    limits = container(Placement("m", ()), decision=decision)["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "2"


def test_targets():
    """The autoscaler has a metric for each model, in microseconds."""
    spec = patches(Placement("m", ()))["autoscaler.yaml"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 12)
    asked = {
        metric["pods"]["metric"]["selector"]["matchLabels"]["model"]: metric["pods"]["target"]
        for metric in spec["metrics"]
    }
    assert asked["a"] == {"type": "AverageValue", "averageValue": "2500u"}
    assert asked["b"] == {"type": "AverageValue", "averageValue": "10000u"}


def test_kserve_image():
    """KServe has no use for models in the image."""
    with pytest.raises(InputError, match="KServe brings the models itself"):
        kserve(read_objects(shipped() / "kserve"), DECISION, Placement("m", (), "image"))
