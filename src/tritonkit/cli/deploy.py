"""tritonkit deploy: from a repository and its plans to what a cluster runs."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonkit.cli.lines import printable
from tritonkit.cli.repository import repository_option
from tritonkit.errors import InputError

if TYPE_CHECKING:
    from tritonkit.deploy.manifests import Placement
    from tritonkit.deploy.needs import Need
    from tritonkit.deploy.planned import Planned


_KSERVE_SCALES = "KServe scales between them by its own autoscaler, by CPU use, and not by waiting"


@click.group()
def deploy() -> None:
    """Write what a cluster needs to serve models."""


@deploy.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@repository_option
@click.option(
    "--plan",
    "plans",
    multiple=True,
    metavar="PLAN.json",
    type=click.Path(path_type=Path),
    help="Of a model, from `tritonkit plan`: the autoscaler's target and a replica's capacity.",
)
@click.option(
    "--rate-rps",
    "rates",
    multiple=True,
    metavar="[NAME=]R",
    help="What the replicas must hold when one of them is gone; needs --plan.",
)
@click.option("--namespace", help="The default is the one that kubectl is set to.")
@click.option("--image", help="The image of Triton; the default is NVIDIA's.")
@click.option(
    "--models",
    "source",
    default="pvc",
    show_default=True,
    metavar="pvc|image|s3://...|gs://...",
    help="Where the repository is: on a volume claim, at /models in the image, or in a bucket.",
)
@click.option("--name", help="Of the objects, after triton-; the default is made of the models'.")
@click.option("--kserve", is_flag=True, help="Write an InferenceService of KServe.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The folder to write; the default is kubernetes/NAME.",
)
@click.option("--force", is_flag=True, help="Replace an earlier deployment at --out.")
def kubernetes(
    names: tuple[str, ...],
    repository: Path,
    plans: tuple[Path, ...],
    rates: tuple[str, ...],
    namespace: str | None,
    image: str | None,
    source: str,
    name: str | None,
    kserve: bool,
    out: Path | None,
    force: bool,
) -> None:
    """Write a folder that `kubectl apply -k` takes: Triton with these models.

    CPUs and memory come from config.pbtxt and the model files, the replicas and the autoscaler's
    target from what `tritonkit plan` measured. Nothing is sent to a cluster.

    \b
    Examples:
      tritonkit deploy kubernetes ranker --plan plans/ranker/plan.json
      tritonkit deploy kubernetes ranker --plan plans/ranker/plan.json --rate-rps 8000
      tritonkit deploy kubernetes ranker file_type --models s3://bucket/models --namespace prod
    """
    from tritonkit.cli.outputs import require_place
    from tritonkit.deploy import folder, manifests
    from tritonkit.deploy.decide import decide
    from tritonkit.deploy.needs import read_needs
    from tritonkit.repository.layout import model_names

    names = tuple(dict.fromkeys(names))
    needs = read_needs(repository, names)
    decision = decide(needs, _read_plans(plans, needs), _read_rates(rates, names, repository))
    models = tuple(dict.fromkeys([*names, *(need.model for need in needs)]))
    place = manifests.Placement(
        name=manifests.object_name(names) if name is None else name,
        load=() if set(model_names(repository)) == set(models) else names,
        models=source,
        image=image,
        namespace=namespace,
    )
    out = out or Path("kubernetes") / place.name
    require_place(out, "--out")

    root = folder.shipped()
    bases = [root / "kserve"] if kserve else [root / "base"]
    objects = folder.read_objects(bases[0])
    files = (manifests.kserve if kserve else manifests.triton)(objects, decision, place)
    scaled = [str(target) for target in decision.targets]
    lines = [*decision.because, *([_KSERVE_SCALES] if kserve else scaled)]
    comments = {"kustomization.yaml": [f"Written by tritonkit for {', '.join(names)}:"]}
    comments["kustomization.yaml"] += [f"- {line}" for line in lines]
    if place.models == "pvc":
        if kserve:
            bases.append(root / "base" / "claim.yaml")
        files["upload.yaml"] = manifests.upload(folder.read_object(root / "upload.yaml"), place)
        comments["upload.yaml"] = [
            "For filling the claim, once:",
            "",
            *_uploading(place, repository, models),
        ]
    folder.write_folder(out, bases, files, comments, force=force)
    for line in (*lines, *_next_steps(out, place, kserve)):
        click.echo(printable(line))


def _read_plans(paths: Sequence[Path], needs: Sequence[Need]) -> dict[str, Planned]:
    """By model. InputError for one of another model, or two of one."""
    from tritonkit.deploy.planned import planned, read_plan

    known = {need.model: need for need in needs}
    found: dict[str, Planned] = {}
    for path in paths:
        document = read_plan(path)
        model = document["model"]
        if not isinstance(model, str) or model not in known:
            raise InputError(
                f"--plan {path} is of '{printable(str(model))}', which is not deployed here; "
                f"give one of {', '.join(known)}"
            )
        if model in found:
            raise InputError(f"--plan {path} is the second plan of '{model}'; give one")
        found[model] = planned(path, document, known[model].settings)
    return found


def _read_rates(texts: Sequence[str], names: Sequence[str], repository: Path) -> dict[str, float]:
    """By model; that of an ensemble is of each of its steps."""
    from tritonkit.repository.ensemble import ensemble_models
    from tritonkit.repository.layout import is_ensemble

    rates: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not name and len(names) > 1:
            raise InputError(f"--rate-rps {text}: of which model? Give NAME={text}")
        name = name or names[0]
        if name not in names:
            raise InputError(f"--rate-rps {text}: '{name}' is none of {', '.join(names)}")
        try:
            rate = float(number)
        except ValueError:
            rate = math.nan
        if not 0 < rate < math.inf:
            raise InputError(f"--rate-rps {text}: expected a number above 0, or NAME=NUMBER")
        for model in ensemble_models(repository, name):
            if not is_ensemble(repository, model):
                rates[model] = rates.get(model, 0.0) + rate
    return rates


def _uploading(place: Placement, repository: Path, models: Sequence[str]) -> list[str]:
    space = "" if place.namespace is None else f" -n {place.namespace}"
    pod = f"triton-upload-{place.name}"
    copies = [
        f"    kubectl{space} cp {shlex.quote(str(repository / model))} {pod}:/models/{model}"
        for model in models
    ]
    return [
        "    kubectl apply -f upload.yaml",
        f"    kubectl{space} wait --for=condition=Ready pod/{pod}",
        *copies,
        f"    kubectl{space} delete pod {pod}",
    ]


def _next_steps(out: Path, place: Placement, kserve: bool) -> list[str]:
    space = "" if place.namespace is None else f" -n {place.namespace}"
    lines = [f"kubectl apply -k {shlex.quote(str(out))}"]
    if place.models == "pvc":
        lines.append(f"fill the claim once: the commands are in {out / 'upload.yaml'}")
    elif place.models == "image":
        lines.append("the image must have the repository at /models")
    elif kserve:
        lines.append("KServe takes the bucket's credentials from the service account")
    else:
        from tritonkit.deploy.manifests import SECRET, SECRET_FILE

        secret = f"kubectl{space} create secret generic {SECRET} --from-file={SECRET_FILE}"
        lines.append(f"the bucket's credentials: {secret}")
    return lines
