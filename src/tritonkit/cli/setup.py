"""tritonkit setup: fetch the embedded Triton."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--wheel",
    type=click.Path(path_type=Path),
    help="The nvidia-pytriton wheel, fetched by hand on a machine with a network.",
)
def setup(wheel: Path | None) -> None:
    """Fetch the embedded Triton once, check its hash, and unpack it.

    It goes into a cache of the kit's own: $TRITONKIT_CACHE, or the user's cache folder.
    """
    from tritonkit.server.triton_wheel import TRITON_VERSION, fetch_triton

    click.echo(f"Triton {TRITON_VERSION} is in {fetch_triton(wheel)}")
