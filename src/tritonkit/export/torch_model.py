"""A PyTorch module with what is needed to export it, checked by running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tritonkit.check.onnx_model import Arrays
from tritonkit.check.parity import DynamicAxes
from tritonkit.errors import ModelError, describe
from tritonkit.export.foreign import quiet
from tritonkit.export.forward import (
    call_arguments,
    flattened,
    in_order,
    is_plain,
    named_outputs,
    positional,
    wanted,
)
from tritonkit.export.inputs import BATCH, Examples, row_requests, two_rows
from tritonkit.export.program import Rows
from tritonkit.payloads import Payload
from tritonkit.signature import data_type_of

if TYPE_CHECKING:
    import torch

_OWN_EXAMPLES = "the example inputs"


@dataclass(frozen=True)
class TorchModel:
    """What a factory may return when a pair is not enough.

    inputs: example inputs, name → tensor or array; all with the same number of rows.
      They are passed to `module` by name where its `forward` has parameters of these names, and
      in the dict's order where it has none of them. Or a tensor, or a tuple of what `forward`
      takes by place. None: they are given otherwise (`--input`).
    dynamic_axes: further axes whose size may change; axis 0 always does, and is not listed. Axes
      of one name always have one size.
    output_names: names of what `module` returns. Left out: the way to each tensor in it, such as
      the keys of a dict, `output` for one tensor, `output_0`, `output_1`, … for several.
    """

    module: torch.nn.Module
    inputs: Any
    dynamic_axes: DynamicAxes | None = None
    output_names: Sequence[str] | None = None


@dataclass(frozen=True)
class TorchSource:
    """A checked PyTorch model: `module` is in eval mode on the CPU and runs on `inputs`.

    text: what the user wrote. inputs: example arrays of two rows or more. dynamic_axes: without
    axis 0. requests: real or drawn single requests; origin: which. rows: the fewest and the most
    rows that the module takes at once. exported: the torch.export program that `module` runs, if
    it is one. opset: the one to write; None: the exporter's own. against: what `run` runs.
    """

    text: str
    module: torch.nn.Module
    inputs: Arrays
    dynamic_axes: DynamicAxes
    output_names: tuple[str, ...]
    requests: tuple[Payload, ...]
    origin: str
    rows: Rows = (1, None)
    exported: torch.export.ExportedProgram | None = None
    opset: int | None = None
    against: str = "PyTorch"

    @property
    def fixed_batch(self) -> int | None:
        """The one batch size that the module takes; None if it takes several."""
        return self.rows[0] if self.rows[0] == self.rows[1] else None

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The module's own answer, output name → array, for any number of rows: where the module
        takes fewer it is run several times, where it takes more the last row is repeated.

        ModelError if it raises.
        """
        count = len(next(iter(inputs.values())))
        low, high = self.rows
        if low <= count <= (high or count):
            return self._run_once(inputs)
        answers = []
        for start in range(0, count, high or count):
            rows = {name: a[start : start + (high or count)] for name, a in inputs.items()}
            real = len(next(iter(rows.values())))
            size = max(real, low)
            outputs = self._run_once(of_rows(rows, size))
            for name, output in outputs.items():
                if not output.ndim or len(output) != size:
                    raise ModelError(
                        f"{self.text}: output '{name}' has shape {list(output.shape)} for a batch "
                        f"of {size}; a model to batch gives one row for each row it gets"
                    )
            answers.append({name: output[:real] for name, output in outputs.items()})
        return {name: np.concatenate([a[name] for a in answers]) for name in self.output_names}

    def _run_once(self, inputs: Arrays) -> dict[str, np.ndarray]:
        result = run_module(self.text, self.module, inputs)
        return _output_arrays(self.text, result, self.output_names)


def of_rows(inputs: Arrays, count: int) -> dict[str, np.ndarray]:
    """The first `count` rows of `inputs`; the last one again where there are fewer."""
    last = len(next(iter(inputs.values()))) - 1
    return {name: a[np.minimum(np.arange(count), last)] for name, a in inputs.items()}


def torch_source(
    model: TorchModel,
    text: str,
    given: Examples | None = None,
    *,
    opset: int | None = None,
    against: str = "PyTorch",
) -> TorchSource:
    """Check `model` by running it on its example inputs, or on those `given` instead.

    `model.module` is put in eval mode and on the CPU. ModelError says what is wrong.
    """
    module = _ready(text, model.module)
    axes = model.dynamic_axes or {}
    if given is None:
        given = own_examples(text, module, model.inputs)
    else:
        kept = {name: named for name, named in axes.items() if name in given.inputs}
        axes = {**kept, **given.dynamic_axes}
    refuse_text(text, given.inputs)
    given = replace(given, inputs=in_order(module, given.inputs))
    axes = _check_axes(text, given.inputs, axes)
    rows = _rows_taken(text, module, given)
    names = None if model.output_names is None else tuple(model.output_names)
    result = run_module(text, module, of_rows(given.inputs, rows[1] or 2))
    named = name_outputs(text, given.inputs, result, names)
    if not is_plain(result):
        module = flattened(module, as_tensors(given.inputs))
    source = TorchSource(
        *(text, module, given.inputs, axes, named, given.requests, given.origin, rows),
        opset=opset,
        against=against,
    )
    _require_half_sizes(source)
    return source


def own_examples(text: str, module: torch.nn.Module, inputs: object) -> Examples:
    """The examples that a model brings along, each row also a request."""
    arrays = _check_inputs(text, module, inputs)
    return Examples(two_rows(arrays), {}, row_requests(arrays), _OWN_EXAMPLES)


def no_inputs(what: str, names: Sequence[str]) -> ModelError:
    """For a model without example inputs: the option that mends it, with the inputs' own names."""
    options = " ".join(f"--input '{name}:float32[batch,…]'" for name in names or ["NAME"])
    takes = f"forward() takes {', '.join(names)}" if names else "forward() names nothing"
    return ModelError(
        f"{what} ({takes}); say what they are like: {options} with your dtypes and sizes, or give "
        "real ones: --input examples.npz"
    )


def name_outputs(
    text: str, inputs: Arrays, result: object, names: tuple[str, ...] | None
) -> tuple[str, ...]:
    """What the outputs are to be called. ModelError if they cannot be, or cannot be carried."""
    try:
        found = tuple(named_outputs(result))
    except ModelError as error:
        raise ModelError(f"{text}: {error}") from error
    if names is not None and not len(names) == len(set(names)) == len(found):
        raise ModelError(
            f"{text}: output_names are {list(names)} for a module that returns {len(found)} "
            f"({', '.join(found)}); give each output one name of its own"
        )
    named = found if names is None else names
    _output_arrays(text, result, named)
    for name in named:
        if name in inputs:
            raise ModelError(
                f"{text}: '{name}' is both an input and an output; rename the output "
                "(output_names, or --output-name for each)"
            )
        if not name or not name.isprintable():
            raise ModelError(f"{text}: {name!a} is no name for an output; give another")
    return named


def refuse_text(text: str, inputs: Arrays) -> None:
    """ModelError if an input holds strings."""
    for name, array in inputs.items():
        if data_type_of(array).name == "BYTES":
            raise ModelError(
                f"{text}: input '{name}' holds strings, which torch has not; encode it"
            )


def as_tensors(inputs: Arrays) -> dict[str, torch.Tensor]:
    """Private copies."""
    import torch

    return {name: torch.from_numpy(np.array(a, order="C")) for name, a in inputs.items()}


def run_module(text: str, module: torch.nn.Module, inputs: Arrays, origin: str = "") -> object:
    """What the module returns. ModelError if it raises; origin: where the inputs are from."""
    import torch

    try:
        args, kwargs = call_arguments(module, as_tensors(inputs))
        with torch.no_grad(), quiet():
            return module(*args, **kwargs)
    except ModelError as error:
        raise ModelError(f"{text}: {error}") from error
    except Exception as error:
        shapes = ", ".join(
            f"{name}:{data_type_of(a).name}{list(a.shape)}" for name, a in inputs.items()
        )
        remedy = "mend the module or its example inputs"
        if "random" in origin:
            remedy = (
                "mend --input (dim=SIZE sets a size to try), or, as the values were random, whole "
                "numbers 0 or 1, give real ones: --input NAME=FILE.npy"
            )
        elif origin not in ("", _OWN_EXAMPLES) and any(a.dtype == "f8" for a in inputs.values()):
            remedy = "mend --input; numpy makes float64: save array.astype(numpy.float32)"
        raise ModelError(
            f"{text}: the module fails on {shapes} ({describe(error)}); {remedy}"
        ) from error


def _ready(text: str, module: object) -> torch.nn.Module:
    """The module itself, in eval mode on the CPU."""
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"{text} gave a {type(module).__name__} as its module; return a torch.nn.Module"
        )
    inner = getattr(module, "_orig_mod", module)  # of torch.compile
    if isinstance(inner, torch.nn.DataParallel):
        inner = inner.module
    tensors = [*inner.parameters(), *inner.buffers()]
    for dtype in {t.dtype for t in tensors}:
        if dtype is torch.bfloat16 or "float8" in str(dtype):
            raise ModelError(
                f"{text}: the module has {str(dtype).removeprefix('torch.')} weights, which "
                "neither Triton's clients nor ONNX Runtime on a CPU take; return module.float(), "
                "or module.half()"
            )
    try:
        with quiet():
            ready: torch.nn.Module = inner.eval().to("cpu")
    except Exception as error:
        raise ModelError(
            f"{text}: the module cannot be moved to the CPU ({describe(error)}); load its weights "
            "there"
        ) from error
    return ready


def _check_inputs(text: str, module: torch.nn.Module, inputs: object) -> dict[str, np.ndarray]:
    import torch

    if inputs is None:
        raise no_inputs(f"{text} has no example inputs", wanted(module))
    if isinstance(inputs, torch.Tensor | np.ndarray):
        inputs = (inputs,)
    if isinstance(inputs, tuple | list) and inputs:
        named = positional(module)
        if len(named) < len(inputs):
            named = [f"input_{i}" for i in range(len(inputs))]
        inputs = dict(zip(named, inputs, strict=False))
    if not isinstance(inputs, Mapping) or not inputs:
        raise ModelError(f"{text} gave no example inputs; return a dict of name to tensor")
    arrays = {
        str(name): _to_array(text, f"input '{name}'", value) for name, value in inputs.items()
    }
    rows = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    for name, count in rows.items():
        if not count:
            raise ModelError(
                f"{text}: example input '{name}' has shape {list(arrays[name].shape)}; its first "
                "axis is the batch and needs a row or more"
            )
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"'{name}' {count}" for name, count in rows.items())
        raise ModelError(f"{text}: example inputs differ in rows ({counts}); give all the same")
    return arrays


def _check_axes(text: str, inputs: Arrays, axes: DynamicAxes) -> dict[str, dict[int, str]]:
    sizes: dict[str, int] = {}
    for name, named in axes.items():
        if name not in inputs:
            raise ModelError(f"{text}: dynamic_axes names '{name}', which is no input")
        for axis, dim in named.items():
            if dim == BATCH or not 0 < axis < inputs[name].ndim:
                raise ModelError(
                    f"{text}: dynamic axis {axis} ('{dim}') of '{name}' cannot be; the batch is "
                    f"axis 0 and not listed, further ones are 1 to {inputs[name].ndim - 1}"
                )
            size = inputs[name].shape[axis]
            if size < 2 or sizes.setdefault(dim, size) != size:
                raise ModelError(
                    f"{text}: dynamic axis {axis} ('{dim}') of example '{name}' has size {size}; "
                    f"give examples of one size, 2 or more, wherever '{dim}' is named"
                )
    return {name: dict(named) for name, named in axes.items()}


def _rows_taken(text: str, module: torch.nn.Module, given: Examples) -> Rows:
    """How many rows the module takes at once, by trying: any number, or only one number.

    ModelError if it fails on the examples, or takes several numbers but not 1.
    """
    count = len(next(iter(given.inputs.values())))

    def fails(rows: int) -> ModelError | None:
        try:
            run_module(text, module, of_rows(given.inputs, rows), given.origin)
        except ModelError as error:
            return error
        return None

    failure, alone = fails(count), fails(1)
    if failure is not None and alone is not None:
        raise failure
    if failure is not None:
        return 1, 1
    if alone is not None and fails(count + 1) is None:
        reason = describe(alone.__cause__ or alone)
        raise ModelError(
            f"{text}: the module takes {count} rows, but fails on a single one ({reason}), which "
            "a server also gets; mend it"
        )
    return (1, None) if alone is None else (count, count)


def _require_half_sizes(source: TorchSource) -> None:
    """ModelError unless the module also runs with each named dimension at half its size."""
    sizes: dict[str, int] = {}
    halves = dict(source.inputs)
    for name, named in source.dynamic_axes.items():
        for axis, dim in named.items():
            sizes[dim] = halves[name].shape[axis]
            halves[name] = halves[name].take(range(sizes[dim] // 2), axis=axis)
    if not sizes:
        return
    try:
        source.run(halves)
    except ModelError as error:
        text = ", ".join(f"'{dim}' at {size} but not {size // 2}" for dim, size in sizes.items())
        raise ModelError(
            f"{error}; it takes {text}: leave the dimension fixed if it may not vary, or give an "
            "example of which it takes half too"
        ) from error


def _output_arrays(text: str, result: object, names: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        tensors = named_outputs(result)
    except ModelError as error:
        raise ModelError(f"{text}: {error}") from error
    if len(tensors) != len(names):
        raise ModelError(
            f"{text}: the module returned {len(names)} outputs before and {len(tensors)} now; "
            "return the same ones always"
        )
    return {
        name: _to_array(text, f"output '{name}'", tensor)
        for name, tensor in zip(names, tensors.values(), strict=True)
    }


def _to_array(text: str, what: str, value: object) -> np.ndarray:
    """A private CPU array of a dtype that Triton carries."""
    import torch

    if isinstance(value, torch.Tensor) and value.dtype is torch.bfloat16:
        raise ModelError(
            f"{text}: {what} cannot be used: Triton's clients carry no bfloat16 arrays; "
            "convert it with .float() or .half()"
        )
    try:
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        if not isinstance(array, np.ndarray):
            raise ModelError(f"it is a {type(array).__name__}, not a tensor or array")
        if data_type_of(array).name == "BYTES":
            raise ModelError("it holds strings, which torch has not")
    except (TypeError, RuntimeError, ModelError) as error:  # sparse, quantised, meta: not numpy's
        why = str(error) if isinstance(error, ModelError) else describe(error)
        raise ModelError(f"{text}: {what} cannot be used ({why}); convert it") from error
    return array.copy()
