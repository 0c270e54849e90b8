"""The proof: no more rows are packaged than were proved, and it stays with the model."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tritonkit.errors import CheckFailedError, ModelError, RepositoryError
from tritonkit.repository.execution import Accelerator, Execution
from tritonkit.repository.layout import read_config
from tritonkit.repository.package import Settings, package_model
from tritonkit.verification import Verdict, Verification, file_sha256, read_verification

SCALE = "(float[batch,2] x) => (float[batch,2] y) { y = Neg(x) }"
FIXED = "(float[batch,2] x) => (float[1,2] t) { t = ReduceMean<axes=[0]>(x) }"

SAFE = Verification(Verdict.SAFE, 16, ())
WITHIN = Verification(Verdict.SAFE_WITHIN, 64, ())
UNSAFE = Verification(Verdict.UNSAFE, 0, ("rows share a mean", "and a scale"))
NONE = Verification(Verdict.NOT_BATCHABLE, 0, ("dimension 0 is time",))


@dataclass(frozen=True)
class Proof:
    """What a check would hand over."""

    verification: Verification

    def to_json(self) -> dict[str, object]:
        return {
            "verdict": str(self.verification.verdict),
            "max_batch_size": self.verification.max_batch_size,
            "findings": [{"why": why} for why in self.verification.reasons],
        }


@pytest.fixture
def packaged(tmp_path, onnx_file):
    """A bare file, packaged after a check that finds this."""

    def package(verification: Verification, asked: int | None = None, **how: bool) -> Path:
        return package_model(
            onnx_file(SCALE),
            "m",
            tmp_path / "repo",
            Settings(asked),
            prove=lambda model, rows: Proof(verification),
            **how,
        )

    return package


@pytest.fixture
def folder(tmp_path, onnx_file) -> Path:
    """An export's folder that says nothing of batches."""
    path = tmp_path / "out"
    path.mkdir()
    onnx_file(SCALE).rename(path / "model.onnx")
    (path / "verification.json").write_text(json.dumps({"source": "here"}))
    return path


@pytest.mark.parametrize(
    ("verification", "asked", "rows"),
    [(SAFE, None, 16), (WITHIN, None, 32), (SAFE, 16, 16), (WITHIN, 64, 64), (SAFE, 3, 3)],
)
def test_proved(tmp_path, packaged, verification, asked, rows):
    """What was proved may be packaged, all of it; by default up to 32 rows."""
    packaged(verification, asked)
    assert read_config(tmp_path / "repo", "m").max_batch_size == rows


def test_more_than_proved(tmp_path, packaged):
    """More rows than were proved are refused with both numbers and the remedies."""
    with pytest.raises(
        RepositoryError,
        match=r"^model 'm': max_batch_size 17 is more than the 16 that were proved; export it "
        r"again with tritonkit export … --max-batch-size 17, ask for 16 or less, or --force$",
    ):
        packaged(SAFE, 17)
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize("asked", [None, 1, 8])
@pytest.mark.parametrize(
    ("verification", "words"),
    [
        (UNSAFE, "model 'm' is unsafe: rows share a mean; and a scale. Serve it unbatched with"),
        (NONE, "model 'm' is not batchable: dimension 0 is time. Serve it unbatched with"),
    ],
)
def test_not_to_be_batched(tmp_path, packaged, verification, asked, words):
    """A model that must not be batched is refused as a failed check, with why and the remedies."""
    with pytest.raises(CheckFailedError) as caught:
        packaged(verification, asked)
    assert str(caught.value).startswith(words)
    assert str(caught.value).endswith("--max-batch-size 0, or package it all the same with --force")
    assert not (tmp_path / "repo").exists()


def test_unbatched_needs_no_proof(tmp_path, onnx_file):
    """With a max_batch_size of 0 nothing is proved, and any model is packaged."""

    def never(model: Path, rows: int) -> Proof:
        raise AssertionError("asked for a proof")

    path = onnx_file(SCALE)
    package_model(path, "m", tmp_path / "repo", Settings(0), prove=never)
    assert read_config(tmp_path / "repo", "m").max_batch_size == 0


@pytest.mark.parametrize(
    ("verification", "asked", "rows"),
    [(UNSAFE, None, 32), (UNSAFE, 5, 5), (SAFE, 17, 17), (SAFE, None, 16), (NONE, 0, 0)],
)
def test_forced(tmp_path, packaged, verification, asked, rows):
    """By force what was asked for is packaged, whatever was found."""
    packaged(verification, asked, force=True)
    assert read_config(tmp_path / "repo", "m").max_batch_size == rows


@pytest.mark.parametrize("verification", [SAFE, UNSAFE])
def test_proof_is_kept(tmp_path, packaged, verification):
    """What a check found lies in the version's folder, for the file that lies there."""
    written = packaged(verification, force=True)
    kept = read_verification(written / "verification.json", written / "model.onnx")
    assert kept == verification


def record(folder: Path, verification: Verification, **more: object) -> None:
    """The verification.json of an export that was checked."""
    sha256 = {"model.onnx": file_sha256(folder / "model.onnx")}
    document = {**more, "sha256": sha256, "check": Proof(verification).to_json()}
    (folder / "verification.json").write_text(json.dumps(document))


def test_exports_own_proof(tmp_path, folder):
    """What the export proved counts, and is not proved again."""
    record(folder, SAFE)
    with pytest.raises(RepositoryError, match="max_batch_size 17 is more than the 16"):
        package_model(folder, "m", tmp_path / "repo", Settings(17), prove=None)
    written = package_model(folder, "m", tmp_path / "repo", Settings())
    assert read_config(tmp_path / "repo", "m").max_batch_size == 16
    assert (written / "verification.json").read_text() == (folder / "verification.json").read_text()


@pytest.fixture
def asking(tmp_path, folder):
    """Package an export that says this, with a check that proves what it is asked for; returns the
    rows that it was asked for.
    """

    def ask(recorded: Verification, asked: int | None, **how: bool) -> list[int]:
        record(folder, recorded, source="here")
        rows = []

        def prove(model: Path, most: int) -> Proof:
            rows.append(most)
            return Proof(Verification(Verdict.SAFE, most, ()))

        package_model(folder, "m", tmp_path / "repo", Settings(asked), prove=prove, **how)
        return rows

    return ask


def test_more_than_the_export_proved(tmp_path, asking):
    """More rows than the export proved are proved now, and what it says is brought up to date."""
    assert asking(SAFE, 17) == [17]
    assert read_config(tmp_path / "repo", "m").max_batch_size == 17
    version = tmp_path / "repo" / "m" / "1"
    kept = read_verification(version / "verification.json", version / "model.onnx")
    assert kept == Verification(Verdict.SAFE, 17, ())
    assert json.loads((version / "verification.json").read_text())["source"] == "here"


@pytest.mark.parametrize(
    ("recorded", "asked", "how"),
    [
        (SAFE, None, {}),
        (SAFE, 16, {}),
        (SAFE, 0, {}),
        (SAFE, 17, {"force": True}),
        (UNSAFE, 5, {"force": True}),
    ],
)
def test_not_proved_again(asking, recorded, asked, how):
    """What the export proved is not proved again, nor what is packaged by force."""
    assert asking(recorded, asked, **how) == []


@pytest.mark.parametrize("recorded", [UNSAFE, NONE])
def test_refusal_is_not_asked_again(tmp_path, asking, recorded):
    """A model that the export found unfit for batches is not tried again in larger ones."""
    with pytest.raises(CheckFailedError):
        asking(recorded, 64)
    assert not (tmp_path / "repo").exists()


def test_proof_of_another_file(tmp_path, onnx_file, folder):
    """A proof of another file counts for nothing: the model is proved, and the proof replaced."""
    record(folder, WITHIN, source="elsewhere")
    onnx_file(SCALE.replace("Neg", "Abs")).rename(folder / "model.onnx")
    asked = []

    def prove(model: Path, rows: int) -> Proof:
        asked.append((model, rows))
        return Proof(SAFE)

    written = package_model(folder, "m", tmp_path / "repo", Settings(), prove=prove)
    assert asked == [(folder / "model.onnx", 32)]
    kept = json.loads((written / "verification.json").read_text())
    assert kept["check"]["max_batch_size"] == 16
    assert "source" not in kept


def test_proof_joins_the_export(tmp_path, folder):
    """An export that says nothing of batches keeps what else it says beside the proof."""
    sha256 = {"model.onnx": file_sha256(folder / "model.onnx"), "weights": "1"}
    (folder / "verification.json").write_text(json.dumps({"source": "here", "sha256": sha256}))
    written = package_model(
        folder, "m", tmp_path / "repo", Settings(), prove=lambda model, rows: Proof(SAFE)
    )
    kept = json.loads((written / "verification.json").read_text())
    assert (kept["source"], kept["sha256"]) == ("here", sha256)
    assert read_verification(written / "verification.json", written / "model.onnx") == SAFE


def test_broken_verification(tmp_path, folder):
    """A verification.json that is none is refused, and nothing is written."""
    (folder / "verification.json").write_text("{")
    with pytest.raises(ModelError, match=r"verification\.json is no verification of tritonkit's"):
        package_model(folder, "m", tmp_path / "repo", Settings())
    assert not (tmp_path / "repo").exists()


def test_refused_before_the_proof(tmp_path, onnx_file):
    """What can be refused at once is, before a check that takes its time."""

    def never(model: Path, rows: int) -> Proof:
        raise AssertionError("asked for a proof")

    path = onnx_file(SCALE)
    with pytest.raises(RepositoryError, match="tensorrt needs instances on a GPU"):
        package_model(
            path,
            "m",
            tmp_path / "repo",
            Settings(execution=Execution(accelerators=(Accelerator("tensorrt"),))),
            prove=never,
        )


def test_no_axis_is_for_the_proof(tmp_path, onnx_file):
    """Why a model has no batch axis is for the check to say."""
    path = onnx_file(FIXED)
    with pytest.raises(CheckFailedError, match="dimension 0 is time"):
        package_model(path, "m", tmp_path / "repo", Settings(), prove=lambda m, r: Proof(NONE))
