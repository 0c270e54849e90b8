"""The arms: the same model, differing in threads, instances and scheduler only."""

from dataclasses import replace

import pytest

from tritonkit.bench.arms import ARMS, arm_config, arm_server, candidates, require_comparable
from tritonkit.errors import InputError
from tritonkit.repository.config import ConfigTensor, DynamicBatching, ModelConfig
from tritonkit.repository.layout import read_config, write_model
from tritonkit.repository.pbtxt import decode, encode
from tritonkit.repository.warmup import synthetic_warmup
from tritonkit.server.baseline import OrtBaseline
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.signature import data_type

FP32 = data_type("FP32")
PACKAGED = ModelConfig(
    name="m",
    inputs=(ConfigTensor("x", FP32, (4,)),),
    outputs=(ConfigTensor("y", FP32, (4,)),),
    max_batch_size=8,
    intra_op_threads=7,
    instances=7,
    dynamic_batching=DynamicBatching(300, (4,)),
    warmup=synthetic_warmup((ConfigTensor("x", FP32, (4,)),), (1, 8)),
)


def test_order():
    """The arms go from the simplest to the most involved."""
    assert ARMS == ("ort_baseline", "ort_batcher", "triton_unbatched", "triton_batched")


@pytest.mark.parametrize("arm", ARMS)
def test_only_these_differ(arm):
    """Threads, instances and scheduler are the arm's own; all else is as packaged."""
    config = arm_config(arm, PACKAGED, 3, 2)
    assert (config.intra_op_threads, config.instances) == (3, 2)
    assert (
        replace(config, intra_op_threads=7, instances=7, dynamic_batching=PACKAGED.dynamic_batching)
        == PACKAGED
    )


def test_scheduler():
    """Only the batching arms have a scheduler, the packaged one."""
    batching = DynamicBatching(300, (4,))
    assert [arm_config(arm, PACKAGED, 1, 1).dynamic_batching for arm in ARMS] == [
        None,
        batching,
        None,
        batching,
    ]


def test_scheduler_of_an_unbatched_package():
    """A model that was packaged without a scheduler gets the default one in the batched arm."""
    packaged = replace(PACKAGED, dynamic_batching=None)
    assert arm_config("triton_batched", packaged, 1, 1).dynamic_batching == DynamicBatching()


def test_unbatched_text():
    """What the unbatched arm's Triton reads has no trace of a scheduler."""
    packaged = decode(encode(PACKAGED), "here")
    assert "dynamic_batching" in packaged.base
    assert "dynamic_batching" not in encode(arm_config("triton_unbatched", packaged, 1, 1))


@pytest.mark.parametrize("size", [0, 1])
def test_nothing_to_batch(size):
    """A model that takes no two rows at a time is refused with the remedy."""
    config = replace(PACKAGED, max_batch_size=size, dynamic_batching=None, warmup=())
    with pytest.raises(
        InputError, match=f"^model 'm' has max_batch_size {size}, .* --max-batch-size 2 or more$"
    ):
        require_comparable(config)


def test_batchable():
    """Two rows at a time are enough."""
    assert require_comparable(replace(PACKAGED, max_batch_size=8)) is None


def test_strings():
    """A string tensor is refused before anything starts, because the embedded Triton would."""
    text = ConfigTensor("text", data_type("BYTES"), (1,))
    with pytest.raises(InputError, match="'text' is a string tensor"):
        require_comparable(replace(PACKAGED, inputs=(text,)))


@pytest.mark.parametrize(
    ("arm", "kind"),
    [
        ("ort_baseline", OrtBaseline),
        ("triton_unbatched", EmbeddedTriton),
        ("triton_batched", EmbeddedTriton),
    ],
)
def test_server(tmp_path, arm, kind):
    """Each arm has its kind of server, on a variant that leaves the packaged model alone."""
    (tmp_path / "model").write_text("onnx")
    repository = tmp_path / "repo"
    write_model(repository, PACKAGED, {"model.onnx": tmp_path / "model"})
    config = arm_config(arm, read_config(repository, "m"), 3, 2)
    server = arm_server(arm, repository, config, tmp_path / "work", tmp_path / "log", (0,))
    assert isinstance(server, kind)
    served = read_config(tmp_path / "work", "m")
    assert (served.intra_op_threads, served.instances) == (3, 2)
    assert (served.dynamic_batching is not None) == (arm == "triton_batched")
    assert replace(read_config(repository, "m"), base="") == PACKAGED


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 16])
def test_candidates(arm, cpus):
    """Candidates differ from each other, and have one run on all CPUs, many on one, and one."""
    found = candidates(arm, cpus)
    assert len(set(found)) == len(found)
    assert {(cpus, 1), (1, cpus), (1, 1)} <= set(found)
    assert all(threads <= cpus for threads, _ in found)


def test_candidates_half_and_half():
    """From four CPUs on, two runs of half the CPUs each are tried too."""
    assert (2, 2) in candidates("triton_batched", 4)
    assert (8, 2) in candidates("triton_unbatched", 16)
    assert candidates("triton_batched", 2) == ((2, 1), (1, 2), (1, 1))


def test_candidates_of_the_baseline():
    """The baseline, whose runs share a session, also overlaps them at full width."""
    assert (4, 2) in candidates("ort_baseline", 4)
    assert (4, 2) not in candidates("triton_batched", 4)
