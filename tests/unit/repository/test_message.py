"""Protobuf messages as plain dicts."""

from __future__ import annotations

from tritonclient.grpc import service_pb2 as pb

from tritonkit.repository.message import as_dict


def test_numbers_stay_numbers() -> None:
    """64-bit numbers are ints, empty fields are present, messages that are not set are absent."""
    message = pb.ModelMetadataResponse(name="m", versions=["1"])
    message.inputs.add(name="x", datatype="FP32", shape=(-1, 4))
    assert as_dict(message) == {
        **{"name": "m", "versions": ["1"], "platform": "", "outputs": []},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    }
    assert as_dict(pb.ModelConfigResponse()) == {}
