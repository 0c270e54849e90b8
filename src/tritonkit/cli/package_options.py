"""The options of `tritonkit package`, under the headings of its help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_count = click.IntRange(min=0)
_positive = click.IntRange(min=1)
_file = click.Path(path_type=Path, dir_okay=False)


class GroupedCommand(click.Command):
    """Lists its options under the headings that they were declared with."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            line = parameter.get_help_record(ctx)
            if line is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "heading", "Help"), []).append(line)
        for heading, lines in sections.items():
            with formatter.section(heading):
                formatter.write_dl(lines)


class _Option(click.Option):
    def __init__(self, *arguments: Any, heading: str, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.heading = heading


def _option(*names: str, **keywords: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return names, keywords


_OPTIONS = {
    "Repository": [
        _option("--name", help="The model's name; the default is the folder's or file's."),
        _option(
            "--repository",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("model_repository"),
            show_default=True,
        ),
        _option(
            "--version",
            type=_positive,
            metavar="N",
            help="Version to write or replace; the default is the next free one.",
        ),
        _option(
            "--version-policy",
            metavar="POLICY",
            help="Serve latest, latest:N, all, or these: 1,3.  [default: latest]",
        ),
        _option(
            "--config", type=_file, help="More of a config.pbtxt, for what has no option here."
        ),
        _option("--force", is_flag=True, help="Package even what the check refuses."),
    ],
    "Batching": [
        _option(
            "--max-batch-size",
            type=_count,
            metavar="N",
            help="Rows; 0 serves unbatched.  [default: what was proved, up to 32]",
        ),
        _option("--no-batching", is_flag=True, help="Requests never share a run."),
        _option(
            "--max-queue-delay-us",
            type=_count,
            metavar="N",
            default=0,
            show_default=True,
            help="How long a request may wait for others to share its batch.",
        ),
        _option(
            "--preferred-batch-size",
            type=_positive,
            metavar="N",
            multiple=True,
            help="May be repeated. Not advised for ONNX models.",
        ),
        _option("--preserve-ordering", is_flag=True, help="Answers in the order of the requests."),
    ],
    "Queue": [
        _option(
            "--max-queue-size",
            type=_count,
            metavar="N",
            default=0,
            help="Reject requests beyond so many.",
        ),
        _option(
            "--queue-timeout-us",
            type=_count,
            metavar="N",
            default=0,
            help="How long one may wait there.",
        ),
        _option(
            "--queue-timeout-action",
            type=click.Choice(["reject", "delay"]),
            default="reject",
            show_default=True,
            help="Then: reject it, or put it behind all others.",
        ),
        _option(
            "--allow-timeout-override", is_flag=True, help="A request may ask for less than that."
        ),
        _option(
            "--priority-levels",
            type=_positive,
            metavar="N",
            help="So many queues; level 1 goes first.",
        ),
        _option(
            "--default-priority",
            type=_positive,
            metavar="N",
            help="Of requests that name none; the last level.",
        ),
        _option(
            "--priority-queue",
            multiple=True,
            metavar="LEVEL:SETTING=VALUE[,…]",
            help="One level's own size, timeout_us, action, override; e.g. 2:size=8,action=delay.",
        ),
    ],
    "Execution": [
        _option("--instances", type=_positive, metavar="N", default=1, show_default=True),
        _option("--instance-kind", type=click.Choice(["cpu", "gpu"]), help="[default: cpu]"),
        _option(
            "--gpu",
            type=_count,
            metavar="N",
            multiple=True,
            help="Id of a GPU to use; all if none.",
        ),
        _option(
            "--threads",
            type=_positive,
            metavar="N",
            help="Intra-op threads of each instance; the default is this machine's CPUs.",
        ),
        _option("--inter-op-threads", type=_positive, metavar="N", default=1, show_default=True),
        _option("--execution-mode", type=click.Choice(["sequential", "parallel"])),
        _option(
            "--graph-level",
            type=click.Choice(["all", "extended", "basic", "off"]),
            default="all",
            show_default=True,
            help="How far ONNX Runtime optimizes the graph.",
        ),
        _option("--mem-arena/--no-mem-arena", default=None, help="Keep memory between runs."),
        _option("--mem-pattern/--no-mem-pattern", default=None, help="Plan memory beforehand."),
        _option("--arena-shrinkage", metavar="DEVICES", help="Give it back: cpu:0, gpu:0 or both."),
        _option(
            "--accelerator",
            multiple=True,
            metavar="NAME[:KEY=VALUE]",
            help="tensorrt, cuda or openvino; repeat it for each parameter.",
        ),
    ],
    "Answers": [
        _option(
            "--labels",
            multiple=True,
            metavar="[OUTPUT=]FILE",
            help="Names of an output's elements, one a line.",
        ),
        _option(
            "--response-cache",
            is_flag=True,
            help="Needs serve --response-cache-mb, or a server with --cache-config.",
        ),
    ],
    "Warm-up": [
        _option(
            "--warm-up-batch-size",
            type=_positive,
            metavar="N",
            multiple=True,
            help="May be repeated.  [default: 1, half the most, the most]",
        ),
        _option("--no-warm-up", is_flag=True),
        _option(
            "--warm-up-payloads",
            type=_file,
            help="Real requests, a payloads.npz; otherwise random floats and zeros.",
        ),
    ],
    "Sequences, for stateful models": [
        _option("--sequence", type=click.Choice(["direct", "oldest"]), help="The strategy."),
        _option(
            "--control",
            multiple=True,
            metavar="KIND=INPUT",
            help="An input that Triton fills in: start, ready, end or corrid.",
        ),
        _option(
            "--state",
            multiple=True,
            metavar="INPUT=OUTPUT",
            help="An output that becomes an input of the next request; it begins with zeros.",
        ),
        _option(
            "--initial-state",
            multiple=True,
            metavar="INPUT=FILE.npy",
            help="Begin with this instead, without a batch.",
        ),
        _option(
            "--max-sequence-idle-us",
            type=_count,
            metavar="N",
            default=0,
            help="[default: a second]",
        ),
        _option(
            "--max-candidate-sequences", type=_positive, metavar="N", help="Of the strategy oldest."
        ),
        _option(
            "--minimum-slot-utilization",
            type=click.FloatRange(0, 1),
            metavar="0…1",
            help="Of the strategy direct.",
        ),
    ],
    "Ensembles": [
        _option(
            "--step",
            multiple=True,
            metavar="MODEL",
            help="A model of the repository; repeat it in the order in which they run.",
        ),
        _option(
            "--map",
            multiple=True,
            metavar="STEP.OUTPUT=STEP.INPUT",
            help="Join what has not the same name, or name an input or output: text=STEP.INPUT.",
        ),
    ],
}


def all_options(command: _Command) -> _Command:
    """Declare every option, under its heading."""
    declared = [
        (heading, names, keywords)
        for heading, options in _OPTIONS.items()
        for names, keywords in options
    ]
    for heading, names, keywords in reversed(declared):
        command = click.option(*names, cls=_Option, heading=heading, **keywords)(command)
    return command
