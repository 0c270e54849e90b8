"""tritonkit serve: the embedded Triton, or another arm of the comparison, in the foreground."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonkit.cli.repository import repository_option
from tritonkit.errors import InputError, ServerError

if TYPE_CHECKING:
    from tritonkit.server.baseline import OrtBaseline
    from tritonkit.server.embedded import EmbeddedTriton

# Those of one model in one ONNX Runtime session.
_ORT_ARMS = ("ort_baseline", "ort_batcher")

_port = click.IntRange(0, 65535)


@click.command()
@repository_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--http-port", type=_port, default=8000, show_default=True, help="0: any free one.")
@click.option("--grpc-port", type=_port, default=8001, show_default=True, help="0: any free one.")
@click.option("--metrics-port", type=_port, default=8002, show_default=True, help="0: any free.")
@click.option(
    "--arm",
    type=click.Choice(["triton_batched", "triton_unbatched", *_ORT_ARMS]),
    default="triton_batched",
    show_default=True,
    help="As configured; the same without a scheduler; or one ONNX Runtime session, of which "
    "ort_batcher batches as configured.",
)
@click.option(
    "--response-cache-mb",
    type=click.IntRange(0, 2**20),
    default=0,
    show_default=True,
    help="Memory for the answers of models packaged with --response-cache.",
)
@click.option("--model", help="Serve only this model; ort_baseline and ort_batcher need it.")
def serve(
    repository: Path,
    host: str,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    arm: str,
    response_cache_mb: int,
    model: str | None,
) -> None:
    """Serve a model repository until Ctrl-C, on the real Triton, without Docker.

    Ctrl-C and SIGTERM let running requests end; the exit code is 0 then. A second Ctrl-C does not.
    """
    from tritonkit.repository.ensemble import ensemble_models
    from tritonkit.repository.layout import is_ensemble, model_file, model_names, read_config
    from tritonkit.server.baseline import OrtBaseline
    from tritonkit.server.embedded import EmbeddedTriton
    from tritonkit.server.triton_wheel import cache_dir

    if arm in _ORT_ARMS and response_cache_mb:
        raise InputError(f"{arm} has no response cache; leave out --response-cache-mb")
    names = model_names(repository)
    if arm in _ORT_ARMS and model is None:
        raise InputError(f"{arm} serves one model; give --model, of {names}")
    if model is not None:
        if arm in _ORT_ARMS or not is_ensemble(repository, model):
            read_config(repository, model)
        names = ensemble_models(repository, model)
    for name in names:
        if not is_ensemble(repository, name):
            model_file(repository, name)
    # One log for each port; of those who share port 0, one for each process.
    log = cache_dir() / "logs" / f"{arm}-{http_port or f'pid{os.getpid()}'}.log"
    with ExitStack() as stack:
        server: OrtBaseline | EmbeddedTriton
        if arm in _ORT_ARMS:
            server = OrtBaseline(
                repository,
                names[0],
                log=log,
                host=host,
                http_port=http_port,
                batching=arm == "ort_batcher",
            )
        else:
            if arm == "triton_unbatched" or model is not None:
                repository = _variant(repository, names, arm == "triton_batched", stack)
            server = EmbeddedTriton(
                repository,
                log=log,
                host=host,
                http_port=http_port,
                grpc_port=grpc_port,
                metrics_port=metrics_port,
                response_cache_mb=response_cache_mb,
            )
        stack.enter_context(server)
        try:
            _announce(server, ", ".join(names))
            status = server.wait()
        except (KeyboardInterrupt, SystemExit):  # it is stopped on purpose
            click.echo("stopping; a second Ctrl-C ends it at once", err=True)
            return
        raise ServerError(f"the server ended with status {status}: {server.failure()}")


def _variant(repository: Path, names: list[str], batched: bool, stack: ExitStack) -> Path:
    """Only these models in a temporary repository, as configured or without a scheduler."""

    from tritonkit.repository.layout import is_ensemble, read_config, write_variant
    from tritonkit.server.work import WorkFolder

    variant = stack.enter_context(WorkFolder()) / "repository"
    variant.mkdir()
    for name in names:
        if is_ensemble(repository, name):
            (variant / name).symlink_to((repository / name).resolve())
            continue
        config = read_config(repository, name)
        if not batched:
            config = config.unbatched()
        write_variant(repository, name, config, variant, every_version=True)
    return variant


def _announce(server: OrtBaseline | EmbeddedTriton, models: str) -> None:
    where = server.endpoints
    click.echo(f"ready: {models}")
    click.echo(f"  http     http://{where.http}")
    if where.grpc:
        click.echo(f"  grpc     {where.grpc}")
    if where.metrics:
        click.echo(f"  metrics  http://{where.metrics}/metrics")
    click.echo(f"  log      {server.log}")
    click.echo("Ctrl-C ends it")
