"""Which model repository: --repository."""

from __future__ import annotations

from pathlib import Path

import click

repository_option = click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=Path("model_repository"),
    show_default=True,
)
