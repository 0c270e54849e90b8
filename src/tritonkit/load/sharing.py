"""Requests whose tensors lie in shared memory, where client and server are on one host."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tritonkit.client.address import parse_address
from tritonkit.client.client import Client
from tritonkit.client.connect import blocking_transport
from tritonkit.client.operations import Operation
from tritonkit.client.shared_memory import SharedRegion, lay_out, write
from tritonkit.client.spec import ModelSpec
from tritonkit.client.transport import InferRequest, Region, Tensor, Wanted
from tritonkit.errors import DeadlineError, InputError, RequestError, UnavailableError

_TIMEOUT_S = 5.0
_UNREGISTER_TRIES, _UNREGISTER_WAIT_S = 50, 0.01


class SharedRequests:
    """The requests of one run, for so many users at once.

    All inputs lie in one region, written once and only read after that. The outputs of each user
    have a place of their own in a second one, where their size is known from the model's metadata;
    those of dynamic dimensions or strings come over the wire, and so goes what has no bytes.

    InputError if the server does not take the regions: it is on another host or in a container
    with its own /dev/shm, or it is no Triton; or if there is no room for them.
    """

    def __init__(self, address: str, requests: Sequence[InferRequest], users: int):
        self._users = itertools.count()
        self._regions: list[SharedRegion] = []
        self._transport = blocking_transport(parse_address(address), tls=None, compression=None)
        try:
            with Client(address) as client:
                specs = {
                    (model, version): client.spec(model, version=version)
                    for model, version in dict.fromkeys((r.model, r.version) for r in requests)
                }
            self._requests = self._place_inputs(requests)
            self._sizes = [_output_bytes(r, specs[r.model, r.version]) for r in requests]
            names = dict.fromkeys(name for sizes in self._sizes for name in sizes)
            self._offsets, self._user_bytes = lay_out(
                {name: max(sizes.get(name, 0) for sizes in self._sizes) for name in names}
            )
            self._outputs = self._share(self._user_bytes * users)
            self._wanted = [
                r.outputs or tuple(map(Wanted, specs[r.model, r.version].outputs)) for r in requests
            ]
        except BaseException:
            self.close()
            raise

    def of_a_user(self) -> Callable[[int], InferRequest]:
        """The request of each payload for one more user, with its own place for the outputs."""
        start = next(self._users) * self._user_bytes

        def request(payload: int) -> InferRequest:
            sizes = self._sizes[payload]
            wanted = []
            for output in self._wanted[payload]:
                if self._outputs is not None and (size := sizes.get(output.name, 0)):
                    at = start + self._offsets[output.name]
                    output = output._replace(region=Region(self._outputs.name, size, at))
                wanted.append(output)
            return self._requests[payload]._replace(outputs=tuple(wanted))

        return request

    def close(self) -> None:
        """Have the server forget the regions, and remove them."""
        for region in self._regions:
            self._unregister(region)
            region.unlink()
        self._regions.clear()
        self._transport.close()

    def _place_inputs(self, requests: Sequence[InferRequest]) -> list[InferRequest]:
        sizes = {
            f"{payload} {tensor.name}": _bytes(tensor)
            for payload, request in enumerate(requests)
            for tensor in request.inputs
        }
        offsets, total = lay_out(sizes)
        region = self._share(total)
        placed = []
        for payload, request in enumerate(requests):
            inputs = []
            for tensor in request.inputs:
                key = f"{payload} {tensor.name}"
                if region is not None and sizes[key]:
                    assert not isinstance(tensor.data, Region)
                    write(region, offsets[key], tensor.data)
                    tensor = tensor._replace(data=Region(region.name, sizes[key], offsets[key]))
                inputs.append(tensor)
            placed.append(request._replace(inputs=tuple(inputs)))
        return placed

    def _share(self, byte_size: int) -> SharedRegion | None:
        """A region that the server was told of; None for no bytes."""
        if not byte_size:
            return None
        try:
            region = SharedRegion(byte_size)
        except UnavailableError as error:
            raise InputError(str(error)) from error
        self._regions.append(region)
        try:
            self._call(
                Operation.REGISTER,
                {"name": region.name, "key": region.key, "byte_size": byte_size, "offset": 0},
            )
        except (UnavailableError, DeadlineError):
            raise
        except RequestError as error:
            raise InputError(
                f"{self._transport.address} does not take shared memory of this host ({error}); "
                "send the tensors over the network"
            ) from error
        return region

    def _unregister(self, region: SharedRegion) -> None:
        """Triton lets go of a region a moment after it has sent the answer."""
        for _ in range(_UNREGISTER_TRIES):
            try:
                return self._call(Operation.UNREGISTER, {"name": region.name})
            except RequestError as error:
                if "in use" not in str(error):
                    return
            time.sleep(_UNREGISTER_WAIT_S)

    def _call(self, operation: Operation, what: Mapping[str, Any]) -> None:
        self._transport.call(operation, what, timeout_s=_TIMEOUT_S)


def _bytes(tensor: Tensor) -> int:
    """Those that can be put in shared memory; none if they lie there already."""
    return 0 if isinstance(tensor.data, Region) else memoryview(tensor.data).nbytes


def _output_bytes(request: InferRequest, spec: ModelSpec) -> dict[str, int]:
    """The outputs of a known size, and that. Of top classes, which are text, it is not known."""
    rows = request.inputs[0].shape[0] if spec.batches and request.inputs else 1
    wanted = request.outputs or tuple(map(Wanted, spec.outputs))
    sizes = spec.output_row_bytes
    return {w.name: rows * sizes[w.name] for w in wanted if w.name in sizes and not w.classes}
