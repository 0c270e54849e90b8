"""tritonkit examples: the example models, exported and packaged."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--repository",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("model_repository"),
    show_default=True,
)
@click.option(
    "--exports",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("exports"),
    show_default=True,
    help="Where the exported models go before they are packaged.",
)
def examples(names: tuple[str, ...], repository: Path, exports: Path) -> None:
    """Export and package the example models: ranker, text_embedder, file_type, or all."""
    from tritonkit.examples import EXAMPLES, build_example
    from tritonkit.repository.package import Settings, package_model

    for name in names or EXAMPLES:
        click.echo(f"{name}: exporting")
        exported = build_example(name, exports / name)
        # Fixed, not this machine's CPUs: the configs are committed and equal everywhere.
        settings = Settings(max_batch_size=EXAMPLES[name].max_batch_size, threads=2)
        written = package_model(exported.folder, name, repository, settings, version=1)
        click.echo(f"{name}: {written}, exported by {exported.exporter}")
