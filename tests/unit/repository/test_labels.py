"""Labels: a file beside the versions that names every element of an output."""

import re

import pytest

from tritonkit.errors import RepositoryError
from tritonkit.repository.layout import read_config
from tritonkit.repository.package import Settings, package_model

ONE = "(float[N,2] x) => (float[N,2] y) { y = Neg(x) }"
FOUR = (
    "(float[N,2] x) => (float[N,2] a, float[N,n] b, bool[N,2] c, float16[N,2] d)"
    " { a = Neg(x) b = Cast<to=1>(x) c = Cast<to=9>(x) d = Cast<to=10>(x) }"
)


def test_labels(tmp_path, onnx_file):
    """The labels of an output lie in the model's folder, where its config says."""
    (tmp_path / "l.txt").write_text("cat\ndog\n")
    settings = Settings(8, labels={"": tmp_path / "l.txt"})
    package_model(onnx_file(ONE), "m", tmp_path / "repo", settings)
    (output,) = read_config(tmp_path / "repo", "m").outputs
    assert (tmp_path / "repo" / "m" / output.labels).read_text() == "cat\ndog\n"


def test_labels_of_several(tmp_path, onnx_file):
    """Each output has its own labels; of a dynamic size there may be any number."""
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name}1\n{name}2")
    settings = Settings(8, labels={n: tmp_path / f"{n}.txt" for n in "ab"})
    package_model(onnx_file(FOUR), "m", tmp_path / "repo", settings)
    a, b, c, _ = read_config(tmp_path / "repo", "m").outputs
    assert (tmp_path / "repo" / "m" / a.labels).read_text() == "a1\na2"
    assert (tmp_path / "repo" / "m" / b.labels).read_text() == "b1\nb2"
    assert c.labels == ""


@pytest.mark.parametrize(
    ("output", "text", "words"),
    [
        ("", "x\ny", "model 'm' has 4 outputs; say whose labels"),
        ("a", "x\ny\nz", "3 labels, but output 'a' has 2 elements"),
        ("a", "x", "1 labels, but output 'a' has 2 elements"),
        ("a", "x\n\ny", "a line is empty"),
        ("a", "", "a line is empty"),
        ("c", "x\ny", "output 'c' is BOOL, which Triton does not classify by"),
        ("d", "x\ny", "output 'd' is FP16, which Triton does not classify by"),
        ("q", "x\ny", "model 'm' has no output 'q' to label; it has a, b, c, d"),
        ("a", None, "no such file of labels"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, onnx_file, output, text, words):
    """Labels that no element or not every element would have are refused; nothing is written."""
    if text is not None:
        (tmp_path / "l.txt").write_text(text)
    settings = Settings(8, labels={output: tmp_path / "l.txt"})
    with pytest.raises(RepositoryError, match=re.escape(words)):
        package_model(onnx_file(FOUR), "m", tmp_path / "repo", settings)
    assert not (tmp_path / "repo").exists()
