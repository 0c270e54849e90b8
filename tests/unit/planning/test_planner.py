"""How large the batches may be that a plan tries, and what plan.json says of settings."""

import hashlib
import json

import pytest

from tritonkit.errors import CheckFailedError, InputError
from tritonkit.plan.settings import Settings
from tritonkit.planning.planner import most_rows
from tritonkit.planning.result import settings_json
from tritonkit.repository.config import ConfigTensor, DynamicBatching, ModelConfig
from tritonkit.signature import data_type

FP32 = data_type("FP32")
CONFIG = ModelConfig(
    name="m",
    inputs=(ConfigTensor("x", FP32, (4,)),),
    outputs=(ConfigTensor("y", FP32, (4,)),),
    max_batch_size=8,
)


@pytest.fixture
def file(tmp_path):
    """A model file in a version folder, without a proof."""
    made = tmp_path / "m" / "1" / "model.onnx"
    made.parent.mkdir(parents=True)
    made.write_bytes(b"weights")
    return made


def prove(file, rows, verdict="safe"):
    """Say that so many rows keep apart."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    check = {"verdict": verdict, "max_batch_size": rows, "findings": []}
    document = {"sha256": {"model.onnx": sha256}, "check": check}
    (file.parent / "verification.json").write_text(json.dumps(document))


def test_as_many_as_were_proved(file):
    """More than the config has."""
    prove(file, 64)
    assert most_rows(CONFIG, file, None) == 64


def test_no_more_than_were_proved(file):
    """With the remedy."""
    prove(file, 64)
    with pytest.raises(InputError, match=r"128 rows are more than the 64 .* export it again"):
        most_rows(CONFIG, file, 128)


def test_what_must_not_be_batched_is_not_planned(file):
    """A model whose rows feel each other."""
    prove(file, 0, "unsafe")
    with pytest.raises(CheckFailedError, match="no batching to plan"):
        most_rows(CONFIG, file, None)


def test_fewer_may_be_asked_for(file):
    """To keep runs short, or memory small."""
    prove(file, 64)
    assert most_rows(CONFIG, file, 16) == 16


def test_without_a_proof_the_config_decides(file):
    """Unless more are asked for: there is nothing that says no."""
    assert most_rows(CONFIG, file, None) == 8
    assert most_rows(CONFIG, file, 32) == 32


def test_a_proof_beside_a_folder_of_external_data(tmp_path):
    """The version's folder has the proof, wherever the file lies in it."""
    file = tmp_path / "m" / "1" / "model.onnx" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    check = {"verdict": "safe", "max_batch_size": 64, "findings": []}
    proof = json.dumps({"sha256": {"model.onnx": sha256}, "check": check})
    (tmp_path / "m" / "1" / "verification.json").write_text(proof)
    assert most_rows(CONFIG, file, None) == 64


def test_settings_as_json():
    """A delay of 0 is one; no batching has none."""
    batched = settings_json(Settings(8, DynamicBatching(), 2, 3))
    assert batched == {
        "max_batch_size": 8,
        "dynamic_batching": True,
        "max_queue_delay_us": 0,
        "instances": 2,
        "threads": 3,
    }
    assert settings_json(Settings(8, None))["max_queue_delay_us"] is None
