"""ModelConfig: what it refuses, and what is made of a signature."""

from dataclasses import replace

import pytest

from tritonkit.errors import ModelError, RepositoryError
from tritonkit.repository.config import (
    ConfigTensor,
    DynamicBatching,
    ModelConfig,
    config_for,
)
from tritonkit.signature import ModelSignature, TensorSpec, data_type

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


@pytest.mark.parametrize("name", ["m", "Größe", "a b", "v1.2", "-x"])
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


@pytest.mark.parametrize(("most", "size"), [(8, 0), (8, 9), (0, 2)])
def test_warmup_size_out_of_range(most, size):
    """A warm-up with more rows than the model takes is refused."""
    with pytest.raises(
        RepositoryError, match=f"^model 'm': warm-up batch size {size} is not in 1..{max(1, most)}$"
    ):
        replace(GOOD, max_batch_size=most, warmup_batch_sizes=(1, size))


def test_no_preferred_sizes_unless_asked():
    """Dynamic batching by itself waits for no time and no size."""
    assert DynamicBatching() == DynamicBatching(0, ())


def made(signature: ModelSignature, max_batch_size: int) -> ModelConfig:
    """config_for with everything else fixed."""
    return config_for(
        "m",
        signature,
        max_batch_size=max_batch_size,
        instances=2,
        intra_op_threads=3,
        dynamic_batching=None,
    )


BATCHED = ModelSignature(
    (
        TensorSpec("ids", data_type("INT64"), ("batch", "sequence")),
        TensorSpec("x", FP32, ("b", 4)),
    ),
    (TensorSpec("y", FP32, ("batch",)), TensorSpec("z", FP32, ("batch", 2, 3))),
)


def test_tensors_of_a_batched_model():
    """All tensors are there in order, without their batch axis, dynamic dimensions as -1."""
    config = made(BATCHED, 8)
    assert config.inputs == (
        ConfigTensor("ids", data_type("INT64"), (-1,)),
        ConfigTensor("x", FP32, (4,)),
    )
    assert config.outputs == (ConfigTensor("y", FP32, ()), ConfigTensor("z", FP32, (2, 3)))
    assert (config.instances, config.intra_op_threads) == (2, 3)


def test_tensors_of_an_unbatched_model():
    """With a max_batch_size of 0 the first dimension is a dimension like the others."""
    assert [t.dims for t in made(BATCHED, 0).inputs] == [(-1, -1), (-1, 4)]


@pytest.mark.parametrize(
    ("most", "sizes"), [(0, (1,)), (1, (1,)), (2, (1, 2)), (3, (1, 3)), (32, (1, 16, 32))]
)
def test_warmup_sizes(most, sizes):
    """A model is warmed up with one row, half the most and the most."""
    assert made(BATCHED, most).warmup_batch_sizes == sizes


def test_no_batch_axis():
    """A tensor without a batch axis is named, with the remedy."""
    signature = ModelSignature(
        (TensorSpec("x", FP32, ("batch", 4)),), (TensorSpec("y", FP32, (1, 4)),)
    )
    with pytest.raises(
        ModelError, match=r"^model 'm': tensor y:FP32\[1,4\] has no batch axis .*; export the model"
    ):
        made(signature, 8)


def test_no_batch_axis_needed():
    """Without batching a model needs no batch axis."""
    signature = ModelSignature((TensorSpec("x", FP32, (1, 4)),), (TensorSpec("y", FP32, (1, 4)),))
    assert made(signature, 0).outputs[0].dims == (1, 4)


def test_scalar():
    """A scalar, which Triton has not, is named with the remedy."""
    signature = ModelSignature((TensorSpec("x", FP32, (4,)),), (TensorSpec("y", FP32, ()),))
    with pytest.raises(ModelError, match=r"tensor y:FP32\[\] is a scalar, which Triton cannot"):
        made(signature, 0)
