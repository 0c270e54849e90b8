"""A model saved by `torch.export.save`: a `.pt2` file."""

from __future__ import annotations

import ast
import json
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonkit.check.onnx_model import Arrays
from tritonkit.check.parity import DynamicAxes
from tritonkit.errors import ModelError, describe
from tritonkit.export.foreign import quiet

if TYPE_CHECKING:
    import torch

Rows = tuple[int, int | None]
"""The fewest and the most rows that a module takes at once; None: no end."""


@dataclass(frozen=True)
class Program:
    """A loaded program. module: takes the tensors of `inputs` in their order, and runs it.

    examples: those stored with it, by name; None if there are none. axes: (input, axis) → the
    name and smallest size of each that varies, without axis 0. rows: what it takes at axis 0.
    """

    path: Path
    exported: torch.export.ExportedProgram
    module: torch.nn.Module
    inputs: tuple[str, ...]
    examples: dict[str, torch.Tensor] | None
    axes: Mapping[tuple[str, int], tuple[str, int]]
    rows: Rows

    def axes_for(self, inputs: Arrays, named: DynamicAxes) -> dict[str, dict[int, str]]:
        """Input → axis → name, of the axes that `inputs` can also be cut in half at.

        named: names that the user gives; ModelError where the program has the axis fixed.
        """
        for name, axes in named.items():
            for axis, dim in axes.items():
                if (name, axis) not in self.axes:
                    raise ModelError(
                        f"{self.path}: axis {axis} ('{dim}') of '{name}' is fixed or bound to "
                        f"another in the program; give a size in its place"
                    )
        chosen: dict[str, dict[int, str]] = {}
        renamed = {
            self.axes[n, axis][0]: dim for n, axes in named.items() for axis, dim in axes.items()
        }
        for (name, axis), (dim, smallest) in self.axes.items():
            if inputs[name].shape[axis] // 2 >= smallest:
                chosen.setdefault(name, {})[axis] = renamed.get(dim, dim)
        return chosen


def load_program(path: Path) -> Program:
    """Load a .pt2 file without unpickling anything but tensors. ModelError if that cannot be done.

    Such a file also holds expressions that torch evaluates as Python: one with any but arithmetic
    is refused. Functions that the program calls are torch's operators: torch sees to that.
    """
    import torch

    _require_arithmetic(path)
    try:
        with quiet(), _tensors_only():
            exported = torch.export.load(path)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds pickled objects that are not tensors, and to unpickle them would run "
            "whatever code they hold; save the program without them"
        ) from error
    except Exception as error:
        raise ModelError(
            f"{path}: torch.export.load cannot read it ({describe(error)}); save it again with "
            f"torch {torch.__version__}, or give a factory"
        ) from error
    # They are run as Python, and say which inputs the graph is right for; parity is measured.
    exported._guards_code = []
    names, constants = _leaves(path, exported)
    shapes = _shapes(exported, names)
    rows = _rows(path, exported, shapes)
    module = _runner(path, exported, constants)
    stored = _stored(exported, constants)
    examples = None if stored is None else dict(zip(names, stored, strict=True))
    axes = _own_axes(exported, shapes)
    return Program(path, exported, module, tuple(names), examples, axes, rows)


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Have every torch.load inside refuse whatever is not a tensor: torch's own calls would, when
    that fails, unpickle the file without a check.
    """
    forced = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
    before = {name: os.environ.get(name) for name in forced}
    os.environ.update(forced)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _require_arithmetic(path: Path) -> None:
    """ModelError unless all expressions for sizes are of numbers, symbols and known functions."""
    try:
        with zipfile.ZipFile(path) as archive:
            texts = [archive.read(n) for n in archive.namelist() if n.endswith(".json")]
        expressions = {text for raw in texts for text in _expressions(json.loads(raw))}
    except (zipfile.BadZipFile, ValueError, OSError, RecursionError) as error:
        raise ModelError(
            f"{path} is a damaged .pt2 file ({describe(error)}); save it again"
        ) from error
    for text in expressions:
        if not _is_arithmetic(text):
            raise ModelError(
                f"{path} has the expression {text!a:.80}, which is no arithmetic; torch would run "
                "it as Python, so the file is not loaded"
            )


def _expressions(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "expr_str" and isinstance(inner, str):
                yield inner
            else:
                yield from _expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _expressions(inner)


def _is_arithmetic(text: str) -> bool:
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    names: set[int] = set()  # the only texts: what a symbol is called
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if not (isinstance(node.func, ast.Name) and node.func.id[:1].isupper()):
                return False
            if node.func.id == "Symbol" and len(node.args) == 1:
                names.add(id(node.args[0]))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in names or not node.value.isidentifier():
                return False
        elif not isinstance(node, _ARITHMETIC):
            return False
    return True


_ARITHMETIC = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.keyword),
    *(ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop, ast.BoolOp, ast.boolop),
    *(ast.Compare, ast.cmpop),
)


def _leaves(
    path: Path, exported: torch.export.ExportedProgram
) -> tuple[list[str], list[tuple[bool, Any]]]:
    """The names of its tensor inputs; and of each flattened input: is it a tensor, its constant."""
    from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument

    names: list[str] = []
    constants: list[tuple[bool, Any]] = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        if isinstance(spec.arg, TensorArgument):
            names.append(spec.arg.name)
            constants.append((True, None))
        elif isinstance(spec.arg, ConstantArgument):
            constants.append((False, spec.arg.value))
        else:
            raise ModelError(
                f"{path}: its input '{spec.arg.name}' is a number that may vary; export the "
                "program with a tensor in its place"
            )
    if not names:
        raise ModelError(f"{path}: its program takes no tensor; export one that does")
    return names, constants


def _shapes(exported: torch.export.ExportedProgram, names: list[str]) -> dict[str, list[Any]]:
    """Input → its sizes: numbers, or sympy expressions."""
    import torch

    found = {n.name: n.meta["val"].shape for n in exported.graph.nodes if n.name in names}
    return {
        name: [s.node.expr if isinstance(s, torch.SymInt) else s for s in found[name]]
        for name in names
    }


def _rows(path: Path, exported: torch.export.ExportedProgram, shapes: dict[str, list[Any]]) -> Rows:
    first = {name: shape[0] if shape else None for name, shape in shapes.items()}
    sizes = set(first.values())
    if len(sizes) > 1 or None in sizes:
        text = ", ".join(f"'{n}' {'none' if s is None else s}" for n, s in first.items())
        raise ModelError(
            f"{path}: its inputs differ in their first size ({text}), which has to be the batch of "
            "all; export the program with one dynamic batch"
        )
    size = sizes.pop()
    if isinstance(size, int):
        return size, size
    low, high = _range(exported, size)
    return max(low, 1), high


def _range(exported: torch.export.ExportedProgram, size: Any) -> Rows:
    limits = exported.range_constraints.get(size)
    if limits is None:
        return 1, None
    high = limits.upper
    return int(limits.lower), int(high) if high.is_finite and high < 2**31 else None


def _own_axes(
    exported: torch.export.ExportedProgram, shapes: dict[str, list[Any]]
) -> dict[tuple[str, int], tuple[str, int]]:
    """(Input, axis) → the name and the smallest size of each axis beyond the first whose size is
    a symbol of its own.
    """
    axes: dict[tuple[str, int], tuple[str, int]] = {}
    called: dict[Any, str] = {}
    for name, shape in shapes.items():
        for axis, size in enumerate(shape[1:], start=1):
            if not isinstance(size, int) and size.is_symbol and size != shape[0]:
                dim = called.setdefault(size, f"{name}_dim_{axis}")
                axes[name, axis] = dim, max(_range(exported, size)[0], 1)
    return axes


def _runner(
    path: Path, exported: torch.export.ExportedProgram, constants: list[tuple[bool, Any]]
) -> torch.nn.Module:
    import torch
    from torch.utils import _pytree

    try:
        program = exported.module()
    except Exception as error:
        raise ModelError(
            f"{path}: it cannot be run ({describe(error)}); export it again"
        ) from error

    class Running(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.program = program.to("cpu")

        def forward(self, *tensors: torch.Tensor) -> Any:
            given = iter(tensors)
            leaves = [next(given) if is_tensor else value for is_tensor, value in constants]
            args, kwargs = _pytree.tree_unflatten(leaves, exported.call_spec.in_spec)
            return self.program(*args, **kwargs)

    return Running()


def _stored(
    exported: torch.export.ExportedProgram, constants: list[tuple[bool, Any]]
) -> list[torch.Tensor] | None:
    from torch.utils import _pytree

    if exported.example_inputs is None:
        return None
    leaves = _pytree.tree_leaves(exported.example_inputs)
    if len(leaves) != len(constants):
        return None
    return [leaf for leaf, (is_tensor, _) in zip(leaves, constants, strict=True) if is_tensor]
