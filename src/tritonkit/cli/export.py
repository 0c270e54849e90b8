"""tritonkit export: a model to a verified ONNX file."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("source")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Where model.onnx, verification.json and payloads.npz go.",
)
def export(source: str, out: Path) -> None:
    """Export SOURCE to ONNX with a dynamic batch axis, and prove that the export is right.

    SOURCE is package.module:factory, path/file.py:factory, or model.onnx. A factory takes no
    arguments and returns (module, example_inputs), the inputs as a dict of tensors that have at
    least 2 rows.
    """
    from tritonkit.export.export import export_model
    from tritonkit.export.source import load_source

    exported = export_model(load_source(source), out)
    worst = max((check.max_abs_diff for check in exported.checks), default=0.0)
    click.echo(f"{exported.model}: {exported.exporter} ({exported.why})")
    for tensor in (*exported.signature.inputs, *exported.signature.outputs):
        click.echo(f"  {tensor}")
    click.echo(f"  largest difference {worst:.2g}; details in {out / 'verification.json'}")
