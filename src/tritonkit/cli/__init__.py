"""The `tritonkit` command. One file per verb; each imports what it needs when it runs."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import click
from click.exceptions import NoArgsIsHelpError

from tritonkit.cli.check import check
from tritonkit.cli.compare import compare
from tritonkit.cli.deploy import deploy
from tritonkit.cli.doctor import doctor
from tritonkit.cli.examples import examples
from tritonkit.cli.export import export
from tritonkit.cli.infer import infer
from tritonkit.cli.lines import printable
from tritonkit.cli.lint import lint
from tritonkit.cli.load import load
from tritonkit.cli.monitor import monitor
from tritonkit.cli.package import package
from tritonkit.cli.plan import plan
from tritonkit.cli.rollout import rollout
from tritonkit.cli.serve import serve
from tritonkit.cli.setup import setup
from tritonkit.errors import InputError, TritonkitError, describe


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tritonkit")
def cli() -> None:
    """Take a PyTorch or ONNX model to NVIDIA Triton.

    Do not batch until a measurement shows that you are throughput-bound:
    `tritonkit compare MODEL` makes that measurement.
    """


for command in (
    *(setup, examples, export, check, package, lint),
    *(serve, infer, load, doctor, monitor, compare, plan, deploy, rollout),
):
    cli.add_command(command)


def main() -> None:
    """The console script."""
    run(sys.argv[1:])


def run(arguments: Sequence[str]) -> None:
    """Run one command. Foreseen failures are one line on stderr and exit code 1 or 2."""
    signal.signal(signal.SIGTERM, _terminate)
    interrupted = _hear_interrupts()
    try:
        cli.main(list(arguments), prog_name="tritonkit", standalone_mode=False)
    except NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"error: {_usage(error)}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if interrupted:  # foreign code, or an import that was cut short, made it something else
            click.echo("interrupted", err=True)
            sys.exit(130)
        if isinstance(error, OSError):  # no space, no permission
            click.echo(f"error: {_system(error)}", err=True)
            sys.exit(InputError.exit_code if error.errno in _OF_A_PATH else 1)
        if not isinstance(error, TritonkitError):
            raise
        click.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(error.exit_code)


def _usage(error: click.ClickException) -> str:
    """What was wrong on the command line, in one line, and where to read what is right."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None or message.endswith("?"):  # click's own remedy: did you mean another?
        return message
    return f"{message}; see: {context.command_path} --help"


def _system(error: OSError) -> str:
    """The file, and the system's words for what is wrong with it."""
    if error.filename is None or error.strerror is None:
        return describe(error)
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a file"
    said = f"{printable(name)}: {error.strerror}"
    return f"{said}; choose another path" if error.errno in _OF_A_PATH else said


# Whatever else it is, such as a full disk, is not of the path that was given.
_OF_A_PATH = {
    *(errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT),
    *(errno.ENOTDIR, errno.EPERM, errno.EROFS),
}


def _hear_interrupts() -> list[int]:
    """Have Ctrl-C noted in the list that is returned, besides what it does anyway."""
    heard: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):
        return heard  # it is ignored, as in a shell's background

    def hear(signum: int, frame: FrameType | None) -> None:
        heard.append(signum)
        before(signum, frame)

    signal.signal(signal.SIGINT, hear)
    return heard


def _terminate(signum: int, frame: FrameType | None) -> None:
    """SIGTERM ends the kit as an exception does, so that servers and temporary files end too."""
    sys.exit(128 + signum)
