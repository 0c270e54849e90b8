"""What a server says of a model: read, shown, and refused if malformed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonkit.client.spec import ModelSpec, read_spec
from tritonkit.errors import InputError, ModelError, ProtocolError, TensorError

METADATA = {
    "name": "ranker",
    "versions": ["1", "2"],
    "platform": "onnxruntime_onnx",
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [-1, 512]},
        {"name": "mask", "datatype": "BOOL", "shape": [-1, -1]},
    ],
    "outputs": [{"name": "score", "datatype": "FP32", "shape": [-1, 1]}],
}
CONFIG = {
    "name": "ranker",
    "max_batch_size": 64,
    "input": [{"name": "x", "optional": False}, {"name": "mask", "optional": True}],
}
FIXED = [{"name": "x", "datatype": "FP32", "shape": [8, 512]}]
X = METADATA["inputs"][0]


def read(metadata: dict = {}, config: dict = {}, version: str = "") -> ModelSpec:  # noqa: B006
    """The spec of METADATA and CONFIG, with changes."""
    return read_spec({**METADATA, **metadata}, {**CONFIG, **config}, version)


def test_all_of_it():
    """Names, versions, shapes with a name for each dynamic dimension, and the batch size."""
    spec = read(version="2")
    assert (spec.name, spec.version, spec.versions) == ("ranker", "2", ("1", "2"))
    assert (spec.platform, spec.max_batch_size) == ("onnxruntime_onnx", 64)
    assert spec.inputs["x"].shape == ("dim_0", 512)
    assert spec.outputs["score"].dtype.name == "FP32"
    assert spec.batches
    assert not spec.decoupled


def test_optional_inputs():
    """Inputs that the config calls optional are not required."""
    assert read().optional == {"mask"}
    assert read().required == ("x",)


@pytest.mark.parametrize("policy", [{}, {"decoupled": False}, {"decoupled": True}])
def test_decoupled(policy):
    """The transaction policy says whether a model is decoupled; usually there is none."""
    spec = read(config={"model_transaction_policy": policy})
    assert spec.decoupled == policy.get("decoupled", False)


def test_no_batching():
    """Without a batch size the shapes are the model's, and may be fixed."""
    spec = read({"inputs": FIXED}, {"max_batch_size": 0})
    assert not spec.batches
    assert spec.inputs["x"].shape == (8, 512)


def test_shortest_answers():
    """Keys that are empty may be missing, as protobuf leaves them out."""
    spec = read_spec({"name": "m", "inputs": [], "outputs": []}, {}, "")
    assert str(spec) == "m: nothing -> nothing, does not batch"


def test_one_line():
    """A spec is shown in one line."""
    assert str(read({"inputs": [X]})) == (
        "ranker: x:FP32[dim_0,512] -> score:FP32[dim_0,1], up to 64 rows a request"
    )
    changed = {"max_batch_size": 0, "model_transaction_policy": {"decoupled": True}}
    assert str(read(config=changed, version="2")) == (
        "ranker/2: x:FP32[dim_0,512], mask:BOOL[dim_0,dim_1] (optional)"
        " -> score:FP32[dim_0,1], does not batch, decoupled"
    )


@pytest.mark.parametrize(
    ("metadata", "config"),
    [
        ({"name": None}, {}),
        ({"inputs": None}, {}),
        ({"inputs": "x"}, {}),
        ({"inputs": [None]}, {}),
        ({"inputs": [{**X, "name": 3}]}, {}),
        ({"inputs": [{"name": "x", "datatype": "FP32"}]}, {}),
        ({"inputs": [{**X, "shape": ["-1", 2]}]}, {}),
        ({"inputs": [{**X, "shape": [-1, 2.5]}]}, {}),
        ({"inputs": [{**X, "datatype": 11}]}, {}),
        ({"inputs": [X, X]}, {}),
        ({"inputs": FIXED}, {}),
        ({"versions": [1]}, {}),
        ({}, {"max_batch_size": "64"}),
        ({}, {"max_batch_size": None}),
        ({}, {"input": [None]}),
        ({}, {"input": [{"optional": True}]}),
        ({}, {"model_transaction_policy": []}),
    ],
)
def test_malformed(metadata, config):
    """An answer that is no model's metadata or config is a ProtocolError."""
    with pytest.raises(ProtocolError, match=r"^model metadata: .*is this a Triton") as error:
        read(metadata, config)
    assert error.value.kind == "protocol"


@pytest.mark.parametrize("datatype", ["BF16", "FP8", ""])
def test_dtype_that_is_not_carried(datatype):
    """A dtype that the table does not have is refused with the tensor's name."""
    with pytest.raises(ModelError, match=rf"^ranker: tensor 'x': dtype '{datatype}' is not .* use"):
        read({"inputs": [{**X, "datatype": datatype}]})


def test_outputs_that_are_asked_for():
    """An output that the model does not have is refused, and the likely one is named."""
    read().require_outputs(["score"])
    words = r"^ranker: the model has no output 'scores'; did you mean 'score'\? It has score:FP32"
    with pytest.raises(TensorError, match=words):
        read().require_outputs(["score", "scores"])


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "optional", "decoupled"]), inner
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from([*METADATA]), anything),
    st.dictionaries(st.sampled_from([*CONFIG, "model_transaction_policy"]), anything),
)
def test_anything(metadata, config):
    """Whatever a server answers, what is raised is of the error tree."""
    try:
        spec = read(metadata, config)
    except (ProtocolError, InputError):
        return
    assert "\n" not in repr(str(spec))
