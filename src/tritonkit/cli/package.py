"""tritonkit package: an exported model into a model repository."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("exported", type=click.Path(path_type=Path))
@click.option("--name", help="The model's name; the default is the folder's or file's.")
@click.option(
    "--repository",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("model_repository"),
    show_default=True,
)
@click.option(
    "--max-batch-size",
    type=click.IntRange(min=0),
    default=32,
    show_default=True,
    help="Rows; 0 for a model without a batch axis.",
)
@click.option(
    "--max-queue-delay-us",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="How long a request may wait for others to share its batch.",
)
@click.option(
    "--preferred-batch-size",
    type=click.IntRange(min=1),
    multiple=True,
    help="May be repeated. Not advised for ONNX models.",
)
@click.option("--no-batching", is_flag=True, help="No dynamic_batching block.")
@click.option("--instances", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Intra-op threads of each instance; the default is this machine's CPUs.",
)
@click.option(
    "--version",
    type=click.IntRange(min=1),
    help="Version to write or replace; the default is the next free one.",
)
def package(
    exported: Path,
    name: str | None,
    repository: Path,
    max_batch_size: int,
    max_queue_delay_us: int,
    preferred_batch_size: tuple[int, ...],
    no_batching: bool,
    instances: int,
    threads: int | None,
    version: int | None,
) -> None:
    """Write EXPORTED (a folder from `tritonkit export`, or a .onnx file) into a repository."""
    from tritonkit.bench.machine import usable_cpus
    from tritonkit.repository.package import Settings, package_model

    settings = Settings(
        max_batch_size=max_batch_size,
        max_queue_delay_us=None if no_batching else max_queue_delay_us,
        preferred_batch_sizes=preferred_batch_size,
        instances=instances,
        threads=threads or len(usable_cpus()),
    )
    written = package_model(
        exported, name or exported.resolve().stem, repository, settings, version
    )
    click.echo(f"{written}")
