"""tritonkit check: is a model safe to batch?"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--max-batch-size",
    type=click.IntRange(min=2),
    default=32,
    show_default=True,
    help="The largest batch to prove.",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="INPUT",
    help="Real inputs, NAME=FILE.npy or FILE.npz, or what they are like, "
    "NAME:DTYPE[batch,SIZE,…]. May be repeated.",
)
@click.option(
    "--against",
    metavar="SOURCE",
    help="What it was made from (as for `tritonkit export`): its answers must be the same.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(
    model: Path, max_batch_size: int, inputs: tuple[str, ...], against: str | None, as_json: bool
) -> None:
    """Prove that MODEL (.onnx, or a folder from `tritonkit export`) is safe to batch, or not.

    Triton puts the requests of strangers in one batch. The model is run: with each row alone,
    among copies of itself, and beside the worst neighbours that can be made. Exit code 1 if it is
    unsafe or cannot be batched.
    """
    from rich.console import Console

    from tritonkit.check.check import Question, check_model
    from tritonkit.cli.proof import print_proof
    from tritonkit.payloads import PAYLOADS, read_payloads

    file = model / "model.onnx" if model.is_dir() else model
    examples = []
    if inputs:
        from tritonkit.export.inputs import read_examples

        examples = list(read_examples(inputs).requests)
    elif model.is_dir() and (model / PAYLOADS).is_file():
        examples = read_payloads(model / PAYLOADS)
    reference = None
    if against is not None:
        from tritonkit.export.reference import reference_of
        from tritonkit.export.source import load_source

        reference = reference_of(load_source(against))
    question = Question(
        max_batch_size=max_batch_size, examples=examples, reference=reference, against=against or ""
    )
    with Console(stderr=True).status("reading the model") as status:
        proof = check_model(file, question, lambda step: status.update(f"checking: {step}"))
    if as_json:
        click.echo(json.dumps({"model": str(file), **proof.to_json()}, indent=2, allow_nan=False))
    else:
        print_proof(str(model), proof)
    if not proof.passed:
        sys.exit(1)
