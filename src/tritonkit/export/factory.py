"""Find and call the user's factory: `package.module:factory` or `path/file.py:factory`."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from tritonkit.errors import ModelError, TritonkitError, describe

T = TypeVar("T")


def call_factory(text: str) -> object:
    """Import the module or file that `text` names and return what its factory returns.

    A name that stands for a value instead (`model = Net()`) gives that value. A module is looked
    for where Python looks and in the current folder; a file can import the files beside it. What
    the code prints goes to stderr. An error of tritonkit's own that it raises passes through; any
    other failure is a ModelError.
    """
    place, _, name = text.rpartition(":")
    if not place or not name.isidentifier():
        raise ModelError(
            f"'{text}' names no factory; give package.module:factory or file.py:factory"
        )
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    if not hasattr(module, name):
        has = _names(module)
        others = f"it has {', '.join(has)}; give one of these" if has else f"define {name}() there"
        raise ModelError(f"'{place}' has no factory called '{name}'; {others}")
    factory = getattr(module, name)
    if _is_value(factory):
        return factory
    if not callable(factory):
        raise ModelError(
            f"'{text}' is a {type(factory).__name__}, not a function; define "
            f"`def {name}(): …` there, which returns the module"
        )
    wants = _required(factory)
    if wants:
        raise ModelError(
            f"'{text}' needs arguments ({', '.join(wants)}); give a function without any, such as "
            f"def load(): return {name}({', '.join(f'{w}=…' for w in wants)})"
        )
    return _foreign(factory, f"the factory '{text}' failed")


def factories_in(path: Path) -> list[str]:
    """The names that a Python file defines at its top, without running it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    defined: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.append(node.name)
        elif isinstance(node, ast.Assign):
            defined += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in defined if not name.startswith("_")]


def _names(module: ModuleType) -> list[str]:
    """The functions and modules that this module defines itself."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (_is_value(value) or inspect.isfunction(value) or inspect.isclass(value))
        and getattr(value, "__module__", module.__name__) == module.__name__
    ][:10]


def _is_value(value: object) -> bool:
    """Whether it is a model already, and no function that makes one."""
    import torch

    return isinstance(value, torch.nn.Module | tuple)


def _required(factory: Callable[..., object]) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return []  # of a builtin; calling it will tell
    return [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


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
        with redirect_stdout(sys.stderr):
            return call()
    except TritonkitError:
        raise
    except SystemExit as error:
        raise ModelError(
            f"{failure}: it ended the program; put what the script does when it is run under "
            'if __name__ == "__main__":'
        ) from error
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{failure} ({describe(error)}); install the package that has it beside tritonkit, or "
            "correct the import"
        ) from error
    except Exception as error:
        raise ModelError(
            f"{failure} ({describe(error)}{_place(error)}); mend it and try again"
        ) from error


def _place(error: Exception) -> str:
    """Where the error was raised, last in code that is no installed package's."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is this file
    own = [f for f in frames if "site-packages" not in f.filename and "<" not in f.filename]
    if not own or isinstance(error, SyntaxError):  # that one says its line itself
        return ""
    return f", {Path(own[-1].filename).name} line {own[-1].lineno}"


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let imports find modules in `folder`, after everything that is installed."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
