"""tritonkit export: a model to a verified ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tritonkit.export.export import Exported


@click.command()
@click.argument("source")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Where model.onnx, verification.json and payloads.npz go.",
)
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    metavar="INPUT",
    help="What an input is like, name:dtype[batch,dim,…], or examples: name=file.npy, file.npz. "
    "Once for each input.",
)
@click.option(
    "--output-name",
    "output_names",
    multiple=True,
    metavar="NAME",
    help="What an output is to be called. Once for each output, in order.",
)
@click.option("--opset", type=click.IntRange(min=7), help="The ONNX opset to write.")
@click.option(
    "--max-batch-size",
    type=click.IntRange(min=2),
    default=32,
    show_default=True,
    help="The largest batch to prove.",
)
@click.option("--force", is_flag=True, help="Write a model that must not be batched, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def export(
    source: str,
    out: Path,
    inputs: tuple[str, ...],
    output_names: tuple[str, ...],
    opset: int | None,
    max_batch_size: int,
    force: bool,
    as_json: bool,
) -> None:
    """Export SOURCE to ONNX with a dynamic batch axis, and prove that the export is right.

    SOURCE is package.module:factory, path/file.py:factory, or a file: a torch.export program
    (.pt2), TorchScript, or ONNX. A factory takes no arguments and returns a torch module, or
    (module, example_inputs), the inputs as a dict of tensors.

    Where example inputs are missing, or others are wanted, --input describes them. Sizes that may
    vary have names, the first is always batch; =N says which size to try:

    \b
        --input 'image:float32[batch,3,224,224]'
        --input 'ids:int64[batch,seq=128]' --input 'mask:int64[batch,seq]'
        --input examples.npz
    """
    from rich.console import Console

    from tritonkit.cli.outputs import require_place
    from tritonkit.cli.proof import print_proof
    from tritonkit.export.export import UnsafeModelError, export_model
    from tritonkit.export.source import load_source

    require_place(out, "-o")
    try:
        with Console(stderr=True).status(f"loading {source}") as status:
            model = load_source(source, inputs=inputs, output_names=output_names, opset=opset)
            exported = export_model(
                model, out, max_batch_size=max_batch_size, force=force, progress=status.update
            )
    except UnsafeModelError as error:
        if as_json:
            refused = {"source": source, "model": None, "check": error.proof.to_json()}
            click.echo(json.dumps(refused, ensure_ascii=False, allow_nan=False))
        raise
    if as_json:
        click.echo(json.dumps(_as_json(source, exported), ensure_ascii=False, allow_nan=False))
        return
    click.echo(f"{exported.model}: {exported.exporter} ({exported.why})")
    for tensor in (*exported.signature.inputs, *exported.signature.outputs):
        click.echo(f"  {tensor}")
    if exported.rewrite is not None:
        click.echo(f"  its batch was fixed at {exported.rewrite.batch}, and was made dynamic:")
        for line in exported.rewrite.changed or ("nothing but its declared shapes held it",):
            click.echo(f"    {line}")
    if exported.parity is not None:
        worst = exported.parity.max_abs_diff
        click.echo(f"  differs from {exported.parity.against} by {worst:.2g} at most")
    print_proof(str(exported.folder), exported.proof)


def _as_json(source: str, exported: Exported) -> dict[str, object]:
    return {
        "source": source,
        "model": str(exported.model),
        "verification": str(exported.folder / "verification.json"),
        "exporter": exported.exporter,
        "why": exported.why,
        **exported.signature.to_json(),
        "max_abs_diff": None if exported.parity is None else exported.parity.max_abs_diff,
        "rewritten": [] if exported.rewrite is None else list(exported.rewrite.changed),
        "check": exported.proof.to_json(),
    }
