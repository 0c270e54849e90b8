"""Rules about reading config.pbtxt at all. The other rules need a config that can be read."""

from __future__ import annotations

from collections.abc import Iterator

from tritonkit.repository.lint.entry import Entry, has_versions
from tritonkit.repository.lint.problem import Finding

_REFUSED = "Triton does not load the model"


def config_unreadable(entry: Entry) -> Iterator[Finding]:
    """config.pbtxt is a folder, or may not be read, or is a broken link."""
    yield from _failure(entry, "config-unreadable", f"{_REFUSED}, and a folder here ends it")


def config_syntax(entry: Entry) -> Iterator[Finding]:
    """config.pbtxt is not protobuf text of Triton's schema."""
    yield from _failure(entry, "config-syntax", _REFUSED)


def unknown_field(entry: Entry) -> Iterator[Finding]:
    """config.pbtxt has a field that Triton's schema does not have."""
    yield from _failure(entry, "unknown-field", _REFUSED)


def conflicting_fields(entry: Entry) -> Iterator[Finding]:
    """Two fields of which there may be one, like dynamic_batching and sequence_batching."""
    yield from _failure(entry, "conflicting-fields", _REFUSED)


def unreadable(entry: Entry) -> Iterator[Finding]:
    """A file or a folder that the system does not let us read."""
    try:
        if not entry.text.failure:
            list(entry.loadable())
    except OSError as error:
        yield not_readable(error)


def not_readable(error: OSError) -> Finding:
    """What any rule may run into."""
    what = f"{error.filename}: {error.strerror}"
    return Finding(1, what, "the server cannot tell what is there either", "make it readable")


def stray_folder(entry: Entry) -> Iterator[Finding]:
    """A folder of the repository that holds no model."""
    if entry.text.failure and _no_config(entry) and not has_versions(entry.folder):
        yield Finding(
            1,
            f"{entry.folder} has neither a config.pbtxt nor a version folder",
            "Triton takes every folder of a repository for a model, and does not start if one "
            "cannot be loaded",
            "move it out of the repository",
        )


def no_config(entry: Entry) -> Iterator[Finding]:
    """A model without a config.pbtxt."""
    if entry.text.failure and _no_config(entry) and has_versions(entry.folder):
        yield Finding(
            1,
            "there is no config.pbtxt",
            "Triton makes one up, with dynamic batching and a max_batch_size of 4 where the model "
            "has a batch axis; with --disable-auto-complete-config it does not load the model",
            "write one, or package the model with: tritonkit package",
        )


def not_utf8(entry: Entry) -> Iterator[Finding]:
    """config.pbtxt is not UTF-8."""
    if not entry.text.utf8:
        yield Finding(
            1,
            "the file is not UTF-8",
            "Triton reads it and answers those who ask for the config with broken JSON",
            "save it as UTF-8",
        )


def _no_config(entry: Entry) -> bool:
    config = entry.config
    return not config.exists() and not config.is_symlink()


def _failure(entry: Entry, rule: str, why: str) -> Iterator[Finding]:
    failure = entry.text.failure
    if failure and failure.rule == rule and not _no_config(entry):
        yield Finding(failure.line, failure.message, why, failure.remedy)
