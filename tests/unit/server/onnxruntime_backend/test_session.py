"""The session that a config describes."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from tritonkit.errors import ModelError, RepositoryError
from tritonkit.repository.backend_rules import boolean
from tritonkit.server.onnxruntime_backend.session import (
    model_file,
    open_session,
    run_options,
    session_labels,
    session_options,
)


def parameters(**values):
    return {"parameters": {key: {"string_value": value} for key, value in values.items()}}


def test_defaults_are_those_of_onnxruntime():
    """An empty config changes nothing of ONNX Runtime's own options."""
    ours, theirs = session_options({}), ort.SessionOptions()
    for name in (
        "graph_optimization_level",
        "execution_mode",
        "intra_op_num_threads",
        "inter_op_num_threads",
        "enable_cpu_mem_arena",
        "enable_mem_pattern",
    ):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (-1, "ORT_ENABLE_BASIC"),
        (0, "ORT_ENABLE_ALL"),
        (1, "ORT_ENABLE_EXTENDED"),
        (2, "ORT_DISABLE_ALL"),
        (3, "ORT_ENABLE_ALL"),
    ],
)
def test_graph_level(level, name):
    """optimization.graph.level picks how much ONNX Runtime optimizes the graph."""
    options = session_options({"optimization": {"graph": {"level": level}}})
    assert options.graph_optimization_level.name == name


@pytest.mark.parametrize(("value", "name"), [("0", "ORT_SEQUENTIAL"), ("1", "ORT_PARALLEL")])
def test_execution_mode(value, name):
    """execution_mode 0 runs one operator after another, 1 runs them side by side."""
    assert session_options(parameters(execution_mode=value)).execution_mode.name == name


def test_execution_mode_of_neither_kind():
    """There are only two execution modes."""
    with pytest.raises(RepositoryError, match="execution_mode are 0 or 1 but got 2"):
        session_options(parameters(execution_mode="2"))


def test_thread_counts():
    """Each thread count sets its own pool."""
    conf = parameters(intra_op_thread_count="2", inter_op_thread_count="3")
    options = session_options(conf)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 3)


@pytest.mark.parametrize("value", ["0", "-4"])
def test_thread_counts_below_one_are_not_applied(value):
    """A thread count of zero or less leaves the choice to ONNX Runtime."""
    conf = parameters(intra_op_thread_count=value, inter_op_thread_count=value)
    options = session_options(conf)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (0, 0)


@pytest.mark.parametrize(
    "key", ["intra_op_thread_count", "inter_op_thread_count", "execution_mode"]
)
@pytest.mark.parametrize("value", ["two", "", "2.5"])
def test_number_that_is_none(key, value):
    """A number must be a whole one."""
    words = f"parameter '{key}': failed to convert '{value}' to integral number"
    with pytest.raises(RepositoryError) as error:
        session_options(parameters(**{key: value}))
    assert str(error.value) == words


@pytest.mark.parametrize(
    ("key", "attribute"),
    [("enable_mem_arena", "enable_cpu_mem_arena"), ("enable_mem_pattern", "enable_mem_pattern")],
)
def test_memory_switches(key, attribute):
    """Each memory switch sets its own option, either way."""
    assert getattr(session_options(parameters(**{key: "off"})), attribute) is False
    assert getattr(session_options(parameters(**{key: "on"})), attribute) is True


@pytest.mark.parametrize(
    ("value", "meaning"),
    [("true", True), ("ON", True), ("1", True), ("False", False), ("off", False), ("0", False)],
)
def test_booleans(value, meaning):
    """A switch reads true/on/1 and false/off/0, in any case."""
    assert boolean(parameters(key=value), "key", not meaning) is meaning


def test_boolean_that_is_none():
    """A switch that reads anything else is refused."""
    with pytest.raises(RepositoryError, match="failed to convert 'yes' to boolean"):
        session_options(parameters(enable_mem_arena="yes"))


def test_device_allocator():
    """session.use_device_allocator_for_initializers reaches the session's own entries."""
    key = "session.use_device_allocator_for_initializers"
    assert session_options(parameters(**{key: "1"})).get_session_config_entry(key) == "1"


def test_arena_shrinkage():
    """memory.enable_memory_arena_shrinkage is an option of each run."""
    key = "memory.enable_memory_arena_shrinkage"
    assert run_options(parameters(**{key: "cpu:0"})).get_run_config_entry(key) == "cpu:0"


def test_nothing_to_say_to_a_run():
    """A config without run options has none to pass."""
    assert run_options({}) is None


def test_custom_operations_that_are_missing(tmp_path):
    """A library of custom operations that cannot be loaded is named."""
    library = str(tmp_path / "lost.so")
    with pytest.raises(RepositoryError, match=r"custom operations '.*lost\.so': "):
        session_options({"model_operations": {"op_library_filename": [library]}})


def test_model_file(version):
    """The model is model.onnx in its version's folder."""
    assert model_file(version, {}) == version / "model.onnx"
    assert model_file(version, {"default_model_filename": ""}) == version / "model.onnx"


def test_model_file_of_another_name(version):
    """default_model_filename names another file."""
    (version / "model.onnx").rename(version / "net.onnx")
    config = {"default_model_filename": "net.onnx"}
    assert model_file(version, config) == version / "net.onnx"


def test_model_file_in_a_folder_of_its_name(tmp_path):
    """A folder where the file should be holds model.onnx."""
    (tmp_path / "net.onnx").mkdir()
    file = tmp_path / "net.onnx" / "model.onnx"
    file.touch()
    assert model_file(tmp_path, {"default_model_filename": "net.onnx"}) == file


def test_model_file_that_is_missing(tmp_path):
    """A model file that is not there is named."""
    with pytest.raises(ModelError) as error:
        model_file(tmp_path, {"name": "m"})
    assert str(error.value) == (
        f"unable to find '{tmp_path / 'model.onnx'}' for model instance 'm'"
    )


def test_file_that_is_no_model(tmp_path):
    """A file that ONNX Runtime cannot read is named, with its words."""
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"unable to load '.*model\.onnx': .*INVALID_PROTOBUF"):
        open_session(tmp_path / "model.onnx", {})


def test_open_session_runs_what_the_config_says(version):
    """A session opened by a config has its options, and runs."""
    config = parameters(intra_op_thread_count="1") | {"optimization": {"graph": {"level": 2}}}
    session = open_session(model_file(version, config), config)
    assert session_labels(session) == {
        "onnxruntime": ort.__version__,
        "intra_op_threads": "1",
        "inter_op_threads": "0",
        "graph_level": "ORT_DISABLE_ALL",
        "execution_mode": "ORT_SEQUENTIAL",
        "providers": "CPUExecutionProvider",
    }
    assert session.run(None, {"x": np.ones((2, 3), np.float32)})[0].tolist() == [[2] * 3] * 2


def test_provider_that_does_not_start(version, monkeypatch):
    """A provider that ONNX Runtime leaves out in silence is an error."""
    monkeypatch.setattr(
        "tritonkit.server.onnxruntime_backend.session.provider_list",
        lambda *_, **__: [("AzureExecutionProvider", {}), ("CPUExecutionProvider", {})],
    )
    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda _: ["CPUExecutionProvider"])
    with pytest.raises(ModelError, match="AzureExecutionProvider could not start on this machine"):
        open_session(model_file(version, {}), {})
