"""A config under other settings."""

from dataclasses import replace

from tritonkit.plan.settings import Settings
from tritonkit.planning.variants import with_settings
from tritonkit.repository.config import ConfigTensor, DynamicBatching, ModelConfig
from tritonkit.repository.scheduling import QueuePolicy
from tritonkit.repository.warmup import WarmUp
from tritonkit.signature import data_type

FP32 = data_type("FP32")
CONFIG = ModelConfig(
    name="m",
    inputs=(ConfigTensor("x", FP32, (4,)),),
    outputs=(ConfigTensor("y", FP32, (4,)),),
    max_batch_size=8,
    dynamic_batching=DynamicBatching(100, (4,), preserve_ordering=True, queue=QueuePolicy(9)),
    warmup=(WarmUp("batch_8", 8, {}),),
    response_cache=True,
)
PLANNED = Settings(6, DynamicBatching(3000), instances=2, threads=3)


def test_what_a_plan_decides():
    """Rows, delay, instances and threads are the plan's."""
    found = with_settings(CONFIG, PLANNED)
    assert found.dynamic_batching is not None
    assert found.dynamic_batching.max_queue_delay_us == 3000
    assert (found.max_batch_size, found.instances, found.intra_op_threads) == (6, 2, 3)


def test_what_it_does_not():
    """The order of answers, the queue's policy and all else are the user's."""
    found = with_settings(CONFIG, PLANNED)
    assert found.dynamic_batching is not None
    assert found.dynamic_batching.preserve_ordering and found.dynamic_batching.queue.max_queue_size
    assert found.response_cache and found.name == "m"


def test_preferred_sizes_go():
    """They are of another max_batch_size, and no plan has them."""
    found = with_settings(CONFIG, PLANNED)
    assert found.dynamic_batching is not None and not found.dynamic_batching.preferred_batch_sizes


def test_the_warm_up_fits():
    """A warm-up of more rows than the model takes would fail its load."""
    assert [run.batch_size for run in with_settings(CONFIG, PLANNED).warmup] == [6]


def test_without_batching():
    """The scheduler goes, whatever it was."""
    assert with_settings(CONFIG, Settings(8, None)).dynamic_batching is None


def test_batching_where_there_was_none():
    """With the plan's delay."""
    plain = replace(CONFIG, dynamic_batching=None)
    assert with_settings(plain, PLANNED).dynamic_batching == DynamicBatching(3000)
