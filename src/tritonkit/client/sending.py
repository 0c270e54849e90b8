"""One request on its way to a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonkit.client.deadline import Deadline
from tritonkit.client.io import IO
from tritonkit.client.placement import Placed, SharedTensors, is_forgotten_region
from tritonkit.client.pool import Member
from tritonkit.client.transport import Cancellation, InferRequest, InferResponse
from tritonkit.errors import RequestError


class Sending:
    """A request on its way, to one server or another: by wire, or its large tensors by memory.

    member: that was tried last. tries: how many were.
    """

    __slots__ = (
        *("_by_memory", "_by_wire", "_cancellation", "_deadline", "_headers", "_io", "_memory"),
        *("_placed", "_request", "member", "tries"),
    )

    def __init__(
        self,
        io: IO,
        memory: SharedTensors | None,
        request: InferRequest,
        placed: Placed | None,
        deadline: Deadline,
        headers: Mapping[str, str],
        cancellation: Cancellation | None,
    ):
        self._io = io
        self._memory, self._placed = memory, placed
        self._request = request
        self._deadline = deadline
        self._headers = headers
        self._cancellation = cancellation
        self._by_wire: Any = None
        self._by_memory: Any = None
        self.member: Member | None = None
        self.tries = 0

    async def to(self, member: Member) -> InferResponse:
        """Send it to this server, and read the answer."""
        self.member = member
        self.tries += 1
        if self._placed is not None:
            try:
                response = await self._through_memory(member, self._placed)
                if response is not None:
                    return response
            except RequestError as error:
                if not is_forgotten_region(error):
                    raise
                member.regions.clear()  # for the next request; this one goes by wire
        if self._by_wire is None:
            self._by_wire = member.transport.encode(self._request)
        return await self._post(member, self._by_wire)

    async def _through_memory(self, member: Member, placed: Placed) -> InferResponse | None:
        """None if the server takes no regions."""
        assert self._memory is not None
        left_s = self._deadline.left_s(self._request.model)
        if not await self._memory.register(member, placed, left_s):
            return None
        if self._by_memory is None:
            self._by_memory = member.transport.encode(placed.request)
        return placed.collect(await self._post(member, self._by_memory))

    async def _post(self, member: Member, message: Any) -> InferResponse:
        left_s = self._deadline.left_s(self._request.model)
        transport = member.transport
        response: InferResponse = transport.decode(
            await self._io.send(transport, message, left_s, self._headers, self._cancellation)
        )
        return response
