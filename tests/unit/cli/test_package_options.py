"""The options of `tritonkit package`: what they make, and what they refuse together."""

from pathlib import Path

import click
import pytest

from tritonkit.cli.package import package
from tritonkit.cli.package_settings import (
    given_options,
    read_maps,
    read_settings,
    require_ensemble_only,
)
from tritonkit.errors import InputError
from tritonkit.repository.execution import Accelerator, Execution, GraphLevel, InstanceKind
from tritonkit.repository.package import Settings
from tritonkit.repository.scheduling import (
    ControlKind,
    Direct,
    DynamicBatching,
    Oldest,
    Priorities,
    QueuePolicy,
    TimeoutAction,
)
from tritonkit.repository.stateful import Sequences


def settings(*arguments: str) -> Settings:
    """What the command line makes, on a machine of 2 CPUs."""
    with package.make_context("package", ["model", *arguments]) as context:
        return read_settings(context.params, given_options(context), 2)


def test_nothing_asked():
    """Without options there is batching without delay, one instance, and this machine's CPUs."""
    assert settings() == Settings(threads=2)


MADE = {
    "batching": (
        "--max-batch-size 8 --max-queue-delay-us 5 --preferred-batch-size 2"
        " --preferred-batch-size 4 --preserve-ordering",
        Settings(8, DynamicBatching(5, (2, 4), preserve_ordering=True), threads=2),
    ),
    "no batching": ("--no-batching", Settings(scheduler=None, threads=2)),
    "queue": (
        "--max-queue-size 9 --queue-timeout-us 7 --queue-timeout-action delay"
        " --allow-timeout-override",
        Settings(
            scheduler=DynamicBatching(queue=QueuePolicy(9, 7, TimeoutAction.DELAY, True)), threads=2
        ),
    ),
    "priorities": (
        "--priority-levels 3 --default-priority 2 --priority-queue 1:size=4"
        " --priority-queue 3:timeout_us=5,action=delay,override=yes",
        Settings(
            scheduler=DynamicBatching(
                priorities=Priorities(
                    3, 2, {1: QueuePolicy(4), 3: QueuePolicy(0, 5, TimeoutAction.DELAY, True)}
                )
            ),
            threads=2,
        ),
    ),
    "the last priority": (
        "--priority-levels 3",
        Settings(scheduler=DynamicBatching(priorities=Priorities(3, 3)), threads=2),
    ),
    "execution": (
        "--instances 2 --threads 5 --inter-op-threads 3 --execution-mode parallel --graph-level off"
        " --no-mem-arena --mem-pattern --arena-shrinkage cpu:0",
        Settings(
            instances=2,
            threads=5,
            inter_op_threads=3,
            execution=Execution(
                parallel=True,
                graph_level=GraphLevel.OFF,
                mem_arena=False,
                mem_pattern=True,
                arena_shrinkage="cpu:0",
            ),
        ),
    ),
    "gpus": (
        "--gpu 0 --gpu 1 --accelerator tensorrt:precision_mode=FP16 --accelerator cuda"
        " --accelerator tensorrt:trt_profile_min_shapes=x:1,y:2x3",
        Settings(
            threads=2,
            execution=Execution(
                InstanceKind.GPU,
                (0, 1),
                accelerators=(
                    Accelerator(
                        "tensorrt",
                        {"precision_mode": "FP16", "trt_profile_min_shapes": "x:1,y:2x3"},
                    ),
                    Accelerator("cuda"),
                ),
            ),
        ),
    ),
    "all gpus": (
        "--instance-kind gpu",
        Settings(threads=2, execution=Execution(InstanceKind.GPU)),
    ),
    "answers": (
        "--labels a=x=y.txt --labels b=z.txt --response-cache",
        Settings(
            threads=2,
            labels={"a=x": Path("y.txt"), "b": Path("z.txt")},
            response_cache=True,
        ),
    ),
    "one output": ("--labels l.txt", Settings(threads=2, labels={"": Path("l.txt")})),
    "warm-up": (
        "--warm-up-batch-size 1 --warm-up-batch-size 4 --warm-up-payloads p.npz",
        Settings(threads=2, warmup_batch_sizes=(1, 4), warmup_payloads=Path("p.npz")),
    ),
    "no warm-up": ("--no-warm-up", Settings(threads=2, warmup_batch_sizes=())),
    "the newest": ("--version-policy latest", Settings(threads=2, version_policy=1)),
    "the newest two": ("--version-policy latest:2", Settings(threads=2, version_policy=2)),
    "all versions": ("--version-policy all", Settings(threads=2, version_policy="all")),
    "these versions": ("--version-policy 1,3", Settings(threads=2, version_policy=(1, 3))),
    "more": ("--config more.pbtxt", Settings(threads=2, extra=Path("more.pbtxt"))),
    "direct sequences": (
        "--sequence direct --control start=S --control corrid=ID --state h=h_next --state c=d=e"
        " --initial-state h=h.npy --max-sequence-idle-us 9 --max-queue-delay-us 5"
        " --minimum-slot-utilization 0.5",
        Settings(
            threads=2,
            scheduler=Sequences(
                Direct(5, 0.5),
                9,
                {ControlKind.START: "S", ControlKind.CORRID: "ID"},
                {"h": "h_next", "c": "d=e"},
                {"h": Path("h.npy")},
            ),
        ),
    ),
    "oldest sequences": (
        "--sequence oldest --max-candidate-sequences 4 --preferred-batch-size 2"
        " --max-queue-delay-us 5 --preserve-ordering",
        Settings(threads=2, scheduler=Sequences(Oldest(4, (2,), 5, True))),
    ),
    "sequences by their state": (
        "--state h=g",
        Settings(threads=2, scheduler=Sequences(states={"h": "g"})),
    ),
}


@pytest.mark.parametrize(("line", "made"), MADE.values(), ids=MADE)
def test_made(line, made):
    """What a command line asks for is what its settings say."""
    assert settings(*line.split()) == made


REFUSED = {
    "delay unbatched": (
        "--no-batching --max-queue-delay-us 5",
        "--max-queue-delay-us does not go with that: --no-batching leaves the batcher out",
    ),
    "preferred unbatched": (
        "--no-batching --preferred-batch-size 5",
        "--preferred-batch-size does not go with that",
    ),
    "queue unbatched": (
        "--no-batching --max-queue-size 5",
        "--max-queue-size does not go with that",
    ),
    "dynamic sequences": (
        "--state h=g --max-queue-size 5",
        "--max-queue-size does not go with that: a stateful model has a sequence batcher",
    ),
    "unbatched sequences": (
        "--sequence direct --no-batching",
        "--no-batching does not go with that",
    ),
    "direct candidates": (
        "--sequence direct --max-candidate-sequences 5",
        "--max-candidate-sequences does not go with that: only the strategy oldest",
    ),
    "direct sizes": (
        "--state h=g --preferred-batch-size 5",
        "--preferred-batch-size does not go with that: only the strategy oldest",
    ),
    "old slots": (
        "--sequence oldest --minimum-slot-utilization 0.5",
        "--minimum-slot-utilization does not go with that: only the strategy direct",
    ),
    "a delay of nothing": (
        "--sequence direct --max-queue-delay-us 5",
        "a queue delay does nothing to direct sequences without --minimum-slot-utilization",
    ),
    "a priority of none": (
        "--default-priority 1",
        "--default-priority does not go with that: there are no --priority-levels",
    ),
    "a queue of no priority": (
        "--priority-queue 1:size=5",
        "--priority-queue does not go with that: there are no --priority-levels",
    ),
    "warm-up and none": (
        "--no-warm-up --warm-up-batch-size 5",
        "--no-warm-up and --warm-up-batch-size exclude each other",
    ),
    "no level": ("--priority-levels 2 --priority-queue size=5", "'size=5' is no whole number"),
    "level twice": (
        "--priority-levels 2 --priority-queue 1:size=5 --priority-queue 1:action=delay",
        "--priority-queue 1 is there twice; write all in one",
    ),
    "no setting": (
        "--priority-levels 2 --priority-queue 1:length=5",
        "--priority-queue: no setting 'length'; there are size, timeout_us, action, override",
    ),
    "no value": (
        "--priority-levels 2 --priority-queue 1:size",
        "--priority-queue 'size': expected NAME=VALUE",
    ),
    "no action": (
        "--priority-levels 2 --priority-queue 1:action=drop",
        "--priority-queue: action is reject or delay, not 'drop'",
    ),
    "no number": (
        "--priority-levels 2 --priority-queue 1:size=-5",
        "--priority-queue size: '-5' is no whole number",
    ),
    "no control": ("--control begin=x", "--control: no kind 'begin'; there are start, ready, end"),
    "control twice": ("--control end=x --control end=y", "--control end is there twice"),
    "state without output": ("--state h", "--state 'h': expected NAME=VALUE"),
    "no parameter": ("--accelerator cuda:x", "--accelerator 'x': expected NAME=VALUE"),
    "parameter twice": (
        "--accelerator cuda:x=1 --accelerator cuda:x=2",
        "--accelerator cuda: 'x' is there twice",
    ),
    "labels twice": ("--labels a=x --labels a=y", "say of which output each file is"),
    "labels of all and one": ("--labels a=x --labels y", "say of which output each file is"),
    "no policy": ("--version-policy newest", "--version-policy: 'newest' is no whole number"),
    "no version": ("--version-policy 1,,2", "--version-policy: '' is no whole number"),
    "half a policy": ("--version-policy latest:x", "latest: 'x' is no whole number"),
}


@pytest.mark.parametrize(("line", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(line, words):
    """What contradicts itself, or is no value, is refused in one line that names the option."""
    with pytest.raises(InputError) as caught:
        settings(*line.split())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unprintable():
    """A name that would break the line is refused in one."""
    with pytest.raises(InputError, match=r"^--map 'a\.y\\n=b': a name must be printable$"):
        read_maps(["a.y\n=b"])


def test_maps():
    """A map has two sides."""
    assert read_maps(["a.x=b.y", "t=a.z"]) == [("a.x", "b.y"), ("t", "a.z")]
    with pytest.raises(InputError, match=r"--map 'a\.x': expected NAME=VALUE"):
        read_maps(["a.x"])


@pytest.mark.parametrize(
    ("name", "what"), [("threads", "--threads"), ("exported", "EXPORTED"), ("no_batching", "--no-")]
)
def test_ensemble_only(name, what):
    """What an ensemble has no use for is refused."""
    with pytest.raises(InputError, match=f"made of --step alone; give {what}"):
        require_ensemble_only({"step", "name", name})


def test_help_is_grouped():
    """Every option stands in the help, under a heading, and once."""
    with click.Context(package, info_name="package") as context:
        lines = package.get_help(context).splitlines()
    for parameter in package.params:
        if isinstance(parameter, click.Option):
            name = parameter.opts[0]
            found = [line for line in lines if line.strip().split(" ")[0].rstrip(",") == name]
            assert len(found) == 1, name
    headings = [line for line in lines if line and not line.startswith(" ")]
    assert len(headings) >= 9
