"""Which tensors of a request go through shared memory instead of over the wire, and what the
servers have been told of that memory.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tritonkit.client.operations import Operation
from tritonkit.client.pool import Member
from tritonkit.client.shared_memory import RegionPool, SharedRegion, lay_out, read, write
from tritonkit.client.spec import ModelSpec
from tritonkit.client.transport import InferRequest, InferResponse, Region, Tensor, Wanted
from tritonkit.errors import DeadlineError, RequestError, UnavailableError

SharedMemory = bool | Literal["auto"]

Call = Callable[[Member, Operation, dict[str, Any], float | None], Awaitable[Any]]
"""Carries out an operation on one server within so many seconds."""

WORTH_BYTES = 128 * 1024
"""A smaller tensor goes over the wire. Measured: benchmarks/client.py, `crossover`."""

# A request that was given up may read and write its region for a while yet: until then no server
# is told to unmap it.
_QUARANTINE_S = 60.0
_UNREGISTER_TIMEOUT_S = 1.0
_UNREGISTER_TRIES, _UNREGISTER_WAIT_S = 50, 0.01


@dataclass(frozen=True)
class Placed:
    """A request whose large tensors lie in `region`: inputs written, room left for outputs."""

    request: InferRequest
    region: SharedRegion

    def collect(self, response: InferResponse) -> InferResponse:
        """The answer with copies of the outputs that lie in the region."""
        outputs = tuple(
            t._replace(data=read(self.region, t.data.offset, t.data.byte_size))
            if isinstance(t.data, Region)
            else t
            for t in response.outputs
        )
        return response._replace(outputs=outputs)


def place(request: InferRequest, spec: ModelSpec, rows: int, pool: RegionPool) -> Placed | None:
    """Write the large inputs into a region of `pool`, and ask for the large outputs there.

    Only outputs whose size is known before they are computed. None if nothing is large enough.
    """
    sizes = {f"input {t.name}": len(t.data) for t in request.inputs if _is_large(t)}
    wanted = request.outputs or tuple(Wanted(t.name) for t in spec.signature.outputs)
    for output in wanted:
        size = 0 if output.classes else rows * spec.output_row_bytes.get(output.name, 0)
        if size >= WORTH_BYTES:
            sizes[f"output {output.name}"] = size
    if not sizes:
        return None
    offsets, total = lay_out(sizes)
    region = pool.take(total)

    def where(label: str) -> Region:
        return Region(region.name, sizes[label], offsets[label])

    inputs = []
    for tensor in request.inputs:
        label = f"input {tensor.name}"
        if label in sizes:
            assert not isinstance(tensor.data, Region)
            write(region, offsets[label], tensor.data)
            tensor = tensor._replace(data=where(label))
        inputs.append(tensor)
    outputs = tuple(
        w._replace(region=where(f"output {w.name}")) if f"output {w.name}" in sizes else w
        for w in wanted
    )
    return Placed(request._replace(inputs=tuple(inputs), outputs=outputs), region)


def _is_large(tensor: Tensor) -> bool:
    return not isinstance(tensor.data, Region) and len(tensor.data) >= WORTH_BYTES


class SharedTensors:
    """The shared memory of one client. mode: True, or "auto": only with servers at a loopback
    address, and by wire when there is no room for a region, or a server does not take it (in a
    container it may see another /dev/shm).
    """

    def __init__(
        self,
        mode: Literal[True, "auto"],
        members: Sequence[Member],
        call: Call,
        sleep: Callable[[float], Awaitable[None]],
    ):
        self._mode = mode
        self._members = members
        self._call = call
        self._sleep = sleep
        if mode == "auto":
            for member in members:
                member.shares_memory = member.is_loopback
        self._regions = RegionPool()
        self._quarantine: deque[tuple[float, str]] = deque()

    def is_of_use(self, request: InferRequest, spec: ModelSpec, rows: int) -> bool:
        """Whether `place` has anything to do; False for most requests, at little cost."""
        if self._quarantine or rows * spec.largest_output_row_bytes >= WORTH_BYTES:
            return True
        for tensor in request.inputs:  # noqa: SIM110  any() costs twice this
            if _is_large(tensor):
                return True
        return False

    async def place(self, request: InferRequest, spec: ModelSpec, rows: int) -> Placed | None:
        """The request with its large tensors in a region. None if it had better go by wire."""
        if not any(m.shares_memory for m in self._members):
            return None
        while self._quarantine and self._quarantine[0][0] <= time.monotonic():
            await self._forget(self._quarantine.popleft()[1])
        try:
            return place(request, spec, rows, self._regions)
        except UnavailableError:
            if self._mode == "auto":
                return None
            raise

    async def register(self, member: Member, placed: Placed, timeout_s: float | None) -> bool:
        """Make sure that the server knows the region. False if it does not take any."""
        region = placed.region
        if not member.shares_memory or region.name in member.regions:
            return member.shares_memory
        what = {"name": region.name, "key": region.key, "byte_size": region.byte_size, "offset": 0}
        try:
            await self._call(member, Operation.REGISTER, what, timeout_s)
        except (UnavailableError, DeadlineError):
            raise
        except RequestError as error:
            # It knows it if only the connection was lost, not the server.
            if "already" not in str(error):
                if self._mode != "auto":
                    raise
                member.shares_memory = False
                return False
        member.regions.add(region.name)
        return True

    async def release(self, placed: Placed, over: bool) -> None:
        """over: whether it is certain that the server is done with the region."""
        if over:
            for dropped in self._regions.give_back(placed.region):
                await self._forget(dropped.name)
        else:
            self._regions.discard(placed.region)
            self._forget_later(placed.region.name)

    async def _forget(self, name: str) -> None:
        if not await self._unregister(name):
            self._forget_later(name)

    def _forget_later(self, name: str) -> None:
        self._quarantine.append((time.monotonic() + _QUARANTINE_S, name))

    async def close(self) -> None:
        """Have the servers forget all regions, and remove them."""
        for name in {name for member in self._members for name in member.regions}:
            for _ in range(_UNREGISTER_TRIES):
                if await self._unregister(name):
                    break
                await self._sleep(_UNREGISTER_WAIT_S)
        self._regions.close()

    async def _unregister(self, name: str) -> bool:
        """Have all servers forget it. False if one is still using it, which has to be told later:
        Triton lets go of a region a moment after it has sent the answer.
        """
        forgotten = True
        for member in self._members:
            if name not in member.regions:
                continue
            what = {"name": name}
            try:
                await self._call(member, Operation.UNREGISTER, what, _UNREGISTER_TIMEOUT_S)
            except (UnavailableError, DeadlineError):
                member.regions.clear()  # nor would it be told of the others
            except RequestError as error:
                if "in use" in str(error):
                    forgotten = False
                    continue
            member.regions.discard(name)
        return forgotten


def is_forgotten_region(error: RequestError) -> bool:
    """Whether the server refused a request because it does not know its region: it is another
    process than the one that was told of it.
    """
    return error.kind in ("invalid", "not_found") and "shared memory region" in str(error)
