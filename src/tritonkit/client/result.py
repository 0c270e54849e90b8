"""What came back: the outputs of an answer as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from tritonkit.binary import from_bytes
from tritonkit.client.transport import InferResponse, Parameter, Region, Tensor
from tritonkit.errors import InputError, ModelError, RequestError, request_error
from tritonkit.signature import KSERVE_TYPES, data_type, data_type_of


class InferResult(Mapping[str, np.ndarray]):
    """The outputs by name, in the server's order: `result["score"]`. Cannot be changed.

    The arrays are read-only views of the answer, which they keep alive, and need not be aligned;
    `.copy()` gives one that can be written to. Those of BYTES hold objects of type bytes.
    """

    __slots__ = ("_outputs", "_response")

    # Mapping compares by contents, but arrays have no single truth value.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(self, response: InferResponse):
        """ProtocolError if an output is not what the answer says it is."""
        self._response = response
        self._outputs = {t.name: _read_tensor(response.model, t) for t in response.outputs}
        if len(self._outputs) < len(response.outputs):
            raise _protocol_error(response.model, "an output came twice")

    @property
    def model(self) -> str:
        """The model that answered."""
        return self._response.model

    @property
    def version(self) -> str:
        """Its version, as the server says; empty if it does not."""
        return self._response.version

    @property
    def id(self) -> str:
        """The request's id."""
        return self._response.id

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """What the server said besides the outputs."""
        return self._response.parameters

    @property
    def only(self) -> np.ndarray:
        """The single output. InputError if there is not exactly one."""
        if len(self._outputs) != 1:
            raise InputError(
                f"{self._label} answered with {len(self._outputs)} outputs; "
                f"take one by its name: result[name] with one of {self._names}"
            )
        return next(iter(self._outputs.values()))

    def replaced(self, outputs: Mapping[str, np.ndarray]) -> InferResult:
        """The same answer with other outputs."""
        result = InferResult(self._response._replace(outputs=()))
        result._outputs = {}
        for name, array in outputs.items():
            result._outputs[name] = view = array.view()
            view.flags.writeable = False
        return result

    def single_row(self) -> InferResult:
        """The same answer without the batch axis. ProtocolError if an output has not one row."""
        for name, array in self._outputs.items():
            if array.shape[:1] != (1,):
                raise _protocol_error(
                    self._label,
                    f"output '{name}' has shape {[*array.shape]}, but one row was sent; "
                    "send it with its batch axis to have the output as it is",
                )
        return self.replaced({name: array[0, ...] for name, array in self._outputs.items()})

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (self._response._replace(outputs=()), self._outputs)

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return self._outputs[name]
        except KeyError:
            raise KeyError(f"no output '{name}' of {self._label}; it has {self._names}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        tensors = ", ".join(
            f"{name} {data_type_of(a).name}[{','.join(map(str, a.shape))}]"
            for name, a in self._outputs.items()
        )
        return f"<InferResult {self._label}: {tensors}>"

    @property
    def _label(self) -> str:
        return f"{self.model}/{self.version}" if self.version else self.model

    @property
    def _names(self) -> str:
        return ", ".join(self._outputs) or "none"


def _restore(response: InferResponse, outputs: Mapping[str, np.ndarray]) -> InferResult:
    return InferResult(response).replaced(outputs)


class Classification(NamedTuple):
    """One of the top classes that were asked for instead of an output's values.

    index: the class's place in the output. label: empty where the model has no labels.
    """

    score: float
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    label: str


def read_classes(array: np.ndarray) -> np.ndarray:
    """Triton's `score:index[:label]` texts (bytes) as an object array of Classification.

    The shape stays: rows, then the classes in falling order of score. ProtocolError if an element
    is no such text.
    """
    classes = np.empty(array.size, np.object_)
    for i, text in enumerate(array.ravel().tolist()):
        try:
            score, index, *label = text.decode("utf-8", errors="replace").split(":", 2)
            classes[i] = Classification(float(score), int(index), "".join(label))
        except (ValueError, AttributeError) as error:
            raise request_error(
                "protocol", f"a classification is 'score:index:label', but {text!r:.100} came"
            ) from error
    return classes.reshape(array.shape)


def _read_tensor(model: str, tensor: Tensor) -> np.ndarray:
    name, datatype, shape, data, _ = tensor
    if isinstance(data, Region):
        raise _protocol_error(model, f"output '{name}' is in shared memory, unasked")
    try:
        dtype = KSERVE_TYPES.get(datatype) or data_type(datatype)
        return from_bytes(data, dtype, shape)
    except ModelError as error:
        raise _protocol_error(model, f"output '{name}' cannot be read: {error}") from error
    except ValueError as error:
        what = f"output '{name}' is not {datatype}{[*shape]}, as the server says: {error}"
        raise _protocol_error(model, what) from error


def _protocol_error(model: str, what: str) -> RequestError:
    return request_error("protocol", f"{model}: {what}")
