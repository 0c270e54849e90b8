"""The inputs and outputs of a model as config.pbtxt states them, and as they go over the wire.

Triton has no empty dims: a tensor that has nothing but its batch axis, [n] in the model, is [n,1]
on the wire, and a scalar of a model without batches is [1]. A model repository and all servers
speak wire shapes, an export and ONNX Runtime the model's own; `to_wire` and `to_model` translate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tritonkit.errors import ModelError
from tritonkit.signature import DataType, TensorSpec


@dataclass(frozen=True)
class ConfigTensor:
    """One input or output as config.pbtxt states it.

    dims: those of the model, -1 where dynamic; without the batch dimension if the model's
    max_batch_size is > 0. () is a tensor that has nothing but its batch dimension.
    labels: for an output, the file in the model's folder that names its elements, one a line.
    """

    name: str
    dtype: DataType
    dims: tuple[int, ...]
    labels: str = ""

    @property
    def wire_dims(self) -> tuple[int, ...]:
        """The dims of requests and answers. Triton has no empty ones: () goes as [1]."""
        return self.dims or (1,)

    def wire_spec(self, batched: bool) -> TensorSpec:
        """The tensor of requests and answers, with the batch axis if the model has one."""
        dims = (dim if dim >= 0 else f"dim_{i}" for i, dim in enumerate(self.wire_dims, batched))
        return TensorSpec(self.name, self.dtype, (*(["batch"] if batched else []), *dims))


def to_wire(
    arrays: Mapping[str, np.ndarray], tensors: Sequence[ConfigTensor]
) -> dict[str, np.ndarray]:
    """Arrays of the model's, as requests and answers have them. What is of neither stays."""
    bare = {tensor.name: 0 if tensor.dims else 1 for tensor in tensors}
    return {
        name: array[..., np.newaxis] if array.ndim == bare.get(name) else array
        for name, array in arrays.items()
    }


def to_model(
    arrays: Mapping[str, np.ndarray], inputs: Sequence[TensorSpec]
) -> dict[str, np.ndarray]:
    """The arrays of a request, as the model takes them. inputs: as its ONNX file declares them."""
    ranks = {tensor.name: len(tensor.shape) for tensor in inputs}
    return {
        name: array[..., 0] if name in ranks and array.shape[ranks[name] :] == (1,) else array
        for name, array in arrays.items()
    }


def config_tensors(
    model: str, tensors: Sequence[TensorSpec], batched: bool
) -> tuple[ConfigTensor, ...]:
    """The tensors of a model's signature, with or without its batch axis.

    A scalar of a model without batches has dims [1], the only ones that Triton takes for it.
    ModelError for a dimension of 0, which Triton has not.
    """
    return tuple(_config_tensor(model, tensor, batched) for tensor in tensors)


def tensor_refusals(
    inputs: Sequence[ConfigTensor], outputs: Sequence[ConfigTensor], max_batch_size: int
) -> Iterator[str]:
    """What Triton would not load. Source: ValidateIOShape() in core, model_config_utils.cc."""
    for tensor in (*inputs, *outputs):
        if not tensor.dims and max_batch_size == 0:
            yield f"tensor '{tensor.name}' has no dims; give it dims [1]"
        for dim in tensor.dims:
            if dim == 0 or dim < -1:
                yield f"tensor '{tensor.name}' has a dimension of {dim}; give it 1 or more, or -1"


def _config_tensor(model: str, tensor: TensorSpec, batched: bool) -> ConfigTensor:
    dims = tuple(d if isinstance(d, int) else -1 for d in tensor.shape[1 if batched else 0 :])
    if 0 in dims:
        raise ModelError(
            f"model '{model}': tensor {tensor} has a dimension of 0, which Triton cannot serve; "
            "give it a dimension of 1 or more, or a dynamic one"
        )
    if not batched and not dims:
        dims = (1,)
    return ConfigTensor(tensor.name, tensor.dtype, dims)
