"""tritonkit rollout: another version of a model, on servers that run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonkit.cli.address import quieten_grpc
from tritonkit.errors import AccessError, InputError, RequestError, request_error

if TYPE_CHECKING:
    from tritonkit.rollout import Server

_folder = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("url")
@click.argument("model")
@click.option("--from", "source", type=_folder, help="The repository with the new version.")
@click.option(
    "--repository",
    type=_folder,
    default=Path("model_repository"),
    show_default=True,
    help="The live one: what the server serves, as it is seen from here.",
)
@click.option(
    "--replica",
    "replicas",
    multiple=True,
    metavar="URL",
    help="Another server of the same repository; may be repeated.",
)
@click.option(
    "--answers",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .npz of `tritonkit infer --save`: what the new version has to answer to its payloads. "
    "The default is what one ONNX Runtime session answers.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Holds NAME=VALUE, the key of Triton's restricted API model-repository.",
)
@click.option("--back", is_flag=True, help="Take the newest version back instead.")
def rollout(
    url: str,
    model: str,
    source: Path | None,
    repository: Path,
    replicas: tuple[str, ...],
    answers: Path | None,
    key_file: Path | None,
    back: bool,
) -> None:
    """Bring a new version of MODEL to the server at URL, while it serves.

    The version is loaded beside the old one under another name, warmed up, and asked for answers
    that are known; then it serves, and the old one stays loaded. If anything fails, the old one
    serves on. Requests that come meanwhile are answered by the one or the other.

    The server must run with --model-control-mode=explicit; keep that API restricted:
    --grpc-restricted-protocol=model-repository:NAME=VALUE, and --http-restricted-api as well.

    \b
    Examples:
      tritonkit rollout localhost:8001 ranker --from new_repository --key-file key
      tritonkit rollout localhost:8001 ranker --key-file key --back
    """
    quieten_grpc()

    from tritonkit.cli.inputs import require_text
    from tritonkit.payloads import read_numpy
    from tritonkit.rollout import roll_back, roll_out

    require_text(url, model, *replicas)
    if back == (source is not None):
        raise InputError("give --from for a new version, or --back for the one before")
    recorded = None if answers is None else read_numpy(answers)
    if recorded is not None and not isinstance(recorded, dict):
        raise InputError(f"{answers} is one array; give a .npz, with an array for each output")
    with ExitStack() as stack:
        servers = [stack.enter_context(_server(each, key_file)) for each in (url, *replicas)]
        with _with_remedies(key_file):
            if source is None:
                now = roll_back(servers, repository, model, click.echo)
                click.echo(f"{model}: version {now.version} serves, {now.before} was taken back")
                return
            now = roll_out(servers, source, repository, model, recorded, click.echo)
    click.echo(f"{model}: version {now.version} serves, {now.before} stays loaded")
    click.echo("back: the same command with --back in place of --from")


@contextmanager
def _server(url: str, key_file: Path | None) -> Iterator[Server]:
    from tritonkit.client.address import parse_address
    from tritonkit.client.client import Client
    from tritonkit.rollout import Server

    address = parse_address(url)
    headers = {}
    if key_file is not None:
        name, value = _key(key_file)
        prefix = "triton-grpc-protocol-" if address.protocol == "grpc" else ""
        headers[prefix + name] = value
    with Client(str(address), headers=headers, shared_memory=False) as client:
        yield Server(str(address), client)


def _key(path: Path) -> tuple[str, str]:
    try:
        name, found, value = path.read_text(encoding="utf-8").strip().partition("=")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"{path} cannot be read: {reason}") from error
    if not (name and found and value) or len(f"{name}{value}".split()) != 1:
        raise InputError(f"{path} does not hold NAME=VALUE on one line")
    return name, value


@contextmanager
def _with_remedies(key_file: Path | None) -> Iterator[None]:
    """Says what a server wants that refuses to load."""
    try:
        yield
    except AccessError as error:
        remedy = "give its key by --key-file" if key_file is None else f"{key_file} has another key"
        raise request_error(error.kind, f"{error}; {remedy}") from error
    except RequestError as error:
        if "explicit model load" not in str(error):  # Triton's words where control is off
            raise
        remedy = "start it with --model-control-mode=explicit --load-model=*"
        raise request_error(error.kind, f"{error}; {remedy}") from error
