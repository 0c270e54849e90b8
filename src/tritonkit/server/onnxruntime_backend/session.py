"""The ONNX Runtime session that a Triton model config describes.

A config here is the JSON form that Triton hands to backends and answers at /v2/models/M/config.
The keys, their defaults and their parsing follow NVIDIA's C++ backend (onnxruntime_backend,
ModelState() and LoadModel() in src/onnxruntime.cc), so that a repository means the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

from tritonkit.errors import ModelError, RepositoryError
from tritonkit.repository.backend_rules import boolean, integer, parameter
from tritonkit.server.onnxruntime_backend.providers import provider_list

_DEVICE_ALLOCATOR = "session.use_device_allocator_for_initializers"
_ARENA_SHRINKAGE = "memory.enable_memory_arena_shrinkage"

_GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
"""`optimization.graph.level`; every other number means all optimizations."""

_EXECUTION_MODES = (ort.ExecutionMode.ORT_SEQUENTIAL, ort.ExecutionMode.ORT_PARALLEL)


def session_options(config: Mapping[str, Any]) -> ort.SessionOptions:
    """The options for `config`; a key that is absent keeps ONNX Runtime's default.

    RepositoryError for a value that is not of its key's type.
    """
    options = ort.SessionOptions()
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = _GRAPH_LEVELS.get(
        level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    )
    options.execution_mode = _EXECUTION_MODES[integer(config, "execution_mode")]
    options.intra_op_num_threads = max(0, integer(config, "intra_op_thread_count"))
    options.inter_op_num_threads = max(0, integer(config, "inter_op_thread_count"))
    options.enable_cpu_mem_arena = boolean(config, "enable_mem_arena", True)
    options.enable_mem_pattern = boolean(config, "enable_mem_pattern", True)
    allocator = parameter(config, _DEVICE_ALLOCATOR)
    if allocator is not None:
        options.add_session_config_entry(_DEVICE_ALLOCATOR, allocator)
    for library in config.get("model_operations", {}).get("op_library_filename", ()):
        try:
            options.register_custom_ops_library(library)
        except Exception as error:
            raise RepositoryError(f"custom operations '{library}': {error}") from error
    return options


def run_options(config: Mapping[str, Any]) -> ort.RunOptions | None:
    """What each `session.run` of this config must be given; None if there is nothing to say."""
    shrinkage = parameter(config, _ARENA_SHRINKAGE)
    if shrinkage is None:
        return None
    options = ort.RunOptions()
    options.add_run_config_entry(_ARENA_SHRINKAGE, shrinkage)
    return options


def model_file(version_folder: Path, config: Mapping[str, Any]) -> Path:
    """The ONNX file in `<model>/<version>/`: `default_model_filename`, or else `model.onnx`.

    A folder of that name holds `model.onnx` and its external data. ModelError if it is not there.
    """
    path = version_folder / (config.get("default_model_filename") or "model.onnx")
    if path.is_dir():
        path = path / "model.onnx"
    if not path.is_file():
        raise ModelError(f"unable to find '{path}' for model instance '{config.get('name', '')}'")
    return path


def open_session(
    file: Path, config: Mapping[str, Any], *, kind: str = "KIND_CPU", device_id: int = 0
) -> ort.InferenceSession:
    """Load `file` as `config` says, for an instance of `kind` (on GPU `device_id`).

    A provider that ONNX Runtime quietly leaves out is an error here: what was asked for runs, or
    nothing does. ModelError if the file cannot be loaded, RepositoryError if the config is bad.
    """
    options = session_options(config)
    providers = provider_list(config, kind=kind, device_id=device_id)
    try:
        session = ort.InferenceSession(file, options, providers=providers)
    except Exception as error:  # ORT's errors share no base class below Exception
        raise ModelError(f"unable to load '{file}': {error}") from error
    session.disable_fallback()
    missing = [name for name, _ in providers if name not in session.get_providers()]
    if missing:
        raise ModelError(
            f"unable to load '{file}': {', '.join(missing)} could not start on this machine"
        )
    return session


def session_labels(session: ort.InferenceSession) -> dict[str, str]:
    """What a session really runs with, as metric labels. 0 threads: ONNX Runtime's own choice."""
    options = session.get_session_options()
    return {
        "onnxruntime": ort.__version__,
        "intra_op_threads": str(options.intra_op_num_threads),
        "inter_op_threads": str(options.inter_op_num_threads),
        "graph_level": options.graph_optimization_level.name,
        "execution_mode": options.execution_mode.name,
        "providers": ",".join(session.get_providers()),
    }
