"""Find and call the user's factory: `package.module:factory` or `path/file.py:factory`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from tritonkit.errors import ModelError, TritonkitError, describe

T = TypeVar("T")


def call_factory(text: str) -> object:
    """Import the module or file that `text` names and return what its factory returns.

    A module is looked for where Python looks and in the current folder; a file can import the
    files beside it. An error of tritonkit's own that the factory raises passes through; any other
    failure is a ModelError.
    """
    place, _, name = text.rpartition(":")
    if not place or not name.isidentifier():
        raise ModelError(
            f"'{text}' names no factory; give package.module:factory or file.py:factory"
        )
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    factory = getattr(module, name, None)
    if not callable(factory):
        what = "no factory" if factory is None else "something that is not a function"
        raise ModelError(f"'{place}' has {what} called '{name}'; define `def {name}(): …` there")
    return _foreign(factory, f"the factory '{text}' failed")


def _load_module(name: str) -> ModuleType:
    try:
        with _importable(Path.cwd()):
            found = importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        found = False  # a parent package is missing, or the name is not a dotted name
    except Exception as error:
        raise ModelError(
            f"importing '{name}' failed ({describe(error)}); mend the module"
        ) from error
    if not found:
        raise ModelError(f"no Python module '{name}' here; check the name, or install its package")
    with _importable(Path.cwd()):
        return _foreign(lambda: importlib.import_module(name), f"importing '{name}' failed")


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelError(f"no such Python file: {path}; check the path")
    spec = importlib.util.spec_from_file_location(f"tritonkit_source_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # always so for a .py file
    loader = spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up there
    try:
        with _importable(path.parent.resolve()):
            _foreign(lambda: loader.exec_module(module), f"importing '{path}' failed")
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _foreign(call: Callable[[], T], failure: str) -> T:
    """Call the user's code; its exceptions become a ModelError that says `failure` and why."""
    try:
        return call()
    except TritonkitError:
        raise
    except Exception as error:
        raise ModelError(f"{failure} ({describe(error)}); mend it and try again") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let imports find modules in `folder`, after everything that is installed."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
