"""Rules about the model's folder: its name, its versions, the files that the config names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.repository.layout import CONFIG, UNBATCHED
from tritonkit.repository.lint.entry import ENSEMBLE, ONNX_PLATFORM, Entry
from tritonkit.repository.lint.model_file import Fault
from tritonkit.repository.lint.problem import Finding

_REFUSED = "Triton does not load the model"

_PLATFORMS = {
    "onnxruntime": (ONNX_PLATFORM,),
    "tensorrt": ("tensorrt_plan",),
    "pytorch": ("pytorch_libtorch", "torch_aoti", "pytorch_python"),
    "tensorflow": ("tensorflow_graphdef", "tensorflow_savedmodel"),
}
_BACKENDS = (*_PLATFORMS, "python", "openvino", "dali", "fil", "vllm", "tensorrtllm", "identity")


def name_mismatch(entry: Entry) -> Iterator[Finding]:
    """name differs from the model's folder."""
    name = entry.message.name
    if name and name != entry.name:
        yield Finding(
            entry.line("name"),
            f"name is '{name}' and the folder is '{entry.name}'",
            f"{_REFUSED} where they differ",
            f'write name: "{entry.name}", or leave name out',
        )


def backend_platform(entry: Entry) -> Iterator[Finding]:
    """backend and platform that do not go together, or none where none can be guessed."""
    config = entry.message
    backend, platform = config.backend, config.platform
    known = [p for platforms in _PLATFORMS.values() for p in platforms]
    at = entry.line("platform") if platform else entry.line("backend")
    if platform == ENSEMBLE or config.HasField("ensemble_scheduling"):
        return  # ensembles.py
    if backend in _PLATFORMS and platform and platform not in _PLATFORMS[backend]:
        what = f"platform '{platform}' does not go with backend '{backend}'"
        yield Finding(at, what, _REFUSED, f'write backend: "{backend}" alone')
    elif not backend and platform and platform not in known:
        what = f"'{platform}' is no platform"
        remedy = f'write backend: "{platform}"' if platform in _BACKENDS else "write a backend"
        yield Finding(at, what, _REFUSED, f"{remedy} in its place")
    elif not backend and not platform and not entry.is_onnx and not _guessable(entry):
        what = "there is no backend, and the files do not tell which"
        yield Finding(at, what, _REFUSED, 'write a backend, like backend: "onnxruntime"')


def backend_misspelt(entry: Entry) -> Iterator[Finding]:
    """A backend that is none of NVIDIA's, but nearly."""
    backend = entry.message.backend
    close = get_close_matches(backend, _BACKENDS, n=1, cutoff=0.5)
    if backend and backend not in _BACKENDS and close and "." not in backend:
        yield Finding(
            entry.line("backend"),
            f"backend is '{backend}'",
            f"{_REFUSED} unless a backend of this name is installed",
            f'did you mean backend: "{close[0]}"?',
        )


def no_version(entry: Entry) -> Iterator[Finding]:
    """No version folder that the version policy serves."""
    versions = entry.versions
    if versions.chosen or versions.odd or versions.endless:
        return
    if versions.missing:
        what = f"the version policy names {_list(versions.missing)}, which are not there"
    elif entry.message.version_policy.HasField("latest"):
        what = "there is no version that the version policy lets through"
    else:
        what = f"{entry.folder} has no version folder"
    remedy = f"put the model into {entry.folder / '1'}"
    if entry.is_ensemble:  # it has no files, and Git keeps no empty folders
        remedy = f"make {entry.folder / '1'} with an empty .gitkeep in it"
    yield Finding(entry.line("version_policy"), what, _REFUSED, remedy)


def version_missing(entry: Entry) -> Iterator[Finding]:
    """The version policy names a version that is not there, beside others that are."""
    versions = entry.versions
    if versions.chosen and versions.missing:
        yield Finding(
            entry.line("version_policy", "specific", "versions"),
            f"the version policy names {_list(versions.missing)}, without a folder",
            "requests for it will find nothing",
            "put the version there, or take its number out",
        )


def version_ignored(entry: Entry) -> Iterator[Finding]:
    """A folder that looks like a version and that Triton does not take for one."""
    for name in entry.versions.ignored:
        why = "a version folder's name is a number without leading zeros; Triton ignores others"
        plain = name.lstrip("vV.0") or "0"
        yield Finding(1, f"folder '{name}' is no version", why, f"rename it to {plain}")


def version_folder(entry: Entry) -> Iterator[Finding]:
    """A folder whose name only begins like a version."""
    versions = entry.versions
    for name in versions.odd:
        why = "Triton reads the number at the front, and looks for the model in a folder called so"
        yield Finding(1, f"folder '{name}' is no version", why, "rename or move it")
    for name in versions.endless:
        why = "Triton ends when it meets a version beyond 64 bits"
        yield Finding(1, f"folder '{name}' is no version", why, "rename or move it")


def model_file_missing(entry: Entry) -> Iterator[Finding]:
    """A version without its model file."""
    yield from _faults(entry, "model-file-missing")


def model_not_onnx(entry: Entry) -> Iterator[Finding]:
    """A model file that is empty, a Git LFS pointer, or otherwise not ONNX."""
    yield from _faults(entry, "model-not-onnx")


def external_data(entry: Entry) -> Iterator[Finding]:
    """External data of the model is missing, or lies outside its folder."""
    yield from _faults(entry, "external-data")


def model_not_loadable(entry: Entry) -> Iterator[Finding]:
    """A model file that ONNX Runtime cannot load."""
    yield from _faults(entry, "model-not-loadable")


def label_file(entry: Entry) -> Iterator[Finding]:
    """A label_filename that is not in the model's folder."""
    for i, output in enumerate(entry.message.output):
        if not output.label_filename:
            continue
        path = entry.folder / output.label_filename
        inside = os.path.normpath(path).startswith(f"{os.path.normpath(entry.folder)}{os.sep}")
        if not path.is_file() or not inside:
            what = "is not there" if inside else "is not in the model's folder"
            yield Finding(
                entry.line("output", i, "label_filename"),
                f"label file '{output.label_filename}' of output '{output.name}' {what}",
                _REFUSED if inside else "newer releases of Triton do not load the model",
                f"put it into {entry.folder}, or take label_filename out",
            )


def _guessable(entry: Entry) -> bool:
    """Whether Triton finds the backend by the files, or by the model's name."""
    defaults = ("model.plan", "model.pt", "model.pt2", "model.xml", "model.py", "model.graphdef")
    name = entry.message.default_model_filename
    if name:
        return name in defaults
    folders = [entry.folder / str(version) for version in entry.versions.chosen[:1]]
    there = (*defaults, "model.savedmodel")
    return "." in entry.name or any((f / n).exists() for f in folders for n in there)


def _faults(entry: Entry, rule: str) -> Iterator[Finding]:
    for model in entry.models.values():
        if isinstance(model, Fault) and model.rule == rule:
            at = entry.line("default_model_filename")
            yield Finding(at, model.message, _REFUSED, model.remedy)


def _list(numbers: tuple[int, ...]) -> str:
    return f"version{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def unbatched_differs(entry: Entry) -> Iterator[Finding]:
    """configs/unbatched.pbtxt says something else than the config without its dynamic batching."""
    path = entry.folder / UNBATCHED
    if not path.is_file():
        return
    wanted = schema.ModelConfig()
    wanted.CopyFrom(entry.message)
    wanted.ClearField("dynamic_batching")
    other = schema.ModelConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), other)
    except (OSError, UnicodeDecodeError, text_format.ParseError):
        same = False
    else:
        same = other == wanted
    if not same:
        yield Finding(
            1,
            f"{UNBATCHED} is not this config without dynamic_batching",
            "a Triton of --model-config-name=unbatched serves other settings, and a comparison "
            "with it compares more than batching",
            f"write it anew: a copy of {CONFIG} without its dynamic_batching",
        )
