"""How the two clients wait: the verbs are written once, as coroutines, over this.

The blocking side never really suspends, so `run` can drive a coroutine to its end in the calling
thread, without an event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from tritonkit.client.operations import Operation
from tritonkit.client.transport import AsyncTransport, Cancellation, Transport

T = TypeVar("T")

# Parts of a request that was too large for one, sent at the same time.
PARTS_IN_FLIGHT = 4


class IO(Protocol):
    """What the verbs need of the world."""

    async def send(
        self,
        transport: Any,
        message: Any,
        timeout_s: float | None,
        headers: Mapping[str, str],
        cancellation: Cancellation | None,
    ) -> Any:
        """Transport.send."""

    async def call(
        self,
        transport: Any,
        operation: Operation,
        arguments: Mapping[str, Any],
        timeout_s: float | None,
        headers: Mapping[str, str],
    ) -> Any:
        """Transport.call."""

    async def close(self, transport: Any) -> None:
        """Transport.close."""

    async def sleep(self, seconds: float) -> None:
        """Do nothing for a while."""

    async def all(self, parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """The results of all parts, in their order. The first failure ends them all."""

    async def acquire(self, timeout_s: float | None) -> bool:
        """Take the client's one lock. False if it was not to be had in time."""

    def release(self) -> None:
        """Give the lock back."""


class BlockingIO:
    """Blocks the calling thread or greenlet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def send(
        self,
        transport: Transport,
        message: Any,
        timeout_s: float | None,
        headers: Mapping[str, str],
        cancellation: Cancellation | None,
    ) -> Any:
        """Transport.send."""
        return transport.send(
            message, timeout_s=timeout_s, headers=headers, cancellation=cancellation
        )

    async def call(
        self,
        transport: Transport,
        operation: Operation,
        arguments: Mapping[str, Any],
        timeout_s: float | None,
        headers: Mapping[str, str],
    ) -> Any:
        """Transport.call."""
        return transport.call(operation, arguments, timeout_s=timeout_s, headers=headers)

    async def close(self, transport: Transport) -> None:
        """Transport.close."""
        transport.close()

    async def sleep(self, seconds: float) -> None:
        """time.sleep."""
        time.sleep(seconds)

    async def all(self, parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """One after the other."""
        results = []
        try:
            for part in parts:
                results.append(await part)
        finally:
            for part in parts[len(results) :]:
                part.close()
        return results

    async def acquire(self, timeout_s: float | None) -> bool:
        """A threading.Lock."""
        return self._lock.acquire(timeout=-1 if timeout_s is None else max(timeout_s, 0))

    def release(self) -> None:
        """Of a threading.Lock."""
        self._lock.release()


class AsyncIO:
    """Suspends the task. Everything else of the event loop goes on."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def send(
        self,
        transport: AsyncTransport,
        message: Any,
        timeout_s: float | None,
        headers: Mapping[str, str],
        cancellation: Cancellation | None,
    ) -> Any:
        """AsyncTransport.send; cancelling the task is all the cancellation there is."""
        return await transport.send(message, timeout_s=timeout_s, headers=headers)

    async def call(
        self,
        transport: AsyncTransport,
        operation: Operation,
        arguments: Mapping[str, Any],
        timeout_s: float | None,
        headers: Mapping[str, str],
    ) -> Any:
        """AsyncTransport.call."""
        return await transport.call(operation, arguments, timeout_s=timeout_s, headers=headers)

    async def close(self, transport: AsyncTransport) -> None:
        """AsyncTransport.close."""
        await transport.close()

    async def sleep(self, seconds: float) -> None:
        """asyncio.sleep."""
        await asyncio.sleep(seconds)

    async def all(self, parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """At most PARTS_IN_FLIGHT at once."""
        room = asyncio.Semaphore(PARTS_IN_FLIGHT)

        async def one(part: Coroutine[Any, Any, T]) -> T:
            async with room:
                return await part

        tasks = [asyncio.ensure_future(one(part)) for part in parts]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for part in parts:
                part.close()

    async def acquire(self, timeout_s: float | None) -> bool:
        """An asyncio.Lock."""
        try:
            return await asyncio.wait_for(self._lock.acquire(), timeout_s)
        except TimeoutError:
            return False

    def release(self) -> None:
        """Of an asyncio.Lock."""
        self._lock.release()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine over BlockingIO to its end, here and now."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise AssertionError("a coroutine over BlockingIO suspended")
