"""A client's calls, of whatever kind, to its servers: whose turn it is, tries, headers, events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from tritonkit.client.deadline import Deadline
from tritonkit.client.events import Event, Hook, RequestRetried, emit
from tritonkit.client.io import IO
from tritonkit.client.operations import Operation
from tritonkit.client.pool import Member, Pool
from tritonkit.client.retry import Budget, Retries, may_retry, try_again
from tritonkit.errors import DeadlineError, RequestError, UnavailableError

T = TypeVar("T")

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]

# How long a server that has failed may take to say that it is ready again.
_TRIAL_S = 1.0


class Calls:
    """The servers of one client. headers: of every call. hooks: are told of each event."""

    def __init__(
        self,
        transports: Sequence[Any],
        io: IO,
        retries: Retries,
        headers: Headers,
        hooks: Sequence[Hook],
    ):
        self.io = io
        self.hooks = tuple(hooks)
        self.pool = Pool(transports, self.tell)
        self._retries, self._budget = retries, Budget(retries)
        self._headers = headers
        self._closed = False

    async def deliver(
        self,
        send: Callable[[Member], Awaitable[T]],
        deadline: Deadline,
        model: str,
        repeatable: bool = True,
        sticky: int | None = None,
    ) -> T:
        """`send` to the server whose turn it is, and to the next if that may help."""
        tried: list[Member] = []
        try:
            return await self._attempt(send, deadline, tried, sticky)
        except RequestError as error:
            if self._closed or not may_retry(error, repeatable) or self._retries.tries <= 1:
                raise
            first = error

        def tell(error: RequestError, tries: int, wait_s: float) -> None:
            address = tried[-1].transport.address
            self.tell(RequestRetried(model, address, tries, wait_s, error.kind))

        return await try_again(
            partial(self._attempt, send, deadline, tried, sticky),
            first,
            self._retries,
            self._budget,
            repeatable=repeatable,
            deadline_s=deadline.at_s,
            elsewhere=lambda: sticky is None and len(set(tried)) < len(self.pool.members),
            sleep=self.io.sleep,
            before_wait=tell,
        )

    async def _attempt(
        self,
        send: Callable[[Member], Awaitable[T]],
        deadline: Deadline,
        tried: list[Member],
        sticky: int | None,
    ) -> T:
        member = self.pool.pick(tried, sticky)
        tried.append(member)
        try:
            if member.on_trial:
                await self._require_ready(member, deadline)
            answer = await send(member)
        except RequestError as error:
            self.pool.report(member, error)
            raise
        except BaseException:
            member.on_trial = False
            raise
        self.pool.report(member, None)
        self._budget.earn()
        return answer

    async def ask(
        self, operation: Operation, arguments: Mapping[str, Any], deadline: Deadline
    ) -> Any:
        """Carry out an operation on the server whose turn it is."""

        async def send(member: Member) -> Any:
            left_s = deadline.left_s(member.transport.address)
            return await self.call(member, operation, arguments, left_s)

        return await self.deliver(send, deadline, str(arguments.get("model", "")))

    async def call(
        self,
        member: Member,
        operation: Operation,
        arguments: Mapping[str, Any],
        timeout_s: float | None,
    ) -> Any:
        """Carry out an operation on this server, once."""
        self.require_open()
        headers = self.headers_of({})
        return await self.io.call(member.transport, operation, arguments, timeout_s, headers)

    async def _require_ready(self, member: Member, deadline: Deadline) -> None:
        left_s = deadline.left_s(member.transport.address)
        timeout_s = _TRIAL_S if left_s is None else min(_TRIAL_S, left_s / 2)
        try:
            ready = await self.io.call(
                member.transport, Operation.READY, {}, timeout_s, self.headers_of({})
            )
        except DeadlineError as error:  # of the trial, not of the request
            raise UnavailableError("refused", str(error)) from error
        if not ready:
            raise UnavailableError("refused", f"{member.transport.address}: not ready yet")

    def headers_of(self, more: Mapping[str, str]) -> Mapping[str, str]:
        """The client's headers, and these."""
        own = self._headers() if callable(self._headers) else self._headers
        return {**own, **more} if more else own

    def tell(self, event: Event) -> None:
        """Tell the hooks."""
        if self.hooks:
            emit(self.hooks, event)

    def addresses(self) -> str:
        """All servers, for people."""
        return ", ".join(m.transport.address for m in self.pool.members)

    def require_open(self) -> None:
        """UnavailableError if the client is closed."""
        if self._closed:
            raise UnavailableError("closed", "the client is closed")

    async def close(self) -> None:
        """Close the connections. What is called later raises UnavailableError."""
        self._closed = True
        for member in self.pool.members:
            await self.io.close(member.transport)
