"""A piece of config that a person adds: it may say more, and nothing else."""

import re
from pathlib import Path

import pytest

from tritonkit.errors import RepositoryError
from tritonkit.repository.config import ConfigTensor, DynamicBatching
from tritonkit.repository.layout import read_config
from tritonkit.repository.package import Settings, package_model
from tritonkit.signature import data_type

SCALE = "(float[batch,2] x) => (float[batch,2] y) { y = Neg(x) }"


def extra(tmp_path: Path, text: str) -> Settings:
    """Settings with this fragment."""
    (tmp_path / "extra.pbtxt").write_text(text)
    return Settings(8, extra=tmp_path / "extra.pbtxt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimization { input_pinned_memory { enable: true } }", "input_pinned_memory"),
        ("optimization { priority: PRIORITY_MAX }", "priority: PRIORITY_MAX"),
        ('metric_tags { key: "team" value: "search" }', 'value: "search"'),
        (
            'parameters { key: "gpu_mem_limit" value { string_value: "5" } }',
            'key: "gpu_mem_limit"',
        ),
        ("instance_group { rate_limiter { priority: 2 } }", "priority: 2"),
        ('model_operations { op_library_filename: "ops.so" }', 'op_library_filename: "ops.so"'),
        ("max_batch_size: 8", "max_batch_size: 8"),
        ('input { name: "x" data_type: TYPE_FP32 dims: 2 }', 'name: "x"'),
        ('input { name: "x" format: FORMAT_NONE optional: false }', 'name: "x"'),
        ("dynamic_batching {}", "dynamic_batching {"),
        ("", "max_batch_size: 8"),
    ],
)
def test_fragment(tmp_path, onnx_file, text, words):
    """What else a config may say is in it, beside what the kit says."""
    package_model(onnx_file(SCALE), "m", tmp_path / "repo", extra(tmp_path, text))
    config = read_config(tmp_path / "repo", "m")
    assert words in config.base
    assert config.inputs == (ConfigTensor("x", data_type("FP32"), (2,)),)
    assert (config.max_batch_size, config.dynamic_batching) == (8, DynamicBatching())
    assert config.intra_op_threads == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size: 16", "'max_batch_size' is not what the model or the options say"),
        ("response_cache { enable: true }", "'response_cache' is not what"),
        ("instance_group { count: 7 }", "'instance_group' is not what"),
        ("dynamic_batching { preferred_batch_size: 4 }", "'dynamic_batching.preferred_batch_size'"),
        ("sequence_batching {}", "'sequence_batching' is not what"),
        ("optimization { graph { level: 1 } }", "'optimization.graph.level' is not what"),
        ('input { name: "q" }', "'input' is not what"),
        ('input { name: "x" dims: 3 }', "'input' is not what"),
        (
            'parameters { key: "intra_op_thread_count" value { string_value: "9" } }',
            "'parameters.intra_op_thread_count' is not what",
        ),
        ("model_transaction_policy { decoupled: true }", "an ONNX model cannot be decoupled"),
        ('backend: "python"', "backend is 'python'"),
        ('default_model_filename: "n.onnx"', "the kit names the model's file"),
        ('platform: "ensemble"', "an ensemble is made with --step"),
        ("instance_group { count: 1 kind: KIND_CPU } instance_group {}", "several instance groups"),
        ("nonsense: 1", "not a valid config.pbtxt"),
    ],
)
def test_fragment_contradicts(tmp_path, onnx_file, text, words):
    """What contradicts the options or the model is refused by its place; nothing is written."""
    with pytest.raises(RepositoryError, match=re.escape(words)) as caught:
        package_model(onnx_file(SCALE), "m", tmp_path / "repo", extra(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'extra.pbtxt'}: ")
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_fragment_is_no_text(tmp_path, onnx_file, content):
    """A fragment that is not there or is no text is named."""
    path = tmp_path / "extra.pbtxt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RepositoryError, match=r"extra\.pbtxt"):
        package_model(onnx_file(SCALE), "m", tmp_path / "repo", Settings(8, extra=path))
    assert not (tmp_path / "repo").exists()
