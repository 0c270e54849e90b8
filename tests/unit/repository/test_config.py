"""ModelConfig: what it refuses, and the healthy twin of it that it takes."""

from dataclasses import replace

import pytest

from tritonkit.errors import RepositoryError
from tritonkit.repository.config import ConfigTensor, DynamicBatching, ModelConfig
from tritonkit.repository.execution import Accelerator, Execution, InstanceKind
from tritonkit.repository.scheduling import (
    Control,
    ControlKind,
    Direct,
    InitialState,
    Oldest,
    Priorities,
    QueuePolicy,
    SequenceBatching,
    StateTensor,
    TimeoutAction,
)
from tritonkit.repository.warmup import WarmUp, WarmUpInput
from tritonkit.signature import data_type

FP32 = data_type("FP32")
GOOD = ModelConfig(
    name="m",
    inputs=(ConfigTensor("x", FP32, (4,)),),
    outputs=(ConfigTensor("y", FP32, (4,)),),
    max_batch_size=8,
)


@pytest.mark.parametrize("name", ["", "a/b", "/", ".", "..", ".hidden"])
def test_name_that_is_no_folder(name):
    """A name that is not one visible folder is refused."""
    with pytest.raises(RepositoryError, match=r"a model name must be a plain folder name"):
        replace(GOOD, name=name)


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "\udcff", "tab\t"])
def test_name_that_cannot_be_printed(name):
    """A name with control characters or foreign bytes is refused, in one printable line."""
    with pytest.raises(RepositoryError, match="a model name must be printable") as caught:
        replace(GOOD, name=name)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["a b", " a", "a;b", "a'b", 'a"b', "a$(b)", "a&b", "a*", "~a", "a%b"]
)
def test_name_for_a_shell(name):
    """A name that a shell would not take as it is, is refused in one line."""
    with pytest.raises(
        RepositoryError,
        match=r"a model name must be of the letters a to z, digits and \. _ - \+ = : , @ alone$",
    ):
        replace(GOOD, name=name)


@pytest.mark.parametrize("name", ["m", "v1.2", "-x", "a@b+c=d:e,f"])
def test_name_that_is_a_folder(name):
    """Any other folder name is taken."""
    assert replace(GOOD, name=name).name == name


@pytest.mark.parametrize(
    ("field", "value", "least"),
    [
        ("max_batch_size", -1, 0),
        ("max_batch_size", 2**31, 0),
        ("instances", 0, 1),
        ("instances", 2**31, 1),
        ("intra_op_threads", 0, 1),
        ("intra_op_threads", -2, 1),
        ("inter_op_threads", 0, 1),
    ],
)
def test_number_out_of_range(field, value, least):
    """A count that the schema cannot hold, or that makes no sense, is named with its bounds."""
    with pytest.raises(
        RepositoryError,
        match=f"^model 'm': {field} is {value}; it must be {least} to 2147483647$",
    ):
        replace(GOOD, **{field: value})


def test_largest_numbers():
    """The largest numbers of the schema are taken."""
    most = 2**31 - 1
    config = replace(GOOD, max_batch_size=most, instances=most, intra_op_threads=most)
    assert config.instances == most


def test_batching_without_batches():
    """A scheduler for a model that takes no batches is refused."""
    with pytest.raises(
        RepositoryError, match=r"^model 'm': dynamic batching needs a max_batch_size of 1 or more$"
    ):
        replace(GOOD, max_batch_size=0, dynamic_batching=DynamicBatching())


@pytest.mark.parametrize("delay", [-1, 2**31])
def test_delay_out_of_range(delay):
    """A queue delay below nothing or above half an hour is refused."""
    with pytest.raises(RepositoryError, match=f"max_queue_delay_us is {delay}; it must be 0 to 2"):
        replace(GOOD, dynamic_batching=DynamicBatching(delay))


@pytest.mark.parametrize("size", [0, 9])
def test_preferred_size_out_of_range(size):
    """A preferred size that no batch can have is refused."""
    with pytest.raises(
        RepositoryError, match=f"^model 'm': preferred batch size {size} is not in 1..8$"
    ):
        replace(GOOD, dynamic_batching=DynamicBatching(0, (4, size)))


def test_no_preferred_sizes_unless_asked():
    """Dynamic batching by itself waits for no time and no size."""
    assert DynamicBatching() == DynamicBatching(0, ())


INT32 = data_type("INT32")
BOOL = data_type("BOOL")
STATE = StateTensor("h", "h_next", FP32, (2, -1), InitialState("zeros", (2, 3)))
CONTROL = Control(ControlKind.START, "start", BOOL)
SEQUENCES = SequenceBatching(Oldest(4, (8,), 100), 7, (CONTROL,), (STATE,))
LATE = QueuePolicy(default_timeout_us=5, timeout_action=TimeoutAction.DELAY)


def sequence(**changed: object) -> dict[str, object]:
    """The field of a stateful model whose sequences differ in this."""
    return {"sequence_batching": replace(SEQUENCES, **changed)}


def dynamic(**changed: object) -> dict[str, object]:
    """The field of a model with this dynamic batching."""
    return {"dynamic_batching": DynamicBatching(**changed)}


REFUSED = {
    "both schedulers": (
        {**dynamic(), **sequence()},
        "dynamic batching and sequence batching exclude each other",
    ),
    "cached sequences": (
        {"response_cache": True, **sequence()},
        "the response cache does not work with sequence batching",
    ),
    "default above the levels": (
        dynamic(priorities=Priorities(2, 3)),
        "the default priority is 3; it must be 1 to 2",
    ),
    "no default level": (
        dynamic(priorities=Priorities(2, 0)),
        "the default priority is 0; it must be 1 to 2",
    ),
    "no levels": (dynamic(priorities=Priorities(0, 0)), "priority levels is 0; it must be 1 to"),
    "policy of no level": (
        dynamic(priorities=Priorities(2, 1, {3: QueuePolicy()})),
        "there is a queue policy for priority 3; it must be 1 to 2",
    ),
    "ordered levels": (
        dynamic(preserve_ordering=True, priorities=Priorities(2, 1)),
        "preserve_ordering and several priority levels exclude each other",
    ),
    "ordered but delayed": (
        dynamic(preserve_ordering=True, queue=LATE),
        "preserve_ordering and the timeout action DELAY exclude each other",
    ),
    "ordered but one level delayed": (
        dynamic(preserve_ordering=True, priorities=Priorities(1, 1, {1: LATE})),
        "preserve_ordering and the timeout action DELAY exclude each other",
    ),
    "queue too long": (dynamic(queue=QueuePolicy(2**32)), "max_queue_size is 4294967296; it must"),
    "negative timeout": (
        dynamic(priorities=Priorities(1, 1, {1: QueuePolicy(0, -1)})),
        "default_timeout_us of priority 1 is -1; it must be 0 to",
    ),
    "gpus of the cpu": (
        {"execution": Execution(gpus=(0,))},
        "instances of KIND_CPU have no gpus, but [0] are given",
    ),
    "negative gpu": (
        {"execution": Execution(InstanceKind.GPU, (-1,))},
        "-1 is no id of a GPU",
    ),
    "unknown accelerator": (
        {"execution": Execution(accelerators=(Accelerator("rocket"),))},
        "there is no execution accelerator 'rocket'",
    ),
    "accelerator twice": (
        {"execution": Execution(accelerators=(Accelerator("cuda"),) * 2)},
        "the execution accelerator 'cuda' is there twice",
    ),
    "unknown parameter": (
        {"execution": Execution(accelerators=(Accelerator("tensorrt", {"speed": "1"}),))},
        "tensorrt has no parameter 'speed'",
    ),
    "unknown precision": (
        {"execution": Execution(accelerators=(Accelerator("tensorrt", {"precision_mode": "x"}),))},
        "precision_mode is 'x'; it must be one of FP32, FP16, BF16, INT8",
    ),
    "warm-up of no row": (
        {"warmup": (WarmUp("w", 0, {}),)},
        "warm-up batch size 0 is not in 1..8",
    ),
    "warm-up of too many": (
        {"warmup": (WarmUp("w", 9, {}),)},
        "warm-up batch size 9 is not in 1..8",
    ),
    "warm-up of batches that are none": (
        {"max_batch_size": 0, "warmup": (WarmUp("w", 2, {}),)},
        "warm-up batch size 2 is not in 1..1",
    ),
    "dynamic warm-up": (
        {"warmup": (WarmUp("w", 1, {"x": WarmUpInput(FP32, (-1,))}),)},
        "warm-up input 'x' has dims [-1]; give all sizes",
    ),
    "no newest version": ({"version_policy": 0}, "the version policy serves the newest 0"),
    "no version": ({"version_policy": ()}, "the version policy serves []"),
    "version 0": ({"version_policy": (1, 0)}, "the version policy serves [1, 0]"),
    "empty dims": (
        {"max_batch_size": 0, "outputs": (ConfigTensor("y", FP32, ()),)},
        "tensor 'y' has no dims; give it dims [1]",
    ),
    "a dimension of 0": (
        {"inputs": (ConfigTensor("x", FP32, (0,)),)},
        "tensor 'x' has a dimension of 0",
    ),
    "candidates of no number": (
        sequence(strategy=Oldest(-1)),
        "max_candidate_sequences is -1",
    ),
    "sequences preferred too large": (
        sequence(strategy=Oldest(0, (9,))),
        "preferred batch size 9 is not in 1..8",
    ),
    "slots above all": (
        sequence(strategy=Direct(0, 1.5)),
        "minimum_slot_utilization is 1.5; it must be 0 to 1",
    ),
    "same control twice": (
        sequence(controls=(CONTROL, replace(CONTROL, input="other"))),
        "'start' is there twice as control",
    ),
    "one input for two controls": (
        sequence(controls=(CONTROL, Control(ControlKind.END, "start", BOOL))),
        "'start' is there twice as input of a control or state",
    ),
    "state and control in one": (
        sequence(states=(replace(STATE, input="start"),)),
        "'start' is there twice as input of a control or state",
    ),
    "state output twice": (
        sequence(states=(STATE, replace(STATE, input="c"))),
        "'h_next' is there twice as output of a state",
    ),
    "control of a wrong type": (
        sequence(controls=(replace(CONTROL, dtype=data_type("INT64")),)),
        "control 'start' (start) is INT64; it must be one of INT32, FP32, BOOL",
    ),
    "corrid of a wrong type": (
        sequence(controls=(Control(ControlKind.CORRID, "id", FP32),)),
        "control 'corrid' (id) is FP32; it must be one of UINT64,",
    ),
    "control among the inputs": (
        sequence(controls=(replace(CONTROL, input="x"),)),
        "'x' is filled in by the sequence batching, so it is no input",
    ),
    "state among the inputs": (
        sequence(states=(replace(STATE, input="x"),)),
        "'x' is filled in by the sequence batching, so it is no input",
    ),
    "dynamic initial state": (
        sequence(states=(replace(STATE, initial=InitialState("i", (2, -1))),)),
        "the initial state of 'h' has dims [2, -1]; the state has [2, -1]",
    ),
    "initial state of another size": (
        sequence(states=(replace(STATE, initial=InitialState("i", (3, 3))),)),
        "the initial state of 'h' has dims [3, 3]; the state has [2, -1]",
    ),
    "nameless initial state": (
        sequence(states=(replace(STATE, initial=InitialState("", (2, 3))),)),
        "the initial state of 'h' must have a name",
    ),
    "growable in two buffers": (
        sequence(states=(replace(STATE, growable=True),)),
        "state 'h': growable memory needs one buffer for input and output",
    ),
}


@pytest.mark.parametrize(("fields", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(fields, words):
    """What Triton would not take is refused, in one line that names the model."""
    with pytest.raises(RepositoryError) as caught:
        replace(GOOD, **fields)
    message = str(caught.value)
    assert message.startswith(f"model 'm': {words}")
    assert "\n" not in message


TAKEN = {
    "one policy": dynamic(queue=LATE),
    "levels": dynamic(priorities=Priorities(2, 2, {1: LATE, 2: QueuePolicy(1)}), queue=LATE),
    "ordered": dynamic(
        preserve_ordering=True, queue=QueuePolicy(3, 5), priorities=Priorities(1, 1)
    ),
    "sequences": sequence(),
    "direct sequences": sequence(strategy=Direct(5, 0.5)),
    "growable": sequence(states=(replace(STATE, same_buffer=True, growable=True),)),
    "gpus": {"execution": Execution(InstanceKind.GPU, (0, 1))},
    "gpu or not": {"execution": Execution(InstanceKind.AUTO, (0,))},
    "tensorrt": {
        "execution": Execution(
            InstanceKind.GPU,
            accelerators=(
                Accelerator("tensorrt", {"precision_mode": "FP16", "trt_dla_enable": "1"}),
                Accelerator("cuda"),
            ),
        )
    },
    "warm-up of the most": {"warmup": (WarmUp("w", 8, {"x": WarmUpInput(FP32, (4,))}),)},
    "cache": {"response_cache": True, **dynamic()},
    "versions": {"version_policy": (3, 1)},
    "newest versions": {"version_policy": 2},
    "a batch and no more": {"outputs": (ConfigTensor("y", FP32, ()),)},
}


@pytest.mark.parametrize("fields", TAKEN.values(), ids=TAKEN)
def test_taken(fields):
    """The healthy twin of what is refused is taken."""
    assert replace(GOOD, **fields) != GOOD
