"""tritonkit infer: one request to a server that runs, and what it answers."""

from __future__ import annotations

from pathlib import Path

import click

from tritonkit.cli.address import quieten_grpc
from tritonkit.cli.numbers import Finite
from tritonkit.errors import InputError

_file = click.Path(path_type=Path)


@click.command()
@click.argument("url")
@click.argument("model")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[NAME=]VALUE",
    help="What one input gets; may be repeated. Without NAME for a model of one input.",
)
@click.option(
    "--row", type=click.IntRange(min=0), help="Send this row of the inputs only; 0 is the first."
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="NAME",
    help="May be repeated; the default is all outputs.",
)
@click.option(
    "--classes",
    type=click.IntRange(1, 2**31 - 1),
    help="So many top classes instead of each output's values.",
)
@click.option("--version", default="", help="Of the model; the default is the server's choice.")
@click.option(
    "--id",
    "request_id",
    default="",
    help="Comes back with the answer, and stands in the server's log.",
)
@click.option(
    "--timeout-s",
    type=Finite(0, 1e6, min_open=True),
    default=30.0,
    show_default=True,
    help="For everything together.",
)
@click.option(
    "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="May be repeated."
)
@click.option("--token-file", type=_file, help="Holds a bearer token.")
@click.option("--tls-ca", type=_file, help="PEM; the default is the system's authorities.")
@click.option("--tls-cert", type=_file, help="PEM, for mutual TLS; with --tls-key.")
@click.option("--tls-key", type=_file, help="PEM.")
@click.option(
    "--save", type=_file, help="Write the outputs to this .npz, .npy (one output) or .json."
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object; for each answer one a line, if they are streamed.",
)
def infer(
    url: str,
    model: str,
    inputs: tuple[str, ...],
    row: int | None,
    outputs: tuple[str, ...],
    classes: int | None,
    version: str,
    request_id: str,
    timeout_s: float,
    headers: tuple[str, ...],
    token_file: Path | None,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    save: Path | None,
    as_json: bool,
) -> None:
    """Send a request to MODEL on the server at URL, and print the answer.

    URL is grpc://HOST:PORT, http://HOST:PORT, with s for TLS (grpcs, https), or HOST:PORT, which
    is gRPC.

    \b
    VALUE is one of
      [[1, 2], [3, 4]]   JSON; text that is no JSON is taken as it is by an input of BYTES
      @x.npy             an array
      @x.npz             the array called NAME; without NAME each array is an input
      @x.json, @-        JSON of a file, of stdin; an object without NAME is inputs by name

    A payloads.npz as `tritonkit export` writes it is rows too. More rows than the model takes at
    once are sent in several requests. Nothing is tried again.

    Long arrays are shortened; --json and --save have all of them. In JSON, NaN and infinity are
    null, and bytes that are not UTF-8 stand as \\xNN.

    \b
    Examples:
      tritonkit infer localhost:8001 ranker --input @model_repository/ranker/payloads.npz --row 3
      tritonkit infer http://localhost:8000 sum --input a='[[1, 2]]' --input b=@b.npy --json
    """
    quieten_grpc()

    from tritonkit.cli.answers import place_to_save, require_savable, save_as, show
    from tritonkit.cli.inputs import (
        read_header,
        read_inputs,
        read_token,
        require_text,
        values_of,
    )
    from tritonkit.cli.known import naming_models
    from tritonkit.client.client import Client
    from tritonkit.client.deadline import Deadline
    from tritonkit.client.retry import NO_RETRIES
    from tritonkit.client.transport import Tls

    require_text(url, model, version, request_id, *inputs, *outputs, *headers)
    place = None if save is None else place_to_save(save)
    given = read_inputs(inputs)
    client = Client(
        url,
        timeout_s=timeout_s,
        retries=NO_RETRIES,
        tls=Tls(tls_ca, tls_cert, tls_key) if tls_ca or tls_cert or tls_key else None,
        token=None if token_file is None else read_token(token_file),
        headers=dict(map(read_header, headers)),
        shared_memory=False,
    )
    deadline = Deadline(timeout_s)
    with client:
        with naming_models(client):
            spec = client.spec(model, version=version)
        values = values_of(spec, given, row)
        spec.require_outputs(outputs)
        if place is not None:
            require_savable(spec, outputs, place)
        if spec.decoupled:
            if classes:
                raise InputError(f"{spec.label} streams its answers, which cannot be classes")
            answers = client.stream(
                model,
                values,
                version=version,
                outputs=outputs,
                id=request_id,
                timeout_s=deadline.left_s(model),
            )
            for i, answer in enumerate(answers):
                show(answer, as_json, blank_line=i > 0)
            return
        result = client.infer(
            model,
            values,
            version=version,
            outputs=outputs,
            classes=classes or 0,
            id=request_id,
            timeout_s=deadline.left_s(model),
        )
    if place is not None:
        save_as(place, result)
    show(result, as_json)
    if save is not None and not as_json:
        click.echo(f"\n{save}")
