"""The models of a FakeTransport: a Python function behind the checks that Triton makes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from tritonkit.binary import from_bytes, to_bytes
from tritonkit.client.transport import InferRequest, InferResponse, Region, Tensor, Wanted
from tritonkit.errors import InputError, RequestError, request_error
from tritonkit.signature import TensorSpec, data_type

_SPEC = re.compile(r"\s*(?P<name>\S+?)\s*:\s*(?P<dtype>\w+)\s*\[(?P<shape>[^\[\]]*)\]\s*")
_DIM = re.compile(r"-1|[0-9]+|[A-Za-z_]\w*")


def parse_spec(text: str) -> TensorSpec:
    """Read `name:FP32[-1,512]`; -1 or a name is a dynamic dimension. InputError if it is none."""
    match = _SPEC.fullmatch(text)
    dims = (
        [d.strip() for d in match["shape"].split(",")] if match and match["shape"].strip() else []
    )
    if not match or not all(_DIM.fullmatch(d) for d in dims):
        raise InputError(f"'{text}' is not a tensor; give name:DTYPE[dims], such as x:FP32[-1,512]")
    return TensorSpec(
        match["name"],
        data_type(match["dtype"]),
        tuple(
            f"dim_{i}" if d == "-1" else int(d) if d.isdecimal() else d for i, d in enumerate(dims)
        ),
    )


class FakeModel:
    """A model, and the function that stands for it.

    inputs, outputs: `name:DTYPE[dims]`, with the batch dimension, -1, if max_batch_size is not 0.
    run: gets the inputs by name, as numpy arrays that are its own (BYTES: objects of type bytes),
    and returns the outputs by name; zeros if it is not given. A generator function makes a
    decoupled model, and each mapping that it yields is an answer. What it raises fails the
    request: a RequestError as it is, all else as "failed". InputError if the tensors make no
    model.
    """

    def __init__(
        self,
        inputs: Sequence[str | TensorSpec],
        outputs: Sequence[str | TensorSpec],
        max_batch_size: int = 0,
        run: Callable[..., Any] | None = None,
        *,
        version: str = "1",
    ):
        self.max_batch_size = max_batch_size
        self.version = version
        self.inputs = self._specs(inputs)
        self.outputs = self._specs(outputs)
        self.decoupled = inspect.isgeneratorfunction(run)
        self._run: Callable[..., Any] = run or self._zeros

    def _specs(self, given: Sequence[str | TensorSpec]) -> dict[str, TensorSpec]:
        if isinstance(given, str):
            raise InputError(f"inputs and outputs are lists; give ['{given}']")
        specs = [parse_spec(s) if isinstance(s, str) else s for s in given]
        if not specs or len({s.name for s in specs}) < len(specs):
            raise InputError("a model has inputs and outputs, at least one of each, no name twice")
        for spec in specs:
            if self.max_batch_size and (not spec.shape or isinstance(spec.shape[0], int)):
                raise InputError(f"{spec}: max_batch_size needs a batch dimension; make it [-1,…]")
        return {s.name: s for s in specs}

    def _zeros(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Its outputs, empty; dynamic dimensions other than the batch are 1."""
        rows = len(next(iter(inputs.values()))) if self.max_batch_size else 1
        zeros = {}
        for name, spec in self.outputs.items():
            sizes = [1 if d < 0 else d for d in _sizes(spec)]
            shape = (rows, *sizes[1:]) if self.max_batch_size else sizes
            empty: Any = b"" if spec.dtype.name == "BYTES" else 0
            zeros[name] = np.full(shape, empty, spec.dtype.numpy)
        return zeros

    def metadata(self, name: str) -> dict[str, Any]:
        """KServe's metadata of it under this name."""

        def tensors(specs: Mapping[str, TensorSpec]) -> list[dict[str, Any]]:
            return [
                {"name": s.name, "datatype": s.dtype.name, "shape": _sizes(s)}
                for s in specs.values()
            ]

        return {
            **{"name": name, "versions": [self.version], "platform": "fake"},
            **{"inputs": tensors(self.inputs), "outputs": tensors(self.outputs)},
        }

    def config(self, name: str) -> dict[str, Any]:
        """As much of a ModelConfig as it has."""
        first = 1 if self.max_batch_size else 0

        def tensors(specs: Mapping[str, TensorSpec]) -> list[dict[str, Any]]:
            return [
                {"name": s.name, "data_type": s.dtype.triton, "dims": _sizes(s)[first:]}
                for s in specs.values()
            ]

        return {
            **{"name": name, "platform": "", "backend": "fake"},
            **{"max_batch_size": self.max_batch_size},
            **{"input": tensors(self.inputs), "output": tensors(self.outputs)},
            "model_transaction_policy": {"decoupled": self.decoupled},
        }

    def rows(self, request: InferRequest) -> int:
        """How many inferences Triton counts for a request."""
        return request.inputs[0].shape[0] if self.max_batch_size else 1

    def decode(self, request: InferRequest) -> dict[str, np.ndarray]:
        """Its inputs as arrays. RejectedError, in Triton's words, for what Triton rejects."""
        model = request.model
        arrays: dict[str, np.ndarray] = {}
        for tensor in request.inputs:
            if tensor.name in arrays:
                raise _invalid(f"input '{tensor.name}' already exists in request")
            if tensor.name not in self.inputs:
                raise _invalid(f"unexpected inference input '{tensor.name}' for model '{model}'")
            arrays[tensor.name] = self._decode(model, tensor)
        if missing := [f"'{name}'" for name in self.inputs if name not in arrays]:
            raise _invalid(
                f"expected {len(self.inputs)} inputs but got {len(arrays)} inputs for model "
                f"'{model}'. Missing required input(s) [{','.join(missing)}]. Please provide all "
                "required input(s)."
            )
        if self.max_batch_size:
            rows = self.rows(request)
            if other := next((t for t in request.inputs if t.shape[0] != rows), None):
                raise _invalid(
                    f"input '{other.name}' batch size does not match other inputs for '{model}'"
                )
            if not 0 < rows <= self.max_batch_size:
                limit = f"<= {self.max_batch_size}" if rows else ">= 1"
                raise _invalid(f"inference request batch-size must be {limit} for '{model}'")
        for wanted in request.outputs:
            if wanted.name not in self.outputs:
                raise _invalid(f"unexpected inference output '{wanted.name}' for model '{model}'")
            if wanted.region is not None:
                raise _no_region(wanted.region)
        return arrays

    def _decode(self, model: str, tensor: Tensor) -> np.ndarray:
        name, spec = tensor.name, self.inputs[tensor.name]
        if tensor.datatype != spec.dtype.name:
            raise _invalid(
                f"inference input '{name}' data-type is '{tensor.datatype}', but model '{model}' "
                f"expects '{spec.dtype.name}'"
            )
        if not _fits(tensor.shape, spec):
            expected, got = (",".join(map(str, s)) for s in (_sizes(spec), tensor.shape))
            raise _invalid(
                f"unexpected shape for input '{name}' for model '{model}'. Expected [{expected}], "
                f"got [{got}]"
            )
        if isinstance(tensor.data, Region):
            raise _no_region(tensor.data)
        try:
            return from_bytes(tensor.data, spec.dtype, tensor.shape).copy()
        except ValueError as error:
            raise _invalid(
                f"input byte size mismatch for input '{name}' for model '{model}': {error}"
            ) from error

    def run(
        self, request: InferRequest, arrays: Mapping[str, np.ndarray]
    ) -> Generator[InferResponse]:
        """Run the function; yields its answer, or each of a decoupled model's.

        ServerFaultError if it raises, or returns what the model does not.
        """
        try:
            if not self.decoupled:
                yield self._answer(request, self._run(**arrays))
                return
            with closing(self._run(**arrays)) as answers:
                for returned in answers:
                    yield self._answer(request, returned)
        except RequestError:
            raise
        except Exception as error:
            raise _fault(request.model, f"{type(error).__name__}: {error}") from error

    def _answer(self, request: InferRequest, returned: Any) -> InferResponse:
        model = request.model
        if not isinstance(returned, Mapping):
            raise _fault(model, f"it returned {type(returned).__name__}, not a dict of its outputs")
        if returned.keys() != self.outputs.keys():
            names = ", ".join(map(str, returned)) or "nothing"
            raise _fault(model, f"it returned {names}, but has outputs {', '.join(self.outputs)}")
        arrays = {n: self._checked(request, s, returned[n]) for n, s in self.outputs.items()}
        tensors = tuple(
            self._encode(arrays[wanted.name], wanted)
            for wanted in request.outputs or map(Wanted, self.outputs)
        )
        return InferResponse(model, self.version, tensors, request.id)

    def _checked(self, request: InferRequest, spec: TensorSpec, returned: Any) -> np.ndarray:
        wanted = spec.dtype.numpy
        if spec.dtype.name == "BYTES":
            # As objects: numpy would make a list of str and bytes all the one or all the other.
            array = returned if isinstance(returned, np.ndarray) else np.array(returned, wanted)
            castable = array.dtype.kind in "OSU"
        else:
            array = np.asarray(returned)
            castable = np.can_cast(array.dtype, wanted, "same_kind")
        rows = self.rows(request)
        if (
            not castable
            or not _fits(array.shape, spec)
            or (self.max_batch_size and array.shape[0] != rows)
        ):
            of = f" for {rows} rows" if self.max_batch_size else ""
            raise _fault(
                request.model, f"it returned {array.dtype}{list(array.shape)} as {spec}{of}"
            )
        return array.astype(wanted)

    def _encode(self, array: np.ndarray, wanted: Wanted) -> Tensor:
        dtype = self.outputs[wanted.name].dtype
        if wanted.classes:
            array, dtype = self._classified(array, wanted.classes), data_type("BYTES")
        return Tensor(wanted.name, dtype.name, array.shape, bytes(to_bytes(array, dtype)))

    def _classified(self, array: np.ndarray, classes: int) -> np.ndarray:
        """The top classes of each row, as Triton's classification extension writes them."""
        rows = array.reshape(len(array) if self.max_batch_size else 1, -1)
        top = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :classes]
        texts = [[f"{row[i]:f}:{i}" for i in best] for row, best in zip(rows, top, strict=True)]
        return np.array(texts if self.max_batch_size else texts[0], dtype=np.object_)


def _sizes(spec: TensorSpec) -> list[int]:
    return [-1 if isinstance(d, str) else d for d in spec.shape]


def _fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    return len(shape) == len(spec.shape) and all(
        isinstance(want, str) or got == want for got, want in zip(shape, spec.shape, strict=True)
    )


def _invalid(message: str) -> RequestError:
    return request_error("invalid", message)


def _no_region(region: Region) -> RequestError:
    return request_error("not_found", f"Unable to find shared memory region: '{region.name}'")


def _fault(model: str, reason: str) -> RequestError:
    return request_error(
        "failed", f"Failed to process the request(s) for model '{model}', message: {reason}"
    )
